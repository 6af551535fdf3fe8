//! The scheduler: where a pod goes, purely. [`Snapshot`] is the cluster as the scheduler sees it, bindings under way
//! included; [`schedule`] filters its nodes, scores the rest, and says why none fits and who might make room;
//! [`Queue`] says which pod is next, and which [`Change`] is worth another try of those that wait.
//! Source: <https://kubernetes.io/docs/concepts/scheduling-eviction/>.
//!
//! What a decision costs: sampling (`Profile::enough`) bounds the nodes that are scored, and counts by topology are kept
//! change by change (`index`), so that neither grows with the number of pods.

mod change;
mod cycle;
mod filters;
mod hooks;
mod images;
mod index;
mod members;
mod node_info;
mod node_terms;
mod nominated;
mod plugin_args;
mod pod_info;
mod preemption;
pub mod profile;
mod query;
mod queue;
mod request;
mod scores;
mod snapshot;
mod state;
mod table;
mod topology;
mod tracker;
pub mod volumes;
mod work;
pub mod writes;

pub use change::Change;
pub use cycle::{Cursor, Decision, Failure, RefusedBy, schedule};
pub use node_info::NodeInfo;
pub use pod_info::PodInfo;
pub use preemption::{DISRUPTION_TARGET, Preemption};
pub use profile::Profile;
pub use queue::{Next, Queue};
pub use request::Request;
pub use snapshot::Snapshot;
pub use state::State;
pub use work::Work;

#[cfg(test)]
pub(in crate::scheduler) mod tests;
