//! exec and attach: a further process in a container, or the container's own streams, over a WebSocket.

use std::sync::Arc;

use axum::Router;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::{Path, Query, State, WebSocketUpgrade};
use axum::http::StatusCode;
use axum::response::Response;
use axum::routing::any;
use tokio::sync::mpsc;

use crate::pods::Pods;
use crate::runtime::{ContainerExit, ExecSpec, RunningContainer};
use crate::streaming::{self, MAX_MESSAGE, MAX_PIECES, PROTOCOLS, Streams};

/// The routes.
pub fn routes() -> Router<Arc<Pods>> {
    Router::new()
        .route("/exec/{namespace}/{pod}/{container}", any(exec))
        .route("/attach/{namespace}/{pod}/{container}", any(attach))
}

type Failure = (StatusCode, String);
type Upgrade = Result<WebSocketUpgrade, WebSocketUpgradeRejection>;
type Place = Path<(String, String, String)>;

/// What a client asks for: `v1.PodExecOptions`, `v1.PodAttachOptions`.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    command: Vec<String>,
    stdin: bool,
    stdout: bool,
    stderr: bool,
    tty: bool,
}

impl Options {
    fn of(query: Vec<(String, String)>) -> Result<Self, Failure> {
        let mut options = Self::default();
        for (name, value) in query {
            let on = value == "true" || value == "1";
            match name.as_str() {
                "command" => options.command.push(value),
                "stdin" => options.stdin = on,
                "stdout" => options.stdout = on,
                "stderr" => options.stderr = on,
                "tty" => options.tty = on,
                _ => {}
            }
        }
        if !(options.stdin || options.stdout || options.stderr) {
            return Err(bad("you must specify at least 1 of stdin, stdout, stderr".into()));
        }
        Ok(options)
    }
}

fn bad(message: String) -> Failure {
    (StatusCode::BAD_REQUEST, message)
}

async fn exec(
    State(pods): State<Arc<Pods>>,
    Path((namespace, pod, container)): Place,
    Query(query): Query<Vec<(String, String)>>,
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let options = Options::of(query)?;
    if options.command.is_empty() {
        return Err(bad("you must specify at least one command for the container".into()));
    }
    let handle = running(&pods, &namespace, &pod, &container)?;
    let upgrade = websocket(upgrade)?;
    let (to, output) = mpsc::channel(MAX_PIECES);
    let (stdin, source) = if options.stdin { Some(crate::wasm::input()) } else { None }.unzip();
    let spec = ExecSpec { args: options.command.clone(), stdin: source, tty: options.tty, output: to };
    let process = match handle.exec(spec) {
        Ok(process) => process,
        Err(error) => {
            let why = format!("cannot run {:?}: {error}", options.command);
            return Ok(upgrade.on_upgrade(async move |socket| streaming::refuse(socket, &why).await));
        }
    };
    let streams = Streams { stdin, output, stdout: options.stdout, stderr: options.stderr, tty: options.tty };
    // Dropped, and so killed, when its client is gone.
    Ok(upgrade.on_upgrade(move |socket| async move { streaming::carry(socket, streams, process.wait()).await }))
}

async fn attach(
    State(pods): State<Arc<Pods>>,
    Path((namespace, pod, container)): Place,
    Query(query): Query<Vec<(String, String)>>,
    upgrade: Upgrade,
) -> Result<Response, Failure> {
    let options = Options::of(query)?;
    let handle = running(&pods, &namespace, &pod, &container)?;
    let upgrade = websocket(upgrade)?;
    let (to, output) = mpsc::channel(MAX_PIECES);
    let stdin = handle.attach(to, options.stdin);
    let streams = Streams { stdin, output, stdout: options.stdout, stderr: options.stderr, tty: options.tty };
    // How the container ends is told by its status; attaching to it has succeeded.
    let ended = async move { ContainerExit { code: 0, ..handle.wait().await } };
    Ok(upgrade.on_upgrade(move |socket| streaming::carry(socket, streams, ended)))
}

fn running(pods: &Pods, namespace: &str, pod: &str, container: &str) -> Result<Arc<dyn RunningContainer>, Failure> {
    let found = pods.find(namespace, pod).ok_or_else(|| {
        (StatusCode::NOT_FOUND, format!("pod {pod:?} not found in namespace {namespace:?} on this node"))
    })?;
    let handle = found.view.read().handles.get(container).cloned();
    handle.ok_or_else(|| bad(format!("container {container:?} in pod {pod:?} is not running")))
}

fn websocket(upgrade: Upgrade) -> Result<WebSocketUpgrade, Failure> {
    let upgrade = upgrade.map_err(|_| {
        bad("exec and attach speak WebSocket here, not SPDY: use kubectl 1.31 or later, or set \
             KUBECTL_REMOTE_COMMAND_WEBSOCKETS=true for kubectl 1.29 and 1.30"
            .into())
    })?;
    let upgrade = upgrade.max_message_size(MAX_MESSAGE).max_frame_size(MAX_MESSAGE).protocols(PROTOCOLS);
    if upgrade.selected_protocol().is_none() {
        return Err(bad(format!("the client offers none of the subprotocols {}", PROTOCOLS.join(", "))));
    }
    Ok(upgrade)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options() {
        let of = |text: &str| {
            let pairs = text.split('&').filter_map(|p| p.split_once('=')).map(|(k, v)| (k.into(), v.into()));
            Options::of(pairs.collect())
        };
        let command = vec!["ls".to_string(), "-l".to_string()];
        let expected = Options { command, stdout: true, tty: true, ..Options::default() };
        assert_eq!(of("command=ls&command=-l&stdout=true&tty=1&container=c"), Ok(expected));
        assert!(of("command=ls").unwrap_err().1.contains("at least 1 of stdin, stdout, stderr"));
    }
}
