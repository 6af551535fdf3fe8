//! A process that is killed in the middle of its writes loses none that it acknowledged.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;

use bytes::Bytes;
use copepod_store::{Attrs, Expect, ListOptions, Options, RedbStore, Store};

/// Set for the child: the file to write to.
const CHILD: &str = "COPEPOD_STORE_CRASH_FILE";
const WRITERS: u32 = 8;
const ROUNDS: usize = 4;
const ACKNOWLEDGED_PER_ROUND: usize = 200;

/// Writes without end and prints each key and revision once it is acknowledged.
#[test]
fn child() {
    let Ok(path) = std::env::var(CHILD) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let store = Arc::new(RedbStore::open(path, Options::default()).unwrap());
    runtime.block_on(async {
        let writers = (0..WRITERS).map(|w| {
            let store = store.clone();
            async move {
                for i in 0u64.. {
                    let key = format!("/w{w}/{}", i % 50);
                    let value = Bytes::from(format!("{key} {}", "x".repeat(500)));
                    let done = store.put(&key, value, Attrs::default(), Expect::Any).await.unwrap();
                    let mut out = std::io::stdout().lock();
                    writeln!(out, "ACK {key} {}", done.revision).unwrap();
                    out.flush().unwrap();
                }
            }
        });
        futures::future::join_all(writers).await;
    });
}

#[test]
fn acknowledged_writes_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let mut newest = 1;
    for round in 0..ROUNDS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let parse = |line: std::io::Result<String>| -> Option<(String, u64)> {
            let line = line.ok()?;
            let (_, rest) = line.split_once("ACK ")?;
            let (key, revision) = rest.split_once(' ')?;
            Some((key.to_string(), revision.parse().ok()?))
        };
        let mut acknowledged: Vec<(String, u64)> =
            lines.by_ref().filter_map(parse).take(ACKNOWLEDGED_PER_ROUND + 37 * round).collect();
        child.kill().unwrap();
        child.wait().unwrap();
        // What it said before it died counts too; a last line may be cut short and then says nothing.
        acknowledged.extend(lines.filter_map(parse));
        assert!(acknowledged.len() >= ACKNOWLEDGED_PER_ROUND, "the child acknowledged only {}", acknowledged.len());

        let store = RedbStore::open(&path, Options::default()).unwrap();
        for (key, revision) in &acknowledged {
            let record = store.get(key).unwrap_or_else(|| panic!("{key} is lost"));
            assert!(record.revision >= *revision, "{key} is at {}, acknowledged at {revision}", record.revision);
            assert!(record.value.starts_with(format!("{key} ").as_bytes()));
            newest = newest.max(*revision);
        }
        assert!(store.current_revision() >= newest);
        assert_eq!(store.list("/", &ListOptions::default()).unwrap().revision, store.current_revision());
        // History is whole: every revision since the first is there, in order.
        let mut watch = store.watch("/", 1).unwrap();
        let mut revision = 1;
        while let Some(event) = watch.try_next() {
            revision += 1;
            assert_eq!(event.record.revision, revision);
        }
        assert_eq!(revision, store.current_revision());
    }
}
