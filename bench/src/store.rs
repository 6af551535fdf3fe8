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
use crate::program::step;
use crate::report::{Samples, table};

const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);
const TABLE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("values");
/// As the store's own.
const CACHE_BYTES: usize = 8 << 20;

/// What one store gave with so many writers, over all rounds.
#[derive(Default)]
struct Side {
    rate: Samples,
    p50: Samples,
    p99: Samples,
}

impl Side {
    fn add(&mut self, millis: Vec<f64>, writes_each: usize, seconds: f64) {
        self.rate.push(millis.len() as f64 * writes_each as f64 / seconds);
        let millis = Samples::from(millis);
        self.p50.push(millis.quantile(0.5));
        self.p99.push(millis.quantile(0.99));
    }

    fn cells(&self) -> [String; 2] {
        [self.rate.show("/s"), format!("{:.2} / {:.2}", self.p50.median(), self.p99.median())]
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
    let mut rows = Vec::new();
    for writers in WRITERS {
        let [mut a, mut b, mut c, mut d]: [Side; 4] = Default::default();
        for round in 0..ROUNDS {
            step(&format!("stores with {writers} writers, round {} of {ROUNDS}", round + 1));
            drive(&runtime, (0..writers).map(|_| Ours(ours.clone(), value.clone())).collect(), round, &mut a)?;
            transactions(&quick, true, writers, round, &value, &mut b)?;
            transactions(&plain, false, writers, round, &value, &mut d)?;
            if let Ok(etcd) = &peer {
                let connections = (0..writers).map(|_| runtime.block_on(etcd.connect()));
                let theirs: Vec<_> = connections.map(|w| Ok(Theirs(w?, value.clone()))).collect::<Result<_>>()?;
                drive(&runtime, theirs, round, &mut c)?;
            }
        }
        let against = |other: &Side| format!("{:.2}x", a.rate.median() / other.rate.median());
        let mut row = vec![writers.to_string()];
        row.extend(a.cells());
        row.extend(b.cells());
        row.push(against(&b));
        row.extend(d.cells());
        match &peer {
            Ok(_) => {
                row.extend(c.cells());
                row.push(against(&c));
            }
            Err(why) => row.extend([format!("cannot be had: {why:#}"), "-".into(), "-".into()]),
        }
        rows.push(row);
    }
    let columns = [
        "Writers",
        "copepod-store",
        "p50 / p99, ms",
        "raw redb, quick repair as the store's",
        "p50 / p99 of a transaction, ms",
        "Store by redb",
        "raw redb as it comes",
        "p50 / p99 of a transaction, ms",
        "etcd",
        "p50 / p99, ms",
        "Store by etcd",
    ];
    Ok(format!(
        "Durable puts of 1 KB under new keys. The store, in this process, writes a record and a row of history for each, \
         and gathers what its writers wait for; raw redb, in this process, inserts the same keys and values into one \
         table, as many in a transaction as there are writers. etcd is a process of its own, reached over gRPC on loopback without TLS, one connection a writer. Medians \
         (least to greatest).\n\n{}",
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
        let name = key.rsplit('/').next().unwrap_or_default().to_string();
        let fields = [("metadata.name", name), ("metadata.namespace", "default".to_string())];
        let fields = fields.into_iter().map(|(k, v)| (k.to_string(), v)).collect();
        let attrs = Attrs { fields, ..Attrs::default() };
        self.0.put(&key, self.1.clone(), attrs, Expect::Absent).await?;
        Ok(())
    }
}

struct Theirs(etcd::Writer, Bytes);

impl Put for Theirs {
    async fn put(&mut self, key: String) -> Result<()> {
        self.0.put(&key, &self.1).await
    }
}

/// Runs writers until the round is over.
fn drive(runtime: &Runtime, writers: Vec<impl Put>, round: usize, side: &mut Side) -> Result<()> {
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
    let mut all = Vec::new();
    for task in tasks {
        all.extend(runtime.block_on(task)??);
    }
    side.add(all, 1, start.elapsed().as_secs_f64());
    Ok(())
}

/// As many values in each transaction as there are writers, one transaction after another.
fn transactions(
    database: &Database,
    quick_repair: bool,
    writers: usize,
    round: usize,
    value: &Bytes,
    side: &mut Side,
) -> Result<()> {
    let (start, mut millis) = (Instant::now(), Vec::new());
    while start.elapsed() < ROUND {
        let begin = Instant::now();
        let mut transaction = database.begin_write()?;
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
    side.add(millis, writers, start.elapsed().as_secs_f64());
    Ok(())
}
