//! What every cluster has from the start: the standard namespaces, the system's priority classes, the `kubernetes`
//! Service with its endpoints, the objects that describe the server itself ([`standing`]), and a StorageClass.

mod standing;

use std::time::Duration;

use std::fmt::Debug;
use std::net::IpAddr;
use tokio_util::sync::CancellationToken;

use copepod_api::Cidr;
use copepod_api::names::LOCAL_PATH;
use copepod_core::kinds::priority_class::SYSTEM;
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::scheduling::v1::PriorityClass;
use k8s_openapi::api::storage::v1::StorageClass;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// Upstream's standard namespaces.
pub const NAMESPACES: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
/// The Service of the API server, in `default`.
const NAME: &str = "kubernetes";
/// The default StorageClass.
const STORAGE_CLASS: &str = "local-path";

/// Where the API server is.
#[derive(Debug, Clone)]
pub struct BootstrapInfo {
    /// The Service's cluster IP: the first address of the service CIDR.
    pub service_ip: IpAddr,
    /// The range of cluster IPs.
    pub service_cidr: Cidr,
    /// The address under which nodes reach the server.
    pub advertise_ip: IpAddr,
    /// The server's port.
    pub port: u16,
}

/// How often it is made sure that the objects are there.
const INTERVAL: Duration = Duration::from_secs(10);

/// Keeps the objects that every cluster has.
pub struct Keeper {
    client: kube::Client,
    info: BootstrapInfo,
}

/// Makes them now, once. A failure (somebody else holds the Service's address, say) is logged and tried again by
/// [`Keeper::run`]: the server must come up, or nobody could repair it.
pub async fn keep(client: kube::Client, info: BootstrapInfo) -> Keeper {
    let keeper = Keeper { client, info };
    keeper.ensure().await;
    keeper
}

impl Keeper {
    /// Makes what was deleted again, until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(INTERVAL) => self.ensure().await,
                () = stop.cancelled() => return,
            }
        }
    }

    async fn ensure(&self) {
        if let Err(error) = ensure_bootstrap(self.client.clone(), self.info.clone()).await {
            tracing::error!("{error}; trying again");
        }
    }
}

/// Makes what is missing and corrects what differs (the server's address may change between starts). Reads first: what is
/// there as it should be is not written.
///
/// # Errors
/// The API server refused something; the error says what.
pub async fn ensure_bootstrap(client: kube::Client, info: BootstrapInfo) -> Result<(), BootstrapError> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    for name in NAMESPACES {
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        make_missing(&namespaces, name, &namespace).await.map_err(BootstrapError::of("Namespace", name))?;
    }
    let priorities: Api<PriorityClass> = Api::all(client.clone());
    for (name, value, description) in SYSTEM {
        let class = json!({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name},
            "value": value, "description": description});
        make_missing(&priorities, name, &class).await.map_err(BootstrapError::of("PriorityClass", name))?;
    }
    ensure(Api::<Service>::namespaced(client.clone(), "default"), "Service", service(&info)).await?;
    ensure(Api::<Endpoints>::namespaced(client.clone(), "default"), "Endpoints", endpoints(&info)).await?;
    let slices = Api::<EndpointSlice>::namespaced(client.clone(), "default");
    ensure(slices, "EndpointSlice", endpoint_slice(&info)).await?;
    ensure_storage_class(Api::all(client.clone())).await.map_err(BootstrapError::of("StorageClass", STORAGE_CLASS))?;
    standing::ensure(&client, info.service_cidr).await
}

/// Makes the default StorageClass if there is no class at all: one that was deleted for another stays away.
async fn ensure_storage_class(classes: Api<StorageClass>) -> Result<(), kube::Error> {
    if !classes.list(&ListParams::default().limit(1)).await?.items.is_empty() {
        return Ok(());
    }
    let class = json!({
        "apiVersion": "storage.k8s.io/v1", "kind": "StorageClass",
        "metadata": {
            "name": STORAGE_CLASS, "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": LOCAL_PATH, "reclaimPolicy": "Delete", "volumeBindingMode": "WaitForFirstConsumer",
    });
    create(&classes, &class).await.map(drop)
}

/// An object that every cluster has cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("cannot set up {kind} {name}: {source}")]
pub struct BootstrapError {
    /// The object's kind.
    pub kind: &'static str,
    /// The object's name.
    pub name: String,
    /// What the API server said.
    pub source: Box<kube::Error>,
}

impl BootstrapError {
    fn of(kind: &'static str, name: &str) -> impl FnOnce(kube::Error) -> Self {
        let name = name.to_string();
        move |source| Self { kind, name, source: Box::new(source) }
    }
}

fn service(info: &BootstrapInfo) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": NAME, "namespace": "default", "labels": {"component": "apiserver", "provider": "kubernetes"}},
        "spec": {
            "type": "ClusterIP", "clusterIP": info.service_ip, "clusterIPs": [info.service_ip],
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": info.port}],
        },
    })
}

fn endpoints(info: &BootstrapInfo) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": NAME, "namespace": "default",
            "labels": {"endpointslice.kubernetes.io/skip-mirror": "true"},
        },
        "subsets": [{
            "addresses": [{"ip": info.advertise_ip}],
            "ports": [{"name": "https", "port": info.port, "protocol": "TCP"}],
        }],
    })
}

fn endpoint_slice(info: &BootstrapInfo) -> Value {
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": NAME, "namespace": "default",
            "labels": {copepod_api::names::LABEL_SERVICE_NAME: NAME},
        },
        "addressType": if info.advertise_ip.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [info.advertise_ip], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": info.port, "protocol": "TCP"}],
    })
}

/// Creates the object, or merges what we say into the one that is there if that says something else.
async fn ensure<K>(api: Api<K>, kind: &'static str, object: Value) -> Result<(), BootstrapError>
where
    K: kube::Resource<Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Serialize + Debug,
{
    let work = async {
        let found = match api.get_opt(NAME).await? {
            None if create(&api, &object).await? => return Ok(()),
            found => serde_json::to_value(found).map_err(kube::Error::SerdeError)?,
        };
        if !says(&found, &object) {
            api.patch(NAME, &PatchParams::default(), &Patch::Merge(&object)).await?;
        }
        Ok(())
    };
    work.await.map_err(BootstrapError::of(kind, NAME))
}

/// Whether a merge of `wanted` into `found` changes nothing.
fn says(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, wanted)| found.get(key).is_some_and(|found| says(found, wanted)))
        }
        (found, wanted) => found == wanted,
    }
}

/// Creates an object if there is none of its name.
async fn make_missing<K>(api: &Api<K>, name: &str, object: &Value) -> Result<(), kube::Error>
where
    K: Clone + DeserializeOwned + Serialize + Debug,
{
    if api.get_opt(name).await?.is_none() {
        create(api, object).await?;
    }
    Ok(())
}

/// Creates an object; false if it is there already.
async fn create<K>(api: &Api<K>, object: &Value) -> Result<bool, kube::Error>
where
    K: Clone + DeserializeOwned + Serialize + Debug,
{
    let typed = serde_json::from_value(object.clone()).map_err(kube::Error::SerdeError)?;
    match api.create(&PostParams::default(), &typed).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 && status.reason == "AlreadyExists" => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
