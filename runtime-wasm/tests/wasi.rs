//! The wasi:filesystem and wasi:sockets hosts under real guests of `tests/guests`, built by `cargo xtask test`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use copepod_runtime::filesystem::{self, FilesystemCtxView, FilesystemView};
use copepod_runtime::sockets::{self, NetLimits, PodNet, SocketsCtxView, SocketsView};
use copepod_runtime::vfs::{Mounts, Vfs, VfsLimits};
use copepod_runtime::{Endpoint, NetError, Uplink};
use wasmtime::component::{Component, Linker, ResourceTable};
use wasmtime::{Config, Engine, Store};
use wasmtime_wasi::p2::bindings::Command;
use wasmtime_wasi::p2::pipe::MemoryOutputPipe;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

/// Bytes of output kept.
const OUTPUT: usize = 1 << 16;

struct Guest {
    table: ResourceTable,
    wasi: WasiCtx,
    mounts: Arc<Mounts>,
    net: Arc<PodNet>,
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

impl FilesystemView for Guest {
    fn filesystem(&mut self) -> FilesystemCtxView<'_> {
        FilesystemCtxView { table: &mut self.table, mounts: &self.mounts }
    }
}

impl SocketsView for Guest {
    fn sockets(&mut self) -> SocketsCtxView<'_> {
        SocketsCtxView { table: &mut self.table, net: &self.net }
    }
}

/// Nothing lies beyond the pod.
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

/// Runs a guest to its end over our hosts, shadowing wasmtime's; gives what it wrote.
async fn run(name: &str, vfs: &Vfs, net: &Arc<PodNet>) -> String {
    let dir = std::env::var_os("COPEPOD_GUESTS").expect("COPEPOD_GUESTS is not set: run `cargo xtask test`");
    let path = PathBuf::from(dir).join(format!("{name}.wasm"));
    let engine = Engine::new(&Config::new()).unwrap();
    let component = Component::from_file(&engine, &path).unwrap();
    let mut linker = Linker::<Guest>::new(&engine);
    linker.allow_shadowing(true);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
    filesystem::add_to_linker(&mut linker).unwrap();
    sockets::add_to_linker(&mut linker).unwrap();
    let output = MemoryOutputPipe::new(OUTPUT);
    let wasi = WasiCtx::builder().arg(name).stdout(output.clone()).stderr(output.clone()).build();
    let mounts = Arc::new(Mounts::new(vfs.root()));
    let mut store = Store::new(&engine, Guest { table: ResourceTable::new(), wasi, mounts, net: net.clone() });
    let command = Command::instantiate_async(&mut store, &component, &linker).await.unwrap();
    let run = command.wasi_cli_run().call_run(&mut store);
    let ended = tokio::time::timeout(Duration::from_secs(120), run).await.expect("it ends");
    let text = String::from_utf8_lossy(&output.contents()).into_owned();
    assert!(matches!(ended, Ok(Ok(()))), "{name}: {ended:?}\n{text}");
    text
}

fn pod() -> (Vfs, Arc<PodNet>) {
    let vfs = Vfs::new(VfsLimits::default());
    vfs.mkdir_all("/tmp").unwrap();
    let ip = IpAddr::V4(Ipv4Addr::new(10, 64, 0, 7));
    (vfs, PodNet::new(vec![ip], Arc::new(Alone), NetLimits::default()))
}

#[tokio::test]
async fn std_fs_behaves_as_on_unix_and_leaves_nothing() {
    let (vfs, net) = pod();
    let before = vfs.usage();
    assert_eq!(run("fs", &vfs, &net).await, "ok\n");
    assert_eq!(vfs.usage(), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn std_net_behaves_as_over_a_kernel_and_leaves_nothing() {
    let (vfs, net) = pod();
    assert_eq!(run("net", &vfs, &net).await, "ok\n");
    assert_eq!(net.socket_count(), 0);
    net.listen("0.0.0.0:7777".parse().unwrap(), 1).expect("the guest's ports are free again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tokio_works_unmodified_and_leaves_nothing() {
    let (vfs, net) = pod();
    let out = run("async", &vfs, &net).await;
    assert!(["ok\n", "ok, std accepts\n"].contains(&out.as_str()), "{out}");
    assert_eq!(net.socket_count(), 0);
}
