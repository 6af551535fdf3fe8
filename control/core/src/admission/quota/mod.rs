//! ResourceQuotas: what a write adds to a namespace's usage, and whether its quotas have room for it.
//! Source: <https://kubernetes.io/docs/concepts/policy/resource-quotas/>.
//!
//! What may be used is what a quota's `spec.hard` says now; what is used is its `status.used`, which admission raises
//! and the quota controller recalculates. A quota whose usage is not known yet admits nothing that it counts.

mod scopes;
mod usage;

use copepod_api::{GroupResource, Quantity};
use jiff::Timestamp;
use serde_json::Value;

use super::amounts::{self, Amounts};
use crate::kinds::value::text;

pub use scopes::matches_scopes;
pub use usage::{count_name, counts, usage};

/// A write that may use up quota.
#[derive(Debug, Clone, Copy)]
pub struct Write<'a> {
    /// What is written.
    pub resource: &'a GroupResource,
    /// The object as it will be.
    pub object: &'a Value,
    /// The object before an update.
    pub old: Option<&'a Value>,
    /// The present time: pods that should have ended do not count.
    pub now: Timestamp,
}

/// Why a write may not go on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// It may not, for this reason.
    Forbidden(String),
    /// The usage of this quota is not known yet; the reason, should it stay so.
    Unknown(String),
}

/// Whether a write to this resource can use up quota at all. Events count in none.
pub fn is_counted(resource: &GroupResource, update: bool, subresource: &str) -> bool {
    let is = |group: &str, plural: &str| resource.group == group && resource.resource == plural;
    match subresource {
        _ if is("", "events") || is("events.k8s.io", "events") => false,
        "" if update => is("", "services") || is("", "persistentvolumeclaims"),
        "resize" => is("", "pods"),
        other => other.is_empty(),
    }
}

/// Whether a quota counts objects of a resource, but its usage is not known yet.
pub fn is_unknown(quota: &Value, resource: &GroupResource) -> bool {
    let used = amounts::at(quota, "/status/used");
    amounts::at(quota, "/spec/hard").keys().any(|name| counts(resource, name) && !used.contains_key(name))
}

/// Charges a write to a namespace's quotas: the index of each quota that it uses up, with all that is used then.
///
/// # Errors
/// A quota has no room for it, or its usage is not known; nothing is to be charged then.
pub fn charge(quotas: &[Value], write: &Write<'_>) -> Result<Vec<(usize, Amounts)>, Refusal> {
    let asked = usage(write.resource, write.object, write.now);
    let negative: Vec<&String> = asked.iter().filter(|(_, q)| q.is_negative()).map(|(name, _)| name).collect();
    let mut concerned = Vec::new();
    for (i, quota) in quotas.iter().enumerate() {
        let hard = amounts::at(quota, "/spec/hard");
        let counted: Vec<&String> = hard.keys().filter(|name| counts(write.resource, name)).collect();
        if counted.is_empty() || !matches_scopes(quota, write.resource, write.object) {
            continue;
        }
        let name = text(quota, "/metadata/name");
        if let Err(why) = usage::constraints(write.resource, write.object, &counted) {
            return Err(Refusal::Forbidden(format!("failed quota: {name}: {why}")));
        }
        let used = amounts::at(quota, "/status/used");
        if counted.iter().any(|resource| !used.contains_key(*resource)) {
            let resources = names(&counted);
            return Err(Refusal::Unknown(format!("status unknown for quota: {name}, resources: {resources}")));
        }
        concerned.push((i, quota, hard, used));
    }
    if !negative.is_empty() {
        let resources = names(&negative);
        return Err(Refusal::Forbidden(format!("quota usage is negative for resource(s): {resources}")));
    }
    let mut charges = Vec::new();
    for (i, quota, hard, used) in concerned {
        let mut more = asked.clone();
        // A quota that the object comes under only now is charged in full.
        if let Some(old) = write.old.filter(|old| matches_scopes(quota, write.resource, old)) {
            let before = usage(write.resource, old, write.now);
            for (name, amount) in &mut more {
                *amount = (*amount - before.get(name).copied().unwrap_or_default()).max(Quantity::ZERO);
            }
        }
        more.retain(|name, amount| !amount.is_zero() && hard.contains_key(name));
        if more.is_empty() {
            continue;
        }
        let mut total = used.clone();
        amounts::add(&mut total, &more);
        let over = |name: &&String| total.get(*name) > hard.get(*name);
        let exceeded: Vec<&String> = more.keys().filter(over).collect();
        if !exceeded.is_empty() {
            let shown = |of: &Amounts| {
                let each = exceeded.iter().filter_map(|name| Some(format!("{name}={}", of.get(*name)?)));
                each.collect::<Vec<_>>().join(",")
            };
            return Err(Refusal::Forbidden(format!(
                "exceeded quota: {}, requested: {}, used: {}, limited: {}",
                text(quota, "/metadata/name"),
                shown(&more),
                shown(&used),
                shown(&hard)
            )));
        }
        charges.push((i, total));
    }
    Ok(charges)
}

fn names(resources: &[&String]) -> String {
    resources.iter().map(|r| r.as_str()).collect::<Vec<_>>().join(",")
}
