//! The API server: one generic set of handlers over the [`Store`] and the [`Registry`] serves every resource
//! (invariant 5). Start at [`router`]: it parses the path, finds the resource, and calls the verb's file.
//!
//! Reads (`read`, `watch`) copy stored bytes; writes (`create`, `update`, `patch`, `delete`) decode, default, admit
//! (`admission`), validate and commit. Authentication and authorization are layers outside: every request carries an
//! [`Identity`] extension.

mod accept;
pub mod admission;
mod apply;
mod body;
mod component_status;
mod connect;
mod create;
mod delete;
mod discovery;
mod dispatch;
pub(crate) mod error;
mod eviction;
mod fairness;
mod frames;
mod health;
mod log;
mod managers;
mod metrics;
mod node_request;
mod node_usage;
mod object;
mod openapi;
mod parts;
mod patch;
mod path;
mod pod;
mod present;
mod read;
mod request;
mod resource_metrics;
mod reviews;
mod scale;
mod selector;
mod subresources;
mod update;
mod watch;

#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::sync::Arc;

use axum::Router;
use copepod_api::{ApiError, Cidr};
use copepod_core::resource::Registry;
use copepod_store::Store;
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use crate::authorization::{Authorizer, is_component};
use crate::components::Components;
use crate::dialer::NodeDialer;
use crate::identity::Identity;
use admission::{Admission, Review};
use fairness::{Gate, Limits};
use metrics::Metrics;
pub use path::Target;

/// Requests (watches and logs excepted) that are answered at once; more wait.
pub const MAX_INFLIGHT: usize = 600;
/// As many more of the control plane's own components: what users wait for must not wait for users.
pub const MAX_INFLIGHT_OWN: usize = 200;
/// Requests that wait for a place among [`MAX_INFLIGHT`]; more are told to come back (429).
pub const MAX_WAITING: usize = 10_000;
/// Requests of one user among [`MAX_WAITING`]. Users enter in turns, however many requests each has waiting.
pub const MAX_WAITING_OF_USER: usize = 1000;
/// How long a request waits for its place before it is told to come back (429).
pub const MAX_WAIT: std::time::Duration = std::time::Duration::from_secs(10);
/// Bytes of request bodies in memory at once; a write beyond waits as above.
pub const MAX_INFLIGHT_BODY_BYTES: usize = 256 << 20;

/// Where the server gets the present time from.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// What an API server is made of.
pub struct ApiConfig {
    /// Where objects live.
    pub store: Arc<dyn Store>,
    /// The served resources.
    pub registry: Registry,
    /// Who may do what: the guard's, which access reviews ask too.
    pub authorizer: Arc<dyn Authorizer>,
    /// The control plane's other parts, whose health is asked for.
    pub components: Arc<Components>,
    /// The way to the nodes.
    pub dialer: Arc<dyn NodeDialer>,
    /// The present time.
    pub clock: Clock,
    /// Range of cluster IPs.
    pub service_cidr: Cidr,
    /// Range of node ports.
    pub node_ports: RangeInclusive<u16>,
    /// When cancelled, watches and log streams end and readiness fails.
    pub shutdown: CancellationToken,
}

/// A running API server's state, shared by its requests.
pub struct ApiState {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) registry: Registry,
    pub(crate) authorizer: Arc<dyn Authorizer>,
    pub(crate) components: Arc<Components>,
    pub(crate) dialer: Arc<dyn NodeDialer>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) metrics: Metrics,
    pub(crate) turns: update::Turns,
    pub(crate) documents: openapi::Documents,
    pub(crate) usages: node_usage::Usages,
    clock: Clock,
    admission: Vec<Box<dyn Admission>>,
    inflight: Gate,
    inflight_own: Gate,
    /// In KiB.
    body_room: Gate,
}

impl ApiState {
    /// Puts a server together; it serves once [`router`] is bound.
    pub fn new(config: ApiConfig) -> Self {
        let limits = Limits { all: MAX_WAITING, user: MAX_WAITING_OF_USER, patience: MAX_WAIT };
        Self {
            store: config.store,
            registry: config.registry,
            authorizer: config.authorizer,
            components: config.components,
            dialer: config.dialer,
            shutdown: config.shutdown,
            metrics: Metrics::default(),
            turns: update::Turns::default(),
            documents: openapi::Documents::default(),
            usages: node_usage::Usages::default(),
            clock: config.clock,
            admission: admission::chain(config.service_cidr, config.node_ports),
            inflight: Gate::new(MAX_INFLIGHT, limits),
            inflight_own: Gate::new(MAX_INFLIGHT_OWN, limits),
            body_room: Gate::new(MAX_INFLIGHT_BODY_BYTES / 1024, limits),
        }
    }

    /// The places that a requester shares with others of its kind.
    fn places(&self, identity: &Identity) -> &Gate {
        if is_component(identity) { &self.inflight_own } else { &self.inflight }
    }

    /// The present time.
    pub(crate) fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Runs the admission chain over an object that is not validated yet.
    pub(crate) async fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        for rule in &self.admission {
            rule.admit(review).await?;
        }
        Ok(())
    }

    /// Runs the admission chain over a valid object, which stays as it is.
    pub(crate) async fn check(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        for rule in &self.admission {
            rule.check(review).await?;
        }
        Ok(())
    }
}

/// What a path names below a group version; `None` for all other paths. The one grammar, for authorization too.
pub(crate) fn target_of(path: &str) -> Option<Target> {
    match path::parse(path) {
        Some(path::Path::Resource(target)) => Some(target),
        _ => None,
    }
}

/// Whether a GET of a collection is a watch.
pub(crate) fn is_watch(uri: &http::Uri) -> bool {
    request::Query::of(uri).is_ok_and(|query| query.flag("watch"))
}

/// The system clock.
pub fn system_clock() -> Clock {
    Arc::new(Timestamp::now)
}

/// The API server as a router: `/api`, `/apis`, `/openapi`, `/version`, `/healthz`, `/livez`, `/readyz`, `/metrics`;
/// all else is a 404 Status. Requests without an [`Identity`](crate::identity::Identity) extension count as anonymous.
pub fn router(state: Arc<ApiState>) -> Router {
    Router::new().fallback(dispatch::serve).with_state(state)
}
