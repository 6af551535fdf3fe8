//! Pods run under the namespace's `default` service account unless they name another.

use async_trait::async_trait;
use copepod_api::ApiError;
use serde_json::Value;

use super::{Admission, Operation, Review};
use crate::api::object::{as_map, child_mut};

pub(super) struct DefaultAccount;

#[async_trait]
impl Admission for DefaultAccount {
    async fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        if review.operation == Operation::Create && review.is("", "pods") {
            let spec = child_mut(as_map(review.object), "spec");
            let text = |name: &str| spec.get(name).and_then(Value::as_str).filter(|s| !s.is_empty());
            let account =
                text("serviceAccountName").or_else(|| text("serviceAccount")).unwrap_or("default").to_string();
            spec.insert("serviceAccountName".into(), account.clone().into());
            spec.insert("serviceAccount".into(), account.into());
        }
        Ok(())
    }
}
