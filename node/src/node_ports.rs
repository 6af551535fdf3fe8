//! Listeners on the host for Services of type NodePort and LoadBalancer.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use copepod_runtime::network::{Endpoint, HttpBody, HttpHandler};
use http_body_util::BodyExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::fabric::Fabric;
use crate::service_table::{NodePort, Protocol};

/// Connections that all node ports of a node carry at once; more wait to be accepted.
pub const MAX_CONNECTIONS: usize = 8192;
/// The first delay before a taken port is tried again; doubles up to [`RETRY_MAX`].
pub const RETRY_INITIAL: Duration = Duration::from_secs(1);
/// The longest delay before a taken port is tried again.
pub const RETRY_MAX: Duration = Duration::from_secs(60);

/// Called when a port cannot be listened on, with what to tell the user.
pub type PortTaken = Arc<dyn Fn(&NodePort, &str) + Send + Sync>;

/// The node's listeners.
pub struct NodePorts {
    fabric: Arc<Fabric>,
    address: IpAddr,
    taken: PortTaken,
    connections: Arc<Semaphore>,
    open: HashMap<NodePort, CancellationToken>,
}

impl NodePorts {
    /// Listens on `address` (`0.0.0.0` for all) once [`NodePorts::apply`] says on which ports.
    pub fn new(fabric: Arc<Fabric>, address: IpAddr, taken: PortTaken) -> Self {
        let connections = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        Self { fabric, address, taken, connections, open: HashMap::new() }
    }

    /// Opens and closes listeners so that exactly these are open. UDP ports are left out. Connections of a closed
    /// listener run to their end.
    pub fn apply(&mut self, wanted: &[NodePort]) {
        self.open.retain(|port, token| {
            let keep = wanted.contains(port);
            if !keep {
                token.cancel();
            }
            keep
        });
        for port in wanted.iter().filter(|p| p.protocol == Protocol::Tcp) {
            if !self.open.contains_key(port) {
                let token = CancellationToken::new();
                self.open.insert(port.clone(), token.clone());
                let at = SocketAddr::new(self.address, port.node_port);
                let serving =
                    listen(self.fabric.clone(), port.clone(), at, self.taken.clone(), self.connections.clone());
                tokio::spawn(async move { token.run_until_cancelled(serving).await });
            }
        }
    }
}

impl Drop for NodePorts {
    fn drop(&mut self) {
        self.open.values().for_each(CancellationToken::cancel);
    }
}

async fn listen(fabric: Arc<Fabric>, port: NodePort, at: SocketAddr, taken: PortTaken, connections: Arc<Semaphore>) {
    let mut delay = RETRY_INITIAL;
    let listener = loop {
        match TcpListener::bind(at).await {
            Ok(listener) => break listener,
            Err(error) => {
                taken(&port, &format!("cannot listen on node port {at}: {error}"));
                tokio::time::sleep(delay).await;
                delay = (delay * 2).min(RETRY_MAX);
            }
        }
    };
    loop {
        let Ok(permit) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let (fabric, number) = (fabric.clone(), port.node_port);
                tokio::spawn(async move {
                    let _ = stream.set_nodelay(true);
                    serve(&fabric, number, stream, peer).await;
                    drop(permit);
                });
            }
            // Out of descriptors, or the client left: neither ends the listener.
            Err(error) => {
                tracing::debug!(%at, "accept: {error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

async fn serve(fabric: &Arc<Fabric>, node_port: u16, mut stream: TcpStream, peer: SocketAddr) {
    match fabric.connect_node_port(peer, node_port).await {
        Ok(Endpoint::Stream(mut pod)) => {
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut pod).await;
        }
        Ok(Endpoint::Http(first)) => serve_http(fabric, node_port, first, stream, peer).await,
        Err(error) => tracing::debug!(node_port, %peer, "no endpoint: {error}"),
    }
}

/// Serves a connection whose Service is backed by HTTP components. Each request finds its own endpoint, so that a
/// kept-alive connection neither clings to one pod nor outlives it.
async fn serve_http(
    fabric: &Arc<Fabric>,
    node_port: u16,
    first: Arc<dyn HttpHandler>,
    stream: TcpStream,
    peer: SocketAddr,
) {
    let (fabric, first) = (fabric.clone(), parking_lot::Mutex::new(Some(first)));
    let answer = move |request| {
        let (fabric, first) = (fabric.clone(), first.lock().take());
        async move {
            let endpoint = match first {
                Some(handler) => Ok(Endpoint::Http(handler)),
                None => fabric.connect_node_port(peer, node_port).await,
            };
            match endpoint {
                Ok(Endpoint::Http(handler)) => handler.handle(request).await,
                Ok(Endpoint::Stream(_)) => unavailable("the service's pods have changed: connect again"),
                Err(error) => unavailable(&error.to_string()),
            }
        }
    };
    if let Err(error) = copepod_runtime::serve_with(Box::new(stream), answer).await {
        tracing::debug!("connection on a node port: {error}");
    }
}

/// 503, and the connection is closed so that the next one starts afresh.
fn unavailable(why: &str) -> http::Response<HttpBody> {
    let body = http_body_util::Full::new(Bytes::from(format!("{why}\n"))).map_err(|never| match never {});
    let mut response = http::Response::new(HttpBody::new(body));
    *response.status_mut() = http::StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(http::header::CONNECTION, http::HeaderValue::from_static("close"));
    response
}

/// An HTTP body without bytes.
pub fn empty_body() -> HttpBody {
    HttpBody::new(http_body_util::Empty::<Bytes>::new().map_err(|never| match never {}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fabric::FabricConfig;
    use crate::service_table::{Locality, ServiceTable};
    use crate::sim::SimSandbox;
    use serde_json::json;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::mpsc;

    fn fabric(node_port: u16, sandbox: Arc<SimSandbox>) -> Arc<Fabric> {
        let fabric =
            Fabric::new(FabricConfig { api_server: ("127.0.0.1".into(), 1), node_ips: vec![], virtual_ranges: vec![] });
        fabric.attach("u", &["10.64.0.2".parse().unwrap()], sandbox);
        let service = serde_json::from_value(json!({"metadata": {"name": "s", "namespace": "n"},
            "spec": {"clusterIP": "10.43.0.9", "ports": [{"port": 80, "nodePort": node_port}]}}))
        .unwrap();
        let slice = serde_json::from_value(json!({
            "metadata": {"name": "s-1", "namespace": "n", "labels": {"kubernetes.io/service-name": "s"}},
            "addressType": "IPv4", "ports": [{"port": 8080}], "endpoints": [{"addresses": ["10.64.0.2"]}]}))
        .unwrap();
        fabric.set_services(Arc::new(ServiceTable::build(
            &Locality::default(),
            [&service],
            [&slice],
            &ServiceTable::default(),
        )));
        fabric
    }
    async fn free_port() -> u16 {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().port()
    }
    async fn connect(port: u16) -> TcpStream {
        loop {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", port)).await {
                return stream;
            }
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn carries_streams_and_http_and_closes() {
        let port = free_port().await;
        let fabric = fabric(port, SimSandbox::echoing(8080, "echo "));
        let mut ports = NodePorts::new(fabric.clone(), "127.0.0.1".parse().unwrap(), Arc::new(|_, _| {}));
        ports.apply(&fabric.services().node_ports());
        let mut stream = connect(port).await;
        stream.write_all(b"hi").await.unwrap();
        stream.shutdown().await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "echo hi");

        fabric.attach("u", &["10.64.0.2".parse().unwrap()], SimSandbox::http(8080, 200, "over http"));
        let mut stream = connect(port).await;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert!(text.starts_with("HTTP/1.1 200") && text.ends_with("over http"), "{text}");

        ports.apply(&[]);
        while TcpStream::connect(("127.0.0.1", port)).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_reported_and_tried_again() {
        let holder = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = holder.local_addr().unwrap().port();
        let fabric = fabric(port, SimSandbox::echoing(8080, ""));
        let (tell, mut told) = mpsc::unbounded_channel();
        let taken: PortTaken = Arc::new(move |_, message| drop(tell.send(message.to_string())));
        let mut ports = NodePorts::new(fabric.clone(), "127.0.0.1".parse().unwrap(), taken);
        ports.apply(&fabric.services().node_ports());
        let message = told.recv().await.unwrap();
        assert!(message.contains(&format!("127.0.0.1:{port}")), "{message}");
        assert!(told.recv().await.is_some(), "tried again");
        drop(holder);
        connect(port).await;
    }
}
