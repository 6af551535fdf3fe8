//! Writes stay within their namespace's ResourceQuotas. What a write uses is added to the quotas' status before the
//! write is committed; the quota controller takes it off again when the object is gone, or never came.

use std::collections::BTreeSet;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Arc;

use async_trait::async_trait;
use copepod_api::{ApiError, GroupResource};
use copepod_core::admission::amounts::{self, Amounts};
use copepod_core::admission::quota::{self, Refusal, Write};
use copepod_store::{Expect, Record, StoreError};
use tokio::sync::Mutex;

use super::{Admission, Operation, Review, others};
use crate::api::object::{self, as_map, child_mut};
use crate::api::{ApiState, error};

/// Namespaces share this many locks.
const LOCKS: usize = 64;
/// How often a charge is made again when others write the quotas in between.
const MAX_TRIES: usize = 16;

pub(super) struct Quotas {
    /// One charge per namespace at a time: they all write the same few objects.
    locks: Vec<Arc<Mutex<()>>>,
}

impl Default for Quotas {
    fn default() -> Self {
        Self { locks: (0..LOCKS).map(|_| Arc::default()).collect() }
    }
}

impl Quotas {
    fn lock(&self, namespace: &str) -> Arc<Mutex<()>> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(namespace);
        let i = usize::try_from(hash % LOCKS as u64).unwrap_or(0);
        self.locks.get(i).cloned().unwrap_or_default()
    }
}

/// The prefix of the quotas that the write may use up; `None` if it uses up none.
fn prefix_of(review: &Review<'_>) -> Option<String> {
    let namespace = review.request.namespace()?;
    let update = review.operation == Operation::Update;
    let resource = &review.request.resource;
    let counted = resource.namespaced()
        && resource.is_stored()
        && review.operation != Operation::Delete
        && quota::is_counted(&review.request.group_resource(), update, review.subresource());
    let prefix = format!("/core/resourcequotas/{namespace}/");
    (counted && review.request.state.store.count(&prefix) > 0).then_some(prefix)
}

#[async_trait]
impl Admission for Quotas {
    /// Waits until the usage of new quotas is known.
    async fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        let Some(prefix) = prefix_of(review) else { return Ok(()) };
        let (store, resource) = (&*review.request.state.store, review.request.group_resource());
        let known = || -> Result<Option<()>, ApiError> {
            let quotas = others::list(store, &prefix)?;
            Ok((!quotas.iter().any(|q| quota::is_unknown(q, &resource))).then_some(()))
        };
        others::wait(store, &prefix, known).await.map(|_| ())
    }

    async fn check(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        let Some(prefix) = prefix_of(review) else { return Ok(()) };
        let state = &review.request.state;
        let resource = review.request.group_resource();
        let write = Write { resource: &resource, object: review.object, old: review.old, now: state.now() };
        let lock = self.lock(review.request.namespace().unwrap_or_default());
        let _turn = lock.lock().await;
        let mut charged = BTreeSet::new();
        for _ in 0..MAX_TRIES {
            let mut records = others::records(&*state.store, &prefix)?;
            records.retain(|record| !charged.contains(&record.key));
            let quotas = records.iter().map(others::decode).collect::<Result<Vec<_>, _>>()?;
            let charges = quota::charge(&quotas, &write).map_err(|refusal| match refusal {
                Refusal::Forbidden(why) | Refusal::Unknown(why) => review.forbidden(why),
            })?;
            if review.request.dry_run {
                return Ok(());
            }
            let mut stale = false;
            for (i, used) in charges {
                let Some(record) = records.get(i) else { continue };
                match raise(state, record, &used).await {
                    Ok(()) => drop(charged.insert(record.key.clone())),
                    Err(StoreError::Conflict { .. }) => stale = true,
                    Err(e) => return Err(error::from_store(e, &quotas_resource(), "")),
                }
            }
            if !stale {
                return Ok(());
            }
        }
        Err(ApiError::stale(&quotas_resource(), ""))
    }
}

fn quotas_resource() -> GroupResource {
    GroupResource { group: String::new(), resource: "resourcequotas".into() }
}

/// Writes a quota's usage, if nobody has written the quota since it was read.
async fn raise(state: &ApiState, record: &Record, used: &Amounts) -> Result<(), StoreError> {
    let broken = |e: ApiError| StoreError::Broken(e.message);
    let mut quota = others::decode(record).map_err(broken)?;
    child_mut(as_map(&mut quota), "status").insert("used".into(), amounts::to_value(used));
    let resource = state.registry.find("", "v1", "resourcequotas");
    let resource = resource.ok_or_else(|| StoreError::Broken("quotas are not served".into()))?;
    let (bytes, attrs) = object::encode(&state.registry, resource, &quota).map_err(broken)?;
    state.store.put(&record.key, bytes, attrs, Expect::Revision(record.revision)).await.map(|_| ())
}
