//! The provisioner of directories on nodes. A claim whose pod is about to go to a node gets a volume there. The node
//! makes the directory when a pod first mounts it, and takes it away when the volume is deleted; a finalizer holds the
//! volume until then. A claim that asks for more than the node's disk has gets none; what is written is not counted.

use std::sync::Arc;

use copepod_api::Quantity;
use copepod_api::names::{FINALIZER_LOCAL_PATH, FINALIZER_VOLUME, LABEL_HOSTNAME, LOCAL_PATH};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim};
use k8s_openapi::api::storage::v1::StorageClass;
use serde_json::{Value, json};

use super::meta::text;
use super::volume_claims::{
    STORAGE_PROVISIONER, annotation, change, claim_class, is_late, precondition, requested, volume_name, volumes,
};
use super::volume_phases::PROVISIONED_BY;
use super::volume_protection::{is_held, without};
use super::{Action, Plan, Target};
use crate::scheduler::volumes::{SELECTED_NODE, asked, mode_of};

/// The resource by which a node tells the size of its disk.
pub const DISK: &str = "ephemeral-storage";

/// Whether a claim waits for a volume of this provisioner.
pub fn is_asked(claim: &PersistentVolumeClaim) -> bool {
    annotation(&claim.metadata, STORAGE_PROVISIONER) == Some(LOCAL_PATH)
        && volume_name(claim).is_empty()
        && claim.metadata.deletion_timestamp.is_none()
}

/// The bytes of a node's disk; `None` if it does not tell.
pub fn disk(node: &Node) -> Option<i64> {
    let size = node.status.as_ref()?.allocatable.as_ref()?.get(DISK)?;
    Some(Quantity::parse(&size.0).ok()?.value())
}

/// The bytes of the largest disk of any node, if a claim asks for more; `None` if a node may do, or does not tell.
pub fn too_small(claim: &PersistentVolumeClaim, nodes: &[Arc<Node>]) -> Option<i64> {
    let size = asked(claim);
    let mut largest = None;
    for node in nodes {
        largest = largest.max(Some(disk(node).filter(|disk| *disk < size)?));
    }
    largest
}

/// The name of the volume that is made for a claim.
pub fn volume_for(claim: &PersistentVolumeClaim) -> String {
    format!("pvc-{}", text(&claim.metadata.uid))
}

/// Makes a volume for a claim that asks for one ([`is_asked`]) and has none yet. `node` is the one that was selected
/// for the claim's pod, if it is there.
pub fn provision(claim: &PersistentVolumeClaim, class: Option<&StorageClass>, node: Option<&Node>) -> Plan {
    let Some(class) = class else { return Plan::nothing("its class is gone") };
    let selected = annotation(&claim.metadata, SELECTED_NODE);
    let refused = refusal(claim, class).or_else(|| {
        let never = selected.is_none() && !is_late(class);
        never.then(|| "no node is selected: its StorageClass needs volumeBindingMode WaitForFirstConsumer".into())
    });
    if let Some(why) = refused {
        let mut plan = Plan::nothing("it asks for what there is not");
        let class = text(&class.metadata.name);
        plan.warn("ProvisioningFailed", format!("failed to provision volume with StorageClass {class:?}: {why}"));
        plan.requeue(super::volume_claims::REPEAT);
        return plan;
    }
    let Some(selected) = selected else { return Plan::nothing("it waits for its first pod") };
    let node = match node {
        None => Err(format!("failed to get target node: node {selected:?} not found")),
        Some(node) => match disk(node).filter(|disk| *disk < asked(claim)) {
            Some(disk) => {
                Err(format!("node {selected:?} has a disk of {disk} bytes: the claim asks for {}", asked(claim)))
            }
            None => Ok(node),
        },
    };
    let node = match node {
        Ok(node) => node,
        Err(why) => {
            // The scheduler selects another.
            let unselected = precondition(&claim.metadata, &[(SELECTED_NODE, Value::Null)]);
            let mut plan = Plan { actions: vec![change(claim, json!({"metadata": unselected}))], ..Plan::default() };
            plan.warn("ProvisioningFailed", why);
            return plan;
        }
    };
    let name = volume_for(claim);
    let mut plan = Plan::nothing(format!("it gets a directory on {selected}"));
    let (namespace, claim_name) = (text(&claim.metadata.namespace), text(&claim.metadata.name));
    let target = Target::new(volumes(), "", &name);
    plan.actions.push(Action::Create { target, object: volume(claim, class, node, &name) });
    plan.note(
        "Provisioning",
        format!("External provisioner is provisioning volume for claim \"{namespace}/{claim_name}\""),
    );
    plan.note("ProvisioningSucceeded", format!("Successfully provisioned volume {name}"));
    plan
}

/// Lets a volume go whose directory went with its node: nobody else takes the finalizer off.
pub fn forget(volume: &PersistentVolume, node_is_there: bool) -> Plan {
    let meta = &volume.metadata;
    let bound = meta.finalizers.iter().flatten().any(|f| f == FINALIZER_VOLUME);
    if node_is_there || bound || !is_held(meta, FINALIZER_LOCAL_PATH) {
        return Plan::nothing("its node sees to it");
    }
    let actions = vec![without(volumes(), meta, FINALIZER_LOCAL_PATH)];
    Plan { actions, ..Plan::nothing("its node is gone") }
}

/// Why a claim cannot be served.
fn refusal(claim: &PersistentVolumeClaim, class: &StorageClass) -> Option<String> {
    let spec = claim.spec.as_ref()?;
    let on_one_node = |mode: &String| mode == "ReadWriteOnce" || mode == "ReadWriteOncePod";
    if mode_of(spec.volume_mode.as_deref()) != "Filesystem" {
        Some("directories have no volumeMode Block: use Filesystem".into())
    } else if !spec.access_modes.iter().flatten().all(on_one_node) {
        Some("a directory is on one node: use access mode ReadWriteOnce or ReadWriteOncePod".into())
    } else if spec.selector.is_some() {
        Some("claim.Spec.Selector is not supported".into())
    } else if spec.data_source.is_some() || spec.data_source_ref.is_some() {
        Some("dataSource is not supported: volumes start empty".into())
    } else {
        let parameter = class.parameters.iter().flatten().next()?.0;
        Some(format!("the class has a parameter {parameter:?}: none is supported"))
    }
}

fn volume(claim: &PersistentVolumeClaim, class: &StorageClass, node: &Node, name: &str) -> Value {
    let spec = claim.spec.clone().unwrap_or_default();
    let own = text(&node.metadata.name);
    let host = node.metadata.labels.as_ref().and_then(|l| l.get(LABEL_HOSTNAME)).map_or(own, String::as_str);
    json!({
        "apiVersion": "v1", "kind": "PersistentVolume",
        "metadata": {
            "name": name, "labels": {LABEL_HOSTNAME: own},
            "annotations": {PROVISIONED_BY: LOCAL_PATH}, "finalizers": [FINALIZER_LOCAL_PATH],
        },
        "spec": {
            "capacity": {"storage": requested(&spec)}, "accessModes": spec.access_modes, "volumeMode": "Filesystem",
            "persistentVolumeReclaimPolicy": class.reclaim_policy.as_deref().unwrap_or("Delete"),
            "storageClassName": claim_class(claim),
            "claimRef": {
                "apiVersion": "v1", "kind": "PersistentVolumeClaim",
                "namespace": claim.metadata.namespace, "name": claim.metadata.name, "uid": claim.metadata.uid,
                "resourceVersion": claim.metadata.resource_version,
            },
            "csi": {"driver": LOCAL_PATH, "volumeHandle": name},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{
                "matchExpressions": [{"key": LABEL_HOSTNAME, "operator": "In", "values": [host]}],
            }]}},
        },
    })
}
