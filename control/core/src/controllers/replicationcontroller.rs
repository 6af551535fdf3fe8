//! ReplicationController: decided on as the ReplicaSet that it would be.
//! Source: <https://kubernetes.io/docs/concepts/workloads/controllers/replicationcontroller/>.

use k8s_openapi::api::apps::v1::{ReplicaSet, ReplicaSetCondition, ReplicaSetSpec, ReplicaSetStatus};
use k8s_openapi::api::core::v1::{ReplicationController, ReplicationControllerCondition, ReplicationControllerStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};

use super::meta::HasMeta;

impl HasMeta for ReplicationController {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

/// The ReplicaSet that stands for a ReplicationController in
/// [`replicaset::reconcile`](super::replicaset::reconcile).
pub fn as_replica_set(controller: &ReplicationController) -> ReplicaSet {
    let spec = controller.spec.as_ref().map(|spec| ReplicaSetSpec {
        min_ready_seconds: spec.min_ready_seconds,
        replicas: spec.replicas,
        selector: LabelSelector { match_labels: spec.selector.clone(), match_expressions: None },
        template: spec.template.clone(),
    });
    ReplicaSet { metadata: controller.metadata.clone(), spec, status: controller.status.as_ref().map(status) }
}

fn status(of: &ReplicationControllerStatus) -> ReplicaSetStatus {
    let condition = |c: &ReplicationControllerCondition| ReplicaSetCondition {
        type_: c.type_.clone(),
        status: c.status.clone(),
        reason: c.reason.clone(),
        message: c.message.clone(),
        last_transition_time: c.last_transition_time.clone(),
    };
    ReplicaSetStatus {
        replicas: of.replicas,
        fully_labeled_replicas: of.fully_labeled_replicas,
        ready_replicas: of.ready_replicas,
        available_replicas: of.available_replicas,
        terminating_replicas: None,
        observed_generation: of.observed_generation,
        conditions: of.conditions.as_ref().map(|all| all.iter().map(condition).collect()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::replicaset::{self, Kind};
    use super::super::testing::*;
    use super::super::{Action, Plan};
    use super::*;

    fn controller(status: &str) -> ReplicationController {
        yaml(&format!(
            "metadata: {{name: web, namespace: shop, uid: rc1, generation: 3}}\nstatus: {status}\n\
             spec:\n  replicas: 1\n  selector: {{app: web}}\n  template:\n    \
             metadata: {{labels: {{app: web}}}}\n    spec: {{containers: [{{name: c, image: i}}]}}"
        ))
    }

    fn plan(controller: &ReplicationController, pods: &[std::sync::Arc<k8s_openapi::api::core::v1::Pod>]) -> Plan {
        replicaset::reconcile(Kind::ReplicationController, &as_replica_set(controller), pods, &[], now())
    }

    #[test]
    fn pods_and_status_are_the_controllers() {
        let plan = plan(&controller("{replicas: 2}"), &[]);
        let [Action::Create { object, .. }] = plan.actions.as_slice() else { panic!("{plan:?}") };
        let owner = &object["metadata"]["ownerReferences"][0];
        assert_eq!(
            (&owner["apiVersion"], &owner["kind"], &owner["uid"]),
            (&json!("v1"), &json!("ReplicationController"), &json!("rc1"))
        );
        let Some(Action::Patch { target, patch, .. }) = &plan.status else { panic!("{plan:?}") };
        assert_eq!(target.path(), "/api/v1/namespaces/shop/replicationcontrollers/web");
        assert_eq!((&patch["status"]["replicas"], &patch["status"]["observedGeneration"]), (&json!(0), &json!(3)));
    }

    #[test]
    fn nothing_is_written_once_it_is_as_asked_for() {
        let pod = std::sync::Arc::new(pod_yaml(
            "web-1",
            "labels: {app: web}, ownerReferences: [{apiVersion: v1, kind: ReplicationController, name: web, uid: rc1, controller: true}]",
        ));
        let status =
            "{replicas: 1, fullyLabeledReplicas: 1, readyReplicas: 0, availableReplicas: 0, observedGeneration: 3}";
        let plan = plan(&controller(status), &[pod]);
        assert!(plan.is_empty(), "{plan:?}");
    }
}
