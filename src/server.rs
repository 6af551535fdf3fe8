//! `copepod server`: wires store, API server, controllers, DNS and the local node's agent.

mod child;
mod names;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use copepod_api::Cidr;
use copepod_api::image::MAX_BLOB;
use copepod_api::names::{GROUP_MASTERS, USER_APISERVER, USER_SCHEDULER};
use copepod_core::scheduler::Profile;
use copepod_dns::server::{DnsServer, SharedRecords};
use copepod_server::api::{self, ApiConfig, ApiState};
use copepod_server::authorization::Trusted;
use copepod_server::bootstrap::{self, BootstrapInfo};
use copepod_server::components::Components;
use copepod_server::identity::Identity;
use copepod_server::images::ImageStore;
use copepod_server::pki::{self, Pki, ServerNames};
use copepod_server::tunnel::TunnelDialer;
use copepod_server::{auth, controllers, serve};
use copepod_store::{Options, RedbStore};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::ServerArgs;
use crate::data_dir::{self, DataDir};
use crate::{preflight, shutdown};

/// How long a server that was just killed may take to let go of the data directory.
const OWNER_LIMIT: std::time::Duration = std::time::Duration::from_secs(2);
/// How long the ready line waits for this machine's own node.
const NODE_LIMIT: std::time::Duration = std::time::Duration::from_secs(30);
/// The largest scheduler configuration, in bytes.
const MAX_SCHEDULER_CONFIG: u64 = 1 << 20;

/// The command line, checked.
struct Plan {
    service_cidr: Cidr,
    service_ip: Ipv4Addr,
    node_ports: std::ops::RangeInclusive<u16>,
    pod_cidr: String,
    node_name: String,
    profiles: Vec<Profile>,
}

impl Plan {
    fn of(args: &ServerArgs) -> Result<Self> {
        let pods = preflight::network(&args.cluster_cidr, "--cluster-cidr")?;
        let services = preflight::network(&args.service_cidr, "--service-cidr")?;
        if pods.overlaps(&services) {
            bail!(
                "--cluster-cidr {pods} and --service-cidr {services} overlap: pods and Services need networks of their own"
            );
        }
        let mask = args.node_cidr_mask_size;
        let node_pods = pods
            .first_subnet(mask)
            .with_context(|| format!("--node-cidr-mask-size {mask} is larger than the whole --cluster-cidr {pods}"))?;
        let node_name = match &args.node_name {
            Some(name) => name.clone(),
            None => pki::host_name()
                .context("this machine's host name is no valid node name: choose one with --node-name")?,
        };
        copepod_core::validate::dns1123_subdomain(&node_name)
            .map_err(|why| anyhow::anyhow!("--node-name {node_name}: {why}"))?;
        let zone = &args.cluster_domain;
        copepod_core::validate::dns1123_subdomain(zone)
            .map_err(|why| anyhow::anyhow!("--cluster-domain {zone}: {why}"))?;
        args.tls_san.iter().try_for_each(|name| preflight::certificate_name(name))?;
        if !args.no_agent {
            preflight::own_address(args.node_port_address)?;
        }
        Ok(Self {
            service_ip: services.at(1).context("--service-cidr is too small")?,
            service_cidr: services,
            node_ports: preflight::port_range(&args.node_port_range)?,
            pod_cidr: node_pods.to_string(),
            node_name,
            profiles: args.scheduler_config.as_deref().map_or_else(|| Ok(vec![Profile::default()]), profiles)?,
        })
    }
}

/// The profiles of a scheduler configuration.
fn profiles(file: &Path) -> Result<Vec<Profile>> {
    let told = || format!("--scheduler-config {}", file.display());
    let size = std::fs::metadata(file).with_context(told)?.len();
    if size > MAX_SCHEDULER_CONFIG {
        bail!("{}: {size} bytes are more than {MAX_SCHEDULER_CONFIG}", told());
    }
    let text = std::fs::read_to_string(file).with_context(told)?;
    copepod_core::scheduler::profile::read(&text).map_err(|why| anyhow::anyhow!("{}: {why}", told()))
}

/// Runs the command until SIGTERM or Ctrl-C.
pub async fn run(args: Box<ServerArgs>) -> Result<()> {
    let plan = Plan::of(&args)?;
    let path = args.data_dir.clone().map_or_else(data_dir::default_path, Ok)?;
    let path = std::path::absolute(path)?;
    let open = path.clone();
    let data_dir = tokio::task::spawn_blocking(move || DataDir::open_within(&open, OWNER_LIMIT)).await??;
    let stop = shutdown::on_signal()?;
    if args.until_stdin_ends {
        shutdown::when_stdin_closes(stop.clone());
    }

    let listener = TcpListener::bind(args.listen).await.with_context(|| {
        format!(
            "cannot serve the API on {}: another program may use it; choose another with --listen ADDRESS:PORT",
            args.listen
        )
    })?;
    let listen = listener.local_addr()?;
    let records = SharedRecords::default();
    let dns = DnsServer::start(args.dns_listen, records.clone()).await.with_context(|| {
        format!(
            "cannot serve DNS on {}: another program may use it; choose another with --dns-listen ADDRESS:PORT",
            args.dns_listen
        )
    })?;

    let pki = Pki::open(&path)?;
    let store =
        RedbStore::open(path.join("store.redb"), Options::default()).context("cannot open the cluster's store")?;
    let images = ImageStore::open(&path.join("images"), MAX_BLOB).context("cannot open the image store")?;
    let dialer = TunnelDialer::new();
    let serving = CancellationToken::new();
    let authorizer = Trusted::shared();
    let components = Arc::new(Components::default());
    let state = Arc::new(ApiState::new(ApiConfig {
        store: Arc::new(store),
        authorizer: authorizer.clone(),
        registry: copepod_core::kinds::builtin(),
        components: components.clone(),
        dialer: dialer.clone(),
        clock: api::system_clock(),
        service_cidr: plan.service_cidr,
        node_ports: plan.node_ports.clone(),
        shutdown: serving.clone(),
    }));
    let guard = axum::middleware::from_fn_with_state(authorizer, auth::guard);
    let router = api::router(state).merge(images.routes()).merge(dialer.routes()).layer(guard);

    let names = ServerNames {
        service_ip: plan.service_ip.into(),
        cluster_domain: args.cluster_domain.clone(),
        extra: args.tls_san.clone(),
    };
    let tls = pki.server_config(&names)?;
    let server = tokio::spawn(serve::serve(listener, tls, router.clone(), serve::Limits::default(), serving.clone()));

    let client = |user: &str| {
        let groups: &[&str] = if user == USER_APISERVER { &[GROUP_MASTERS] } else { &[] };
        let component = match user {
            USER_APISERVER => "kube-apiserver",
            USER_SCHEDULER => "kube-scheduler",
            _ => "kube-controller-manager",
        };
        copepod_client::transport::in_process(router.clone(), Identity::new(user, groups), component)
    };
    let info = BootstrapInfo {
        service_ip: plan.service_ip.into(),
        service_cidr: plan.service_cidr,
        advertise_ip: advertised(listen.ip()),
        port: listen.port(),
    };
    let bootstrap = bootstrap::keep(client(USER_APISERVER), info).await;

    let control = CancellationToken::new();
    let config = controllers::Config {
        ca_pem: pki.ca_pem().to_string(),
        components,
        clock: api::system_clock(),
        seed: rand_seed(),
        profiles: plan.profiles.clone(),
        terminated_pods: args.terminated_pod_gc_threshold,
    };
    let (mut tasks, views) = controllers::start(client, config, control.clone());
    let pinned = (!args.no_agent && !args.node_port_address.is_unspecified())
        .then(|| names::Pinned { node: plan.node_name.clone(), address: args.node_port_address });
    tasks.spawn(bootstrap.run(control.clone()));
    tasks.spawn(names::follow(views.clone(), args.cluster_domain.clone(), pinned, records, control.clone()));

    let url = format!("https://{}", SocketAddr::new(local(listen.ip()), listen.port()));
    let kubeconfig = path.join("admin.kubeconfig");
    pki.write_admin_kubeconfig(&kubeconfig, &url)?;
    let agent = CancellationToken::new();
    let node = if args.no_agent {
        None
    } else {
        let home = path.join("agent");
        std::fs::create_dir_all(&home).with_context(|| format!("cannot make {}", home.display()))?;
        let credentials = home.join("kubeconfig");
        pki.write_node_kubeconfig(&credentials, &url, &plan.node_name)?;
        let command = child::Agent {
            args: (*args).clone(),
            home,
            credentials,
            node_name: plan.node_name.clone(),
            pod_cidr: plan.pod_cidr,
        };
        Some(tokio::spawn(child::keep_running(command, agent.clone())))
    };

    if node.is_some() {
        tokio::select! {
            () = names::node_ready(&views, &plan.node_name) => {}
            () = tokio::time::sleep(NODE_LIMIT) => tracing::warn!("the node on this machine is not ready yet"),
            () = stop.cancelled() => {}
        }
    }
    if !stop.is_cancelled() {
        announce(&path, &url, &kubeconfig, &dns, node.as_ref().map(|_| plan.node_name.as_str()))?;
    }
    stop.cancelled().await;
    tracing::info!("stopping");
    let _ = std::fs::remove_file(path.join("ready"));
    agent.cancel();
    if let Some(node) = node {
        let _ = node.await;
    }
    control.cancel();
    dialer.close();
    serving.cancel();
    let _ = server.await;
    tasks.shutdown().await;
    dns.stop().await;
    drop(data_dir);
    Ok(())
}

/// The one line that is printed when the server is ready; scripts read it.
pub fn ready_line(url: &str, kubeconfig: &str, dns: &str, node: Option<&str>) -> String {
    let node = node.map(|n| format!(", node {n}")).unwrap_or_default();
    format!("copepod ready: api {url}, kubeconfig {kubeconfig}, dns {dns}{node}")
}

/// Says that the cluster is ready: on standard output, and in DIR/ready for `copepod up --name` to find.
fn announce(data_dir: &Path, url: &str, kubeconfig: &Path, dns: &DnsServer, node: Option<&str>) -> Result<()> {
    let dns = dns.address();
    let dns = SocketAddr::new(local(dns.ip()), dns.port());
    let line = ready_line(url, &kubeconfig.display().to_string(), &dns.to_string(), node);
    let path = data_dir.join("ready");
    std::fs::write(&path, &line).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{line}");
    Ok(())
}

/// The address under which this machine itself reaches a listener.
fn local(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() { Ipv4Addr::LOCALHOST.into() } else { ip }
}

/// The address that the `kubernetes` Service leads to. An endpoint may not be a loopback address: a server that
/// listens on loopback alone names the machine's own address, and pods reach it through the agent anyway.
fn advertised(ip: IpAddr) -> IpAddr {
    if ip.is_unspecified() || ip.is_loopback() { pki::advertise_address() } else { ip }
}

fn rand_seed() -> u64 {
    use std::hash::{BuildHasher, Hasher};
    std::collections::hash_map::RandomState::new().build_hasher().finish()
}
