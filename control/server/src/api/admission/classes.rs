//! Claims that name no StorageClass and Ingresses that name no IngressClass get the default one, if there is one.

use async_trait::async_trait;
use copepod_api::ApiError;
use copepod_core::admission::classes::{
    Marked, choose, claim_class, default_ingress_class, default_storage_class, give, has_ingress_class,
};

use super::others::Digest;
use super::{Admission, Operation, Review};

pub(super) struct DefaultClasses {
    storage: Digest<Marked>,
    ingress: Digest<Marked>,
}

impl Default for DefaultClasses {
    fn default() -> Self {
        Self {
            storage: Digest::new("/storage.k8s.io/storageclasses/", default_storage_class),
            ingress: Digest::new("/networking.k8s.io/ingressclasses/", default_ingress_class),
        }
    }
}

#[async_trait]
impl Admission for DefaultClasses {
    async fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        if review.operation != Operation::Create {
            return Ok(());
        }
        let (classes, field) = if review.is("", "persistentvolumeclaims") && claim_class(review.object).is_none() {
            (&self.storage, "storageClassName")
        } else if review.is("networking.k8s.io", "ingresses") && !has_ingress_class(review.object) {
            (&self.ingress, "ingressClassName")
        } else {
            return Ok(());
        };
        if let Some(class) = choose(classes.now(&*review.request.state.store)?) {
            give(review.object, field, &class);
        }
        Ok(())
    }
}
