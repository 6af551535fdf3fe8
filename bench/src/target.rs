//! Where requests go: an address, and for TLS the certificates of a kubeconfig.

use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;

use anyhow::{Context, Result};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

/// A server, and how to speak to it.
#[derive(Clone)]
pub struct Target {
    /// Where it listens.
    pub address: SocketAddr,
    /// For HTTPS: the configuration, and the name that the server's certificate must have.
    pub tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
}

impl Target {
    /// A server without TLS.
    pub fn plain(address: SocketAddr) -> Self {
        Self { address, tls: None }
    }

    /// The server of a kubeconfig in JSON that has one cluster and one user, with a client certificate.
    ///
    /// # Errors
    /// Something of that is missing.
    pub fn of_kubeconfig(config: &Value) -> Result<Self> {
        let text = |pointer: &str| {
            config.pointer(pointer).and_then(Value::as_str).with_context(|| format!("the kubeconfig has no {pointer}"))
        };
        let pem = |pointer: &str| Ok::<_, anyhow::Error>(BASE64_STANDARD.decode(text(pointer)?)?);
        let url = text("/clusters/0/cluster/server")?;
        let authority = url.strip_prefix("https://").with_context(|| format!("{url} is not https"))?;
        let authority = authority.trim_end_matches('/');
        let address = authority.to_socket_addrs()?.next().with_context(|| format!("{authority} has no address"))?;
        let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host).trim_matches(['[', ']']);

        let mut roots = RootCertStore::empty();
        for certificate in
            CertificateDer::pem_slice_iter(&pem("/clusters/0/cluster/certificate-authority-data")?).flatten()
        {
            roots.add(certificate)?;
        }
        let chain = pem("/users/0/user/client-certificate-data")?;
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&chain).collect::<Result<_, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(&pem("/users/0/user/client-key-data")?)?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)?;
        Ok(Self { address, tls: Some((Arc::new(tls), ServerName::try_from(host.to_string())?)) })
    }

    /// A request in HTTP/1.1; a body is JSON, a PATCH's a merge patch.
    pub fn request(&self, method: &str, path: &str, body: &str) -> Vec<u8> {
        let mut text = format!("{method} {path} HTTP/1.1\r\nhost: {}\r\nuser-agent: bench/1\r\n", self.address);
        if !body.is_empty() {
            let kind = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
            text += &format!("content-type: {kind}\r\ncontent-length: {}\r\n", body.len());
        }
        (text + "\r\n" + body).into_bytes()
    }
}
