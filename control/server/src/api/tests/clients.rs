//! The typed Rust client over the router, as controllers use it in process.

use super::*;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};

#[tokio::test]
async fn kube_client_in_process() {
    let s = Server::start().await;
    let client = Client::new(s.router.clone(), "default");
    let api: Api<ConfigMap> = Api::default_namespaced(client);
    let object: ConfigMap = serde_json::from_value(config_map("a", json!({"k": "1"}))).unwrap();
    let made = api.create(&PostParams::default(), &object).await.unwrap();
    assert!(made.metadata.uid.is_some());
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 1);

    for config in [watcher::Config::default(), watcher::Config::default().streaming_lists()] {
        let events = watcher(api.clone(), config).applied_objects();
        let mut events = std::pin::pin!(events);
        let first = tokio::time::timeout(PATIENCE, events.try_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(first.metadata.name.as_deref(), Some("a"));
        let value = first.metadata.resource_version.clone().unwrap();
        api.patch("a", &PatchParams::default(), &Patch::Merge(json!({"data": {"k": value}}))).await.unwrap();
        let second = tokio::time::timeout(PATIENCE, events.try_next()).await.unwrap().unwrap().unwrap();
        assert_eq!(second.data.unwrap()["k"], value);
    }
    let gone = api.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(gone.is_right());
    let error = api.get("a").await.unwrap_err();
    assert!(matches!(error, kube::Error::Api(e) if e.code == 404));
}
