//! The node agent: registers its node, runs its pods in `copepod-runtime` sandboxes, keeps logs and status, serves
//! logs over its tunnel, and carries the pod network (fabric, service table, node ports).
//!
//! Deciding is pure and apart from doing: `pod_actions`, `status`, `env`, `fields`, `volumes`, `service_table` and
//! `policy` take what is observed and return what to do.

pub mod agent;
pub mod checkpoint;
pub mod env;
pub mod exec;
pub mod fabric;
pub mod fields;
pub mod http_settings;
pub mod images;
#[cfg(test)]
mod limits_doc;
pub mod log_reader;
pub mod logs;
mod network;
pub mod node_ports;
pub mod node_status;
pub mod observed;
pub mod pod_actions;
pub mod pod_ips;
pub mod pod_worker;
pub mod pods;
pub mod policy;
pub mod probes;
pub mod publish;
pub mod refs;
pub mod runtime;
pub mod server;
pub mod service_table;
#[cfg(test)]
pub(crate) mod sim;
pub mod start;
pub mod status;
pub mod streaming;
pub mod tunnel;
pub mod unserved;
pub mod usage;
pub mod volumes;
pub mod wasm;

pub use agent::{Agent, AgentConfig, AgentError};
