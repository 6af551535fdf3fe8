//! Executes plans: writes through the API, in growing batches, and tells what became of them.

use copepod_api::Gvr;
use copepod_api::image::encode_segment;
use copepod_core::controllers::{Action, Plan, Target};
use futures::future::join_all;
use http::{Method, Request};
use k8s_openapi::api::autoscaling::v1::Scale;
use serde::Deserialize;
use serde_json::{Value, json};

/// The most writes of one plan at once. Batches start at one and double, so that what fails, fails once.
pub(super) const MAX_PARALLEL: usize = 64;

/// Why a plan could not be executed.
#[derive(Debug)]
pub(super) enum Failure {
    /// What was decided on is out of date: decide again.
    Stale,
    /// The API refused or failed.
    Refused(Refusal),
}

/// A write that was refused.
#[derive(Debug)]
pub(super) struct Refusal {
    /// What was to be done.
    pub verb: Verb,
    /// With which object.
    pub target: Target,
    /// What the API said.
    pub error: kube::Error,
}

/// What an action does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Create,
    Patch,
    Delete,
}

impl Refusal {
    /// The reason of an event that tells of a refused create or delete, and its verb. There is none for a patch: it is of
    /// a status or an owner, and what is to be told is not that a pod could not be made or ended.
    pub fn told(&self) -> Option<(&'static str, &'static str)> {
        match self.verb {
            Verb::Create => Some(("FailedCreate", "creating")),
            Verb::Delete => Some(("FailedDelete", "deleting")),
            Verb::Patch => None,
        }
    }
}

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Writes {
    /// What was written, and its revision then.
    pub revisions: Vec<(Target, u64)>,
    /// Created objects' resources and names.
    pub created: Vec<(String, String)>,
    /// Deleted objects' resources and names.
    pub deleted: Vec<(String, String)>,
}

/// Writes under one identity.
#[derive(Clone)]
pub(super) struct Executor {
    client: kube::Client,
}

#[derive(Deserialize, Default)]
struct Written {
    #[serde(default)]
    metadata: WrittenMeta,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WrittenMeta {
    name: Option<String>,
    uid: Option<String>,
    resource_version: Option<String>,
    deletion_timestamp: Option<String>,
}

impl Executor {
    pub fn new(client: kube::Client) -> Self {
        Self { client }
    }

    pub fn client(&self) -> &kube::Client {
        &self.client
    }

    /// Executes a plan's actions, then its status write. Stops after the batch in which something failed, except that
    /// what was observed is written even so when it was a refusal; what was written by then is told in either case.
    pub async fn run(&self, plan: &Plan) -> (Writes, Result<(), Failure>) {
        let mut writes = Writes::default();
        let mut result = self.run_actions(&plan.actions, &mut writes).await;
        let goes_on = match &result {
            Ok(()) => true,
            Err(Failure::Refused(_)) => plan.status_observed,
            Err(Failure::Stale) => false,
        };
        if let Some(status) = plan.status.as_ref().filter(|_| goes_on) {
            match self.act(status).await {
                Ok(written) => writes.add(status, written),
                Err(error) => result = result.and(judge(status, error).map_or(Ok(()), Err)),
            }
        }
        (writes, result)
    }

    async fn run_actions(&self, actions: &[Action], writes: &mut Writes) -> Result<(), Failure> {
        let mut rest = actions;
        let mut size = 1;
        while !rest.is_empty() {
            let (batch, after) = rest.split_at(size.min(rest.len()));
            let mut failure = None;
            for (action, result) in batch.iter().zip(join_all(batch.iter().map(|a| self.act(a))).await) {
                match result {
                    Ok(written) => writes.add(action, written),
                    Err(error) => failure = failure.or_else(|| judge(action, error)),
                }
            }
            if let Some(failure) = failure {
                return Err(failure);
            }
            rest = after;
            size = (size * 2).min(MAX_PARALLEL);
        }
        Ok(())
    }

    async fn act(&self, action: &Action) -> Result<Written, kube::Error> {
        match action {
            Action::Create { target, object } => self.send(Method::POST, &target.collection_path(), object).await,
            Action::Patch { target, subresource, patch } => {
                let path =
                    if subresource.is_empty() { target.path() } else { format!("{}/{subresource}", target.path()) };
                self.send(Method::PATCH, &path, patch).await
            }
            Action::Delete { target, propagation, uid, grace } => {
                let mut options =
                    json!({"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": propagation.as_str()});
                if let Some(options) = options.as_object_mut() {
                    if let Some(uid) = uid {
                        options.insert("preconditions".into(), json!({"uid": uid}));
                    }
                    if let Some(grace) = grace {
                        options.insert("gracePeriodSeconds".into(), json!(grace));
                    }
                }
                self.send(Method::DELETE, &target.path(), &options).await
            }
        }
    }

    /// Sends a JSON body and reads a JSON answer.
    pub async fn send<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: &Value,
    ) -> Result<T, kube::Error> {
        let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
        let bytes = serde_json::to_vec(body).map_err(kube::Error::SerdeError)?;
        let request = Request::builder().method(method).uri(path).header("content-type", kind);
        self.client.request(request.body(bytes).map_err(kube::Error::HttpError)?).await
    }

    /// Reads the JSON at a path.
    pub async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, kube::Error> {
        let request = Request::builder().uri(path).body(Vec::new()).map_err(kube::Error::HttpError)?;
        self.client.request(request).await
    }

    /// Reads the scale of an object.
    pub async fn scale(&self, resource: Gvr, namespace: &str, name: &str) -> Result<Scale, kube::Error> {
        self.get(&format!("{}/scale", Target::new(resource, namespace, &encode_segment(name)).path())).await
    }

    /// Reads an object's UID and whether it is being deleted; `None` if it is not there.
    pub async fn look(&self, path: &str) -> Result<Option<(String, bool)>, kube::Error> {
        match self.get::<Written>(path).await {
            Ok(found) => {
                Ok(Some((found.metadata.uid.unwrap_or_default(), found.metadata.deletion_timestamp.is_some())))
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// What an error means to a plan; `None` if the write's aim is reached anyway.
fn judge(action: &Action, error: kube::Error) -> Option<Failure> {
    let verb = match action {
        Action::Create { .. } => Verb::Create,
        Action::Patch { .. } => Verb::Patch,
        Action::Delete { .. } => Verb::Delete,
    };
    if let kube::Error::Api(status) = &error {
        match status.code {
            // Gone, or replaced by another of its name: not ours any more.
            404 if verb != Verb::Create => return None,
            // The name that was asked for is someone else's: to decide again does not help.
            409 if named(action) && status.reason == "AlreadyExists" => {}
            409 => return Some(Failure::Stale),
            _ => {}
        }
    }
    Some(Failure::Refused(Refusal { verb, target: action.target().clone(), error }))
}

/// Whether it creates an object of a given name.
fn named(action: &Action) -> bool {
    matches!(action, Action::Create { object, .. } if object.pointer("/metadata/name").is_some_and(Value::is_string))
}

impl Writes {
    fn add(&mut self, action: &Action, written: Written) {
        let Target { gvr, namespace, .. } = action.target();
        let resource = &gvr.resource;
        let name = written.metadata.name.unwrap_or_else(|| action.target().name.clone());
        if let Some(revision) = written.metadata.resource_version.and_then(|v| v.parse::<u64>().ok()) {
            self.revisions.push((Target::new(gvr.clone(), namespace, &name), revision));
        }
        match action {
            Action::Create { .. } => self.created.push((resource.clone(), name)),
            Action::Delete { .. } => self.deleted.push((resource.clone(), action.target().name.clone())),
            Action::Patch { .. } => {}
        }
    }
}

/// What the API said, for people.
pub(super) fn explain(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

/// Whether an object may not be created because its namespace is going.
pub(super) fn namespace_going(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403 && status.message.contains("being terminated"))
}

#[cfg(test)]
#[path = "executor_tests.rs"]
mod tests;
