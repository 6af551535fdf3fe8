//! VolumeAttachment.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{at, immutable};
use super::value::{entries, flag, has, int, set, text};
use super::{names, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{dns1123_subdomain, report, too_long};

/// Most bytes of all names and values of `status.attachmentMetadata`.
const MAX_METADATA_BYTES: usize = 256 * 1024;
/// Longest message of an error in the status.
const MAX_MESSAGE_BYTES: usize = 1024;
const ONE_SOURCE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";

/// VolumeAttachments.
pub fn resource() -> Option<Resource> {
    let names = names("storage.k8s.io/v1", "volumeattachments", "VolumeAttachment", &[], Scope::Cluster);
    super::built_in(names, with_status(), VolumeAttachment)
}

struct VolumeAttachment;

impl Strategy for VolumeAttachment {
    fn allows_unconditional_update(&self) -> bool {
        false
    }
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({"attached": false}));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let spec = at(object, "spec");
        match text(spec, "/attacher") {
            "" => errors.push(FieldError::required("spec.attacher", "")),
            name => report(&mut errors, "spec.attacher", &json!(name), dns1123_subdomain(name)),
        }
        let (inline, volume) = (has(spec, "/source/inlineVolumeSpec"), at(spec, "source.persistentVolumeName"));
        let field = "spec.source.persistentVolumeName";
        match volume.as_str() {
            None if !inline => errors.push(FieldError::required("spec.source", ONE_SOURCE)),
            Some(_) if inline => errors.push(FieldError::forbidden("spec.source", ONE_SOURCE)),
            Some("") => errors.push(FieldError::required(field, "must specify non empty persistentVolumeName")),
            Some(name) => report(&mut errors, field, volume, dns1123_subdomain(name)),
            None => {}
        }
        let node = text(spec, "/nodeName");
        report(&mut errors, "spec.nodeName", &json!(node), dns1123_subdomain(node));
        status(&mut errors, at(object, "status"));
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        immutable(new, old, &["spec"])
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Attacher", "string", "The driver that attaches the volume."),
            Column::new("PV", "string", "The volume."),
            Column::new("Node", "string", "The node that it is for."),
            Column::new("Attached", "boolean", "Whether it is attached."),
            Column::age(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        vec![
            table::name(object),
            json!(text(object, "/spec/attacher")),
            json!(text(object, "/spec/source/persistentVolumeName")),
            json!(text(object, "/spec/nodeName")),
            json!(flag(object, "/status/attached")),
            table::age(object, now),
        ]
    }
}

fn status(errors: &mut Vec<FieldError>, status: &Value) {
    let bytes = |(key, value): (&String, &Value)| key.len() + value.as_str().map_or(0, str::len);
    if entries(status, "/attachmentMetadata").map(bytes).sum::<usize>() > MAX_METADATA_BYTES {
        errors.push(too_long("status.attachmentMetadata", MAX_METADATA_BYTES));
    }
    for key in ["attachError", "detachError"] {
        let error = at(status, key);
        if text(error, "/message").len() > MAX_MESSAGE_BYTES {
            errors.push(too_long(format!("status.{key}.message"), MAX_MESSAGE_BYTES));
        }
        if let Some(code) = int(error, "/errorCode").filter(|c| *c < 0) {
            let message = "must be between 0 and 2147483647, inclusive";
            errors.push(FieldError::invalid(format!("status.{key}.errorCode"), &json!(code), message));
        }
    }
}
