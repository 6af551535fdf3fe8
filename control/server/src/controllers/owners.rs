//! Which workloads an object concerns, and which objects a workload.

use std::sync::Arc;

use copepod_api::LabelSelector;
use copepod_client::{Key, Shared};
use copepod_core::controllers::{Action, Plan, meta};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector as Selector, ObjectMeta};

/// The workloads of a kind that an object concerns: the one that controls it, or for an orphan all that select it.
pub(super) fn owners_of<K>(
    object: &ObjectMeta,
    kind: &str,
    workloads: &Shared<K>,
    selector: impl Fn(&K) -> Option<Selector>,
) -> Vec<Key>
where
    K: kube::Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let namespace = meta::text(&object.namespace);
    if let Some(owner) = meta::controller_of(object) {
        return if owner.kind == kind { vec![Key::new(namespace, &owner.name)] } else { Vec::new() };
    }
    // Empty selectors select nothing here.
    let selects = |workload: &K| {
        let selector = selector(workload).and_then(|s| LabelSelector::from_typed(Some(&s)).ok());
        selector.is_some_and(|s| !s.is_empty() && meta::selects(&s, object))
    };
    workloads.list(namespace).iter().filter(|w| selects(w)).map(|w| Key::of(&**w)).collect()
}

/// Decides with what a workload may claim; and once more, with objects of others that have the names which the plan would
/// give to new ones.
pub(super) fn decide_with_names<K>(
    cache: &Shared<K>,
    mut claimable: Vec<Arc<K>>,
    mut decide: impl FnMut(&[Arc<K>]) -> Plan,
) -> Plan
where
    K: k8s_openapi::Resource + kube::Resource + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let plan = decide(&claimable);
    let taken = plan.actions.iter().filter_map(|action| match action {
        Action::Create { target, .. } if target.gvr.resource == K::URL_PATH_SEGMENT => {
            cache.get(&Key::new(&target.namespace, &target.name))
        }
        _ => None,
    });
    let before = claimable.len();
    claimable.extend(taken);
    if claimable.len() == before { plan } else { decide(&claimable) }
}
