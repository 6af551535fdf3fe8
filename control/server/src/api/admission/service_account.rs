//! Pods run under a ServiceAccount of their namespace, `default` unless they name another, and get its pull secrets.
//! They get no token yet: none is issued.

use async_trait::async_trait;
use copepod_api::ApiError;
use copepod_core::admission::service_account::{self, DEFAULT};

use super::{Admission, Operation, Review, others};

pub(super) struct Accounts;

#[async_trait]
impl Admission for Accounts {
    async fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        if review.operation != Operation::Create || !review.is_core("pods") {
            return Ok(());
        }
        let name = service_account::name(review.object);
        let namespace = review.request.namespace().unwrap_or_default();
        let prefix = format!("/core/serviceaccounts/{namespace}/");
        let store = &*review.request.state.store;
        let look = || others::get(store, &format!("{prefix}{name}"));
        // The default account of a new namespace is just being made.
        let account = if name == DEFAULT { others::wait(store, &prefix, look).await? } else { look()? };
        let Some(account) = account else {
            let why = format!("error looking up service account {namespace}/{name}: serviceaccount {name:?} not found");
            return Err(review.forbidden(why));
        };
        service_account::apply(review.object, &account).map_err(|why| review.forbidden(why))
    }
}
