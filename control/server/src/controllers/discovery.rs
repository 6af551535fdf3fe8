//! Which resources the server serves, for the controllers that work on all of them.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use copepod_api::Gvr;
use kube::core::discovery::{ApiResource, Scope, verbs};
use parking_lot::RwLock;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often to look for new resources.
const REFRESH: Duration = Duration::from_secs(30);
/// How soon to look again after a failure.
const RETRY: Duration = Duration::from_secs(2);

/// A served resource whose objects can be listed, watched and deleted.
#[derive(Debug, Clone)]
pub(super) struct Served {
    pub api: ApiResource,
    pub namespaced: bool,
    /// Whether all objects of a namespace can be deleted by one request.
    pub delete_collection: bool,
}

impl Served {
    pub fn gvr(&self) -> Gvr {
        Gvr { group: self.api.group.clone(), version: self.api.version.clone(), resource: self.api.plural.clone() }
    }
}

/// The served resources as last seen; cheap to clone.
#[derive(Clone)]
pub(super) struct Discovery {
    client: kube::Client,
    /// By (apiVersion, kind).
    served: Arc<RwLock<HashMap<(String, String), Served>>>,
    rounds: watch::Sender<u64>,
}

impl Discovery {
    pub fn new(client: kube::Client) -> Self {
        Self { client, served: Arc::default(), rounds: watch::Sender::new(0) }
    }

    /// Looks now and then, until cancelled.
    pub async fn run(self, token: CancellationToken) {
        loop {
            let wait = match self.refresh().await {
                Ok(()) => REFRESH,
                Err(error) => {
                    tracing::warn!(%error, "discovery failed");
                    RETRY
                }
            };
            tokio::select! {
                () = token.cancelled() => return,
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    async fn refresh(&self) -> Result<(), kube::Error> {
        let found = kube::Discovery::new(self.client.clone()).run().await?;
        let mut served = HashMap::new();
        for group in found.groups() {
            for (api, capabilities) in group.recommended_resources() {
                let can = |verb| capabilities.supports_operation(verb);
                if can(verbs::LIST) && can(verbs::WATCH) && can(verbs::DELETE) {
                    let entry = Served {
                        namespaced: capabilities.scope == Scope::Namespaced,
                        delete_collection: can(verbs::DELETE_COLLECTION),
                        api: api.clone(),
                    };
                    served.insert((api.api_version, api.kind), entry);
                }
            }
        }
        *self.served.write() = served;
        self.rounds.send_modify(|n| *n += 1);
        Ok(())
    }

    /// All served resources.
    pub fn all(&self) -> Vec<Served> {
        self.served.read().values().cloned().collect()
    }

    /// The resource of a kind.
    pub fn find(&self, api_version: &str, kind: &str) -> Option<Served> {
        self.served.read().get(&(api_version.to_string(), kind.to_string())).cloned()
    }

    /// Tells when it looked again.
    pub fn rounds(&self) -> watch::Receiver<u64> {
        self.rounds.subscribe()
    }
}
