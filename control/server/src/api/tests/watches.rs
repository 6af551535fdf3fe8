//! Watches: events, selectors, bookmarks, compaction, shapes.

use super::*;

async fn write(s: &Server, name: &str, app: &str, data: &str) -> Value {
    let mut object = config_map(name, json!({"k": data}));
    object["metadata"]["labels"] = json!({"app": app});
    match s.put(&format!("{CONFIG_MAPS}/{name}"), &object).await {
        a if a.code == 404 => s.post(CONFIG_MAPS, &object).await.ok(),
        a => a.ok(),
    }
}

#[tokio::test]
async fn follows_changes() {
    let s = Server::start().await;
    write(&s, "a", "x", "1").await;
    let mut from_start = s.watch(&format!("{CONFIG_MAPS}?watch=true")).await;
    let mut from_now =
        s.watch(&format!("/api/v1/configmaps?watch=1&resourceVersion={}", s.store.current_revision())).await;
    assert_eq!(from_start.brief().await, "ADDED a");
    let b = write(&s, "b", "x", "1").await;
    let b2 = write(&s, "b", "x", "2").await;
    s.delete(&format!("{CONFIG_MAPS}/b")).await.ok();
    for w in [&mut from_start, &mut from_now] {
        let (added, modified, deleted) = (w.next().await.unwrap(), w.next().await.unwrap(), w.next().await.unwrap());
        assert_eq!(added, json!({"type": "ADDED", "object": b}));
        assert_eq!(modified, json!({"type": "MODIFIED", "object": b2}));
        assert_eq!((&deleted["type"], &deleted["object"]["data"]["k"]), (&json!("DELETED"), &json!("2")));
        assert!(revision(&deleted["object"]) > revision(&b2));
    }
    // Resumes in the middle without loss.
    let mut resumed = s.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={}", revision(&b))).await;
    assert_eq!((resumed.brief().await, resumed.brief().await), ("MODIFIED b".into(), "DELETED b".into()));
    s.shutdown.cancel();
    assert_eq!(from_start.brief().await, "end");
}

#[tokio::test]
async fn selectors_see_objects_enter_and_leave() {
    let s = Server::start().await;
    write(&s, "a", "y", "1").await;
    let mut w = s.watch(&format!("{CONFIG_MAPS}?watch=true&labelSelector=app%3Dx")).await;
    let mut one = s.watch(&format!("{CONFIG_MAPS}?watch=true&fieldSelector=metadata.name%3Db")).await;
    write(&s, "a", "x", "1").await;
    write(&s, "a", "x", "2").await;
    let left = write(&s, "a", "y", "3").await;
    write(&s, "b", "x", "1").await;
    s.delete(&format!("{CONFIG_MAPS}/b")).await.ok();
    assert_eq!((w.brief().await, w.brief().await), ("ADDED a".into(), "MODIFIED a".into()));
    let deleted = w.next().await.unwrap();
    // The object as it was when it still matched, at the revision of its leaving.
    assert_eq!((&deleted["type"], &deleted["object"]["data"]["k"]), (&json!("DELETED"), &json!("2")));
    assert_eq!(revision(&deleted["object"]), revision(&left));
    assert_eq!((w.brief().await, w.brief().await), ("ADDED b".into(), "DELETED b".into()));
    assert_eq!((one.brief().await, one.brief().await), ("ADDED b".into(), "DELETED b".into()));
}

#[tokio::test]
async fn initial_events_and_bookmarks() {
    tokio::time::pause();
    let s = Server::start().await;
    write(&s, "a", "x", "1").await;
    let query = "watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=90";
    let mut w = s.watch(&format!("{CONFIG_MAPS}?{query}")).await;
    assert_eq!(w.brief().await, "ADDED a");
    let end = w.next().await.unwrap();
    assert_eq!((&end["type"], &end["object"]["kind"]), (&json!("BOOKMARK"), &json!("ConfigMap")));
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    // Others' writes move the bookmarks on: a resume need not start from the last own event.
    let ns = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "later"}});
    s.post("/api/v1/namespaces", &ns).await.ok();
    for _ in 0..2 {
        // At 60 seconds, and before the end at 90.
        let mark = w.next().await.unwrap();
        assert_eq!((mark["type"].clone(), revision(&mark["object"])), (json!("BOOKMARK"), s.store.current_revision()));
    }
    assert_eq!(w.brief().await, "end");
    s.get(&format!("{CONFIG_MAPS}?watch=true&sendInitialEvents=true")).await.err(422);
    s.get(&format!("{CONFIG_MAPS}?watch=true&resourceVersion=1&resourceVersionMatch=NotOlderThan")).await.err(422);
}

#[tokio::test]
async fn compacted_and_future_revisions() {
    let s = Server::start().await;
    let old = s.store.current_revision();
    write(&s, "a", "x", "1").await;
    write(&s, "a", "x", "2").await;
    s.store.compact(s.store.current_revision()).await.unwrap();
    let mut w = s.watch(&format!("{CONFIG_MAPS}?watch=true&resourceVersion={old}")).await;
    let error = w.next().await.unwrap();
    assert_eq!(
        (&error["type"], &error["object"]["code"], &error["object"]["reason"]),
        (&json!("ERROR"), &json!(410), &json!("Expired"))
    );
    assert!(error["object"]["message"].as_str().unwrap().starts_with("too old resource version"));
    assert_eq!(w.brief().await, "end");
    s.get(&format!("{CONFIG_MAPS}?watch=true&resourceVersion=99999")).await.err(504);
}

#[tokio::test]
async fn tables_and_metadata() {
    let s = Server::start().await;
    let path = format!("{CONFIG_MAPS}?watch=true");
    let mut table = s.watch_as(&path, "application/json;as=Table;v=v1;g=meta.k8s.io").await;
    let mut meta = s.watch_as(&path, "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io").await;
    write(&s, "a", "x", "1").await;
    write(&s, "a", "x", "2").await;
    let (first, second) = (table.next().await.unwrap(), table.next().await.unwrap());
    assert_eq!((&first["type"], &first["object"]["kind"]), (&json!("ADDED"), &json!("Table")));
    assert_eq!(first["object"]["columnDefinitions"].as_array().unwrap().len(), 3);
    assert!(second["object"]["columnDefinitions"].is_null());
    assert_eq!(second["object"]["rows"][0]["cells"][0], "a");
    let first = meta.next().await.unwrap();
    assert_eq!((&first["object"]["kind"], first["object"].get("data")), (&json!("PartialObjectMetadata"), None));
}

#[tokio::test]
async fn one_encoding_serves_all() {
    let s = Server::start().await;
    let path = format!("{CONFIG_MAPS}?watch=true");
    let mut watchers = Vec::new();
    for _ in 0..50 {
        watchers.push(s.watch(&path).await);
    }
    assert!(s.get("/metrics").await.text().contains("apiserver_registered_watchers{resource=\"configmaps\"} 50"));
    let a = write(&s, "a", "x", "1").await;
    for w in &mut watchers {
        assert_eq!(w.next().await.unwrap()["object"], a);
    }
    drop(watchers);
    assert!(s.get("/metrics").await.text().contains("apiserver_registered_watchers{resource=\"configmaps\"} 0"));
}

#[tokio::test]
async fn protobuf_frames() {
    let s = Server::start().await;
    write(&s, "a", "x", "1").await;
    // The present state is sent, then the watch ends.
    s.shutdown.cancel();
    for (shape, kind) in [("", "ConfigMap"), (";as=PartialObjectMetadata;g=meta.k8s.io;v=v1", "PartialObjectMetadata")]
    {
        let accept = format!("application/vnd.kubernetes.protobuf{shape};stream=watch");
        let answer = s.get_as(&format!("{CONFIG_MAPS}?watch=true"), &accept).await;
        assert_eq!(answer.headers["content-type"], "application/vnd.kubernetes.protobuf;stream=watch");
        let (length, event) = answer.body.split_at(4);
        assert_eq!(u32::from_be_bytes(length.try_into().unwrap()) as usize, event.len());
        let at = event.windows(4).position(|w| w == b"k8s\0").unwrap();
        let object = copepod_core::codec::protobuf::decode(&event[at..], None).unwrap();
        assert_eq!((&object["kind"], &object["metadata"]["name"]), (&json!(kind), &json!("a")));
    }
    assert_eq!(s.get_as(&format!("{CONFIG_MAPS}?watch=true"), "application/yaml").await.code, 406);
}
