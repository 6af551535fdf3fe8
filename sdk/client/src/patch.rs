//! Writes that say only what changes, and are not sent when nothing does.

use copepod_api::merge;
use kube::api::{Patch, PatchParams};
use kube::{Api, Resource};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Merge-patches `status` from `current` to `desired`; `Ok(None)` if they are equal and nothing was sent. The patch is
/// refused with a conflict if the name now belongs to an object of another UID.
pub async fn status<K, S>(api: &Api<K>, current: &K, desired: &S) -> Result<Option<K>, kube::Error>
where
    K: Resource + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
    S: Serialize,
{
    let Some(patch) = field_patch(current, "status", desired)? else { return Ok(None) };
    let name = current.meta().name.as_deref().unwrap_or_default();
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(Some)
}

/// Merge-patches `spec` from `current` to `desired`; `Ok(None)` if they are equal and nothing was sent.
pub async fn spec<K, S>(api: &Api<K>, current: &K, desired: &S) -> Result<Option<K>, kube::Error>
where
    K: Resource + Serialize + DeserializeOwned + Clone + std::fmt::Debug,
    S: Serialize,
{
    let Some(patch) = field_patch(current, "spec", desired)? else { return Ok(None) };
    let name = current.meta().name.as_deref().unwrap_or_default();
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await.map(Some)
}

fn field_patch<K, S>(current: &K, field: &str, desired: &S) -> Result<Option<Value>, kube::Error>
where
    K: Resource + Serialize,
    S: Serialize,
{
    let before = serde_json::to_value(current).map_err(kube::Error::SerdeError)?;
    let before = before.get(field).cloned().unwrap_or_else(|| json!({}));
    let after = serde_json::to_value(desired).map_err(kube::Error::SerdeError)?;
    Ok(merge::diff(&before, &after).map(|change| {
        let mut patch = json!({ field: change });
        if let (Some(uid), Some(patch)) = (&current.meta().uid, patch.as_object_mut()) {
            patch.insert("metadata".into(), json!({"uid": uid}));
        }
        patch
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::core::v1::Pod;

    #[test]
    fn only_changes_are_written() {
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "uid": "u1"},
            "status": {"phase": "Pending", "message": "m"},
        }))
        .unwrap();
        let cases = [
            (json!({"phase": "Pending", "message": "m"}), None),
            (
                json!({"phase": "Running"}),
                Some(json!({"metadata": {"uid": "u1"}, "status": {"phase": "Running", "message": null}})),
            ),
        ];
        for (desired, expected) in cases {
            assert_eq!(field_patch(&pod, "status", &desired).unwrap(), expected);
        }
    }
}
