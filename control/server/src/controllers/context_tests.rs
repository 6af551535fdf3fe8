//! What is waited for after a write.

use std::time::Duration;

use copepod_api::Gvr;
use copepod_core::controllers::{Action, Target};
use http::{Request, Response};
use k8s_openapi::api::core::v1::Pod;
use kube::client::Body;
use kube::runtime::watcher::Event;
use serde_json::json;

use super::*;
use crate::api::system_clock;

/// A context whose writes are all granted at revision 9.
fn context(caches: Arc<Caches>, tasks: &mut JoinSet<()>) -> Context {
    let service = tower::service_fn(|_: Request<Body>| async {
        let body = json!({"metadata": {"name": "web-1", "resourceVersion": "9"}});
        Ok::<_, std::convert::Infallible>(Response::new(Body::from(body.to_string().into_bytes())))
    });
    let config = Config {
        ca_pem: String::new(),
        components: Arc::default(),
        clock: system_clock(),
        seed: 1,
        profiles: Vec::new(),
        terminated_pods: 1,
    };
    Context::new(kube::Client::new(service, "shop"), "test", caches, &config, CancellationToken::new(), tasks)
}

fn creates(gvr: Gvr) -> Plan {
    let object = json!({"metadata": {"generateName": "web-"}});
    Plan { actions: vec![Action::Create { target: Target::new(gvr, "shop", ""), object }], ..Plan::default() }
}

#[tokio::test(start_paused = true)]
async fn nobody_decides_again_before_what_it_wrote_is_seen() {
    let (mut tasks, caches) = (JoinSet::new(), Arc::new(Caches::default()));
    let (events, watch) = futures::channel::mpsc::unbounded();
    let pods = caches.pods.clone();
    tasks.spawn(async move { pods.follow(watch).await });
    let context = context(caches, &mut tasks);

    // What no cache holds is not waited for, whatever its name.
    let others = Gvr { group: "example.com".into(), version: "v1".into(), resource: "pods".into() };
    for gvr in [others, meta::v1("", "secrets"), meta::v1("", "configmaps")] {
        let (plan, about) = (creates(gvr.clone()), ObjectReference::default());
        let applied = tokio::time::timeout(Duration::from_secs(1), context.apply(&plan, &about, ""));
        assert_eq!(applied.await.map(|(_, outcome, _)| outcome), Ok(Outcome::Done), "{gvr:?}");
    }

    let apply =
        tokio::spawn(async move { context.apply(&creates(meta::pods()), &ObjectReference::default(), "").await.1 });
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!apply.is_finished(), "the watch lags");
    let mut pod = Pod::default();
    pod.metadata.resource_version = Some("9".into());
    events.unbounded_send(Event::Apply(pod)).unwrap();
    assert_eq!(apply.await.unwrap(), Outcome::Done);
}

#[test]
fn a_decision_on_one_workload_does_not_wait_for_anothers() {
    let failures = Failures::default();
    let key = |name: &str| Key::new("shop", name);
    let both = failures.with(&key("a"), |_| failures.with(&key("b"), |_| true));
    assert!(both);
    failures.forget(&key("a"));
}
