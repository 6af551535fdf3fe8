//! `copepod agent`: the node agent as a process of its own, started by `copepod server`.

use anyhow::Result;
use copepod_node::{Agent, AgentConfig};
use copepod_runtime::Compiler;

use crate::cli::AgentArgs;
use crate::data_dir::DataDir;
use crate::shutdown;

/// Runs until SIGTERM, or until the server that started it is gone.
pub async fn run(args: AgentArgs) -> Result<()> {
    let stop = shutdown::on_signal()?;
    shutdown::when_stdin_closes(stop.clone());
    // One agent per directory. One whose server was killed may still be ending.
    let _data_dir = wait_for(&args.data_dir, &stop).await?;
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
    };
    let agent = Agent::start(config, stop.clone()).await?;
    stop.cancelled().await;
    agent.stop().await;
    Ok(())
}

/// Takes the agent's directory, waiting a while for an earlier owner to end.
async fn wait_for(path: &std::path::Path, stop: &tokio_util::sync::CancellationToken) -> Result<DataDir> {
    const ATTEMPTS: u32 = 100;
    for _ in 1..ATTEMPTS {
        match DataDir::open(path) {
            Ok(dir) => return Ok(dir),
            Err(_) if !stop.is_cancelled() => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
            Err(error) => return Err(error),
        }
    }
    DataDir::open(path)
}
