//! The claims of pods' ephemeral volumes: made for a pod, named after it, and gone with it.
//! Source: <https://kubernetes.io/docs/concepts/storage/ephemeral-volumes/#generic-ephemeral-volumes>.

use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use serde_json::json;

use super::meta::{self, text};
use super::volume_claims::claims;
use super::{Action, Plan, Target, pod};

/// Makes the claims that a pod lacks. `find` finds a claim of the pod's namespace by name.
pub fn reconcile<C>(pod: &Pod, find: impl Fn(&str) -> Option<C>) -> Plan
where
    C: AsRef<PersistentVolumeClaim>,
{
    let mut plan = Plan::nothing("its ephemeral volumes get claims");
    if !pod::active(pod) {
        return plan;
    }
    let (namespace, uid) = (text(&pod.metadata.namespace), text(&pod.metadata.uid));
    for volume in pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()) {
        let Some(template) = volume.ephemeral.as_ref().and_then(|e| e.volume_claim_template.as_ref()) else { continue };
        let name = format!("{}-{}", text(&pod.metadata.name), volume.name);
        match find(&name) {
            None => plan.actions.push(Action::Create {
                target: Target::new(claims(), namespace, &name),
                object: json!({
                    "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                    "metadata": {
                        "name": name, "namespace": namespace,
                        "labels": template.metadata.as_ref().and_then(|m| m.labels.as_ref()),
                        "annotations": template.metadata.as_ref().and_then(|m| m.annotations.as_ref()),
                        "ownerReferences": [meta::controller_ref("v1", "Pod", &pod.metadata)],
                    },
                    "spec": template.spec,
                }),
            }),
            Some(claim) if meta::controlled_by(&claim.as_ref().metadata, uid) => {}
            Some(_) => plan.warn(
                "FailedBinding",
                format!("ephemeral volume {:?}: PVC {name:?} was not created for this pod: rename one", volume.name),
            ),
        }
    }
    plan
}

/// Whether a pod has ephemeral volumes.
pub fn has_any(pod: &Pod) -> bool {
    pod.spec.iter().flat_map(|s| s.volumes.iter().flatten()).any(|v| v.ephemeral.is_some())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::testing::yaml;
    use super::*;

    #[test]
    fn claims_are_made_once_and_not_taken_over() {
        let pod: Pod = yaml(
            "metadata: {name: p, namespace: shop, uid: u}\nspec: {containers: [], volumes: [{name: a, emptyDir: {}}, {name: v, ephemeral: {volumeClaimTemplate: {metadata: {labels: {x: z}}, spec: {accessModes: [ReadWriteOnce]}}}}]}",
        );
        let none = |_: &str| None::<Arc<PersistentVolumeClaim>>;
        let plan = reconcile(&pod, none);
        let [Action::Create { target, object }] = plan.actions.as_slice() else { panic!("{plan:?}") };
        assert_eq!((target.name.as_str(), &object["metadata"]["labels"]["x"]), ("p-v", &json!("z")));
        assert_eq!(object["metadata"]["ownerReferences"][0]["uid"], "u");
        assert_eq!(object["spec"]["accessModes"], json!(["ReadWriteOnce"]));
        let made: Arc<PersistentVolumeClaim> = Arc::new(serde_json::from_value(object.clone()).unwrap());
        assert_eq!(reconcile(&pod, |_| Some(made.clone())).notes, []);
        let other: Arc<PersistentVolumeClaim> = Arc::new(yaml("metadata: {name: p-v}"));
        let refused = reconcile(&pod, |_| Some(other.clone()));
        assert!(refused.is_empty() && refused.notes[0].message.contains("was not created for this pod"));
        let mut ended = pod.clone();
        ended.status = Some(yaml("phase: Succeeded"));
        assert!(reconcile(&ended, none).is_empty() && has_any(&pod));
    }
}
