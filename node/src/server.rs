//! The agent's HTTP server, on streams that the API server opens through the tunnel: the kubelet's paths.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;

use crate::checkpoint::{log_dir, safe};
use crate::log_reader::{self, LogOptions};
use crate::observed::{Observed, Stage, init_containers};
use crate::pods::{Found, Pods};
use crate::usage::Meter;

/// Pieces of a log on their way to one reader.
const MAX_PIECES: usize = 4;

/// The routes.
pub fn router(pods: Arc<Pods>, meter: Arc<Meter>) -> Router {
    let statistics = Router::new().route("/stats/summary", get(summary)).with_state((pods.clone(), meter));
    Router::new()
        .route("/healthz", get(|| async { "ok" }))
        .route("/pods", get(list_pods))
        .route("/containerLogs/{namespace}/{pod}/{container}", get(container_logs))
        .merge(crate::exec::routes())
        .with_state(pods)
        .merge(statistics)
}

async fn list_pods(State(pods): State<Arc<Pods>>) -> Json<Value> {
    let items: Vec<Pod> = pods.all().into_iter().map(|p| (*p.pod).clone()).collect();
    Json(json!({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items}))
}

async fn summary(State((pods, meter)): State<(Arc<Pods>, Arc<Meter>)>) -> Json<Value> {
    Json(meter.summary(&pods).await)
}

type Failure = (StatusCode, String);

fn bad(message: String) -> Failure {
    (StatusCode::BAD_REQUEST, message)
}

async fn container_logs(
    State(pods): State<Arc<Pods>>,
    Path((namespace, pod, container)): Path<(String, String, String)>,
    Query(query): Query<HashMap<String, String>>,
) -> Result<Response, Failure> {
    let options = options(&query, Timestamp::now()).map_err(bad)?;
    let found = pods.find(&namespace, &pod).ok_or_else(|| {
        (StatusCode::NOT_FOUND, format!("pod {pod:?} not found in namespace {namespace:?} on this node"))
    })?;
    let previous = flag(&query, "previous");
    let instance = instance(&found, &container, previous).map_err(bad)?;
    let key = &found.key;
    let dir = log_dir(&pods.shared().logs, &key.namespace, &key.name, &key.uid).join(safe(&container));
    let live = {
        let view = found.view.read();
        let running = view.containers.get(&container).is_some_and(Observed::is_alive);
        view.logs.get(&container).filter(|_| running && !previous).map(|log| log.subscribe())
    };
    let (to, from) = mpsc::channel(MAX_PIECES);
    tokio::spawn(async move {
        if let Err(error) = log_reader::read(dir, instance, options, live, to).await {
            tracing::debug!("reading a log: {error}");
        }
    });
    let body = Body::from_stream(ReceiverStream::new(from).map(Ok::<_, std::convert::Infallible>));
    Ok(([(http::header::CONTENT_TYPE, "text/plain")], body).into_response())
}

/// Which instance's log is meant; the errors are worded as the kubelet's.
fn instance(found: &Found, container: &str, previous: bool) -> Result<u32, String> {
    let pod = &found.key.name;
    let spec = found.pod.spec.clone().unwrap_or_default();
    if !spec.containers.iter().chain(init_containers(&spec)).any(|c| c.name == container) {
        return Err(format!("container {container} is not valid for pod {pod}"));
    }
    let view = found.view.read();
    let seen = view.containers.get(container).cloned().unwrap_or_default();
    if previous {
        let last = if seen.is_alive() { seen.last.as_ref() } else { seen.last.as_ref().or(seen.exit()) };
        return match last.or(seen.exit()) {
            Some(exit) => Ok(exit.instance),
            None => Err(format!("previous terminated container {container:?} in pod {pod:?} not found")),
        };
    }
    match (&seen.stage, &seen.waiting) {
        (Stage::Running { .. } | Stage::Exited(_), _) => Ok(seen.instance()),
        (_, waiting) => {
            if let Some(last) = &seen.last {
                return Ok(last.instance);
            }
            let reason = waiting.as_ref().map_or("ContainerCreating", |w| w.reason.as_str());
            let why = if reason == "ContainerCreating" || reason == "PodInitializing" {
                reason.to_string()
            } else {
                format!("{reason}: {}", waiting.as_ref().map(|w| w.message.clone()).unwrap_or_default())
            };
            Err(format!("container {container:?} in pod {pod:?} is waiting to start: {why}"))
        }
    }
}

fn flag(query: &HashMap<String, String>, name: &str) -> bool {
    query.get(name).is_some_and(|v| v == "true" || v == "1")
}

/// Parses the query of a log request.
fn options(query: &HashMap<String, String>, now: Timestamp) -> Result<LogOptions, String> {
    let number = |name: &str| -> Result<Option<i64>, String> {
        query
            .get(name)
            .map(|v| v.parse::<i64>().map_err(|_| format!("{name}: Invalid value: {v:?}: must be a number")))
            .transpose()
    };
    let at_least = |name: &str, least: i64| -> Result<Option<u64>, String> {
        let Some(n) = number(name)? else { return Ok(None) };
        let fits = u64::try_from(n).ok().filter(|_| n >= least);
        fits.map(Some).ok_or_else(|| format!("{name}: Invalid value: {n}: must be greater than or equal to {least}"))
    };
    let since_seconds = at_least("sinceSeconds", 1)?;
    let since_time =
        query.get("sinceTime").map(|t| t.parse::<Timestamp>().map_err(|e| format!("sinceTime: {e}"))).transpose()?;
    let ago = since_seconds.and_then(|s| i64::try_from(s).ok()).map(SignedDuration::from_secs);
    Ok(LogOptions {
        follow: flag(query, "follow"),
        tail: at_least("tailLines", 0)?,
        since: since_time.or(ago.map(|d| now.checked_sub(d).unwrap_or(Timestamp::MIN))),
        timestamps: flag(query, "timestamps"),
        limit_bytes: at_least("limitBytes", 1)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::{Exit, PodKey, Waiting};
    use crate::pod_worker::View;
    use parking_lot::RwLock;

    fn found(seen: Option<Observed>) -> Found {
        let pod = serde_json::from_value(json!({"spec": {"containers": [{"name": "a"}]}})).unwrap();
        let mut view = View::default();
        view.containers.extend(seen.map(|s| ("a".to_string(), s)));
        let key = PodKey { namespace: "n".into(), name: "p".into(), uid: "u".into() };
        Found { key, pod: Arc::new(pod), view: Arc::new(RwLock::new(view)) }
    }
    fn exit(instance: u32) -> Exit {
        let t = Timestamp::UNIX_EPOCH;
        Exit { code: 1, reason: "Error".into(), message: String::new(), started_at: t, finished_at: t, instance }
    }

    #[test]
    fn which_instance() {
        let t = Timestamp::UNIX_EPOCH;
        let running =
            Observed { stage: Stage::Running { since: t }, instances: 3, last: Some(exit(1)), ..Default::default() };
        let crashed = Observed { stage: Stage::Exited(exit(2)), instances: 3, ..Default::default() };
        let pulling = Observed {
            waiting: Some(Waiting { reason: "ErrImagePull".into(), message: "no such image".into() }),
            ..Default::default()
        };
        let cases = [
            (Some(running.clone()), "a", false, Ok(2)),
            (Some(running), "a", true, Ok(1)),
            (Some(crashed.clone()), "a", false, Ok(2)),
            (Some(crashed), "a", true, Ok(2)),
            (None, "a", false, Err("container \"a\" in pod \"p\" is waiting to start: ContainerCreating")),
            (
                Some(pulling),
                "a",
                false,
                Err("container \"a\" in pod \"p\" is waiting to start: ErrImagePull: no such image"),
            ),
            (None, "a", true, Err("previous terminated container \"a\" in pod \"p\" not found")),
            (None, "b", false, Err("container b is not valid for pod p")),
        ];
        for (seen, container, previous, expected) in cases {
            assert_eq!(instance(&found(seen), container, previous), expected.map_err(Into::into));
        }
    }

    #[test]
    fn queries() {
        let now = Timestamp::from_second(1000).unwrap();
        let parse =
            |pairs: &[(&str, &str)]| options(&pairs.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(), now);
        let got =
            parse(&[("follow", "true"), ("tailLines", "5"), ("sinceSeconds", "10"), ("timestamps", "true")]).unwrap();
        assert_eq!((got.follow, got.tail, got.timestamps), (true, Some(5), true));
        assert_eq!(got.since, Some(Timestamp::from_second(990).unwrap()));
        for bad in [("tailLines", "-1"), ("tailLines", "x"), ("limitBytes", "0"), ("sinceTime", "yesterday")] {
            assert!(parse(&[bad]).unwrap_err().contains(bad.0), "{bad:?}");
        }
    }
}
