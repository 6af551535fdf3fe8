//! metrics.k8s.io: NodeMetrics and PodMetrics, gathered from the nodes for each request. What is not known (a node that
//! does not answer, a pod that has just started) is left out of lists.

use std::collections::BTreeSet;

use axum::response::Response;
use copepod_api::{ApiError, GroupResource};
use copepod_core::kinds::resource_metrics::{self, GROUP};
use copepod_core::resource::Resource;
use copepod_store::{ListOptions, Record};
use serde_json::{Value, json};

use super::node_usage::NodeUsage;
use super::object;
use super::present::{self, Outcome};
use super::read::ListPage;
use super::request::{Request, Verb, timestamp};
use super::selector::Selector;

/// Field of a pod that says where it runs.
const NODE_NAME: &str = "spec.nodeName";

/// GET of what one node or pod uses, or all.
pub(crate) async fn serve(request: &Request) -> Result<Response, ApiError> {
    let plural = &request.resource.names.plural;
    let measured = request.state.registry.find("", "v1", plural).ok_or_else(ApiError::no_such_path)?;
    if request.verb == Verb::List {
        let selector = Selector::of(&request.resource, &request.query)?;
        let namespace = request.namespace().or_else(|| selector.namespace());
        let options = ListOptions::default();
        let page = request.state.store.list(&object::prefix(measured, namespace), &options);
        let page = page.map_err(|e| super::error::from_store(e, &measured.group_resource(), ""))?;
        let wanted: Vec<Record> = page.records.into_iter().filter(|r| selector.takes(request, r)).collect();
        let mut records = Vec::new();
        for object in usage(request, measured, &wanted).await {
            records.push(record(request, page.revision, &object)?);
        }
        return present::list(request, &ListPage { records, revision: page.revision, cont: None, remaining: None });
    }
    let name = request.name();
    let found = request.state.store.get(&object::key(measured, request.namespace(), name));
    let found = found.ok_or_else(|| ApiError::not_found(&measured.group_resource(), name))?;
    let unknown = || {
        let kind = request.resource.names.kind.to_lowercase();
        let name = request.namespace().map_or_else(|| name.to_string(), |namespace| format!("{namespace}/{name}"));
        ApiError::not_found(&GroupResource { group: GROUP.into(), resource: kind }, &name)
    };
    let object = usage(request, measured, &[found]).await.pop().ok_or_else(unknown)?;
    present::object(request, 200, &Outcome::Unstored(object))
}

/// What each of these nodes or pods uses, without those of which that is not known.
async fn usage(request: &Request, measured: &Resource, records: &[Record]) -> Vec<Value> {
    let node_of = |record: &Record| -> Option<String> {
        if measured.namespaced() {
            let field = |name: &str| record.attrs.fields.get(name).filter(|value| !value.is_empty()).cloned();
            return field(NODE_NAME).filter(|_| field("status.phase").is_some_and(|phase| phase == "Running"));
        }
        record.key.rsplit('/').next().map(str::to_string)
    };
    let nodes: BTreeSet<String> = records.iter().filter_map(node_of).collect();
    let answers = request.state.usages.gather(request, nodes).await;
    let of = |record: &Record| {
        let usage = answers.get(&node_of(record)?)?;
        if measured.namespaced() { pod(record, usage) } else { node(record, usage) }
    };
    records.iter().filter_map(of).collect()
}

fn node(record: &Record, usage: &NodeUsage) -> Option<Value> {
    let (machine, name) = (usage.machine.as_ref()?, record.key.rsplit('/').next()?);
    let labels = json!(record.attrs.labels);
    Some(resource_metrics::node(name, &labels, &timestamp(machine.at), machine.window, machine.usage))
}

fn pod(record: &Record, usage: &NodeUsage) -> Option<Value> {
    let mut parts = record.key.rsplit('/');
    let (name, namespace) = (parts.next()?, parts.next()?);
    let containers = usage.pods.get(&(namespace.to_string(), name.to_string()))?;
    let at = containers.iter().map(|(_, m)| m.at).min()?;
    let window = containers.iter().map(|(_, m)| m.window).max()?;
    let used: Vec<_> = containers.iter().map(|(name, m)| (name.clone(), m.usage)).collect();
    Some(resource_metrics::pod((namespace, name), &json!(record.attrs.labels), &timestamp(at), window, &used))
}

/// As if it were stored, for lists.
fn record(request: &Request, revision: u64, object: &Value) -> Result<Record, ApiError> {
    let (value, attrs) = object::encode(&request.state.registry, &request.resource, object)?;
    let namespace = Some(object::meta_str(object, "namespace")).filter(|namespace| !namespace.is_empty());
    let key = object::key(&request.resource, namespace, object::meta_str(object, "name")).into();
    Ok(Record { key, value, attrs: attrs.into(), created: revision, revision })
}
