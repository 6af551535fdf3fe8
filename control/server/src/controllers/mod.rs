//! The controllers' driver: watches through the one kube client, asks the pure decisions of `copepod_core`, executes
//! their plans, and waits until it sees its own writes before it asks again. Every kind has one shared reflector, read
//! under the controller manager's identity; each controller writes under its own.
//!
//! A controller is a small file: which changes concern which keys, what is observed, which decision is asked.

mod caches;
mod context;
mod cronjob;
mod daemonset;
mod deployment;
mod discovery;
mod disruption;
mod endpoints;
mod ephemeral_volumes;
mod event_ttl;
mod executor;
mod garbage;
mod horizontal_pod_autoscaler;
mod job;
mod local_path;
mod namespace;
mod node_lifecycle;
mod node_ttl;
mod owners;
mod pod_gc;
mod replicaset;
mod resource_quota;
mod scheduler;
mod service_account;
mod stale_disruption;
mod statefulset;
mod terms;
mod ttl_after_finished;
mod volume_protection;
mod volumes;

use std::sync::Arc;

use copepod_api::names::{USER_CONTROLLER_MANAGER, USER_SCHEDULER, controller_user};
use copepod_core::scheduler::Profile;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::api::Clock;
use crate::components::{CONTROLLER_MANAGER, Components, SCHEDULER};
use caches::Caches;
use context::Context;

/// What the controllers need to know of the cluster.
#[derive(Clone)]
pub struct Config {
    /// The cluster's CA certificate in PEM, published to every namespace.
    pub ca_pem: String,
    /// Where the controllers and the scheduler are noted as running.
    pub components: Arc<Components>,
    /// What time controllers and scheduler think it is (Events alone bear the system's). It must run as fast as the
    /// runtime's own clock, by which they wait.
    pub clock: Clock,
    /// Seed of back-off jitter.
    pub seed: u64,
    /// The scheduler's profiles.
    pub profiles: Vec<Profile>,
    /// How many pods that ended may stay, over all namespaces; the oldest others go. 0: all stay.
    pub terminated_pods: usize,
}

/// Shared reflectors that others in this process read too: DNS builds its records from them.
#[derive(Clone)]
pub struct Views {
    /// All Services.
    pub services: copepod_client::Shared<k8s_openapi::api::core::v1::Service>,
    /// All EndpointSlices.
    pub slices: copepod_client::Shared<k8s_openapi::api::discovery::v1::EndpointSlice>,
    /// All Nodes.
    pub nodes: copepod_client::Shared<k8s_openapi::api::core::v1::Node>,
}

/// Starts all controllers and the scheduler. `clients` makes a client that acts as the given user. The tasks end when
/// `token` is cancelled; a panic in one piece of work is contained and retried.
pub fn start(clients: impl Fn(&str) -> kube::Client, config: Config, token: CancellationToken) -> (JoinSet<()>, Views) {
    let mut tasks = JoinSet::new();
    let reader = clients(USER_CONTROLLER_MANAGER);
    let caches = Arc::new(Caches::default());
    caches.spawn(&reader, &token, &mut tasks);
    let discovery = discovery::Discovery::new(reader.clone());
    tasks.spawn(discovery.clone().run(token.clone()));

    let mut context = |component: &str, user: &str| {
        Context::new(clients(user), component, caches.clone(), &config, token.clone(), &mut tasks)
    };
    let controllers = [
        ("deployment-controller", deployment::run as fn(Context) -> _),
        ("replicaset-controller", replicaset::run as fn(Context) -> _),
        ("disruption-controller", stale_disruption::run as fn(Context) -> _),
        ("replication-controller", replicaset::run_controllers as fn(Context) -> _),
        ("statefulset-controller", statefulset::run as fn(Context) -> _),
        ("endpointslice-controller", endpoints::run_slices as fn(Context) -> _),
        ("endpointslicemirroring-controller", endpoints::run_mirroring as fn(Context) -> _),
        ("endpoint-controller", endpoints::run_endpoints as fn(Context) -> _),
        ("node-controller", node_lifecycle::run as fn(Context) -> _),
        ("job-controller", job::run as fn(Context) -> _),
        ("cronjob-controller", cronjob::run as fn(Context) -> _),
        ("ttl-after-finished-controller", ttl_after_finished::run as fn(Context) -> _),
        ("pvc-protection-controller", volume_protection::run_claims as fn(Context) -> _),
        ("pv-protection-controller", volume_protection::run_volumes as fn(Context) -> _),
        ("ephemeral-volume-controller", ephemeral_volumes::run as fn(Context) -> _),
        ("local-path-provisioner", local_path::run as fn(Context) -> _),
    ];
    let mut running: Vec<context::Running> = Vec::new();
    for (name, run) in controllers {
        running.push(run(context(name, &controller_user(name))));
    }
    let named = |name: &str| controller_user(name);
    running.push(service_account::run_accounts(context(
        "service-account-controller",
        &named("service-account-controller"),
    )));
    running.push(daemonset::run(context("daemonset-controller", &named("daemon-set-controller"))));
    running.push(volumes::run(context("persistentvolume-controller", &named("persistent-volume-binder"))));
    let publisher = context("root-ca-cert-publisher", &named("root-ca-cert-publisher"));
    running.push(service_account::run_root_ca(publisher, config.ca_pem.clone()));
    running.push(namespace::run(context("namespace-controller", &named("namespace-controller")), discovery.clone()));
    running.push(resource_quota::run(
        context("resourcequota-controller", &named("resourcequota-controller")),
        discovery.clone(),
    ));
    running.push(disruption::run(context("disruption-controller", &named("disruption-controller")), discovery.clone()));
    running.push(horizontal_pod_autoscaler::run(
        context("horizontal-pod-autoscaler", &named("horizontal-pod-autoscaler")),
        discovery.clone(),
    ));
    running.push(garbage::run(
        context("generic-garbage-collector", &named("generic-garbage-collector")),
        reader,
        discovery,
    ));
    running.push(node_ttl::run(context("node-ttl-controller", &named("ttl-controller"))));
    let collector = context("pod-garbage-collector", &named("pod-garbage-collector"));
    running.push(pod_gc::run(collector, config.terminated_pods));
    running.push(event_ttl::run(context("ttl-controller", &named("ttl-controller"))));
    let scheduler = scheduler::run(context("default-scheduler", USER_SCHEDULER), config.profiles.clone());
    tasks.spawn(config.components.noted(SCHEDULER, scheduler));
    for task in running {
        tasks.spawn(config.components.noted(CONTROLLER_MANAGER, task));
    }
    let views = Views { services: caches.services.clone(), slices: caches.slices.clone(), nodes: caches.nodes.clone() };
    (tasks, views)
}
