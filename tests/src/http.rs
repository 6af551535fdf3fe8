//! A plain HTTP/1.1 client.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// One request on a connection of its own: the status code and the body, or why there is none.
pub fn call(authority: &str, method: &str, path: &str, body: &str) -> Result<(u16, String), String> {
    let mut stream = TcpStream::connect(authority).map_err(|e| format!("connect {authority}: {e}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(30))).map_err(|e| e.to_string())?;
    let head = format!("{method} {path} HTTP/1.0\r\nhost: {authority}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(head.as_bytes()).map_err(|e| format!("write: {e}"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|e| format!("read: {e}"))?;
    let code =
        answer.split_whitespace().nth(1).and_then(|c| c.parse().ok()).ok_or(format!("no status in {answer:?}"))?;
    let body = answer.split_once("\r\n\r\n").map(|(_, b)| b.to_string()).unwrap_or_default();
    Ok((code, body))
}

/// `GET`.
pub fn get(authority: &str, path: &str) -> Result<(u16, String), String> {
    call(authority, "GET", path, "")
}

/// `GET` over TLS without any credentials, trusting the cluster's CA; the whole answer.
pub fn get_tls(cluster: &crate::Cluster, path: &str) -> String {
    use rustls::pki_types::pem::PemObject;
    let ca = rustls::pki_types::CertificateDer::from_pem_file(cluster.data_dir.join("pki/ca.crt")).expect("CA");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(ca).expect("CA");
    let provider = std::sync::Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("TLS")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let authority = cluster.url.trim_start_matches("https://");
    let host = authority.rsplit_once(':').expect("port").0.to_string();
    let name = rustls::pki_types::ServerName::try_from(host).expect("host");
    let mut tls = rustls::ClientConnection::new(std::sync::Arc::new(config), name).expect("TLS");
    let mut stream = TcpStream::connect(authority).expect("connect");
    let mut stream = rustls::Stream::new(&mut tls, &mut stream);
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n").expect("write");
    let mut answer = Vec::new();
    // A server may close without a TLS farewell.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}
