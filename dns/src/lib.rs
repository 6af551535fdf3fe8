//! Kubernetes service names: pure records and resolution, and a hickory adapter that serves them.
//!
//! Follows the Kubernetes DNS specification 1.1.0
//! (<https://github.com/kubernetes/dns/blob/master/docs/specification.md>), with CoreDNS's behaviour where it is silent.
//! `records` and `resolve` are pure (invariant 1): the same table answers guests in process and machines over sockets.

pub mod records;
pub mod resolve;
pub mod server;

pub use records::{Data, NodeAddresses, Records, View};
pub use resolve::{Answer, HostAnswer, QueryType, Rcode};
