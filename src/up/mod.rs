//! `copepod up`: an app directory on a local cluster, for development.

mod apply;
mod cluster;
mod load;
mod logs;
mod ready;

use anyhow::Result;

use crate::cli::UpArgs;
use crate::shutdown;

/// How long a node port may take to open after its pods are ready.
const PORT_LIMIT: std::time::Duration = std::time::Duration::from_secs(5);

/// Runs the command.
pub async fn run(args: UpArgs) -> Result<()> {
    let stop = shutdown::on_signal()?;
    // The app is read before anything is started: a typing mistake should not cost a cluster.
    let mut app = match &args.path {
        Some(path) => load::load(path)?,
        None => load::App::default(),
    };
    let mut cluster = tokio::select! {
        started = cluster::Cluster::start(args.name.as_deref()) => started?,
        () = stop.cancelled() => return Ok(()),
    };
    let client = crate::kubeconfig::client(Some(&cluster.access.kubeconfig)).await?;
    let access = cluster.access.clone();
    let work = async {
        load::send_images(&client, &mut app).await?;
        let applied = apply::apply(&client, &app, &args.namespace).await?;
        ready::wait(&client, &applied, std::time::Duration::from_secs(args.timeout)).await?;
        summary(&client, &access, &applied).await?;
        if !args.no_logs {
            logs::follow(&client, &applied).await?;
        }
        std::future::pending::<Result<()>>().await
    };
    let outcome = tokio::select! {
        outcome = work => outcome,
        () = stop.cancelled() => Ok(()),
        ended = cluster.ended() => Err(ended),
    };
    cluster.stop().await;
    outcome
}

/// What a person can try now.
async fn summary(client: &kube::Client, cluster: &cluster::Access, applied: &[apply::Applied]) -> Result<()> {
    println!();
    println!("  KUBECONFIG  {}", cluster.kubeconfig.display());
    for service in applied.iter().filter(|a| a.kind() == "Service") {
        let now = service.api(client).get(&service.name()).await?;
        let name = format!("{}.{}.svc.cluster.local", service.name(), service.namespace().unwrap_or_default());
        let ports = now.data.pointer("/spec/ports").and_then(|p| p.as_array()).cloned().unwrap_or_default();
        for port in ports.iter().filter_map(|p| p.get("nodePort")) {
            let address = format!("{}:{port}", cluster.node_port_address);
            ready::wait_port(&address, PORT_LIMIT).await;
            println!("  URL  http://{address}/");
        }
        println!("  DNS  {name} @{}", cluster.dns);
    }
    println!();
    println!("Ready. Try: kubectl --kubeconfig {} get pods -o wide    (Ctrl-C stops)", cluster.kubeconfig.display());
    Ok(())
}
