//! The local cluster of `copepod up`: a `copepod server` child on loopback.

use std::path::PathBuf;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::data_dir;

/// Where node ports listen.
const NODE_PORT_ADDRESS: &str = "127.0.0.1";

/// How a person reaches the cluster.
#[derive(Clone)]
pub struct Access {
    /// The admin's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Address of the DNS server.
    pub dns: String,
    /// Where node ports answer.
    pub node_port_address: &'static str,
}

/// A running local cluster.
pub struct Cluster {
    /// How to reach it.
    pub access: Access,
    server: Server,
    /// Removed with the cluster, unless it has a name.
    _throw_away: Option<tempfile::TempDir>,
}

enum Server {
    /// Started by us; its standard output is read until it ends, its standard input is held open.
    Child { child: Box<Child>, lines: Lines<BufReader<ChildStdout>>, stdin: Option<ChildStdin> },
    /// It ran before and goes on after us.
    Running,
}

impl Cluster {
    /// Finds the named cluster running, or starts it; without a name starts a throw-away one.
    ///
    /// # Errors
    /// The server did not become ready.
    pub async fn start(name: Option<&str>) -> Result<Self> {
        let (data_dir, throw_away) = match name {
            Some(name) => {
                let ok =
                    !name.is_empty() && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
                if !ok {
                    bail!("--name {name}: use lower-case letters, digits and `-`");
                }
                (data_dir::default_path()?.join("up").join(name), None)
            }
            None => {
                let dir = tempfile::Builder::new().prefix("copepod-up-").tempdir()?;
                (dir.path().to_path_buf(), Some(dir))
            }
        };
        if name.is_some()
            && let Some(running) = Self::find(&data_dir).await
        {
            eprintln!("using the running cluster in {}", data_dir.display());
            return Ok(running);
        }
        eprintln!("starting a cluster in {}", data_dir.display());
        let mut child = Command::new(std::env::current_exe()?)
            .arg("server")
            .arg("--data-dir")
            .arg(&data_dir)
            .args(["--listen", "127.0.0.1:0", "--dns-listen", "127.0.0.1:0", "--node-port-address", NODE_PORT_ADDRESS])
            // Even a kill -9 of ours ends the server: its standard input closes.
            .arg("--until-stdin-ends")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Its own group: Ctrl-C reaches us alone, and we stop it in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .context("cannot start copepod server")?;
        // Taken out of the child, which would close it when it is waited for.
        let stdin = child.stdin.take();
        let mut lines = BufReader::new(child.stdout.take().context("the server has no output")?).lines();
        while let Some(line) = lines.next_line().await? {
            if let Some(ready) = ReadyLine::parse(&line) {
                return Ok(Self {
                    access: ready.access(),
                    server: Server::Child { child: Box::new(child), lines, stdin },
                    _throw_away: throw_away,
                });
            }
        }
        let status = child.wait().await?;
        bail!("the server ended before it was ready ({status}); its reason is printed above")
    }

    /// A cluster of this data directory that answers, from what its server wrote when it became ready.
    async fn find(data_dir: &std::path::Path) -> Option<Self> {
        let line = std::fs::read_to_string(data_dir.join("ready")).ok()?;
        let ready = ReadyLine::parse(&line)?;
        let access = ready.access();
        let client = copepod_client::https(&access.kubeconfig, "copepod").await.ok()?;
        client.apiserver_version().await.ok()?;
        Some(Self { access, server: Server::Running, _throw_away: None })
    }

    /// Waits until the server ends by itself, and says so.
    pub async fn ended(&mut self) -> anyhow::Error {
        match &mut self.server {
            Server::Child { child, lines, .. } => {
                while let Ok(Some(_)) = lines.next_line().await {}
                match child.wait().await {
                    Ok(status) => anyhow::anyhow!("the server ended unexpectedly ({status})"),
                    Err(error) => error.into(),
                }
            }
            Server::Running => std::future::pending().await,
        }
    }

    /// Stops a server that we started: SIGTERM, and it drains.
    pub async fn stop(self) {
        if let Server::Child { mut child, stdin, .. } = self.server {
            eprintln!("stopping the cluster");
            let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
            if let Some(pid) = pid {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
            let _ = child.wait().await;
            drop(stdin);
        }
    }
}

/// The line that `copepod server` prints (and writes to DIR/ready) when it is ready.
pub struct ReadyLine<'a> {
    /// Path of the admin's kubeconfig.
    pub kubeconfig: &'a str,
    /// Address of the DNS server.
    pub dns: &'a str,
}

impl<'a> ReadyLine<'a> {
    fn access(&self) -> Access {
        Access { kubeconfig: self.kubeconfig.into(), dns: self.dns.into(), node_port_address: NODE_PORT_ADDRESS }
    }

    fn parse(line: &'a str) -> Option<Self> {
        let rest = line.trim().strip_prefix("copepod ready: ")?;
        let value = |key: &str| rest.split(", ").find_map(|part| part.strip_prefix(key)?.strip_prefix(' '));
        Some(Self { kubeconfig: value("kubeconfig")?, dns: value("dns")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_server_prints() {
        let line =
            crate::server::ready_line("https://127.0.0.1:6443", "/x y/admin.kubeconfig", "127.0.0.1:10053", Some("n1"));
        let ready = ReadyLine::parse(&line).unwrap();
        assert_eq!((ready.kubeconfig, ready.dns), ("/x y/admin.kubeconfig", "127.0.0.1:10053"));
        assert!(ReadyLine::parse("something else").is_none());
    }
}
