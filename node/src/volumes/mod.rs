//! Lowers a pod's volumes and mounts to what the runtime takes, from the ConfigMaps and Secrets found: pure, but for
//! `host` and `local`.

mod files;
pub mod host;
pub mod local;
pub mod reclaim;
mod strays;

use std::collections::BTreeMap;

use copepod_api::names::LOCAL_PATH;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec, Volume as PodVolume};

use crate::fields::Place;
use crate::refs::{Refs, claim_of};
use crate::runtime::{FileSet, HostKind, Mount, Volume};

/// Most bytes the files of one configMap, secret, downwardAPI or projected volume may hold together.
pub const MAX_FILES_BYTES: usize = 16 << 20;

/// Lowers all volumes; the error is what a `FailedMount` event says.
pub fn volumes(pod: &Pod, refs: &Refs, place: &Place) -> Result<BTreeMap<String, Volume>, String> {
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let mut out = BTreeMap::new();
    for v in spec.volumes.iter().flatten() {
        let fail = |why: String| format!("MountVolume.SetUp failed for volume {:?} : {why}", v.name);
        let lowered = if let Some(e) = &v.empty_dir {
            let limit = e.size_limit.as_ref().map(|q| copepod_api::Quantity::parse(&q.0)).transpose().map_err(fail)?;
            Volume::Empty { size_limit: limit.map(|q| q.as_bytes()).filter(|b| *b > 0) }
        } else if let Some(h) = &v.host_path {
            Volume::Host { path: h.path.clone().into(), kind: host_kind(h.type_.as_deref()).map_err(fail)? }
        } else if let Some(claim) = claim_of(pod, v) {
            claimed(refs, &claim).map_err(fail)?
        } else {
            Volume::Files(files_of(pod, v, refs, place).map_err(fail)?)
        };
        out.insert(v.name.clone(), lowered);
    }
    Ok(out)
}

fn host_kind(kind: Option<&str>) -> Result<HostKind, String> {
    match kind.unwrap_or_default() {
        "" => Ok(HostKind::Any),
        "Directory" => Ok(HostKind::Directory),
        "DirectoryOrCreate" => Ok(HostKind::DirectoryOrCreate),
        "File" => Ok(HostKind::File),
        "FileOrCreate" => Ok(HostKind::FileOrCreate),
        other => Err(format!("hostPath type {other:?} is not supported by this node: guests can open files only")),
    }
}

/// What the volume bound to a claim is on this machine.
fn claimed(refs: &Refs, claim: &str) -> Result<Volume, String> {
    let volume = refs.claims.get(claim).ok_or_else(|| format!("persistentvolumeclaim {claim:?} not found"))?;
    let spec = volume.spec.clone().unwrap_or_default();
    let name = volume.metadata.name.as_deref().unwrap_or_default();
    if spec.volume_mode.as_deref() == Some("Block") {
        return Err(format!("persistentvolume {name:?} is a block device: guests can open files only"));
    }
    if let Some(csi) = spec.csi.filter(|csi| csi.driver == LOCAL_PATH) {
        return Ok(Volume::Local { name: local::checked(&csi.volume_handle)?.into() });
    }
    match (spec.local, spec.host_path) {
        (Some(local), _) => Ok(Volume::Host { path: local.path.into(), kind: HostKind::Directory }),
        (None, Some(host)) => Ok(Volume::Host { path: host.path.into(), kind: host_kind(host.type_.as_deref())? }),
        (None, None) => Err(format!(
            "persistentvolume {name:?} is of a kind that this node does not mount: use local, hostPath or a \
                 StorageClass of {LOCAL_PATH}"
        )),
    }
}

/// The files of one volume that the node fills.
fn files_of(pod: &Pod, v: &PodVolume, refs: &Refs, place: &Place) -> Result<FileSet, String> {
    let mut out = FileSet::new();
    if let Some(c) = &v.config_map {
        files::config_map(&mut out, refs, &c.name, c.items.as_deref(), c.default_mode, c.optional)?;
    } else if let Some(s) = &v.secret {
        let name = s.secret_name.as_deref().unwrap_or_default();
        files::secret(&mut out, refs, name, s.items.as_deref(), s.default_mode, s.optional)?;
    } else if let Some(d) = &v.downward_api {
        files::downward(&mut out, pod, place, d.items.as_deref(), d.default_mode)?;
    } else if let Some(p) = &v.projected {
        for source in p.sources.iter().flatten() {
            if let Some(c) = &source.config_map {
                files::config_map(&mut out, refs, &c.name, c.items.as_deref(), p.default_mode, c.optional)?;
            } else if let Some(s) = &source.secret {
                files::secret(&mut out, refs, &s.name, s.items.as_deref(), p.default_mode, s.optional)?;
            } else if let Some(d) = &source.downward_api {
                files::downward(&mut out, pod, place, d.items.as_deref(), p.default_mode)?;
            } else {
                return Err("this kind of projected source is not supported by this node".into());
            }
        }
    } else {
        return Err("this kind of volume is not supported by this node: use emptyDir, hostPath, configMap, \
                    secret, downwardAPI, projected or persistentVolumeClaim"
            .into());
    }
    let bytes: usize = out.values().map(|f| f.data.len()).sum();
    if bytes > MAX_FILES_BYTES {
        return Err(format!("its files hold {bytes} bytes; the limit is {MAX_FILES_BYTES}"));
    }
    Ok(out)
}

/// Whether a volume's files may change while the pod runs.
pub fn is_live(v: &PodVolume) -> bool {
    v.config_map.is_some() || v.secret.is_some() || v.projected.is_some() || v.downward_api.is_some()
}

/// A container's mounts; the error is a `CreateContainerConfigError`.
pub fn mounts(spec: &PodSpec, container: &Container, env: &[(String, String)]) -> Result<Vec<Mount>, String> {
    let mut out = Vec::new();
    for m in container.volume_mounts.iter().flatten() {
        let Some(volume) = spec.volumes.iter().flatten().find(|v| v.name == m.name) else {
            return Err(format!("volumeMount {:?} names no volume of the pod", m.name));
        };
        let lookup = |name: &str| env.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.clone());
        let sub_path = match &m.sub_path_expr {
            Some(expr) => crate::env::expand(expr, lookup),
            None => m.sub_path.clone().unwrap_or_default(),
        };
        if sub_path.split('/').any(|part| part == "..") || sub_path.starts_with('/') {
            return Err(format!("subPath {sub_path:?} of volumeMount {:?} must stay inside the volume", m.name));
        }
        let claim_is_read_only = volume.persistent_volume_claim.as_ref().and_then(|c| c.read_only).unwrap_or(false);
        let read_only = m.read_only.unwrap_or(false) || is_live(volume) || claim_is_read_only;
        out.push(Mount { volume: m.name.clone(), path: m.mount_path.clone(), sub_path, read_only });
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn lower(volume: Value) -> Result<Vec<(String, String, u32)>, String> {
        let mut volume = volume;
        volume["name"] = json!("v");
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "labels": {"app": "web"}},
            "spec": {"containers": [], "volumes": [volume]},
        }))
        .unwrap();
        let cm = json!({"metadata": {"name": "cm"}, "data": {"a": "1", "b": "2"}, "binaryData": {"c": "AAE="}});
        let secret = json!({"metadata": {"name": "sec"}, "data": {"k": "czNjcjN0"}});
        let refs = Refs {
            config_maps: [("cm".to_string(), Arc::new(serde_json::from_value(cm).unwrap()))].into(),
            secrets: [("sec".to_string(), Arc::new(serde_json::from_value(secret).unwrap()))].into(),
            claims: [
                ("data", json!({"local": {"path": "/mnt/disk"}})),
                ("p-v", json!({"hostPath": {"path": "/srv/x", "type": "DirectoryOrCreate"}})),
                ("net", json!({"nfs": {"server": "s", "path": "/"}})),
                ("made", json!({"csi": {"driver": LOCAL_PATH, "volumeHandle": "pvc-1"}})),
                ("escapes", json!({"csi": {"driver": LOCAL_PATH, "volumeHandle": "../x"}})),
                ("raw", json!({"local": {"path": "/dev/sda"}, "volumeMode": "Block"})),
            ]
            .map(|(claim, spec)| {
                let volume = json!({"metadata": {"name": "pv"}, "spec": spec});
                (claim.to_string(), Arc::new(serde_json::from_value(volume).unwrap()))
            })
            .into(),
        };
        match volumes(&pod, &refs, &Place::default())?.remove("v").unwrap() {
            Volume::Files(files) => {
                Ok(files.into_iter().map(|(p, f)| (p, String::from_utf8_lossy(&f.data).into_owned(), f.mode)).collect())
            }
            Volume::Empty { size_limit } => Ok(vec![(String::new(), size_limit.unwrap_or(0).to_string(), 0)]),
            Volume::Host { path, kind } => Ok(vec![(path.to_string_lossy().into_owned(), format!("{kind:?}"), 0)]),
            Volume::Local { name } => Ok(vec![(name, "Local".into(), 0)]),
        }
    }
    fn file(path: &str, data: &str, mode: u32) -> (String, String, u32) {
        (path.into(), data.into(), mode)
    }

    #[test]
    fn lowering() {
        let cases = [
            (json!({"emptyDir": {}}), vec![file("", "0", 0)]),
            (json!({"emptyDir": {"sizeLimit": "1Mi"}}), vec![file("", "1048576", 0)]),
            (
                json!({"configMap": {"name": "cm"}}),
                vec![file("a", "1", 0o644), file("b", "2", 0o644), file("c", "\0\u{1}", 0o644)],
            ),
            (
                json!({"configMap": {"name": "cm", "defaultMode": 256, "items": [{"key": "a", "path": "d/x"}, {"key": "b", "path": "y", "mode": 420}]}}),
                vec![file("d/x", "1", 0o400), file("y", "2", 0o644)],
            ),
            (json!({"hostPath": {"path": "/srv", "type": ""}}), vec![file("/srv", "Any", 0)]),
            (json!({"hostPath": {"path": "/srv", "type": "FileOrCreate"}}), vec![file("/srv", "FileOrCreate", 0)]),
            (json!({"persistentVolumeClaim": {"claimName": "data"}}), vec![file("/mnt/disk", "Directory", 0)]),
            (json!({"persistentVolumeClaim": {"claimName": "made"}}), vec![file("pvc-1", "Local", 0)]),
            (json!({"ephemeral": {"volumeClaimTemplate": {"spec": {}}}}), vec![file("/srv/x", "DirectoryOrCreate", 0)]),
            (json!({"configMap": {"name": "no", "optional": true}}), vec![]),
            (json!({"secret": {"secretName": "sec"}}), vec![file("k", "s3cr3t", 0o644)]),
            (
                json!({"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}}),
                vec![file("labels", "app=\"web\"", 0o644)],
            ),
            (
                json!({"projected": {"sources": [{"configMap": {"name": "cm", "items": [{"key": "a", "path": "a"}]}}, {"secret": {"name": "sec"}}]}}),
                vec![file("a", "1", 0o644), file("k", "s3cr3t", 0o644)],
            ),
        ];
        for (volume, expected) in cases {
            assert_eq!(lower(volume.clone()).unwrap(), expected, "{volume}");
        }
    }

    #[test]
    fn what_cannot_be_mounted_says_why() {
        let cases = [
            (json!({"configMap": {"name": "x"}}), "configmap \"x\" not found"),
            (json!({"secret": {"secretName": "x"}}), "secret \"x\" not found"),
            (
                json!({"configMap": {"name": "cm", "items": [{"key": "z", "path": "z"}]}}),
                "references non-existent config key: z",
            ),
            (json!({"configMap": {"name": "cm", "items": [{"key": "a", "path": "../z"}]}}), "must be relative"),
            (json!({"nfs": {"server": "s", "path": "/"}}), "not supported by this node"),
            (json!({"persistentVolumeClaim": {"claimName": "x"}}), "persistentvolumeclaim \"x\" not found"),
            (
                json!({"persistentVolumeClaim": {"claimName": "net"}}),
                "\"pv\" is of a kind that this node does not mount",
            ),
            (json!({"persistentVolumeClaim": {"claimName": "raw"}}), "is a block device"),
            (json!({"persistentVolumeClaim": {"claimName": "escapes"}}), "\"../x\" names no directory"),
            (json!({"hostPath": {"path": "/dev/sda", "type": "BlockDevice"}}), "hostPath type \"BlockDevice\" is not"),
        ];
        for (volume, part) in cases {
            let error = lower(volume).unwrap_err();
            assert!(error.contains(part) && error.contains("volume \"v\""), "{error}");
        }
    }

    #[test]
    fn mounts_of_node_filled_volumes_are_read_only() {
        let spec: PodSpec = serde_json::from_value(json!({
            "volumes": [{"name": "e", "emptyDir": {}}, {"name": "c", "configMap": {"name": "cm"}},
                {"name": "r", "persistentVolumeClaim": {"claimName": "data", "readOnly": true}}],
            "containers": [{"name": "a", "volumeMounts": [
                {"name": "e", "mountPath": "/data", "subPathExpr": "$(WHO)/x"}, {"name": "c", "mountPath": "/etc/c"},
                {"name": "r", "mountPath": "/r"}]},
              {"name": "b", "volumeMounts": [{"name": "no", "mountPath": "/x"}]},
              {"name": "c", "volumeMounts": [{"name": "e", "mountPath": "/x", "subPath": "../x"}]}],
        }))
        .unwrap();
        let env = [("WHO".to_string(), "me".to_string())];
        let got = mounts(&spec, &spec.containers[0], &env).unwrap();
        assert_eq!((got[0].sub_path.as_str(), got[0].read_only, got[1].read_only), ("me/x", false, true));
        assert!(got[2].read_only);
        assert!(mounts(&spec, &spec.containers[1], &env).unwrap_err().contains("names no volume"));
        assert!(mounts(&spec, &spec.containers[2], &env).unwrap_err().contains("inside the volume"));
    }
}
