//! Keeps the status of ResourceQuotas: what may be used, and what is used by the objects that are there. Admission
//! raises the usage with each write; here it falls again.

use std::time::Duration;

use copepod_api::{GroupResource, Quantity};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Action, Plan, Target, meta};
use crate::admission::amounts::{self, Amounts};
use crate::admission::quota::{counts, matches_scopes, usage};
use crate::kinds::value::text;

/// How often every quota is recalculated even if nothing changes.
const RESYNC: Duration = Duration::from_secs(300);
/// How soon usage that was corrected is looked at again: a write may have been under way that was charged, but not
/// seen yet.
const CONFIRM: Duration = Duration::from_secs(5);

/// Whose objects must be looked at one by one, not merely counted.
pub const MEASURED: [&str; 3] = ["persistentvolumeclaims", "pods", "services"];

/// What the objects of a namespace use of a quota, as they are shown to it: none is kept.
#[derive(Debug)]
pub struct Observed<'a> {
    quota: &'a Value,
    now: Timestamp,
    total: Amounts,
    /// How many objects were shown.
    shown: usize,
    /// Whose objects were shown or counted, if there are any.
    known: Vec<GroupResource>,
}

impl<'a> Observed<'a> {
    /// Nothing yet.
    pub fn of(quota: &'a Value, now: Timestamp) -> Self {
        Self { quota, now, total: Amounts::new(), shown: 0, known: Vec::new() }
    }

    /// Takes in objects, or that there are none, of one of the [`MEASURED`] core resources.
    pub fn measure(&mut self, plural: &str, objects: impl IntoIterator<Item = Value>) {
        let resource = GroupResource { group: String::new(), resource: plural.into() };
        for object in objects {
            self.shown += 1;
            if matches_scopes(self.quota, &resource, &object) {
                amounts::add(&mut self.total, &usage(&resource, &object, self.now));
            }
        }
        if !self.known.contains(&resource) {
            self.known.push(resource);
        }
    }

    /// Takes in how many objects there are of another resource.
    pub fn count(&mut self, resource: GroupResource, count: usize) {
        // No scope holds them.
        if matches_scopes(self.quota, &resource, &Value::Null) {
            let count = Quantity::from_units(i64::try_from(count).unwrap_or(i64::MAX));
            let names = usage(&resource, &Value::Null, self.now).into_keys();
            self.total.extend(names.map(|name| (name, count)));
        }
        self.known.push(resource);
    }

    /// How many objects were looked at one by one.
    pub fn len(&self) -> usize {
        self.shown
    }
    /// Whether none was.
    pub fn is_empty(&self) -> bool {
        self.shown == 0
    }

    /// What is used: what nothing uses is zero; what nothing can count has no usage.
    fn used(&self) -> Amounts {
        amounts::at(self.quota, "/spec/hard")
            .into_keys()
            .filter(|name| self.known.iter().any(|resource| counts(resource, name)))
            .map(|name| (name.clone(), self.total.get(&name).copied().unwrap_or_default()))
            .collect()
    }
}

/// Whether a quota counts objects of a resource.
pub fn concerns(quota: &Value, resource: &GroupResource) -> bool {
    amounts::at(quota, "/spec/hard").keys().any(|name| counts(resource, name))
}

/// Whether a quota's status does not say what its spec asks about.
pub fn is_stale(quota: &Value) -> bool {
    let (hard, used) = (amounts::at(quota, "/spec/hard"), amounts::at(quota, "/status/used"));
    hard != amounts::at(quota, "/status/hard") || hard.keys().any(|name| !used.contains_key(name))
}

/// Writes the status that the objects ask for. It must still be the status that was read: admission raises it.
pub fn reconcile(observed: &Observed<'_>) -> Plan {
    let quota = observed.quota;
    let mut plan = Plan::nothing("quota usage");
    plan.requeue(RESYNC);
    let (hard, used) = (amounts::at(quota, "/spec/hard"), observed.used());
    let (was_hard, was_used) = (amounts::at(quota, "/status/hard"), amounts::at(quota, "/status/used"));
    if (&hard, &used) == (&was_hard, &was_used) {
        return plan;
    }
    let gone = |was: &Amounts, is: &Amounts| {
        let gone = was.keys().filter(|name| !is.contains_key(*name)).map(|name| (name.clone(), Value::Null));
        let mut value = amounts::to_value(is);
        if let Some(map) = value.as_object_mut() {
            map.extend(gone);
        }
        value
    };
    let target =
        Target::new(meta::v1("", "resourcequotas"), text(quota, "/metadata/namespace"), text(quota, "/metadata/name"));
    plan.status = Some(Action::Patch {
        target,
        subresource: "status",
        patch: json!({
            "metadata": {"uid": text(quota, "/metadata/uid"), "resourceVersion": text(quota, "/metadata/resourceVersion")},
            "status": {"hard": gone(&was_hard, &hard), "used": gone(&was_used, &used)},
        }),
    });
    plan.requeue(CONFIRM);
    plan
}

#[cfg(test)]
mod tests {
    use super::super::testing::now;
    use super::*;

    fn quota(spec: Value, status: Value) -> Value {
        json!({"metadata": {"name": "q", "namespace": "shop", "uid": "u", "resourceVersion": "7"},
            "spec": spec, "status": status})
    }

    /// The plan for a quota of what is there. Pods are shown in two parts.
    fn plan(quota: &Value) -> Plan {
        let pod = |phase: &str, qos: &str, cpu: &str| {
            json!({"spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": cpu}}}]},
                "status": {"phase": phase, "qosClass": qos}})
        };
        let pods = [
            pod("Running", "Burstable", "500m"),
            pod("Pending", "BestEffort", "0"),
            pod("Succeeded", "Burstable", "4"),
        ];
        let mut observed = Observed::of(quota, now());
        let (some, others) = pods.split_at(1);
        observed.measure("pods", some.to_vec());
        observed.measure("pods", others.to_vec());
        observed.measure("services", []);
        observed.count(GroupResource { group: "apps".into(), resource: "deployments".into() }, 3);
        reconcile(&observed)
    }

    #[test]
    fn usage_is_what_is_there() {
        let all = json!({"hard": {"pods": "5", "requests.cpu": "2", "count/pods": "9", "count/deployments.apps": "4",
            "services": "1", "count/unknown.example.com": "1"}});
        let burst = json!({"hard": {"pods": "5"}, "scopes": ["NotBestEffort"]});
        let cases = [
            (
                all,
                json!({"pods": "2", "requests.cpu": "500m", "count/pods": "3", "services": "0",
                "count/deployments.apps": "3"}),
            ),
            (burst, json!({"pods": "1"})),
        ];
        for (spec, want) in cases {
            let quota = quota(spec.clone(), json!({}));
            assert!(is_stale(&quota), "{spec}");
            let Some(Action::Patch { patch, subresource: "status", .. }) = plan(&quota).status else {
                panic!("{spec}")
            };
            assert_eq!(patch["status"], json!({"hard": spec["hard"], "used": want}), "{spec}");
            assert_eq!(patch["metadata"]["resourceVersion"], "7", "admission may not have raised it since");
        }
    }

    #[test]
    fn nothing_is_written_when_nothing_changed_and_old_names_go() {
        let spec = json!({"hard": {"pods": "5"}});
        let same = quota(spec.clone(), json!({"hard": {"pods": "5"}, "used": {"pods": "2"}}));
        assert!(!is_stale(&same));
        let unchanged = plan(&same);
        assert_eq!((unchanged.status, unchanged.requeue_after), (None, Some(RESYNC)));
        let other = quota(spec, json!({"hard": {"secrets": "1"}, "used": {"secrets": "1", "pods": "9"}}));
        let plan = plan(&other);
        let Some(Action::Patch { patch, .. }) = plan.status else { panic!() };
        let want = json!({"hard": {"pods": "5", "secrets": null}, "used": {"pods": "2", "secrets": null}});
        assert_eq!(patch["status"], want);
        assert_eq!(plan.requeue_after, Some(CONFIRM));
    }

    #[test]
    fn what_concerns_a_quota() {
        let q = quota(json!({"hard": {"count/configmaps": "1", "requests.storage": "1Gi"}}), json!({}));
        for (resource, want) in [("configmaps", true), ("persistentvolumeclaims", true), ("pods", false)] {
            let resource = GroupResource { group: String::new(), resource: resource.into() };
            assert_eq!(concerns(&q, &resource), want, "{resource}");
        }
    }
}
