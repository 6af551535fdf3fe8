//! CronJobs and TTLs over hours and changes of the clocks: the controllers and the API follow the runtime's paused clock,
//! which jumps on whenever all is quiet.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests, not only tests")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use copepod_api::names::GROUP_MASTERS;
use copepod_client::in_process;
use copepod_core::controllers::cronjob::SCHEDULED;
use copepod_server::api::{ApiConfig, ApiState, Clock, router};
use copepod_server::components::Components;
use copepod_server::controllers::{Config, start};
use copepod_server::dialer::{DialError, NodeDialer, NodeStream};
use copepod_server::identity::Identity;
use copepod_store::MemoryStore;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Event, Namespace, Pod};
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

struct NoNodes;

#[async_trait]
impl NodeDialer for NoNodes {
    async fn dial(&self, node: &str) -> Result<Box<dyn NodeStream>, DialError> {
        Err(DialError::NotConnected(node.into()))
    }
}

/// An API server, and controllers that come and go.
struct Plane {
    router: axum::Router,
    clock: Clock,
    components: Arc<Components>,
    controllers: Option<(CancellationToken, JoinSet<()>)>,
}

impl Plane {
    /// A control plane at a time, which runs with the runtime's clock.
    async fn start(at: &str) -> Self {
        let (origin, base): (Timestamp, Instant) = (at.parse().unwrap(), Instant::now());
        let clock: Clock = Arc::new(move || origin + jiff::SignedDuration::try_from(base.elapsed()).unwrap());
        let components = Arc::new(Components::default());
        let state = ApiState::new(ApiConfig {
            authorizer: copepod_server::authorization::Trusted::shared(),
            store: Arc::new(MemoryStore::new(Default::default())),
            registry: copepod_core::kinds::builtin(),
            components: components.clone(),
            dialer: Arc::new(NoNodes),
            clock: clock.clone(),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            node_ports: 30000..=32767,
            shutdown: CancellationToken::new(),
        });
        let mut plane = Self { router: router(Arc::new(state)), clock, components, controllers: None };
        for name in ["default", "kube-system", "kube-node-lease"] {
            let namespaces: Api<Namespace> = Api::all(plane.client("admin"));
            create(&namespaces, json!({"metadata": {"name": name}})).await;
        }
        plane.run_controllers();
        plane
    }

    fn client(&self, user: &str) -> Client {
        in_process(self.router.clone(), Identity::new(user, &[GROUP_MASTERS]), "test")
    }
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client("admin"), "default")
    }

    fn run_controllers(&mut self) {
        let token = CancellationToken::new();
        let config = Config {
            ca_pem: "CA".into(),
            components: self.components.clone(),
            clock: self.clock.clone(),
            seed: 1,
            profiles: Vec::new(),
        };
        let (tasks, _) = start(|user| self.client(user), config, token.clone());
        self.controllers = Some((token, tasks));
    }
    fn stop_controllers(&mut self) {
        if let Some((token, _)) = self.controllers.take() {
            token.cancel();
        }
    }

    /// Lets time pass until then.
    async fn until(&self, at: &str) {
        let left = at.parse::<Timestamp>().unwrap().duration_since((self.clock)());
        tokio::time::sleep(Duration::try_from(left).unwrap()).await;
    }

    /// For which times Jobs were made.
    async fn made(&self) -> Vec<String> {
        let jobs = self.api::<Job>().list(&ListParams::default()).await.unwrap().items;
        let mut times: Vec<String> = jobs
            .iter()
            .map(|job| {
                let time = job.metadata.annotations.as_ref().unwrap()[SCHEDULED].clone();
                let minutes = time.parse::<Timestamp>().unwrap().as_second() / 60;
                assert!(job.metadata.name.as_ref().unwrap().ends_with(&format!("-{minutes}")));
                time
            })
            .collect();
        times.sort_by_key(|t| t.parse::<Timestamp>().unwrap());
        times
    }

    /// Ends all pods, and lets the controllers see it.
    async fn end_pods(&self, phase: &str) {
        let pods = self.api::<Pod>();
        for pod in pods.list(&ListParams::default()).await.unwrap().items {
            let status = Patch::Merge(json!({"status": {"phase": phase}}));
            pods.patch_status(&pod.metadata.name.unwrap(), &PatchParams::default(), &status).await.unwrap();
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }

    async fn reasons(&self) -> Vec<String> {
        let events = self.api::<Event>().list(&ListParams::default()).await.unwrap().items;
        events.into_iter().filter_map(|e| e.reason).collect()
    }
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

fn cron(schedule: &str, more: Value) -> Value {
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    let mut spec = json!({"schedule": schedule, "jobTemplate": {"spec": {"template": {"spec": pod}}}});
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"metadata": {"name": "c"}, "spec": spec})
}

#[tokio::test(start_paused = true)]
async fn hours_that_come_twice_or_not_at_all() {
    let zone = json!({"timeZone": "America/New_York"});
    for (start, end, expected) in [
        // One o'clock comes twice.
        (
            "2026-11-01T04:10:00Z",
            "2026-11-01T08:45:00Z",
            vec![
                "01:00:00-04:00",
                "01:30:00-04:00",
                "01:00:00-05:00",
                "01:30:00-05:00",
                "02:00:00-05:00",
                "02:30:00-05:00",
                "03:00:00-05:00",
                "03:30:00-05:00",
            ],
        ),
        // There is no two o'clock.
        (
            "2026-03-08T05:10:00Z",
            "2026-03-08T08:45:00Z",
            vec!["01:00:00-05:00", "01:30:00-05:00", "03:00:00-04:00", "03:30:00-04:00"],
        ),
    ] {
        let plane = Plane::start(start).await;
        create::<CronJob>(&plane.api(), cron("*/30 1-3 * * *", zone.clone())).await;
        plane.until(end).await;
        let day = &start[..10];
        let expected: Vec<String> = expected.into_iter().map(|time| format!("{day}T{time}")).collect();
        assert_eq!(plane.made().await, expected);
        let status = plane.api::<CronJob>().get("c").await.unwrap().status.unwrap();
        assert_eq!(status.active.unwrap().len(), expected.len());
        let last = status.last_schedule_time.unwrap().0;
        assert_eq!(last, expected.last().unwrap().parse::<Timestamp>().unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn runs_that_overlap_history_and_a_pause_of_the_control_plane() {
    let mut plane = Plane::start("2026-11-21T10:00:10Z").await;
    let spec = json!({"concurrencyPolicy": "Forbid", "successfulJobsHistoryLimit": 1, "failedJobsHistoryLimit": 1});
    create::<CronJob>(&plane.api(), cron("*/10 * * * *", spec)).await;
    plane.until("2026-11-21T10:35:00Z").await;
    assert_eq!(plane.made().await, ["2026-11-21T10:10:00Z"], "the first still runs");
    assert!(plane.reasons().await.contains(&"JobAlreadyActive".to_string()));

    // Once it has ended, the latest of the times that it held up is made up for.
    plane.end_pods("Succeeded").await;
    assert_eq!(plane.made().await, ["2026-11-21T10:10:00Z", "2026-11-21T10:30:00Z"]);
    let status = plane.api::<CronJob>().get("c").await.unwrap().status.unwrap();
    assert!(status.last_successful_time.is_some());
    plane.end_pods("Succeeded").await;
    assert_eq!(plane.made().await, ["2026-11-21T10:30:00Z"], "one that succeeded is kept");

    // Without controllers nothing happens; then the latest missed time is made up for, once.
    plane.stop_controllers();
    plane.until("2026-11-21T12:45:00Z").await;
    plane.run_controllers();
    plane.until("2026-11-21T12:46:00Z").await;
    assert_eq!(plane.made().await, ["2026-11-21T10:30:00Z", "2026-11-21T12:40:00Z"]);

    // The next takes its place.
    let replace = Patch::Merge(json!({"spec": {"concurrencyPolicy": "Replace"}}));
    plane.api::<CronJob>().patch("c", &PatchParams::default(), &replace).await.unwrap();
    plane.until("2026-11-21T12:51:00Z").await;
    assert_eq!(plane.made().await, ["2026-11-21T10:30:00Z", "2026-11-21T12:50:00Z"]);
    let pods = plane.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(pods.len(), 2, "the replaced Job's pod went with it");

    let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
    plane.api::<CronJob>().patch("c", &PatchParams::default(), &suspend).await.unwrap();
    plane.until("2026-11-21T14:00:00Z").await;
    assert_eq!(plane.made().await.len(), 2);
    let events = plane.reasons().await;
    for reason in ["SuccessfulCreate", "SawCompletedJob", "SuccessfulDelete"] {
        assert!(events.iter().any(|e| e == reason), "{reason}: {events:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_fails_waits_succeeds_and_goes_after_its_time() {
    let plane = Plane::start("2026-11-21T10:00:00Z").await;
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    let spec = json!({"ttlSecondsAfterFinished": 600, "template": {"spec": pod}});
    create::<Job>(&plane.api(), json!({"metadata": {"name": "j"}, "spec": spec})).await;
    let pods = async || plane.api::<Pod>().list(&ListParams::default()).await.unwrap().items.len();
    plane.until("2026-11-21T10:00:05Z").await;
    plane.end_pods("Failed").await;
    assert_eq!(pods().await, 1, "its replacement waits");
    plane.until("2026-11-21T10:00:20Z").await;
    assert_eq!(pods().await, 2);
    plane.end_pods("Succeeded").await;
    let status = plane.api::<Job>().get("j").await.unwrap().status.unwrap();
    assert_eq!((status.succeeded, status.failed, status.active), (Some(1), Some(1), None));
    plane.until("2026-11-21T10:10:00Z").await;
    assert_eq!(pods().await, 2);
    plane.until("2026-11-21T10:11:00Z").await;
    assert!(plane.api::<Job>().get_opt("j").await.unwrap().is_none());
    assert_eq!(pods().await, 0);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_cannot_make_pods_writes_little() {
    let plane = Plane::start("2026-11-21T10:00:00Z").await;
    let quotas: Api<k8s_openapi::api::core::v1::ResourceQuota> = plane.api();
    create(&quotas, json!({"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}})).await;
    plane.until("2026-11-21T10:00:05Z").await;
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    let job =
        json!({"metadata": {"name": "j"}, "spec": {"parallelism": 50, "completions": 50, "template": {"spec": pod}}});
    create::<Job>(&plane.api(), job).await;
    plane.until("2026-11-21T10:01:00Z").await;
    let revision = async || {
        let jobs = plane.api::<Job>().list(&ListParams::default()).await.unwrap();
        jobs.metadata.resource_version.unwrap().parse::<u64>().unwrap()
    };
    let before = revision().await;
    plane.until("2026-11-21T10:11:00Z").await;
    let written = revision().await - before;
    assert!(written < 60, "{written} writes in ten minutes");
    assert!(plane.reasons().await.contains(&"FailedCreate".to_string()));
    let status = plane.api::<Job>().get("j").await.unwrap().status.unwrap();
    assert_eq!(status.active, None);
    quotas.delete("q", &Default::default()).await.unwrap();
    plane.until("2026-11-21T10:13:00Z").await;
    let status = plane.api::<Job>().get("j").await.unwrap().status.unwrap();
    assert_eq!(status.active, Some(50), "it goes on by itself");
}

#[tokio::test(start_paused = true)]
async fn a_namespace_goes_with_its_jobs_and_orphans_are_let_go() {
    let plane = Plane::start("2026-11-21T10:00:00Z").await;
    let namespaces: Api<Namespace> = Api::all(plane.client("admin"));
    create(&namespaces, json!({"metadata": {"name": "team"}})).await;
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    let job =
        json!({"metadata": {"name": "j"}, "spec": {"completions": 3, "parallelism": 3, "template": {"spec": pod}}});
    let team: Api<Job> = Api::namespaced(plane.client("admin"), "team");
    create(&team, job.clone()).await;
    create::<Job>(&plane.api(), job).await;
    plane.until("2026-11-21T10:00:05Z").await;
    let pods: Api<Pod> = Api::all(plane.client("admin"));
    let held = async || {
        let all = pods.list(&ListParams::default()).await.unwrap().items;
        let held = all.iter().filter(|p| p.metadata.finalizers.as_ref().is_some_and(|f| !f.is_empty())).count();
        (all.len(), held)
    };
    assert_eq!(held().await, (6, 6));
    namespaces.delete("team", &Default::default()).await.unwrap();
    plane.api::<Job>().delete("j", &kube::api::DeleteParams::orphan()).await.unwrap();
    plane.until("2026-11-21T10:00:30Z").await;
    assert!(namespaces.get_opt("team").await.unwrap().is_none());
    assert!(plane.api::<Job>().get_opt("j").await.unwrap().is_none());
    assert_eq!(held().await, (3, 0), "orphans stay, and nothing holds them");
}
