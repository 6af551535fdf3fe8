//! Namespaces that are being deleted: empty them, say what remains, then let them go.

use std::collections::BTreeMap;
use std::time::Duration;

use copepod_api::Gvr;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, NamespaceCondition};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::meta;
use super::{Action, Target};

/// The finalizer in `spec.finalizers` that this controller removes.
pub const FINALIZER: &str = "kubernetes";

/// How soon at least, and how late at most, a namespace in which something remains is looked at again.
const SOON: Duration = Duration::from_secs(1);
const LATE: Duration = Duration::from_secs(15);

/// Whether the namespace waits to be emptied.
pub fn waits(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
        && namespace.spec.iter().flat_map(|s| s.finalizers.iter().flatten()).any(|f| f == FINALIZER)
}

/// The order in which to empty a namespace: first what would make new objects, then pods, which may take their time,
/// then all else.
pub fn order(resources: &mut [Gvr]) {
    let rank = |gvr: &Gvr| match gvr.resource.as_str() {
        "deployments" | "statefulsets" | "daemonsets" | "cronjobs" => 0,
        "replicasets" | "replicationcontrollers" | "jobs" => 1,
        "pods" => 2,
        _ => 3,
    };
    resources.sort_by_key(|gvr| (rank(gvr), gvr.clone()));
}

/// What is left in a namespace after all was asked to go.
#[derive(Debug, Default)]
pub struct Remains {
    /// Objects left by resource and group, as `pods.` or `deployments.apps`.
    pub counts: BTreeMap<String, usize>,
    /// Finalizers that hold them, and on how many objects.
    pub finalizers: BTreeMap<String, usize>,
    /// Resources that could not be emptied, and why.
    pub failures: Vec<String>,
}

impl Remains {
    /// Whether the namespace can go.
    pub fn none(&self) -> bool {
        self.counts.is_empty() && self.failures.is_empty()
    }
}

/// The status write that says what remains; `None` if it says so already.
pub fn status(namespace: &Namespace, remains: &Remains, now: Timestamp) -> Option<Action> {
    let list = |counts: &BTreeMap<String, usize>, of: fn(&str, usize) -> String| {
        counts.iter().map(|(k, n)| of(k, *n)).collect::<Vec<_>>().join(", ")
    };
    let content = format!(
        "Some resources are remaining: {}",
        list(&remains.counts, |r, n| format!("{r} has {n} resource instances"))
    );
    let held = format!(
        "Some content in the namespace has finalizers remaining: {}",
        list(&remains.finalizers, |f, n| format!("{f} in {n} resource instances"))
    );
    let failed = remains.failures.join("; ");
    // The first two cannot fail here: one process knows all resources and their versions.
    let conditions = [
        (
            "NamespaceDeletionDiscoveryFailure",
            false,
            ("", ""),
            ("ResourcesDiscovered", "All resources successfully discovered"),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            false,
            ("", ""),
            ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
        ),
        (
            "NamespaceDeletionContentFailure",
            !remains.failures.is_empty(),
            ("ContentDeletionFailed", failed.as_str()),
            ("ContentDeleted", "All content successfully deleted, may be waiting on finalization"),
        ),
        (
            "NamespaceContentRemaining",
            !remains.counts.is_empty(),
            ("SomeResourcesRemain", content.as_str()),
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            !remains.finalizers.is_empty(),
            ("SomeFinalizersRemain", held.as_str()),
            ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
        ),
    ];
    let mut status = namespace.status.clone().unwrap_or_default();
    let mut kept = status.conditions.take().unwrap_or_default();
    for (kind, bad, yes, no) in conditions {
        let (reason, message) = if bad { yes } else { no };
        let wanted = if bad { "True" } else { "False" };
        match kept.iter_mut().find(|c| c.type_ == kind) {
            Some(c) if c.status == wanted && c.message.as_deref() == Some(message) => {}
            Some(c) => {
                if c.status != wanted {
                    c.last_transition_time = Some(Time(now));
                }
                c.status = wanted.into();
                c.reason = Some(reason.into());
                c.message = Some(message.into());
            }
            None => kept.push(NamespaceCondition {
                type_: kind.into(),
                status: wanted.into(),
                reason: Some(reason.into()),
                message: Some(message.into()),
                last_transition_time: Some(Time(now)),
            }),
        }
    }
    status.conditions = Some(kept);
    meta::status_patch(meta::v1("", "namespaces"), &namespace.metadata, namespace.status.as_ref(), &status)
}

/// The body of the PUT to `/finalize` that lets the namespace go.
pub fn finalized(namespace: &Namespace) -> (Target, Value) {
    let rest: Vec<&String> =
        namespace.spec.iter().flat_map(|s| s.finalizers.iter().flatten()).filter(|f| *f != FINALIZER).collect();
    let mut body = meta::value(namespace);
    if let Some(object) = body.as_object_mut() {
        object.insert("apiVersion".into(), json!("v1"));
        object.insert("kind".into(), json!("Namespace"));
        object.insert("spec".into(), json!({"finalizers": rest}));
    }
    (Target::new(meta::v1("", "namespaces"), "", meta::text(&namespace.metadata.name)), body)
}

/// When to look again at a namespace in which something remains: soon at first, and ever more slowly.
pub fn again(namespace: &Namespace, now: Timestamp) -> Duration {
    let since = namespace.metadata.deletion_timestamp.as_ref().map_or(now, |t| t.0);
    let going = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    (going / 4).clamp(SOON, LATE)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn a_namespace_goes_when_it_is_empty() {
        let namespace: Namespace = yaml(
            "metadata: {name: shop, uid: n1, deletionTimestamp: '2026-01-01T00:00:00Z'}\nspec: {finalizers: [kubernetes, mine]}",
        );
        assert!(waits(&namespace));
        assert_eq!(finalized(&namespace).1["spec"], json!({"finalizers": ["mine"]}));
        assert!(!waits(&yaml("metadata: {name: shop}\nspec: {finalizers: [kubernetes]}")));
        let remains = Remains { counts: [("pods.".to_string(), 2)].into(), ..Remains::default() };
        let Some(Action::Patch { patch, .. }) = status(&namespace, &remains, now()) else { panic!() };
        let conditions = &patch["status"]["conditions"];
        assert_eq!(conditions[3]["message"], json!("Some resources are remaining: pods. has 2 resource instances"));
        assert_eq!((&conditions[3]["status"], &conditions[4]["status"]), (&json!("True"), &json!("False")));
        let mut told = namespace.clone();
        told.status = Some(serde_json::from_value(patch["status"].clone()).unwrap());
        assert!(status(&told, &remains, at(9)).is_none());
    }

    #[test]
    fn what_remains_is_looked_at_ever_more_slowly() {
        let since = Some(Time(at(0)));
        let mut namespace = Namespace::default();
        namespace.metadata.deletion_timestamp = since;
        for (seconds, wait) in [(-9, 1000), (0, 1000), (6, 1500), (40, 10_000), (4000, 15_000)] {
            assert_eq!(again(&namespace, at(seconds)), Duration::from_millis(wait), "{seconds}");
        }
    }

    #[test]
    fn makers_go_before_pods() {
        let gvr = |g: &str, r: &str| meta::v1(g, r);
        let mut all = [gvr("", "configmaps"), gvr("", "pods"), gvr("apps", "replicasets"), gvr("apps", "deployments")];
        order(&mut all);
        assert_eq!(all.map(|g| g.resource), ["deployments", "replicasets", "pods", "configmaps"]);
    }
}
