//! FlowSchema.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{condition, conditions};
use super::value::{child, has, int, list, set, set_default_nonzero, strings, text};
use super::{names, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{dns1123_label, dns1123_subdomain, report};

const MAX_PRECEDENCE: i64 = 10_000;
const DEFAULT_PRECEDENCE: i64 = 1000;
const VERBS: [&str; 9] = ["create", "delete", "deletecollection", "get", "list", "patch", "proxy", "update", "watch"];
/// (kind, the field that says who)
const SUBJECTS: [(&str, &str); 3] = [("Group", "group"), ("ServiceAccount", "serviceAccount"), ("User", "user")];

/// FlowSchemas.
pub fn resource() -> Option<Resource> {
    let names = names("flowcontrol.apiserver.k8s.io/v1", "flowschemas", "FlowSchema", &[], Scope::Cluster);
    super::built_in(names, with_status(), FlowSchema)
}

struct FlowSchema;

impl Strategy for FlowSchema {
    fn default(&self, object: &mut Value) {
        if let Some(spec) = child(object, "spec") {
            set_default_nonzero(spec, "matchingPrecedence", DEFAULT_PRECEDENCE);
        }
    }
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        precedence(&mut errors, object);
        if has(object, "/spec/distinguisherMethod") {
            let method = text(object, "/spec/distinguisherMethod/type");
            let methods = ["ByNamespace", "ByUser"];
            if !methods.contains(&method) {
                let field = "spec.distinguisherMethod.type";
                errors.push(FieldError::not_supported(field, &json!(method), &methods));
            }
        }
        let field = "spec.priorityLevelConfiguration.name";
        match text(object, "/spec/priorityLevelConfiguration/name") {
            "" => errors.push(FieldError::required(field, "must reference a priority level")),
            name => report(&mut errors, field, &json!(name), dns1123_subdomain(name)),
        }
        for (i, item) in list(object, "/spec/rules").iter().enumerate() {
            rule(&mut errors, item, &format!("spec.rules[{i}]"));
        }
        conditions(&mut errors, object);
        errors
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("PriorityLevel", "string", "The priority level of its requests."),
            Column::new("MatchingPrecedence", "string", "The lowest one that matches wins."),
            Column::new("DistinguisherMethod", "string", "What tells its flows apart."),
            Column::age(),
            Column::new("MissingPL", "string", "Whether the priority level is missing."),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let method = text(object, "/spec/distinguisherMethod/type");
        vec![
            table::name(object),
            json!(text(object, "/spec/priorityLevelConfiguration/name")),
            json!(int(object, "/spec/matchingPrecedence").unwrap_or(0).to_string()),
            json!(if method.is_empty() { "<none>" } else { method }),
            table::age(object, now),
            json!(condition(object, "Dangling").map_or("?", |c| text(c, "/status"))),
        ]
    }
}

fn precedence(errors: &mut Vec<FieldError>, object: &Value) {
    let precedence = int(object, "/spec/matchingPrecedence").unwrap_or(0);
    let mut bad = |message: &str| {
        errors.push(FieldError::invalid("spec.matchingPrecedence", &json!(precedence), message));
    };
    match precedence {
        ..=0 => bad("must be a positive value"),
        1 if text(object, "/metadata/name") != "exempt" => {
            bad("only the schema named 'exempt' may have matchingPrecedence 1");
        }
        n if n > MAX_PRECEDENCE => bad(&format!("must not be greater than {MAX_PRECEDENCE}")),
        _ => {}
    }
}

fn rule(errors: &mut Vec<FieldError>, rule: &Value, field: &str) {
    let subjects = list(rule, "/subjects");
    if subjects.is_empty() {
        let message = "subjects must contain at least one value";
        errors.push(FieldError::required(format!("{field}.subjects"), message));
    }
    for (i, item) in subjects.iter().enumerate() {
        subject(errors, item, &format!("{field}.subjects[{i}]"));
    }
    if list(rule, "/resourceRules").is_empty() && list(rule, "/nonResourceRules").is_empty() {
        let message = "at least one of resourceRules and nonResourceRules has to be non-empty";
        errors.push(FieldError::required(field, message));
    }
    for (i, item) in list(rule, "/resourceRules").iter().enumerate() {
        let field = format!("{field}.resourceRules[{i}]");
        verbs(errors, item, &field);
        let (groups, resources) = ("resource rules must supply at least one api group", "api groups");
        members(errors, item, &field, "apiGroups", groups, resources);
        let message = "resource rules must supply at least one resource";
        members(errors, item, &field, "resources", message, "resources");
        if item.get("clusterScope") != Some(&json!(true)) || !list(item, "/namespaces").is_empty() {
            let message = "resource rules that are not cluster scoped must supply at least one namespace";
            members(errors, item, &field, "namespaces", message, "namespaces");
        }
        for (j, name) in strings(item, "/namespaces").enumerate().filter(|(_, name)| *name != "*") {
            let check = dns1123_label(name)
                .map_err(|m| format!("each member of this list must be '*' or a DNS-1123 label; {m}"));
            report(errors, format!("{field}.namespaces[{j}]"), &json!(name), check);
        }
    }
    for (i, item) in list(rule, "/nonResourceRules").iter().enumerate() {
        let field = format!("{field}.nonResourceRules[{i}]");
        verbs(errors, item, &field);
        let message = "nonResourceURLs must contain at least one value";
        members(errors, item, &field, "nonResourceURLs", message, "non-resource URLs");
        for (j, url) in strings(item, "/nonResourceURLs").enumerate().filter(|(_, url)| *url != "*") {
            report(errors, format!("{field}.nonResourceURLs[{j}]"), &json!(url), url_path(url));
        }
    }
}

fn subject(errors: &mut Vec<FieldError>, subject: &Value, field: &str) {
    let kind = text(subject, "/kind");
    let Some((_, own)) = SUBJECTS.iter().find(|(k, _)| *k == kind) else {
        let kinds = SUBJECTS.map(|(kind, _)| kind);
        return errors.push(FieldError::not_supported(format!("{field}.kind"), &json!(kind), &kinds));
    };
    if !has(subject, &format!("/{own}")) {
        let message = format!("{own} is required when subject kind is '{kind}'");
        errors.push(FieldError::required(format!("{field}.{own}"), &message));
    } else if text(subject, &format!("/{own}/name")).is_empty() {
        errors.push(FieldError::required(format!("{field}.{own}.name"), ""));
    }
    if kind == "ServiceAccount" && has(subject, "/serviceAccount") {
        let field = format!("{field}.serviceAccount.namespace");
        match text(subject, "/serviceAccount/namespace") {
            "" => errors.push(FieldError::required(field, "must specify namespace for service account")),
            name => report(errors, field, &json!(name), dns1123_label(name)),
        }
    }
    for (other, key) in SUBJECTS.iter().filter(|(k, key)| *k != kind && has(subject, &format!("/{key}"))) {
        let message = format!("{key} is forbidden when subject kind is not '{other}'");
        errors.push(FieldError::forbidden(format!("{field}.{key}"), &message));
    }
}

fn verbs(errors: &mut Vec<FieldError>, rule: &Value, field: &str) {
    members(errors, rule, field, "verbs", "verbs must contain at least one value", "verbs");
    if strings(rule, "/verbs").any(|v| v != "*" && !VERBS.contains(&v)) && !strings(rule, "/verbs").any(|v| v == "*") {
        let given = rule.get("verbs").unwrap_or(&Value::Null);
        errors.push(FieldError::not_supported(format!("{field}.verbs"), given, &VERBS));
    }
}

/// A list that must have members, where `*` stands alone.
fn members(errors: &mut Vec<FieldError>, rule: &Value, field: &str, key: &str, missing: &str, what: &str) {
    let (pointer, field) = (format!("/{key}"), format!("{field}.{key}"));
    let all = list(rule, &pointer);
    if all.is_empty() {
        errors.push(FieldError::required(field, missing));
    } else if all.len() > 1 && all.iter().any(|v| v == "*") {
        let message = format!("if '*' is present, must not specify other {what}");
        errors.push(FieldError::invalid(field, &json!(all), &message));
    }
}

fn url_path(path: &str) -> Result<(), String> {
    let bad = |message: &str| Err(message.to_string());
    match path {
        "" => bad("must not be empty"),
        p if !p.starts_with('/') => bad("must start with slash"),
        p if p.contains(' ') => bad("must not contain white-space"),
        p if p.contains("//") => bad("must not contain double slash"),
        p if p.strip_suffix("/*").unwrap_or(p).contains('*') => bad("wildcard can only do suffix matching"),
        _ => Ok(()),
    }
}
