//! What changes in a pod through `/ephemeralcontainers` and `/resize`.
//! Sources: <https://kubernetes.io/docs/concepts/workloads/pods/ephemeral-containers/>,
//! <https://kubernetes.io/docs/tasks/configure-pod-container/resize-container-resources/>.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::value::{child, items_mut, list, remove, set, text};
use super::{pod, pod_defaults, pod_validation};

/// The present pod with the new one's ephemeral containers.
///
/// # Errors
/// One that is there already is changed or removed, or a new one is not valid.
pub fn changed_ephemeral_containers(new: &Value, old: &Value) -> Result<Value, Vec<FieldError>> {
    const LIST: &str = "/spec/ephemeralContainers";
    let mut changed = old.clone();
    if let Some(spec) = child(&mut changed, "spec") {
        set(spec, "ephemeralContainers", list(new, LIST));
        pod_defaults::pod_spec(spec);
    }
    let by_name = |o: &Value, name: &str| list(o, LIST).iter().find(|c| text(c, "/name") == name).cloned();
    let mut errors = Vec::new();
    for (i, before) in list(old, LIST).iter().enumerate() {
        let field = format!("spec.ephemeralContainers[{i}]");
        match by_name(&changed, text(before, "/name")) {
            None => {
                let message = format!("existing ephemeral containers {:?} may not be removed", text(before, "/name"));
                errors.push(FieldError::forbidden(field, &message));
            }
            Some(after) if after != *before => {
                let message = format!("existing ephemeral containers {:?} may not be changed", text(before, "/name"));
                errors.push(FieldError::forbidden(field, &message));
            }
            Some(_) => {}
        }
    }
    finish(changed, errors)
}

/// The present pod with the new one's cpu and memory of its containers.
///
/// # Errors
/// A container is not there, another resource or the pod's quality of service class would change, or a value is not
/// valid.
pub fn changed_resources(new: &Value, old: &Value) -> Result<Value, Vec<FieldError>> {
    let (mut changed, mut errors) = (old.clone(), Vec::new());
    for key in ["containers", "initContainers"] {
        let pointer = format!("/spec/{key}");
        let wanted: Vec<Value> = list(new, &pointer).to_vec();
        if wanted.len() != list(old, &pointer).len() {
            errors.push(FieldError::forbidden(format!("spec.{key}"), "pod resize may not add or remove containers"));
            continue;
        }
        for container in items_mut(&mut changed, &pointer) {
            let Some(wanted) = wanted.iter().find(|c| text(c, "/name") == text(container, "/name")) else {
                let message = "pod resize may not rename containers";
                errors.push(FieldError::forbidden(format!("spec.{key}"), message));
                continue;
            };
            match wanted.get("resources") {
                Some(resources) => set(container, "resources", resources.clone()),
                None => drop(remove(container, "", "resources")),
            }
            for kind in ["requests", "limits"] {
                let others = |c: &Value| {
                    let mut all = c.pointer(&format!("/resources/{kind}")).cloned().unwrap_or_else(|| json!({}));
                    ["cpu", "memory"].iter().for_each(|name| drop(remove(&mut all, "", name)));
                    all
                };
                let before = list(old, &pointer).iter().find(|c| text(c, "/name") == text(container, "/name"));
                if before.is_some_and(|before| others(before) != others(container)) {
                    let message = "only cpu and memory resources are mutable";
                    errors.push(FieldError::forbidden("spec", message));
                }
            }
        }
    }
    if let Some(spec) = child(&mut changed, "spec") {
        pod_defaults::pod_spec(spec);
    }
    if errors.is_empty() && pod::qos_class(&changed) != pod::qos_class(old) {
        let message = "Pod QOS Class may not change as a result of resizing";
        errors.push(FieldError::invalid("metadata", &json!(text(old, "/metadata/name")), message));
    }
    finish(changed, errors)
}

fn finish(changed: Value, mut errors: Vec<FieldError>) -> Result<Value, Vec<FieldError>> {
    errors.extend(pod_validation::pod(&changed));
    if errors.is_empty() { Ok(changed) } else { Err(errors) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(containers: Value, ephemeral: Value) -> Value {
        let mut pod = json!({"metadata": {"name": "p"}, "spec": {"containers": containers, "nodeName": "n",
            "ephemeralContainers": ephemeral}, "status": {"phase": "Running"}});
        pod_defaults::pod(&mut pod);
        pod
    }

    fn told(result: Result<Value, Vec<FieldError>>) -> String {
        result.map_or_else(|e| e.iter().map(|e| format!("{e}\n")).collect(), |_| "ok".into())
    }

    #[test]
    fn ephemeral_containers_only_grow() {
        let one = json!([{"name": "a", "image": "x:1"}]);
        let old = pod(one.clone(), json!([{"name": "d", "image": "y:1"}]));
        for (list, want) in [
            (json!([{"name": "d", "image": "y:1"}, {"name": "e", "image": "z:1"}]), "ok"),
            (json!([{"name": "d", "image": "y:2"}]), "may not be changed"),
            (json!([]), "may not be removed"),
            (json!([{"name": "d", "image": "y:1"}, {"name": "a", "image": "z:1"}]), "Duplicate value"),
            (json!([{"name": "d", "image": "y:1"}, {"name": "e"}]), "image"),
        ] {
            let got =
                told(changed_ephemeral_containers(&pod(json!([{"name": "b", "image": "other"}]), list.clone()), &old));
            assert!(got.contains(want), "{list}: {got}");
        }
        let changed = changed_ephemeral_containers(
            &json!({"spec": {"ephemeralContainers": [{"name": "d", "image": "y:1"}, {"name": "e", "image": "z"}]}}),
            &pod(one, json!([{"name": "d", "image": "y:1"}])),
        );
        let changed = changed.unwrap();
        assert_eq!(changed.pointer("/spec/ephemeralContainers/1/imagePullPolicy"), Some(&json!("Always")));
        assert_eq!(changed.pointer("/spec/containers/0/image"), Some(&json!("x:1")));
    }

    #[test]
    fn resize_changes_cpu_and_memory_alone() {
        let with = |resources: Value| pod(json!([{"name": "a", "image": "x:1", "resources": resources}]), json!([]));
        let old = with(json!({"requests": {"cpu": "1", "memory": "1Gi"}}));
        for (resources, want) in [
            (json!({"requests": {"cpu": "2", "memory": "1Gi"}}), "ok"),
            (json!({"requests": {"cpu": "2", "memory": "1Gi", "ephemeral-storage": "1Gi"}}), "only cpu and memory"),
            (json!({}), "Pod QOS Class may not change"),
            (json!({"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}), "must be less than or equal to cpu limit"),
        ] {
            let got = told(changed_resources(&with(resources.clone()), &old));
            assert!(got.contains(want), "{resources}: {got}");
        }
        assert!(told(changed_resources(&pod(json!([]), json!([])), &old)).contains("may not add or remove"));
    }
}
