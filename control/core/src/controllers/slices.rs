//! How EndpointSlices are written, whoever's endpoints they hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use copepod_api::names::{LABEL_MANAGED_BY, LABEL_SERVICE_NAME};
use k8s_openapi::api::discovery::v1::{Endpoint, EndpointPort, EndpointSlice};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

use super::meta::{self, text};
use super::{Action, Plan, Propagation, Target};

/// A port of an endpoint: name, number, protocol, application protocol.
pub(super) type Ports = Vec<(String, i32, String, Option<String>)>;

/// What the slices of one owner have in common.
pub(super) struct Common<'a> {
    pub namespace: &'a str,
    /// The Service's name.
    pub service: &'a str,
    /// Who controls the slices.
    pub owner: OwnerReference,
    /// All labels but those of [`Common::new`].
    labels: BTreeMap<String, String>,
    /// All annotations; `None` leaves them alone.
    annotations: Option<BTreeMap<String, String>>,
}

impl<'a> Common<'a> {
    /// The labels that every slice has are added.
    pub fn new(
        namespace: &'a str,
        service: &'a str,
        manager: &str,
        owner: OwnerReference,
        mut labels: BTreeMap<String, String>,
    ) -> Self {
        labels.insert(LABEL_SERVICE_NAME.into(), service.into());
        labels.insert(LABEL_MANAGED_BY.into(), manager.into());
        Self { namespace, service, owner, labels, annotations: None }
    }

    /// With these annotations and no others.
    pub fn annotated(self, annotations: BTreeMap<String, String>) -> Self {
        Self { annotations: Some(annotations), ..self }
    }

    /// A new slice.
    fn create(&self, new: &Wanted) -> Action {
        let mut metadata = json!({
            "generateName": format!("{}-", self.service),
            "labels": self.labels,
            "ownerReferences": [self.owner],
        });
        if let (Some(annotations), Some(metadata)) = (&self.annotations, metadata.as_object_mut()) {
            metadata.insert("annotations".into(), json!(annotations));
        }
        let object = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": metadata,
            "addressType": new.family, "ports": new.ports, "endpoints": new.endpoints,
        });
        Action::Create { target: self.target(""), object }
    }

    /// Turns a slice into what is wanted; `None` if it is so already.
    fn update(&self, slice: &EndpointSlice, new: &Wanted) -> Option<Action> {
        let meta = &slice.metadata;
        let (had, has) = match &self.annotations {
            Some(annotations) => (meta.annotations.clone().unwrap_or_default(), annotations.clone()),
            None => Default::default(),
        };
        // Ports that differ in their order alone are the same.
        let ports = slice.ports.clone().unwrap_or_default();
        let wanted_ports = if same_ports(&ports, &new.ports) { &ports } else { &new.ports };
        let before = json!({
            "metadata": {"labels": meta::labels(meta), "annotations": had},
            "ports": ports, "endpoints": slice.endpoints.clone().unwrap_or_default(),
        });
        let after = json!({
            "metadata": {"labels": self.labels, "annotations": has},
            "ports": wanted_ports, "endpoints": new.endpoints,
        });
        let mut patch = copepod_api::merge::diff(&before, &after)?;
        let metadata = patch.as_object_mut()?.entry("metadata").or_insert_with(|| json!({})).as_object_mut()?;
        metadata.insert("uid".into(), json!(meta.uid));
        metadata.insert("resourceVersion".into(), json!(meta.resource_version));
        Some(Action::Patch { target: self.target(text(&meta.name)), subresource: "", patch })
    }

    /// Removes a slice.
    pub fn delete(&self, slice: &EndpointSlice) -> Action {
        delete(self.namespace, slice)
    }

    fn target(&self, name: &str) -> Target {
        target(self.namespace, name)
    }
}

/// What a slice should hold.
pub(super) struct Wanted {
    pub family: &'static str,
    pub ports: Vec<EndpointPort>,
    pub endpoints: Vec<Endpoint>,
}

/// The writes that turn slices into others: those that are kept are updated, and of the rest each one that has the
/// address type of a new one becomes it. What is left over is made or goes.
pub(super) fn write(
    common: &Common<'_>,
    kept: Vec<(&EndpointSlice, Wanted)>,
    new: Vec<Wanted>,
    mut stale: Vec<&EndpointSlice>,
    plan: &mut Plan,
) {
    plan.actions.extend(kept.iter().filter_map(|(slice, wanted)| common.update(slice, wanted)));
    for wanted in new {
        let fits =
            |s: &&EndpointSlice| s.address_type == wanted.family && meta::controlled_by(&s.metadata, &common.owner.uid);
        let action = match stale.iter().position(fits) {
            Some(at) => common.update(stale.remove(at), &wanted),
            None => Some(common.create(&wanted)),
        };
        plan.actions.extend(action);
    }
    plan.actions.extend(stale.into_iter().map(|slice| common.delete(slice)));
    if !plan.actions.is_empty() {
        plan.why = format!("{} writes to slices", plan.actions.len());
    }
}

/// Removes a slice of a namespace.
pub(super) fn delete(namespace: &str, slice: &EndpointSlice) -> Action {
    Action::Delete {
        target: target(namespace, text(&slice.metadata.name)),
        propagation: Propagation::Background,
        uid: slice.metadata.uid.clone(),
        grace: None,
    }
}

fn target(namespace: &str, name: &str) -> Target {
    Target::new(meta::v1("discovery.k8s.io", "endpointslices"), namespace, name)
}

/// The slices that a manager keeps and that are not being deleted.
pub(super) fn managed_by<'a>(slices: &'a [Arc<EndpointSlice>], manager: &str) -> Vec<&'a EndpointSlice> {
    let is_managed = |slice: &&EndpointSlice| {
        let label = slice.metadata.labels.as_ref().and_then(|l| l.get(LABEL_MANAGED_BY));
        label.map(String::as_str) == Some(manager) && slice.metadata.deletion_timestamp.is_none()
    };
    slices.iter().map(|s| &**s).filter(is_managed).collect()
}

/// Ports as slices have them.
pub(super) fn wire_ports(ports: &Ports) -> Vec<EndpointPort> {
    let wire = |(name, port, protocol, app): &(String, i32, String, Option<String>)| EndpointPort {
        name: Some(name.clone()),
        port: Some(*port),
        protocol: Some(protocol.clone()),
        app_protocol: app.clone(),
    };
    ports.iter().map(wire).collect()
}

/// Whether two lists hold the same ports in any order.
pub(super) fn same_ports(a: &[EndpointPort], b: &[EndpointPort]) -> bool {
    let key = |ports: &[EndpointPort]| -> BTreeSet<String> {
        let normal = |p: &EndpointPort| {
            let name = text(&p.name);
            json!([name, p.port, p.protocol.as_deref().unwrap_or("TCP"), p.app_protocol]).to_string()
        };
        ports.iter().map(normal).collect()
    };
    key(a) == key(b)
}
