//! What of a plan is written when the API refuses some of it.

use std::sync::{Arc, Mutex};

use copepod_core::controllers::{Target, meta};
use http::{Response, StatusCode};

use super::*;

/// An executor whose creates are answered so; and the methods of what it sent.
fn executor(code: u16, reason: &'static str) -> (Executor, Arc<Mutex<Vec<Method>>>) {
    let sent: Arc<Mutex<Vec<Method>>> = Arc::default();
    let log = sent.clone();
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        log.lock().unwrap().push(request.method().clone());
        let refused = request.method() == Method::POST;
        let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": reason, "code": code});
        let body = if refused { status } else { json!({"metadata": {"name": "web"}}) };
        let code = if refused { StatusCode::from_u16(code).unwrap() } else { StatusCode::OK };
        let response = Response::builder().status(code).body(kube::client::Body::from(body.to_string().into_bytes()));
        async move { Ok::<_, std::convert::Infallible>(response.unwrap()) }
    });
    (Executor::new(kube::Client::new(service, "shop")), sent)
}

fn plan(metadata: Value, status_observed: bool) -> Plan {
    let patch = json!({"status": {"replicas": 0}});
    Plan {
        actions: vec![Action::Create {
            target: Target::new(meta::pods(), "shop", ""),
            object: json!({"metadata": metadata}),
        }],
        status: Some(Action::Patch {
            target: Target::new(meta::replicasets(), "shop", "web"),
            subresource: "status",
            patch,
        }),
        status_observed,
        ..Plan::default()
    }
}

#[tokio::test]
async fn what_was_observed_is_written_though_an_action_is_refused() {
    let named = || json!({"name": "web-0"});
    let prefixed = || json!({"generateName": "web-"});
    // (code, reason, metadata, status is observed, refused, status is written)
    let cases = [
        (403, "Forbidden", named(), true, true, true),
        (403, "Forbidden", named(), false, true, false),
        (409, "Conflict", named(), true, false, false),
        (409, "AlreadyExists", named(), true, true, true),
        (409, "AlreadyExists", named(), false, true, false),
        (409, "AlreadyExists", prefixed(), true, false, false),
    ];
    for (code, reason, metadata, observed, refused, written) in cases {
        let (executor, sent) = executor(code, reason);
        let case = format!("{code} {reason} {metadata} {observed}");
        let (_, result) = executor.run(&plan(metadata, observed)).await;
        match result {
            Err(Failure::Refused(refusal)) => {
                assert!(refused && refusal.told() == Some(("FailedCreate", "creating")), "{case}");
            }
            Err(Failure::Stale) => assert!(!refused, "{case}"),
            Ok(()) => panic!("{case}"),
        }
        assert_eq!(sent.lock().unwrap().contains(&Method::PATCH), written, "{case}");
    }
}

#[test]
fn a_refused_patch_is_not_told_as_a_delete() {
    let target = || Target::new(meta::pods(), "shop", "web");
    let patch = Action::Patch { target: target(), subresource: "", patch: json!({}) };
    let propagation = copepod_core::controllers::Propagation::Background;
    let delete = Action::Delete { target: target(), propagation, uid: None, grace: None };
    for (action, told) in [(patch, None), (delete, Some(("FailedDelete", "deleting")))] {
        let status = kube::core::Status { code: 403, ..Default::default() };
        let Some(Failure::Refused(refusal)) = judge(&action, kube::Error::Api(status.boxed())) else {
            panic!("not refused");
        };
        assert_eq!((refusal.told(), refusal.target), (told, target()));
    }
}
