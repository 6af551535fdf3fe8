//! `copepod agent`: the node agent as a process of its own, started by `copepod server`.

use anyhow::Result;
use copepod_node::{Agent, AgentConfig};
use copepod_runtime::Compiler;

use crate::cli::AgentArgs;
use crate::data_dir::DataDir;
use crate::shutdown;

/// How long the agent takes to stop, at most: its server may be gone for good.
const STOP_LIMIT: std::time::Duration = std::time::Duration::from_secs(3);
/// How long an earlier agent may take to end.
const OWNER_LIMIT: std::time::Duration = std::time::Duration::from_secs(10);

/// Runs until SIGTERM, or until the server that started it is gone.
pub async fn run(args: AgentArgs) -> Result<()> {
    let stop = shutdown::on_signal()?;
    shutdown::when_stdin_closes(stop.clone());
    // One agent per directory. One whose server was killed may still be ending.
    let path = args.data_dir.clone();
    let _data_dir = tokio::task::spawn_blocking(move || DataDir::open_within(&path, OWNER_LIMIT)).await??;
    let config = AgentConfig {
        kubeconfig: args.kubeconfig,
        data_dir: args.data_dir,
        node_name: args.node_name,
        node_ips: Vec::new(),
        pod_cidr: args.pod_cidr,
        virtual_cidrs: args.virtual_cidrs,
        max_pods: args.max_pods.and_then(|n| usize::try_from(n).ok()),
        node_port_address: args.node_port_address,
        cluster_domain: args.cluster_domain,
        compiler: Some(Compiler { program: std::env::current_exe()?, args: vec!["compile".into()] }),
        back_off: Default::default(),
        hidden: args.hide,
    };
    let agent = Agent::start(config, stop.clone()).await?;
    stop.cancelled().await;
    // What could not be told to a server that is gone is told after the next start, from the checkpoints.
    if tokio::time::timeout(STOP_LIMIT, agent.stop()).await.is_err() {
        tracing::warn!("not all pods could be taken down in order; ending anyway");
    }
    Ok(())
}
