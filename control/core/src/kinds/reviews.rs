//! Reviews: questions about identities and access that a create answers. Nothing is stored.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::value::{entries, has, list, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};

const AUTHENTICATION: &str = "authentication.k8s.io/v1";
const AUTHORIZATION: &str = "authorization.k8s.io/v1";

/// TokenReviews: whose token is this?
pub fn token_review() -> Option<Resource> {
    review(AUTHENTICATION, "TokenReview", Scope::Cluster)
}

/// SelfSubjectReviews: who am I?
pub fn self_subject_review() -> Option<Resource> {
    review(AUTHENTICATION, "SelfSubjectReview", Scope::Cluster)
}

/// SubjectAccessReviews: may this user do that?
pub fn subject_access_review() -> Option<Resource> {
    review(AUTHORIZATION, "SubjectAccessReview", Scope::Cluster)
}

/// LocalSubjectAccessReviews: may this user do that in this namespace?
pub fn local_subject_access_review() -> Option<Resource> {
    review(AUTHORIZATION, "LocalSubjectAccessReview", Scope::Namespaced)
}

/// SelfSubjectAccessReviews: may I do that?
pub fn self_subject_access_review() -> Option<Resource> {
    review(AUTHORIZATION, "SelfSubjectAccessReview", Scope::Cluster)
}

/// SelfSubjectRulesReviews: what may I do in this namespace?
pub fn self_subject_rules_review() -> Option<Resource> {
    review(AUTHORIZATION, "SelfSubjectRulesReview", Scope::Cluster)
}

fn review(api: &str, kind: &'static str, scope: Scope) -> Option<Resource> {
    let plural = format!("{}s", kind.to_lowercase());
    super::built_in(names(api, &plural, kind, &[], scope), plain(), Review { kind })
}

struct Review {
    kind: &'static str,
}

impl Strategy for Review {
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        if self.kind.ends_with("AccessReview") {
            unnamed(&mut errors, object, self.kind == "LocalSubjectAccessReview");
            access(&mut errors, object, self.kind == "SelfSubjectAccessReview");
        }
        if self.kind == "LocalSubjectAccessReview" {
            local(&mut errors, object);
        }
        errors
    }
    fn verbs(&self) -> &'static [&'static str] {
        &["create"]
    }
    fn has_generation(&self) -> bool {
        false
    }
}

/// A question has no name; one in a namespace says which.
fn unnamed(errors: &mut Vec<FieldError>, object: &Value, namespaced: bool) {
    let empty = |v: &Value| v.is_null() || *v == "" || *v == json!({}) || *v == json!([]);
    if entries(object, "/metadata").any(|(key, value)| !(empty(value) || namespaced && key == "namespace")) {
        let message = if namespaced { "must be empty except for namespace" } else { "must be empty" };
        let given = object.get("metadata").cloned().unwrap_or_default();
        errors.push(FieldError::invalid("metadata", &given, message));
    }
}

fn access(errors: &mut Vec<FieldError>, object: &Value, own: bool) {
    let null = Value::Null;
    let other = object.pointer("/spec/nonResourceAttributes").unwrap_or(&null);
    match (has(object, "/spec/resourceAttributes"), has(object, "/spec/nonResourceAttributes")) {
        (true, true) => {
            let message = "cannot be specified in combination with resourceAttributes";
            errors.push(FieldError::invalid("spec.nonResourceAttributes", other, message));
        }
        (false, false) => {
            let message = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
            errors.push(FieldError::invalid("spec.resourceAttributes", &null, message));
        }
        _ => {}
    }
    if !own && text(object, "/spec/user").is_empty() && list(object, "/spec/groups").is_empty() {
        let message = "at least one of user or group must be specified";
        errors.push(FieldError::invalid("spec.user", &json!(""), message));
    }
}

fn local(errors: &mut Vec<FieldError>, object: &Value) {
    let asked = text(object, "/spec/resourceAttributes/namespace");
    if has(object, "/spec/resourceAttributes") && asked != text(object, "/metadata/namespace") {
        let message = "must match metadata.namespace";
        errors.push(FieldError::invalid("spec.resourceAttributes.namespace", &json!(asked), message));
    }
    if let Some(given) = object.pointer("/spec/nonResourceAttributes").filter(|v| !v.is_null()) {
        let message = "disallowed on this kind of request";
        errors.push(FieldError::invalid("spec.nonResourceAttributes", given, message));
    }
}
