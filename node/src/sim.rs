//! A scripted runtime for tests: containers end when the test says so, and pods listen as told.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use copepod_runtime::HttpLimits;
use copepod_runtime::compile::Progress;
use copepod_runtime::network::{Endpoint, HttpBody, HttpHandler, NetError};
use http_body_util::BodyExt;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};

use crate::runtime::{
    Capacity, ContainerExit, ContainerSpec, ExecSpec, FileSet, Output, Piece, PodRuntime, PodSandbox, RunningContainer,
    RuntimeError, SandboxSpec, Stream, Usage,
};

/// Hosts scripted pods.
#[derive(Default)]
pub struct SimRuntime {
    /// Why starting fails, by digest.
    pub bad_images: Arc<Mutex<HashMap<String, String>>>,
    /// No more instances fit.
    pub full: Arc<AtomicBool>,
    /// Sandboxes by pod UID, also stopped ones.
    pub sandboxes: Mutex<HashMap<String, Arc<SimSandbox>>>,
}

impl SimRuntime {
    /// A pod's newest sandbox.
    pub fn sandbox_of(&self, uid: &str) -> Option<Arc<SimSandbox>> {
        self.sandboxes.lock().get(uid).cloned()
    }
}

#[async_trait]
impl PodRuntime for SimRuntime {
    async fn sandbox(&self, spec: SandboxSpec) -> Result<Arc<dyn PodSandbox>, RuntimeError> {
        let sandbox = Arc::new(SimSandbox {
            spec: Mutex::new(Some(spec.clone())),
            bad_images: self.bad_images.clone(),
            full: self.full.clone(),
            ..SimSandbox::default()
        });
        self.sandboxes.lock().insert(spec.id, sandbox.clone());
        Ok(sandbox)
    }
    fn capacity(&self) -> Capacity {
        Capacity { instances: 110, why: "scripted".into() }
    }
}

enum Listener {
    Echo(String),
    Http(Arc<dyn HttpHandler>),
}

/// A scripted pod.
#[derive(Default)]
pub struct SimSandbox {
    /// How it was made.
    pub spec: Mutex<Option<SandboxSpec>>,
    /// Every instance started, in order.
    pub started: Mutex<Vec<Arc<SimContainer>>>,
    /// Files given later, by volume.
    pub replaced: Mutex<HashMap<String, FileSet>>,
    /// It was stopped.
    pub stopped: Mutex<bool>,
    bad_images: Arc<Mutex<HashMap<String, String>>>,
    full: Arc<AtomicBool>,
    listeners: Mutex<HashMap<u16, Listener>>,
    peer: Mutex<Option<SocketAddr>>,
}

impl SimSandbox {
    /// A pod that answers each stream with a prefix and what it was sent.
    pub fn echoing(port: u16, prefix: &str) -> Arc<Self> {
        let s = Self::default();
        s.listeners.lock().insert(port, Listener::Echo(prefix.into()));
        Arc::new(s)
    }
    /// A pod that answers every request alike.
    pub fn http(port: u16, status: u16, body: &'static str) -> Arc<Self> {
        let s = Arc::new(Self::default());
        s.answer_http(port, status, body);
        s
    }
    /// From now on every request is answered like this.
    pub fn answer_http(&self, port: u16, status: u16, body: &'static str) {
        self.listeners.lock().insert(port, Listener::Http(Arc::new(Always(status, body))));
    }
    /// Who connected last.
    pub fn last_peer(&self) -> Option<SocketAddr> {
        *self.peer.lock()
    }
    /// The newest instance of a container.
    pub fn newest(&self, container: &str) -> Option<Arc<SimContainer>> {
        self.started.lock().iter().rev().find(|c| c.spec.name == container).cloned()
    }
    /// How many instances of a container were started.
    pub fn count(&self, container: &str) -> usize {
        self.started.lock().iter().filter(|c| c.spec.name == container).count()
    }
}

struct Always(u16, &'static str);

#[async_trait]
impl HttpHandler for Always {
    async fn handle(&self, _request: http::Request<HttpBody>) -> http::Response<HttpBody> {
        let body = http_body_util::Full::new(Bytes::from_static(self.1.as_bytes())).map_err(|never| match never {});
        let mut response = http::Response::new(HttpBody::new(body));
        *response.status_mut() = http::StatusCode::from_u16(self.0).unwrap();
        response
    }
}

#[async_trait]
impl PodSandbox for SimSandbox {
    async fn start(&self, spec: ContainerSpec) -> Result<Arc<dyn RunningContainer>, RuntimeError> {
        if let Some(why) = self.bad_images.lock().get(&spec.digest) {
            return Err(RuntimeError::InvalidImage(why.clone()));
        }
        if self.full.load(Ordering::Relaxed) {
            return Err(RuntimeError::Exhausted("node is at capacity: 110 guest instances are alive".into()));
        }
        (spec.compiling)(Progress::Compiling);
        (spec.compiling)(Progress::Compiled(Duration::from_millis(1500)));
        let container = SimContainer::with(spec);
        self.started.lock().push(container.clone());
        Ok(container)
    }
    async fn accept(&self, from: SocketAddr, port: u16) -> Result<Endpoint, NetError> {
        *self.peer.lock() = Some(from);
        match self.listeners.lock().get(&port) {
            None => Err(NetError::ConnectionRefused),
            Some(Listener::Http(handler)) => Ok(Endpoint::Http(handler.clone())),
            Some(Listener::Echo(prefix)) => {
                let (near, mut far) = tokio::io::duplex(1 << 16);
                let prefix = prefix.clone();
                tokio::spawn(async move {
                    let mut all = prefix.into_bytes();
                    far.read_to_end(&mut all).await.unwrap();
                    let _ = far.write_all(&all).await;
                });
                Ok(Endpoint::Stream(Box::new(near)))
            }
        }
    }
    async fn datagram(&self, _from: SocketAddr, _port: u16, _data: Bytes) -> Result<(), NetError> {
        Err(NetError::ConnectionRefused)
    }
    fn replace_files(&self, volume: &str, files: FileSet) {
        self.replaced.lock().insert(volume.into(), files);
    }
    async fn stop(&self) {
        *self.stopped.lock() = true;
    }
}

/// A scripted instance.
pub struct SimContainer {
    /// How it was started.
    pub spec: ContainerSpec,
    exit: watch::Sender<Option<ContainerExit>>,
    /// The grace period with which it was killed.
    pub grace: Mutex<Option<Duration>>,
}

impl SimContainer {
    /// A running instance of no pod.
    pub fn new() -> Arc<Self> {
        struct Nowhere;
        impl Output for Nowhere {
            fn write(&self, _stream: Stream, _data: &[u8]) {}
        }
        Self::with(ContainerSpec {
            name: String::new(),
            digest: String::new(),
            artifact: PathBuf::new(),
            args: Vec::new(),
            env: Vec::new(),
            working_dir: None,
            mounts: Vec::new(),
            ports: Vec::new(),
            memory_limit: None,
            cpu_limit_milli: None,
            cpu_request_milli: 0,
            stdin: false,
            stdin_once: false,
            tty: false,
            http: HttpLimits::default(),
            output: Arc::new(Nowhere),
            compiling: Arc::new(|_| {}),
        })
    }
    fn with(spec: ContainerSpec) -> Arc<Self> {
        Arc::new(Self { spec, exit: watch::channel(None).0, grace: Mutex::default() })
    }
    /// Ends it.
    pub fn exit(&self, code: i32, message: &str) {
        let reason = if code == 0 { "Completed" } else { "Error" };
        self.exit.send_replace(Some(ContainerExit { code, reason, message: message.into() }));
    }
}

#[async_trait]
impl RunningContainer for SimContainer {
    async fn wait(&self) -> ContainerExit {
        let mut exit = self.exit.subscribe();
        let ended = exit.wait_for(Option::is_some).await.unwrap();
        ended.clone().unwrap()
    }
    fn kill(&self, grace: Duration) {
        *self.grace.lock() = Some(grace);
        self.exit(137, "");
    }
    fn usage(&self) -> Usage {
        Usage::default()
    }
    /// A process that prints its arguments and what it reads, and ends with the code in its last argument.
    fn exec(&self, spec: ExecSpec) -> Result<Arc<dyn RunningContainer>, RuntimeError> {
        let name = spec.args.first().cloned().unwrap_or_default();
        if name == "missing" {
            return Err(RuntimeError::Failed("the component serves HTTP requests and has no command to run".into()));
        }
        let process =
            Arc::new(SimContainer { spec: self.spec.clone(), exit: watch::channel(None).0, grace: Mutex::default() });
        let ended = process.clone();
        tokio::spawn(async move {
            let mut text = spec.args.join(" ").into_bytes();
            if let Some(mut stdin) = spec.stdin {
                text.push(b':');
                stdin.read_to_end(&mut text).await.unwrap();
            }
            let _ = spec.output.send((Stream::Stdout, text.into())).await;
            let _ = spec.output.send((Stream::Stderr, Bytes::from_static(b"done"))).await;
            ended.exit(spec.args.last().and_then(|a| a.parse().ok()).unwrap_or(0), "");
        });
        Ok(process)
    }
    fn attach(&self, output: mpsc::Sender<Piece>, _stdin: bool) -> Option<mpsc::Sender<Bytes>> {
        let (to, mut from) = mpsc::channel(1);
        tokio::spawn(async move {
            while let Some(data) = from.recv().await {
                let _ = output.send((Stream::Stdout, data)).await;
            }
        });
        Some(to)
    }
}
