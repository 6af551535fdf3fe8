//! Memory by number of objects, made through the API; and a start on what is left.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::Tools;
use crate::api::{fill, make_namespace};
use crate::cluster::{Cluster, Parts};
use crate::process;
use crate::program::step;
use crate::report::{number, table};

const SIZES: [u64; 3] = [0, 10_000, 100_000];
/// Quiet before a reading.
const SETTLE: Duration = Duration::from_secs(5);
const NAMESPACE: &str = "many";
const MIB: f64 = 1024.0 * 1024.0;

/// Measures after each size, then starts anew.
///
/// # Errors
/// The server fails.
pub fn run(tools: &Tools) -> Result<String> {
    let data = tools.scratch.join("memory");
    let mut rows = Vec::new();
    let mut row = |what: String, cluster: &Cluster<'_>| -> Result<()> {
        std::thread::sleep(SETTLE);
        let used = process::memory(cluster.server.pid())?;
        let server = used.first().context("no process")?;
        let file = process::file_size(&data.join("store.redb"))? as f64 / MIB;
        let started = number(cluster.started_in.as_secs_f64() * 1000.0);
        rows.push(vec![what, number(server.rss), number(server.pss), number(file), started]);
        Ok(())
    };
    let cluster = Cluster::start(tools, &data, Parts::Control)?;
    let target = cluster.target()?;
    make_namespace(&target, NAMESPACE)?;
    let mut made = 0;
    for size in SIZES {
        step(&format!("memory with {size} ConfigMaps"));
        if size > made {
            fill(&target, cluster.server.pid(), NAMESPACE, made..size)?;
            made = size;
        }
        row(format!("{size} ConfigMaps"), &cluster)?;
    }
    drop(cluster);
    step("a start with what is left");
    let cluster = Cluster::start(tools, &data, Parts::Control)?;
    row(format!("{made} ConfigMaps, after a restart"), &cluster)?;
    step("a start after a kill");
    cluster.kill()?;
    let cluster = Cluster::start(tools, &data, Parts::Control)?;
    row(format!("{made} ConfigMaps, after a kill"), &cluster)?;
    let columns =
        ["Server without a node, 1 KB each", "RSS, MiB", "PSS, MiB", "Store's file, MiB", "Start to ready, ms"];
    Ok(table(&columns, &rows))
}
