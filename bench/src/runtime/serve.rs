//! HTTP: requests from outside and calls between pods, beside `wasmtime serve` of the same component.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use bytes::Bytes;
use copepod_runtime::sockets::PodNet;
use copepod_runtime::{Container, ContainerSpec, Endpoint, NetError, Uplink, serve_stream};
use tokio::net::{TcpListener, TcpStream};

use super::fair;
use super::pod::{self, Pod};
use super::{Bench, child, row};
use crate::load::{self, Ask, Load};
use crate::process;
use crate::program::Program;
use crate::report::{Row, Samples};
use crate::target::Target;

/// Instances that may be alive at once.
const INSTANCES: u32 = 512;
const CONNECTIONS: usize = 8;
/// Requests of one instance where instances are used again.
const REUSE: u32 = 128;
/// How long a round is; in the quick mode three requests end it before.
const LENGTH: Duration = Duration::from_secs(3);
const QUICK_LENGTH: Duration = Duration::from_secs(60);
/// Where the pod that is called from another pod seems to be.
const BACKEND: &str = "10.64.0.8:80";

/// Serves a component in a pod.
#[derive(clap::Args)]
pub struct Serve {
    /// The component.
    #[arg(long)]
    component: PathBuf,
    /// Where compiled code is kept.
    #[arg(long)]
    cache: PathBuf,
    /// Requests of one instance.
    #[arg(long, default_value_t = 1)]
    reuse: u32,
    /// There is a second pod with the component, which the first one reaches like this.
    #[arg(long)]
    call: Option<Call>,
    /// A command that runs beside it, for its argument and number.
    #[arg(long)]
    spinner: Option<PathBuf>,
    /// How many of it.
    #[arg(long, default_value_t = 0)]
    spinners: usize,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Call {
    /// By a call of its handler.
    InProcess,
    /// By HTTP over the kernel's loopback.
    Sockets,
}

/// The child: serves until it is ended.
///
/// # Errors
/// The pod does not start.
pub fn serve(serve: &Serve) -> Result<()> {
    let threads = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    threads.block_on(async {
        let runtime = pod::runtime(&serve.cache, INSTANCES)?;
        let program = pod::load(&runtime, &serve.component).await?;
        let again = |spec: &mut ContainerSpec| {
            spec.http_limits.requests_per_instance = serve.reuse;
            spec.cpu_request = fair::REQUEST;
        };
        let backend = Pod::new(&runtime)?;
        let _backend = backend.start_with(&program, again)?;
        let mut front = backend.net.clone();
        let mut _front: Option<(Pod, Container)> = None;
        if let Some(call) = serve.call {
            let wire = match call {
                Call::InProcess => Wire::InProcess(front),
                Call::Sockets => Wire::Sockets(listen(front).await?),
            };
            let pod = Pod::with_uplink(&runtime, Arc::new(wire))?;
            front = pod.net.clone();
            let container = pod.start_with(&program, again)?;
            _front = Some((pod, container));
        }
        let _spinners = match &serve.spinner {
            Some(path) => fair::spin(&runtime, &pod::load(&runtime, path).await?, "spin", serve.spinners).await?,
            None => Vec::new(),
        };
        println!("serving {}", listen(front).await?);
        std::future::pending::<()>().await;
        Ok(())
    })
}

/// Serves a pod's port 80 on a port of this machine.
async fn listen(net: Arc<PodNet>) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, peer)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let net = net.clone();
            tokio::spawn(async move {
                if let Ok(Endpoint::Http(handler)) = net.accept_from(80, peer).await {
                    // Clients leave as they like.
                    let _ = serve_stream(handler, Box::new(stream)).await;
                }
            });
        }
    });
    Ok(address)
}

/// The way from one pod to the other.
enum Wire {
    InProcess(Arc<PodNet>),
    Sockets(SocketAddr),
}

#[async_trait::async_trait]
impl Uplink for Wire {
    async fn connect(&self, from: SocketAddr, to: SocketAddr) -> Result<Endpoint, NetError> {
        match self {
            Wire::InProcess(net) => net.accept_from(to.port(), from).await,
            Wire::Sockets(address) => {
                let stream = TcpStream::connect(address).await.map_err(|_| NetError::ConnectionRefused)?;
                let _ = stream.set_nodelay(true);
                Ok(Endpoint::Stream(Box::new(stream)))
            }
        }
    }
    async fn resolve(&self, _name: &str) -> Result<Vec<IpAddr>, NetError> {
        Err(NetError::NameUnresolvable)
    }
    async fn send_datagram(&self, _from: SocketAddr, _to: SocketAddr, _data: Bytes) -> Result<(), NetError> {
        Err(NetError::Unreachable)
    }
}

/// A server that is up, with the processes whose CPU is its.
pub struct Up {
    /// Where it answers.
    pub address: SocketAddr,
    programs: Vec<Program>,
    path: String,
}

impl Up {
    /// Copepod with the component and further options.
    ///
    /// # Errors
    /// It does not start.
    pub fn copepod(bench: &Bench, path: &str, options: &[(&str, &str)]) -> Result<Self> {
        let (web, cache, spinner) = (bench.guest("web"), child::cache(&bench.scratch), bench.guest("bench"));
        let mut paths = vec![("--component", web.as_path()), ("--cache", &cache)];
        if options.iter().any(|(name, _)| *name == "--spinners") {
            paths.push(("--spinner", &spinner));
        }
        let program = child::start("serve", options, &paths)?;
        let (_, address) =
            program.line(child::ready_by(), "its address", |line| line.strip_prefix("serving ")?.parse().ok())?;
        Ok(Self { address, programs: vec![program], path: path.into() })
    }

    /// `wasmtime serve`, if it is there.
    ///
    /// # Errors
    /// It does not start.
    pub fn wasmtime(bench: &Bench, path: &str, options: &[&str]) -> Result<Option<Self>> {
        let Some(wasmtime) = &bench.wasmtime else { return Ok(None) };
        let serve = wasmtime.serve_with(&bench.guest("web"), options)?;
        Ok(Some(Self { address: serve.address, programs: vec![serve.program], path: path.into() }))
    }

    /// Also counts this one's CPU.
    fn with(mut self, other: Up) -> Self {
        self.programs.extend(other.programs);
        self
    }

    /// A request for its path.
    pub fn request(&self) -> Vec<u8> {
        Target::plain(self.address).request("GET", &self.path, "")
    }

    fn load(&self, bench: &Bench) -> Result<Load> {
        let (first, others) = self.programs.split_first().context("no program")?;
        let cpu = || others.iter().map(|program| process::cpu_seconds(program.pid())).sum::<Result<f64>>();
        let before = cpu()?;
        let request = self.request();
        let next = |_, at| (!bench.quick || at < 3).then(|| Ask { request: request.clone(), expect: 200 });
        let length = bench.of(LENGTH, QUICK_LENGTH);
        let mut load = load::run(&Target::plain(self.address), first.pid(), CONNECTIONS, length, next)?;
        load.cpu += cpu()? - before;
        Ok(load)
    }
}

/// One of the values.
type Pick = fn(&Taken) -> &Samples;

#[derive(Default)]
struct Taken {
    rate: Samples,
    p50: Samples,
    p99: Samples,
    cpu: Samples,
    failures: u64,
}

/// Load on all of them in turn: the first is compared with each of the others, which may be missing.
fn compare(bench: &Bench, what: &str, sides: &[(&str, Option<Up>)]) -> Result<Vec<Row>> {
    let mut taken: Vec<Taken> = sides.iter().map(|_| Taken::default()).collect();
    for round in 0..=bench.rounds() {
        for ((_, side), taken) in sides.iter().zip(&mut taken) {
            let Some(side) = side else { continue };
            let load = side.load(bench)?;
            if round == 0 {
                // That was to warm up.
                continue;
            }
            taken.rate.push(load.rate());
            taken.p50.push(load.latencies.quantile(0.5));
            taken.p99.push(load.latencies.quantile(0.99));
            taken.cpu.push(load.cpu_per_thousand() * 1000.0);
            taken.failures += load.failures;
        }
    }
    let (ours, others) = taken.split_first().context("no side")?;
    let failures: u64 = taken.iter().map(|t| t.failures).sum();
    if failures > 0 {
        eprintln!("    {what}: {failures} requests failed");
    }
    let values: [(&str, &str, Pick); 4] = [
        ("requests, 8 connections", "/s", |t| &t.rate),
        ("latency, p50", "ms", |t| &t.p50),
        ("latency, p99", "ms", |t| &t.p99),
        ("CPU of a request", "us", |t| &t.cpu),
    ];
    let rows = values.into_iter().flat_map(|(value, unit, pick)| {
        sides.iter().skip(1).zip(others).map(move |((name, up), theirs)| {
            let peer = up.as_ref().map(|_| (*name, pick(theirs)));
            row(format!("{what}: {value}"), unit, pick(ours), peer)
        })
    });
    Ok(rows.collect())
}

/// Requests from outside, with an instance for each and with instances used again.
///
/// # Errors
/// A server fails.
pub fn requests(bench: &Bench) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for (what, reuse) in [("HTTP, an instance per request", 1), ("HTTP, 128 requests per instance", REUSE)] {
        let reuse = reuse.to_string();
        let sides = [
            ("Copepod", Some(Up::copepod(bench, "/hello", &[("--reuse", &reuse)])?)),
            ("wasmtime serve", Up::wasmtime(bench, "/hello", &["--max-instance-reuse-count", &reuse])?),
        ];
        rows.extend(compare(bench, what, &sides)?);
    }
    Ok(rows)
}

/// A pod that calls another for each request.
///
/// # Errors
/// A server fails.
pub fn calls(bench: &Bench) -> Result<Vec<Row>> {
    let path = format!("/fetch?http://{BACKEND}/hello");
    let pair = match Up::wasmtime(bench, "/hello", &[])? {
        Some(backend) => {
            let path = format!("/fetch?http://{}/hello", backend.address);
            Up::wasmtime(bench, &path, &[])?.map(|front| front.with(backend))
        }
        None => None,
    };
    let sides = [
        ("Copepod", Some(Up::copepod(bench, &path, &[("--call", "in-process")])?)),
        ("Copepod over sockets", Some(Up::copepod(bench, &path, &[("--call", "sockets")])?)),
        ("two of wasmtime serve", pair),
    ];
    compare(bench, "HTTP through a pod to another in process", &sides)
}
