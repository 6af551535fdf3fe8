//! What the scheduler knows of volumes: claims, volumes, classes and nodes' drivers, and who uses which claim.
//!
//! This is the whole interface to whoever binds claims to volumes. For a claim whose class waits for its first consumer,
//! a decision says which node the pod will go to as [`ClaimStep`]s: take this volume, or have one made for that node.
//! The driver writes them, and the pod is placed once its claims are bound.
//! Source: <https://kubernetes.io/docs/concepts/storage/storage-classes/#volume-binding-mode>.

use std::borrow::Borrow;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use copepod_api::names::LOCAL_PATH;
use copepod_api::{LabelSelector, Quantity};
use k8s_openapi::api::core::v1::{PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::{CSINode, StorageClass};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use super::node_info::NodeInfo;
use super::node_terms;
use super::pod_info::PodInfo;
use crate::controllers::local_path::DISK;
use crate::controllers::meta;
use crate::controllers::volume_claims::{BIND_COMPLETED, annotation};

/// The provisioner of classes for which nobody makes volumes.
pub const NO_PROVISIONER: &str = "kubernetes.io/no-provisioner";
/// On a claim: the node for which a volume is to be made.
pub const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";
/// On a volume and a claim that a component, not a person, tied together.
pub const BOUND_BY_CONTROLLER: &str = "pv.kubernetes.io/bound-by-controller";

/// What must be written before a pod's claims can be bound.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClaimStep {
    /// Keep this volume for the claim: `spec.claimRef` and the annotation [`BOUND_BY_CONTROLLER`].
    Reserve {
        /// Name of the claim.
        claim: String,
        /// Name of the volume.
        volume: String,
        /// UID of the volume that was seen.
        uid: Option<String>,
        /// Its revision: the write fails if the volume is no longer as it was seen.
        revision: Option<String>,
    },
    /// Have a volume made: the annotation [`SELECTED_NODE`] on the claim.
    Provision {
        /// Name of the claim.
        claim: String,
        /// Name of the node.
        node: String,
    },
    /// It was written already; the claim is not bound yet.
    Await {
        /// Name of the claim.
        claim: String,
    },
}

type Names = (String, String);

/// What is known of volumes.
#[derive(Debug, Default)]
pub struct Volumes {
    claims: HashMap<Names, Arc<PersistentVolumeClaim>>,
    volumes: HashMap<String, Arc<PersistentVolume>>,
    classes: HashMap<String, Arc<StorageClass>>,
    drivers: HashMap<String, Arc<CSINode>>,
    /// By claim: how many placed pods use it.
    users: HashMap<Names, i64>,
    /// By volume: the claim for which it is being reserved, until the volume shows it.
    reserved: HashMap<String, Names>,
    /// By claim: volumes that are kept or being reserved for it.
    kept: HashMap<Names, BTreeSet<String>>,
    /// By class: sizes and names of volumes that are kept for nobody.
    free: HashMap<String, BTreeSet<(i64, String)>>,
}

/// What a claim of a pod comes to on a node.
#[derive(Debug)]
pub(super) enum Standing<'a> {
    /// There is no such claim.
    Missing,
    /// It is being deleted.
    Deleting,
    /// Its volume is gone.
    Lost,
    /// It has this volume.
    Bound(&'a PersistentVolume),
    /// It is about to have this volume: its status does not say so yet.
    Settling(&'a PersistentVolume),
    /// It waits for a binder, whatever the pod does.
    Immediate,
    /// It is bound once the pod has a node.
    Waits(&'a PersistentVolumeClaim, &'a StorageClass),
}

impl Volumes {
    /// Takes in a claim; `None` if it is gone.
    pub fn set_claim(&mut self, namespace: &str, name: &str, claim: Option<Arc<PersistentVolumeClaim>>) {
        put(&mut self.claims, (namespace.into(), name.into()), claim);
    }
    /// Takes in a volume; `None` if it is gone.
    pub fn set_volume(&mut self, name: &str, volume: Option<Arc<PersistentVolume>>) {
        self.forget_reservation(name);
        if let Some(old) = self.volumes.remove(name) {
            match keeper(&old) {
                Some(claim) => take(&mut self.kept, &claim, name),
                None => take(&mut self.free, &class(&old), &(capacity(&old), name.to_string())),
            }
        }
        let Some(volume) = volume else { return };
        match keeper(&volume) {
            Some(claim) => self.kept.entry(claim).or_default().insert(name.into()),
            None => self.free.entry(class(&volume)).or_default().insert((capacity(&volume), name.into())),
        };
        self.volumes.insert(name.into(), volume);
    }
    /// Takes in a storage class; `None` if it is gone.
    pub fn set_class(&mut self, name: &str, class: Option<Arc<StorageClass>>) {
        put(&mut self.classes, name.into(), class);
    }
    /// Takes in a node's drivers; `None` if they are gone.
    pub fn set_drivers(&mut self, node: &str, drivers: Option<Arc<CSINode>>) {
        put(&mut self.drivers, node.into(), drivers);
    }

    /// Remembers the volumes that steps reserve for claims of a namespace, until they are seen changed.
    pub fn reserve(&mut self, namespace: &str, steps: &[ClaimStep]) {
        for step in steps {
            if let ClaimStep::Reserve { claim, volume, .. } = step {
                self.forget_reservation(volume);
                let claim: Names = (namespace.into(), claim.clone());
                self.kept.entry(claim.clone()).or_default().insert(volume.clone());
                self.reserved.insert(volume.clone(), claim);
            }
        }
    }
    /// Forgets such volumes: they were not reserved after all.
    pub fn release(&mut self, namespace: &str, steps: &[ClaimStep]) {
        for step in steps {
            if let ClaimStep::Reserve { claim, volume, .. } = step
                && self.reserved.get(volume).is_some_and(|(n, c)| n == namespace && c == claim)
            {
                self.forget_reservation(volume);
            }
        }
    }

    fn forget_reservation(&mut self, volume: &str) {
        let Some(claim) = self.reserved.remove(volume) else { return };
        // It may be kept for the claim by now.
        if self.volumes.get(volume).and_then(|v| keeper(v)).as_ref() != Some(&claim) {
            take(&mut self.kept, &claim, volume);
        }
    }

    pub(super) fn pod(&mut self, pod: &PodInfo, sign: i64) {
        for claim in &pod.claims {
            let key = (pod.namespace().to_string(), claim.clone());
            let users = self.users.entry(key.clone()).or_default();
            *users += sign;
            if *users <= 0 {
                self.users.remove(&key);
            }
        }
    }

    pub(super) fn claim(&self, namespace: &str, name: &str) -> Option<&Arc<PersistentVolumeClaim>> {
        self.claims.get(&(namespace.to_string(), name.to_string()))
    }

    pub(super) fn users(&self, namespace: &str, claim: &str) -> i64 {
        self.users.get(&(namespace.to_string(), claim.to_string())).copied().unwrap_or(0)
    }

    pub(super) fn standing(&self, namespace: &str, name: &str) -> Standing<'_> {
        let Some(claim) = self.claim(namespace, name) else { return Standing::Missing };
        if claim.metadata.deletion_timestamp.is_some() {
            return Standing::Deleting;
        }
        let spec = claim.spec.as_ref();
        let volume = spec.and_then(|s| s.volume_name.as_deref()).unwrap_or_default();
        let phase = claim.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or_default();
        if phase == "Lost" {
            return Standing::Lost;
        }
        if !volume.is_empty() {
            return match self.volumes.get(volume) {
                Some(found) if phase == "Bound" => Standing::Bound(found),
                Some(found) if annotation(&claim.metadata, BIND_COMPLETED).is_some() => Standing::Settling(found),
                Some(_) => Standing::Immediate,
                None => Standing::Lost,
            };
        }
        let class = class_of(&claim.metadata, spec.and_then(|s| s.storage_class_name.as_deref()));
        let class = class.and_then(|name| self.classes.get(name));
        match class {
            Some(class) if class.volume_binding_mode.as_deref() == Some("WaitForFirstConsumer") => {
                Standing::Waits(claim, class)
            }
            _ => Standing::Immediate,
        }
    }

    /// The volume kept for a claim, or the smallest unbound one that it may have on a node, besides those in `taken`.
    pub(super) fn find(
        &self,
        claim: &PersistentVolumeClaim,
        node: &NodeInfo,
        taken: &[String],
    ) -> Option<&PersistentVolume> {
        let key: Names = (meta::text(&claim.metadata.namespace).into(), meta::text(&claim.metadata.name).into());
        let usable = |name: &String| {
            let volume = self.volumes.get(name)?;
            let others = self.reserved.get(name).is_some_and(|keeper| *keeper != key);
            (!taken.contains(name) && !others && may_hold(volume, claim) && reaches(volume, node)).then_some(volume)
        };
        let kept = self.kept.get(&key).into_iter().flatten().filter_map(usable);
        let kept = kept.min_by_key(|v| (capacity(v), meta::text(&v.metadata.name)));
        let free = || {
            let class = class_of(&claim.metadata, claim.spec.as_ref().and_then(|s| s.storage_class_name.as_deref()));
            let smallest = (asked(claim), String::new());
            self.free.get(class.unwrap_or_default())?.range(smallest..).find_map(|(_, name)| usable(name))
        };
        kept.or_else(free).map(AsRef::as_ref)
    }

    /// How many volumes of a driver a node takes; `None` if it does not say.
    pub(super) fn limit(&self, node: &str, driver: &str) -> Option<i64> {
        let drivers = &self.drivers.get(node)?.spec.drivers;
        let driver = drivers.iter().find(|d| d.name == driver)?;
        driver.allocatable.as_ref()?.count.map(i64::from)
    }

    /// The driver of a claim and what names its volume: `(driver, volume)`.
    pub(super) fn attached(&self, namespace: &str, claim: &str) -> Option<(&str, String)> {
        match self.standing(namespace, claim) {
            Standing::Bound(volume) | Standing::Settling(volume) => {
                let csi = volume.spec.as_ref()?.csi.as_ref()?;
                Some((&csi.driver, csi.volume_handle.clone()))
            }
            Standing::Waits(claim, class) if class.provisioner != NO_PROVISIONER => Some((
                &class.provisioner,
                format!("{}/{}", meta::text(&claim.metadata.namespace), meta::text(&claim.metadata.name)),
            )),
            _ => None,
        }
    }
}

/// The claim that a volume names as the one that it is kept for.
fn keeper(volume: &PersistentVolume) -> Option<Names> {
    let claim = volume.spec.as_ref()?.claim_ref.as_ref()?;
    Some((meta::text(&claim.namespace).into(), meta::text(&claim.name).into()))
}

fn class(volume: &PersistentVolume) -> String {
    let field = volume.spec.as_ref().and_then(|s| s.storage_class_name.as_deref());
    class_of(&volume.metadata, field).unwrap_or_default().into()
}

fn take<K, V, Q>(map: &mut HashMap<K, BTreeSet<V>>, key: &K, entry: &Q)
where
    K: std::hash::Hash + Eq,
    V: Ord + Borrow<Q>,
    Q: Ord + ?Sized,
{
    if let Some(entries) = map.get_mut(key) {
        entries.remove(entry);
        if entries.is_empty() {
            map.remove(key);
        }
    }
}

fn put<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, key: K, value: Option<V>) {
    match value {
        Some(value) => map.insert(key, value),
        None => map.remove(&key),
    };
}

/// Whether a volume's node affinity takes a node.
pub(super) fn reaches(volume: &PersistentVolume, node: &NodeInfo) -> bool {
    let affinity = volume.spec.as_ref().and_then(|s| s.node_affinity.as_ref()?.required.as_ref());
    affinity.is_none_or(|a| node_terms::any(&a.node_selector_terms, &node.name, node.labels()))
}

/// Whether a class makes volumes for a node.
pub(super) fn makes_for(class: &StorageClass, node: &NodeInfo) -> bool {
    if class.provisioner == NO_PROVISIONER {
        return false;
    }
    let terms = class.allowed_topologies.as_deref().unwrap_or_default();
    terms.is_empty()
        || terms.iter().any(|term| {
            let mut all = term.match_label_expressions.iter().flatten();
            all.all(|e| node.labels().get(&e.key).is_some_and(|v| e.values.contains(v)))
        })
}

/// Whether a node has room for what a class makes there. Only the size of its disk counts, not what others have of it,
/// and one that does not tell its size has room.
pub(super) fn has_room(class: &StorageClass, claim: &PersistentVolumeClaim, node: &NodeInfo) -> bool {
    let disk = node.allocatable.other.get(DISK);
    class.provisioner != LOCAL_PATH || disk.is_none_or(|disk| asked(claim) <= *disk)
}

/// Whether a volume that is kept for this very claim, or for nobody, is what the claim asks for; where it is, is not
/// asked. One that a person keeps for the claim may be of another class, and need not match its selector.
pub fn may_hold(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let (Some(has), Some(wants)) = (&volume.spec, &claim.spec) else { return false };
    let modes = has.access_modes.as_deref().unwrap_or_default();
    let fits = volume.metadata.deletion_timestamp.is_none()
        && mode_of(has.volume_mode.as_deref()) == mode_of(wants.volume_mode.as_deref())
        && wants.access_modes.iter().flatten().all(|m| modes.contains(m))
        && capacity(volume) >= asked(claim);
    if !fits || has.claim_ref.is_some() {
        return fits && kept_for(volume, claim);
    }
    let phase = volume.status.as_ref().and_then(|s| s.phase.as_deref()).unwrap_or("Available");
    let class = class_of(&volume.metadata, has.storage_class_name.as_deref()).unwrap_or_default();
    let selected = match wants.selector.as_ref().map(|s| LabelSelector::from_typed(Some(s))) {
        None => true,
        Some(Ok(selector)) => meta::selects(&selector, &volume.metadata),
        Some(Err(_)) => false,
    };
    selected
        && matches!(phase, "Available" | "Pending" | "")
        && class == class_of(&claim.metadata, wants.storage_class_name.as_deref()).unwrap_or_default()
}

/// Whether a volume is kept for this very claim.
pub fn kept_for(volume: &PersistentVolume, claim: &PersistentVolumeClaim) -> bool {
    let meta = &claim.metadata;
    volume
        .spec
        .as_ref()
        .and_then(|s| s.claim_ref.as_ref())
        .is_some_and(|r| r.namespace == meta.namespace && r.name == meta.name && (r.uid.is_none() || r.uid == meta.uid))
}

/// The class that a claim or volume names: by the old annotation, else by the field.
pub fn class_of<'a>(meta: &'a ObjectMeta, field: Option<&'a str>) -> Option<&'a str> {
    let old = meta.annotations.as_ref().and_then(|a| a.get("volume.beta.kubernetes.io/storage-class"));
    old.map(String::as_str).or(field)
}

/// A volume mode, `Filesystem` unless it is given.
pub fn mode_of(mode: Option<&str>) -> &str {
    mode.unwrap_or("Filesystem")
}

/// The bytes that a claim asks for.
pub fn asked(claim: &PersistentVolumeClaim) -> i64 {
    let size = claim.spec.as_ref().and_then(|s| s.resources.as_ref()?.requests.as_ref()?.get("storage"));
    size.and_then(|q| Quantity::parse(&q.0).ok()).map_or(0, |q| q.value())
}

/// A volume's size in bytes.
pub fn capacity(volume: &PersistentVolume) -> i64 {
    let size = volume.spec.as_ref().and_then(|s| s.capacity.as_ref()?.get("storage"));
    size.and_then(|q| Quantity::parse(&q.0).ok()).map_or(0, |q| q.value())
}

#[cfg(test)]
#[path = "volumes_tests.rs"]
mod tests;
