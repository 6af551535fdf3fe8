//! A cluster in memory for tests of controllers: objects with UIDs and versions, the API's rules for names and
//! preconditions, and one node's view of its pods.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::testing::at;
use super::{Action, Plan};

/// Objects of one namespace by resource and name, and the present.
#[derive(Clone, Default)]
pub struct Cluster {
    objects: BTreeMap<(String, String), Value>,
    revision: u64,
    seconds: i64,
}

impl Cluster {
    /// The present time.
    pub fn now(&self) -> Timestamp {
        at(self.seconds)
    }
    /// Lets time pass.
    pub fn wait(&mut self, seconds: i64) {
        self.seconds += seconds;
    }
    /// All objects of a resource.
    pub fn list<T: DeserializeOwned>(&self, resource: &str) -> Vec<Arc<T>> {
        self.values(resource).map(|v| Arc::new(serde_json::from_value(v.clone()).unwrap())).collect()
    }
    /// All objects of a resource as they are.
    pub fn values<'a>(&'a self, resource: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects.iter().filter(move |((of, _), _)| of == resource).map(|(_, v)| v)
    }
    /// Their names.
    pub fn names(&self, resource: &str) -> Vec<String> {
        self.objects.keys().filter(|(of, _)| of == resource).map(|(_, name)| name.clone()).collect()
    }
    /// One object.
    pub fn get(&self, resource: &str, name: &str) -> Option<&Value> {
        self.objects.get(&(resource.into(), name.into()))
    }
    /// Takes an object away.
    pub fn remove(&mut self, resource: &str, name: &str) {
        self.objects.remove(&(resource.into(), name.into()));
    }
    /// Changes an object; a change of its spec is a new generation.
    pub fn edit(&mut self, resource: &str, name: &str, change: impl FnOnce(&mut Value)) {
        self.revision += 1;
        let Some(object) = self.objects.get_mut(&(resource.into(), name.into())) else { return };
        let spec = object["spec"].clone();
        change(object);
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        if object["spec"] != spec {
            let generation = object["metadata"]["generation"].as_i64().unwrap_or(0);
            object["metadata"]["generation"] = json!(generation + 1);
        }
    }
    /// Stores a new object.
    ///
    /// # Errors
    /// If its name is taken.
    pub fn create(&mut self, resource: &str, mut object: Value) -> Result<(), String> {
        self.revision += 1;
        let meta = &object["metadata"];
        let name = match (meta["name"].as_str(), meta["generateName"].as_str()) {
            (Some(name), _) => name.to_string(),
            (None, prefix) => format!("{}{}", prefix.unwrap_or_default(), self.revision),
        };
        let key = (resource.to_string(), name.clone());
        if self.objects.contains_key(&key) {
            return Err(format!("{resource} {name} already exists"));
        }
        object["metadata"]["name"] = json!(name);
        object["metadata"]["namespace"] = json!("shop");
        object["metadata"]["uid"] = json!(format!("uid-{}", self.revision));
        object["metadata"]["resourceVersion"] = json!(self.revision.to_string());
        object["metadata"]["generation"] = json!(1);
        object["metadata"]["creationTimestamp"] = json!(self.now().to_string());
        if resource == "pods" {
            object["status"] = json!({"phase": "Pending"});
        }
        self.objects.insert(key, object);
        Ok(())
    }

    /// Carries a plan out as the driver does, but stops after `most` writes, or at the first that is refused.
    pub fn apply(&mut self, plan: &Plan, most: usize) {
        for action in plan.actions.iter().chain(&plan.status).take(most) {
            if self.act(action).is_err() {
                return;
            }
        }
    }

    fn act(&mut self, action: &Action) -> Result<(), String> {
        let target = action.target();
        let (resource, name) = (target.gvr.resource.as_str(), target.name.as_str());
        match action {
            Action::Create { object, .. } => self.create(resource, object.clone()),
            Action::Patch { patch, .. } => {
                let Some(object) = self.get(resource, name) else { return Ok(()) };
                for key in ["uid", "resourceVersion"] {
                    let wanted = &patch["metadata"][key];
                    if !wanted.is_null() && *wanted != object["metadata"][key] {
                        return Err("conflict".into());
                    }
                }
                self.edit(resource, name, |object| json_patch::merge(object, patch));
                Ok(())
            }
            Action::Delete { uid, grace, .. } => {
                let Some(object) = self.get(resource, name) else { return Ok(()) };
                if uid.as_deref().is_some_and(|uid| object["metadata"]["uid"] != uid) {
                    return Err("conflict".into());
                }
                self.delete(resource, name, *grace == Some(0));
                Ok(())
            }
        }
    }

    /// Deletes an object; a pod that runs on a node goes only when the node says so, unless forced.
    pub fn delete(&mut self, resource: &str, name: &str, force: bool) {
        let now = self.now().to_string();
        let runs = self.get(resource, name).is_some_and(|o| o["spec"]["nodeName"].is_string());
        if resource == "pods" && runs && !force {
            self.edit(resource, name, |pod| pod["metadata"]["deletionTimestamp"] = json!(now));
        } else {
            self.remove(resource, name);
        }
    }

    /// A node starts a pod, and it is ready or not.
    pub fn run(&mut self, pod: &str, node: &str, ready: bool) {
        let since = self.now().to_string();
        self.edit("pods", pod, |pod| {
            pod["spec"]["nodeName"] = json!(node);
            let status = if ready { "True" } else { "False" };
            let condition = json!({"type": "Ready", "status": status, "lastTransitionTime": since});
            pod["status"] = json!({"phase": "Running", "conditions": [condition]});
        });
    }

    /// A node's pod ends by itself.
    pub fn fail(&mut self, pod: &str) {
        self.edit("pods", pod, |pod| pod["status"] = json!({"phase": "Failed"}));
    }
}
