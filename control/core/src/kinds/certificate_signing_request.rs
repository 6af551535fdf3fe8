//! CertificateSigningRequest. The server's admission fills in who asks; here are the rules.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{condition, conditions};
use super::value::{child, has, int, list, remove, set, strings, text};
use super::{names, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column, human_duration};
use crate::validate::{self, Check, report};

/// Conditions that stay once they are set.
const LASTING: [&str; 3] = ["Approved", "Denied", "Failed"];
/// Shortest validity that may be asked for, in seconds.
const MIN_EXPIRATION_SECONDS: i64 = 600;
/// What a certificate may be used for.
const USAGES: [&str; 23] = [
    "any",
    "cert sign",
    "client auth",
    "code signing",
    "content commitment",
    "crl sign",
    "data encipherment",
    "decipher only",
    "digital signature",
    "email protection",
    "encipher only",
    "ipsec end system",
    "ipsec tunnel",
    "ipsec user",
    "key agreement",
    "key encipherment",
    "microsoft sgc",
    "netscape sgc",
    "ocsp signing",
    "s/mime",
    "server auth",
    "signing",
    "timestamping",
];

/// CertificateSigningRequests.
pub fn resource() -> Option<Resource> {
    let api = "certificates.k8s.io/v1";
    let names = names(api, "certificatesigningrequests", "CertificateSigningRequest", &["csr"], Scope::Cluster);
    super::built_in(names, with_status(), Request)
}

/// A write to `/approval`: the request as it is, with the conditions of the given one; `Failed` is the signer's alone.
/// `now` (RFC 3339) dates conditions that carry no time.
pub fn approval(old: &Value, given: &Value, now: &str) -> Value {
    let mut new = old.clone();
    let mut merged = merge(given, old, &["Failed"]);
    for item in &mut merged {
        let before = condition(old, text(item, "/type")).filter(|c| text(c, "/status") == text(item, "/status"));
        let since = before.map_or(now, |c| text(c, "/lastTransitionTime")).to_string();
        for (key, time) in [("lastUpdateTime", now.to_string()), ("lastTransitionTime", since)] {
            if !has(item, &format!("/{key}")) {
                set(item, key, time);
            }
        }
    }
    if let Some(status) = child(&mut new, "status") {
        set(status, "conditions", merged);
    }
    new
}

/// The conditions of `new`, but those of the `kept` types as `old` has them.
fn merge(new: &Value, old: &Value, kept: &[&str]) -> Vec<Value> {
    let is_kept = |c: &&Value| kept.contains(&text(c, "/type"));
    let theirs = list(new, "/status/conditions").iter().filter(|c| !is_kept(c));
    theirs.chain(list(old, "/status/conditions").iter().filter(is_kept)).cloned().collect()
}

struct Request;

impl Strategy for Request {
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }
    /// What was asked stays asked.
    fn prepare_update(&self, new: &mut Value, old: &Value) {
        set(new, "spec", old.get("spec").cloned().unwrap_or_default());
    }
    /// Approval has a subresource of its own.
    fn prepare_status_update(&self, new: &mut Value, old: &Value) {
        let merged = merge(new, old, &["Approved", "Denied"]);
        let Some(status) = child(new, "status") else { return };
        if merged.is_empty() {
            remove(status, "", "conditions");
        } else {
            set(status, "conditions", merged);
        }
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = spec(object);
        conditions(&mut errors, object);
        for (i, item) in list(object, "/status/conditions").iter().enumerate() {
            let (type_, status) = (text(item, "/type"), text(item, "/status"));
            let field = format!("status.conditions[{i}]");
            if status.is_empty() {
                errors.push(FieldError::required(format!("{field}.status"), ""));
            } else if LASTING.contains(&type_) && status != "True" {
                errors.push(FieldError::not_supported(format!("{field}.status"), &json!(status), &["True"]));
            }
            if type_ == "Denied" && condition(object, "Approved").is_some() {
                let message = "Approved and Denied conditions are mutually exclusive";
                errors.push(FieldError::invalid(format!("{field}.type"), &json!(type_), message));
            }
        }
        let certificate = text(object, "/status/certificate");
        if !certificate.is_empty()
            && let Err(message) = chain(certificate)
        {
            let value = json!("<certificate data>");
            errors.push(FieldError::invalid("status.certificate", &value, &message));
        }
        errors
    }
    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for type_ in LASTING {
            if condition(old, type_).is_some() && condition(new, type_).is_none() {
                let message = format!("updates may not remove a condition of type {type_:?}");
                errors.push(FieldError::forbidden("status.conditions", &message));
            }
        }
        let certificate = |o: &Value| text(o, "/status/certificate").to_string();
        if !certificate(old).is_empty() && certificate(new) != certificate(old) {
            let message = "updates may not modify existing certificate content";
            errors.push(FieldError::forbidden("status.certificate", message));
        }
        errors
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::age(),
            Column::new("SignerName", "string", "Who is asked to sign."),
            Column::new("Requestor", "string", "Who asked."),
            Column::new("RequestedDuration", "string", "For how long the certificate should be valid."),
            Column::new("Condition", "string", "How far the request got."),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let signer = Some(text(object, "/spec/signerName")).filter(|s| !s.is_empty()).unwrap_or("<none>");
        let duration = int(object, "/spec/expirationSeconds").map_or_else(|| "<none>".into(), human_duration);
        vec![
            table::name(object),
            table::age(object, now),
            json!(signer),
            json!(text(object, "/spec/username")),
            json!(duration),
            json!(state(object)),
        ]
    }
    fn fields(&self, object: &Value) -> Vec<(&'static str, String)> {
        vec![("spec.signerName", text(object, "/spec/signerName").into())]
    }
    fn field_names(&self) -> &'static [&'static str] {
        &["spec.signerName"]
    }
    fn validate_name(&self, name: &str) -> Check {
        validate::path_segment(name)
    }
}

/// Certificates in PEM, as they stand in JSON: in base64.
fn chain(certificate: &str) -> Check {
    const BEGIN: &str = "-----BEGIN ";
    let bytes = STANDARD.decode(certificate).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut blocks = 0;
    for block in text.split(BEGIN).skip(1) {
        let Some((kind, rest)) = block.split_once("-----") else { continue };
        let Some((body, _)) = rest.split_once(&format!("-----END {kind}-----")) else { continue };
        if kind != "CERTIFICATE" {
            return Err(format!("only CERTIFICATE PEM blocks are allowed, found {kind:?}"));
        }
        if body.contains(':') {
            return Err("no PEM block headers are permitted".into());
        }
        blocks += 1;
    }
    if blocks == 0 { Err("must contain at least one CERTIFICATE PEM block".into()) } else { Ok(()) }
}

fn state(object: &Value) -> String {
    let is = |type_: &str| condition(object, type_).is_some();
    let mut state = match (is("Denied"), is("Approved")) {
        (true, _) => "Denied",
        (_, true) => "Approved",
        _ => "Pending",
    }
    .to_string();
    if is("Failed") {
        state.push_str(",Failed");
    }
    if !text(object, "/status/certificate").is_empty() {
        state.push_str(",Issued");
    }
    state
}

fn spec(object: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if text(object, "/spec/request").is_empty() {
        errors.push(FieldError::required("spec.request", ""));
    }
    if list(object, "/spec/usages").is_empty() {
        errors.push(FieldError::required("spec.usages", ""));
    }
    let mut seen = Vec::new();
    for (i, usage) in strings(object, "/spec/usages").enumerate() {
        let field = format!("spec.usages[{i}]");
        if !USAGES.contains(&usage) {
            errors.push(FieldError::not_supported(field, &json!(usage), &USAGES));
        } else if seen.contains(&usage) {
            errors.push(FieldError::duplicate(field, &json!(usage)));
        }
        seen.push(usage);
    }
    let signer = text(object, "/spec/signerName");
    match signer {
        "" => errors.push(FieldError::required("spec.signerName", "")),
        "kubernetes.io/legacy-unknown" => {
            let message = "the legacy signerName is not allowed via this API version";
            errors.push(FieldError::invalid("spec.signerName", &json!(signer), message));
        }
        _ => report(&mut errors, "spec.signerName", &json!(signer), signer_name(signer)),
    }
    if let Some(seconds) = int(object, "/spec/expirationSeconds").filter(|s| *s < MIN_EXPIRATION_SECONDS) {
        let message = "may not specify a duration less than 600 seconds (10 minutes)";
        errors.push(FieldError::invalid("spec.expirationSeconds", &json!(seconds), message));
    }
    errors
}

fn signer_name(name: &str) -> Check {
    let Some((domain, path)) = name.split_once('/').filter(|(_, path)| !path.contains('/')) else {
        return Err("must be a fully qualified domain and path of the form 'example.com/signer-name'".into());
    };
    validate::dns1123_subdomain(domain)?;
    validate::dns1123_subdomain(path)?;
    if domain.contains('.') {
        Ok(())
    } else {
        Err("should be a domain with at least two segments separated by dots".into())
    }
}
