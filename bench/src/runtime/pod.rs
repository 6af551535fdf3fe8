//! Copepod's side: real sandboxes, each with a network and files of its own.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use copepod_runtime::sockets::{NetLimits, PodNet};
use copepod_runtime::vfs::{Vfs, VfsLimits};
use copepod_runtime::{
    Container, ContainerSpec, Endpoint, HttpHandler, NetError, OutputSink, Program, Runtime, RuntimeConfig, Sandbox,
    SandboxSpec, Uplink,
};
use http_body_util::{BodyExt, Empty};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// The address of every pod here.
pub const POD: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 64, 0, 7));

/// A runtime of so many instances whose compiled code is kept below `cache`.
///
/// # Errors
/// There is no such folder, or the engine refuses this machine.
pub fn runtime(cache: &Path, instances: u32) -> Result<Arc<Runtime>> {
    Ok(Runtime::new(RuntimeConfig { max_instances: instances, ..RuntimeConfig::new(cache) })?)
}

/// Loads a component.
///
/// # Errors
/// It cannot be read or run.
pub async fn load(runtime: &Arc<Runtime>, path: &Path) -> Result<Arc<Program>> {
    let bytes =
        std::fs::read(path).with_context(|| format!("no component {}: run `cargo xtask guests`", path.display()))?;
    let hex: String = Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(runtime.load(&format!("sha256:{hex}"), path).await?)
}

/// One pod.
pub struct Pod {
    /// Its sandbox.
    pub sandbox: Sandbox,
    /// Its network.
    pub net: Arc<PodNet>,
}

impl Pod {
    /// A pod that reaches nothing.
    pub fn new(runtime: &Arc<Runtime>) -> Result<Self> {
        Self::with_uplink(runtime, Arc::new(Alone))
    }

    /// A pod with this way out.
    ///
    /// # Errors
    /// Its first folders cannot be made.
    pub fn with_uplink(runtime: &Arc<Runtime>, uplink: Arc<dyn Uplink>) -> Result<Self> {
        let net = PodNet::new(vec![POD], uplink, NetLimits::default());
        let vfs = Vfs::new(VfsLimits::default());
        vfs.mkdir_all("tmp").context("/tmp")?;
        let spec = SandboxSpec { name: "bench".into(), hostname: "bench".into(), net: net.clone(), vfs };
        Ok(Self { sandbox: Sandbox::new(runtime, spec), net })
    }

    /// Starts a command or a server; what it prints goes to `stdout`.
    ///
    /// # Errors
    /// The node is at its end.
    pub fn start(&self, program: &Arc<Program>, args: &[&str], stdout: Arc<dyn OutputSink>) -> Result<Container> {
        self.start_with(program, |spec| {
            spec.args.extend(args.iter().map(|arg| (*arg).to_owned()));
            spec.stdout = stdout;
        })
    }

    /// Starts a container that is changed in some way.
    ///
    /// # Errors
    /// The node is at its end, or its port is taken.
    pub fn start_with(&self, program: &Arc<Program>, change: impl FnOnce(&mut ContainerSpec)) -> Result<Container> {
        let mut spec = ContainerSpec::new("bench", program.clone());
        spec.stderr = Arc::new(Stderr);
        change(&mut spec);
        Ok(self.sandbox.start(spec)?)
    }

    /// Sends a request to the pod's port 80.
    ///
    /// # Errors
    /// It is not answered with 200.
    pub async fn ask(&self, path: &str) -> Result<()> {
        match self.net.connect_endpoint(SocketAddr::from(([127, 0, 0, 1], 80))).await? {
            Endpoint::Http(handler) => ask(&*handler, path).await,
            Endpoint::Stream(_) => bail!("the pod's port 80 is a guest's own"),
        }
    }
}

/// Sends a request to a pod's handler.
///
/// # Errors
/// It is not answered with 200.
pub async fn ask(handler: &dyn HttpHandler, path: &str) -> Result<()> {
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let response = handler.handle(http::Request::get(path).header("host", "bench").body(body)?).await;
    let status = response.status();
    response.into_body().collect().await?;
    ensure!(status == 200, "{path} answered {status}");
    Ok(())
}

/// Keeps what a container prints.
#[derive(Default)]
pub struct Collect(Mutex<Vec<u8>>);

impl Collect {
    /// What came so far.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock()).into_owned()
    }
}

#[async_trait::async_trait]
impl OutputSink for Collect {
    async fn write(&self, data: Bytes) {
        self.0.lock().extend_from_slice(&data);
    }
}

/// What went wrong is shown.
struct Stderr;

#[async_trait::async_trait]
impl OutputSink for Stderr {
    async fn write(&self, data: Bytes) {
        let _ = std::io::stderr().write_all(&data);
    }
}

/// Reaches nothing.
struct Alone;

#[async_trait::async_trait]
impl Uplink for Alone {
    async fn connect(&self, _from: SocketAddr, _to: SocketAddr) -> Result<Endpoint, NetError> {
        Err(NetError::Unreachable)
    }
    async fn resolve(&self, _name: &str) -> Result<Vec<IpAddr>, NetError> {
        Err(NetError::NameUnresolvable)
    }
    async fn send_datagram(&self, _from: SocketAddr, _to: SocketAddr, _data: Bytes) -> Result<(), NetError> {
        Err(NetError::Unreachable)
    }
}
