//! Namespace lifecycle: nothing is created in a namespace that is missing or going, and three namespaces stay.

use async_trait::async_trait;
use copepod_api::{ApiError, GroupResource};
use serde_json::json;

use super::{Admission, Operation, Review};
use crate::api::object;

/// Namespaces that cannot be deleted.
const IMMORTAL: &[&str] = &["default", "kube-system", "kube-public"];

pub(super) struct Lifecycle;

#[async_trait]
impl Admission for Lifecycle {
    async fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        match (review.operation, review.request.namespace()) {
            (Operation::Delete, _) if review.is("", "namespaces") && IMMORTAL.contains(&review.name) => {
                let namespaces = review.request.group_resource();
                Err(ApiError::forbidden(&namespaces, review.name, "this namespace may not be deleted"))
            }
            // A question about a namespace tells nothing of whether there is one.
            (Operation::Create, Some(_)) if !review.request.resource.is_stored() => Ok(()),
            (Operation::Create, Some(namespace)) => check(review, namespace),
            _ => Ok(()),
        }
    }
}

fn check(review: &Review<'_>, namespace: &str) -> Result<(), ApiError> {
    let store = &review.request.state.store;
    let Some(record) = store.get(&format!("/core/namespaces/{namespace}")) else {
        let namespaces = GroupResource { group: String::new(), resource: "namespaces".into() };
        return Err(ApiError::not_found(&namespaces, namespace));
    };
    // The phase is indexed; without the index the bytes say it.
    let terminating = match record.attrs.fields.get("status.phase") {
        Some(phase) => phase == "Terminating",
        None => object::is_deleting(&object::stored(review.request, &record)?),
    };
    if !terminating {
        return Ok(());
    }
    let why = format!("unable to create new content in namespace {namespace} because it is being terminated");
    let mut e = ApiError::forbidden(&review.request.group_resource(), review.name, why);
    if let Some(details) = e.details.as_mut() {
        let message = format!("namespace {namespace} is being terminated");
        let cause = json!({"reason": "NamespaceTerminating", "message": message, "field": "metadata.namespace"});
        object::as_map(details).insert("causes".into(), json!([cause]));
    }
    Err(e)
}
