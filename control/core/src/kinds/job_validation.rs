//! Rules of jobs and of CronJobs' job templates.

use std::collections::HashSet;

use copepod_api::{FieldError, LabelSelector};
use serde_json::{Value, json};

use super::fields::{at, domain_path, non_negative, one_of};
use super::job::{NAME_LABELS, UID_LABELS};
use super::pod_template;
use super::value::{flag, has, int, list, text};
use super::workload::{label_selector, matches_template};
use crate::validate::{qualified_name, report, too_long, too_many};

const MODES: [&str; 2] = ["NonIndexed", "Indexed"];
const REPLACEMENTS: [&str; 2] = ["Failed", "TerminatingOrFailed"];
const ACTIONS: [&str; 4] = ["Count", "FailIndex", "FailJob", "Ignore"];
const STATUSES: [&str; 3] = ["False", "True", "Unknown"];
/// Most pods at once of an indexed job, and most of its indexes that may fail.
const MAX_INDEXED: i64 = 100_000;
/// The same of an indexed job with more than [`MAX_INDEXED`] completions and a limit per index.
const MAX_INDEXED_HIGH: i64 = 10_000;
const MAX_RULES: usize = 20;
const MAX_EXIT_CODES: usize = 255;
const MAX_PATTERNS: usize = 20;
const MAX_MANAGED_BY_BYTES: usize = 63;
const MAX_INDEXES_BYTES: usize = 64 * 1024;

/// The rules of a whole job.
pub(super) fn job(object: &Value) -> Vec<FieldError> {
    let mut errors = spec(at(object, "spec"), "spec");
    let selector = at(object, "spec.selector");
    if selector.is_null() {
        errors.push(FieldError::required("spec.selector", ""));
    } else {
        errors.extend(label_selector(selector, "spec.selector"));
        if let Ok(selector) = LabelSelector::from_json(selector) {
            matches_template(&mut errors, object, &selector);
        }
    }
    errors
}

/// The rules of a selector that the server made: it and the pods' labels name the job.
pub(super) fn generated_selector(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let selector = at(object, "spec.selector");
    if flag(object, "/spec/manualSelector") || selector.is_null() {
        return errors;
    }
    let (uid, name) = (text(object, "/metadata/uid"), text(object, "/metadata/name"));
    if uid.is_empty() {
        errors.push(FieldError::required("metadata.uid", ""));
    }
    let labels = at(object, "spec.template.metadata.labels");
    let expected: Vec<(&str, &str)> =
        UID_LABELS.iter().map(|l| (*l, uid)).chain(NAME_LABELS.iter().map(|l| (*l, name))).collect();
    for (label, value) in &expected {
        let (field, message) = (format!("spec.template.metadata.labels[{label}]"), format!("must be '{value}'"));
        match labels.get(label).and_then(Value::as_str) {
            None => errors.push(FieldError::required(field, &message)),
            Some(given) if given != *value => errors.push(FieldError::invalid(field, labels, &message)),
            Some(_) => {}
        }
    }
    let expected = expected.into_iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    if LabelSelector::from_json(selector).is_ok_and(|s| !s.matches(&expected)) {
        errors.push(FieldError::invalid("spec.selector", selector, "`selector` not auto-generated"));
    }
    errors
}

/// The rules of a CronJob's job template at `field`.
pub(super) fn template(template: &Value, field: &str) -> Vec<FieldError> {
    let field = format!("{field}.spec");
    let job = at(template, "spec");
    let mut errors = spec(job, &field);
    if has(job, "/selector") {
        let message = "`selector` will be auto-generated";
        errors.push(FieldError::invalid(format!("{field}.selector"), at(job, "selector"), message));
    }
    if flag(job, "/manualSelector") {
        errors.push(FieldError::not_supported(format!("{field}.manualSelector"), &json!(true), &["nil", "false"]));
    }
    errors
}

fn spec(spec: &Value, field: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    let e = &mut errors;
    let counts = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    non_negative(e, spec, field, &counts);
    if has(spec, "/maxFailedIndexes") && !has(spec, "/backoffLimitPerIndex") {
        e.push(FieldError::required(format!("{field}.backoffLimitPerIndex"), "when maxFailedIndexes is specified"));
    }
    if let Some(manager) = at(spec, "managedBy").as_str() {
        managed_by(e, manager, &format!("{field}.managedBy"));
    }
    one_of(e, spec, field, "completionMode", &MODES);
    let indexed = text(spec, "/completionMode") == "Indexed";
    if indexed {
        self::indexed(e, spec, field);
    } else {
        for key in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if has(spec, &format!("/{key}")) {
                e.push(FieldError::invalid(
                    format!("{field}.{key}"),
                    at(spec, key),
                    "requires indexed completion mode",
                ));
            }
        }
    }
    let failure_policy = has(spec, "/podFailurePolicy");
    if failure_policy {
        pod_failure_policy(e, spec, &format!("{field}.podFailurePolicy.rules"));
    }
    if has(spec, "/successPolicy") {
        let policy = format!("{field}.successPolicy");
        if indexed {
            success_policy(e, spec, &format!("{policy}.rules"));
        } else {
            e.push(FieldError::invalid(policy, at(spec, "successPolicy"), "requires indexed completion mode"));
        }
    }
    let replacements = if failure_policy { &REPLACEMENTS[..1] } else { &REPLACEMENTS };
    one_of(e, spec, field, "podReplacementPolicy", replacements);
    e.extend(pod_template::validate(at(spec, "template"), &format!("{field}.template")));
    restart_policy(e, text(spec, "/template/spec/restartPolicy"), failure_policy, field);
    errors
}

fn restart_policy(errors: &mut Vec<FieldError>, policy: &str, failure_policy: bool, field: &str) {
    let field = format!("{field}.template.spec.restartPolicy");
    match policy {
        "Always" | "" => errors.push(FieldError::required(field, "valid values: \"OnFailure\", \"Never\"")),
        "OnFailure" if failure_policy => {
            let message = "only \"Never\" is supported when podFailurePolicy is specified";
            errors.push(FieldError::invalid(field, &json!(policy), message));
        }
        "OnFailure" | "Never" => {}
        other => errors.push(FieldError::not_supported(field, &json!(other), &["OnFailure", "Never"])),
    }
}

/// The controller named by `spec.managedBy`: `example.com/name`.
fn managed_by(errors: &mut Vec<FieldError>, manager: &str, field: &str) {
    report(errors, field, &json!(manager), domain_path(manager));
    if manager.len() > MAX_MANAGED_BY_BYTES {
        errors.push(too_long(field, MAX_MANAGED_BY_BYTES));
    }
}

fn indexed(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    let number = |key: &str| int(spec, &format!("/{key}"));
    let (completions, failed) = (number("completions"), number("maxFailedIndexes"));
    if completions.is_none() {
        errors.push(FieldError::required(format!("{field}.completions"), "when completion mode is Indexed"));
    }
    let mut at_most = |key: &str, max: i64, what: &str| {
        if let Some(n) = number(key).filter(|n| *n > max) {
            let message = format!("must be less than or equal to {what}");
            errors.push(FieldError::invalid(format!("{field}.{key}"), &json!(n), &message));
        }
    };
    at_most("parallelism", MAX_INDEXED, &format!("{MAX_INDEXED} when completion mode is Indexed"));
    at_most("maxFailedIndexes", completions.unwrap_or(i64::MAX), "completions");
    at_most("maxFailedIndexes", MAX_INDEXED, &MAX_INDEXED.to_string());
    if completions.is_some_and(|n| n > MAX_INDEXED) && has(spec, "/backoffLimitPerIndex") {
        let what = format!(
            "{MAX_INDEXED_HIGH} when completions are above {MAX_INDEXED} and used with backoff limit per index"
        );
        at_most("parallelism", MAX_INDEXED_HIGH, &what);
        at_most("maxFailedIndexes", MAX_INDEXED_HIGH, &what);
        if failed.is_none() {
            let message = format!("must be specified when completions is above {MAX_INDEXED}");
            errors.push(FieldError::required(format!("{field}.maxFailedIndexes"), &message));
        }
    }
}

fn quoted(values: &[&str]) -> String {
    format!("valid values: [{}]", values.iter().map(|v| format!("\"{v}\"")).collect::<Vec<_>>().join(" "))
}

fn pod_failure_policy(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    let rules = list(spec, "/podFailurePolicy/rules");
    if rules.len() > MAX_RULES {
        errors.push(too_many(field, rules.len(), MAX_RULES));
    }
    let containers = ["/template/spec/containers", "/template/spec/initContainers"];
    let names: Vec<&str> = containers.iter().flat_map(|c| list(spec, c)).map(|c| text(c, "/name")).collect();
    for (i, rule) in rules.iter().enumerate() {
        let field = format!("{field}[{i}]");
        match text(rule, "/action") {
            "" => errors.push(FieldError::required(format!("{field}.action"), &quoted(&ACTIONS))),
            "FailIndex" if !has(spec, "/backoffLimitPerIndex") => {
                let message = "requires the backoffLimitPerIndex to be set";
                errors.push(FieldError::invalid(format!("{field}.action"), &json!("FailIndex"), message));
            }
            _ => one_of(errors, rule, &field, "action", &ACTIONS),
        }
        let (codes, conditions) = (at(rule, "onExitCodes"), list(rule, "/onPodConditions"));
        if !codes.is_null() {
            exit_codes(errors, codes, &format!("{field}.onExitCodes"), &names);
        }
        pod_conditions(errors, conditions, &format!("{field}.onPodConditions"));
        let message = match (codes.is_null(), conditions.is_empty()) {
            (false, false) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (true, true) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        errors.push(FieldError::invalid(field, rule, message));
    }
}

fn exit_codes(errors: &mut Vec<FieldError>, codes: &Value, field: &str, names: &[&str]) {
    match text(codes, "/operator") {
        "" => errors.push(FieldError::required(format!("{field}.operator"), &quoted(&["In", "NotIn"]))),
        _ => one_of(errors, codes, field, "operator", &["In", "NotIn"]),
    }
    if let Some(name) = at(codes, "containerName").as_str().filter(|n| !names.contains(n)) {
        let message = "must be one of the container or initContainer names in the pod template";
        errors.push(FieldError::invalid(format!("{field}.containerName"), &json!(name), message));
    }
    let values: Vec<i64> = list(codes, "/values").iter().filter_map(Value::as_i64).collect();
    let field = format!("{field}.values");
    if values.is_empty() {
        errors.push(FieldError::invalid(&field, &json!(values), "at least one value is required"));
    } else if values.len() > MAX_EXIT_CODES {
        errors.push(too_many(&field, values.len(), MAX_EXIT_CODES));
    }
    let mut seen = HashSet::new();
    for (i, value) in values.iter().enumerate() {
        if *value == 0 && text(codes, "/operator") == "In" {
            let message = "must not be 0 for the In operator";
            errors.push(FieldError::invalid(format!("{field}[{i}]"), &json!(value), message));
        }
        if !seen.insert(value) {
            errors.push(FieldError::duplicate(format!("{field}[{i}]"), &json!(value)));
        }
    }
    if !values.is_sorted() {
        errors.push(FieldError::invalid(field, &json!(values), "must be ordered"));
    }
}

fn pod_conditions(errors: &mut Vec<FieldError>, patterns: &[Value], field: &str) {
    if patterns.len() > MAX_PATTERNS {
        errors.push(too_many(field, patterns.len(), MAX_PATTERNS));
    }
    for (i, pattern) in patterns.iter().enumerate() {
        let (field, type_) = (format!("{field}[{i}]"), text(pattern, "/type"));
        report(errors, format!("{field}.type"), &json!(type_), qualified_name(type_));
        match text(pattern, "/status") {
            "" => errors.push(FieldError::required(format!("{field}.status"), &quoted(&STATUSES))),
            _ => one_of(errors, pattern, &field, "status", &STATUSES),
        }
    }
}

fn success_policy(errors: &mut Vec<FieldError>, spec: &Value, field: &str) {
    let rules = list(spec, "/successPolicy/rules");
    if rules.is_empty() {
        let message = "at least one rules must be specified when the successPolicy is specified";
        errors.push(FieldError::required(field, message));
    } else if rules.len() > MAX_RULES {
        errors.push(too_many(field, rules.len(), MAX_RULES));
    }
    let completions = int(spec, "/completions").unwrap_or(0);
    for (i, rule) in rules.iter().enumerate() {
        let field = format!("{field}[{i}]");
        let (count, indexes) = (int(rule, "/succeededCount"), at(rule, "succeededIndexes").as_str());
        if count.is_none() && indexes.is_none() {
            let message = "at least one of succeededCount or succeededIndexes must be specified";
            errors.push(FieldError::required(&field, message));
        }
        let total = indexes.map(|indexes| success_indexes(errors, indexes, completions, &field));
        let Some(count) = count else { continue };
        non_negative(errors, rule, &field, &["succeededCount"]);
        let mut at_most = |max: i64, what: &str| {
            if count > max {
                let message = format!("must be less than or equal to {max} ({what})");
                errors.push(FieldError::invalid(format!("{field}.succeededCount"), &json!(count), &message));
            }
        };
        at_most(completions, "the number of specified completions");
        if let Some(total) = total {
            at_most(total, "the number of indexes in the specified succeededIndexes field");
        }
    }
}

/// Reports what is wrong with the indexes and returns how many they are.
fn success_indexes(errors: &mut Vec<FieldError>, indexes: &str, completions: i64, field: &str) -> i64 {
    let field = format!("{field}.succeededIndexes");
    if indexes.len() > MAX_INDEXES_BYTES {
        errors.push(too_long(field, MAX_INDEXES_BYTES));
        return 0;
    }
    count_indexes(indexes, completions).unwrap_or_else(|why| {
        let message = format!("error parsing succeededIndexes: {why}");
        errors.push(FieldError::invalid(field, &json!(indexes), &message));
        0
    })
}

/// The number of indexes in `1,3-5`: rising, and below `completions`.
pub(super) fn count_indexes(indexes: &str, completions: i64) -> Result<i64, String> {
    if indexes.is_empty() {
        return Ok(0);
    }
    let (mut total, mut last): (i64, Option<i64>) = (0, None);
    for interval in indexes.split(',') {
        let number = |text: &str| match text.parse::<i64>() {
            Err(_) => Err(format!("cannot convert string to integer for index: {text:?}")),
            Ok(n) if n >= completions => Err(format!("too large index: {text:?}")),
            Ok(n) => Ok(n),
        };
        let rising = |previous: i64, current: i64| {
            let message = || format!("non-increasing order, previous: {previous}, current: {current}");
            if previous < current { Ok(()) } else { Err(message()) }
        };
        let (from, to) = match interval.split('-').collect::<Vec<_>>().as_slice() {
            [one] => (number(one)?, number(one)?),
            [from, to] => {
                let (from, to) = (number(from)?, number(to)?);
                rising(from, to)?;
                (from, to)
            }
            _ => {
                return Err(format!(
                    "the fragment {interval:?} violates the requirement that an index interval can have at most two \
                     parts separated by '-'"
                ));
            }
        };
        if let Some(last) = last {
            rising(last, from)?;
        }
        (total, last) = (total + (to - from) + 1, Some(to));
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indexes_are_counted() {
        for (indexes, expected) in [
            ("", Ok(0)),
            ("0", Ok(1)),
            ("1,3-5,7", Ok(5)),
            ("9", Ok(1)),
            ("10", Err("too large index: \"10\"")),
            ("x", Err("cannot convert string to integer for index: \"x\"")),
            ("3-1", Err("non-increasing order, previous: 3, current: 1")),
            ("3,3", Err("non-increasing order, previous: 3, current: 3")),
            ("1-2-3", Err("the fragment \"1-2-3\" violates")),
            ("-1", Err("cannot convert string to integer for index: \"\"")),
        ] {
            match (count_indexes(indexes, 10), expected) {
                (Ok(n), Ok(m)) => assert_eq!(n, m, "{indexes}"),
                (Err(e), Err(x)) => assert!(e.starts_with(x), "{indexes}: {e}"),
                (got, _) => panic!("{indexes}: {got:?}"),
            }
        }
    }
}
