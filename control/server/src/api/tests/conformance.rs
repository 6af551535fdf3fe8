//! Every built-in resource goes through every verb. A resource without an entry in [`minimal`] fails.

use copepod_core::resource::Resource;

use super::minimal::{self, Entry};
use super::*;

const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";
/// Kinds whose labels count as content, as upstream's do.
const LABELS_COUNT: [&str; 1] = ["EndpointSlice"];

#[tokio::test]
async fn every_resource_does_all() {
    let registry = kinds::builtin();
    let mut failed = Vec::new();
    for resource in registry.all().iter().filter(|r| r.is_stored()) {
        let (api_version, kind) = (resource.gvk().api_version(), &resource.names.kind);
        let entry = minimal::entries().into_iter().find(|e| e.0 == api_version && e.1 == kind);
        let Some(entry) = entry else {
            failed.push(format!("{api_version} {kind}: no entry in minimal.rs"));
            continue;
        };
        let resource = resource.clone();
        let ended = tokio::spawn(async move { round_trip(&resource, &entry).await }).await;
        failed.extend(ended.err().map(|_| format!("{api_version} {kind}: its failure is printed above")));
    }
    assert_eq!(failed, Vec::<String>::new());
}

/// Discovery, routes and strategies agree on the verbs.
#[tokio::test]
async fn no_resource_does_more_than_its_verbs() {
    let s = Server::start().await;
    for resource in kinds::builtin().all() {
        let (verbs, plural) = (resource.strategy.verbs(), &resource.names.plural);
        let api_version = resource.gvk().api_version();
        let root = if resource.names.group.is_empty() { "/api/v1".into() } else { format!("/apis/{api_version}") };
        let shown = s.get(&root).await.ok();
        let shown = shown["resources"].as_array().unwrap().iter().find(|r| r["name"] == *plural).unwrap();
        assert_eq!(shown["verbs"], json!(verbs), "{api_version} {plural}");
        let place = if resource.namespaced() { "/namespaces/default" } else { "" };
        let all = format!("{root}{place}/{plural}");
        let (one, watch) = (format!("{all}/none"), format!("{all}?watch=true&timeoutSeconds=1&resourceVersion=-1"));
        for (verb, method, path) in [
            ("create", "POST", &all),
            ("delete", "DELETE", &one),
            ("deletecollection", "DELETE", &all),
            ("get", "GET", &one),
            ("list", "GET", &all),
            ("patch", "PATCH", &one),
            ("update", "PUT", &one),
            ("watch", "GET", &watch),
        ] {
            let code = s
                .send(method, &format!("{path}{}", if path.contains('?') { "" } else { "?dryRun=All" }), &[], "{")
                .await
                .code;
            assert_eq!(code != 405, verbs.contains(&verb), "{verb} of {api_version} {plural}: {code}");
        }
    }
}

/// One resource on a server of its own.
async fn round_trip(resource: &Resource, (api_version, kind, object, status): &Entry) {
    let s = Server::start().await;
    let what = format!("{api_version} {kind}");
    let root = if resource.names.group.is_empty() { "/api/v1".into() } else { format!("/apis/{api_version}") };
    let place = if resource.namespaced() { "/namespaces/default" } else { "" };
    let all = format!("{root}{place}/{}", resource.names.plural);
    let mut object = object.clone();
    object["apiVersion"] = json!(api_version);
    object["kind"] = json!(kind);
    object["metadata"]["labels"] = json!({"round": "one"});
    let name = object["metadata"]["name"].as_str().unwrap().to_string();
    let one = format!("{all}/{name}");
    let mut watch = s.watch(&format!("{all}?watch=true&labelSelector=round")).await;

    // create, get, list
    let strict = s.post(&format!("{all}?fieldValidation=Strict&dryRun=All"), &object).await;
    assert_eq!(strict.code, 201, "{what}: {}", strict.text());
    s.get(&one).await.err(404);
    let made = s.post(&all, &object).await.ok();
    s.post(&all, &object).await.err(409);
    let generation = if resource.strategy.has_generation() { json!(1) } else { Value::Null };
    assert_eq!(made["metadata"]["generation"], generation, "{what}");
    assert_eq!(s.get(&one).await.ok(), made, "{what}");
    let list = s.get(&format!("{all}?labelSelector=round%3Done&fieldSelector=metadata.name%3D{name}")).await.ok();
    assert_eq!(list["kind"], json!(format!("{kind}List")));
    let mut item = list["items"][0].clone();
    item["apiVersion"] = json!(api_version);
    item["kind"] = json!(kind);
    assert_eq!((list["items"].as_array().unwrap().len(), &item), (1, &made), "{what}");
    for field in resource.strategy.field_names() {
        s.get(&format!("{all}?fieldSelector={field}%3Dx")).await.ok();
    }
    let table = s.get_as(&one, "application/json;as=Table;v=v1;g=meta.k8s.io").await.ok();
    let columns = table["columnDefinitions"].as_array().unwrap().len();
    assert_eq!(table["rows"][0]["cells"].as_array().unwrap().len(), columns, "{what}");

    // what was read is written back: nothing changes, in JSON and in protobuf
    assert_eq!(s.put(&one, &made).await.ok(), made, "{what}");
    let binary = s.get_as(&one, PROTOBUF).await;
    let back = s.send("PUT", &one, &[("content-type", PROTOBUF)], binary.body).await.ok();
    assert_eq!(back, made, "{what}");

    // three patches and an update
    let label = |value: &str| json!({"metadata": {"labels": {"round": value}}});
    s.patch(&one, "merge", &label("two")).await.ok();
    s.patch(&one, "strategic-merge", &label("three")).await.ok();
    let replace = json!([{"op": "replace", "path": "/metadata/labels/round", "value": "four"}]);
    let patched = s.patch(&one, "json", &replace).await.ok();
    assert_eq!(patched["metadata"]["labels"]["round"], "four", "{what}");
    let raised = patched["metadata"]["generation"] != generation;
    assert_eq!(raised, LABELS_COUNT.contains(kind), "{what}: whether labels raise the generation");
    s.put(&one, &made).await.err(409);
    let mut updated = patched.clone();
    updated["metadata"]["annotations"] = json!({"a": "b"});
    let updated = s.put(&one, &updated).await.ok();
    assert_eq!(updated["metadata"]["annotations"]["a"], "b", "{what}");

    let mut events = 5;
    if resource.subresources.status {
        write_status(&s, &one, &updated, status, &what).await;
        events += 1;
    } else {
        assert!(status.is_null(), "{what} has no /status");
        s.get(&format!("{one}/status")).await.err(404);
    }

    // delete
    s.delete(&format!("{one}?dryRun=All")).await.ok();
    s.get(&one).await.ok();
    // Named, because some kinds' default is to wait for the garbage collector.
    s.delete(&format!("{one}?propagationPolicy=Background")).await.ok();
    let is_namespace = kind == &"Namespace";
    if is_namespace {
        let mut ending = s.get(&one).await.ok();
        assert_eq!(ending["status"]["phase"], "Terminating");
        ending["spec"]["finalizers"] = json!([]);
        s.put(&format!("{one}/finalize"), &ending).await.ok();
        events += 1;
    }
    let unprotect = json!({"metadata": {"finalizers": null}});
    let is_protected = !made["metadata"]["finalizers"].is_null();
    if is_protected {
        assert!(s.get(&one).await.ok()["metadata"]["deletionTimestamp"].is_string(), "{what}");
        s.patch(&one, "merge", &unprotect).await.ok();
        events += 1;
    }
    s.get(&one).await.err(404);
    let mut seen = Vec::new();
    for _ in 0..=events {
        seen.push(watch.brief().await.replace(&name, "x"));
        if seen.last().is_some_and(|e| e == "DELETED x") {
            break;
        }
    }
    let changes = vec!["MODIFIED x"; events - 1];
    let expected: Vec<&str> = ["ADDED x"].into_iter().chain(changes).chain(["DELETED x"]).collect();
    assert_eq!(seen, expected, "{what}");

    // deletecollection
    if is_namespace {
        s.delete(&all).await.err(405);
        return;
    }
    s.post(&all, &object).await.ok();
    s.delete(&format!("{all}?labelSelector=round%3Dother")).await.ok();
    s.get(&one).await.ok();
    s.delete(&format!("{all}?labelSelector=round%3Done&propagationPolicy=Background")).await.ok();
    if is_protected {
        s.patch(&one, "merge", &unprotect).await.ok();
    }
    s.get(&one).await.err(404);
}

/// `/status` changes the status alone, and a write to the object itself does not.
async fn write_status(s: &Server, one: &str, object: &Value, status: &Value, what: &str) {
    let path = format!("{one}/status");
    let mut given = s.get(&path).await.ok();
    assert!(!status.is_null(), "{what} has /status, but no status in minimal.rs");
    given["status"] = status.clone();
    given["metadata"]["annotations"]["a"] = json!("b");
    let same = given["spec"].clone();
    if given["spec"].is_object() {
        given["spec"] = json!({});
    }
    let written = s.put(&path, &given).await.ok();
    for (key, value) in status.as_object().unwrap() {
        let shown = &written["status"][key];
        let has_all = match (value.as_array(), shown.as_array()) {
            (Some(want), Some(have)) => want.len() == have.len(),
            _ => shown == value,
        };
        assert!(has_all, "{what}: {key} is {shown}, not {value}");
    }
    assert_eq!(written["spec"], same, "{what}: /status leaves the spec alone");
    assert_eq!(written["metadata"]["generation"], object["metadata"]["generation"], "{what}");
    let mut main = written.clone();
    main["status"] = json!({});
    assert_eq!(s.put(one, &main).await.ok(), written, "{what}: the object's own URL leaves the status alone");
}
