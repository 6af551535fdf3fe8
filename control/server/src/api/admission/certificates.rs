//! Certificate signing requests carry who made them, and a request that parses.

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use copepod_api::{ApiError, FieldError};
use serde_json::json;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::pem::parse_x509_pem;
use x509_parser::prelude::FromDer;

use super::super::object::{as_map, child_mut};
use super::{Admission, Operation, Review};

/// Writes the requester into new requests, whatever they say.
pub(super) struct Requester;

#[async_trait]
impl Admission for Requester {
    async fn admit(&self, review: &mut Review<'_>) -> Result<(), ApiError> {
        if review.operation != Operation::Create || !review.is("certificates.k8s.io", "certificatesigningrequests") {
            return Ok(());
        }
        let identity = &review.request.identity;
        let spec = child_mut(as_map(review.object), "spec");
        spec.insert("username".into(), identity.user.clone().into());
        spec.insert("groups".into(), json!(identity.groups));
        for unknown in ["uid", "extra"] {
            spec.remove(unknown);
        }
        let request = spec.get("request").cloned().unwrap_or_default();
        check(request.as_str().unwrap_or_default()).map_err(|why| {
            let error = FieldError::invalid("spec.request", &request, &why);
            review.request.invalid(review.name, &[error])
        })
    }
}

/// Whether this is base64 of PEM of a signing request whose signature is its key's.
fn check(request: &str) -> Result<(), String> {
    let wrong_type = || "PEM block type must be CERTIFICATE REQUEST".to_string();
    let pem = STANDARD.decode(request).map_err(|e| e.to_string())?;
    let (_, block) = parse_x509_pem(&pem).map_err(|_| wrong_type())?;
    if block.label != "CERTIFICATE REQUEST" {
        return Err(wrong_type());
    }
    let (_, parsed) = X509CertificationRequest::from_der(&block.contents).map_err(|e| e.to_string())?;
    parsed.verify_signature().map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_must_parse_and_be_signed() {
        let key = rcgen::KeyPair::generate().unwrap();
        let request = rcgen::CertificateParams::new(vec!["a.example".into()]).unwrap().serialize_request(&key).unwrap();
        assert_eq!(check(&STANDARD.encode(request.pem().unwrap())), Ok(()));
        let mut forged = request.der().to_vec();
        *forged.last_mut().unwrap() ^= 1;
        let pem = |label: &str, der: &[u8]| {
            STANDARD.encode(format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(der)))
        };
        assert!(check(&pem("CERTIFICATE REQUEST", &forged)).is_err());
        for wrong in [pem("CERTIFICATE", request.der()), "".into(), STANDARD.encode("x")] {
            assert_eq!(check(&wrong).unwrap_err(), "PEM block type must be CERTIFICATE REQUEST");
        }
        assert!(check("*").is_err() && check(&pem("CERTIFICATE REQUEST", b"x")).is_err());
    }
}
