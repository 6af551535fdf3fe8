//! kube-rs: typed and dynamic clients, watcher, controller runtime, server-side apply.

use std::sync::Arc;
use std::time::Duration;

use copepod_tests::{Cluster, PATIENCE};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, ResourceExt,
};
use kube::core::GroupVersionKind;
use kube::runtime::controller::{Action, Controller};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Config};
use serde_json::json;

async fn client(cluster: &Cluster) -> Client {
    let kubeconfig = kube::config::Kubeconfig::read_from(cluster.kubeconfig()).unwrap();
    Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap()).unwrap()
}

/// Runs a test's work against a cluster, within [`PATIENCE`].
fn with_client<F: Future<Output = ()>>(work: impl FnOnce(Client) -> F) {
    let cluster = Cluster::start();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, work(client(&cluster).await)).await.expect("done in time");
    });
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name, "labels": {"by": "kube-rs"}}, "data": {"k": value}}))
        .unwrap()
}

#[test]
fn typed_and_dynamic_objects() {
    with_client(|client| async move {
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        let made = maps.create(&PostParams::default(), &config_map("a", "1")).await.unwrap();
        assert!(made.uid().is_some());
        let mut entry = maps.entry("a").await.unwrap().and_modify(|m| {
            m.data.get_or_insert_default().insert("k".into(), "2".into());
        });
        if let kube::api::entry::Entry::Occupied(entry) = &mut entry {
            entry.commit(&PostParams::default()).await.unwrap();
        }
        assert_eq!(maps.get("a").await.unwrap().data.unwrap()["k"], "2");
        let stale = maps.replace("a", &PostParams::default(), &made).await.unwrap_err();
        assert!(matches!(stale, kube::Error::Api(status) if status.is_conflict()));
        assert!(maps.get_opt("none").await.unwrap().is_none());
        let metadata = maps.list_metadata(&ListParams::default().labels("by=kube-rs")).await.unwrap();
        assert_eq!(metadata.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(), ["a"]);

        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"));
        let deployments: Api<DynamicObject> = Api::default_namespaced_with(client.clone(), &kind);
        let template =
            json!({"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "x:1"}]}});
        let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
            "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": template}});
        let applied = deployments.patch("web", &PatchParams::apply("one"), &Patch::Apply(&web)).await.unwrap();
        assert_eq!(applied.data["spec"]["strategy"]["type"], "RollingUpdate");
        let other = json!({"apiVersion": "apps/v1", "kind": "Deployment", "spec": {"replicas": 2}});
        let conflict = deployments.patch("web", &PatchParams::apply("two"), &Patch::Apply(&other)).await.unwrap_err();
        assert!(conflict.to_string().contains("conflict with \"one\""), "{conflict}");
        let forced = PatchParams::apply("two").force();
        assert_eq!(deployments.patch("web", &forced, &Patch::Apply(&other)).await.unwrap().data["spec"]["replicas"], 2);
        let typed: Api<Deployment> = Api::default_namespaced(client);
        assert_eq!(typed.get_scale("web").await.unwrap().spec.unwrap().replicas, Some(2));
        typed.delete("web", &DeleteParams::foreground()).await.unwrap();
    });
}

#[test]
fn a_watcher_sees_a_consistent_stream() {
    for streaming in [false, true] {
        with_client(|client| async move {
            let maps: Api<ConfigMap> = Api::default_namespaced(client);
            for i in 0..5 {
                maps.create(&PostParams::default(), &config_map(&format!("m{i}"), "0")).await.unwrap();
            }
            let config = watcher::Config::default().labels("by=kube-rs").page_size(2);
            let config = if streaming { config.streaming_lists() } else { config };
            let mut events = watcher(maps.clone(), config).boxed();
            let mut initial = Vec::new();
            loop {
                match events.try_next().await.unwrap().unwrap() {
                    watcher::Event::InitApply(map) => initial.push(map.name_any()),
                    watcher::Event::InitDone => break,
                    _ => {}
                }
            }
            initial.sort();
            assert_eq!(initial, ["m0", "m1", "m2", "m3", "m4"]);
            maps.delete("m3", &DeleteParams::default()).await.unwrap();
            maps.patch("m4", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "1"}}))).await.unwrap();
            let gone = events.try_next().await.unwrap().unwrap();
            assert!(matches!(gone, watcher::Event::Delete(map) if map.name_any() == "m3"));
            let changed = events.try_next().await.unwrap().unwrap();
            assert!(matches!(changed, watcher::Event::Apply(map) if map.data.as_ref().unwrap()["k"] == "1"));
        });
    }
}

#[test]
fn a_controller_reconciles() {
    with_client(|client| async move {
        let maps: Api<ConfigMap> = Api::default_namespaced(client.clone());
        for i in 0..3 {
            maps.create(&PostParams::default(), &config_map(&format!("m{i}"), "0")).await.unwrap();
        }
        let selected = watcher::Config::default().labels("by=kube-rs");
        let reconcile = |map: Arc<ConfigMap>, maps: Arc<Api<ConfigMap>>| async move {
            let seen =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"seen": map.data.as_ref().unwrap()["k"]}});
            maps.patch(&map.name_any(), &PatchParams::apply("controller"), &Patch::Apply(&seen)).await?;
            Ok::<_, kube::Error>(Action::await_change())
        };
        let failed = |_: Arc<ConfigMap>, _: &kube::Error, _| Action::requeue(Duration::from_secs(1));
        let controller = Controller::new(maps.clone(), selected.clone()).run(reconcile, failed, Arc::new(maps.clone()));
        let running = tokio::spawn(controller.for_each(|_| std::future::ready(())));
        maps.patch("m1", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": "7"}}))).await.unwrap();
        let mut events = watcher(maps, selected).applied_objects().boxed();
        let mut wanted = std::collections::BTreeMap::from([("m0", "0"), ("m1", "7"), ("m2", "0")]);
        while !wanted.is_empty() {
            let map = events.try_next().await.unwrap().unwrap();
            let seen = map.data.unwrap_or_default().get("seen").cloned();
            wanted.retain(|name, value| {
                *name != map.metadata.name.as_deref().unwrap() || seen.as_deref() != Some(*value)
            });
        }
        running.abort();
    });
}
