//! APIService, as an object: nothing is aggregated.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{condition, conditions};
use super::value::{flag, has, int, set, set_default, text};
use super::{names, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{self, Check, dns1035_label, dns1123_subdomain, report};

/// APIServices.
pub fn resource() -> Option<Resource> {
    let mut names = names("apiregistration.k8s.io/v1", "apiservices", "APIService", &[], Scope::Cluster);
    names.categories.push("api-extensions".into());
    super::built_in(names, with_status(), ApiService)
}

struct ApiService;

impl Strategy for ApiService {
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn default(&self, object: &mut Value) {
        if let Some(service) = object.pointer_mut("/spec/service").filter(|s| s.is_object()) {
            set_default(service, "port", 443);
        }
    }
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let (name, group, version) =
            (text(object, "/metadata/name"), text(object, "/spec/group"), text(object, "/spec/version"));
        let wanted = format!("{version}.{group}");
        if name != wanted {
            let message = format!("must be `spec.version+\".\"+spec.group`: {wanted:?}");
            errors.push(FieldError::invalid("metadata.name", &json!(name), &message));
        }
        if !group.is_empty() {
            report(&mut errors, "spec.group", &json!(group), dns1123_subdomain(group));
        } else if version != "v1" {
            let message = "only v1 may have an empty group and it better be legacy kube";
            errors.push(FieldError::required("spec.group", message));
        }
        report(&mut errors, "spec.version", &json!(version), dns1035_label(version));
        for (key, most) in [("groupPriorityMinimum", 20_000), ("versionPriority", 1000)] {
            let given = int(object, &format!("/spec/{key}")).unwrap_or(0);
            if given <= 0 || given > most {
                let message = format!("must be positive and less than {most}");
                errors.push(FieldError::invalid(format!("spec.{key}"), &json!(given), &message));
            }
        }
        service(&mut errors, object);
        conditions(&mut errors, object);
        errors
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Service", "string", "Who serves it; Local is this server."),
            Column::new("Available", "string", "Whether it answers."),
            Column::age(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let of = |key: &str| text(object, &format!("/spec/service/{key}"));
        let service = match has(object, "/spec/service") {
            true => format!("{}/{}", of("namespace"), of("name")),
            false => "Local".into(),
        };
        let available = match condition(object, "Available").map(|c| (text(c, "/status"), text(c, "/reason"))) {
            Some(("True", _)) => "True".to_string(),
            Some((status, reason)) => format!("{status} ({reason})"),
            None => "Unknown".into(),
        };
        vec![table::name(object), json!(service), json!(available), table::age(object, now)]
    }
    fn validate_name(&self, name: &str) -> Check {
        validate::path_segment(name)
    }
}

fn service(errors: &mut Vec<FieldError>, object: &Value) {
    let bundle = !text(object, "/spec/caBundle").is_empty();
    let insecure = flag(object, "/spec/insecureSkipTLSVerify");
    let mut bad = |key: &str, message: &str| {
        let value = object.pointer(&format!("/spec/{key}")).cloned().unwrap_or_default();
        errors.push(FieldError::invalid(format!("spec.{key}"), &value, message));
    };
    if !has(object, "/spec/service") {
        if bundle {
            bad("caBundle", "local APIServices may not have a caBundle");
        }
        if insecure {
            bad("insecureSkipTLSVerify", "local APIServices may not have insecureSkipTLSVerify");
        }
        return;
    }
    if insecure && bundle {
        bad("insecureSkipTLSVerify", "may not be true if caBundle is present");
    }
    for key in ["namespace", "name"] {
        if text(object, &format!("/spec/service/{key}")).is_empty() {
            errors.push(FieldError::required(format!("spec.service.{key}"), ""));
        }
    }
    if let Some(number) = int(object, "/spec/service/port") {
        let check = validate::port(number).map_err(|m| format!("port is not valid: {m}"));
        report(errors, "spec.service.port", &json!(number), check);
    }
}
