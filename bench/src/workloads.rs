//! `cargo xtask bench workloads`: controllers and the scheduler, on simulated nodes and on a real one.

mod hollow;
mod stage;

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::cluster::{Cluster, Parts};
use crate::program::step;
use crate::report::{self, number, table};
use crate::{Tools, scheduler};
use stage::{Cost, Stage};

const IMAGE: &str = "bench/hello:1";
/// Quiet before what is idle is measured.
const SETTLE: Duration = Duration::from_secs(15);
/// How long it is.
const IDLE: Duration = Duration::from_secs(60);

/// What is measured, and how long.
#[derive(clap::Args)]
pub struct Options {
    #[command(flatten)]
    tools: Tools,
    /// The component that real pods run; without it there are none.
    #[arg(long)]
    component: Option<PathBuf>,
    /// Run only the parts whose names contain this.
    #[arg(long, default_value = "")]
    only: String,
    /// A few pods of everything: shows that it works, and no more.
    #[arg(long)]
    quick: bool,
}

impl Options {
    /// `full`, or `quick` in the quick mode.
    fn of<T>(&self, full: T, quick: T) -> T {
        if self.quick { quick } else { full }
    }
}

/// Measures, prints the tables.
///
/// # Errors
/// A part failed; its heading says so.
pub fn run(options: &Options) -> Result<()> {
    println!("{}\n", report::about("workloads", &options.tools.copepod, "no peer in this run")?);
    let mut failed = Vec::new();
    let mut part = |name: &'static str, measure: &dyn Fn() -> Result<String>| {
        if !name.to_lowercase().contains(&options.only.to_lowercase()) {
            return;
        }
        match measure() {
            Ok(text) => println!("## {name}\n\n{text}"),
            Err(error) => {
                println!("## {name}\n\nfailed: {error:#}\n");
                failed.push(name);
            }
        }
    };
    part("Simulated nodes", &|| simulated(options));
    part("A real node", &|| real(options));
    part("Scheduler", &|| scheduler::run(options.quick));
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// A recorded figure of upstream's: seconds, and CPU seconds of its control plane.
struct Upstream {
    seconds: f64,
    cpu: Option<f64>,
}

const UP: Upstream = Upstream { seconds: 34.0, cpu: Some(34.0) };
const ROLL: Upstream = Upstream { seconds: 6.0, cpu: None };
const GONE: Upstream = Upstream { seconds: 28.0, cpu: None };

/// The table in the making.
#[derive(Default)]
struct Steps {
    rows: Vec<Vec<String>>,
    idle: Vec<Vec<String>>,
    /// Whether the nodes' share is shown.
    node: bool,
}

impl Steps {
    fn add(&mut self, what: String, pods: usize, cost: &Cost, upstream: Option<&Upstream>) {
        let mut row = vec![
            what,
            number(cost.seconds),
            number(pods as f64 / cost.seconds),
            number(cost.server_cpu),
            number(cost.server_cpu * 1000.0 / pods as f64),
            number(cost.server_rss),
            number(cost.writes / pods as f64),
        ];
        if self.node {
            row.extend([cost.agent_cpu, cost.agent_rss].map(number));
        } else {
            let (mut theirs, mut times) = (Vec::new(), Vec::new());
            if let Some(upstream) = upstream {
                theirs.push(format!("{} s", number(upstream.seconds)));
                times.push(format!("1/{:.1} of the time", upstream.seconds / cost.seconds));
                if let Some(cpu) = upstream.cpu {
                    theirs.push(format!("{} s of CPU", number(cpu)));
                    times.push(format!("1/{:.1} of the CPU", cpu / cost.server_cpu));
                }
            }
            row.extend([theirs.join(", "), times.join(", ")]);
        }
        self.rows.push(row);
    }

    /// Waits for quiet, then sees what a minute brings.
    fn idle(&mut self, options: &Options, what: String, stage: &Stage<'_>) -> Result<()> {
        std::thread::sleep(options.of(SETTLE, Duration::from_secs(1)));
        let length = options.of(IDLE, Duration::from_secs(2));
        let cost = stage.cost(|| {
            std::thread::sleep(length);
            Ok(())
        })?;
        let by_minute = 60.0 / cost.seconds;
        let leases = cost.asked.get("leases").copied().unwrap_or_default();
        let asked: Vec<String> =
            cost.asked.iter().map(|(what, n)| format!("{what} {}", number(*n * by_minute))).collect();
        self.idle.push(vec![
            what,
            number(cost.writes * by_minute),
            number((cost.writes - leases) * by_minute),
            asked.join(", "),
            number(cost.server_cpu * by_minute),
            number(cost.agent_cpu * by_minute),
        ]);
        Ok(())
    }

    fn show(&self, about: &str) -> String {
        let mut columns = vec![
            "What",
            "Seconds",
            "Pods a second",
            "Server's CPU, s",
            "CPU of a pod, ms",
            "Server's RSS, MiB",
            "Writes of a pod",
        ];
        columns.extend(match self.node {
            true => ["Node's CPU, s", "Node's RSS, MiB"],
            false => ["Upstream, measured elsewhere", "Copepod takes"],
        });
        let idle = [
            "Idle",
            "Writes a minute",
            "Without Leases",
            "Granted requests that write, a minute",
            "Server's CPU, s a minute",
            "Node's CPU, s a minute",
        ];
        format!("{about}\n\n{}\n{}", table(&columns, &self.rows), table(&idle, &self.idle))
    }
}

/// Many pods on nodes that this process plays.
fn simulated(options: &Options) -> Result<String> {
    let (nodes, pods, many) = options.of((100, 1_000, 10_000), (3, 12, 24));
    let (few, some, each) = options.of((100, 500, 4), (5, 8, 2));
    step(&format!("{nodes} simulated nodes"));
    let data = options.tools.scratch.join("simulated");
    let stage = Stage::new(Cluster::start(&options.tools, &data, Parts::Control)?, nodes)?;
    let mut steps = Steps::default();
    // Makes a namespace with pods, and says what they cost.
    let up = |namespace: &str, deployments: usize, replicas: usize| {
        step(&format!("0 to {} pods in {deployments} Deployments", deployments * replicas));
        stage.namespace(namespace)?;
        stage.cost(|| stage.deploy(namespace, deployments, replicas, IMAGE))
    };
    let roll = |namespace: &str| {
        step("a rolling update");
        stage.cost(|| stage.roll(namespace))
    };
    let gone = |namespace: &str| {
        step("a namespace goes");
        stage.cost(|| stage.remove(namespace))
    };
    steps.add(format!("0 to {pods} Ready"), pods, &up("first", 1, pods)?, Some(&UP));
    step("idle");
    steps.idle(options, format!("{pods} pods on {nodes} nodes"), &stage)?;
    steps.add(format!("rolling update of {pods}"), pods, &roll("first")?, None);
    steps.add(format!("namespace with {pods} pods gone"), pods, &gone("first")?, None);
    up("few", 1, few)?;
    steps.add(format!("rolling update of {few}"), few, &roll("few")?, Some(&ROLL));
    gone("few")?;
    up("some", 1, some)?;
    steps.add(format!("namespace with {some} pods gone"), some, &gone("some")?, Some(&GONE));
    steps.add(format!("0 to {pods} Ready, {each} to a Deployment"), pods, &up("apps", pods / each, each)?, None);
    steps.add(format!("the namespace with these {pods} pods gone"), pods, &gone("apps")?, None);
    steps.add(format!("0 to {many} Ready"), many, &up("many", 1, many)?, None);
    steps.add(format!("namespace with {many} pods gone"), many, &gone("many")?, None);
    Ok(steps.show(&format!(
        "{nodes} nodes played by this process over HTTPS as the administrator, on the same cores: one watch of all bound \
         pods, a status write for each pod that is bound, a delete for each that goes, Leases every 10 s. From the first \
         request to the watch event that says that it is done. Upstream's figures are of 1.36 on two cores with hollow \
         nodes and its clients' limits raised; they were not measured in this run."
    )))
}

/// Pods that really run, on the server's own node.
fn real(options: &Options) -> Result<String> {
    let Some(component) = &options.component else { return Ok("no component was given\n".into()) };
    let pods = options.of(1_000, 4);
    step("a real node");
    let data = options.tools.scratch.join("real");
    let cluster = Cluster::start(&options.tools, &data, Parts::Whole)?;
    cluster.node_ready()?;
    cluster.push(component, IMAGE)?;
    let stage = Stage::new(cluster, 0)?;
    let mut steps = Steps { node: true, ..Steps::default() };
    stage.namespace("real")?;
    step(&format!("0 to {pods} pods that run"));
    let up = stage.cost(|| stage.deploy("real", 1, pods, IMAGE)).context("not all pods run")?;
    steps.add(format!("0 to {pods} Ready"), pods, &up, None);
    step("idle");
    steps.idle(options, format!("{pods} pods on a real node"), &stage)?;
    step("a rolling update");
    steps.add(format!("rolling update of {pods}"), pods, &stage.cost(|| stage.roll("real"))?, None);
    step("a namespace goes");
    steps.add(format!("namespace with {pods} pods gone"), pods, &stage.cost(|| stage.remove("real"))?, None);
    Ok(steps
        .show("One node, the server's own, with pods of a component that answers HTTP; compiling it is in the figure."))
}
