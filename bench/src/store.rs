//! The store alone: durable puts of one value each by several writers, beside raw redb with as many values in each
//! transaction (with its quick repair as the store sets it, and without as redb comes), and beside etcd.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bytes::Bytes;
use copepod_store::{Attrs, Expect, Options, RedbStore, Store};
use redb::{Builder, Database, TableDefinition};
use tokio::runtime::Runtime;

use crate::Tools;
use crate::api::{CLIENTS as WRITERS, VALUE};
use crate::etcd::{self, Etcd};
use crate::process;
use crate::program::step;
use crate::report::{Samples, number, table};

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);
const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");
/// As the store's own.
const CACHE_BYTES: usize = 8 << 20;

/// The sides, in the order in which they take turns.
const SIDES: [&str; 4] = ["copepod-store", "raw redb, quick repair as the store's", "raw redb as it comes", "etcd"];

/// What one store gave with so many writers, over all rounds.
#[derive(Default)]
struct Side {
    rate: Samples,
    p50: Samples,
    p99: Samples,
    cpu: Samples,
}

/// One round of one store: what each commit took, how many values were in it, and CPU seconds.
struct Round {
    millis: Vec<f64>,
    values: usize,
    seconds: f64,
    cpu: f64,
}

impl Side {
    fn add(&mut self, round: Round) {
        let values = (round.millis.len() * round.values) as f64;
        self.rate.push(values / round.seconds);
        self.cpu.push(round.cpu * 1000.0 / values);
        let millis = Samples::from(round.millis);
        self.p50.push(millis.quantile(0.5));
        self.p99.push(millis.quantile(0.99));
    }
}

/// Measures all sides in turn.
///
/// # Errors
/// A store fails.
pub fn run(tools: &Tools, etcd: Option<&Path>) -> Result<String> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let scratch = &tools.scratch;
    let ours = Arc::new(RedbStore::open(scratch.join("store.redb"), Options::default())?);
    let create = |name: &str| Builder::new().set_cache_size(CACHE_BYTES).create(scratch.join(name));
    let (quick, plain) = (create("quick.redb")?, create("plain.redb")?);
    let peer = etcd.map(|path| Etcd::start(path, &scratch.join("etcd"))).transpose();
    let peer = peer.and_then(|p| p.context("no etcd"));
    let value = Bytes::from(vec![b'z'; VALUE]);
    let own = std::process::id();
    let mut rows = Vec::new();
    for writers in WRITERS {
        let mut sides: [Side; SIDES.len()] = Default::default();
        for round in 0..ROUNDS {
            step(&format!("stores with {writers} writers, round {} of {ROUNDS}", round + 1));
            for (number, side) in sides.iter_mut().enumerate() {
                side.add(match (number, &peer) {
                    (0, _) => {
                        let writers = (0..writers).map(|_| Ours(ours.clone(), value.clone()));
                        drive(&runtime, own, writers.collect(), round)?
                    }
                    (1, _) => transactions(&quick, true, writers, round, &value)?,
                    (2, _) => transactions(&plain, false, writers, round, &value)?,
                    (_, Ok(etcd)) => {
                        let connections = (0..writers).map(|_| runtime.block_on(etcd.connect()));
                        let theirs = connections.map(|w| Ok(Theirs(w?, value.clone())));
                        drive(&runtime, etcd.program.pid(), theirs.collect::<Result<Vec<_>>>()?, round)?
                    }
                    (_, Err(_)) => continue,
                });
            }
        }
        let ours = sides.first().map_or(0.0, |side| side.rate.median());
        for (name, side) in SIDES.into_iter().zip(&sides) {
            let theirs = side.rate.median();
            rows.push(vec![
                writers.to_string(),
                name.into(),
                if theirs > 0.0 { side.rate.show("/s") } else { "cannot be had".into() },
                number(side.p50.median()),
                number(side.p99.median()),
                format!("{:.3}", side.cpu.median()),
                if theirs > 0.0 { format!("{:.2}x", ours / theirs) } else { "-".into() },
            ]);
        }
    }
    if let Err(why) = &peer {
        step(&format!("no etcd: {why:#}"));
    }
    let columns = [
        "Writers",
        "Store",
        "Puts per second",
        "p50 of a put or transaction, ms",
        "p99, ms",
        "CPU, s per 1,000",
        "copepod-store's rate by this",
    ];
    Ok(format!(
        "Durable puts of 1 KB under new keys. copepod-store, in this process, writes a record and a row of history for \
         each, and gathers what its writers wait for; raw redb, in this process, inserts the same keys and values into one \
         table, as many in a transaction as there are writers. etcd is a process of its own, reached over gRPC on loopback \
         without TLS, one connection a writer; its CPU is the server's alone. Medians (least to greatest).\n\n{}",
        table(&columns, &rows)
    ))
}

fn key(round: usize, writers: usize, writer: usize, i: u64) -> String {
    format!("/core/configmaps/default/r{round}-{writers}-{writer}-{i}")
}

/// Something that puts one value at a time.
trait Put: Send + 'static {
    fn put(&mut self, key: String) -> impl Future<Output = Result<()>> + Send;
}

struct Ours(Arc<RedbStore>, Bytes);

impl Put for Ours {
    async fn put(&mut self, key: String) -> Result<()> {
        self.0.put(&key, self.1.clone(), Attrs::default(), Expect::Absent).await?;
        Ok(())
    }
}

struct Theirs(etcd::Writer, Bytes);

impl Put for Theirs {
    async fn put(&mut self, key: String) -> Result<()> {
        self.0.put(&key, &self.1).await
    }
}

/// Runs writers until the round is over; `process` is whose CPU counts.
fn drive(runtime: &Runtime, process: u32, writers: Vec<impl Put>, round: usize) -> Result<Round> {
    let before = process::own_cpu_seconds(process)?;
    let (start, count) = (Instant::now(), writers.len());
    let work = |(number, mut writer)| async move {
        let mut millis = Vec::new();
        while start.elapsed() < ROUND {
            let begin = Instant::now();
            Put::put(&mut writer, key(round, count, number, millis.len() as u64)).await?;
            millis.push(begin.elapsed().as_secs_f64() * 1000.0);
        }
        Ok::<_, anyhow::Error>(millis)
    };
    let tasks: Vec<_> = writers.into_iter().enumerate().map(|w| runtime.spawn(work(w))).collect();
    let mut millis = Vec::new();
    for task in tasks {
        millis.extend(runtime.block_on(task)??);
    }
    let cpu = process::own_cpu_seconds(process)? - before;
    Ok(Round { millis, values: 1, seconds: start.elapsed().as_secs_f64(), cpu })
}

/// As many values in each transaction as there are writers, one transaction after another.
fn transactions(db: &Database, quick_repair: bool, writers: usize, round: usize, value: &Bytes) -> Result<Round> {
    let before = process::own_cpu_seconds(std::process::id())?;
    let (start, mut millis) = (Instant::now(), Vec::new());
    while start.elapsed() < ROUND {
        let begin = Instant::now();
        let mut transaction = db.begin_write()?;
        transaction.set_quick_repair(quick_repair);
        {
            let mut table = transaction.open_table(TABLE)?;
            for writer in 0..writers {
                table.insert(key(round, writers, writer, millis.len() as u64).as_str(), value.as_ref())?;
            }
        }
        transaction.commit()?;
        millis.push(begin.elapsed().as_secs_f64() * 1000.0);
    }
    let cpu = process::own_cpu_seconds(std::process::id())? - before;
    Ok(Round { millis, values: writers, seconds: start.elapsed().as_secs_f64(), cpu })
}
