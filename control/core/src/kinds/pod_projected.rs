//! Rules of projected volumes: several sources in one directory.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{domain_path, invalid, required};
use super::pod_volumes::{downward_file, key_to_path, local_path};
use super::value::{has, int, list, text};
use super::workload::label_selector;
use crate::validate::{dns1123_subdomain, report};

/// Shortest and longest lifetime of a token in seconds.
const MIN_TOKEN_SECONDS: i64 = 600;
const MAX_TOKEN_SECONDS: i64 = 1 << 32;
/// Shortest and longest lifetime of a certificate in seconds; the longest of a signer of Kubernetes itself is shorter.
const MIN_CERTIFICATE_SECONDS: i64 = 3600;
const MAX_CERTIFICATE_SECONDS: i64 = 91 * 86_400;
const MAX_KUBERNETES_CERTIFICATE_SECONDS: i64 = 86_400;
const KEY_TYPES: [&str; 6] = ["RSA3072", "RSA4096", "ECDSAP256", "ECDSAP384", "ECDSAP521", "ED25519"];
const TYPES: [&str; 6] =
    ["secret", "configMap", "downwardAPI", "serviceAccountToken", "clusterTrustBundle", "podCertificate"];

/// The rules of the sources of the projected volume at `field`.
pub(super) fn sources(errors: &mut Vec<FieldError>, volume: &Value, field: &str) {
    let mut paths = Paths { taken: HashSet::new(), field };
    for (i, source) in list(volume, "/sources").iter().enumerate() {
        let item = format!("{field}.sources[{i}]");
        let given: Vec<_> =
            TYPES.iter().filter_map(|kind| Some((*kind, source.get(kind).filter(|s| !s.is_null())?))).collect();
        for (kind, source) in &given {
            let at = format!("{item}.{kind}");
            match *kind {
                "secret" | "configMap" => {
                    required(errors, source, &at, &["name"]);
                    for (j, file) in list(source, "/items").iter().enumerate() {
                        key_to_path(errors, file, &format!("{at}.items[{j}]"));
                        paths.take(errors, text(file, "/path"), text(source, "/name"));
                    }
                }
                "downwardAPI" => {
                    for file in list(source, "/items") {
                        downward_file(errors, file, &at);
                        paths.take(errors, text(file, "/path"), text(file, "/path"));
                    }
                }
                "serviceAccountToken" => token(errors, source, &at, field),
                "clusterTrustBundle" => {
                    trust_bundle(errors, source, &at);
                    paths.take(errors, text(source, "/path"), text(source, "/path"));
                }
                _ => certificate(errors, source, &at, &mut paths),
            }
        }
        if given.len() > 1 {
            errors.push(FieldError::forbidden(item, "may not specify more than 1 volume type per source"));
        }
    }
}

/// The paths that the sources of one volume have taken, and the volume's field.
struct Paths<'a> {
    taken: HashSet<&'a str>,
    field: &'a str,
}

impl<'a> Paths<'a> {
    /// Refuses a path that is taken; `shown` is the value in the message.
    fn take(&mut self, errors: &mut Vec<FieldError>, path: &'a str, shown: &str) {
        if !path.is_empty() && !self.taken.insert(path) {
            invalid(errors, self.field, shown, "conflicting duplicate paths");
        }
    }
}

/// `volume` is the field of the whole volume, where upstream reports the path.
fn token(errors: &mut Vec<FieldError>, source: &Value, field: &str, volume: &str) {
    let seconds = int(source, "/expirationSeconds").unwrap_or(0);
    let message = if seconds < MIN_TOKEN_SECONDS {
        "may not specify a duration less than 10 minutes"
    } else if seconds > MAX_TOKEN_SECONDS {
        "may not specify a duration larger than 2^32 seconds"
    } else {
        ""
    };
    if !message.is_empty() {
        errors.push(FieldError::invalid(format!("{field}.expirationSeconds"), &json!(seconds), message));
    }
    required(errors, source, volume, &["path"]);
    local_path(errors, text(source, "/path"), &format!("{volume}.path"));
}

fn trust_bundle(errors: &mut Vec<FieldError>, source: &Value, field: &str) {
    let (name, signer) = (text(source, "/name"), text(source, "/signerName"));
    match (has(source, "/name"), has(source, "/signerName")) {
        (true, true) => {
            errors.push(FieldError::invalid(field, source, "only one of name and signerName may be used"));
        }
        (true, false) => {
            if name.is_empty() {
                errors.push(FieldError::required(format!("{field}.name"), "must be a valid object name"));
            }
            let check = dns1123_subdomain(name.rsplit(':').next().unwrap_or_default());
            let check = check.map_err(|m| format!("not a valid clustertrustbundlename: {m}"));
            report(errors, format!("{field}.name"), &json!(name), check);
            if has(source, "/labelSelector") {
                let message = "labelSelector must be unset if name is specified";
                let selector = source.get("labelSelector").unwrap_or(&Value::Null);
                errors.push(FieldError::invalid(format!("{field}.labelSelector"), selector, message));
            }
        }
        (false, true) => {
            if signer.is_empty() {
                errors.push(FieldError::required(format!("{field}.signerName"), "must be a valid signer name"));
            } else {
                report(errors, format!("{field}.signerName"), &json!(signer), domain_path(signer));
            }
            if let Some(selector) = source.get("labelSelector").filter(|s| !s.is_null()) {
                errors.extend(label_selector(selector, &format!("{field}.labelSelector")));
            }
        }
        (false, false) => {
            errors.push(FieldError::required(field, "either name or signerName must be specified"));
        }
    }
    required(errors, source, field, &["path"]);
    local_path(errors, text(source, "/path"), &format!("{field}.path"));
}

fn certificate<'a>(errors: &mut Vec<FieldError>, source: &'a Value, field: &str, paths: &mut Paths<'a>) {
    let (signer, key) = (text(source, "/signerName"), text(source, "/keyType"));
    report(errors, format!("{field}.signerName"), &json!(signer), domain_path(signer));
    if !KEY_TYPES.contains(&key) {
        errors.push(FieldError::not_supported(format!("{field}.keyType"), &json!(key), &KEY_TYPES));
    }
    if let Some(seconds) = int(source, "/maxExpirationSeconds") {
        let domain = signer.split('/').next().unwrap_or_default();
        let most = if domain == "kubernetes.io" || domain.ends_with(".kubernetes.io") {
            MAX_KUBERNETES_CERTIFICATE_SECONDS
        } else {
            MAX_CERTIFICATE_SECONDS
        };
        let field = format!("{field}.maxExpirationSeconds");
        if seconds < MIN_CERTIFICATE_SECONDS {
            let message = format!("if provided, maxExpirationSeconds must be >= {MIN_CERTIFICATE_SECONDS}");
            errors.push(FieldError::invalid(&field, &json!(seconds), &message));
        }
        if seconds > most {
            let message = format!("if provided, maxExpirationSeconds must be <= {most}");
            errors.push(FieldError::invalid(field, &json!(seconds), &message));
        }
    }
    let mut any = false;
    for key in ["credentialBundlePath", "keyPath", "certificateChainPath"] {
        let path = text(source, &format!("/{key}"));
        if !path.is_empty() {
            any = true;
            local_path(errors, path, &format!("{field}.{key}"));
            paths.take(errors, path, path);
        }
    }
    if !any {
        let message = "specify at least one of credentialBundlePath, keyPath, and certificateChainPath";
        errors.push(FieldError::required(field, message));
    }
}
