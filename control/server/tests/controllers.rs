//! The controllers and the scheduler against a real API server in this process, with a kubelet that only pretends.
#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "helpers of tests, not only tests")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use copepod_api::names::{FINALIZER_LOCAL_PATH, GROUP_MASTERS, LOCAL_PATH};
use copepod_client::{Shared, in_process};
use copepod_core::scheduler::Profile;
use copepod_server::api::{ApiConfig, ApiState, router, system_clock};
use copepod_server::components::Components;
use copepod_server::controllers::{Config, start};
use copepod_server::dialer::{DialError, NodeDialer, NodeStream};
use copepod_server::identity::Identity;
use copepod_store::MemoryStore;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{
    ConfigMap, Endpoints, Event, Namespace, Node, PersistentVolume, PersistentVolumeClaim, Pod, ResourceQuota, Service,
    ServiceAccount,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

struct NoNodes;

#[async_trait]
impl NodeDialer for NoNodes {
    async fn dial(&self, node: &str) -> Result<Box<dyn NodeStream>, DialError> {
        Err(DialError::NotConnected(node.into()))
    }
}

/// A control plane that lives as long as the value.
struct Cluster {
    client: Client,
    token: CancellationToken,
    _tasks: JoinSet<()>,
    _controllers: JoinSet<()>,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.token.cancel();
    }
}

impl Cluster {
    async fn start() -> Self {
        let token = CancellationToken::new();
        let components = Arc::new(Components::default());
        let state = ApiState::new(ApiConfig {
            authorizer: copepod_server::authorization::Trusted::shared(),
            store: Arc::new(MemoryStore::new(Default::default())),
            registry: copepod_core::kinds::builtin(),
            components: components.clone(),
            dialer: Arc::new(NoNodes),
            clock: system_clock(),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            node_ports: 30000..=32767,
            shutdown: token.clone(),
        });
        let router = router(Arc::new(state));
        let clients = move |user: &str| in_process(router.clone(), Identity::new(user, &[GROUP_MASTERS]), "test");
        let client = clients("admin");
        for name in ["default", "kube-system", "kube-node-lease"] {
            create::<Namespace>(&Api::all(client.clone()), json!({"metadata": {"name": name}})).await;
        }
        let profiles = vec![Profile::default()];
        let ca_pem = "THE CA".into();
        let config = Config { ca_pem, components, clock: system_clock(), seed: 1, profiles, terminated_pods: 0 };
        let (controllers, _) = start(clients, config, token.clone());
        Self { client, token, _tasks: JoinSet::new(), _controllers: controllers }
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    /// A ready node, and a kubelet for it that makes bound pods ready and ends those that are deleted.
    async fn add_node(&mut self, name: &str, memory: &str) {
        let nodes: Api<Node> = Api::all(self.client.clone());
        create(&nodes, json!({"metadata": {"name": name}})).await;
        let status = json!({"status": {
            "allocatable": {"cpu": "64", "memory": memory, "pods": "2000"}, "capacity": {"cpu": "64", "memory": memory, "pods": "2000"},
            "conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ok"}],
        }});
        // The node controller taints a node that was never ready, and frees it when it is.
        let tainted =
            async || nodes.get(name).await.unwrap().spec.and_then(|s| s.taints).is_some_and(|t| !t.is_empty());
        eventually("the taint", async || tainted().await.then_some(())).await;
        nodes.patch_status(name, &PatchParams::default(), &Patch::Merge(&status)).await.unwrap();
        eventually("the taint gone", async || (!tainted().await).then_some(())).await;
        let pods: Shared<Pod> = Shared::default();
        let (changed, mut changes) = mpsc::unbounded_channel::<Arc<Pod>>();
        pods.on_change(move |change| {
            let _ = change.new.clone().map(|pod| changed.send(pod));
        });
        self._tasks.spawn(pods.run(Api::all(self.client.clone()), Default::default(), self.token.clone()));
        let (client, name) = (self.client.clone(), name.to_string());
        self._tasks.spawn(async move {
            let mut address = 0_u32;
            while let Some(pod) = changes.recv().await {
                if pod.spec.as_ref().and_then(|s| s.node_name.as_deref()) != Some(&name) {
                    continue;
                }
                let api: Api<Pod> = Api::namespaced(client.clone(), pod.metadata.namespace.as_deref().unwrap());
                let pod_name = pod.metadata.name.as_deref().unwrap();
                if pod.metadata.deletion_timestamp.is_some() {
                    let _ = api.delete(pod_name, &DeleteParams::default().grace_period(0)).await;
                } else if pod.status.as_ref().and_then(|s| s.pod_ip.as_ref()).is_none() {
                    address += 1;
                    let status = json!({"status": {
                        "phase": "Running", "podIP": format!("10.64.{}.{}", address / 250, address % 250 + 1),
                        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": jiff::Timestamp::now().to_string()}],
                    }});
                    let _ = api.patch_status(pod_name, &PatchParams::default(), &Patch::Merge(&status)).await;
                }
            }
        });
    }
}

async fn create<K>(api: &Api<K>, object: Value) -> K
where
    K: kube::Resource<DynamicType = ()> + DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
{
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap()
}

/// Waits until `look` finds something; fails the test after a generous time.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(Duration::from_secs(60), async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("not seen: {what}"))
}

async fn all<K>(api: &Api<K>) -> Vec<K>
where
    K: kube::Resource + Clone + DeserializeOwned + std::fmt::Debug,
{
    api.list(&ListParams::default()).await.unwrap().items
}

fn web(replicas: i32, image: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {
            "replicas": replicas, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [{"name": "c", "image": image, "ports": [{"name": "http", "containerPort": 8080}]}]},
            },
        },
    })
}

async fn available(cluster: &Cluster, replicas: i32) -> Deployment {
    let api = cluster.api::<Deployment>();
    eventually("an available deployment", async || {
        let d = api.get("web").await.ok()?;
        let status = d.status.as_ref()?;
        let done = status.available_replicas == Some(replicas)
            && status.updated_replicas == Some(replicas)
            && status.replicas == Some(replicas)
            && status.observed_generation == d.metadata.generation;
        done.then_some(d)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_runs_serves_rolls_and_goes() {
    let mut cluster = Cluster::start().await;
    cluster.add_node("n1", "64Gi").await;
    cluster.add_node("n2", "64Gi").await;
    let service = json!({"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}]}});
    create::<Service>(&cluster.api(), service).await;
    create::<Deployment>(&cluster.api(), web(4, "web:1")).await;

    let first = available(&cluster, 4).await;
    let condition = |d: &Deployment, kind: &str| {
        let conditions = d.status.as_ref().unwrap().conditions.clone().unwrap_or_default();
        conditions.into_iter().find(|c| c.type_ == kind).and_then(|c| c.reason)
    };
    assert_eq!(condition(&first, "Available").as_deref(), Some("MinimumReplicasAvailable"));
    let pods = all(&cluster.api::<Pod>()).await;
    let on = |node: &str| pods.iter().filter(|p| p.spec.as_ref().unwrap().node_name.as_deref() == Some(node)).count();
    assert_eq!((pods.len(), on("n1"), on("n2")), (4, 2, 2), "no pod twice, and spread");

    let ready = async |count: usize| {
        eventually("ready endpoints", async || {
            let slices = all(&cluster.api::<EndpointSlice>()).await;
            let endpoints = slices.iter().flat_map(|s| s.endpoints.iter().flatten());
            let ready = endpoints.filter(|e| e.conditions.as_ref().unwrap().ready == Some(true)).count();
            let old = cluster.api::<Endpoints>().get("web").await.ok()?;
            let addresses = old.subsets.iter().flatten().flat_map(|s| s.addresses.iter().flatten()).count();
            (ready == count && addresses == count).then_some(slices)
        })
        .await
    };
    let slices = ready(4).await;
    assert_eq!(slices.len(), 1);
    assert_eq!(slices[0].ports.as_ref().unwrap()[0].port, Some(8080));

    // A new image rolls through a second ReplicaSet; the old one stays, empty, for a rollback.
    cluster.api::<Deployment>().patch("web", &PatchParams::default(), &Patch::Merge(web(4, "web:2"))).await.unwrap();
    eventually("the new image everywhere", async || {
        let pods = all(&cluster.api::<Pod>()).await;
        let image = |p: &Pod| p.spec.as_ref().unwrap().containers[0].image.clone();
        (pods.len() == 4 && pods.iter().all(|p| image(p).as_deref() == Some("web:2"))).then_some(())
    })
    .await;
    let second = available(&cluster, 4).await;
    assert_eq!(second.metadata.annotations.as_ref().unwrap()["deployment.kubernetes.io/revision"], "2");
    let sets = all(&cluster.api::<ReplicaSet>()).await;
    let mut sizes: Vec<_> = sets.iter().map(|s| s.spec.as_ref().unwrap().replicas).collect();
    sizes.sort();
    assert_eq!(sizes, [Some(0), Some(4)]);
    ready(4).await;

    // A lost pod is replaced.
    let victim = all(&cluster.api::<Pod>()).await[0].metadata.name.clone().unwrap();
    cluster.api::<Pod>().delete(&victim, &DeleteParams::default()).await.unwrap();
    eventually("a replacement", async || {
        let pods = all(&cluster.api::<Pod>()).await;
        (pods.len() == 4 && pods.iter().all(|p| p.metadata.name.as_ref() != Some(&victim))).then_some(())
    })
    .await;

    let events = eventually("events", async || {
        let events = all(&cluster.api::<Event>()).await;
        let has = |reason: &str| events.iter().any(|e| e.reason.as_deref() == Some(reason));
        ["ScalingReplicaSet", "SuccessfulCreate", "Scheduled"].iter().all(|r| has(r)).then_some(events)
    })
    .await;
    assert!(events.iter().all(|e| e.source.as_ref().unwrap().component.is_some()));

    cluster.api::<Deployment>().delete("web", &DeleteParams::background()).await.unwrap();
    cluster.api::<Service>().delete("web", &DeleteParams::background()).await.unwrap();
    eventually("everything collected", async || {
        let left = all(&cluster.api::<ReplicaSet>()).await.len()
            + all(&cluster.api::<Pod>()).await.len()
            + all(&cluster.api::<EndpointSlice>()).await.len()
            + all(&cluster.api::<Endpoints>()).await.len();
        (left == 0).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hundreds_of_replicas_scale_up_and_down_without_doubles() {
    let mut cluster = Cluster::start().await;
    cluster.add_node("n1", "1Ti").await;
    create::<Deployment>(&cluster.api(), web(300, "web:1")).await;
    available(&cluster, 300).await;
    let deleted = |events: &[Event]| events.iter().filter(|e| e.reason.as_deref() == Some("SuccessfulDelete")).count();
    assert_eq!(all(&cluster.api::<Pod>()).await.len(), 300);
    assert_eq!(deleted(&all(&cluster.api::<Event>()).await), 0, "nothing was made too much");
    cluster
        .api::<Deployment>()
        .patch("web", &PatchParams::default(), &Patch::Merge(json!({"spec": {"replicas": 1}})))
        .await
        .unwrap();
    available(&cluster, 1).await;
    eventually("one pod", async || (all(&cluster.api::<Pod>()).await.len() == 1).then_some(())).await;
}

/// A workload `web` whose template has the label `app: KIND`.
fn labelled(kind: &str, more: Value) -> Value {
    let mut spec = json!({
        "selector": {"matchLabels": {"app": kind}},
        "template": {"metadata": {"labels": {"app": kind}}, "spec": {"containers": [{"name": "c", "image": "i"}]}},
    });
    for (key, value) in more.as_object().unwrap() {
        spec[key] = value.clone();
    }
    json!({"metadata": {"name": "web"}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_that_end_at_once_are_replaced_ever_more_slowly() {
    let mut cluster = Cluster::start().await;
    cluster.add_node("n1", "64Gi").await;
    create(&cluster.api::<StatefulSet>(), labelled("sts", json!({"replicas": 1, "podManagementPolicy": "Parallel"})))
        .await;
    create(&cluster.api::<DaemonSet>(), labelled("ds", json!({}))).await;
    let pods: Api<Pod> = cluster.api();
    let began = std::time::Instant::now();
    for kind in ["sts", "ds"] {
        let mut seen = std::collections::BTreeSet::new();
        // The first replacement comes at once, the second after one second, the third after two more.
        eventually("three replacements", async || {
            for pod in pods.list(&ListParams::default().labels(&format!("app={kind}"))).await.unwrap() {
                let running = pod.status.as_ref().is_some_and(|s| s.phase.as_deref() == Some("Running"));
                if running && pod.metadata.deletion_timestamp.is_none() {
                    let failed = json!({"status": {"phase": "Failed"}});
                    let name = pod.metadata.name.as_deref().unwrap();
                    let _ = pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&failed)).await;
                }
                seen.insert(pod.metadata.uid.unwrap());
            }
            (seen.len() > 3).then_some(())
        })
        .await;
        assert!(began.elapsed() >= Duration::from_secs(3), "{kind}: {:?}", began.elapsed());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_rolls_within_a_quota_of_just_its_pods() {
    let mut cluster = Cluster::start().await;
    cluster.add_node("n1", "64Gi").await;
    let quotas = cluster.api::<ResourceQuota>();
    create(&quotas, json!({"metadata": {"name": "few"}, "spec": {"hard": {"pods": "4"}}})).await;
    eventually("the quota's status", async || quotas.get("few").await.unwrap().status?.hard).await;
    create::<Deployment>(&cluster.api(), web(4, "web:1")).await;
    available(&cluster, 4).await;
    let deployments = cluster.api::<Deployment>();
    let image = json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "web:2"}]}}}});
    deployments.patch("web", &PatchParams::default(), &Patch::Strategic(&image)).await.unwrap();
    available(&cluster, 4).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stateful_set_says_what_is_refused_and_goes_on_when_it_may() {
    let mut cluster = Cluster::start().await;
    cluster.add_node("n1", "64Gi").await;
    let quotas = cluster.api::<ResourceQuota>();
    create(&quotas, json!({"metadata": {"name": "few"}, "spec": {"hard": {"pods": "1"}}})).await;
    eventually("the quota's status", async || quotas.get("few").await.unwrap().status?.hard).await;
    let sets = cluster.api::<StatefulSet>();
    create(&sets, labelled("sts", json!({"replicas": 2}))).await;
    let events: Api<Event> = cluster.api();
    let said = "create Pod web-1 in StatefulSet web failed error: pods \"web-1\" is forbidden: exceeded quota: few";
    eventually("why", async || {
        let all = all(&events).await;
        all.iter().any(|e| e.message.as_deref().is_some_and(|m| m.starts_with(said))).then_some(())
    })
    .await;
    quotas.delete("few", &DeleteParams::default()).await.unwrap();
    eventually("both pods", async || {
        let status = sets.get("web").await.unwrap().status?;
        (status.available_replicas == Some(2)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn foreground_waits_and_orphan_keeps() {
    let mut cluster = Cluster::start().await;
    cluster.add_node("n1", "64Gi").await;
    create::<Deployment>(&cluster.api(), web(2, "web:1")).await;
    available(&cluster, 2).await;
    cluster.api::<Deployment>().delete("web", &DeleteParams::orphan()).await.unwrap();
    eventually("the deployment gone", async || {
        cluster.api::<Deployment>().get_opt("web").await.unwrap().is_none().then_some(())
    })
    .await;
    let sets = all(&cluster.api::<ReplicaSet>()).await;
    assert_eq!((sets.len(), sets[0].metadata.owner_references.as_ref().map_or(0, Vec::len)), (1, 0));
    let name = sets[0].metadata.name.clone().unwrap();
    cluster.api::<ReplicaSet>().delete(&name, &DeleteParams::foreground()).await.unwrap();
    eventually("the set gone", async || {
        cluster.api::<ReplicaSet>().get_opt(&name).await.unwrap().is_none().then_some(())
    })
    .await;
    assert_eq!(all(&cluster.api::<Pod>()).await.len(), 0, "its pods went first");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_fits_nowhere_says_why_and_is_placed_when_it_does() {
    let mut cluster = Cluster::start().await;
    cluster.add_node("small", "1Gi").await;
    let pod = json!({"metadata": {"name": "big"}, "spec": {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"memory": "2Gi"}}}]}});
    create::<Pod>(&cluster.api(), pod).await;
    let why = "0/1 nodes are available: 1 Insufficient memory. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.";
    eventually("the reason", async || {
        let pod = cluster.api::<Pod>().get("big").await.ok()?;
        let condition = pod.status?.conditions?.into_iter().find(|c| c.type_ == "PodScheduled")?;
        (condition.status == "False" && condition.message.as_deref() == Some(why)).then_some(())
    })
    .await;
    eventually("the event", async || {
        let events = all(&cluster.api::<Event>()).await;
        events
            .into_iter()
            .find(|e| e.reason.as_deref() == Some("FailedScheduling") && e.message.as_deref() == Some(why))
    })
    .await;
    cluster.add_node("large", "8Gi").await;
    eventually("placed", async || {
        let pod = cluster.api::<Pod>().get("big").await.ok()?;
        (pod.spec?.node_name.as_deref() == Some("large")).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_whose_labels_change_no_longer_keeps_others_away() {
    let mut cluster = Cluster::start().await;
    cluster.add_node("n1", "64Gi").await;
    let labels = json!({"metadata": {"labels": {"kubernetes.io/hostname": "n1"}}});
    let nodes = Api::<Node>::all(cluster.client.clone());
    nodes.patch("n1", &PatchParams::default(), &Patch::Merge(&labels)).await.unwrap();
    let pods = cluster.api::<Pod>();
    let apart = json!({"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [
        {"topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"app": "web"}}},
    ]}});
    let pod = |name: &str, affinity: Value| {
        json!({
            "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {"affinity": affinity, "containers": [{"name": "c", "image": "i"}]},
        })
    };
    let condition = async |name: &str, status: &str| {
        let conditions = pods.get(name).await.unwrap().status?.conditions?;
        conditions.iter().any(|c| c.type_ == "PodScheduled" && c.status == status).then_some(())
    };
    let placed = async |name: &str| pods.get(name).await.unwrap().spec?.node_name;
    create(&pods, pod("first", json!({}))).await;
    eventually("the first placed", async || placed("first").await).await;
    create(&pods, pod("second", apart)).await;
    eventually("the second refused", async || condition("second", "False").await).await;
    let other = json!({"metadata": {"labels": {"app": "db"}}});
    pods.patch("first", &PatchParams::default(), &Patch::Merge(&other)).await.unwrap();
    eventually("the second placed", async || placed("second").await).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pod_that_goes_for_another_keeps_what_its_node_said_of_it() {
    let mut cluster = Cluster::start().await;
    cluster.add_node("small", "1Gi").await;
    let classes = Api::<PriorityClass>::all(cluster.client.clone());
    create(&classes, json!({"metadata": {"name": "high"}, "value": 1000})).await;
    let pods = cluster.api::<Pod>();
    let pod = |name: &str, class: Value, finalizers: Value| {
        let requests = json!({"requests": {"memory": "800Mi"}});
        json!({
            "metadata": {"name": name, "finalizers": finalizers},
            "spec": {"priorityClassName": class, "containers": [{"name": "c", "image": "i", "resources": requests}]},
        })
    };
    let holds = async |name: &str, kind: &str| {
        let conditions = pods.get(name).await.unwrap().status.and_then(|s| s.conditions).unwrap_or_default();
        conditions.iter().any(|c| c.type_ == kind && c.status == "True").then_some(())
    };
    create(&pods, pod("low", Value::Null, json!(["example.com/stays"]))).await;
    eventually("it runs", async || holds("low", "Ready").await).await;
    create(&pods, pod("high", json!("high"), json!([]))).await;
    eventually("it is told to go", async || holds("low", "DisruptionTarget").await).await;
    // The scheduler decides on pods as they were bound; the node has said more since.
    assert!(holds("low", "Ready").await.is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn namespaces_get_their_things_and_go_with_all_content() {
    let mut cluster = Cluster::start().await;
    cluster.add_node("n1", "64Gi").await;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    create(&namespaces, json!({"metadata": {"name": "shop"}})).await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client.clone(), "shop");
    let accounts: Api<ServiceAccount> = Api::namespaced(cluster.client.clone(), "shop");
    let ca = async || {
        eventually("the CA", async || {
            let data = maps.get_opt("kube-root-ca.crt").await.unwrap()?.data?;
            (data.get("ca.crt").map(String::as_str) == Some("THE CA")).then_some(())
        })
        .await
    };
    ca().await;
    eventually("the account", async || accounts.get_opt("default").await.unwrap()).await;
    maps.patch("kube-root-ca.crt", &PatchParams::default(), &Patch::Merge(json!({"data": {"ca.crt": "forged"}})))
        .await
        .unwrap();
    ca().await;
    maps.delete("kube-root-ca.crt", &DeleteParams::default()).await.unwrap();
    ca().await;
    accounts.delete("default", &DeleteParams::default()).await.unwrap();
    eventually("the account again", async || accounts.get_opt("default").await.unwrap()).await;

    let deployments: Api<Deployment> = Api::namespaced(cluster.client.clone(), "shop");
    create(&deployments, web(5, "web:1")).await;
    let pods: Api<Pod> = Api::namespaced(cluster.client.clone(), "shop");
    eventually("pods", async || (all(&pods).await.len() == 5).then_some(())).await;
    namespaces.delete("shop", &DeleteParams::default()).await.unwrap();
    eventually("the namespace gone", async || namespaces.get_opt("shop").await.unwrap().is_none().then_some(())).await;
    assert_eq!((all(&pods).await.len(), all(&deployments).await.len(), all(&maps).await.len()), (0, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn quotas_bound_a_namespace_and_free_what_is_gone() {
    let mut cluster = Cluster::start().await;
    cluster.add_node("n1", "64Gi").await;
    let quotas = cluster.api::<ResourceQuota>();
    let hard = json!({"pods": "2", "count/configmaps": "3", "persistentvolumeclaims": "1", "services.nodeports": "1"});
    create(&quotas, json!({"metadata": {"name": "q"}, "spec": {"hard": hard}})).await;
    let used = async |name: &str, want: &str| {
        eventually(&format!("{want} of {name} used"), async || {
            let used = quotas.get("q").await.unwrap().status?.used?;
            (used.get(name).map(|q| q.0.as_str()) == Some(want)).then_some(())
        })
        .await
    };
    // The CA's ConfigMap may come later than the first count.
    used("pods", "0").await;
    let maps = cluster.api::<ConfigMap>();
    eventually("the CA", async || maps.get_opt("kube-root-ca.crt").await.unwrap()).await;
    used("count/configmaps", "1").await;

    // Of five wanted pods two come; the others are said to be refused.
    create(&cluster.api::<Deployment>(), web(5, "web:1")).await;
    let refused = |d: &Deployment| {
        let conditions = d.status.as_ref().and_then(|s| s.conditions.clone()).unwrap_or_default();
        conditions.iter().any(|c| {
            c.type_ == "ReplicaFailure" && c.message.as_deref().is_some_and(|m| m.contains("exceeded quota: q"))
        })
    };
    let deployments = cluster.api::<Deployment>();
    eventually("the refusal", async || all(&deployments).await.iter().any(refused).then_some(())).await;
    eventually("two pods", async || (all(&cluster.api::<Pod>()).await.len() == 2).then_some(())).await;
    used("pods", "2").await;
    let scale = Patch::Merge(json!({"spec": {"replicas": 1}}));
    deployments.patch("web", &PatchParams::default(), &scale).await.unwrap();
    used("pods", "1").await;

    // What no cache holds is counted, and freed, too.
    for name in ["a", "b"] {
        create(&maps, json!({"metadata": {"name": name}})).await;
    }
    used("count/configmaps", "3").await;
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    used("count/configmaps", "2").await;
    // A count that is wrong is set right, though no object comes or goes.
    let wrong = Patch::Merge(json!({"status": {"used": {"count/configmaps": "3"}}}));
    quotas.patch_status("q", &PatchParams::default(), &wrong).await.unwrap();
    used("count/configmaps", "2").await;
    let claims = cluster.api::<PersistentVolumeClaim>();
    let claim = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    create(&claims, claim).await;
    used("persistentvolumeclaims", "1").await;
    claims.delete("c", &DeleteParams::default()).await.unwrap();
    used("persistentvolumeclaims", "0").await;
    let services = cluster.api::<Service>();
    create(&services, json!({"metadata": {"name": "s"}, "spec": {"type": "NodePort", "ports": [{"port": 1}]}})).await;
    used("services.nodeports", "1").await;
    let cluster_ip = Patch::Merge(json!({"spec": {"type": "ClusterIP"}}));
    services.patch("s", &PatchParams::default(), &cluster_ip).await.unwrap();
    used("services.nodeports", "0").await;

    // New bounds are known at once.
    let more = Patch::Merge(json!({"spec": {"hard": {"secrets": "1"}}}));
    quotas.patch("q", &PatchParams::default(), &more).await.unwrap();
    used("secrets", "0").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn claims_are_bound_with_their_pods_and_one_that_cannot_be_is_left_alone() {
    let mut cluster = Cluster::start().await;
    cluster.add_node("n1", "64Gi").await;
    let nodes: Api<Node> = Api::all(cluster.client.clone());
    let label = Patch::Merge(json!({"metadata": {"labels": {"kubernetes.io/hostname": "n1"}}}));
    nodes.patch("n1", &PatchParams::default(), &label).await.unwrap();
    let classes: Api<StorageClass> = Api::all(cluster.client.clone());
    let class = json!({"metadata": {"name": "local"}, "provisioner": LOCAL_PATH,
        "volumeBindingMode": "WaitForFirstConsumer"});
    create(&classes, class).await;
    let claims = cluster.api::<PersistentVolumeClaim>();
    let claim = |name: &str, class: &str| {
        json!({"metadata": {"name": name}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": class,
            "resources": {"requests": {"storage": "1Gi"}}}})
    };
    create(&claims, claim("stuck", "none")).await;
    let events = cluster.api::<Event>();
    let told = async || -> i32 {
        let all = all(&events).await;
        all.iter().filter(|e| e.involved_object.name.as_deref() == Some("stuck")).filter_map(|e| e.count).sum()
    };
    eventually("the reason", async || (told().await > 0).then_some(())).await;
    let before = claims.get("stuck").await.unwrap().metadata.resource_version;

    let pods = cluster.api::<Pod>();
    for n in 0..10 {
        create(&claims, claim(&format!("data-{n}"), "local")).await;
        let volumes = json!([{"name": "v", "persistentVolumeClaim": {"claimName": format!("data-{n}")}}]);
        let pod = json!({"metadata": {"name": format!("p{n}")}, "spec": {"volumes": volumes,
            "containers": [{"name": "c", "image": "i"}]}});
        create(&pods, pod).await;
    }
    let phase = |p: &Pod| p.status.as_ref().and_then(|s| s.phase.clone());
    eventually("all to run", async || {
        all(&pods).await.iter().all(|p| phase(p).as_deref() == Some("Running")).then_some(())
    })
    .await;
    let bound = all(&claims).await;
    let phases = bound.iter().filter(|c| c.status.as_ref().and_then(|s| s.phase.as_deref()) == Some("Bound"));
    assert_eq!(phases.count(), 10);
    assert_eq!(claims.get("stuck").await.unwrap().metadata.resource_version, before, "nothing was written");
    assert!(told().await <= 2, "it is said once, and not again with all that happens to others");

    // In use it stays; then its volume waits for the node only.
    let claim = claims.get("data-0").await.unwrap();
    claims.delete("data-0", &DeleteParams::default()).await.unwrap();
    assert!(claims.get("data-0").await.unwrap().metadata.deletion_timestamp.is_some());
    pods.delete("p0", &DeleteParams::default()).await.unwrap();
    eventually("the claim gone", async || claims.get_opt("data-0").await.unwrap().is_none().then_some(())).await;
    let volumes: Api<PersistentVolume> = Api::all(cluster.client.clone());
    let name = claim.spec.unwrap().volume_name.unwrap();
    let left = eventually("the volume going", async || {
        let volume = volumes.get(&name).await.unwrap();
        volume.metadata.deletion_timestamp.is_some().then_some(volume.metadata.finalizers)
    });
    let held = left.await;
    assert!(held.is_some_and(|f| f.contains(&FINALIZER_LOCAL_PATH.to_string())));
}
