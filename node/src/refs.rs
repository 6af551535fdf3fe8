//! The ConfigMaps and Secrets that a pod names: which they are (pure), and fetching them with the node's credentials.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::{ConfigMap, Container, PodSpec, Secret};
use kube::Api;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Names of what is needed, in the pod's namespace.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Needed {
    /// ConfigMaps.
    pub config_maps: BTreeSet<String>,
    /// Secrets.
    pub secrets: BTreeSet<String>,
}

impl Needed {
    /// What a container's environment names.
    pub fn by_env(container: &Container) -> Self {
        let mut needed = Self::default();
        for source in container.env_from.iter().flatten() {
            needed.config_maps.extend(source.config_map_ref.as_ref().map(|r| r.name.clone()));
            needed.secrets.extend(source.secret_ref.as_ref().map(|r| r.name.clone()));
        }
        for from in container.env.iter().flatten().filter_map(|e| e.value_from.as_ref()) {
            needed.config_maps.extend(from.config_map_key_ref.as_ref().map(|r| r.name.clone()));
            needed.secrets.extend(from.secret_key_ref.as_ref().map(|r| r.name.clone()));
        }
        needed
    }

    /// What a pod's volumes name.
    pub fn by_volumes(spec: &PodSpec) -> Self {
        let mut needed = Self::default();
        for volume in spec.volumes.iter().flatten() {
            needed.config_maps.extend(volume.config_map.as_ref().map(|r| r.name.clone()));
            needed.secrets.extend(volume.secret.as_ref().and_then(|r| r.secret_name.clone()));
            for source in volume.projected.iter().flat_map(|p| p.sources.iter().flatten()) {
                needed.config_maps.extend(source.config_map.as_ref().map(|r| r.name.clone()));
                needed.secrets.extend(source.secret.as_ref().map(|r| r.name.clone()));
            }
        }
        needed
    }

    /// Whether nothing is needed.
    pub fn is_empty(&self) -> bool {
        self.config_maps.is_empty() && self.secrets.is_empty()
    }
}

/// What was found; a name that is absent does not exist.
#[derive(Debug, Clone, Default)]
pub struct Refs {
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Arc<Secret>>,
}

/// Reads ConfigMaps and Secrets.
#[async_trait]
pub trait ConfigSource: Send + Sync + 'static {
    /// A ConfigMap no older than `max_age`; `None`: there is none. An error is one of the connection.
    async fn config_map(&self, ns: &str, name: &str, max_age: Duration) -> Result<Option<Arc<ConfigMap>>, String>;
    /// A Secret no older than `max_age`.
    async fn secret(&self, ns: &str, name: &str, max_age: Duration) -> Result<Option<Arc<Secret>>, String>;
}

/// Fetches all that is needed.
pub async fn fetch(source: &dyn ConfigSource, ns: &str, needed: &Needed, max_age: Duration) -> Result<Refs, String> {
    let mut refs = Refs::default();
    for name in &needed.config_maps {
        if let Some(found) = source.config_map(ns, name, max_age).await? {
            refs.config_maps.insert(name.clone(), found);
        }
    }
    for name in &needed.secrets {
        if let Some(found) = source.secret(ns, name, max_age).await? {
            refs.secrets.insert(name.clone(), found);
        }
    }
    Ok(refs)
}

/// Most objects kept by [`KubeConfigs`]; above it, everything kept is dropped and read anew.
pub const MAX_KEPT_CONFIGS: usize = 1024;

type Kept<T> = Mutex<HashMap<(String, String), (Instant, Arc<T>)>>;

/// Reads one object at a time from the API server (a node may not list Secrets), keeping each for a short while.
pub struct KubeConfigs {
    client: kube::Client,
    config_maps: Kept<ConfigMap>,
    secrets: Kept<Secret>,
}

impl KubeConfigs {
    /// Reads with this client.
    pub fn new(client: kube::Client) -> Self {
        Self { client, config_maps: Mutex::default(), secrets: Mutex::default() }
    }
}

async fn read<T>(kept: &Kept<T>, api: Api<T>, ns: &str, name: &str, max_age: Duration) -> Result<Option<Arc<T>>, String>
where
    T: Clone + serde::de::DeserializeOwned + std::fmt::Debug,
{
    let key = (ns.to_string(), name.to_string());
    if let Some((at, found)) = kept.lock().get(&key)
        && at.elapsed() < max_age
    {
        return Ok(Some(found.clone()));
    }
    let found = api.get_opt(name).await.map_err(|e| e.to_string())?.map(Arc::new);
    let mut kept = kept.lock();
    if kept.len() >= MAX_KEPT_CONFIGS {
        kept.clear();
    }
    match &found {
        Some(found) => kept.insert(key, (Instant::now(), found.clone())),
        None => kept.remove(&key),
    };
    Ok(found)
}

#[async_trait]
impl ConfigSource for KubeConfigs {
    async fn config_map(&self, ns: &str, name: &str, max_age: Duration) -> Result<Option<Arc<ConfigMap>>, String> {
        read(&self.config_maps, Api::namespaced(self.client.clone(), ns), ns, name, max_age).await
    }
    async fn secret(&self, ns: &str, name: &str, max_age: Duration) -> Result<Option<Arc<Secret>>, String> {
        read(&self.secrets, Api::namespaced(self.client.clone(), ns), ns, name, max_age).await
    }
}
