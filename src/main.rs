//! `copepod`: one binary for the control plane, the node agent and the tools around them.

mod agent;
mod cli;
mod data_dir;
mod kubeconfig;
mod preflight;
mod push;
mod server;
mod shutdown;
mod up;

use std::process::ExitCode;

use clap::Parser;

use cli::{Cli, Command};

/// Connections of guests and files of their volumes are descriptors of this process: it takes as many as it may have.
fn raise_open_files() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::debug!(%error, "the limit of open files stays {:?}", limit.current);
    }
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    // The compiler child is a plain, short-lived process: no runtime, no logging.
    if let Command::Compile { input, output } = &cli.command {
        let code = copepod_runtime::compile::child_main(input, output);
        return u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from);
    }
    init_logging(&cli);
    raise_open_files();
    if rustls::crypto::ring::default_provider().install_default().is_err() {
        tracing::debug!("a TLS provider is installed already");
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("copepod: cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(async {
        match cli.command {
            Command::Server(args) => server::run(args).await,
            Command::Agent(args) => agent::run(args).await,
            Command::Up(args) => up::run(args).await,
            Command::Push(args) => push::run(args).await,
            Command::Version => {
                println!("copepod {} (Kubernetes API {})", cli::VERSION, copepod_server::version::git_version());
                Ok(())
            }
            Command::Compile { .. } => Ok(()),
        }
    });
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("copepod: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes in one line: what, then why.
fn chain(error: &anyhow::Error) -> String {
    let mut words: Vec<String> = Vec::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if words.last().is_none_or(|last| !last.contains(&text)) {
            words.push(text);
        }
    }
    words.join(": ")
}

fn init_logging(cli: &Cli) {
    let default = if matches!(cli.command, Command::Up(_) | Command::Push(_)) { "error" } else { "warn,copepod=info" };
    let filter = tracing_subscriber::EnvFilter::try_from_env("COPEPOD_LOG").unwrap_or_else(|_| default.into());
    tracing_subscriber::fmt()
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
}
