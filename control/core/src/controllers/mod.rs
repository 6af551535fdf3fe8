//! Controllers: pure decisions from (observed, now) to a [`Plan`]. The driver observes, executes, and waits until it
//! sees its own writes before it asks again; so a decision never has to guess what is under way.

pub mod deployment;
pub mod deployment_rollout;
pub mod deployment_status;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod event_ttl;
pub mod garbage;
pub mod meta;
pub mod namespace;
pub mod node_lifecycle;
pub mod plan;
pub mod pod;
pub mod replicaset;
pub mod resource_quota;
pub mod service_account;

#[cfg(test)]
pub(crate) mod testing;

pub use plan::{Action, Note, Plan, Propagation, Target};
