//! What a RuntimeClass adds to its pods: the overhead of their sandbox, and where they run.
//! Sources: <https://kubernetes.io/docs/concepts/containers/runtime-class/>,
//! <https://kubernetes.io/docs/concepts/scheduling-eviction/pod-overhead/>.

use serde_json::{Value, json};

use super::amounts;
use crate::kinds::value::{child, entries, has, int, list, set, text};

/// The RuntimeClass that a pod names.
pub fn named(pod: &Value) -> Option<&str> {
    pod.pointer("/spec/runtimeClassName").and_then(Value::as_str)
}

/// Merges the class into a new pod.
///
/// # Errors
/// The pod says another overhead, or asks for nodes that are not the class's.
pub fn merge(pod: &mut Value, class: Option<&Value>) -> Result<(), String> {
    let defined = class.filter(|c| has(c, "/overhead")).map(|c| amounts::at(c, "/overhead/podFixed"));
    let given = has(pod, "/spec/overhead").then(|| amounts::at(pod, "/spec/overhead"));
    match (&defined, given) {
        (None, Some(_)) => {
            return Err("pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead".into());
        }
        (Some(defined), Some(given)) if *defined != given => {
            return Err("pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead".into());
        }
        _ => {}
    }
    let Some((class, spec)) = class.zip(child(pod, "spec")) else { return Ok(()) };
    if let Some(fixed) = class.pointer("/overhead/podFixed").filter(|_| defined.is_some()) {
        set(spec, "overhead", fixed.clone());
    }
    if has(class, "/scheduling") {
        scheduling(spec, class)?;
    }
    Ok(())
}

fn scheduling(spec: &mut Value, class: &Value) -> Result<(), String> {
    for (key, wanted) in entries(class, "/scheduling/nodeSelector") {
        let Some(selector) = child(spec, "nodeSelector") else { continue };
        if let Some(given) = selector.get(key).filter(|given| *given != wanted) {
            let (wanted, given) = (wanted.as_str().unwrap_or_default(), given.as_str().unwrap_or_default());
            return Err(format!(
                "conflict: runtimeClass.scheduling.nodeSelector[{key}] = {wanted}; \
                 pod.spec.nodeSelector[{key}] = {given}"
            ));
        }
        set(selector, key, wanted.clone());
    }
    let more = list(class, "/scheduling/tolerations");
    if !more.is_empty() {
        let all: Vec<Value> = list(spec, "/tolerations").iter().chain(more).cloned().collect();
        set(spec, "tolerations", json!(without_covered(&all)));
    }
    Ok(())
}

/// The tolerations without those that another covers; of equal ones the first stays.
fn without_covered(all: &[Value]) -> Vec<&Value> {
    let mut kept: Vec<&Value> = Vec::new();
    for (i, toleration) in all.iter().enumerate() {
        let later = all.iter().skip(i + 1).any(|other| other != toleration && covers(other, toleration));
        if !later && !kept.iter().any(|other| covers(other, toleration)) {
            kept.push(toleration);
        }
    }
    kept
}

/// Whether `wide` tolerates all that `narrow` does.
fn covers(wide: &Value, narrow: &Value) -> bool {
    if wide == narrow {
        return true;
    }
    let (w, n) = (|field: &str| text(wide, field), |field: &str| text(narrow, field));
    let exists = w("/operator") == "Exists";
    if n("/key") != w("/key") && !(w("/key").is_empty() && exists) {
        return false;
    }
    if !w("/effect").is_empty() && n("/effect") != w("/effect") {
        return false;
    }
    if w("/effect") == "NoExecute"
        && let Some(most) = int(wide, "/tolerationSeconds")
        && int(narrow, "/tolerationSeconds").is_none_or(|seconds| seconds > most)
    {
        return false;
    }
    match w("/operator") {
        "Exists" => true,
        "" | "Equal" => matches!(n("/operator"), "" | "Equal") && n("/value") == w("/value"),
        _ => false,
    }
}
