//! Which workloads an object concerns.

use copepod_api::LabelSelector;
use copepod_client::{Key, Shared};
use copepod_core::controllers::meta::{self, HasMeta};
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
    K: kube::Resource<Scope = NamespaceResourceScope> + HasMeta + Clone + std::fmt::Debug + Send + Sync + 'static,
{
    let namespace = meta::text(&object.namespace);
    if let Some(owner) = meta::controller_of(object) {
        return if owner.kind == kind { vec![Key::new(namespace, &owner.name)] } else { Vec::new() };
    }
    let selects = |workload: &K| {
        let selector = selector(workload).and_then(|s| LabelSelector::from_typed(Some(&s)).ok());
        selector.is_some_and(|s| !s.is_empty() && meta::selects(&s, object))
    };
    workloads.list(namespace).iter().filter(|w| selects(w)).map(|w| Key::of(&**w)).collect()
}
