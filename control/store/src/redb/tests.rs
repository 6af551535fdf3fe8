use super::*;
use crate::{Attrs, Expect, ListOptions, MemoryStore, Store};
use bytes::Bytes;
use proptest::prelude::*;

mod suite {
    crate::conformance_suite!(|options| {
        // The open file outlives its directory entry.
        let dir = tempfile::tempdir().unwrap();
        super::open(&dir, options)
    });
}

fn open(dir: &tempfile::TempDir, options: Options) -> RedbStore {
    RedbStore::open(dir.path().join("store.redb"), options).unwrap()
}
fn refusal(path: &Path) -> String {
    RedbStore::open(path, Options::default()).err().expect("the store must not open").to_string()
}
async fn set(store: &impl Store, key: &str, value: &str) -> u64 {
    store.put(key, Bytes::copy_from_slice(value.as_bytes()), Attrs::default(), Expect::Any).await.unwrap().revision
}

#[tokio::test]
async fn watches_resume_across_restarts() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(&dir, Options::default());
    for i in 0..5 {
        set(&store, "/a/x", &i.to_string()).await;
    }
    store.delete("/a/x", Expect::Any).await.unwrap();
    set(&store, "/a/x", "again").await;
    store.compact(3).await.unwrap();
    let before = events(&store, "/", 3);
    drop(store);
    let store = open(&dir, Options::default());
    assert_eq!(store.current_revision(), 8);
    assert_eq!(events(&store, "/", 3), before);
    assert_eq!(before.len(), 5);
    assert!(matches!(store.watch("/", 2).err(), Some(StoreError::Compacted { asked: 2, oldest: 3 })));
    assert_eq!(set(&store, "/a/y", "v").await, 9);
}

#[tokio::test]
async fn history_is_trimmed_in_the_file_too() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { history_count: 10, ..Options::default() };
    let store = Arc::new(open(&dir, options.clone()));
    let writers: Vec<_> = (0..64u64)
        .map(|w| {
            let store = store.clone();
            tokio::spawn(async move {
                for i in 0..2 * TRIM_STEP / 64 {
                    set(&*store, &format!("/a/{w}"), &i.to_string()).await;
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    set(&*store, "/a/x", "v").await;
    let last = store.current_revision();
    drop(store);
    let database = Database::open(dir.path().join("store.redb")).unwrap();
    let read = database.begin_read().unwrap();
    let rows = ::redb::ReadableTableMetadata::len(&read.open_table(HISTORY).unwrap()).unwrap();
    assert!(rows < 2 * TRIM_STEP, "{rows} rows are left");
    drop((read, database));
    let store = open(&dir, options);
    assert_eq!((store.current_revision(), events(&store, "/", last - 10).len()), (last, 10));
    assert!(store.watch("/", last - 11).is_err());
}

#[tokio::test]
async fn refuses_what_it_cannot_use() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("store.redb");
    let store = open(&dir, Options::default());
    assert!(refusal(&path).contains("already in use"), "{}", refusal(&path));
    drop(store);
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let edit = |change: &dyn Fn(&::redb::WriteTransaction)| {
        let database = Database::open(&path).unwrap();
        let txn = database.begin_write().unwrap();
        change(&txn);
        txn.commit().unwrap();
    };
    edit(&|txn| drop(txn.open_table(META).unwrap().insert("format", 99).unwrap()));
    assert!(refusal(&path).contains("has format 99, this program knows format 1"), "{}", refusal(&path));
    edit(&|txn| drop(txn.open_table(META).unwrap().insert("format", FORMAT).unwrap()));
    edit(&|txn| drop(txn.open_table(RECORDS).unwrap().insert("/a", b"x".as_slice()).unwrap()));
    assert!(refusal(&path).contains("damaged: the record of /a is unreadable"), "{}", refusal(&path));
    edit(&|txn| drop(txn.open_table(RECORDS).unwrap().remove("/a").unwrap()));
    edit(&|txn| drop(txn.open_table(META).unwrap().insert("revision", 5).unwrap()));
    assert!(refusal(&path).contains("the change at revision 5 is missing"), "{}", refusal(&path));

    let text = dir.path().join("text");
    std::fs::write(&text, "not a store, but long enough to look at: ".repeat(100)).unwrap();
    assert!(refusal(&text).contains("cannot open the store"), "{}", refusal(&text));
    let foreign = dir.path().join("foreign");
    let txn = Database::create(&foreign).unwrap().begin_write().unwrap();
    txn.open_table(TableDefinition::<u64, u64>::new("other")).unwrap();
    txn.commit().unwrap();
    assert!(refusal(&foreign).contains("not a Copepod store"), "{}", refusal(&foreign));
    let missing = refusal(&dir.path().join("no/such/dir"));
    assert!(
        missing.contains("cannot open or create the store") && missing.contains("check the data directory"),
        "{missing}"
    );
}

type Seen = (EventKind, String, Bytes, u64, u64, Option<(Bytes, u64)>);

/// All queued events, to compare stores.
fn events(store: &impl Store, prefix: &str, after: u64) -> Vec<Seen> {
    let mut watch = store.watch(prefix, after).unwrap();
    let mut seen = Vec::new();
    while let Some(e) = watch.try_next() {
        let previous = e.previous.as_ref().map(|p| (p.value.clone(), p.revision));
        seen.push((
            e.kind,
            e.record.key.to_string(),
            e.record.value.clone(),
            e.record.created,
            e.record.revision,
            previous,
        ));
    }
    seen
}

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u8, Guess),
    Delete(u8, Guess),
    List { prefix: u8, limit: usize, after: Option<u8>, back: Option<u64> },
    Watch { prefix: u8, back: u64 },
    Compact(u64),
    Reopen,
}

/// A precondition, relative to what is there.
#[derive(Debug, Clone, Copy)]
enum Guess {
    Any,
    Absent,
    Right,
    Wrong,
}

fn step() -> impl Strategy<Value = Step> {
    let guess = || prop_oneof![Just(Guess::Any), Just(Guess::Absent), Just(Guess::Right), Just(Guess::Wrong)];
    prop_oneof![
        8 => (0u8..6, any::<u8>(), guess()).prop_map(|(k, v, g)| Step::Put(k, v, g)),
        4 => (0u8..6, guess()).prop_map(|(k, g)| Step::Delete(k, g)),
        3 => (0u8..3, 0usize..4, proptest::option::of(0u8..6), proptest::option::of(0u64..12))
            .prop_map(|(prefix, limit, after, back)| Step::List { prefix, limit, after, back }),
        3 => (0u8..3, 0u64..12).prop_map(|(prefix, back)| Step::Watch { prefix, back }),
        1 => (0u64..10).prop_map(Step::Compact),
        1 => Just(Step::Reopen),
    ]
}

/// What a step answers, comparable.
async fn answer(store: &impl Store, step: &Step) -> String {
    let key = |k: &u8| format!("/{}/{k}", ["a", "b"][usize::from(k % 2)]);
    let prefix = |p: &u8| ["/", "/a/", "/b/"][usize::from(*p)];
    let expect = |g: Guess, key: &str| match g {
        Guess::Any => Expect::Any,
        Guess::Absent => Expect::Absent,
        Guess::Right => Expect::Revision(store.get(key).map_or(1, |r| r.revision)),
        Guess::Wrong => Expect::Revision(store.get(key).map_or(1, |r| r.revision) + 1),
    };
    let now = store.current_revision();
    match step {
        Step::Put(k, v, g) => {
            let (key, attrs) = (key(k), Attrs { splice: u32::from(*v), ..Attrs::default() });
            format!("{:?}", store.put(&key, vec![*v; 3].into(), attrs, expect(*g, &key)).await)
        }
        Step::Delete(k, g) => format!("{:?}", store.delete(&key(k), expect(*g, &key(k))).await),
        Step::List { prefix: p, limit, after, back } => {
            let at_revision = back.map(|b| (now + 1).saturating_sub(b));
            format!(
                "{:?}",
                store.list(prefix(p), &ListOptions { limit: *limit, after: after.as_ref().map(key), at_revision })
            )
        }
        Step::Watch { prefix: p, back } => match store.watch(prefix(p), (now + 1).saturating_sub(*back)) {
            Ok(_) => format!("{:?}", events(store, prefix(p), (now + 1).saturating_sub(*back))),
            Err(e) => format!("{e:?}"),
        },
        Step::Compact(back) => format!("{:?}", store.compact(now.saturating_sub(*back)).await),
        Step::Reopen => format!("{now} {:?}", store.list("/", &ListOptions::default())),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn behaves_as_memory_does(steps in proptest::collection::vec(step(), 1..60)) {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(async {
            let dir = tempfile::tempdir().unwrap();
            let options = Options { history_count: 20, ..Options::default() };
            let memory = MemoryStore::new(options.clone());
            let mut redb = open(&dir, options.clone());
            for step in &steps {
                if let Step::Reopen = step {
                    drop(redb);
                    redb = open(&dir, options.clone());
                }
                prop_assert_eq!(answer(&redb, step).await, answer(&memory, step).await, "{:?}", step);
            }
            Ok(())
        })?;
    }
}
