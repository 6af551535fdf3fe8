//! TLS of guests' requests: whom a container trusts, and handshakes.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::Error;

use super::error::of_io;
use crate::network::ByteStream;
use crate::stdio::OutputSink;
use crate::vfs::Mounts;

/// The variable of a container's environment that names a file of its own, with certificates (PEM) of authorities that
/// it trusts beside the public ones.
pub const CA_FILE: &str = "SSL_CERT_FILE";
/// Most bytes of that file.
pub const MAX_CA_FILE: usize = 1 << 20;
/// Sessions that a container resumes.
const SESSIONS: usize = 64;

/// A container's side of TLS. It trusts the authorities that browsers do (the webpki-roots package) and those that the
/// container names: none of the node's, none of the cluster's.
pub(crate) struct Tls {
    ca_file: Option<String>,
    files: Arc<Mounts>,
    stderr: Arc<dyn OutputSink>,
    /// What the file held and what was made of it. Nothing before the first request that needs it.
    made: Mutex<Option<(Bytes, Arc<ClientConfig>)>>,
}

impl Tls {
    pub(crate) fn new(env: &[(String, String)], files: Arc<Mounts>, stderr: Arc<dyn OutputSink>) -> Arc<Tls> {
        let ca_file = env.iter().rfind(|(name, path)| name == CA_FILE && !path.is_empty());
        Arc::new(Tls { ca_file: ca_file.map(|(_, path)| path.clone()), files, stderr, made: Mutex::default() })
    }

    /// Speaks TLS with `host` over `stream`; true if the other side chose HTTP/2.
    pub(super) async fn connect(&self, host: &str, stream: ByteStream) -> Result<(ByteStream, bool), Error> {
        let host = host.strip_suffix('.').unwrap_or(host).to_owned();
        let name = ServerName::try_from(host).map_err(|_| Error::HttpRequestUriInvalid)?;
        let connector = TlsConnector::from(self.config().await?);
        let stream = connector.connect(name, stream).await.map_err(|error| of_io(&error))?;
        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok((Box::new(stream), is_http2))
    }

    /// As the file is now: it may be a Secret's or ConfigMap's, which change.
    async fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        let bundle = match &self.ca_file {
            None => Ok(Bytes::new()),
            Some(path) => {
                let (files, path) = (self.files.clone(), path.clone());
                // A directory of the machine may be mounted there.
                let read = tokio::task::spawn_blocking(move || files.read_file_up_to(&path, MAX_CA_FILE)).await;
                read.map_err(|error| error.to_string()).and_then(|read| read.map_err(|error| error.to_string()))
            }
        };
        match bundle.and_then(|bundle| self.make(bundle)) {
            Ok(config) => Ok(config),
            Err(reason) => {
                let path = self.ca_file.as_deref().unwrap_or_default();
                let text = format!("copepod: https is not possible: {CA_FILE} {path}: {reason}\n");
                self.stderr.write(Bytes::from(text)).await;
                Err(Error::ConfigurationError)
            }
        }
    }

    fn make(&self, bundle: Bytes) -> Result<Arc<ClientConfig>, String> {
        let mut made = self.made.lock();
        if let Some((from, config)) = &*made
            && *from == bundle
        {
            return Ok(config.clone());
        }
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if self.ca_file.is_some() {
            let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bundle).collect();
            let certificates = certificates.map_err(|error| format!("not PEM: {error}"))?;
            if roots.add_parsable_certificates(certificates).0 == 0 {
                return Err("there is no certificate in it".into());
            }
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config.map_err(|error| error.to_string())?.with_root_certificates(roots).with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.resumption = rustls::client::Resumption::in_memory_sessions(SESSIONS);
        let config = Arc::new(config);
        *made = Some((bundle, config.clone()));
        Ok(config)
    }
}
