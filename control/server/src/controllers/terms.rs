//! By which terms the caches' objects are found: what concerns a pod, and the pods that something concerns, are looked
//! up and never sought among all that a namespace or the cluster has.

use std::sync::Arc;

use copepod_api::LabelSelector;
use copepod_api::names::LABEL_SERVICE_NAME;
use copepod_api::selector::Operator;
use copepod_client::{Key, Terms};
use copepod_core::controllers::volume_claims::{BIND_COMPLETED, annotation, claim_class, volume_name};
use copepod_core::controllers::{endpointslice, meta, pod, statefulset_pods, volume_protection};
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::caches::Caches;

/// Pods: by each label, by node, and by each claim that they use.
pub(super) const PODS: Terms<Pod> = Terms::Each(|pod| {
    let namespace = meta::text(&pod.metadata.namespace);
    let mut terms = labels_of(&pod.metadata);
    let node = pod::node_name(pod);
    if !node.is_empty() {
        terms.push(on_node(node));
    }
    terms.extend(volume_protection::claims_of(pod).iter().map(|name| using(namespace, name)));
    terms
});

/// Services: by a label that they select.
pub(super) const SERVICES: Terms<Service> = Terms::One(|service| {
    let selector = endpointslice::selector(service).unwrap_or_else(LabelSelector::nothing);
    asked(meta::text(&service.metadata.namespace), &selector)
});

/// Slices: by the Service that they are labelled with.
pub(super) const SLICES: Terms<EndpointSlice> = Terms::Each(|slice| {
    let namespace = meta::text(&slice.metadata.namespace);
    let name = slice.metadata.labels.as_ref().and_then(|l| l.get(LABEL_SERVICE_NAME));
    name.map(|name| label(namespace, LABEL_SERVICE_NAME, name)).into_iter().collect()
});

/// Budgets: by a label that they select, or as one that asks for none.
pub(super) const BUDGETS: Terms<PodDisruptionBudget> = Terms::One(|budget| {
    let namespace = meta::text(&budget.metadata.namespace);
    let Some(selector) = selector_of(budget) else { return Vec::new() };
    let asked = asked(namespace, &selector);
    if asked.is_empty() { vec![any(namespace)] } else { asked }
});

/// StatefulSets: by what the names of their claims begin with.
pub(super) const SETS: Terms<StatefulSet> = Terms::Each(stems_of);

/// Claims: by what their name begins with before a number, and, until they are bound, by their class and by the volume
/// that they name.
pub(super) const CLAIMS: Terms<PersistentVolumeClaim> = Terms::Each(|claim| {
    let mut terms: Vec<String> = stem_of(claim).into_iter().collect();
    if annotation(&claim.metadata, BIND_COMPLETED).is_none() {
        terms.push(unbound(claim_class(claim)));
        let volume = volume_name(claim);
        if !volume.is_empty() {
            terms.push(wanting(volume));
        }
    }
    terms
});

/// Claims that are not bound and of this class, or name none.
pub(super) fn unbound(class: Option<&str>) -> String {
    class.map_or_else(|| "unbound".into(), |class| format!("unbound of {class}"))
}
/// Claims that are not bound and name this volume.
pub(super) fn wanting(volume: &str) -> String {
    format!("wanting {volume}")
}

/// What the names of a set's claims begin with.
fn stems_of(set: &StatefulSet) -> Vec<String> {
    let namespace = meta::text(&set.metadata.namespace);
    let stem = |(name, _): (String, _)| name.rsplit_once('-').map(|(stem, _)| claims(namespace, stem));
    statefulset_pods::claims_of(set, 0).filter_map(stem).collect()
}
/// What a claim's name begins with.
fn stem_of(claim: &PersistentVolumeClaim) -> Option<String> {
    let (stem, _) = meta::text(&claim.metadata.name).rsplit_once('-')?;
    Some(claims(meta::text(&claim.metadata.namespace), stem))
}
fn claims(namespace: &str, stem: &str) -> String {
    format!("claims {namespace}/{stem}")
}

fn label(namespace: &str, key: &str, value: &str) -> String {
    format!("label {namespace} {key}={value}")
}
fn any(namespace: &str) -> String {
    format!("any {namespace}")
}
fn on_node(node: &str) -> String {
    format!("on {node}")
}
fn using(namespace: &str, claim: &str) -> String {
    format!("using {namespace}/{claim}")
}

/// The labels of an object.
fn labels_of(object: &ObjectMeta) -> Vec<String> {
    let namespace = meta::text(&object.namespace);
    object.labels.iter().flatten().map(|(key, value)| label(namespace, key, value)).collect()
}

/// Labels that whatever a selector matches has, all of them.
fn asked(namespace: &str, selector: &LabelSelector) -> Vec<String> {
    let one = selector.requirements().iter().filter_map(|r| match (r.operator, r.values.as_slice()) {
        (Operator::Equals | Operator::In, [value]) => Some(label(namespace, &r.key, value)),
        _ => None,
    });
    one.collect()
}

/// The selector of a budget; `None` if it selects nothing, or is none.
fn selector_of(budget: &PodDisruptionBudget) -> Option<LabelSelector> {
    let selector = budget.spec.as_ref()?.selector.as_ref()?;
    LabelSelector::from_typed(Some(selector)).ok()
}

impl Caches {
    /// The pods of a namespace that a selector matches, by name. Costs what have the rarest of the labels that it asks
    /// for; if it asks for none, what the namespace has.
    pub fn pods_selected(&self, namespace: &str, selector: &LabelSelector) -> Vec<Arc<Pod>> {
        let terms = asked(namespace, selector);
        let mut pods = if terms.is_empty() { self.pods.list(namespace) } else { self.pods.found_by_rarest(&terms) };
        pods.retain(|pod| meta::selects(selector, &pod.metadata));
        pods
    }

    /// The pods that a budget guards.
    pub fn pods_guarded(&self, budget: &PodDisruptionBudget) -> Vec<Arc<Pod>> {
        let namespace = meta::text(&budget.metadata.namespace);
        selector_of(budget).map(|selector| self.pods_selected(namespace, &selector)).unwrap_or_default()
    }

    /// The pods bound to a node.
    pub fn pods_on(&self, node: &str) -> Vec<Arc<Pod>> {
        self.pods.found_by(&on_node(node))
    }

    /// The pods with a node that use a claim.
    pub fn pods_using(&self, claim: &Key) -> Vec<Arc<Pod>> {
        self.pods.found_by(&using(&claim.namespace, &claim.name))
    }

    /// The Services that select a pod.
    pub fn services_of(&self, pod: &Pod) -> Vec<Key> {
        if !self.services.any_in(meta::text(&pod.metadata.namespace)) {
            return Vec::new();
        }
        let mut services = self.services.found_by_any(&labels_of(&pod.metadata));
        services.retain(|s| endpointslice::selector(s).is_some_and(|s| meta::selects(&s, &pod.metadata)));
        services.iter().map(|service| Key::of(&**service)).collect()
    }

    /// The slices labelled with a Service's name.
    pub fn slices_of(&self, service: &Key) -> Vec<Arc<EndpointSlice>> {
        self.slices.found_by(&label(&service.namespace, LABEL_SERVICE_NAME, &service.name))
    }

    /// The budgets that guard a pod.
    pub fn budgets_of(&self, pod: &Pod) -> Vec<Key> {
        if !self.budgets.any_in(meta::text(&pod.metadata.namespace)) {
            return Vec::new();
        }
        let mut terms = labels_of(&pod.metadata);
        terms.push(any(meta::text(&pod.metadata.namespace)));
        let mut budgets = self.budgets.found_by_any(&terms);
        budgets.retain(|b| selector_of(b).is_some_and(|s| meta::selects(&s, &pod.metadata)));
        budgets.iter().map(|budget| Key::of(&**budget)).collect()
    }

    /// The claims whose names a set's templates could have made.
    pub fn claims_of(&self, set: &StatefulSet) -> Vec<Arc<PersistentVolumeClaim>> {
        self.claims.found_by_any(&stems_of(set))
    }

    /// The sets whose templates could have made a claim's name.
    pub fn sets_of(&self, claim: &PersistentVolumeClaim) -> Vec<Key> {
        let Some(stem) = stem_of(claim) else { return Vec::new() };
        let mut sets = self.stateful_sets.found_by(&stem);
        sets.retain(|set| statefulset_pods::may_own(set, meta::text(&claim.metadata.name)));
        sets.iter().map(|set| Key::of(&**set)).collect()
    }
}

#[cfg(test)]
#[path = "terms_tests.rs"]
mod tests;
