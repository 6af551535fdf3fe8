//! Reviews: one identity and one authorizer answer; and the approval of signing requests.

use super::*;
use crate::authorization::{Attributes, Authorizer, Decision, On, ResourceRule, Rules};
use crate::identity::Identity;

const AUTHENTICATION: &str = "/apis/authentication.k8s.io/v1";
const AUTHORIZATION: &str = "/apis/authorization.k8s.io/v1";

/// Lets `reader` get pods in `a`, with a reason.
struct Readers;

impl Authorizer for Readers {
    fn authorize(&self, identity: &Identity, attributes: &Attributes) -> Decision {
        let allowed = matches!(&attributes.on, On::Resource(t) if t.resource == "pods" && t.namespace.as_deref() == Some("a"))
            && attributes.verb == "get"
            && (identity.user == "reader" || identity.in_group("readers"));
        Decision { allowed, reason: "by the test".into() }
    }
    fn rules(&self, identity: &Identity, namespace: &str) -> Rules {
        let rule = ResourceRule {
            verbs: vec![identity.user.clone()],
            api_groups: vec![String::new()],
            resources: vec![namespace.into()],
        };
        Rules { resources: vec![rule], paths: Vec::new() }
    }
}

async fn ask(s: &Server, path: &str, kind: &str, spec: Value, who: Identity) -> Answer {
    let api = path.trim_start_matches("/apis/").split('/').take(2).collect::<Vec<_>>().join("/");
    let body = json!({"apiVersion": api, "kind": kind, "metadata": {"creationTimestamp": null}, "spec": spec});
    let mut request =
        Request::post(path).header("content-type", "application/json").body(Body::from(body.to_string())).unwrap();
    request.extensions_mut().insert(who);
    let response = s.router.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    Answer {
        code: parts.status.as_u16(),
        headers: parts.headers,
        body: body.collect().await.unwrap().to_bytes().to_vec(),
    }
}

#[tokio::test]
async fn who_am_i_and_whose_is_this_token() {
    let s = Server::start().await;
    let alice = || Identity::new("alice", &["staff"]);
    let me = ask(&s, &format!("{AUTHENTICATION}/selfsubjectreviews"), "SelfSubjectReview", Value::Null, alice()).await;
    assert_eq!(me.code, 201);
    let info = json!({"username": "alice", "groups": ["staff", "system:authenticated"]});
    assert_eq!(me.ok()["status"]["userInfo"], info);
    let tokens = format!("{AUTHENTICATION}/tokenreviews");
    let wrong = ask(&s, &tokens, "TokenReview", json!({"token": "x"}), alice()).await.ok();
    assert_eq!(wrong["status"]["authenticated"], false);
    ask(&s, &tokens, "TokenReview", json!({}), alice()).await.err(400);
    for (method, code) in [("GET", 405), ("DELETE", 405)] {
        s.send(method, &tokens, &[], Body::empty()).await.err(code);
    }
    s.get(&format!("{tokens}/x")).await.err(405);
    let listed = s.get(AUTHENTICATION).await.ok();
    assert!(listed["resources"].as_array().unwrap().iter().all(|r| r["verbs"] == json!(["create"])), "{listed}");
    assert!(!s.get("/metrics").await.text().contains("resource=\"tokenreviews.authentication.k8s.io\"} 0"));
}

#[tokio::test]
async fn access_is_the_authorizers_answer() {
    let s = Server::guarded_by(Arc::new(Readers)).await;
    let pods = |namespace: &str, verb: &str| json!({"resourceAttributes": {"verb": verb, "resource": "pods", "version": "v1", "namespace": namespace}});
    let who = |user: &str| Identity::new(user, &[]);
    let own = format!("{AUTHORIZATION}/selfsubjectaccessreviews");
    for (user, namespace, verb, allowed) in [
        ("reader", "a", "get", true),
        ("reader", "a", "create", false),
        ("reader", "b", "get", false),
        ("other", "a", "get", false),
    ] {
        let answer = ask(&s, &own, "SelfSubjectAccessReview", pods(namespace, verb), who(user)).await.ok();
        assert_eq!(answer["status"], json!({"allowed": allowed, "reason": "by the test"}), "{user} {verb} {namespace}");
        assert_eq!(answer["spec"], pods(namespace, verb));
    }
    let path = json!({"nonResourceAttributes": {"verb": "get", "path": "/metrics"}});
    let answer = ask(&s, &own, "SelfSubjectAccessReview", path, who("reader")).await.ok();
    assert_eq!(answer["status"]["allowed"], false);

    // Of others: by user or by group, here or in one namespace.
    let of = |mut spec: Value, user: &str, groups: Value| {
        spec["user"] = json!(user);
        spec["groups"] = groups;
        spec
    };
    let all = format!("{AUTHORIZATION}/subjectaccessreviews");
    let by_group = of(pods("a", "get"), "", json!(["readers"]));
    assert_eq!(ask(&s, &all, "SubjectAccessReview", by_group, who("x")).await.ok()["status"]["allowed"], true);
    ask(&s, &all, "SubjectAccessReview", pods("a", "get"), who("x")).await.err(422);
    // No namespace needs to be there to be asked about.
    let local = format!("{AUTHORIZATION}/namespaces/a/localsubjectaccessreviews");
    let by_user = of(pods("a", "get"), "reader", json!([]));
    let answer = ask(&s, &local, "LocalSubjectAccessReview", by_user, who("x")).await.ok();
    assert_eq!(answer["status"]["allowed"], true);
    let elsewhere = of(pods("b", "get"), "reader", json!([]));
    ask(&s, &local, "LocalSubjectAccessReview", elsewhere, who("x")).await.err(422);

    let rules = format!("{AUTHORIZATION}/selfsubjectrulesreviews");
    let answer = ask(&s, &rules, "SelfSubjectRulesReview", json!({"namespace": "a"}), who("reader")).await.ok();
    assert_eq!(
        answer["status"],
        json!({"resourceRules": [{"verbs": ["reader"], "apiGroups": [""], "resources": ["a"]}],
            "nonResourceRules": [], "incomplete": false})
    );
    ask(&s, &rules, "SelfSubjectRulesReview", json!({}), who("reader")).await.err(400);
}

#[tokio::test]
async fn signing_requests_are_approved_through_their_own_subresource() {
    let s = Server::start().await;
    let all = "/apis/certificates.k8s.io/v1/certificatesigningrequests";
    let entry = minimal::entries().into_iter().find(|e| e.1 == "CertificateSigningRequest").unwrap();
    let mut spec = entry.2["spec"].clone();
    spec["username"] = json!("mallory");
    let mut body = json!({"apiVersion": entry.0, "kind": entry.1, "metadata": {"name": "a"}, "spec": spec});
    let made = s.post(all, &body).await.ok();
    assert_eq!(made["spec"]["username"], "system:anonymous", "the requester is who asks");
    body["spec"]["request"] = json!("eA==");
    let refused = s.post(all, &body).await.err(422);
    assert!(refused.contains("PEM block type must be CERTIFICATE REQUEST"), "{refused}");

    let approved = json!({"conditions": [{"type": "Approved", "status": "True", "reason": "Test"}]});
    let mut given = made.clone();
    given["status"] = approved.clone();
    let ignored = s.put(&format!("{all}/a/status"), &given).await.ok();
    assert!(ignored["status"]["conditions"].is_null(), "/status does not approve: {ignored}");
    given["status"]["certificate"] = json!("eA==");
    let done = s.put(&format!("{all}/a/approval"), &given).await.ok();
    assert_eq!(
        (&done["status"]["conditions"][0]["type"], &done["status"]["certificate"]),
        (&json!("Approved"), &Value::Null)
    );
    assert_eq!(done["status"]["conditions"][0]["lastUpdateTime"], "2026-01-01T00:00:00Z");
    s.put(&format!("{all}/a/approval"), &given).await.err(409);
    let gone = json!({"status": {"conditions": []}});
    s.patch(&format!("{all}/a/approval"), "merge", &gone).await.err(422);
    assert_eq!(s.get(&format!("{all}/a/approval")).await.ok(), done);
}
