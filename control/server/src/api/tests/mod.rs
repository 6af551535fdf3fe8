//! The API server through its router, in process, over the memory store.

mod access;
mod admission;
mod apply;
mod bad_bodies;
mod bad_input;
mod clients;
mod component_statuses;
mod conformance;
mod decoding;
mod deletes;
mod evictions;
mod fairness;
mod invented;
mod lists;
mod minimal;
mod pods;
mod resource_metrics;
mod services;
mod upstream;
mod verbs;
mod watches;
mod workloads;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, BodyDataStream};
use copepod_core::kinds;
use copepod_core::resource::Registry;
use copepod_store::{MemoryStore, Store};
use futures::StreamExt;
use http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt;
use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

use super::{ApiConfig, ApiState, router};
use crate::authorization::{Authorizer, Trusted};
use crate::components::Components;
use crate::dialer::{DialError, NodeDialer, NodeStream};

/// No test waits longer than this for one thing (also on a paused clock, where bookmarks take a minute).
const PATIENCE: Duration = Duration::from_secs(100);

pub(super) struct Unconnected;

#[async_trait]
impl NodeDialer for Unconnected {
    async fn dial(&self, node: &str) -> Result<Box<dyn NodeStream>, DialError> {
        Err(DialError::NotConnected(node.into()))
    }
}

pub(super) struct Server {
    pub router: Router,
    pub state: Arc<ApiState>,
    pub store: Arc<MemoryStore>,
    pub shutdown: CancellationToken,
    pub now: Arc<Mutex<Timestamp>>,
    pub components: Arc<Components>,
}

pub(super) struct Answer {
    pub code: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    /// The object, in whatever format it is.
    pub fn json(&self) -> Value {
        let kind = self.headers.get("content-type").and_then(|v| v.to_str().ok()).unwrap_or_default();
        let format = if kind.contains("yaml") || kind.contains("protobuf") { kind } else { "application/json" };
        copepod_core::codec::decode(format, &self.body, None).unwrap_or_else(|e| panic!("{e}: {}", self.text())).value
    }
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
    /// The object of a successful answer.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.code), "{}: {}", self.code, self.text());
        self.json()
    }
    /// The message of an error, which must have this code and come as a Status.
    #[track_caller]
    pub fn err(&self, code: u16) -> String {
        assert_eq!(self.code, code, "{}", self.text());
        let status = self.json();
        assert_eq!((&status["kind"], &status["code"]), (&json!("Status"), &json!(code)));
        status["message"].as_str().unwrap_or_default().to_string()
    }
}

impl Server {
    pub async fn start() -> Self {
        Self::with(kinds::builtin(), Arc::new(Unconnected)).await
    }

    pub async fn with(registry: Registry, dialer: Arc<dyn NodeDialer>) -> Self {
        Self::made_of(registry, dialer, Trusted::shared()).await
    }

    pub async fn guarded_by(authorizer: Arc<dyn Authorizer>) -> Self {
        Self::made_of(kinds::builtin(), Arc::new(Unconnected), authorizer).await
    }

    /// A server with the namespace `default` and its account.
    async fn made_of(registry: Registry, dialer: Arc<dyn NodeDialer>, authorizer: Arc<dyn Authorizer>) -> Self {
        let store = Arc::new(MemoryStore::new(copepod_store::Options::default()));
        let now: Arc<Mutex<Timestamp>> = Arc::new(Mutex::new("2026-01-01T00:00:00Z".parse().unwrap()));
        let (clock, shutdown) = (now.clone(), CancellationToken::new());
        let components = Arc::new(Components::default());
        let state = ApiState::new(ApiConfig {
            authorizer,
            store: store.clone(),
            registry,
            components: components.clone(),
            dialer,
            clock: Arc::new(move || *clock.lock()),
            service_cidr: "10.43.0.0/16".parse().unwrap(),
            node_ports: 30000..=32767,
            shutdown: shutdown.clone(),
        });
        let state = Arc::new(state);
        let server = Self { router: router(state.clone()), state, store, shutdown, now, components };
        let ns = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "default"}});
        server.post("/api/v1/namespaces", &ns).await.ok();
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}});
        server.post("/api/v1/namespaces/default/serviceaccounts", &account).await.ok();
        server
    }

    pub async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (k, v) in headers {
            request = request.header(*k, *v);
        }
        let work = async {
            let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
            let (parts, body) = response.into_parts();
            let body = body.collect().await.unwrap().to_bytes().to_vec();
            Answer { code: parts.status.as_u16(), headers: parts.headers, body }
        };
        tokio::time::timeout(PATIENCE, work).await.unwrap_or_else(|_| panic!("{method} {path} takes too long"))
    }
    pub async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], Body::empty()).await
    }
    pub async fn get_as(&self, path: &str, accept: &str) -> Answer {
        self.send("GET", path, &[("accept", accept)], Body::empty()).await
    }
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[("content-type", "application/json")], body.to_string()).await
    }
    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send("PUT", path, &[("content-type", "application/json")], body.to_string()).await
    }
    pub async fn patch(&self, path: &str, kind: &str, body: &Value) -> Answer {
        let media = format!("application/{kind}-patch+json");
        self.send("PATCH", path, &[("content-type", &media)], body.to_string()).await
    }
    pub async fn delete(&self, path: &str) -> Answer {
        self.send("DELETE", path, &[], Body::empty()).await
    }
    pub async fn delete_with(&self, path: &str, options: &Value) -> Answer {
        self.send("DELETE", path, &[("content-type", "application/json")], options.to_string()).await
    }
    /// Opens a watch.
    pub async fn watch(&self, path: &str) -> Events {
        self.watch_as(path, "application/json").await
    }
    pub async fn watch_as(&self, path: &str, accept: &str) -> Events {
        let request = Request::get(path).header(header::ACCEPT, accept).body(Body::empty()).unwrap();
        let response = self.router.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        Events { body: response.into_body().into_data_stream(), lines: VecDeque::new(), rest: Vec::new() }
    }
}

/// A running watch.
pub(super) struct Events {
    body: BodyDataStream,
    lines: VecDeque<Value>,
    rest: Vec<u8>,
}

impl Events {
    /// The next event; `None` when the stream ends.
    pub async fn next(&mut self) -> Option<Value> {
        loop {
            if let Some(line) = self.lines.pop_front() {
                return Some(line);
            }
            let chunk = tokio::time::timeout(PATIENCE, self.body.next()).await.expect("an event comes")?;
            self.rest.extend_from_slice(&chunk.unwrap());
            while let Some(end) = self.rest.iter().position(|b| *b == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                self.lines.push_back(serde_json::from_slice(&line).unwrap());
            }
        }
    }
    /// The next event as `TYPE name`.
    pub async fn brief(&mut self) -> String {
        match self.next().await {
            None => "end".into(),
            Some(e) => {
                let kind = e["type"].as_str().unwrap().to_string();
                let object = &e["object"];
                match object["metadata"]["name"].as_str() {
                    Some(name) => format!("{kind} {name}"),
                    None => kind,
                }
            }
        }
    }
}

pub(super) const CONFIG_MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub(super) fn config_map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

pub(super) fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}
