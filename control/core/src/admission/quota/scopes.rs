//! Scopes of quotas: which of the objects they count.

use copepod_api::GroupResource;
use serde_json::Value;

use crate::kinds::value::{has, int, list, strings, text};

/// Whether an object is within all of a quota's scopes. Only pods and claims are within any.
pub fn matches_scopes(quota: &Value, resource: &GroupResource, object: &Value) -> bool {
    let plural = if resource.group.is_empty() { resource.resource.as_str() } else { "" };
    let within = |scope: &str, operator: &str, values: &[&str]| match plural {
        "pods" => pod(object, scope, operator, values),
        "persistentvolumeclaims" if scope == "VolumeAttributesClass" => {
            named(text(object, "/spec/volumeAttributesClassName"), operator, values)
        }
        _ => false,
    };
    let requirements = list(quota, "/spec/scopeSelector/matchExpressions");
    strings(quota, "/spec/scopes").all(|scope| within(scope, "Exists", &[]))
        && requirements.iter().all(|requirement| {
            let values: Vec<&str> = strings(requirement, "/values").collect();
            within(text(requirement, "/scopeName"), text(requirement, "/operator"), &values)
        })
}

fn pod(pod: &Value, scope: &str, operator: &str, values: &[&str]) -> bool {
    let terminating = || int(pod, "/spec/activeDeadlineSeconds").is_some_and(|s| s >= 0);
    let best_effort = || text(pod, "/status/qosClass") == "BestEffort";
    match scope {
        "Terminating" => terminating(),
        "NotTerminating" => !terminating(),
        "BestEffort" => best_effort(),
        "NotBestEffort" => !best_effort(),
        "PriorityClass" => named(text(pod, "/spec/priorityClassName"), operator, values),
        "CrossNamespacePodAffinity" => crosses_namespaces(pod),
        _ => false,
    }
}

/// Whether the name of a class, empty if there is none, meets a requirement.
fn named(class: &str, operator: &str, values: &[&str]) -> bool {
    match operator {
        "Exists" => !class.is_empty(),
        "DoesNotExist" => class.is_empty(),
        "In" => !class.is_empty() && values.contains(&class),
        "NotIn" => class.is_empty() || !values.contains(&class),
        _ => false,
    }
}

fn crosses_namespaces(pod: &Value) -> bool {
    let crosses = |term: &Value| !list(term, "/namespaces").is_empty() || has(term, "/namespaceSelector");
    ["podAffinity", "podAntiAffinity"].iter().any(|kind| {
        let terms = |when: &str| list(pod, &format!("/spec/affinity/{kind}/{when}"));
        terms("requiredDuringSchedulingIgnoredDuringExecution").iter().any(crosses)
            || terms("preferredDuringSchedulingIgnoredDuringExecution")
                .iter()
                .any(|weighted| weighted.get("podAffinityTerm").is_some_and(crosses))
    })
}
