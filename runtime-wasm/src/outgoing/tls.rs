//! TLS of guests' requests: whom a container trusts, and handshakes.

mod told;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::sync::Mutex;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::Error;

use self::told::Told;
use super::error::of_io;
use crate::network::ByteStream;
use crate::stdio::OutputSink;
use crate::vfs::Mounts;

/// The variable of a container's environment that names a file of its own, with certificates (PEM) of authorities that
/// it trusts beside the public ones.
pub const CA_FILE: &str = "SSL_CERT_FILE";
/// Most bytes of that file.
pub const MAX_CA_FILE: usize = 1 << 20;
/// How often a file that changes is made something of: a megabyte of certificates is work.
const PAUSE: Duration = Duration::from_secs(1);
/// Sessions that a container resumes.
const SESSIONS: usize = 64;

/// A container's side of TLS. It trusts the authorities that browsers do (the webpki-roots package) and those that the
/// container names: none of the node's, none of the cluster's.
pub(crate) struct Tls {
    ca_file: Option<String>,
    files: Arc<Mounts>,
    stderr: Arc<dyn OutputSink>,
    /// Nothing before the first request that needs it. Locked while the file is read.
    made: Mutex<Option<Made>>,
}

type Config = Result<Arc<ClientConfig>, String>;

/// What the file held and what was made of it.
struct Made {
    at: Instant,
    bundle: Bytes,
    config: Config,
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
        Ok((Box::new(Told(stream)), is_http2))
    }

    /// As the file is now: it may be a Secret's or ConfigMap's, which change.
    async fn config(&self) -> Result<Arc<ClientConfig>, Error> {
        match self.make().await {
            Ok(config) => Ok(config),
            Err(reason) => {
                let path = self.ca_file.as_deref().unwrap_or_default();
                let text = format!("copepod: https is not possible: {CA_FILE} {path}: {reason}\n");
                self.stderr.write(Bytes::from(text)).await;
                Err(Error::ConfigurationError)
            }
        }
    }

    /// One request at a time, so that there is one such file in memory.
    async fn make(&self) -> Config {
        let mut made = self.made.lock().await;
        let bundle = match self.ca_file.clone() {
            None => None,
            Some(path) => {
                let files = self.files.clone();
                // A directory of the machine may be mounted there.
                let read = move || files.read_file_up_to(&path, MAX_CA_FILE).map_err(|error| error.to_string());
                Some(blocking(read).await?)
            }
        };
        if let Some(made) = &*made {
            if made.bundle == bundle.as_deref().unwrap_or_default() {
                return made.config.clone();
            }
            tokio::time::sleep_until(made.at + PAUSE).await;
        }
        let from = bundle.clone();
        let config = blocking(move || parse(from.as_deref())).await;
        *made = Some(Made { at: Instant::now(), bundle: bundle.unwrap_or_default(), config: config.clone() });
        config
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, String> + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string()).and_then(|done| done)
}

/// Trusts the authorities that everyone does, and those in `bundle`.
fn parse(bundle: Option<&[u8]>) -> Config {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(bundle) = bundle {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(bundle).collect();
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
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stdio::Discard;
    use crate::vfs::Vfs;

    #[tokio::test(start_paused = true)]
    async fn a_file_that_changes_is_parsed_once_in_a_while() {
        let vfs = Vfs::new(Default::default());
        let env = [(CA_FILE.to_owned(), "/ca.pem".to_owned())];
        let tls = Tls::new(&env, Arc::new(Mounts::new(vfs.root())), Arc::new(Discard));
        let pem = |name: &str| rcgen::generate_simple_self_signed([name.to_owned()]).unwrap().cert.pem();
        let mut last: Option<Arc<ClientConfig>> = None;
        for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
            vfs.write_file("ca.pem", pem(name).as_bytes()).unwrap();
            let started = Instant::now();
            let (one, other) = tokio::join!(tls.make(), tls.make());
            let config = one.unwrap();
            assert!(Arc::ptr_eq(&config, &other.unwrap()), "made once");
            assert!(last.is_none_or(|last| !Arc::ptr_eq(&last, &config)), "made of the new file");
            assert_eq!(started.elapsed() >= PAUSE / 2, at > 0, "{name} after {:?}", started.elapsed());
            last = Some(config);
        }
        // What is no certificate is not parsed again either.
        vfs.write_file("ca.pem", b"none").unwrap();
        for _ in 0..2 {
            assert_eq!(tls.make().await.err().as_deref(), Some("there is no certificate in it"));
        }
    }
}
