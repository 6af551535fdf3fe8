//! Drives the PodDisruptionBudget decision.

use copepod_client::{Key, Outcome};
use copepod_core::controllers::disruption::{self, Scale};
use copepod_core::controllers::{Target, meta};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::caches::Caches;
use super::context::{Context, Running, about, add_all};

/// Runs the controller.
pub(super) fn run(context: Context) -> Running {
    let queue = context.queue::<Key>();
    let caches = context.caches.clone();
    let q = queue.clone();
    caches.budgets.on_change(move |change| add_all(&q, change.last().map(|b| Key::of(&**b))));
    let (q, c) = (queue.clone(), caches.clone());
    caches.pods.on_change(move |change| {
        for pod in change.both() {
            let namespace = meta::text(&pod.metadata.namespace);
            let guards = |b: &k8s_openapi::api::policy::v1::PodDisruptionBudget| {
                let selector = b.spec.as_ref().and_then(|s| s.selector.as_ref());
                let parsed = copepod_api::LabelSelector::from_typed(selector);
                selector.is_some() && parsed.is_ok_and(|s| meta::selects(&s, &pod.metadata))
            };
            add_all(&q, c.budgets.list(namespace).iter().filter(|b| guards(b)).map(|b| Key::of(&**b)));
        }
    });
    // A scale that changes without its pods having changed yet.
    let (q, c) = (queue.clone(), caches.clone());
    let scaled = move |meta: Option<&ObjectMeta>| {
        let namespace = meta.and_then(|m| m.namespace.as_deref()).unwrap_or_default();
        add_all(&q, c.budgets.list(namespace).iter().map(|b| Key::of(&**b)));
    };
    let tell = scaled.clone();
    caches.deployments.on_change(move |change| tell(change.last().map(|d| &d.metadata)));
    caches.stateful_sets.on_change(move |change| scaled(change.last().map(|s| &s.metadata)));
    context.work(queue, |context, key| async move { reconcile(&context, &key).await })
}

async fn reconcile(context: &Context, key: &Key) -> Outcome {
    let caches = &context.caches;
    let Some(budget) = caches.budgets.get(key) else { return Outcome::Done };
    let scale = |owner: &OwnerReference| scale_of(caches, &key.namespace, owner);
    let plan = disruption::reconcile(&budget, &caches.pods.list(&key.namespace), scale, context.now());
    let path = Target::new(meta::v1("policy", "poddisruptionbudgets"), &key.namespace, &key.name).path();
    context.apply(&plan, &about("policy/v1", "PodDisruptionBudget", &budget.metadata), &path).await.1
}

/// What scales the controller of a pod: a Deployment above its ReplicaSet.
fn scale_of(caches: &Caches, namespace: &str, owner: &OwnerReference) -> Option<Scale> {
    let key = Key::new(namespace, &owner.name);
    let of = |uid: &Option<String>, replicas: Option<i32>| Scale {
        uid: meta::text(uid).into(),
        replicas: replicas.unwrap_or(1),
    };
    match owner.kind.as_str() {
        "ReplicaSet" => {
            let set = caches.replica_sets.get(&key).filter(|s| s.metadata.uid.as_deref() == Some(&owner.uid))?;
            let deployment = meta::controller_of(&set.metadata)
                .filter(|above| above.kind == "Deployment")
                .and_then(|above| caches.deployments.get(&Key::new(namespace, &above.name)));
            Some(match deployment {
                Some(d) => of(&d.metadata.uid, d.spec.as_ref().and_then(|s| s.replicas)),
                None => of(&set.metadata.uid, set.spec.as_ref().and_then(|s| s.replicas)),
            })
        }
        "StatefulSet" => {
            let set = caches.stateful_sets.get(&key).filter(|s| s.metadata.uid.as_deref() == Some(&owner.uid))?;
            Some(of(&set.metadata.uid, set.spec.as_ref().and_then(|s| s.replicas)))
        }
        "ReplicationController" => {
            let found = caches.replication_controllers.get(&key);
            let found = found.filter(|c| c.metadata.uid.as_deref() == Some(&owner.uid))?;
            Some(of(&found.metadata.uid, found.spec.as_ref().and_then(|s| s.replicas)))
        }
        _ => None,
    }
}
