//! A watch through kubectl, each event with the time at which it came; and a way to POST without kubectl's start-up.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::http::Connection;
use crate::program::{Output, Program};
use crate::target::Target;

/// How long kubectl may take to connect.
const CONNECT: Duration = Duration::from_secs(30);

/// `kubectl get --raw PATH?watch=1`.
pub struct Watch(Program);

impl Watch {
    /// Starts to watch a list that is not empty, and waits for its first event, so that the watch is known to stand.
    ///
    /// # Errors
    /// No event came within half a minute.
    pub fn start(cluster: &Cluster, path: &str) -> Result<Self> {
        let mut command = cluster.kubectl_command();
        let program =
            Program::start("kubectl watch", command.args(["get", "--raw", &format!("{path}?watch=1")]), Output::Out)?;
        program.line(Instant::now() + CONNECT, "a first event", |line| Some(line.len()))?;
        Ok(Self(program))
    }

    /// Reads on until an event on the object of this name that `accept`s (event type, object) is true for; returns
    /// when it came.
    ///
    /// # Errors
    /// None came within `limit`.
    pub fn until(
        &self,
        limit: Duration,
        name: &str,
        what: &str,
        accept: impl Fn(&str, &Value) -> bool,
    ) -> Result<Instant> {
        let found = self.0.line(Instant::now() + limit, what, |line| matching(line, name, &accept).then_some(()));
        Ok(found.with_context(|| format!("{name} within {} s", limit.as_secs()))?.0)
    }
}

/// Whether a watch event is on the object of this name and accepted.
fn matching(line: &str, name: &str, accept: impl Fn(&str, &Value) -> bool) -> bool {
    let Ok(event) = serde_json::from_str::<Value>(line) else { return false };
    let (Some(kind), Some(object)) = (event.get("type").and_then(Value::as_str), event.get("object")) else {
        return false;
    };
    object.pointer("/metadata/name").and_then(Value::as_str) == Some(name) && accept(kind, object)
}

/// `kubectl proxy` and a kept connection to it.
pub struct Poster {
    connection: Connection,
    target: Target,
    // Ended when this is dropped, after the connection.
    _proxy: Program,
}

impl Poster {
    /// Starts the proxy on a free port.
    ///
    /// # Errors
    /// It does not say where it serves.
    pub fn start(cluster: &Cluster) -> Result<Self> {
        let mut command = cluster.kubectl_command();
        let proxy = Program::start("kubectl proxy", command.args(["proxy", "--port=0"]), Output::Out)?;
        let (_, address) = proxy.line(Instant::now() + CONNECT, "its address", |line| {
            line.strip_prefix("Starting to serve on ")?.trim().parse::<SocketAddr>().ok()
        })?;
        let target = Target::plain(address);
        Ok(Self { connection: Connection::open(&target)?, target, _proxy: proxy })
    }

    /// Creates an object.
    ///
    /// # Errors
    /// The answer is not 201.
    pub fn post(&mut self, path: &str, object: &Value) -> Result<()> {
        let request = self.target.request("POST", path, &object.to_string());
        let response = self.connection.exchange(&request)?;
        if !response.keep {
            self.connection = Connection::open(&self.target)?;
        }
        ensure!(response.status == 201, "POST {path} answered {}", response.status);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_matched_by_name_and_content() {
        let line = r#"{"type":"MODIFIED","object":{"metadata":{"name":"a"},"status":{"phase":"Running"}}}"#;
        let running = |_: &str, o: &Value| o.pointer("/status/phase").and_then(Value::as_str) == Some("Running");
        assert!(matching(line, "a", running));
        assert!(!matching(line, "b", running));
        assert!(!matching(line, "a", |kind, _| kind == "ADDED"));
        assert!(!matching("not json", "a", |_, _| true));
    }
}
