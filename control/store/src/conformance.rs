//! The one suite that every store passes. `conformance_suite!(|options| store)` makes a test of each case.
#![doc(hidden)]
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)] // a test suite

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use crate::{Attrs, Event, EventKind, Expect, ListOptions, Options, Record, Store, StoreError, Watch};

/// Makes a test of every case; the factory takes [`Options`] and returns an empty store.
#[macro_export]
macro_rules! conformance_suite {
    ($factory:expr) => {
        $crate::conformance_suite!(@cases $factory;
            preconditions, revisions_and_records, lists_in_order, lists_pages_at_a_revision, lists_the_past,
            watches_from_a_revision, watch_sees_previous_values, resumes_without_loss_or_repeat, compacts,
            bounds_history, refuses_the_future, cuts_slow_watchers, reports_progress, concurrent_writers_agree,
        );
    };
    (@cases $factory:expr; $($case:ident,)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $case() {
            let factory = $factory;
            let guard = $crate::conformance::guarded(|options| factory(options));
            $crate::conformance::$case(guard).await;
        }
    )*};
}

/// Fixes the factory's argument type for the macro.
pub fn guarded<S, F: Fn(Options) -> S>(factory: F) -> F {
    factory
}

const WAIT: Duration = Duration::from_secs(30);

fn value(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}
async fn put(store: &impl Store, key: &str, text: &str, expect: Expect) -> Result<Record, StoreError> {
    store.put(key, value(text), Attrs::default(), expect).await
}
async fn set(store: &impl Store, key: &str, text: &str) -> u64 {
    put(store, key, text, Expect::Any).await.unwrap().revision
}
async fn next(watch: &mut Watch) -> Arc<Event> {
    tokio::time::timeout(WAIT, watch.next()).await.expect("no event came").expect("the watch was cut off")
}
/// Kind, key, value, revision.
fn shape(e: &Event) -> (EventKind, String, String, u64) {
    (e.kind, e.record.key.to_string(), text(&e.record), e.record.revision)
}
fn text(r: &Record) -> String {
    String::from_utf8(r.value.to_vec()).unwrap()
}
fn keys(records: &[Record]) -> Vec<&str> {
    records.iter().map(|r| &*r.key).collect()
}
fn everything() -> ListOptions {
    ListOptions::default()
}

pub async fn preconditions<S: Store>(make: impl Fn(Options) -> S) {
    let s = make(Options::default());
    let conflict = |result: Result<Record, StoreError>, current: Option<u64>| match result {
        Err(StoreError::Conflict { key, current: c }) => {
            assert_eq!((key.as_str(), c.map(|r| r.revision)), ("/a/x", current));
        }
        other => panic!("expected a conflict, got {other:?}"),
    };
    conflict(put(&s, "/a/x", "1", Expect::Revision(1)).await, None);
    conflict(s.delete("/a/x", Expect::Any).await, None);
    conflict(s.delete("/a/x", Expect::Revision(1)).await, None);
    let before = s.current_revision();
    let first = put(&s, "/a/x", "1", Expect::Absent).await.unwrap();
    assert_eq!(first.revision, before + 1, "failed writes take no revision");
    conflict(put(&s, "/a/x", "2", Expect::Absent).await, Some(first.revision));
    conflict(put(&s, "/a/x", "2", Expect::Revision(first.revision + 1)).await, Some(first.revision));
    let second = put(&s, "/a/x", "2", Expect::Revision(first.revision)).await.unwrap();
    conflict(put(&s, "/a/x", "3", Expect::Revision(first.revision)).await, Some(second.revision));
    conflict(s.delete("/a/x", Expect::Revision(first.revision)).await, Some(second.revision));
    conflict(s.delete("/a/x", Expect::Absent).await, Some(second.revision));
    assert_eq!(text(&s.get("/a/x").unwrap()), "2");
    s.delete("/a/x", Expect::Revision(second.revision)).await.unwrap();
    conflict(s.delete("/a/x", Expect::Any).await, None);
    put(&s, "/a/x", "4", Expect::Absent).await.unwrap();
}

pub async fn revisions_and_records<S: Store>(make: impl Fn(Options) -> S) {
    let s = make(Options::default());
    assert!(s.current_revision() > 0, "0 means \"any\" to clients");
    assert!(s.get("/a/x").is_none());
    let attrs = Attrs {
        labels: BTreeMap::from([("app".into(), "web".into())]),
        fields: BTreeMap::from([("spec.nodeName".into(), "n1".into())]),
        splice: 7,
    };
    let created = s.put("/a/x", value("1"), attrs.clone(), Expect::Any).await.unwrap();
    assert_eq!(created.created, created.revision);
    let updated = s.put("/a/x", value("2"), attrs.clone(), Expect::Any).await.unwrap();
    assert_eq!((updated.created, updated.revision), (created.created, created.revision + 1));
    let got = s.get("/a/x").unwrap();
    assert_eq!((text(&got), &*got.attrs, got.created, got.revision), ("2".into(), &attrs, 2, 3));
    let gone = s.delete("/a/x", Expect::Any).await.unwrap();
    assert_eq!((text(&gone), gone.created, gone.revision), ("2".into(), 2, 4));
    assert!(s.get("/a/x").is_none());
    assert_eq!((s.current_revision(), s.read_only()), (4, None));
    let again = put(&s, "/a/x", "3", Expect::Any).await.unwrap();
    assert_eq!((again.created, again.revision), (5, 5));
}

pub async fn lists_in_order<S: Store>(make: impl Fn(Options) -> S) {
    let s = make(Options::default());
    for key in ["/b/2", "/a/n/2", "/b/1", "/a/m/1", "/ab/1", "/a/n/1", "/b/10"] {
        set(&s, key, key).await;
    }
    let list = |prefix: &str| s.list(prefix, &everything()).unwrap();
    assert_eq!(keys(&list("/b/").records), ["/b/1", "/b/10", "/b/2"]);
    assert_eq!(keys(&list("/a/").records), ["/a/m/1", "/a/n/1", "/a/n/2"]);
    assert_eq!(keys(&list("/a/n/").records), ["/a/n/1", "/a/n/2"]);
    assert!(list("/c/").records.is_empty());
    assert_eq!((list("/b/").revision, list("/b/").more, list("/b/").remaining), (s.current_revision(), false, 0));
    assert_eq!((s.count("/a/"), s.count("/"), s.count("/c/")), (3, 7, 0));
}

pub async fn lists_pages_at_a_revision<S: Store>(make: impl Fn(Options) -> S) {
    let s = Arc::new(make(Options::default()));
    for i in 0..50 {
        set(&*s, &format!("/p/{i:03}"), "old").await;
    }
    let writer = {
        let s = s.clone();
        tokio::spawn(async move {
            for i in 0..60 {
                set(&*s, &format!("/p/{i:03}"), "new").await;
                set(&*s, &format!("/q/{i:03}"), "other").await;
                if i % 3 == 0 {
                    s.delete(&format!("/p/{i:03}"), Expect::Any).await.unwrap();
                }
                set(&*s, &format!("/p/{i:03}x"), "added").await;
            }
        })
    };
    let mut options = ListOptions { limit: 7, after: None, at_revision: None };
    let mut pages = Vec::new();
    loop {
        let page = s.list("/p/", &options).unwrap();
        let revision = *options.at_revision.get_or_insert(page.revision);
        assert_eq!(page.revision, revision);
        assert_eq!(page.more, page.remaining > 0);
        pages.push((page.records.len() as u64, page.remaining));
        options.after = page.records.last().map(|r| r.key.to_string());
        if !page.more {
            break;
        }
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
    let whole = s.list("/p/", &ListOptions { at_revision: options.at_revision, ..everything() }).unwrap();
    let total = whole.records.len() as u64;
    let mut seen = 0;
    for (count, remaining) in pages {
        seen += count;
        assert_eq!(seen + remaining, total, "every page knows how many follow");
    }
}

pub async fn lists_the_past<S: Store>(make: impl Fn(Options) -> S) {
    let s = make(Options::default());
    let mut model: BTreeMap<String, String> = BTreeMap::new();
    let mut past = vec![(s.current_revision(), model.clone())];
    for i in 0..200u32 {
        let key = format!("/p/{}", i * 7 % 23);
        if i % 4 == 3 && model.remove(&key).is_some() {
            s.delete(&key, Expect::Any).await.unwrap();
        } else {
            set(&s, &key, &i.to_string()).await;
            model.insert(key, i.to_string());
        }
        past.push((s.current_revision(), model.clone()));
    }
    for (revision, model) in past {
        let mut records = Vec::new();
        let mut options = ListOptions { limit: 5, after: None, at_revision: Some(revision) };
        loop {
            let page = s.list("/p/", &options).unwrap();
            options.after = page.records.last().map(|r| r.key.to_string());
            records.extend(page.records);
            if !page.more {
                break;
            }
        }
        let got: Vec<_> = records.iter().map(|r| (r.key.to_string(), text(r))).collect();
        assert_eq!(got, model.into_iter().collect::<Vec<_>>(), "at revision {revision}");
        assert!(records.iter().all(|r| r.revision <= revision));
    }
}

pub async fn watches_from_a_revision<S: Store>(make: impl Fn(Options) -> S) {
    let s = make(Options::default());
    let start = s.current_revision();
    set(&s, "/a/x", "1").await;
    set(&s, "/b/x", "1").await;
    let mut all = s.watch("/", start).unwrap();
    let mut narrow = s.watch("/a/", start).unwrap();
    let mut now = s.watch("/a/", s.current_revision()).unwrap();
    set(&s, "/a/x", "2").await;
    set(&s, "/ab/x", "1").await;
    s.delete("/a/x", Expect::Any).await.unwrap();
    use EventKind::{Created, Deleted, Updated};
    for (kind, key, text, revision) in [
        (Created, "/a/x", "1", 2),
        (Created, "/b/x", "1", 3),
        (Updated, "/a/x", "2", 4),
        (Created, "/ab/x", "1", 5),
        (Deleted, "/a/x", "2", 6),
    ] {
        let expected = (kind, key.to_string(), text.to_string(), revision);
        assert_eq!(shape(&*next(&mut all).await), expected);
        if key == "/a/x" {
            assert_eq!(shape(&*next(&mut narrow).await), expected);
            if revision > 3 {
                assert_eq!(shape(&*next(&mut now).await), expected);
            }
        }
    }
    assert!(all.try_next().is_none() && narrow.try_next().is_none() && now.try_next().is_none());
}

pub async fn watch_sees_previous_values<S: Store>(make: impl Fn(Options) -> S) {
    let s = make(Options::default());
    let mut live = s.watch("/a/", s.current_revision()).unwrap();
    let start = s.current_revision();
    set(&s, "/a/x", "1").await;
    set(&s, "/a/x", "2").await;
    s.delete("/a/x", Expect::Any).await.unwrap();
    set(&s, "/a/x", "3").await;
    let mut resumed = s.watch("/a/", start).unwrap();
    for watch in [&mut live, &mut resumed] {
        for expected in [None, Some(("1", 2)), Some(("2", 3)), None] {
            let event = next(watch).await;
            let previous = event.previous.as_ref().map(|r| (text(r), r.revision));
            assert_eq!(previous, expected.map(|(t, r)| (t.to_string(), r)));
        }
    }
}

pub async fn resumes_without_loss_or_repeat<S: Store>(make: impl Fn(Options) -> S) {
    const WRITES: u64 = 300;
    let s = Arc::new(make(Options::default()));
    let start = s.current_revision();
    let writer = {
        let s = s.clone();
        tokio::spawn(async move {
            for i in 0..WRITES {
                set(&*s, &format!("/a/{}", i % 10), &i.to_string()).await;
            }
        })
    };
    let mut last = start;
    let mut step = 1;
    while last < start + WRITES {
        // A new watch every few events, while writes go on.
        let mut watch = s.watch("/a/", last).unwrap();
        for _ in 0..step.min(start + WRITES - last) {
            let event = next(&mut watch).await;
            assert_eq!(event.record.revision, last + 1);
            last = event.record.revision;
        }
        step = step % 17 + 1;
    }
    writer.await.unwrap();
    assert!(s.watch("/a/", last).unwrap().try_next().is_none());
}

pub async fn compacts<S: Store>(make: impl Fn(Options) -> S) {
    let s = make(Options::default());
    for i in 0..10 {
        set(&s, "/a/x", &i.to_string()).await;
    }
    s.compact(6).await.unwrap();
    s.compact(5).await.unwrap();
    let compacted = |e: StoreError| matches!(e, StoreError::Compacted { asked: 5, oldest: 6 });
    assert!(compacted(s.watch("/a/", 5).err().unwrap()));
    assert!(compacted(s.list("/a/", &ListOptions { at_revision: Some(5), ..everything() }).err().unwrap()));
    assert!(matches!(s.watch("/a/", 0).err().unwrap(), StoreError::Compacted { asked: 0, oldest: 6 }));
    assert_eq!(next(&mut s.watch("/a/", 6).unwrap()).await.record.revision, 7);
    let page = s.list("/a/", &ListOptions { at_revision: Some(6), ..everything() }).unwrap();
    assert_eq!(text(&page.records[0]), "4");
    s.compact(s.current_revision()).await.unwrap();
    assert_eq!(text(&s.get("/a/x").unwrap()), "9");
    assert!(s.watch("/a/", s.current_revision()).unwrap().try_next().is_none());
    assert_eq!(s.current_revision(), 11, "compaction takes no revision");
}

pub async fn bounds_history<S: Store>(make: impl Fn(Options) -> S) {
    let s = make(Options { history_count: 10, ..Options::default() });
    for i in 0..30 {
        set(&s, "/a/x", &i.to_string()).await;
    }
    assert!(matches!(s.watch("/a/", 20).err().unwrap(), StoreError::Compacted { asked: 20, oldest: 21 }));
    let mut watch = s.watch("/a/", 21).unwrap();
    for revision in 22..=31 {
        assert_eq!(next(&mut watch).await.record.revision, revision);
    }
    let s = make(Options { history_bytes: 10_000, ..Options::default() });
    for _ in 0..30 {
        set(&s, "/a/x", &"v".repeat(1000)).await;
    }
    assert!(matches!(s.watch("/a/", 20).err().unwrap(), StoreError::Compacted { .. }));
    assert!(s.watch("/a/", 30).is_ok());
}

pub async fn refuses_the_future<S: Store>(make: impl Fn(Options) -> S) {
    let s = make(Options::default());
    let current = set(&s, "/a/x", "1").await;
    let future =
        |e: StoreError| matches!(e, StoreError::Future { asked, current: c } if asked == current + 1 && c == current);
    assert!(future(s.watch("/a/", current + 1).err().unwrap()));
    assert!(future(s.list("/a/", &ListOptions { at_revision: Some(current + 1), ..everything() }).err().unwrap()));
    assert!(future(s.compact(current + 1).await.unwrap_err()));
}

pub async fn cuts_slow_watchers<S: Store>(make: impl Fn(Options) -> S) {
    let s = make(Options { watch_buffer: 8, ..Options::default() });
    let start = s.current_revision();
    let mut slow = s.watch("/a/", start).unwrap();
    let mut other = s.watch("/b/", start).unwrap();
    for i in 0..40 {
        set(&s, &format!("/a/{i}"), "v").await;
    }
    let mut seen = start;
    while let Ok(event) = tokio::time::timeout(WAIT, slow.next()).await.expect("a cut watch ends") {
        seen = event.record.revision;
    }
    assert_eq!(seen, start + 8, "what was queued before the cut still comes");
    assert_eq!(slow.progress(), 0, "no bookmark is true after a cut");
    let mut resumed = s.watch("/a/", seen).unwrap();
    while seen < start + 40 {
        let event = next(&mut resumed).await;
        assert_eq!(event.record.revision, seen + 1, "the resumed watch loses and repeats nothing");
        seen += 1;
    }
    set(&s, "/b/x", "v").await;
    assert_eq!(next(&mut other).await.record.revision, start + 41, "others are not disturbed");
}

pub async fn reports_progress<S: Store>(make: impl Fn(Options) -> S) {
    let s = make(Options::default());
    let mut watch = s.watch("/a/", s.current_revision()).unwrap();
    assert_eq!(watch.progress(), s.current_revision());
    set(&s, "/a/x", "1").await;
    for i in 0..5 {
        set(&s, &format!("/b/{i}"), "v").await;
    }
    let reached = async {
        while watch.progress() < s.current_revision() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(WAIT, reached).await.expect("progress follows writes under other prefixes");
    assert_eq!(watch.try_next().unwrap().record.revision, 2, "all before the progress is queued");
    assert!(watch.try_next().is_none());
}

pub async fn concurrent_writers_agree<S: Store>(make: impl Fn(Options) -> S) {
    const WRITERS: u64 = 8;
    const EACH: u64 = 25;
    let s = Arc::new(make(Options::default()));
    set(&*s, "/n/count", "0").await;
    let start = s.current_revision();
    let mut watch = s.watch("/n/", start).unwrap();
    let writers: Vec<_> = (0..WRITERS)
        .map(|_| {
            let s = s.clone();
            tokio::spawn(async move {
                for _ in 0..EACH {
                    // Optimistic increments: every one must count.
                    loop {
                        let now = s.get("/n/count").unwrap();
                        let more = text(&now).parse::<u64>().unwrap() + 1;
                        match put(&*s, "/n/count", &more.to_string(), Expect::Revision(now.revision)).await {
                            Ok(written) => {
                                assert!(
                                    s.get("/n/count").unwrap().revision >= written.revision,
                                    "reads see own writes"
                                );
                                break;
                            }
                            Err(StoreError::Conflict { .. }) => {}
                            Err(other) => panic!("{other}"),
                        }
                    }
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(text(&s.get("/n/count").unwrap()), (WRITERS * EACH).to_string());
    for i in 1..=WRITERS * EACH {
        let event = next(&mut watch).await;
        assert_eq!((event.record.revision, text(&event.record)), (start + i, i.to_string()));
    }
}
