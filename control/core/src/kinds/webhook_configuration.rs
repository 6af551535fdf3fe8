//! ValidatingWebhookConfiguration and MutatingWebhookConfiguration.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::admission_rules::{
    API, REINVOCATIONS, default_rules, default_selectors, failure_policy, match_conditions, rule, selectors,
};
use super::fields::one_of;
use super::value::{has, int, items_mut, list, set_default, set_default_nonzero, strings, text};
use super::{names, plain};
use crate::resource::{Names, Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{dns1035_label, dns1123_subdomain, port, report};

const SIDE_EFFECTS: [&str; 2] = ["None", "NoneOnDryRun"];
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const TIMEOUT_SECONDS: i64 = 10;
const MAX_TIMEOUT_SECONDS: i64 = 30;

/// ValidatingWebhookConfigurations.
pub fn validating() -> Option<Resource> {
    let names = extension("validatingwebhookconfigurations", "ValidatingWebhookConfiguration");
    super::built_in(names, plain(), Configuration { mutating: false })
}

/// MutatingWebhookConfigurations.
pub fn mutating() -> Option<Resource> {
    let names = extension("mutatingwebhookconfigurations", "MutatingWebhookConfiguration");
    super::built_in(names, plain(), Configuration { mutating: true })
}

/// Names in the category `api-extensions`.
pub(super) fn extension(plural: &str, kind: &str) -> Names {
    let mut names = names(API, plural, kind, &[], Scope::Cluster);
    names.categories.push("api-extensions".into());
    names
}

struct Configuration {
    mutating: bool,
}

impl Strategy for Configuration {
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn default(&self, object: &mut Value) {
        for hook in items_mut(object, "/webhooks") {
            set_default_nonzero(hook, "failurePolicy", "Fail");
            default_selectors(hook);
            set_default(hook, "timeoutSeconds", TIMEOUT_SECONDS);
            if self.mutating {
                set_default_nonzero(hook, "reinvocationPolicy", "Never");
            }
            default_rules(hook, "/rules");
            if let Some(service) = hook.pointer_mut("/clientConfig/service").filter(|s| s.is_object()) {
                set_default(service, "port", 443);
            }
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let (mut errors, mut seen) = (Vec::new(), HashSet::new());
        for (i, item) in list(object, "/webhooks").iter().enumerate() {
            let (field, name) = (format!("webhooks[{i}]"), text(item, "/name"));
            webhook(&mut errors, item, &field);
            review_versions(&mut errors, item, &format!("{field}.admissionReviewVersions"));
            if !name.is_empty() && !seen.insert(name) {
                errors.push(FieldError::duplicate(format!("{field}.name"), &json!(name)));
            }
        }
        errors
    }
    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::new("Webhooks", "integer", "How many webhooks it has."), Column::age()]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![table::name(object), json!(list(object, "/webhooks").len()), table::age(object, now)]
    }
}

fn webhook(errors: &mut Vec<FieldError>, hook: &Value, field: &str) {
    let (name, at) = (text(hook, "/name"), format!("{field}.name"));
    if name.is_empty() {
        errors.push(FieldError::required(at, ""));
    } else {
        let qualified = match dns1123_subdomain(name) {
            Ok(()) if name.split('.').count() < 3 => {
                Err("should be a domain with at least three segments separated by dots".into())
            }
            check => check,
        };
        report(errors, at, &json!(name), qualified);
    }
    for (i, item) in list(hook, "/rules").iter().enumerate() {
        rule(errors, item, &format!("{field}.rules[{i}]"));
    }
    failure_policy(errors, hook, field);
    let (effects, at) = (text(hook, "/sideEffects"), format!("{field}.sideEffects"));
    if effects.is_empty() {
        errors.push(FieldError::required(at, &format!("must specify one of {}", SIDE_EFFECTS.join(", "))));
    } else if !SIDE_EFFECTS.contains(&effects) {
        errors.push(FieldError::not_supported(at, &json!(effects), &SIDE_EFFECTS));
    }
    if let Some(seconds) = int(hook, "/timeoutSeconds").filter(|s| !(1..=MAX_TIMEOUT_SECONDS).contains(s)) {
        let message = "the timeout value must be between 1 and 30 seconds";
        errors.push(FieldError::invalid(format!("{field}.timeoutSeconds"), &json!(seconds), message));
    }
    selectors(errors, hook, field);
    one_of(errors, hook, field, "reinvocationPolicy", &REINVOCATIONS);
    let (config, at) = (hook.get("clientConfig").unwrap_or(&Value::Null), format!("{field}.clientConfig"));
    client(errors, config, &at);
    match_conditions(errors, hook, &format!("{field}.matchConditions"));
}

/// Rules of a webhook's address: a URL or a service.
pub(super) fn client(errors: &mut Vec<FieldError>, config: &Value, field: &str) {
    match (config.get("url").and_then(Value::as_str), has(config, "/service")) {
        (Some(_), true) | (None, false) => {
            errors.push(FieldError::required(field, "exactly one of url or service is required"));
        }
        (Some(given), false) => {
            report(errors, format!("{field}.url"), &json!(given), url(given));
        }
        (None, true) => {
            for key in ["name", "namespace"] {
                if text(config, &format!("/service/{key}")).is_empty() {
                    let message = format!("service {key} is required");
                    errors.push(FieldError::required(format!("{field}.service.{key}"), &message));
                }
            }
            if let Some(path) = config.pointer("/service/path").and_then(Value::as_str).filter(|p| !p.starts_with('/'))
            {
                let message = "must start with a '/'";
                errors.push(FieldError::invalid(format!("{field}.service.path"), &json!(path), message));
            }
            if let Some(number) = int(config, "/service/port") {
                let check = port(number).map_err(|m| format!("port is not valid: {m}"));
                report(errors, format!("{field}.service.port"), &json!(number), check);
            }
        }
    }
}

fn url(url: &str) -> Result<(), String> {
    const FORM: &str = "; desired format: https://host[/path]";
    let bad = |message: &str| Err(format!("{message}{FORM}"));
    let Some(rest) = url.strip_prefix("https://") else {
        let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
        return bad(&format!("'https' is the only allowed URL scheme, not {scheme:?}"));
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    match () {
        () if host.is_empty() => bad("host must be specified"),
        () if host.contains('@') => Err("user information is not permitted in the URL".into()),
        () if rest.contains('#') => Err("fragments are not permitted in the URL".into()),
        () if rest.contains('?') => Err("query parameters are not permitted in the URL".into()),
        () => Ok(()),
    }
}

fn review_versions(errors: &mut Vec<FieldError>, hook: &Value, field: &str) {
    let all: Vec<&str> = strings(hook, "/admissionReviewVersions").collect();
    if all.is_empty() {
        let message = format!("must specify one of {}", REVIEW_VERSIONS.join(", "));
        return errors.push(FieldError::required(field, &message));
    }
    let mut seen = HashSet::new();
    for (i, version) in all.iter().enumerate() {
        let field = format!("{field}[{i}]");
        if seen.insert(version) {
            report(errors, field, &json!(version), dns1035_label(version));
        } else {
            errors.push(FieldError::invalid(field, &json!(version), "duplicate version"));
        }
    }
    if !all.iter().any(|v| REVIEW_VERSIONS.contains(v)) {
        let message = format!("must include at least one of {}", REVIEW_VERSIONS.join(", "));
        errors.push(FieldError::invalid(field, &json!(all), &message));
    }
}
