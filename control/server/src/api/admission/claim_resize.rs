//! Claims grow only if their StorageClass can.

use async_trait::async_trait;
use copepod_api::ApiError;
use copepod_core::admission::claim_resize;

use super::{Admission, Operation, Review, others};

pub(super) struct ClaimResize;

#[async_trait]
impl Admission for ClaimResize {
    async fn admit(&self, _: &mut Review<'_>) -> Result<(), ApiError> {
        Ok(())
    }

    async fn check(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        if review.operation != Operation::Update || !review.is_core("persistentvolumeclaims") {
            return Ok(());
        }
        let Some(old) = review.old else { return Ok(()) };
        let Some(class) = claim_resize::asks(review.object, old) else { return Ok(()) };
        let class = others::get(&*review.request.state.store, &format!("/storage.k8s.io/storageclasses/{class}"))?;
        match claim_resize::refusal(review.object, old, class.as_ref()) {
            Some(why) => Err(review.forbidden(why)),
            None => Ok(()),
        }
    }
}
