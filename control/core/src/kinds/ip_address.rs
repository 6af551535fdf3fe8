//! IPAddress.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{immutable, segment};
use super::value::{has, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{self, Check, dns1123_subdomain, path_segment, report};

/// IPAddresses.
pub fn resource() -> Option<Resource> {
    let names = names("networking.k8s.io/v1", "ipaddresses", "IPAddress", &["ip"], Scope::Cluster);
    super::built_in(names, plain(), IpAddress)
}

struct IpAddress;

impl Strategy for IpAddress {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        const FIELD: &str = "spec.parentRef";
        let mut errors = Vec::new();
        let Some(parent) = object.pointer("/spec/parentRef").filter(|p| !p.is_null()) else {
            return vec![FieldError::required(FIELD, "")];
        };
        let (group, namespace) = (text(parent, "/group"), text(parent, "/namespace"));
        if !group.is_empty() {
            report(&mut errors, format!("{FIELD}.group"), &json!(group), dns1123_subdomain(group));
        }
        segment(&mut errors, parent, FIELD, "resource");
        segment(&mut errors, parent, FIELD, "name");
        report(&mut errors, format!("{FIELD}.namespace"), &json!(namespace), path_segment(namespace));
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        immutable(new, old, &["spec.parentRef"])
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![Column::name(), Column::new("ParentRef", "string", "Whose address it is."), Column::age()]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![table::name(object), json!(parent(object)), table::age(object, now)]
    }
    /// The address in its one canonical form.
    fn validate_name(&self, name: &str) -> Check {
        validate::ip(name)?;
        match name.parse::<std::net::IpAddr>() {
            Ok(address) if address.to_string() != name => Err(format!("must be in canonical form (\"{address}\")")),
            _ => Ok(()),
        }
    }
}

fn parent(object: &Value) -> String {
    if !has(object, "/spec/parentRef") {
        return "<none>".into();
    }
    let of = |key: &str| text(object, &format!("/spec/parentRef/{key}"));
    let parts = match (of("resource"), of("group")) {
        (resource, "") => [resource.to_string(), of("namespace").into(), of("name").into()],
        (resource, group) => [format!("{resource}.{group}"), of("namespace").into(), of("name").into()],
    };
    parts.into_iter().filter(|p| !p.is_empty()).collect::<Vec<_>>().join("/")
}
