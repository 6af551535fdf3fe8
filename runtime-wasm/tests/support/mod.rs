//! A pod with real guests of `tests/guests` in it.
#![allow(dead_code, reason = "each test binary uses its part")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use bytes::Bytes;
use copepod_runtime::sockets::{NetLimits, PodNet};
use copepod_runtime::vfs::{Vfs, VfsLimits};
use copepod_runtime::{
    Container, ContainerSpec, Endpoint, Exit, NetError, OutputSink, Program, Runtime, RuntimeConfig, Sandbox,
    SandboxSpec, Uplink,
};
use http_body_util::{BodyExt, Full};
use sha2::{Digest, Sha256};

pub static RUNTIME: LazyLock<(tempfile::TempDir, Arc<Runtime>)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let config = RuntimeConfig { guest_threads: 2, max_instances: 64, ..RuntimeConfig::new(dir.path().join("aot")) };
    let runtime = Runtime::new(config).unwrap();
    (dir, runtime)
});

pub async fn guest(name: &str) -> Arc<Program> {
    let dir = std::env::var_os("COPEPOD_GUESTS").expect("COPEPOD_GUESTS is not set: run `cargo xtask test`");
    let path = PathBuf::from(dir).join(format!("{name}.wasm"));
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    RUNTIME.1.load(&format!("sha256:{hex}"), &path).await.unwrap()
}

/// Collects what a container writes.
#[derive(Default)]
pub struct Collect(parking_lot::Mutex<Vec<u8>>, tokio::sync::Notify);

#[async_trait::async_trait]
impl OutputSink for Collect {
    async fn write(&self, data: Bytes) {
        self.0.lock().extend_from_slice(&data);
        self.1.notify_one();
    }
}

impl Collect {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().clone()).unwrap()
    }

    pub async fn wait_for(&self, word: &str) {
        let wait = async {
            while !self.text().contains(word) {
                self.1.notified().await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), wait).await;
        waited.unwrap_or_else(|_| panic!("no {word:?} in {:?}", self.text()));
    }
}

/// Knows one name, which is the pod itself, and reaches nothing.
pub struct Alone;

#[async_trait::async_trait]
impl Uplink for Alone {
    async fn connect(&self, _from: SocketAddr, _to: SocketAddr) -> Result<Endpoint, NetError> {
        Err(NetError::Unreachable)
    }
    async fn resolve(&self, name: &str) -> Result<Vec<IpAddr>, NetError> {
        if name == "web.shop" { Ok(vec![POD_IP]) } else { Err(NetError::NameUnresolvable) }
    }
    async fn send_datagram(&self, _from: SocketAddr, _to: SocketAddr, _data: Bytes) -> Result<(), NetError> {
        Err(NetError::Unreachable)
    }
}

/// Never answers.
pub struct Silent;

#[async_trait::async_trait]
impl Uplink for Silent {
    async fn connect(&self, _from: SocketAddr, _to: SocketAddr) -> Result<Endpoint, NetError> {
        std::future::pending().await
    }
    async fn resolve(&self, _name: &str) -> Result<Vec<IpAddr>, NetError> {
        std::future::pending().await
    }
    async fn send_datagram(&self, _from: SocketAddr, _to: SocketAddr, _data: Bytes) -> Result<(), NetError> {
        std::future::pending().await
    }
}

pub const POD_IP: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 64, 0, 7));

pub struct Pod {
    pub sandbox: Sandbox,
    pub net: Arc<PodNet>,
    pub vfs: Vfs,
}

pub struct Running {
    pub container: Container,
    pub stdout: Arc<Collect>,
    pub stderr: Arc<Collect>,
}

impl Pod {
    pub fn new() -> Pod {
        Self::made(Arc::new(Alone), NetLimits::default())
    }

    pub fn with(limits: NetLimits) -> Pod {
        Self::made(Arc::new(Alone), limits)
    }

    pub fn below(uplink: Arc<dyn Uplink>) -> Pod {
        Self::made(uplink, NetLimits::default())
    }

    fn made(uplink: Arc<dyn Uplink>, limits: NetLimits) -> Pod {
        let net = PodNet::new(vec![POD_IP], uplink, limits);
        let vfs = Vfs::new(VfsLimits { bytes: 8 << 20, ..VfsLimits::default() });
        vfs.mkdir_all("tmp").unwrap();
        let spec = SandboxSpec { name: "test".into(), hostname: "web-0".into(), net: net.clone(), vfs: vfs.clone() };
        Pod { sandbox: Sandbox::new(&RUNTIME.1, spec), net, vfs }
    }

    pub async fn start(&self, name: &str, args: &[&str], change: impl FnOnce(&mut ContainerSpec)) -> Running {
        let (stdout, stderr) = (Arc::new(Collect::default()), Arc::new(Collect::default()));
        let mut spec = ContainerSpec::new(name, guest(name).await);
        spec.args.extend(args.iter().map(|arg| (*arg).to_owned()));
        spec.stdout = stdout.clone();
        spec.stderr = stderr.clone();
        change(&mut spec);
        Running { container: self.sandbox.start(spec).unwrap(), stdout, stderr }
    }

    pub async fn run(&self, name: &str, args: &[&str]) -> (Exit, String, String) {
        let running = self.start(name, args, |_| {}).await;
        let exit = running.ended().await;
        (exit, running.stdout.text(), running.stderr.text())
    }

    /// One request to the pod's port 80.
    pub async fn get(&self, path: &str) -> (u16, String) {
        self.request(path, "").await
    }

    pub async fn request(&self, path: &str, body: &str) -> (u16, String) {
        let Endpoint::Http(handler) = self.net.connect_endpoint("127.0.0.1:80".parse().unwrap()).await.unwrap() else {
            panic!("port 80 is served by the node")
        };
        let body = Full::new(Bytes::from(body.to_owned())).map_err(|never| match never {}).boxed_unsync();
        let request = http::Request::post(path).header("host", "web").header("x-test", "yes").body(body).unwrap();
        let response = tokio::time::timeout(Duration::from_secs(60), handler.handle(request)).await.unwrap();
        let status = response.status().as_u16();
        match response.into_body().collect().await {
            Ok(body) => (status, String::from_utf8(body.to_bytes().to_vec()).unwrap()),
            Err(error) => (status, format!("broken: {error:#}")),
        }
    }
}

impl Running {
    /// Waits until no instance holds memory.
    pub async fn no_instances(&self) {
        let wait = async {
            while self.container.memory_bytes() > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), wait).await.expect("instances go when their work is done");
    }

    pub async fn ended(&self) -> Exit {
        tokio::time::timeout(Duration::from_secs(60), self.container.wait()).await.expect("it ends")
    }
}
