//! What is read is copied from its stored bytes: the counter of decoded objects says so.

use super::*;

const META: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";
const META_LIST: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1";
const TABLE: &str = "application/json;as=Table;g=meta.k8s.io;v=v1";

/// How many stored objects were decoded for requests of each of these verbs.
async fn decoded<const N: usize>(s: &Server, verbs: [&str; N]) -> [u64; N] {
    let text = s.get("/metrics").await.text();
    verbs.map(|verb| {
        let name = format!("copepod_stored_objects_decoded_total{{verb=\"{verb}\"}} ");
        text.lines().find_map(|l| l.strip_prefix(&name)).map_or(0, |n| n.parse().unwrap())
    })
}

#[tokio::test]
async fn plain_reads_decode_nothing() {
    let s = Server::start().await;
    let first = s.store.current_revision();
    let mut a = config_map("a", json!({"k": "1"}));
    a["metadata"]["labels"] = json!({"app": "x"});
    s.post(CONFIG_MAPS, &a).await.ok();
    s.post(CONFIG_MAPS, &config_map("b", json!({"k": "2"}))).await.ok();
    let one = format!("{CONFIG_MAPS}/a");
    let mut watches = vec![
        s.watch(&format!("{CONFIG_MAPS}?watch=1")).await,
        s.watch(&format!("{CONFIG_MAPS}?watch=1&resourceVersion={first}")).await,
        s.watch(&format!("{CONFIG_MAPS}?watch=1&labelSelector=app%3Dx")).await,
        s.watch(&format!("{CONFIG_MAPS}?watch=1&fieldSelector=metadata.name%3Da")).await,
        s.watch_as(&format!("{CONFIG_MAPS}?watch=1"), META).await,
    ];
    a["data"] = json!({"k": "3"});
    s.put(&one, &a).await.ok();
    s.delete(&one).await.ok();
    for watch in &mut watches {
        while watch.brief().await != "DELETED a" {}
    }
    for (path, accept) in [
        (format!("{CONFIG_MAPS}/b"), "application/json"),
        (format!("{CONFIG_MAPS}/b"), META),
        (CONFIG_MAPS.to_string(), "application/json"),
        (CONFIG_MAPS.to_string(), META_LIST),
        (format!("{CONFIG_MAPS}?limit=1"), "application/json"),
        (format!("{CONFIG_MAPS}?labelSelector=app"), "application/json"),
        (format!("{CONFIG_MAPS}?fieldSelector=metadata.name%3Db"), "application/json"),
        (format!("{CONFIG_MAPS}?fieldSelector=metadata.name!%3Da"), "application/json"),
        ("/api/v1/configmaps".to_string(), "application/json"),
    ] {
        s.get_as(&path, accept).await.ok();
    }
    assert_eq!(decoded(&s, ["GET", "LIST", "WATCH"]).await, [0, 0, 0]);
    // The counter counts: writes decode what they change, once; other formats and tables decode what they show.
    assert_eq!(decoded(&s, ["PUT", "DELETE"]).await, [1, 1]);
    s.get_as(&format!("{CONFIG_MAPS}/b"), "application/yaml").await;
    s.get_as(CONFIG_MAPS, TABLE).await.ok();
    s.watch_as(&format!("{CONFIG_MAPS}?watch=1"), TABLE).await.next().await;
    assert_eq!(decoded(&s, ["GET", "LIST", "WATCH"]).await, [1, 1, 1]);
}

#[tokio::test]
async fn metadata_alone_is_the_objects() {
    let s = Server::start().await;
    let mut a = config_map("a", json!({"metadata": "}\"{"}));
    a["metadata"]["annotations"] = json!({"odd": "}]\\\" \u{e9}\n"});
    let a = s.post(CONFIG_MAPS, &a).await.ok();
    let partial = |version: &str| json!({"kind": "PartialObjectMetadata", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": a["metadata"]});
    let one = format!("{CONFIG_MAPS}/a");
    assert_eq!(s.get_as(&one, META).await.ok(), partial("v1"));
    assert_eq!(s.get_as(&one, &META.replace("v=v1", "v=v1beta1")).await.ok(), partial("v1beta1"));
    let list = s.get_as(CONFIG_MAPS, META_LIST).await.ok();
    assert_eq!(list["kind"], "PartialObjectMetadataList");
    assert_eq!(list["apiVersion"], "meta.k8s.io/v1");
    assert_eq!(list["items"], json!([partial("v1")]));
    let event = s.watch_as(&format!("{CONFIG_MAPS}?watch=1"), META).await.next().await.unwrap();
    assert_eq!(event, json!({"type": "ADDED", "object": partial("v1")}));
}
