//! The one kube client of our components and of other people's operators: two transports (in process and HTTPS),
//! one shared reflector per kind and process, a work queue, an Event recorder, and patches that write only changes.
//!
//! Knows no server and no node: the in-process transport takes any HTTP service.

pub mod events;
mod objects;
pub mod patch;
pub mod queue;
pub mod reflector;
mod terms;
pub mod transport;

pub use events::Recorder;
pub use queue::{Outcome, Settings, WorkQueue};
pub use reflector::{Change, Key, Shared};
pub use terms::Terms;
pub use transport::{ConnectError, https, in_process};
