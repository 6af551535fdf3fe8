//! ComponentStatus: the health of the control plane's parts, worked out for each request. It can only be read.

use serde_json::{Value, json};

use super::value::{list, text};
use super::{names, plain};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};

/// What the API says to everyone who asks for one.
pub const DEPRECATED: &str = "v1 ComponentStatus is deprecated in v1.19+";

/// ComponentStatuses.
pub fn resource() -> Option<Resource> {
    let names = names("v1", "componentstatuses", "ComponentStatus", &["cs"], Scope::Cluster);
    super::built_in(names, plain(), ComponentStatus)
}

/// The status of a part: what it says of itself, or what is wrong with it.
pub fn status(name: &str, health: Result<&str, &str>) -> Value {
    let condition = match health {
        Ok(message) => json!({"type": "Healthy", "status": "True", "message": message}),
        Err(error) => json!({"type": "Healthy", "status": "False", "error": error}),
    };
    json!({
        "apiVersion": "v1", "kind": "ComponentStatus", "metadata": {"name": name}, "conditions": [condition],
    })
}

struct ComponentStatus;

impl Strategy for ComponentStatus {
    fn verbs(&self) -> &'static [&'static str] {
        &["get", "list"]
    }
    fn has_generation(&self) -> bool {
        false
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Status", "string", "Healthy, Unhealthy or Unknown."),
            Column::new("Message", "string", "What the component says of itself."),
            Column::new("Error", "string", "What is wrong with it."),
        ]
    }
    fn cells(&self, object: &Value, _now: i64) -> Vec<Value> {
        let condition = list(object, "/conditions").iter().find(|c| text(c, "/type") == "Healthy");
        let (status, message, error) = match condition {
            Some(c) if text(c, "/status") == "True" => ("Healthy", text(c, "/message"), text(c, "/error")),
            Some(c) => ("Unhealthy", text(c, "/message"), text(c, "/error")),
            None => ("Unknown", "", ""),
        };
        vec![table::name(object), json!(status), json!(message), json!(error)]
    }
}
