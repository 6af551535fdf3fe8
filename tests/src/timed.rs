//! A cluster whose time the tests move: its control plane runs in the test's own process, API and controllers by a clock
//! that is the tests'; its node is the real agent, which knows nothing of it.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::time::{Duration, Instant};

use copepod_api::Cidr;
use copepod_api::image::MAX_BLOB;
use copepod_api::names::GROUP_MASTERS;
use copepod_client::in_process;
use copepod_server::api::{self, ApiConfig, ApiState, Clock};
use copepod_server::authorization::Trusted;
use copepod_server::bootstrap::{self, BootstrapInfo};
use copepod_server::components::Components;
use copepod_server::identity::Identity;
use copepod_server::images::ImageStore;
use copepod_server::pki::{Pki, ServerNames};
use copepod_server::tunnel::TunnelDialer;
use copepod_server::{auth, controllers, serve};
use copepod_store::MemoryStore;
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

use crate::{Cluster, collect, copepod, own_loopback};

const ZONE: &str = "cluster.local";
const NODE: &str = "node-1";
const PODS: &str = "10.64.0.0/16";
const SERVICES: &str = "10.43.0.0/16";
/// The controllers' time goes on in steps about every so often.
const STEP: Duration = Duration::from_millis(10);
/// By itself their time is this much slower, so that no minute passes unasked while a loaded machine works.
const SLOWNESS: u32 = 4;
/// And when it is moved, in steps of this.
const LEAP: Duration = Duration::from_secs(1);

/// By how much to move the time, and whom to tell when it is done.
type Move = (Duration, Sender<()>);

/// The cluster; in the order in which its parts end.
pub struct Timed {
    /// The cluster as clients see it.
    pub cluster: Cluster,
    moves: Sender<Move>,
    clock: Clock,
    _serving: Runtime,
}

impl Timed {
    /// Starts it, in the middle of a minute.
    pub fn start() -> Self {
        let dir = tempfile::Builder::new().prefix("copepod-e2e-").tempdir().expect("tempdir");
        let data_dir = dir.path().join("data");
        let home = data_dir.join("agent");
        std::fs::create_dir_all(&home).expect("a directory for the agent");
        let origin = Timestamp::from_second(Timestamp::now().as_second() / 60 * 60 + 20).expect("a time");
        let passed = Arc::new(AtomicI64::new(0));
        let clock: Clock = {
            let passed = passed.clone();
            Arc::new(move || origin + SignedDuration::from_nanos(passed.load(Ordering::SeqCst)))
        };

        let serving = Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("a runtime");
        let _entered = serving.enter();
        let pki = Pki::open(&data_dir).expect("a CA");
        let images = ImageStore::open(&data_dir.join("images"), MAX_BLOB).expect("an image store");
        let (dialer, components) = (TunnelDialer::new(), Arc::new(Components::default()));
        let services: Cidr = SERVICES.parse().expect("a network");
        let service_ip = services.at(1).expect("an address").into();
        let authorizer = Trusted::shared();
        let state = ApiState::new(ApiConfig {
            store: Arc::new(MemoryStore::new(Default::default())),
            authorizer: authorizer.clone(),
            registry: copepod_core::kinds::builtin(),
            components: components.clone(),
            dialer: dialer.clone(),
            clock: clock.clone(),
            service_cidr: services,
            node_ports: 30000..=32767,
            shutdown: CancellationToken::new(),
        });
        let guard = axum::middleware::from_fn_with_state(authorizer, auth::guard);
        let router = api::router(Arc::new(state)).merge(images.routes()).merge(dialer.routes()).layer(guard);
        let names = ServerNames { service_ip, cluster_domain: ZONE.into(), extra: Vec::new() };
        let tls = pki.server_config(&names).expect("a certificate");
        let listener = serving.block_on(TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = listener.local_addr().expect("an address");
        serving.spawn(serve::serve(listener, tls, router.clone(), serve::Limits::default(), CancellationToken::new()));
        let url = format!("https://{address}");
        pki.write_admin_kubeconfig(&data_dir.join("admin.kubeconfig"), &url).expect("a kubeconfig");
        pki.write_node_kubeconfig(&home.join("kubeconfig"), &url, NODE).expect("a kubeconfig");
        let client = move |user: &str| in_process(router.clone(), Identity::new(user, &[GROUP_MASTERS]), "test");
        let info =
            BootstrapInfo { service_ip, service_cidr: services, advertise_ip: address.ip(), port: address.port() };
        serving.block_on(bootstrap::keep(client("test"), info));

        let config = controllers::Config {
            ca_pem: pki.ca_pem().to_string(),
            components,
            clock: clock.clone(),
            seed: 1,
            profiles: vec![Default::default()],
            terminated_pods: 0,
        };
        let (moves, moved) = mpsc::channel();
        std::thread::spawn(move || drive(client, config, &passed, moved));

        let node_ports = own_loopback();
        let mut agent = copepod()
            .arg("agent")
            .arg("--kubeconfig")
            .arg(home.join("kubeconfig"))
            .arg("--data-dir")
            .arg(&home)
            .args(["--node-name", NODE, "--pod-cidr", PODS, "--virtual-cidrs", &format!("{PODS},{SERVICES}")])
            .args(["--cluster-domain", ZONE, "--node-port-address", &node_ports])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start the agent");
        let log = Arc::default();
        collect(agent.stderr.take().expect("stderr"), Arc::clone(&log));
        let cluster = Cluster {
            data_dir,
            node_ports,
            dns: String::new(),
            url,
            server: Some(agent),
            log,
            extra: Vec::new(),
            _dir: dir,
        };
        Self { cluster, moves, clock, _serving: serving }
    }

    /// Moves the time to the next full minute; that minute's number since 1970.
    pub fn next_minute(&self) -> i64 {
        let now = (self.clock)().as_millisecond();
        let minute = now / 60_000 + 1;
        let left = u64::try_from(minute * 60_000 - now).expect("the future");
        let (done, told) = mpsc::channel();
        self.moves.send((Duration::from_millis(left), done)).expect("the controllers run");
        told.recv().expect("the controllers run");
        minute
    }
}

/// Runs the controllers on a paused clock, which goes on slowly, and when it is moved, until nobody can move it.
fn drive(
    client: impl Fn(&str) -> kube::Client,
    config: controllers::Config,
    passed: &AtomicI64,
    moved: Receiver<Move>,
) {
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().expect("a runtime");
    runtime.block_on(async {
        let (step, mut steps) = tokio::sync::mpsc::unbounded_channel();
        // As long as a blocking task runs, a paused clock does not go on by itself.
        tokio::task::spawn_blocking(move || {
            let mut since = Instant::now();
            loop {
                let next = match moved.recv_timeout(STEP) {
                    Ok((by, done)) => (by, Some(done)),
                    Err(RecvTimeoutError::Timeout) => {
                        let by = since.elapsed();
                        since += by;
                        (by / SLOWNESS, None)
                    }
                    Err(RecvTimeoutError::Disconnected) => return,
                };
                if step.send(next).is_err() {
                    return;
                }
            }
        });
        let token = CancellationToken::new();
        let (mut tasks, _) = controllers::start(client, config, token.clone());
        while let Some((mut by, done)) = steps.recv().await {
            while !by.is_zero() {
                let leap = by.min(LEAP);
                by -= leap;
                passed.fetch_add(i64::try_from(leap.as_nanos()).expect("a short time"), Ordering::SeqCst);
                tokio::time::advance(leap).await;
            }
            if let Some(done) = done {
                let _ = done.send(());
            }
        }
        token.cancel();
        tasks.shutdown().await;
    });
}
