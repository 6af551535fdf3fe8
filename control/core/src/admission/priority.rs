//! Priorities of pods, by their class.
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-priority-preemption/>.

use serde_json::Value;

use crate::kinds::value::{child, flag, has, int, set, text};

/// What a PriorityClass gives its pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// Its name; empty where no class is the default.
    pub name: String,
    /// The priority.
    pub value: i64,
    /// Whether its pods push others out.
    pub preemption: String,
}

impl Class {
    /// What a PriorityClass says.
    pub fn of(class: &Value) -> Self {
        let preemption = match text(class, "/preemptionPolicy") {
            "" => "PreemptLowerPriority",
            given => given,
        };
        Self {
            name: text(class, "/metadata/name").into(),
            value: int(class, "/value").unwrap_or(0),
            preemption: preemption.into(),
        }
    }
    /// What a PriorityClass says if it is for pods that name none.
    pub fn of_default(class: &Value) -> Option<Self> {
        flag(class, "/globalDefault").then(|| Self::of(class))
    }
    /// The class of pods that name none: the default with the lowest value, or none at all.
    pub fn default_of(defaults: impl IntoIterator<Item = Self>) -> Self {
        let none = || Self { name: String::new(), value: 0, preemption: "PreemptLowerPriority".into() };
        defaults.into_iter().min_by_key(|class| class.value).unwrap_or_else(none)
    }
}

/// The class that a pod names.
pub fn named(pod: &Value) -> Option<&str> {
    Some(text(pod, "/spec/priorityClassName")).filter(|name| !name.is_empty())
}

/// Gives a new pod its class's priority.
///
/// # Errors
/// The pod says another priority or policy than its class.
pub fn resolve(pod: &mut Value, class: &Class) -> Result<(), String> {
    let Some(spec) = child(pod, "spec") else { return Ok(()) };
    if let Some(given) = int(spec, "/priority").filter(|given| *given != class.value) {
        return Err(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller \
             computed {} from the given PriorityClass name",
            class.value
        ));
    }
    let given = text(spec, "/preemptionPolicy");
    if !given.is_empty() && given != class.preemption {
        return Err(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission \
             controller computed {} from the given PriorityClass name",
            class.preemption
        ));
    }
    if !class.name.is_empty() {
        set(spec, "priorityClassName", class.name.clone());
    }
    set(spec, "priority", class.value);
    set(spec, "preemptionPolicy", class.preemption.clone());
    Ok(())
}

/// Carries a pod's priority into an update that leaves it out.
pub fn carry(new: &mut Value, old: &Value) {
    for field in ["priority", "preemptionPolicy"] {
        let pointer = format!("/spec/{field}");
        if let Some(value) = old.pointer(&pointer).filter(|_| !has(new, &pointer))
            && let Some(spec) = child(new, "spec")
        {
            set(spec, field, value.clone());
        }
    }
}

/// Whether a PriorityClass may be written beside the one that is the default already.
///
/// # Errors
/// Both would be the default.
pub fn check_class(class: &Value, default: &Class) -> Result<(), String> {
    let same = text(class, "/metadata/name") == default.name;
    if !flag(class, "/globalDefault") || default.name.is_empty() || same {
        return Ok(());
    }
    Err(format!("PriorityClass {} is already marked as default. Only one default can exist", default.name))
}
