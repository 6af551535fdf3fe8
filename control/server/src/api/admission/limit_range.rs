//! Pods and claims stay within their namespace's LimitRanges, which also fill in what containers leave out.

use async_trait::async_trait;
use copepod_api::ApiError;
use copepod_core::admission::limit_range;
use serde_json::Value;

use super::{Admission, Operation, Review, others};
use crate::api::object::is_deleting;

pub(super) struct Limits;

fn ranges(review: &Review<'_>) -> Result<Vec<Value>, ApiError> {
    let namespace = review.request.namespace().unwrap_or_default();
    others::list(&*review.request.state.store, &format!("/core/limitranges/{namespace}/"))
}

#[async_trait]
impl Admission for Limits {
    async fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        if review.operation == Operation::Create && review.is_core("pods") {
            for range in ranges(review)? {
                limit_range::fill(&range, review.object);
            }
        }
        Ok(())
    }

    async fn check(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        let creates = review.operation == Operation::Create;
        let resizes = review.is("", "pods") && review.subresource() == "resize";
        let check = if resizes || (creates && review.is_core("pods")) {
            limit_range::check_pod
        } else if review.is_core("persistentvolumeclaims") {
            limit_range::check_claim
        } else {
            return Ok(());
        };
        if !creates && is_deleting(review.object) {
            return Ok(());
        }
        for range in ranges(review)? {
            check(&range, review.object).map_err(|why| review.forbidden(why))?;
        }
        Ok(())
    }
}
