//! Upstream's documented behaviours, case by case, and properties.

mod golden;
mod managers;
mod merging;
mod properties;
mod tracking;

use std::sync::Arc;

use copepod_api::Gvk;
use serde_json::{Value, json};

use super::*;
use crate::schema::{Schema, builtin};

/// A kind with every list and map type.
pub(super) fn toy() -> Arc<Schema> {
    let item = json!({"type": "object", "properties": {
        "name": {"type": "string"}, "value": {"type": "integer"}, "list": {"type": "array", "items": {"type": "string"}},
        "sub": {"type": "object", "properties": {"a": {"type": "string"}, "b": {"type": "string"}}}}});
    let port = json!({"type": "object", "properties": {
        "port": {"type": "integer"}, "protocol": {"type": "string", "default": "TCP"}, "name": {"type": "string"}}});
    let schema = json!({"type": "object", "properties": {
        "spec": {"type": "object", "properties": {
            "replicas": {"type": "integer"},
            "text": {"type": "string"},
            "list": {"type": "array", "items": {"type": "string"}},
            "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
            "items": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item},
            "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["port", "protocol"],
                "items": port},
            "map": {"type": "object", "additionalProperties": {"type": "string"}},
            "atom": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {
                "a": {"type": "string"}, "b": {"type": "string"}}},
            "free": {"x-kubernetes-preserve-unknown-fields": true}}},
        "status": {"type": "object", "properties": {"ready": {"type": "integer"}}}}});
    Schema::from_openapi("Toy", &schema).unwrap()
}

pub(super) fn deployments() -> Arc<Schema> {
    builtin(&Gvk::new("apps", "v1", "Deployment")).unwrap()
}

/// An object that clients write, with the clock.
pub(super) struct Cluster {
    pub schema: Arc<Schema>,
    pub version: &'static str,
    pub object: Option<Value>,
    pub managed: Option<Value>,
    pub now: i64,
}

impl Cluster {
    pub fn new(schema: Arc<Schema>, version: &'static str) -> Self {
        Self { schema, version, object: None, managed: None, now: 1_767_225_600 }
    }
    pub fn toy() -> Self {
        Self::new(toy(), "toys.example.com/v1")
    }
    fn writer<'a>(&self, name: &'a str) -> Writer<'a>
    where
        'static: 'a,
    {
        Writer {
            name,
            api_version: self.version,
            subresource: "",
            time: jiff::Timestamp::from_second(self.now).unwrap(),
        }
    }
    /// Applies a spec.
    pub fn apply(&mut self, name: &str, spec: Value) -> Result<(), ApplyError> {
        self.apply_object(name, &self.whole(spec), false)
    }
    pub fn force(&mut self, name: &str, spec: Value) {
        self.apply_object(name, &self.whole(spec), true).unwrap();
    }
    pub fn apply_object(&mut self, name: &str, config: &Value, force: bool) -> Result<(), ApplyError> {
        self.now += 1;
        let config = Config::decode(&self.schema, config.clone(), Part::Main).unwrap();
        let writer = self.writer(name);
        let applied = apply(&self.schema, self.object.as_ref(), self.managed.clone(), &config, &writer, force)?;
        (self.object, self.managed) = (Some(applied.object), applied.managed);
        Ok(())
    }
    /// Writes a whole new spec.
    pub fn update(&mut self, name: &str, spec: Value) {
        self.now += 1;
        let new = self.whole(spec);
        let managed = self.managed.take();
        self.managed = track(&self.schema, self.object.as_ref(), &new, managed, &self.writer(name));
        self.object = Some(new);
    }
    pub fn whole(&self, spec: Value) -> Value {
        let mut whole = json!({"apiVersion": self.version, "kind": "Toy", "metadata": {"name": "x"}, "spec": spec});
        if whole["spec"].is_null() {
            whole.as_object_mut().unwrap().remove("spec");
        }
        whole
    }
    pub fn spec(&self) -> Value {
        self.object.as_ref().unwrap()["spec"].clone()
    }
    pub fn entry(&self, name: &str) -> Option<Value> {
        let list = self.managed.as_ref()?.as_array()?;
        list.iter().find(|e| e["manager"] == name).cloned()
    }
    /// What a manager owns in the spec, as paths.
    pub fn owns(&self, name: &str) -> Vec<String> {
        let Some(entry) = self.entry(name) else { return Vec::new() };
        let set = FieldSet::from_fields_v1(&entry["fieldsV1"]).unwrap();
        set.paths().iter().map(|p| p.iter().map(ToString::to_string).collect::<String>()).collect()
    }
}
