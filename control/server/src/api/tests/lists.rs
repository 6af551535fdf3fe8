//! Lists: selectors, pages, revisions, tables, discovery.

use super::*;

async fn three(s: &Server) {
    for (name, app) in [("a", "x"), ("b", "y"), ("c", "x")] {
        let mut object = config_map(name, json!({}));
        object["metadata"]["labels"] = json!({"app": app});
        s.post(CONFIG_MAPS, &object).await.ok();
    }
}

fn names(list: &Value) -> String {
    let items = list["items"].as_array().unwrap();
    items.iter().map(|i| i["metadata"]["name"].as_str().unwrap()).collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn selectors() {
    let s = Server::start().await;
    three(&s).await;
    for (query, want) in [
        ("", "a b c"),
        ("?labelSelector=app%3Dx", "a c"),
        ("?labelSelector=app+in+(y,z)", "b"),
        ("?labelSelector=!app", ""),
        ("?fieldSelector=metadata.name%3Db", "b"),
        ("?fieldSelector=metadata.name!%3Db", "a c"),
        ("?fieldSelector=metadata.name%3Db&labelSelector=app%3Dx", ""),
        ("?fieldSelector=metadata.namespace%3Dother", ""),
    ] {
        let list = s.get(&format!("{CONFIG_MAPS}{query}")).await.ok();
        assert_eq!((names(&list).as_str(), &list["kind"]), (want, &json!("ConfigMapList")), "{query}");
    }
    assert_eq!(names(&s.get("/api/v1/configmaps?fieldSelector=metadata.namespace%3Ddefault").await.ok()), "a b c");
}

#[tokio::test]
async fn pages_are_of_one_revision() {
    let s = Server::start().await;
    three(&s).await;
    for query in ["limit=2", "limit=1&labelSelector=app%3Dx"] {
        let first = s.get(&format!("{CONFIG_MAPS}?{query}")).await.ok();
        let token = first["metadata"]["continue"].as_str().unwrap();
        // What comes in between is not seen.
        s.post(CONFIG_MAPS, &config_map("z", json!({}))).await.ok();
        s.delete(&format!("{CONFIG_MAPS}/c")).await.ok();
        let second = s.get(&format!("{CONFIG_MAPS}?{query}&continue={token}")).await.ok();
        assert_eq!((names(&second).as_str(), second["metadata"].get("continue")), ("c", None), "{query}");
        assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
        s.delete(&format!("{CONFIG_MAPS}/z")).await.ok();
        let mut c = config_map("c", json!({}));
        c["metadata"]["labels"] = json!({"app": "x"});
        s.post(CONFIG_MAPS, &c).await.ok();
    }
    let first = s.get(&format!("{CONFIG_MAPS}?limit=2")).await.ok();
    assert_eq!(first["metadata"]["remainingItemCount"], 1);
    s.get(&format!("{CONFIG_MAPS}?limit=2&continue=nonsense")).await.err(400);
}

#[tokio::test]
async fn old_revisions_are_gone() {
    let s = Server::start().await;
    three(&s).await;
    let first = s.get(&format!("{CONFIG_MAPS}?limit=1")).await.ok();
    let (token, old) = (first["metadata"]["continue"].as_str().unwrap(), revision(&first));
    s.post(CONFIG_MAPS, &config_map("d", json!({}))).await.ok();
    s.store.compact(s.store.current_revision()).await.unwrap();
    let gone = s.get(&format!("{CONFIG_MAPS}?limit=1&continue={token}")).await;
    assert!(gone.err(410).starts_with("The provided continue parameter is too old"));
    assert_eq!(gone.json()["reason"], "Expired");
    // The Status carries a token that goes on at the present.
    let token = gone.json()["metadata"]["continue"].as_str().unwrap().to_string();
    assert_eq!(names(&s.get(&format!("{CONFIG_MAPS}?continue={token}")).await.ok()), "b c d");
    s.get(&format!("{CONFIG_MAPS}?resourceVersion={old}&resourceVersionMatch=Exact")).await.err(410);
    assert_eq!(names(&s.get(&format!("{CONFIG_MAPS}?resourceVersion={old}")).await.ok()), "a b c d");
}

#[tokio::test]
async fn revisions() {
    let s = Server::start().await;
    three(&s).await;
    let now = s.store.current_revision();
    s.post(CONFIG_MAPS, &config_map("d", json!({}))).await.ok();
    let exact = s.get(&format!("{CONFIG_MAPS}?resourceVersion={now}&resourceVersionMatch=Exact")).await.ok();
    assert_eq!((names(&exact).as_str(), revision(&exact)), ("a b c", now));
    for (query, code) in [
        ("resourceVersionMatch=Exact", 422),
        ("resourceVersion=1&resourceVersionMatch=Odd", 422),
        ("resourceVersion=999999", 504),
        ("resourceVersion=x", 400),
        ("limit=x", 400),
    ] {
        s.get(&format!("{CONFIG_MAPS}?{query}")).await.err(code);
    }
    s.get(&format!("{CONFIG_MAPS}/a?resourceVersion=999999")).await.err(504);
}

#[tokio::test]
async fn tables_and_metadata() {
    let s = Server::start().await;
    three(&s).await;
    *s.now.lock() = "2026-01-01T00:05:00Z".parse().unwrap();
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
    let table = s.get_as(CONFIG_MAPS, accept).await.ok();
    assert_eq!(table["kind"], "Table");
    let columns: Vec<&str> =
        table["columnDefinitions"].as_array().unwrap().iter().map(|c| c["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["Name", "Data", "Age"]);
    let cells = &table["rows"][0]["cells"];
    assert_eq!((&cells[0], &cells[2]), (&json!("a"), &json!("5m")));
    assert_eq!(table["rows"][0]["object"]["kind"], "PartialObjectMetadata");
    let one = s.get_as(&format!("{CONFIG_MAPS}/a?includeObject=Object"), accept).await.ok();
    assert_eq!((one["rows"].as_array().unwrap().len(), &one["rows"][0]["object"]["kind"]), (1, &json!("ConfigMap")));
    let accept = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io";
    let list = s.get_as(CONFIG_MAPS, accept).await.ok();
    assert_eq!((&list["kind"], names(&list).as_str()), (&json!("PartialObjectMetadataList"), "a b c"));
    assert_eq!(list["items"][0].get("data"), None);
}

#[tokio::test]
async fn long_answers_are_compressed() {
    let s = Server::start().await;
    s.post(CONFIG_MAPS, &config_map("big", json!({"k": "v".repeat(200_000)}))).await.ok();
    let plain = s.get(CONFIG_MAPS).await;
    assert!(!plain.headers.contains_key("content-encoding"));
    let packed = s.send("GET", CONFIG_MAPS, &[("accept-encoding", "deflate, gzip")], Body::empty()).await;
    assert_eq!(packed.headers["content-encoding"], "gzip");
    assert!(packed.body.len() < plain.body.len() / 10);
    let mut out = Vec::new();
    std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&packed.body[..]), &mut out).unwrap();
    assert_eq!(out, plain.body);
}

#[tokio::test]
async fn discovery() {
    let s = Server::start().await;
    assert_eq!(s.get("/api").await.ok()["versions"], json!(["v1"]));
    let groups = s.get("/apis").await.ok();
    assert!(groups["groups"].as_array().unwrap().iter().any(|g| g["preferredVersion"]["groupVersion"] == "apps/v1"));
    assert_eq!(s.get("/apis/apps").await.ok()["kind"], "APIGroup");
    s.get("/apis/none").await.err(404);
    s.get("/apis/apps/v9").await.err(404);
    let core = s.get("/api/v1").await.ok();
    let find = |name: &str| core["resources"].as_array().unwrap().iter().find(|r| r["name"] == name).cloned().unwrap();
    assert_eq!((&find("pods")["shortNames"], &find("pods")["kind"]), (&json!(["po"]), &json!("Pod")));
    assert_eq!(find("pods/log")["verbs"], json!(["get"]));
    assert_eq!(find("pods/eviction")["group"], "policy");
    assert_eq!(find("namespaces/finalize")["verbs"], json!(["update"]));
    find("bindings");
    let accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json";
    let whole = s.get_as("/apis", accept).await;
    assert!(whole.headers["content-type"].to_str().unwrap().contains("as=APIGroupDiscoveryList"));
    let whole = whole.ok();
    let apps = whole["items"].as_array().unwrap().iter().find(|g| g["metadata"]["name"] == "apps").unwrap();
    let deployments =
        apps["versions"][0]["resources"].as_array().unwrap().iter().find(|r| r["resource"] == "deployments").unwrap();
    assert_eq!(deployments["scope"], "Namespaced");
    let subs: Vec<&Value> = deployments["subresources"].as_array().unwrap().iter().map(|s| &s["subresource"]).collect();
    assert_eq!(subs, ["status", "scale"]);
    assert_eq!(s.get_as("/api", accept).await.ok()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn openapi() {
    let s = Server::start().await;
    let index = s.get("/openapi/v3").await.ok();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"].as_str().unwrap();
    let document = s.get(url).await;
    let schemas = document.ok()["components"]["schemas"].clone();
    assert!(schemas["io.k8s.api.apps.v1.Deployment"]["properties"]["spec"].is_object());
    let tag = document.headers["etag"].to_str().unwrap();
    assert!(url.contains(tag.trim_matches('"')));
    assert_eq!(s.send("GET", url, &[("if-none-match", tag)], Body::empty()).await.code, 304);
    assert_eq!(s.get("/openapi/v2").await.ok()["swagger"], "2.0");
    s.get("/openapi/v3/apis/none/v1").await.err(404);
    let proto = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf";
    let whole = s.get_as("/openapi/v2", proto).await;
    assert_eq!((whole.code, whole.body.get(..5)), (200, Some(&b"\x0a\x032.0"[..])));
    assert_eq!(whole.headers["content-type"], "application/com.github.proto-openapi.spec.v2.v1.0+protobuf");
    let tag = whole.headers["etag"].to_str().unwrap().to_string();
    let again = [("accept", proto), ("if-none-match", &tag)];
    assert_eq!(s.send("GET", "/openapi/v2", &again, Body::empty()).await.code, 304);
    let json = s.get_as("/openapi/v2", &format!("application/json, {proto}")).await;
    assert_ne!(json.headers["etag"], tag);
    assert_eq!(json.ok()["swagger"], "2.0");
    s.get_as("/openapi/v3", proto).await.err(406);
}
