//! CronJobs and TTLs over hours and changes of the clocks.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests, not only tests")]

mod plane;

use std::time::Duration;

use copepod_core::controllers::cronjob::SCHEDULED;
use jiff::Timestamp;
use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::{Namespace, Pod};
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use plane::{Plane, create};
use serde_json::{Value, json};

/// For which times Jobs were made.
async fn made(plane: &Plane) -> Vec<String> {
    let jobs = plane.api::<Job>().list(&ListParams::default()).await.unwrap().items;
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
async fn end_pods(plane: &Plane, phase: &str) {
    let pods = plane.api::<Pod>();
    for pod in pods.list(&ListParams::default()).await.unwrap().items {
        let status = Patch::Merge(json!({"status": {"phase": phase}}));
        pods.patch_status(&pod.metadata.name.unwrap(), &PatchParams::default(), &status).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
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
        assert_eq!(made(&plane).await, expected);
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
    assert_eq!(made(&plane).await, ["2026-11-21T10:10:00Z"], "the first still runs");
    assert!(plane.reasons().await.contains(&"JobAlreadyActive".to_string()));

    // Once it has ended, the latest of the times that it held up is made up for.
    end_pods(&plane, "Succeeded").await;
    assert_eq!(made(&plane).await, ["2026-11-21T10:10:00Z", "2026-11-21T10:30:00Z"]);
    let status = plane.api::<CronJob>().get("c").await.unwrap().status.unwrap();
    assert!(status.last_successful_time.is_some());
    end_pods(&plane, "Succeeded").await;
    assert_eq!(made(&plane).await, ["2026-11-21T10:30:00Z"], "one that succeeded is kept");

    // Without controllers nothing happens; then the latest missed time is made up for, once.
    plane.stop_controllers();
    plane.until("2026-11-21T12:45:00Z").await;
    plane.run_controllers();
    plane.until("2026-11-21T12:46:00Z").await;
    assert_eq!(made(&plane).await, ["2026-11-21T10:30:00Z", "2026-11-21T12:40:00Z"]);

    // The next takes its place.
    let replace = Patch::Merge(json!({"spec": {"concurrencyPolicy": "Replace"}}));
    plane.api::<CronJob>().patch("c", &PatchParams::default(), &replace).await.unwrap();
    plane.until("2026-11-21T12:51:00Z").await;
    assert_eq!(made(&plane).await, ["2026-11-21T10:30:00Z", "2026-11-21T12:50:00Z"]);
    let pods = plane.api::<Pod>().list(&ListParams::default()).await.unwrap().items;
    assert_eq!(pods.len(), 2, "the replaced Job's pod went with it");

    let suspend = Patch::Merge(json!({"spec": {"suspend": true}}));
    plane.api::<CronJob>().patch("c", &PatchParams::default(), &suspend).await.unwrap();
    plane.until("2026-11-21T14:00:00Z").await;
    assert_eq!(made(&plane).await.len(), 2);
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
    end_pods(&plane, "Failed").await;
    assert_eq!(pods().await, 1, "its replacement waits");
    plane.until("2026-11-21T10:00:20Z").await;
    assert_eq!(pods().await, 2);
    end_pods(&plane, "Succeeded").await;
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
