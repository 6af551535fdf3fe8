//! Amounts of resources by name, and what a pod asks for altogether.

use std::collections::BTreeMap;

use copepod_api::Quantity;
use serde_json::{Value, json};

use crate::kinds::value::{entries, list, text};
use crate::validate::quantity;

/// Amounts by resource name.
pub type Amounts = BTreeMap<String, Quantity>;

/// The amounts in the map at a JSON pointer; what is no quantity is left out.
pub fn at(value: &Value, pointer: &str) -> Amounts {
    entries(value, pointer).filter_map(|(name, v)| Some((name.clone(), quantity(v).ok()?))).collect()
}

/// Amounts as objects carry them.
pub fn to_value(amounts: &Amounts) -> Value {
    amounts.iter().map(|(name, q)| (name.clone(), json!(q.to_string()))).collect::<serde_json::Map<_, _>>().into()
}

/// Adds each amount.
pub fn add(total: &mut Amounts, more: &Amounts) {
    for (name, amount) in more {
        *total.entry(name.clone()).or_default() += *amount;
    }
}

/// Raises each amount to the other's.
fn raise(total: &mut Amounts, other: &Amounts) {
    for (name, amount) in other {
        let slot = total.entry(name.clone()).or_insert(*amount);
        *slot = (*slot).max(*amount);
    }
}

/// What a pod asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// `requests`.
    Requests,
    /// `limits`.
    Limits,
}

impl Ask {
    fn field(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Limits => "limits",
        }
    }
    /// What a container, or a claim's `spec`, asks for.
    pub fn of(self, holder: &Value) -> Amounts {
        at(holder, &format!("/resources/{}", self.field()))
    }
}

/// What a pod asks for while it starts and runs: its containers and sidecars together, or what an init container needs
/// beside the sidecars before it, whichever is more; what the pod as a whole says wins.
pub fn of_pod(pod: &Value, ask: Ask) -> Amounts {
    let (mut running, mut sidecars, mut starting) = (Amounts::new(), Amounts::new(), Amounts::new());
    for container in list(pod, "/spec/containers") {
        add(&mut running, &ask.of(container));
    }
    for container in list(pod, "/spec/initContainers") {
        let mut own = ask.of(container);
        if text(container, "/restartPolicy") == "Always" {
            add(&mut running, &own);
            add(&mut sidecars, &own);
            own = sidecars.clone();
        } else {
            add(&mut own, &sidecars);
        }
        raise(&mut starting, &own);
    }
    raise(&mut running, &starting);
    running.extend(whole(pod, ask));
    running
}

/// What the pod as a whole asks for, beside its containers.
pub fn whole(pod: &Value, ask: Ask) -> Amounts {
    let mut given = pod.get("spec").map(|spec| ask.of(spec)).unwrap_or_default();
    given.retain(|name, _| name == "cpu" || name == "memory" || name.starts_with("hugepages-"));
    given
}

/// What a pod asks for with its sandbox's overhead, which raises only limits that are set.
pub fn of_pod_with_overhead(pod: &Value, ask: Ask) -> Amounts {
    let mut total = of_pod(pod, ask);
    let mut overhead = at(pod, "/spec/overhead");
    if ask == Ask::Limits {
        overhead.retain(|name, _| total.get(name).is_some_and(|limit| !limit.is_zero()));
    }
    add(&mut total, &overhead);
    total
}
