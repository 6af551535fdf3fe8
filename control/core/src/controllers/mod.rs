//! Controllers: pure decisions from (observed, now) to a [`Plan`]. The driver observes, executes, and waits until it
//! sees its own writes before it asks again; so a decision never has to guess what is under way.

pub mod backoff;
pub mod cronjob;
pub mod daemonset;
pub mod daemonset_nodes;
pub mod daemonset_rollout;
pub mod deployment;
pub mod deployment_rollout;
pub mod deployment_status;
pub mod disruption;
pub mod endpoints;
pub mod endpointslice;
pub mod endpointslice_mirroring;
pub mod ephemeral_volumes;
pub mod event_ttl;
pub mod garbage;
pub mod history;
pub mod horizontal_pod_autoscaler;
pub mod horizontal_pod_autoscaler_limits;
pub mod horizontal_pod_autoscaler_metrics;
pub mod job;
pub mod job_indexes;
pub mod job_pods;
pub mod job_status;
mod job_view;
mod job_work;
pub mod local_path;
pub mod meta;
pub mod namespace;
pub mod node_lifecycle;
pub mod node_ttl;
pub mod node_zones;
pub mod plan;
pub mod pod;
pub mod pod_gc;
pub mod replicaset;
pub mod replicationcontroller;
pub mod resource_quota;
pub mod service_account;
mod slices;
pub mod stale_disruption;
pub mod statefulset;
pub mod statefulset_pods;
pub mod template;
pub mod ttl_after_finished;
pub mod volume_claims;
pub mod volume_phases;
pub mod volume_protection;

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
pub(crate) mod testing_cluster;
#[cfg(test)]
mod volume_tests;

pub use plan::{Action, Note, Plan, Propagation, Target};
