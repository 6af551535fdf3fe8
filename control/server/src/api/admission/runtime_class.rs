//! Pods get the overhead and the scheduling rules of the RuntimeClass that they name.

use async_trait::async_trait;
use copepod_api::ApiError;
use copepod_core::admission::runtime_class;

use super::{Admission, Operation, Review, others};

pub(super) struct RuntimeClasses;

#[async_trait]
impl Admission for RuntimeClasses {
    async fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        if review.operation != Operation::Create || !review.is_core("pods") {
            return Ok(());
        }
        let class = match runtime_class::named(review.object) {
            None => None,
            Some(name) => {
                let key = format!("/node.k8s.io/runtimeclasses/{name}");
                let found = others::get(&*review.request.state.store, &key)?;
                let missing = || review.forbidden(format!("pod rejected: RuntimeClass {name:?} not found"));
                Some(found.ok_or_else(missing)?)
            }
        };
        runtime_class::merge(review.object, class.as_ref()).map_err(|why| review.forbidden(why))
    }
}
