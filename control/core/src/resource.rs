//! What the API server knows of a resource: its names, its schema and its [`Strategy`]. One generic handler serves
//! them all (invariant 5); a built-in kind is one file in `kinds/` and one line in `kinds::builtin`.

use std::sync::Arc;

use copepod_api::{FieldError, GroupResource, Gvk, Gvr};
use serde_json::Value;

use crate::schema::Schema;
use crate::table::Column;

/// Whether objects live in a namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// In a namespace.
    Namespaced,
    /// In the cluster.
    Cluster,
}

/// The names of a resource, as discovery prints them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names {
    /// API group, `""` for core.
    pub group: String,
    /// The served (and stored) version.
    pub version: String,
    /// Kind.
    pub kind: String,
    /// Lower-case plural.
    pub plural: String,
    /// Lower-case singular.
    pub singular: String,
    /// Short names, such as `deploy`.
    pub short: Vec<String>,
    /// Categories, such as `all`.
    pub categories: Vec<String>,
    /// Scope.
    pub scope: Scope,
}

/// The generic subresources a resource has. Others (binding, log, ...) are routes of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subresources {
    /// `/status` exists: writes to the main resource ignore status, and the reverse.
    pub status: bool,
    /// `/scale` exists.
    pub scale: Option<ScalePaths>,
}

/// Where a resource keeps what `autoscaling/v1 Scale` shows (dotted paths, such as `spec.replicas`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScalePaths {
    /// Desired count.
    pub spec_replicas: String,
    /// Observed count.
    pub status_replicas: String,
    /// The label selector: an object (`spec.selector`; a ReplicationController's has the labels themselves) printed as
    /// a string in the Scale's status.
    pub selector: String,
}

/// All verbs that a resource can have, sorted.
pub const VERBS: &[&str] = &["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];

/// A kind's own rules over the generic ones. Every method has the default "no rule". Pure: ids, times and addresses
/// are given by the server's generic code and admission, before `validate`.
pub trait Strategy: Send + Sync {
    /// Fills documented default values into a decoded object (before admission, on create and update).
    fn default(&self, _object: &mut Value) {}
    /// Clears what a client may not set on create (status is cleared already when there is a status subresource),
    /// sets initial status such as `phase: Pending`.
    fn prepare_create(&self, _object: &mut Value) {}
    /// Whether a new object has the status that its creator gives it (nodes), though there is a `/status`.
    fn keeps_status(&self) -> bool {
        false
    }
    /// Carries over what a client may not change (status is carried over already).
    fn prepare_update(&self, _new: &mut Value, _old: &Value) {}
    /// The same for a write to `/status`; the generic code already restored everything but status and, of the
    /// older groups' kinds, labels and annotations.
    fn prepare_status_update(&self, _new: &mut Value, _old: &Value) {}
    /// Whether a PUT of a name that does not exist creates the object (upstream's `AllowCreateOnUpdate`).
    fn creates_on_update(&self) -> bool {
        false
    }
    /// The kind's rules on a whole object, beyond its schema's types.
    fn validate(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }
    /// The kind's rules on a new object alone; `validate` ran on it already.
    fn validate_create(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }
    /// The kind's rules on a change (immutable fields); `validate` ran on `new` already.
    fn validate_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }
    /// Whether a PUT may come without a resourceVersion, so that it overwrites what it has not seen.
    fn allows_unconditional_update(&self) -> bool {
        true
    }
    /// Whether a change from `old` to `new` raises `metadata.generation`. Default: anything but metadata and status.
    fn bumps_generation(&self, new: &Value, old: &Value) -> bool {
        let strip = |v: &Value| {
            let mut v = v.clone();
            if let Some(o) = v.as_object_mut() {
                for k in ["metadata", "status", "apiVersion", "kind"] {
                    o.remove(k);
                }
            }
            v
        };
        strip(new) != strip(old)
    }
    /// Whether the kind has `metadata.generation` at all (upstream's ConfigMap, Secret, Event, Lease ... do not).
    fn has_generation(&self) -> bool {
        true
    }
    /// Table columns after upstream's printers; the server adds nothing. `Name` first.
    fn columns(&self) -> Vec<Column> {
        crate::table::default_columns()
    }
    /// One row's cells, in the order of `columns`. `now` in seconds since the epoch, for ages.
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        crate::table::default_cells(object, now)
    }
    /// Selectable fields beyond `metadata.name` and `metadata.namespace`, as (path, value).
    fn fields(&self, _object: &Value) -> Vec<(&'static str, String)> {
        Vec::new()
    }
    /// Names of the selectable fields, for refusing others with upstream's message.
    fn field_names(&self) -> &'static [&'static str] {
        &[]
    }
    /// Seconds of grace that a delete without options gives (pods); `None`: deletion is immediate.
    fn default_grace_seconds(&self, _object: &Value) -> Option<i64> {
        None
    }
    /// The verbs of the resource's own URLs, as discovery names them, sorted. What cannot be watched is not stored
    /// ([`Resource::is_stored`]).
    fn verbs(&self) -> &'static [&'static str] {
        VERBS
    }
    /// Whether a delete that names no propagation policy leaves the dependents in place (old kinds, for compatibility).
    fn orphans_by_default(&self) -> bool {
        false
    }
    /// Turns an object as stored (under the resource's `storage` names) into this resource's version. Only called
    /// where `Resource::storage` is set; `apiVersion` and `kind` are the implementation's to set too.
    #[allow(clippy::wrong_self_convention, reason = "it reads from the storage's form, not into Self")]
    fn from_storage(&self, stored: Value) -> Value {
        stored
    }
    /// The reverse of [`Strategy::from_storage`].
    fn to_storage(&self, object: Value) -> Value {
        object
    }
    /// Checks a name given by a client; default DNS-1123 subdomain.
    fn validate_name(&self, name: &str) -> Result<(), String> {
        crate::validate::dns1123_subdomain(name)
    }
}

/// The resource under whose names another one's objects are stored (events.k8s.io's Events are core Events): its keys,
/// its history, its watches. The strategy converts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageView {
    /// API group of the stored objects, `""` for core.
    pub group: String,
    /// Version of the stored objects.
    pub version: String,
    /// Lower-case plural of the stored objects.
    pub plural: String,
}

/// One served resource.
pub struct Resource {
    /// Names and scope.
    pub names: Names,
    /// Generic subresources.
    pub subresources: Subresources,
    /// The compiled schema.
    pub schema: Arc<Schema>,
    /// The kind's rules.
    pub strategy: Box<dyn Strategy>,
    /// Set if the objects are stored as another resource's; `None` for nearly all.
    pub storage: Option<StorageView>,
}

impl Resource {
    /// The kind's full name.
    pub fn gvk(&self) -> Gvk {
        Gvk::new(&self.names.group, &self.names.version, &self.names.kind)
    }
    /// The resource's full name.
    pub fn gvr(&self) -> Gvr {
        Gvr {
            group: self.names.group.clone(),
            version: self.names.version.clone(),
            resource: self.names.plural.clone(),
        }
    }
    /// The name used in error messages.
    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.names.group.clone(), resource: self.names.plural.clone() }
    }
    /// Whether the resource's own URLs have a verb.
    pub fn serves(&self, verb: &str) -> bool {
        self.strategy.verbs().contains(&verb)
    }
    /// Whether its objects live in the store. Reviews and component statuses are answered on the spot.
    pub fn is_stored(&self) -> bool {
        self.serves("watch")
    }
    /// Whether objects live in a namespace.
    pub fn namespaced(&self) -> bool {
        self.names.scope == Scope::Namespaced
    }
}

/// All served resources. Built once (`kinds::builtin()`), then extended by CRDs; lookups are by URL parts or by kind.
#[derive(Clone, Default)]
pub struct Registry {
    resources: Vec<Arc<Resource>>,
}

impl Registry {
    /// Adds a resource; a later one with the same names replaces the earlier.
    pub fn add(&mut self, resource: Resource) {
        let gvr = resource.gvr();
        self.resources.retain(|r| r.gvr() != gvr);
        self.resources.push(Arc::new(resource));
    }
    /// Finds a resource by the parts of its URL.
    pub fn find(&self, group: &str, version: &str, plural: &str) -> Option<&Arc<Resource>> {
        self.resources.iter().find(|r| r.names.group == group && r.names.version == version && r.names.plural == plural)
    }
    /// Finds a resource by kind.
    pub fn find_kind(&self, gvk: &Gvk) -> Option<&Arc<Resource>> {
        self.resources
            .iter()
            .find(|r| r.names.group == gvk.group && r.names.version == gvk.version && r.names.kind == gvk.kind)
    }
    /// All resources in registration order.
    pub fn all(&self) -> &[Arc<Resource>] {
        &self.resources
    }
}
