//! Rules of the sources of volumes that storage systems and cloud providers have. Pods name some of them themselves,
//! PersistentVolumes all.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{invalid, required};
use super::pod_volumes::descending_path;
use super::value::{entries, flag, has, int, list, strings, text};
use crate::validate::{dns1123_label, dns1123_subdomain, report, too_long};

/// The largest number of a partition, and of a unit (LUN).
const MAX_NUMBER: i64 = 255;
/// Most bytes of a volume's name, `:` and its portal.
const MAX_ISCSI_BYTES: usize = 64;
/// Longest tenant, and longest name of a CSI driver, in bytes.
const MAX_TENANT_BYTES: usize = 64;
const MAX_DRIVER_BYTES: usize = 63;
const CACHING: [&str; 3] = ["None", "ReadOnly", "ReadWrite"];
const DISK_KINDS: [&str; 3] = ["Dedicated", "Managed", "Shared"];
const MANAGED_DISK: &str =
    "/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}";
const BLOB_DISK: &str = "https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd";
const HOST_PORTS: &str = "must be a host:port pair or multiple pairs separated by commas";

/// The rules of a source of this kind, in the volume with this name at the field `volume.1`. `persistent`: it is a
/// PersistentVolume, whose secrets are in any namespace.
pub(super) fn validate(
    errors: &mut Vec<FieldError>,
    (kind, source): (&str, &Value),
    volume: (&str, &str),
    persistent: bool,
) {
    // Upstream has another name for this one in messages.
    let shown = if kind == "gcePersistentDisk" { "persistentDisk" } else { kind };
    let field = &format!("{}.{shown}", volume.1);
    let needed: &[&str] = match kind {
        "gitRepo" => &["repository"],
        "gcePersistentDisk" => &["pdName"],
        "awsElasticBlockStore" | "cinder" | "portworxVolume" => &["volumeID"],
        "nfs" => &["server", "path"],
        "iscsi" => &["targetPortal", "iqn"],
        "glusterfs" => &["endpoints", "path"],
        "flexVolume" => &["driver"],
        "azureFile" => &["secretName", "shareName"],
        "vsphereVolume" => &["volumePath"],
        "photonPersistentDisk" => &["pdID"],
        "azureDisk" => &["diskName", "diskURI"],
        "storageos" => &["volumeName"],
        "scaleIO" => &["gateway", "system", "volumeName"],
        "csi" if persistent => &["driver", "volumeHandle"],
        "csi" => &["driver"],
        _ => &[],
    };
    required(errors, source, field, needed);
    match kind {
        "gitRepo" => descending_path(errors, text(source, "/directory"), &format!("{field}.directory")),
        "gcePersistentDisk" | "awsElasticBlockStore" => number(errors, source, field, "partition", 1),
        "nfs" if !text(source, "/path").starts_with('/') => {
            invalid(errors, &format!("{field}.path"), text(source, "/path"), "must be an absolute path");
        }
        "iscsi" => iscsi(errors, source, field, volume),
        "glusterfs" if persistent && has(source, "/endpointsNamespace") => {
            let (namespace, field) = (text(source, "/endpointsNamespace"), format!("{field}.endpointsNamespace"));
            if namespace.is_empty() {
                let message = "if the endpointnamespace is set, it must be a valid namespace name";
                invalid(errors, &field, namespace, message);
            } else {
                report(errors, field, &json!(namespace), dns1123_label(namespace));
            }
        }
        "flocker" => flocker(errors, source, field),
        "rbd" => {
            monitors(errors, source, field);
            required(errors, source, field, &["image"]);
        }
        "cephfs" => monitors(errors, source, field),
        "quobyte" => quobyte(errors, source, field),
        "fc" => fibre_channel(errors, source, field),
        "flexVolume" => options(errors, source, field),
        "azureFile" if persistent && source.get("secretNamespace") == Some(&json!("")) => {
            errors.push(FieldError::required(format!("{field}.secretNamespace"), ""));
        }
        "azureDisk" => azure_disk(errors, source, field),
        "storageos" => {
            for key in ["volumeName", "volumeNamespace"] {
                let name = text(source, &format!("/{key}"));
                if !name.is_empty() {
                    report(errors, format!("{field}.{key}"), &json!(name), dns1123_label(name));
                }
            }
        }
        "csi" => csi(errors, source, field, persistent),
        _ => {}
    }
    if matches!(kind, "cinder" | "storageos") && has(source, "/secretRef") {
        let keys: &[&str] = if persistent { &["name", "namespace"] } else { &["name"] };
        required(errors, source.get("secretRef").unwrap_or(&Value::Null), &format!("{field}.secretRef"), keys);
    }
}

/// A number from 0 (upstream's message says `least`) to 255.
fn number(errors: &mut Vec<FieldError>, source: &Value, field: &str, key: &str, least: i64) {
    if let Some(n) = int(source, &format!("/{key}")).filter(|n| !(0..=MAX_NUMBER).contains(n)) {
        let message = format!("must be between {least} and {MAX_NUMBER}, inclusive");
        errors.push(FieldError::invalid(format!("{field}.{key}"), &json!(n), &message));
    }
}

fn monitors(errors: &mut Vec<FieldError>, source: &Value, field: &str) {
    if list(source, "/monitors").is_empty() {
        errors.push(FieldError::required(format!("{field}.monitors"), ""));
    }
}

fn iscsi(errors: &mut Vec<FieldError>, source: &Value, field: &str, (name, volume): (&str, &str)) {
    let qualified = |errors: &mut Vec<FieldError>, field: String, value: &str| match well_formed(value) {
        Some(true) => {}
        Some(false) => invalid(errors, &field, value, "must be valid format"),
        None => invalid(errors, &field, value, "must be valid format starting with iqn, eui, or naa"),
    };
    let iqn = text(source, "/iqn");
    if !iqn.is_empty() {
        qualified(errors, format!("{field}.iqn"), iqn);
    }
    number(errors, source, field, "lun", 0);
    let secret = flag(source, "/chapAuthDiscovery") || flag(source, "/chapAuthSession");
    if secret && !has(source, "/secretRef") {
        errors.push(FieldError::required(format!("{field}.secretRef"), ""));
    }
    let Some(initiator) = source.get("initiatorName").and_then(Value::as_str) else { return };
    qualified(errors, format!("{field}.initiatorname"), initiator);
    if name.len() + 1 + text(source, "/targetPortal").len() > MAX_ISCSI_BYTES {
        let message = "Total length of <volume name>:<iscsi.targetPortal> must be under 64 characters if \
            iscsi.initiatorName is specified.";
        invalid(errors, &format!("{volume}.name"), name, message);
    }
}

/// Whether the name of an initiator or target has its format; `None` if it starts like none.
fn well_formed(name: &str) -> Option<bool> {
    let alphanumeric = |s: &str, len: usize| {
        s.len() == len + 1 && s.is_char_boundary(1) && s.bytes().skip(1).all(|b| b.is_ascii_alphanumeric())
    };
    if let Some(rest) = name.strip_prefix("eui") {
        return Some(alphanumeric(rest, 16));
    }
    if let Some(rest) = name.strip_prefix("naa") {
        return Some(alphanumeric(rest, 32));
    }
    let rest = name.strip_prefix("iqn")?;
    // .YYYY-MM.reversed.domain:anything
    let parts = rest.strip_prefix('.').and_then(|r| r.split_once('.')).and_then(|(date, r)| {
        let (domain, unique) = r.split_once(':')?;
        Some((date.as_bytes(), domain, unique))
    });
    Some(parts.is_some_and(|(date, domain, unique)| {
        let dated = date.len() == 7
            && date.iter().enumerate().all(|(i, b)| if i == 4 { *b == b'-' } else { b.is_ascii_digit() });
        let plain = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'.';
        dated
            && !domain.is_empty()
            && domain.bytes().all(plain)
            && !unique.is_empty()
            && !unique.chars().any(|c| c.is_ascii_whitespace() || ",;*&$|".contains(c))
    }))
}

fn flocker(errors: &mut Vec<FieldError>, source: &Value, field: &str) {
    let name = text(source, "/datasetName");
    match (name.is_empty(), text(source, "/datasetUUID").is_empty()) {
        (true, true) => errors.push(FieldError::required(field, "one of datasetName and datasetUUID is required")),
        (false, false) => {
            invalid(errors, field, "resource", "datasetName and datasetUUID can not be specified simultaneously");
        }
        _ => {}
    }
    if name.contains('/') {
        invalid(errors, &format!("{field}.datasetName"), name, "must not contain '/'");
    }
}

fn quobyte(errors: &mut Vec<FieldError>, source: &Value, field: &str) {
    let registry = text(source, "/registry");
    if registry.is_empty() {
        errors.push(FieldError::required(format!("{field}.registry"), HOST_PORTS));
    } else if text(source, "/tenant").len() > MAX_TENANT_BYTES {
        let message = "must be a UUID and may not exceed a length of 64 characters";
        errors.push(FieldError::required(format!("{field}.tenant"), message));
    } else {
        for _ in registry.split(',').filter(|pair| pair.rsplit_once(':').is_none()) {
            invalid(errors, &format!("{field}.registry"), registry, HOST_PORTS);
        }
    }
    required(errors, source, field, &["volume"]);
}

fn fibre_channel(errors: &mut Vec<FieldError>, source: &Value, field: &str) {
    let (targets, ids): (Vec<&str>, _) = (strings(source, "/targetWWNs").collect(), list(source, "/wwids"));
    let target_field = format!("{field}.targetWWNs");
    if targets.is_empty() && ids.is_empty() {
        errors.push(FieldError::required(&target_field, "must specify either targetWWNs or wwids, but not both"));
    }
    if !targets.is_empty() && !ids.is_empty() {
        let message = "targetWWNs and wwids can not be specified simultaneously";
        errors.push(FieldError::invalid(target_field, &json!(targets), message));
    }
    if !targets.is_empty() && !has(source, "/lun") {
        errors.push(FieldError::required(format!("{field}.lun"), "lun is required if targetWWNs is specified"));
    } else if !targets.is_empty() {
        number(errors, source, field, "lun", 0);
    }
}

fn options(errors: &mut Vec<FieldError>, source: &Value, field: &str) {
    for (key, _) in entries(source, "/options") {
        let namespace = format!(".{}", key.split('/').next().unwrap_or_default().to_lowercase());
        if namespace.ends_with(".kubernetes.io") || namespace.ends_with(".k8s.io") {
            let message = "kubernetes.io and k8s.io namespaces are reserved";
            invalid(errors, &format!("{field}.options[{key}]"), key, message);
        }
    }
}

fn azure_disk(errors: &mut Vec<FieldError>, source: &Value, field: &str) {
    for (key, valid) in [("cachingMode", &CACHING), ("kind", &DISK_KINDS)] {
        let value = text(source, &format!("/{key}"));
        if has(source, &format!("/{key}")) && !valid.contains(&value) {
            errors.push(FieldError::not_supported(format!("{field}.{key}"), &json!(value), valid));
        }
    }
    let (address, managed) = (text(source, "/diskURI"), text(source, "/kind") == "Managed");
    let (start, form) = if managed { ("/subscriptions/", MANAGED_DISK) } else { ("https://", BLOB_DISK) };
    if has(source, "/kind") && !address.starts_with(start) {
        errors.push(FieldError::not_supported(format!("{field}.diskURI"), &json!(address), &[form]));
    }
}

fn csi(errors: &mut Vec<FieldError>, source: &Value, field: &str, persistent: bool) {
    let driver = text(source, "/driver");
    if driver.len() > MAX_DRIVER_BYTES {
        errors.push(too_long(format!("{field}.driver"), MAX_DRIVER_BYTES));
    }
    report(errors, format!("{field}.driver"), &json!(driver), dns1123_subdomain(&driver.to_lowercase()));
    let keys =
        ["controllerPublishSecretRef", "controllerExpandSecretRef", "nodePublishSecretRef", "nodeExpandSecretRef"];
    for key in keys.iter().filter(|key| has(source, &format!("/{key}"))) {
        let secret_field = format!("{field}.{key}");
        let at = |part: &str| text(source, &format!("/{key}/{part}"));
        match at("name") {
            "" => errors.push(FieldError::required(format!("{secret_field}.name"), "")),
            // Upstream reports it so in pods.
            name if !persistent => report(errors, format!("{field}.name"), &json!(name), dns1123_subdomain(name)),
            name => report(errors, format!("{secret_field}.name"), &json!(name), dns1123_subdomain(name)),
        }
        match at("namespace") {
            _ if !persistent => {}
            "" => errors.push(FieldError::required(format!("{secret_field}.namespace"), "")),
            namespace => {
                report(errors, format!("{secret_field}.namespace"), &json!(namespace), dns1123_label(namespace));
            }
        }
    }
}
