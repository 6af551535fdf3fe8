//! Defaults of volumes, in pods and PersistentVolumes.

use serde_json::{Value, json};

use super::pod_defaults::is_latest;
use super::value::{child, entries, items_mut, set, set_default, set_default_nonzero, text};

/// Mode of files in configMap, secret, downwardAPI and projected volumes: 0644.
const FILE_MODE: i64 = 0o644;
/// Lifetime of projected service account tokens in seconds.
const TOKEN_SECONDS: i64 = 3600;
/// Texts of the sources that storage systems have: also an empty one is replaced.
const TEXTS: [(&str, &str, &str); 6] = [
    ("iscsi", "iscsiInterface", "default"),
    ("rbd", "pool", "rbd"),
    ("rbd", "user", "admin"),
    ("rbd", "keyring", "/etc/ceph/keyring"),
    ("scaleIO", "storageMode", "ThinProvisioned"),
    ("scaleIO", "fsType", "xfs"),
];

/// Fills the defaults of a pod's volume.
pub(super) fn volume(volume: &mut Value) {
    if !entries(volume, "").any(|(key, value)| key != "name" && !value.is_null()) {
        set(volume, "emptyDir", json!({}));
    }
    sources(volume);
    for key in ["configMap", "secret", "downwardAPI", "projected"] {
        if let Some(source) = volume.get_mut(key).filter(|s| s.is_object()) {
            set_default(source, "defaultMode", FILE_MODE);
        }
    }
    if let Some(image) = volume.get_mut("image").filter(|s| s.is_object()) {
        let reference = text(image, "/reference");
        let policy = if !reference.is_empty() && is_latest(reference) { "Always" } else { "IfNotPresent" };
        set_default_nonzero(image, "pullPolicy", policy);
    }
    if let Some(template) = volume.pointer_mut("/ephemeral/volumeClaimTemplate").filter(|t| t.is_object())
        && let Some(spec) = child(template, "spec")
    {
        set_default(spec, "volumeMode", "Filesystem");
    }
    let downward = |source: &mut Value| {
        for item in items_mut(source, "/items") {
            if let Some(field) = item.get_mut("fieldRef") {
                set_default_nonzero(field, "apiVersion", "v1");
            }
        }
    };
    volume.get_mut("downwardAPI").map(downward);
    for source in items_mut(volume, "/projected/sources") {
        source.get_mut("downwardAPI").map(downward);
        if let Some(token) = source.get_mut("serviceAccountToken") {
            set_default(token, "expirationSeconds", TOKEN_SECONDS);
        }
    }
}

/// Fills the defaults of the sources that stand in `parent`, a pod's volume or the spec of a PersistentVolume.
pub(super) fn sources(parent: &mut Value) {
    if let Some(source) = parent.get_mut("hostPath") {
        set_default(source, "type", "");
    }
    for (kind, key, default) in TEXTS {
        if let Some(source) = parent.get_mut(kind) {
            set_default_nonzero(source, key, default);
        }
    }
    if let Some(disk) = parent.get_mut("azureDisk") {
        set_default(disk, "cachingMode", "ReadWrite");
        set_default(disk, "kind", "Shared");
        set_default(disk, "fsType", "ext4");
        set_default(disk, "readOnly", false);
    }
}
