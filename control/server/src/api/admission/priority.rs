//! Pods get the priority of their PriorityClass, or of the default one; one class at most is the default.

use async_trait::async_trait;
use copepod_api::ApiError;
use copepod_core::admission::priority::{self, Class};

use super::others::{self, Digest};
use super::{Admission, Operation, Review};

const CLASSES: &str = "/scheduling.k8s.io/priorityclasses/";

pub(super) struct Priorities {
    defaults: Digest<Class>,
}

impl Default for Priorities {
    fn default() -> Self {
        Self { defaults: Digest::new(CLASSES, Class::of_default) }
    }
}

impl Priorities {
    fn default_class(&self, review: &Review<'_>) -> Result<Class, ApiError> {
        Ok(Class::default_of(self.defaults.now(&*review.request.state.store)?))
    }
}

#[async_trait]
impl Admission for Priorities {
    async fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        if !review.is_core("pods") {
            return Ok(());
        }
        match (review.operation, review.old) {
            (Operation::Create, _) => {
                let class = match priority::named(review.object) {
                    None => self.default_class(review)?,
                    Some(name) => {
                        let found = others::get(&*review.request.state.store, &format!("{CLASSES}{name}"))?;
                        let missing = || review.forbidden(format!("no PriorityClass with name {name} was found"));
                        Class::of(&found.ok_or_else(missing)?)
                    }
                };
                priority::resolve(review.object, &class).map_err(|why| review.forbidden(why))
            }
            (Operation::Update, Some(old)) => {
                priority::carry(review.object, old);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    async fn check(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        if !review.is("scheduling.k8s.io", "priorityclasses") {
            return Ok(());
        }
        let default = self.default_class(review)?;
        priority::check_class(review.object, &default).map_err(|why| review.forbidden(why))
    }
}
