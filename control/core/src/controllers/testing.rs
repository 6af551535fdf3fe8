//! Fixtures of the controllers' tests.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde::de::DeserializeOwned;
use serde_json::json;

/// The tests' present.
pub fn now() -> Timestamp {
    at(0)
}

/// `seconds` after the tests' present.
pub fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

/// An object from YAML.
pub fn yaml<T: DeserializeOwned>(text: &str) -> T {
    let value: serde_json::Value = serde_saphyr::from_str(text).unwrap();
    serde_json::from_value(value).unwrap()
}

/// A pod `name` in namespace `shop` with UID `uid-NAME` and more metadata in YAML's flow style.
pub fn pod_yaml(name: &str, metadata: &str) -> Pod {
    yaml(&format!(
        "metadata: {{name: '{name}', namespace: shop, uid: uid-{name}, {metadata}}}\nspec: {{containers: []}}"
    ))
}

/// A status with a phase, ready since `ready` seconds from now (if at all).
pub fn pod_status(phase: &str, ready: Option<i64>) -> PodStatus {
    let condition = match ready {
        Some(since) => json!({"type": "Ready", "status": "True", "lastTransitionTime": at(since).to_string()}),
        None => json!({"type": "Ready", "status": "False"}),
    };
    serde_json::from_value(json!({"phase": phase, "conditions": [condition]})).unwrap()
}
