use super::*;
use parking_lot::Condvar;
use std::task::Poll;

/// A log whose commits wait until they are let through, and fail on demand.
#[derive(Clone, Default)]
struct Gate(Arc<(Mutex<State>, Condvar)>);
#[derive(Default)]
struct State {
    allowed: usize,
    sizes: Vec<usize>,
    fail: Option<String>,
}

impl Gate {
    fn open(&self, commits: usize) {
        self.0.0.lock().allowed += commits;
        self.0.1.notify_all();
    }
    fn entered(&self) -> usize {
        self.0.0.lock().sizes.len()
    }
}

impl Log for Gate {
    fn commit(&mut self, batch: &Batch<'_>) -> Result<(), String> {
        let mut state = self.0.0.lock();
        state.sizes.push(batch.events.len());
        while state.allowed == 0 {
            self.0.1.wait(&mut state);
        }
        state.allowed -= 1;
        state.fail.clone().map_or(Ok(()), Err)
    }
}

fn store(gate: &Gate) -> Indexed<Gate> {
    Indexed::threaded(Index::new(Options::default()), gate.clone(), Options::default()).unwrap()
}

async fn until(mut condition: impl FnMut() -> bool) {
    while !condition() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn groups_commits_and_shows_nothing_before() {
    let gate = Gate::default();
    let store = store(&gate);
    let mut watch = store.watch("/", store.current_revision()).unwrap();
    let put = |key: &'static str, expect| store.put(key, Bytes::from_static(b"v"), Attrs::default(), expect);

    let mut first = std::pin::pin!(put("/a", Expect::Absent));
    assert!(matches!(futures::poll!(first.as_mut()), Poll::Pending));
    until(|| gate.entered() == 1).await;
    // These queue behind the commit under way and see one another.
    let mut b = std::pin::pin!(put("/b", Expect::Absent));
    let mut again = std::pin::pin!(put("/b", Expect::Absent));
    let mut c = std::pin::pin!(store.delete("/b", Expect::Revision(3)));
    assert!(futures::poll!(b.as_mut()).is_pending());
    assert!(futures::poll!(again.as_mut()).is_pending());
    assert!(futures::poll!(c.as_mut()).is_pending());
    assert!(store.get("/a").is_none() && store.current_revision() == 1 && watch.try_next().is_none());

    gate.open(1);
    assert_eq!(first.await.unwrap().revision, 2);
    until(|| gate.entered() == 2).await;
    assert!(store.get("/a").is_some() && store.get("/b").is_none());
    assert!(futures::poll!(again.as_mut()).is_pending(), "a conflict with an uncommitted write must wait for it");
    gate.open(1);
    assert_eq!(b.await.unwrap().revision, 3);
    assert!(matches!(again.await, Err(StoreError::Conflict { current: Some(r), .. }) if r.revision == 3));
    assert_eq!(c.await.unwrap().revision, 4);
    assert!(store.get("/b").is_none());
    assert_eq!(gate.0.0.lock().sizes, [1, 2]);
    for revision in 2..=4 {
        assert_eq!(watch.next().await.unwrap().record.revision, revision);
    }
}

#[tokio::test]
async fn a_failed_commit_makes_the_store_read_only() {
    let gate = Gate::default();
    gate.open(1);
    let store = store(&gate);
    store.put("/a", Bytes::new(), Attrs::default(), Expect::Any).await.unwrap();
    assert_eq!(store.read_only(), None);
    gate.0.0.lock().fail = Some("disk full".into());
    gate.open(1);
    let refused = |e: StoreError| matches!(e, StoreError::ReadOnly(why) if why == "disk full");
    assert!(refused(store.put("/b", Bytes::new(), Attrs::default(), Expect::Any).await.unwrap_err()));
    assert!(store.get("/b").is_none() && store.get("/a").is_some());
    assert_eq!((store.current_revision(), store.read_only()), (2, Some("disk full".into())));
    assert!(refused(store.delete("/a", Expect::Any).await.unwrap_err()));
    assert!(refused(store.compact(2).await.unwrap_err()));
    assert_eq!(gate.entered(), 2, "no commit is tried after one failed");
}

#[tokio::test]
async fn a_dropped_store_commits_its_queue_and_ends_watches() {
    let gate = Gate::default();
    gate.open(1);
    let store = store(&gate);
    let mut watch = store.watch("/", 1).unwrap();
    store.put("/a", Bytes::new(), Attrs::default(), Expect::Any).await.unwrap();
    drop(store);
    assert!(watch.next().await.is_ok());
    assert!(watch.next().await.is_err());
    assert_eq!(watch.progress(), 0);
}
