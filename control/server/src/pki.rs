//! The cluster's CA, the server's certificate, and client certificates. All live in `DATA_DIR/pki` (0700, keys 0600);
//! no process that hosts guests may read it.

mod addresses;
mod files;
mod kubeconfig;

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use copepod_api::names::{GROUP_MASTERS, GROUP_NODES, node_user};
use jiff::{Timestamp, ToSpan, tz::TimeZone};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData,
};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

pub use addresses::{advertise_address, host_name, local_addresses};

/// How long the CA is valid.
const CA_DAYS: i32 = 3650;
/// How long server and client certificates are valid. All are made anew at a start when they near their end.
const LEAF_DAYS: i32 = 365;
/// A server certificate with less than this left is made anew.
const RENEW_DAYS: i32 = 90;

/// Why keys or certificates cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum PkiError {
    /// A file cannot be read or written.
    #[error("cannot {action} {path}: {source}")]
    File {
        /// `read`, `write` or `make`.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is not what it should be.
    #[error("{path} {why}; {advice}")]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
        /// What to do.
        advice: &'static str,
    },
    /// A certificate or TLS configuration cannot be made.
    #[error("cannot make {what}: {why}")]
    Make {
        /// Of what.
        what: String,
        /// Why.
        why: String,
    },
}

const RESTORE: &str = "restore the pki directory from a backup, or remove it to make a new CA (all certificates and \
                       kubeconfigs made so far then stop working)";

/// What the server's certificate is good for.
#[derive(Debug, Clone)]
pub struct ServerNames {
    /// The `kubernetes` Service's address.
    pub service_ip: IpAddr,
    /// The zone of service names, such as `cluster.local`.
    pub cluster_domain: String,
    /// Further names and addresses (`--tls-san`).
    pub extra: Vec<String>,
}

impl ServerNames {
    /// Every name and address: these, the loopback's, the host's own, and those of the `kubernetes` Service.
    fn all(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> =
            ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"].map(String::from).into();
        names.insert(format!("kubernetes.default.svc.{}", self.cluster_domain));
        let loopback = [IpAddr::from(Ipv4Addr::LOCALHOST), IpAddr::from(Ipv6Addr::LOCALHOST), self.service_ip];
        names.extend(loopback.iter().chain(&local_addresses()).map(ToString::to_string));
        names.extend(host_name());
        names.extend(self.extra.iter().map(|n| n.trim().to_string()).filter(|n| !n.is_empty()));
        names
    }
}

/// The cluster's CA with its directory.
pub struct Pki {
    dir: PathBuf,
    ca_pem: String,
    ca: Issuer<'static, KeyPair>,
}

impl Pki {
    /// Opens `DATA_DIR/pki`, making the directory and the CA at first start.
    ///
    /// # Errors
    /// A file cannot be read or written, or the CA is incomplete, damaged or expired; the error says which and what to do.
    pub fn open(data_dir: &Path) -> Result<Self, PkiError> {
        let dir = data_dir.join("pki");
        files::make_private_dir(&dir)?;
        let (key_path, cert_path) = (dir.join("ca.key"), dir.join("ca.crt"));
        let (key_pem, ca_pem) = (files::read_secret(&key_path)?, files::read(&cert_path)?);
        let unusable = |path: &Path, why: String| PkiError::Unusable { path: path.into(), why, advice: RESTORE };
        let key = match (&key_pem, &ca_pem) {
            // A key without a certificate is a first start that was cut short.
            (None, None) | (Some(_), None) => {
                let key = KeyPair::generate().map_err(|e| make("the CA's key", e))?;
                files::write(&key_path, key.serialize_pem().as_bytes(), files::SECRET)?;
                key
            }
            (None, Some(_)) => return Err(unusable(&key_path, "is missing although ca.crt is there".into())),
            (Some(pem), Some(_)) => {
                KeyPair::from_pem(pem).map_err(|e| unusable(&key_path, format!("is damaged: {e}")))?
            }
        };
        let ca_pem = match ca_pem {
            Some(pem) => pem,
            None => {
                let pem = make_ca(&key)?;
                files::write(&cert_path, pem.as_bytes(), files::PUBLIC)?;
                pem
            }
        };
        check_ca(&ca_pem, &key).map_err(|why| unusable(&cert_path, why))?;
        let ca =
            Issuer::from_ca_cert_pem(&ca_pem, key).map_err(|e| unusable(&cert_path, format!("is damaged: {e}")))?;
        Ok(Self { dir, ca_pem, ca })
    }

    /// The CA's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }
    /// The file of the CA's certificate.
    pub fn ca_path(&self) -> PathBuf {
        self.dir.join("ca.crt")
    }

    /// A TLS configuration for the API server: its certificate (made anew if names changed or it nears its end), client
    /// certificates of this CA accepted but not required, h2 and http/1.1.
    pub fn server_config(&self, names: &ServerNames) -> Result<Arc<rustls::ServerConfig>, PkiError> {
        let (chain, key) = self.server_certificate(&names.all())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).map_err(|e| make("the list of CAs", e))?;
        roots.add(ca).map_err(|e| make("the list of CAs", e))?;
        let clients = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| make("the verifier of client certificates", e))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| make("the TLS configuration", e))?
            .with_client_cert_verifier(clients)
            .with_single_cert(chain, key)
            .map_err(|e| make("the TLS configuration", e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    /// A client certificate and its key, in PEM: `user` is the common name, `group` the organisation.
    pub fn issue_client(&self, user: &str, group: &str) -> Result<(String, String), PkiError> {
        let what = || format!("a client certificate for {user}");
        let mut params = leaf_params(user, LEAF_DAYS, ExtendedKeyUsagePurpose::ClientAuth);
        params.distinguished_name.push(DnType::OrganizationName, group);
        let key = KeyPair::generate().map_err(|e| make(what(), e))?;
        let cert = params.signed_by(&key, &self.ca).map_err(|e| make(what(), e))?;
        Ok((cert.pem(), key.serialize_pem()))
    }

    /// Writes a kubeconfig (0600) with a fresh admin certificate for the server at this URL.
    pub fn write_admin_kubeconfig(&self, path: &Path, server: &str) -> Result<(), PkiError> {
        self.write_kubeconfig(path, server, "copepod-admin", GROUP_MASTERS)
    }
    /// Writes a kubeconfig (0600) with a fresh certificate of the named node's agent.
    pub fn write_node_kubeconfig(&self, path: &Path, server: &str, node: &str) -> Result<(), PkiError> {
        self.write_kubeconfig(path, server, &node_user(node), GROUP_NODES)
    }

    fn write_kubeconfig(&self, path: &Path, server: &str, user: &str, group: &str) -> Result<(), PkiError> {
        let (cert, key) = self.issue_client(user, group)?;
        let text = kubeconfig::kubeconfig(server, &self.ca_pem, user, &cert, &key);
        files::write(path, text.as_bytes(), files::SECRET)
    }

    /// The server's certificate and key: those of an earlier start if they still do.
    fn server_certificate(
        &self,
        names: &BTreeSet<String>,
    ) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
        let (key_path, cert_path) = (self.dir.join("server.key"), self.dir.join("server.crt"));
        if let (Some(cert), Some(key)) = (files::read(&cert_path)?, files::read_secret(&key_path)?)
            && let Ok(pair) = KeyPair::from_pem(&key)
            && self.still_good(&cert, &pair, names)
        {
            return parse_pair(&cert, &key);
        }
        let what = "the server's certificate";
        let mut params = leaf_params("copepod-apiserver", LEAF_DAYS, ExtendedKeyUsagePurpose::ServerAuth);
        params.subject_alt_names = CertificateParams::new(names.iter().cloned().collect::<Vec<_>>())
            .map_err(|e| make(what, e))?
            .subject_alt_names;
        let key = KeyPair::generate().map_err(|e| make(what, e))?;
        let cert = params.signed_by(&key, &self.ca).map_err(|e| make(what, e))?.pem();
        let key = key.serialize_pem();
        files::write(&key_path, key.as_bytes(), files::SECRET)?;
        files::write(&cert_path, cert.as_bytes(), files::PUBLIC)?;
        parse_pair(&cert, &key)
    }

    /// Whether a certificate is from this CA, for this key, has exactly these names and is not near its end.
    fn still_good(&self, pem: &str, key: &KeyPair, names: &BTreeSet<String>) -> bool {
        let check = || -> Option<bool> {
            let der = CertificateDer::from_pem_slice(pem.as_bytes()).ok()?;
            let ca_der = CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).ok()?;
            let (cert, ca) = (X509Certificate::from_der(&der).ok()?.1, X509Certificate::from_der(&ca_der).ok()?.1);
            Some(
                cert.issuer() == ca.subject()
                    && cert.public_key().raw == key.subject_public_key_info()
                    && days_left(&cert) >= i64::from(RENEW_DAYS)
                    && alternative_names(&cert)? == *names,
            )
        };
        check().unwrap_or(false)
    }
}

fn make(what: impl Into<String>, why: impl ToString) -> PkiError {
    PkiError::Make { what: what.into(), why: why.to_string() }
}

fn parse_pair(cert: &str, key: &str) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>), PkiError> {
    let what = "the server's certificate";
    let chain = CertificateDer::pem_slice_iter(cert.as_bytes()).collect::<Result<_, _>>().map_err(|e| make(what, e))?;
    Ok((chain, PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|e| make(what, e))?))
}

/// Parameters valid from yesterday (clocks differ) for `days`.
fn params(name: &str, days: i32) -> CertificateParams {
    let today = Timestamp::now().to_zoned(TimeZone::UTC).date();
    let at = |offset: i32| {
        let date = today.saturating_add(offset.days());
        rcgen::date_time_ymd(date.year().into(), date.month().unsigned_abs(), date.day().unsigned_abs())
    };
    let mut distinguished_name = DistinguishedName::new();
    distinguished_name.push(DnType::CommonName, name);
    let mut params = CertificateParams::default();
    params.not_before = at(-1);
    params.not_after = at(days);
    params.distinguished_name = distinguished_name;
    params.use_authority_key_identifier_extension = true;
    params
}

fn leaf_params(name: &str, days: i32, usage: ExtendedKeyUsagePurpose) -> CertificateParams {
    let mut params = params(name, days);
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![usage];
    params
}

/// A self-signed CA; its name carries the time, so that no two CAs of one machine are taken for each other.
fn make_ca(key: &KeyPair) -> Result<String, PkiError> {
    let mut params = params(&format!("copepod-ca-{}", Timestamp::now().as_millisecond()), CA_DAYS);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = false;
    Ok(params.self_signed(key).map_err(|e| make("the CA's certificate", e))?.pem())
}

fn check_ca(pem: &str, key: &KeyPair) -> Result<(), String> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|e| format!("is damaged: {e}"))?;
    let (_, cert) = X509Certificate::from_der(&der).map_err(|e| format!("is damaged: {e}"))?;
    if cert.public_key().raw != key.subject_public_key_info() {
        return Err("does not belong to ca.key".into());
    }
    if days_left(&cert) < 0 {
        return Err(format!("expired at {}", cert.validity().not_after));
    }
    Ok(())
}

fn days_left(cert: &X509Certificate<'_>) -> i64 {
    (cert.validity().not_after.timestamp() - Timestamp::now().as_second()).div_euclid(86_400)
}

fn alternative_names(cert: &X509Certificate<'_>) -> Option<BTreeSet<String>> {
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => Some((*name).to_string()),
        GeneralName::IPAddress(bytes) => match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
            _ => <[u8; 16]>::try_from(*bytes).ok().map(|b| IpAddr::from(b).to_string()),
        },
        _ => None,
    };
    cert.subject_alternative_name().ok()??.value.general_names.iter().map(text).collect()
}

#[cfg(test)]
mod tests;
