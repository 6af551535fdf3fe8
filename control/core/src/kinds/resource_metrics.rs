//! NodeMetrics and PodMetrics of metrics.k8s.io: what nodes and pods use, asked of the nodes when clients ask. They can
//! only be read. Source: <https://github.com/kubernetes/metrics/tree/master/pkg/apis/metrics/v1beta1>.

use std::time::Duration;

use copepod_api::Quantity;
use serde_json::{Value, json};

use super::value::{list, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::schema::Schema;
use crate::table::{self, Column};

/// The API group.
pub const GROUP: &str = "metrics.k8s.io";
const API_VERSION: &str = "metrics.k8s.io/v1beta1";

/// What is used, and how it was measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Thousand-millionths of a core, the mean over a time.
    pub nano_cores: u64,
    /// Bytes of memory that cannot be freed under pressure.
    pub working_set: u64,
}

/// NodeMetrics.
pub fn nodes() -> Option<Resource> {
    let usage = json!({"usage": usage_schema()});
    metrics("nodes", "NodeMetrics", Scope::Cluster, usage)
}

/// PodMetrics.
pub fn pods() -> Option<Resource> {
    let name = json!({"type": "string"});
    let container = json!({"type": "object", "properties": {"name": name, "usage": usage_schema()}});
    metrics("pods", "PodMetrics", Scope::Namespaced, json!({"containers": {"type": "array", "items": container}}))
}

/// The usage of a node.
pub fn node(name: &str, labels: &Value, at: &str, window: Duration, usage: Usage) -> Value {
    let mut object = measured("NodeMetrics", json!({"name": name}), labels, at, window);
    put(&mut object, "usage", quantities(usage));
    object
}

/// The usage of a pod's containers.
pub fn pod(
    (namespace, name): (&str, &str),
    labels: &Value,
    at: &str,
    window: Duration,
    containers: &[(String, Usage)],
) -> Value {
    let meta = json!({"name": name, "namespace": namespace});
    let mut object = measured("PodMetrics", meta, labels, at, window);
    let containers: Vec<Value> =
        containers.iter().map(|(name, usage)| json!({"name": name, "usage": quantities(*usage)})).collect();
    put(&mut object, "containers", containers.into());
    object
}

fn measured(kind: &str, mut meta: Value, labels: &Value, at: &str, window: Duration) -> Value {
    put(&mut meta, "creationTimestamp", at.into());
    if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
        put(&mut meta, "labels", labels.clone());
    }
    // As Go prints durations of less than a minute; the nodes' windows are.
    let window = format!("{}s", (window.as_secs_f64() * 1000.0).round() / 1000.0);
    json!({"apiVersion": API_VERSION, "kind": kind, "metadata": meta, "timestamp": at, "window": window})
}

fn put(object: &mut Value, key: &str, value: Value) {
    if let Some(object) = object.as_object_mut() {
        object.insert(key.into(), value);
    }
}

fn quantities(usage: Usage) -> Value {
    let cpu = Quantity::from_nano(i64::try_from(usage.nano_cores).unwrap_or(i64::MAX));
    json!({"cpu": cpu.to_string(), "memory": Quantity::from_bytes(usage.working_set).to_string()})
}

fn usage_schema() -> Value {
    json!({"type": "object", "additionalProperties": {"type": "string"}})
}

fn metrics(plural: &str, kind: &str, scope: Scope, fields: Value) -> Option<Resource> {
    let mut properties = json!({"timestamp": {"type": "string", "format": "date-time"}, "window": {"type": "string"}});
    for (name, schema) in fields.as_object()? {
        put(&mut properties, name, schema.clone());
    }
    let schema = Schema::from_openapi(kind, &json!({"type": "object", "properties": properties})).ok()?;
    let names = names(API_VERSION, plural, kind, &[], scope);
    Some(Resource { names, subresources: plain(), schema, strategy: Box::new(Metrics), storage: None })
}

struct Metrics;

impl Strategy for Metrics {
    fn verbs(&self) -> &'static [&'static str] {
        &["get", "list"]
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("CPU", "string", "Cores that were used, the mean over the window."),
            Column::new("Memory", "string", "Memory that is used."),
            Column::new("Window", "string", "Time over which use was measured."),
        ]
    }
    fn cells(&self, object: &Value, _now: i64) -> Vec<Value> {
        let total = |resource: &str| -> String {
            let own = object.get("usage").into_iter();
            let parts = own.chain(list(object, "/containers").iter().filter_map(|c| c.get("usage")));
            let amounts = parts.filter_map(|u| Quantity::parse(u.get(resource)?.as_str()?).ok());
            amounts.sum::<Quantity>().to_string()
        };
        vec![table::name(object), json!(total("cpu")), json!(total("memory")), json!(text(object, "/window"))]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_as_upstream_prints_it() {
        let window = Duration::from_micros(15_012_345);
        let use_of = |nano_cores, working_set| Usage { nano_cores, working_set };
        let at = "2026-01-01T00:00:00Z";
        let made = node("n", &json!({"zone": "a"}), at, window, use_of(1_500_000_001, 8 << 30));
        assert_eq!(
            made,
            json!({"apiVersion": "metrics.k8s.io/v1beta1", "kind": "NodeMetrics",
                "metadata": {"name": "n", "labels": {"zone": "a"}, "creationTimestamp": at},
                "timestamp": at, "window": "15.012s", "usage": {"cpu": "1500000001n", "memory": "8Gi"}})
        );
        assert_eq!(Metrics.cells(&made, 0), [json!("n"), json!("1500000001n"), json!("8Gi"), json!("15.012s")]);
        let containers = [("a".to_string(), use_of(250_000_000, 1024)), ("b".to_string(), use_of(1, 1))];
        let made = pod(("d", "p"), &json!({}), at, Duration::from_secs(10), &containers);
        assert_eq!(made["metadata"], json!({"name": "p", "namespace": "d", "creationTimestamp": at}));
        assert_eq!(made["containers"][0], json!({"name": "a", "usage": {"cpu": "250m", "memory": "1Ki"}}));
        assert_eq!(Metrics.cells(&made, 0), [json!("p"), json!("250000001n"), json!("1025"), json!("10s")]);
        for (resource, mut object) in [(pods(), made), (nodes(), node("n", &json!({}), at, window, use_of(1, 1)))] {
            let decoded = resource.unwrap().schema.decode(&mut object).unwrap();
            assert_eq!(decoded.unknown, Vec::<String>::new());
        }
    }
}
