//! Guests' requests over TLS: whom they trust, and the errors they get.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use copepod_runtime::{ByteStream, CA_FILE, ContainerSpec};
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use support::Pod;
use tokio::io::AsyncReadExt;

/// An authority of the test's own.
struct Authority {
    pem: String,
    der: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = params.self_signed(&key).unwrap();
        let (pem, der) = (certificate.pem(), certificate.der().clone());
        Authority { pem, der, issuer: Issuer::new(params, key) }
    }

    /// A server's configuration for these names.
    fn server(&self, names: &[&str], alpn: &[&str], wants_client: bool) -> Arc<ServerConfig> {
        let key = KeyPair::generate().unwrap();
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = CertificateParams::new(names).unwrap().signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions();
        let config = if wants_client {
            let mut roots = RootCertStore::empty();
            roots.add(self.der.clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
            config.unwrap().with_client_cert_verifier(verifier)
        } else {
            config.unwrap().with_no_client_auth()
        };
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let mut config = config.with_single_cert(vec![certificate.der().clone()], key).unwrap();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// Serves HTTPS in the pod; tells the version and the name that the client asked for.
fn serve(pod: &Pod, config: Arc<ServerConfig>) -> u16 {
    let acceptor = tokio_rustls::TlsAcceptor::from(config);
    listen(pod, move |stream| {
        let acceptor = acceptor.clone();
        async move {
            let Ok(stream) = acceptor.accept(stream).await else { return };
            let name = stream.get_ref().1.server_name().unwrap_or("nobody").to_owned();
            let answer = hyper::service::service_fn(move |request: Request<Incoming>| {
                let text = format!("{:?} for {name} of {:?}", request.version(), request.uri().path());
                async move { Ok::<_, std::convert::Infallible>(Response::new(Full::new(bytes::Bytes::from(text)))) }
            });
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            let _ = server.serve_connection(TokioIo::new(stream), answer).await;
        }
    })
}

fn listen<F, A>(pod: &Pod, each: F) -> u16
where
    F: Fn(ByteStream) -> A + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let mut listener = pod.net.listen("0.0.0.0:0".parse().unwrap(), 16).unwrap();
    let port = listener.local_addr().port();
    tokio::spawn(async move {
        while let Ok(accepted) = listener.accept().await {
            tokio::spawn(each(accepted.stream));
        }
    });
    port
}

fn trusting(path: &str) -> impl FnOnce(&mut ContainerSpec) {
    let variable = (CA_FILE.to_owned(), path.to_owned());
    move |spec| spec.env.push(variable)
}

async fn fetch(pod: &Pod, url: &str) -> (u16, String) {
    let path = format!("/fetch?{url}");
    let fetched = pod.get(&path);
    tokio::time::timeout(Duration::from_secs(30), fetched).await.expect("it does not hang")
}

#[tokio::test]
async fn authorities_of_the_pods_own_are_trusted() {
    let pod = Pod::new();
    let authority = Authority::new();
    pod.vfs.write_file("etc/ca.pem", format!("a comment\n{}", authority.pem).as_bytes()).unwrap();
    let web = pod.start("web", &[], trusting("/etc/ca.pem")).await;
    for (alpn, version) in [(&["h2", "http/1.1"][..], "HTTP/2.0"), (&["http/1.1"], "HTTP/1.1"), (&[], "HTTP/1.1")] {
        let port = serve(&pod, authority.server(&["web.shop"], alpn, false));
        let expected = (200, format!(r#"{version} for web.shop of "/x""#));
        assert_eq!(fetch(&pod, &format!("https://web.shop:{port}/x")).await, expected);
    }
    let port = serve(&pod, authority.server(&["127.0.0.1"], &[], false));
    let expected = (200, r#"HTTP/1.1 for nobody of "/""#.into());
    assert_eq!(fetch(&pod, &format!("https://127.0.0.1:{port}/")).await, expected);

    // The file is read again: authorities are rolled over without a restart.
    let next = Authority::new();
    let port = serve(&pod, next.server(&["web.shop"], &[], false));
    let url = format!("https://web.shop:{port}/");
    assert!(fetch(&pod, &url).await.1.contains("TlsCertificateError"));
    pod.vfs.write_file("etc/ca.pem", format!("{}{}", authority.pem, next.pem).as_bytes()).unwrap();
    assert_eq!(fetch(&pod, &url).await.0, 200);
    assert_eq!(web.stderr.text(), "");
}

#[tokio::test]
async fn nothing_else_is_trusted_and_errors_have_names() {
    let pod = Pod::new();
    let authority = Authority::new();
    pod.vfs.write_file("etc/ca.pem", authority.pem.as_bytes()).unwrap();
    let good = serve(&pod, authority.server(&["web.shop"], &[], false));
    {
        let web = pod.start("web", &[], |_| {}).await;
        let (status, error) = fetch(&pod, &format!("https://web.shop:{good}/")).await;
        assert_eq!((status, error.contains("TlsCertificateError")), (502, true), "not by default: {error}");
        web.container.kill();
        web.ended().await;
    }
    let _web = pod.start("web", &[], trusting("/etc/ca.pem")).await;
    let wrong_name = serve(&pod, authority.server(&["other.shop"], &[], false));
    let stranger = serve(&pod, Authority::new().server(&["web.shop"], &[], false));
    let wants_client = serve(&pod, authority.server(&["web.shop"], &[], true));
    // Whether the alert comes before, with or after the request is a matter of luck.
    for _ in 0..20 {
        let (_, error) = fetch(&pod, &format!("https://web.shop:{wants_client}/")).await;
        assert!(error.contains("alert-id: Some(116)"), "{error}");
    }
    let closes = listen(&pod, |mut stream| async move { drop(stream.read(&mut [0; 4096]).await) });
    for (port, expected) in [
        (wrong_name, "TlsCertificateError"),
        (stranger, "TlsCertificateError"),
        (wants_client, "TlsAlertReceived(TlsAlertReceivedPayload { alert-id: Some(116)"),
        (80, "TlsProtocolError"),
        (closes, "ConnectionTerminated"),
        (1, "ConnectionRefused"),
    ] {
        let (status, error) = fetch(&pod, &format!("https://web.shop:{port}/")).await;
        assert_eq!(status, 502, "{error}");
        assert!(error.contains(expected), "{expected}: {error}");
    }
}

#[tokio::test]
async fn a_bad_file_of_authorities_is_told() {
    let pod = Pod::new();
    pod.vfs.write_file("etc/empty", b"no certificate here\n").unwrap();
    pod.vfs.write_file("etc/long", &vec![b'\n'; (1 << 20) + 1]).unwrap();
    let port = serve(&pod, Authority::new().server(&["web.shop"], &[], false));
    for (path, reason) in [
        ("/etc/none", "no such file or directory"),
        ("/etc/empty", "there is no certificate in it"),
        ("/etc/long", "file too large"),
        ("/../../../etc/hostname", "no such file or directory"),
    ] {
        let web = pod.start("web", &[], trusting(path)).await;
        let (_, error) = fetch(&pod, &format!("https://web.shop:{port}/")).await;
        assert!(error.contains("ConfigurationError"), "{error}");
        web.stderr.wait_for(&format!("copepod: https is not possible: {CA_FILE} {path}: {reason}\n")).await;
        assert_eq!(pod.get("/fetch?http://web.shop/hello").await.0, 200, "http is not affected");
        web.container.kill();
        web.ended().await;
    }
}
