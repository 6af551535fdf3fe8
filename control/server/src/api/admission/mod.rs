//! Admission: what may be created, changed or deleted beyond an object's own rules, and what the cluster fills in
//! (addresses, ports, accounts). A chain of [`Admission`]s runs twice: between defaulting and validation it may change
//! the object, after validation it may still refuse it.

mod certificates;
mod claim_resize;
mod classes;
mod limit_range;
mod namespace;
mod others;
mod priority;
mod quota;
mod runtime_class;
mod service;
mod service_account;

use async_trait::async_trait;
use copepod_api::{ApiError, Cidr};
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use super::request::Request;

/// What a reviewed write does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    /// A new object.
    Create,
    /// A change.
    Update,
    /// The beginning (or end) of a deletion.
    Delete,
}

/// A write under review.
pub(crate) struct Review<'a> {
    /// Who asks for what.
    pub request: &'a Request,
    /// What is done.
    pub operation: Operation,
    /// The object's name.
    pub name: &'a str,
    /// The object as it will be stored (for deletions, as it is); admission may change it.
    pub object: &'a mut Value,
    /// The object before an update.
    pub old: Option<&'a Value>,
    guards: Vec<OwnedMutexGuard<()>>,
}

impl<'a> Review<'a> {
    /// A review of one write.
    pub fn new(
        request: &'a Request,
        operation: Operation,
        name: &'a str,
        object: &'a mut Value,
        old: Option<&'a Value>,
    ) -> Self {
        Self { request, operation, name, object, old, guards: Vec::new() }
    }
    /// Whether the write is to this resource.
    pub fn is(&self, group: &str, plural: &str) -> bool {
        let names = &self.request.resource.names;
        names.group == group && names.plural == plural
    }
    /// Whether the write is to an object of this core resource itself, not to one of its subresources.
    pub fn is_core(&self, plural: &str) -> bool {
        self.is("", plural) && self.subresource().is_empty()
    }
    /// The subresource that is written, `""` if it is the object itself.
    pub fn subresource(&self) -> &str {
        self.request.target.subresource.as_deref().unwrap_or_default()
    }
    /// The refusal of the write.
    pub fn forbidden(&self, why: impl std::fmt::Display) -> ApiError {
        ApiError::forbidden(&self.request.group_resource(), self.name, why)
    }
    /// Keeps a lock until the write is committed.
    pub fn hold(&mut self, guard: OwnedMutexGuard<()>) {
        self.guards.push(guard);
    }
    /// The locks that must live until the commit.
    pub fn into_guards(self) -> Vec<OwnedMutexGuard<()>> {
        self.guards
    }
}

/// One rule of the chain.
#[async_trait]
pub(crate) trait Admission: Send + Sync {
    /// Refuses the write, or lets it pass, perhaps changed.
    async fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError>;
    /// Refuses a write whose object is valid, or lets it pass as it is. A dry run leaves no trace.
    async fn check(&self, _review: &mut Review<'_>) -> Result<(), ApiError> {
        Ok(())
    }
}

/// The chain in order.
pub(crate) fn chain(service_cidr: Cidr, node_ports: std::ops::RangeInclusive<u16>) -> Vec<Box<dyn Admission>> {
    vec![
        Box::new(namespace::Lifecycle),
        Box::new(certificates::Requester),
        Box::new(limit_range::Limits),
        Box::new(service_account::Accounts),
        Box::new(priority::Priorities::default()),
        Box::new(classes::DefaultClasses::default()),
        Box::new(claim_resize::ClaimResize),
        Box::new(runtime_class::RuntimeClasses),
        Box::new(quota::Quotas::default()),
        // Holds a lock until the commit: nothing that waits comes after it.
        Box::new(service::Addresses::new(service_cidr, node_ports)),
    ]
}
