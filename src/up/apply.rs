//! Applies objects in the manner of `kubectl apply`: fields of the last application that are gone are removed, fields
//! that others set stay. Lists are replaced whole (merge patch, RFC 7386); defaults are filled in again.

use anyhow::{Context, Result, bail};
use kube::api::{Api, ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::discovery::{Scope, pinned_kind};
use serde_json::{Value, json};

use super::load::App;

/// kubectl's annotation with the object as it was last applied
/// (<https://kubernetes.io/docs/reference/labels-annotations-taints/>).
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object that was applied.
pub struct Applied {
    resource: ApiResource,
    object: DynamicObject,
    namespaced: bool,
}

impl Applied {
    /// Its kind.
    pub fn kind(&self) -> &str {
        &self.resource.kind
    }
    /// Its name.
    pub fn name(&self) -> String {
        self.object.metadata.name.clone().unwrap_or_default()
    }
    /// Its namespace, if it has one.
    pub fn namespace(&self) -> Option<String> {
        self.object.metadata.namespace.clone()
    }
    /// Where it is.
    pub fn api(&self, client: &kube::Client) -> Api<DynamicObject> {
        api(client, &self.resource, self.namespaced.then(|| self.namespace()).flatten().as_deref())
    }
}

fn api(client: &kube::Client, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

/// Applies all objects in order.
///
/// # Errors
/// The cluster does not know a kind or refuses an object.
pub async fn apply(client: &kube::Client, app: &App, namespace: &str) -> Result<Vec<Applied>> {
    let mut applied = Vec::new();
    for object in &app.objects {
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (api_version, kind, name) = (text("/apiVersion"), text("/kind"), text("/metadata/name"));
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        let gvk = GroupVersionKind::gvk(group, version, kind);
        let (resource, capabilities) = pinned_kind(client, &gvk)
            .await
            .with_context(|| format!("{kind} {name}: the cluster has no kind {kind} in {api_version}"))?;
        let namespaced = capabilities.scope == Scope::Namespaced;
        let own = object.pointer("/metadata/namespace").and_then(Value::as_str).unwrap_or(namespace);
        let api = api(client, &resource, namespaced.then_some(own));
        let (object, what) = apply_one(&api, object, name).await.with_context(|| format!("{kind} {name}"))?;
        eprintln!("{} {name} {what}", kind.to_ascii_lowercase());
        applied.push(Applied { resource, object, namespaced });
    }
    Ok(applied)
}

async fn apply_one(api: &Api<DynamicObject>, object: &Value, name: &str) -> Result<(DynamicObject, &'static str)> {
    let mut wanted = object.clone();
    let annotation = json!({LAST_APPLIED: serde_json::to_string(object)?});
    merge(&mut wanted, &json!({"metadata": {"annotations": annotation}}));
    let Some(live) = api.get_opt(name).await? else {
        let create: DynamicObject = serde_json::from_value(wanted)?;
        return Ok((api.create(&PostParams::default(), &create).await?, "created"));
    };
    let before: Value = match live.metadata.annotations.as_ref().and_then(|a| a.get(LAST_APPLIED)) {
        Some(text) => serde_json::from_str(text).unwrap_or_default(),
        None => Value::Null,
    };
    let mut patch = wanted.clone();
    remove_dropped(&before, &wanted, &mut patch);
    let after = api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    let what =
        if after.metadata.resource_version == live.metadata.resource_version { "unchanged" } else { "configured" };
    if after.metadata.name.as_deref() != Some(name) {
        bail!("the server answered for another object");
    }
    Ok((after, what))
}

/// Sets to null (merge patch, RFC 7386: "remove") what the last application had and this one has not.
fn remove_dropped(before: &Value, now: &Value, patch: &mut Value) {
    let (Some(before), Some(now), Some(patch)) = (before.as_object(), now.as_object(), patch.as_object_mut()) else {
        return;
    };
    for (key, old) in before {
        match now.get(key) {
            None => {
                patch.insert(key.clone(), Value::Null);
            }
            Some(new) => {
                if let Some(patch) = patch.get_mut(key) {
                    remove_dropped(old, new, patch);
                }
            }
        }
    }
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (key, value) in from {
                merge(into.entry(key.clone()).or_insert(json!({})), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropped_fields_become_null() {
        let before = json!({"spec": {"a": 1, "b": {"c": 1, "d": 2}}, "x": 1});
        let now = json!({"spec": {"a": 1, "b": {"c": 3}}});
        let mut patch = now.clone();
        remove_dropped(&before, &now, &mut patch);
        assert_eq!(patch, json!({"spec": {"a": 1, "b": {"c": 3, "d": null}}, "x": null}));
        // The annotation of the application itself is wanted even if the file has no annotations any more.
        let before = json!({"metadata": {"annotations": {"note": "x"}}});
        let now = json!({"metadata": {"annotations": {LAST_APPLIED: "{}"}}});
        let mut patch = now.clone();
        remove_dropped(&before, &now, &mut patch);
        assert_eq!(patch, json!({"metadata": {"annotations": {LAST_APPLIED: "{}", "note": null}}}));
    }
}
