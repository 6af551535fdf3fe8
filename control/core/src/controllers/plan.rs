//! What a controller decided to do.

use std::time::Duration;

use copepod_api::Gvr;
use serde_json::Value;

/// One object's address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Target {
    /// The resource.
    pub gvr: Gvr,
    /// Namespace; empty for cluster-scoped objects.
    pub namespace: String,
    /// Name; empty in a create with `generateName`.
    pub name: String,
}

impl Target {
    /// Builds an address.
    pub fn new(gvr: Gvr, namespace: &str, name: &str) -> Self {
        Self { gvr, namespace: namespace.into(), name: name.into() }
    }
    /// The URL path of the resource's collection in the target's scope.
    pub fn collection_path(&self) -> String {
        let Gvr { group, version, resource } = &self.gvr;
        let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        if self.namespace.is_empty() {
            format!("{root}/{resource}")
        } else {
            format!("{root}/namespaces/{}/{resource}", self.namespace)
        }
    }
    /// The URL path of the object.
    pub fn path(&self) -> String {
        format!("{}/{}", self.collection_path(), self.name)
    }
}

/// What becomes of a deleted object's dependents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Propagation {
    /// They are collected afterwards.
    Background,
    /// They go first.
    Foreground,
    /// They stay.
    Orphan,
}

impl Propagation {
    /// The value of `propagationPolicy`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Background => "Background",
            Self::Foreground => "Foreground",
            Self::Orphan => "Orphan",
        }
    }
}

/// One write through the API.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Creates `object` (with apiVersion and kind) in the target's collection.
    Create {
        /// Where.
        target: Target,
        /// What.
        object: Value,
    },
    /// Merge-patches an object; preconditions stand in the patch's `metadata` (`uid`, `resourceVersion`).
    Patch {
        /// What.
        target: Target,
        /// `status`, or empty for the object itself.
        subresource: &'static str,
        /// The merge patch.
        patch: Value,
    },
    /// Deletes an object.
    Delete {
        /// What.
        target: Target,
        /// What becomes of its dependents.
        propagation: Propagation,
        /// Only the object of this UID.
        uid: Option<String>,
        /// Grace in seconds instead of the object's own.
        grace: Option<i64>,
    },
}

impl Action {
    /// The object's address.
    pub fn target(&self) -> &Target {
        match self {
            Self::Create { target, .. } | Self::Patch { target, .. } | Self::Delete { target, .. } => target,
        }
    }
}

/// An Event about the reconciled object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// `Warning` instead of `Normal`.
    pub warning: bool,
    /// CamelCase reason.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// What a controller decided: first `actions` (creates and deletes of one run may go in parallel), then `status`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Writes, in order.
    pub actions: Vec<Action>,
    /// The status write, after the others.
    pub status: Option<Action>,
    /// The status is of what was observed, whatever becomes of the actions: it is written also if one is refused.
    pub status_observed: bool,
    /// Look again after this time even if nothing changes.
    pub requeue_after: Option<Duration>,
    /// Events for people.
    pub notes: Vec<Note>,
    /// Why, for the log.
    pub why: String,
    /// Before acting, read the reconciled object itself: it must still be there and not be going.
    pub confirm_owner: bool,
}

impl Plan {
    /// A plan to do nothing.
    pub fn nothing(why: impl Into<String>) -> Self {
        Self { why: why.into(), ..Self::default() }
    }
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.actions.is_empty() && self.status.is_none()
    }
    /// Asks to look again after `delay`, if that is sooner than asked already.
    pub fn requeue(&mut self, delay: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(delay, |d| d.min(delay)));
    }
    /// Adds a Normal event.
    pub fn note(&mut self, reason: &'static str, message: String) {
        self.notes.push(Note { warning: false, reason, message });
    }
    /// Adds a Warning event.
    pub fn warn(&mut self, reason: &'static str, message: String) {
        self.notes.push(Note { warning: true, reason, message });
    }
}
