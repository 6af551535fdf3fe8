//! The ConfigMaps, Secrets and claims that a pod names: which they are (pure), and fetching them with the node's
//! credentials.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use copepod_api::node_selector;
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, Node, PersistentVolume, PersistentVolumeClaim, Pod, PodSpec, Secret, Volume,
};
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
    /// PersistentVolumeClaims.
    pub claims: BTreeSet<String>,
}

/// The claim that a volume of a pod stands for, if it does: by name, or an ephemeral one made for this pod.
pub fn claim_of(pod: &Pod, volume: &Volume) -> Option<String> {
    let named = volume.persistent_volume_claim.as_ref().map(|c| c.claim_name.clone());
    let own = volume.ephemeral.as_ref().map(|_| {
        let pod = pod.metadata.name.as_deref().unwrap_or_default();
        format!("{pod}-{}", volume.name)
    });
    named.or(own)
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
    pub fn by_volumes(pod: &Pod) -> Self {
        let empty = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&empty);
        let mut needed = Self::default();
        needed.claims.extend(spec.volumes.iter().flatten().filter_map(|volume| claim_of(pod, volume)));
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
        self.config_maps.is_empty() && self.secrets.is_empty() && self.claims.is_empty()
    }
}

/// What was found; a name that is absent does not exist.
#[derive(Debug, Clone, Default)]
pub struct Refs {
    /// ConfigMaps by name.
    pub config_maps: BTreeMap<String, Arc<ConfigMap>>,
    /// Secrets by name.
    pub secrets: BTreeMap<String, Arc<Secret>>,
    /// The volumes bound to claims, by the claims' names.
    pub claims: BTreeMap<String, Arc<PersistentVolume>>,
}

/// Reads ConfigMaps and Secrets.
#[async_trait]
pub trait ConfigSource: Send + Sync + 'static {
    /// A ConfigMap no older than `max_age`; `None`: there is none. An error is one of the connection.
    async fn config_map(&self, ns: &str, name: &str, max_age: Duration) -> Result<Option<Arc<ConfigMap>>, String>;
    /// A Secret no older than `max_age`.
    async fn secret(&self, ns: &str, name: &str, max_age: Duration) -> Result<Option<Arc<Secret>>, String>;
    /// The volume that a claim is bound to; an error also if it is not bound.
    async fn claimed(&self, ns: &str, claim: &str) -> Result<Option<Arc<PersistentVolume>>, String>;
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
    for name in &needed.claims {
        if let Some(found) = source.claimed(ns, name).await? {
            refs.claims.insert(name.clone(), found);
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
    node: String,
    config_maps: Kept<ConfigMap>,
    secrets: Kept<Secret>,
}

impl KubeConfigs {
    /// Reads with this client, for pods of this node.
    pub fn new(client: kube::Client, node: &str) -> Self {
        Self { client, node: node.into(), config_maps: Mutex::default(), secrets: Mutex::default() }
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
    async fn claimed(&self, ns: &str, claim: &str) -> Result<Option<Arc<PersistentVolume>>, String> {
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(self.client.clone(), ns);
        let Some(claim) = claims.get_opt(claim).await.map_err(|e| e.to_string())? else { return Ok(None) };
        let name = bound_to(&claim)?;
        let volumes: Api<PersistentVolume> = Api::all(self.client.clone());
        let volume = volumes.get_opt(name).await.map_err(|e| e.to_string())?;
        let volume = volume.ok_or_else(|| format!("persistentvolume {name:?} not found"))?;
        is_claimed_by(&volume, &claim)?;
        if volume.spec.as_ref().is_some_and(|s| s.node_affinity.is_some()) {
            let nodes: Api<Node> = Api::all(self.client.clone());
            is_on(&volume, &nodes.get(&self.node).await.map_err(|e| e.to_string())?)?;
        }
        Ok(Some(Arc::new(volume)))
    }
}

/// The name of the volume that a claim says it is bound to.
fn bound_to(claim: &PersistentVolumeClaim) -> Result<&str, String> {
    let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref());
    let volume = claim.spec.as_ref().and_then(|s| s.volume_name.as_deref()).filter(|v| !v.is_empty());
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    if claim.metadata.deletion_timestamp.is_some() {
        return Err(format!("persistentvolumeclaim {name:?} is being deleted"));
    }
    match (phase, volume) {
        (Some("Bound"), Some(volume)) => Ok(volume),
        (Some("Lost"), _) => Err(format!("persistentvolumeclaim {name:?} has lost its volume")),
        _ => Err(format!("persistentvolumeclaim {name:?} is not bound yet")),
    }
}

/// Checks that the binding is mutual: a claim can name any volume.
fn is_claimed_by(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> Result<(), String> {
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    let ours = reference.is_some_and(|r| {
        r.namespace == claim.metadata.namespace
            && r.name == claim.metadata.name
            && r.uid.as_ref().is_none_or(|uid| Some(uid) == claim.metadata.uid.as_ref())
    });
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    if ours { Ok(()) } else { Err(format!("persistentvolume {name:?} is not bound to this claim")) }
}

/// Checks that the volume can be reached from the node: a pod may have come here past the scheduler.
fn is_on(volume: &PersistentVolume, node: &Node) -> Result<(), String> {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref());
    let Some(required) = affinity.and_then(|a| a.required.as_ref()) else { return Ok(()) };
    let name = node.metadata.name.as_deref().unwrap_or_default();
    let labels = node.metadata.labels.clone().unwrap_or_default();
    let volume = volume.metadata.name.as_deref().unwrap_or_default();
    if node_selector::matches(&required.node_selector_terms, name, &labels) {
        Ok(())
    } else {
        Err(format!("persistentvolume {volume:?} is not on node {name:?}: its nodeAffinity names others"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_volume_of_another_node_is_not_mounted() {
        let node: Node = serde_json::from_value(json!({"metadata": {"name": "a", "labels": {"disk": "ssd"}}})).unwrap();
        for (terms, here) in [
            (json!([{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}]), true),
            (json!([{"matchExpressions": [{"key": "disk", "operator": "In", "values": ["hdd"]}]}]), false),
            (json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["a"]}]}]), true),
            (json!([{"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["b"]}]}, {}]), false),
            (json!([]), false),
        ] {
            let volume = json!({"metadata": {"name": "pv"},
                "spec": {"nodeAffinity": {"required": {"nodeSelectorTerms": terms}}}});
            let on = is_on(&serde_json::from_value(volume).unwrap(), &node);
            assert_eq!(on.is_ok(), here, "{terms}");
        }
        assert!(is_on(&PersistentVolume::default(), &node).is_ok());
    }

    #[test]
    fn claims_and_volumes_have_to_agree() {
        let claim = |phase: &str, volume: &str| -> PersistentVolumeClaim {
            serde_json::from_value(json!({"metadata": {"name": "data", "namespace": "shop", "uid": "u1"},
                "spec": {"volumeName": volume}, "status": {"phase": phase}}))
            .unwrap()
        };
        let volume = |reference: serde_json::Value| -> PersistentVolume {
            serde_json::from_value(json!({"metadata": {"name": "pv"}, "spec": {"claimRef": reference}})).unwrap()
        };
        for (phase, name, expected) in [
            ("Bound", "pv", Ok("pv")),
            ("Pending", "pv", Err("not bound yet")),
            ("Bound", "", Err("not bound yet")),
            ("Lost", "pv", Err("has lost its volume")),
        ] {
            match (bound_to(&claim(phase, name)), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected),
                (Err(got), Err(part)) => assert!(got.contains(part), "{got}"),
                (got, _) => panic!("{phase} {name}: {got:?}"),
            }
        }
        let mut going = claim("Bound", "pv");
        going.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-21T00:00:00Z")).unwrap();
        assert!(bound_to(&going).unwrap_err().contains("is being deleted"));
        for (reference, agrees) in [
            (json!({"namespace": "shop", "name": "data", "uid": "u1"}), true),
            (json!({"namespace": "shop", "name": "data"}), true),
            (json!({"namespace": "shop", "name": "data", "uid": "u0"}), false),
            (json!({"namespace": "other", "name": "data", "uid": "u1"}), false),
            (json!(null), false),
        ] {
            assert_eq!(is_claimed_by(&volume(reference.clone()), &claim("Bound", "pv")).is_ok(), agrees, "{reference}");
        }
    }
}
