//! Bad input (bodies aside): each is answered with upstream's code, reason and words, and harms nobody else.

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::*;

pub(super) const JSON: &str = "application/json";

/// The refusal as `CODE reason: message`.
#[track_caller]
pub(super) fn refusal(answer: &Answer) -> String {
    let status = answer.json();
    assert_eq!((&status["kind"], &status["status"]), (&json!("Status"), &json!("Failure")), "{status}");
    assert_eq!(status["code"], answer.code, "{status}");
    let text = |field: &str| status[field].as_str().unwrap_or_default().to_owned();
    format!("{} {}: {}", answer.code, text("reason"), text("message"))
}

#[tokio::test]
async fn names_and_labels() {
    let s = Server::start().await;
    let subdomain = "a lowercase RFC 1123 subdomain must consist of";
    let long = "a".repeat(254);
    for (meta, words) in [
        (json!({"name": "Upper"}), vec!["metadata.name: Invalid value: \"Upper\": ", subdomain]),
        (json!({"name": "a_b"}), vec![subdomain]),
        (json!({"name": "-a"}), vec![subdomain]),
        (json!({"name": "a/b"}), vec!["metadata.name: Invalid value: \"a/b\""]),
        (json!({"name": "a\u{0}b"}), vec!["metadata.name: Invalid value"]),
        (json!({"name": "ä"}), vec![subdomain]),
        (json!({"name": long}), vec!["metadata.name", "must be no more than 253"]),
        (json!({"name": ".."}), vec!["metadata.name: Invalid value: \"..\""]),
        (
            json!({"name": "a", "labels": {"a b": "c"}}),
            vec!["metadata.labels: Invalid value: \"a b\": name part must consist of"],
        ),
        (
            json!({"name": "a", "labels": {"/a": "c"}}),
            vec!["metadata.labels: Invalid value: \"/a\": prefix part must be non-empty"],
        ),
        (
            json!({"name": "a", "labels": {"a/b/c": "d"}}),
            vec!["metadata.labels: Invalid value: \"a/b/c\": a qualified name must"],
        ),
        (
            json!({"name": "a", "labels": {"": "d"}}),
            vec!["metadata.labels: Invalid value: \"\": name part must be non-empty"],
        ),
        (
            json!({"name": "a", "labels": {"a": "b c"}}),
            vec!["metadata.labels: Invalid value: \"b c\": a valid label must"],
        ),
        (
            json!({"name": "a", "labels": {"a": "b".repeat(64)}}),
            vec!["metadata.labels: Invalid value", "must be no more than 63"],
        ),
        (
            json!({"name": "a", "annotations": {"a b": "c"}}),
            vec!["metadata.annotations: Invalid value: \"a b\": name part"],
        ),
        (
            json!({"name": "a", "annotations": {"a": "c".repeat(262_145)}}),
            vec!["metadata.annotations: Too long: may not be more than 262144 bytes"],
        ),
        (json!({"name": "a", "finalizers": ["a b"]}), vec!["metadata.finalizers", "a b"]),
        (json!({"name": "a", "ownerReferences": [{"kind": "Pod"}]}), vec!["metadata.ownerReferences"]),
    ] {
        let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta});
        let got = refusal(&s.post(CONFIG_MAPS, &object).await);
        assert!(got.starts_with("422 Invalid: ConfigMap \""), "{got}");
        for word in words {
            assert!(got.contains(word), "{word:?} in {}", got.chars().take(1000).collect::<String>());
        }
    }
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"labels": {"a": 1}, "name": "a"}});
    let got = refusal(&s.post(CONFIG_MAPS, &object).await);
    assert!(got.starts_with("400 BadRequest") && got.contains("cannot unmarshal number"), "{got}");
    // A hundred of a hundred thousand are shown.
    let labels: serde_json::Map<_, _> = (0..100_000).map(|i| (format!("a {i}"), json!("b"))).collect();
    let object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": labels}});
    let answer = s.post(CONFIG_MAPS, &object).await;
    answer.err(422);
    assert_eq!(answer.json()["details"]["causes"].as_array().unwrap().len(), 100);
    let ns = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "a.b"}});
    let got = refusal(&s.post("/api/v1/namespaces", &ns).await);
    assert!(
        got.starts_with("422 Invalid: Namespace \"a.b\" is invalid: metadata.name")
            && got.contains("must not contain dots"),
        "{got}"
    );
}

#[tokio::test]
async fn selectors() {
    let s = Server::start().await;
    for (query, want) in [
        ("labelSelector=a+in+(", "unable to parse requirement: found '', expected: ',' or ')'"),
        ("labelSelector=a+b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("labelSelector=!", "unable to parse requirement: found '', expected: identifier"),
        ("labelSelector=a%3D%3D%3D", "unable to parse requirement: "),
        ("labelSelector=-a", "unable to parse requirement: "),
        ("labelSelector=a%3Db+c", "found 'c', expected: ',' or 'end of string'"),
        ("labelSelector=a%3E1.5", "unable to parse requirement: "),
        ("fieldSelector=metadata.name", "invalid selector: 'metadata.name'; can't understand 'metadata.name'"),
        (
            "fieldSelector=data.x%3D1",
            "\"data.x\" is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
        ),
        ("fieldSelector=metadata.name%3Da%5Cx", "invalid field selector: "),
    ] {
        for (method, more) in [("GET", ""), ("GET", "&watch=true"), ("DELETE", "")] {
            let path = format!("{CONFIG_MAPS}?{query}{more}");
            let got = refusal(&s.send(method, &path, &[], Body::empty()).await);
            assert!(got.starts_with(&format!("400 BadRequest: {want}")), "{method} {path}: {got}");
        }
    }
    let pods = "/api/v1/namespaces/default/pods?fieldSelector=spec.x%3D1";
    assert_eq!(refusal(&s.get(pods).await), "400 BadRequest: field label not supported: spec.x");
    // A selector of thousands of terms is no problem.
    let many: Vec<String> = (0..5000).map(|i| format!("a{i}")).collect();
    s.get(&format!("{CONFIG_MAPS}?labelSelector=a+in+({})", many.join(","))).await.ok();
}

#[tokio::test]
async fn patches() {
    let s = Server::start().await;
    s.post(CONFIG_MAPS, &config_map("a", json!({"k": "v"}))).await.ok();
    let (json, merge, strategic, apply) = ("json", "merge", "strategic-merge", "apply");
    let rejected = "422 Invalid: the server rejected our request due to an error in our request";
    let unfit = "422 Invalid:  \"\" is invalid: patch: Invalid value: \"";
    let many: Vec<Value> = (0..10_001).map(|_| json!({"op": "test", "path": "/kind", "value": "ConfigMap"})).collect();
    let growing: Vec<Value> =
        (0..40).map(|i| json!({"op": "copy", "from": "/data", "path": format!("/data/{i}")})).collect();
    let (many, growing) = (json!(many).to_string(), json!(growing).to_string());
    for (kind, body, want) in [
        (json, "{", "400 BadRequest: error decoding patch: "),
        (json, "{}", "400 BadRequest: "),
        (json, r#"[{"op": "burn", "path": "/a"}]"#, "400 BadRequest: "),
        (json, r#"[{"op": "test", "path": "/data/k", "value": "w"}]"#, rejected),
        (json, r#"[{"op": "remove", "path": "/data/none"}]"#, rejected),
        (json, r#"[{"op": "add", "path": "/none/deeper", "value": 1}]"#, rejected),
        (json, r#"[{"op": "replace", "path": "/data", "value": 1}]"#, unfit),
        (json, r#"[{"op": "replace", "path": "", "value": 1}]"#, "400 BadRequest: "),
        (json, &many, "413 RequestEntityTooLarge: The allowed maximum operations in a JSON patch is 10000, got 10001"),
        (json, &growing, "413 RequestEntityTooLarge: Unable to copy, the accumulated size increase of copy is "),
        (merge, "{", "400 BadRequest: error decoding patch: "),
        (merge, "[]", "400 BadRequest: "),
        (merge, r#"{"data": {"k": 1}}"#, unfit),
        (merge, r#"{"kind": "Secret"}"#, "400 BadRequest: "),
        (
            merge,
            r#"{"metadata": {"name": "b"}}"#,
            "400 BadRequest: the name of the object (b) does not match the name on the URL (a)",
        ),
        (
            merge,
            r#"{"metadata": {"resourceVersion": "1"}}"#,
            "409 Conflict: Operation cannot be fulfilled on configmaps \"a\": the object has been modified",
        ),
        (merge, r#"{"metadata": {"uid": "other"}}"#, "409 Conflict: "),
        (strategic, "{", "400 BadRequest: "),
        (strategic, "[]", "400 BadRequest: "),
        (strategic, r#"{"$patch": "burn"}"#, rejected),
        (strategic, r#"{"metadata": {"finalizers": ["x/y"], "$setElementOrder/finalizers": ["z"]}}"#, rejected),
        (strategic, r#"{"data": {"k": [1]}}"#, unfit),
        (apply, "{", "400 BadRequest: error decoding patch: "),
        (apply, "a: &a [*a]", "400 BadRequest: error decoding patch: "),
        (apply, "[]", "400 BadRequest: "),
        (apply, r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}"#, "400 BadRequest: "),
        (
            apply,
            r#"{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"k": 1}}"#,
            "500 : failed to create typed patch object (default/a; /v1, Kind=ConfigMap): ",
        ),
    ] {
        let (media, query) = match kind {
            "apply" => ("application/apply-patch+yaml".to_owned(), "?fieldManager=m"),
            other => (format!("application/{other}-patch+json"), ""),
        };
        let path = format!("{CONFIG_MAPS}/a{query}");
        let got = refusal(&s.send("PATCH", &path, &[("content-type", &media)], body.to_owned()).await);
        assert!(got.starts_with(want), "{kind} {body}: {got}", body = body.chars().take(100).collect::<String>());
    }
    let strict = s
        .send(
            "PATCH",
            &format!("{CONFIG_MAPS}/a?fieldValidation=Strict"),
            &[("content-type", "application/merge-patch+json")],
            r#"{"odd": 1}"#,
        )
        .await;
    let got = refusal(&strict);
    assert!(got.starts_with(unfit) && got.ends_with("strict decoding error: unknown field \"odd\""), "{got}");
    assert!(got.contains("\\\"odd\\\":1"), "what was patched is shown: {got}");
    for media in ["", "application/json", "text/plain"] {
        let got = refusal(&s.send("PATCH", &format!("{CONFIG_MAPS}/a"), &[("content-type", media)], "{}").await);
        let want = "415 UnsupportedMediaType: the body of the request was in an unknown format - accepted media types \
                    include: application/json-patch+json, application/merge-patch+json, \
                    application/strategic-merge-patch+json, application/apply-patch+yaml";
        assert_eq!(got, want, "{media:?}");
    }
    assert_eq!(s.get(&format!("{CONFIG_MAPS}/a")).await.ok()["data"], json!({"k": "v"}));
}

#[tokio::test]
async fn options() {
    let s = Server::start().await;
    s.post(CONFIG_MAPS, &config_map("a", json!({}))).await.ok();
    let current = s.store.current_revision();
    let token = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let forged = |rv: i64, start: &str| token(json!({"v": "meta.k8s.io/v1", "rv": rv, "start": start}));
    let invalid_key = "400 BadRequest: continue key is not valid";
    let invalid_rv = |v: &str, why: &str| {
        format!(
            "400 BadRequest: invalid resource version: resourceVersion: Invalid value: \"{v}\": strconv.ParseUint: parsing \"{v}\": {why}"
        )
    };
    let future = format!("504 Timeout: Timeout: Too large resource version: 99999, current: {current}");
    for (method, query, want) in [
        ("GET", "limit=x".to_owned(), "400 BadRequest: strconv.ParseInt: parsing \"x\": invalid syntax".to_owned()),
        ("GET", "limit=99999999999999999999".into(), "400 BadRequest: strconv.ParseInt: parsing \"99999999999999999999\": value out of range".into()),
        ("GET", "watch=true&timeoutSeconds=x".into(), "400 BadRequest: strconv.ParseInt: parsing \"x\": invalid syntax".into()),
        ("GET", "resourceVersion=x".into(), invalid_rv("x", "invalid syntax")),
        ("GET", "resourceVersion=-1".into(), invalid_rv("-1", "invalid syntax")),
        ("GET", "resourceVersion=%2B1".into(), invalid_rv("+1", "invalid syntax")),
        ("GET", "resourceVersion=99999999999999999999".into(), invalid_rv("99999999999999999999", "value out of range")),
        ("GET", "resourceVersion=99999".into(), future.clone()),
        ("GET", "resourceVersion=99999&resourceVersionMatch=Exact".into(), future.clone()),
        ("GET", "watch=true&resourceVersion=99999".into(), future),
        ("GET", "watch=true&resourceVersion=x".into(), invalid_rv("x", "invalid syntax")),
        ("GET", "continue=x".into(), invalid_key.into()),
        ("GET", "continue=%25%25".into(), invalid_key.into()),
        ("GET", format!("continue={}", token(json!([]))), invalid_key.into()),
        ("GET", format!("continue={}", token(json!({"v": "v9", "rv": 1, "start": "a"}))), format!("{invalid_key}: server does not recognize this encoded version")),
        ("GET", format!("continue={}", forged(0, "a")), format!("{invalid_key}: incorrect encoded start resourceVersion (version meta.k8s.io/v1)")),
        ("GET", format!("continue={}", forged(1, "")), format!("{invalid_key}: encoded start key empty (version meta.k8s.io/v1)")),
        ("GET", format!("continue={}", forged(1, "../../secrets/a")), invalid_key.into()),
        ("GET", format!("continue={}", forged(99_999, "a")), "504 Timeout: ".into()),
        ("GET", format!("continue={}&resourceVersion=1", forged(1, "a")), "400 BadRequest: specifying resource version is not allowed when using continue".into()),
        ("POST", "fieldValidation=Odd".into(), "422 Invalid: CreateOptions.meta.k8s.io \"\" is invalid: fieldValidation: Unsupported value: \"Odd\": supported values: \"\", \"Ignore\", \"Strict\", \"Warn\"".into()),
        ("POST", "dryRun=Some".into(), "422 Invalid: CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: []string{\"Some\"}: supported values: \"All\"".into()),
        ("POST", "dryRun=All&dryRun=Some".into(), "422 Invalid: CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: []string{\"All\", \"Some\"}: supported values: \"All\"".into()),
        ("POST", format!("fieldManager={}", "m".repeat(129)), "422 Invalid: CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Too long: may not be more than 128 bytes".into()),
        ("POST", "fieldManager=a%07".into(), "422 Invalid: CreateOptions.meta.k8s.io \"\" is invalid: fieldManager: Invalid value: ".into()),
        ("DELETE", "propagationPolicy=Odd".into(), "422 Invalid: DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Unsupported value: \"Odd\": supported values: \"Foreground\", \"Background\", \"Orphan\", \"nil\"".into()),
        ("DELETE", "propagationPolicy=Orphan&orphanDependents=true".into(), "422 Invalid: DeleteOptions.meta.k8s.io \"\" is invalid: propagationPolicy: Invalid value: \"Orphan\": orphanDependents and deletionPropagation cannot be both set".into()),
        ("DELETE", "gracePeriodSeconds=x".into(), "400 BadRequest: strconv.ParseInt: parsing \"x\": invalid syntax".into()),
        ("DELETE", "dryRun=Some".into(), "422 Invalid: DeleteOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: []string{\"Some\"}: supported values: \"All\"".into()),
    ] {
        let path = format!("{CONFIG_MAPS}?{query}");
        let body = if method == "POST" { config_map("b", json!({})).to_string() } else { String::new() };
        let answer = s.send(method, &path, &[("content-type", JSON)], body).await;
        let got = refusal(&answer);
        assert!(got.starts_with(&want), "{method} {path}: {got}");
        if got.contains("Too large resource version") {
            assert_eq!(answer.headers["retry-after"], "1");
            let want = json!({"retryAfterSeconds": 1, "causes": [
                {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}]});
            assert_eq!(answer.json()["details"], want);
        }
    }
    for (body, want) in [
        (json!({"propagationPolicy": "Odd"}), "422 Invalid: DeleteOptions.meta.k8s.io"),
        (json!({"dryRun": ["Some"]}), "422 Invalid: DeleteOptions.meta.k8s.io"),
        (
            json!({"gracePeriodSeconds": "x"}),
            "400 BadRequest: DeleteOptions in version \"v1\" cannot be handled as a DeleteOptions: json: cannot unmarshal string",
        ),
        (json!({"kind": "Pod"}), "400 BadRequest: "),
        (
            json!({"preconditions": {"uid": "other"}}),
            "409 Conflict: Operation cannot be fulfilled on configmaps \"a\": ",
        ),
        (
            json!({"preconditions": {"resourceVersion": "1"}}),
            "409 Conflict: Operation cannot be fulfilled on configmaps \"a\": ",
        ),
        (json!([]), "400 BadRequest: "),
    ] {
        let got = refusal(&s.delete_with(&format!("{CONFIG_MAPS}/a"), &body).await);
        assert!(got.starts_with(want), "{body}: {got}");
    }
    // What upstream passes over, or takes as something else.
    for query in
        ["odd=1&limit=&x", "limit=-5", "limit=0", "resourceVersion=0", "dryRun=Some", "fieldValidation=Odd", "%zz=%zz"]
    {
        assert_eq!(
            s.get(&format!("{CONFIG_MAPS}?{query}")).await.ok()["items"].as_array().unwrap().len(),
            1,
            "{query}"
        );
    }
    s.delete(&format!("{CONFIG_MAPS}/a?gracePeriodSeconds=-5&odd=1")).await.ok();
}

#[tokio::test]
async fn paths_methods_and_accept() {
    let s = Server::start().await;
    s.post(CONFIG_MAPS, &config_map("a", json!({}))).await.ok();
    let nothing = "404 NotFound: the server could not find the requested resource";
    for path in [
        "/api/v1/namespaces/default/configmaps/a%2Fb",
        "/api/v1/namespaces/default%2Fconfigmaps/a",
        "/api/v1/namespaces/default/configmaps/..%2F..%2Fsecrets",
        "/api/v1/namespaces/default/configmaps/%2e%2e",
        "/api/v1/namespaces/default/configmaps/../secrets/a",
        "/api/v1/namespaces/../configmaps",
        "/api/v1/namespaces//configmaps",
        "/api/v1/namespaces/default/configmaps/a%00",
        "/api/v1/namespaces/default/configmaps/%ff",
        "/api/v1/namespaces/default/configmaps/%zz",
        "/api/v1/namespaces/default/configmaps/a/status",
        "/api/v1/namespaces/default/configmaps/a/b/c",
        "/api/v1/namespaces/default/nodes/a",
        "/apis/none/v1/things",
        "/api/v9/pods",
        "/etc/passwd",
    ] {
        assert_eq!(refusal(&s.get(path).await), nothing, "{path}");
    }
    let not_allowed = "405 MethodNotAllowed: the server does not allow this method on the requested resource";
    let one = format!("{CONFIG_MAPS}/a");
    for (method, path) in [
        ("POST", &*one),
        ("PUT", CONFIG_MAPS),
        ("PATCH", CONFIG_MAPS),
        ("FOO", CONFIG_MAPS),
        ("DELETE", "/api/v1/configmaps"),
    ] {
        assert_eq!(
            refusal(&s.send(method, path, &[("content-type", JSON)], "{}").await),
            not_allowed,
            "{method} {path}"
        );
    }
    for accept in ["text/html", "application/json;as=Odd;v=v1;g=meta.k8s.io", "application/json;q=0", "image/*"] {
        for path in [CONFIG_MAPS, &one, "/api", "/apis"] {
            let got = refusal(&s.get_as(path, accept).await);
            let want = "406 NotAcceptable: only the following media types are accepted: application/json, application/yaml, \
                        application/vnd.kubernetes.protobuf";
            assert_eq!(got, want, "{path} {accept}");
        }
    }
    let got = refusal(&s.get_as(&format!("{CONFIG_MAPS}?watch=true"), "application/yaml").await);
    assert!(got.starts_with("406 NotAcceptable: only the following media types are accepted: "), "{got}");
}

#[tokio::test]
async fn thousands_of_idle_watches() {
    let s = Server::start().await;
    let path = format!("{CONFIG_MAPS}?watch=true&resourceVersion={}", s.store.current_revision());
    let mut watches = Vec::new();
    for _ in 0..2000 {
        watches.push(s.watch(&path).await);
    }
    let metrics = s.get("/metrics").await.text();
    assert!(metrics.contains("apiserver_registered_watchers{resource=\"configmaps\"} 2000"), "{metrics}");
    // None of them holds a place of others, and all hear of what happens.
    let made = s.post(CONFIG_MAPS, &config_map("a", json!({}))).await.ok();
    assert_eq!(s.get(CONFIG_MAPS).await.ok()["items"], json!([made]));
    for watch in &mut watches {
        assert_eq!(watch.brief().await, "ADDED a");
    }
}
