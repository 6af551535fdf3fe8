//! Files of configMap, secret and downwardAPI volumes.

use bytes::Bytes;
use k8s_openapi::api::core::v1::{DownwardAPIVolumeFile, KeyToPath, Pod};

use crate::fields::{self, Place};
use crate::refs::Refs;
use crate::runtime::{FileEntry, FileSet};

/// Mode of files without one of their own.
const DEFAULT_MODE: i32 = 0o644;

pub(super) fn config_map(
    out: &mut FileSet,
    refs: &Refs,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: Option<bool>,
) -> Result<(), String> {
    let optional = optional.unwrap_or(false);
    let Some(found) = refs.config_maps.get(name) else {
        return if optional { Ok(()) } else { Err(format!("configmap {name:?} not found")) };
    };
    let text = found.data.iter().flatten().map(|(k, v)| (k.clone(), Bytes::from(v.clone())));
    let binary = found.binary_data.iter().flatten().map(|(k, v)| (k.clone(), Bytes::from(v.0.clone())));
    place_keys(out, text.chain(binary).collect(), items, mode, optional)
}

pub(super) fn secret(
    out: &mut FileSet,
    refs: &Refs,
    name: &str,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: Option<bool>,
) -> Result<(), String> {
    let optional = optional.unwrap_or(false);
    let Some(found) = refs.secrets.get(name) else {
        return if optional { Ok(()) } else { Err(format!("secret {name:?} not found")) };
    };
    let data = found.data.iter().flatten().map(|(k, v)| (k.clone(), Bytes::from(v.0.clone())));
    place_keys(out, data.collect(), items, mode, optional)
}

pub(super) fn downward(
    out: &mut FileSet,
    pod: &Pod,
    place: &Place,
    items: Option<&[DownwardAPIVolumeFile]>,
    mode: Option<i32>,
) -> Result<(), String> {
    for item in items.unwrap_or_default() {
        let value = if let Some(f) = &item.field_ref {
            fields::field(pod, place, &f.field_path)?
        } else if let Some(r) = &item.resource_field_ref {
            let name = r.container_name.as_deref().unwrap_or_default();
            let container = pod.spec.iter().flat_map(|s| &s.containers).find(|c| c.name == name);
            let container = container.ok_or_else(|| format!("no container {name:?} for resourceFieldRef"))?;
            fields::resource(container, place, r)?
        } else {
            return Err(format!("item {:?} has neither fieldRef nor resourceFieldRef", item.path));
        };
        put(out, &item.path, Bytes::from(value), item.mode.or(mode))?;
    }
    Ok(())
}

/// All keys under their own names, or only the listed ones under their paths.
fn place_keys(
    out: &mut FileSet,
    data: std::collections::BTreeMap<String, Bytes>,
    items: Option<&[KeyToPath]>,
    mode: Option<i32>,
    optional: bool,
) -> Result<(), String> {
    let Some(items) = items.filter(|i| !i.is_empty()) else {
        for (key, bytes) in data {
            put(out, &key, bytes, mode)?;
        }
        return Ok(());
    };
    for item in items {
        match data.get(&item.key) {
            Some(bytes) => put(out, &item.path, bytes.clone(), item.mode.or(mode))?,
            None if optional => {}
            None => return Err(format!("references non-existent config key: {}", item.key)),
        }
    }
    Ok(())
}

fn put(out: &mut FileSet, path: &str, data: Bytes, mode: Option<i32>) -> Result<(), String> {
    let outside =
        path.is_empty() || path.starts_with('/') || path.split('/').any(|p| p.is_empty() || p == ".." || p == ".");
    if outside {
        return Err(format!("path {path:?} must be relative and stay inside the volume"));
    }
    let mode = u32::try_from(mode.unwrap_or(DEFAULT_MODE)).unwrap_or(0o644) & 0o777;
    out.insert(path.into(), FileEntry { data, mode });
    Ok(())
}
