//! The guests' threads: tasks wait, wake, end, panic and are dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use super::pool::GuestPool;
use super::queue::DEFAULT_WEIGHT;
use super::task::until_next_turn;
use crate::ticker::Ticker;

struct Fixture {
    pool: Option<GuestPool>,
    ticker: Arc<Ticker>,
    _engine: wasmtime::Engine,
}

impl Fixture {
    fn new(threads: usize) -> Fixture {
        let engine = wasmtime::Engine::default();
        let ticker = Ticker::start(engine.weak()).unwrap();
        let io = tokio::runtime::Handle::current();
        Fixture { pool: Some(GuestPool::start(threads, &io, ticker.clone()).unwrap()), ticker, _engine: engine }
    }

    fn account(&self) -> Arc<super::CpuAccount> {
        self.pool.as_ref().unwrap().account(DEFAULT_WEIGHT, None)
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.ticker.stop();
    }
}

/// Awaits, but not for ever.
async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), what).await.expect("it happens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn tasks_wake_each_other_and_have_timers() {
    let pool = Fixture::new(2);
    let (ping, pinged) = oneshot::channel();
    let (pong, ponged) = oneshot::channel();
    let (first, second) = (pool.account(), pool.account());
    first.spawn(async move { pong.send(pinged.await.unwrap() + 1).unwrap() }).unwrap();
    second
        .spawn(async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            until_next_turn().await;
            assert!(std::thread::current().name().unwrap().starts_with("guest-"));
            ping.send(1).unwrap();
        })
        .unwrap();
    assert_eq!(soon(ponged).await, Ok(2));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_panic_ends_its_task_alone() {
    struct PanicsWhenDropped(#[allow(dead_code, reason = "told by being dropped")] oneshot::Sender<()>);
    impl Drop for PanicsWhenDropped {
        fn drop(&mut self) {
            panic!("while dropping");
        }
    }
    let pool = Fixture::new(1);
    let account = pool.account();
    let (held, dropped) = oneshot::channel::<()>();
    account
        .spawn(async move {
            let _held = held;
            until_next_turn().await;
            panic!("on purpose");
        })
        .unwrap();
    assert!(soon(dropped).await.is_err());
    let (held, dropped) = oneshot::channel();
    let held = PanicsWhenDropped(held);
    let aborted = account.spawn(async move {
        let _held = held;
        std::future::pending::<()>().await;
    });
    drop(aborted.unwrap().abort_on_drop());
    assert!(soon(dropped).await.is_err());
    let (done, finished) = oneshot::channel();
    account.spawn(async move { done.send(()).unwrap() }).unwrap();
    soon(finished).await.expect("the thread goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn aborted_tasks_are_dropped_whatever_they_do() {
    let pool = Fixture::new(1);
    let account = pool.account();
    let (waiting, waiter_gone) = oneshot::channel::<()>();
    let (spinning, spinner_gone) = oneshot::channel::<()>();
    let (released, released_gone) = oneshot::channel::<()>();
    let (go, wait) = oneshot::channel::<()>();
    let waiter = account.spawn(async move {
        let _held = waiting;
        std::future::pending::<()>().await;
    });
    let spinner = account.spawn(async move {
        let _held = spinning;
        loop {
            until_next_turn().await;
        }
    });
    let detached = account.spawn(async move {
        let _ = wait.await;
        drop(released);
    });
    let (waiter, spinner) = (waiter.unwrap().abort_on_drop(), spinner.unwrap().abort_on_drop());
    detached.unwrap().abort_on_drop().release();
    while account.usage().used < Duration::from_millis(1) {
        tokio::task::yield_now().await;
    }
    drop((waiter, spinner));
    assert!(soon(waiter_gone).await.is_err());
    assert!(soon(spinner_gone).await.is_err());
    go.send(()).expect("a released task is still there");
    assert!(soon(released_gone).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn the_pools_end_drops_everything() {
    let mut pool = Fixture::new(1);
    let account = pool.account();
    let mut gone = Vec::new();
    for spins in [true, false] {
        let (held, dropped) = oneshot::channel::<()>();
        gone.push(dropped);
        let _ = account.spawn(async move {
            let _held = held;
            match spins {
                true => loop {
                    until_next_turn().await;
                },
                false => std::future::pending::<()>().await,
            }
        });
    }
    while account.usage().used.is_zero() {
        tokio::task::yield_now().await;
    }
    pool.pool = None;
    for dropped in gone {
        assert!(soon(dropped).await.is_err());
    }
    assert!(account.spawn(async {}).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn running_out_of_the_pods_memory_ends_whose_turn_it_is() {
    use crate::limits::MemoryBudget;
    let pool = Fixture::new(1);
    let [guilty, other] = [pool.account(), pool.account()];
    let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
    for (name, account) in [("guilty", &guilty), ("other", &other)] {
        let told = told.clone();
        account.on_out_of_memory(move |error| told.send((name, error.clone())).unwrap());
    }
    let memory = MemoryBudget::of_pod(Some(100));
    memory.take_shared(60).unwrap();
    assert!(memory.take_shared(50).is_err(), "nobody's turn, nobody's end");
    let budget = memory.clone();
    guilty
        .spawn(async move {
            until_next_turn().await;
            assert!(budget.take_shared(41).is_err());
        })
        .unwrap();
    let (name, error) = soon(hears.recv()).await.unwrap();
    assert_eq!((name, error.wanted, error.limit), ("guilty", 101, 100));
    assert!(hears.try_recv().is_err());
    assert_eq!(memory.used(), 60);
}

/// A task may be woken, end and be forgotten on one thread while another has yet to account for the turn before: that one
/// holds the last of the task and of its account then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_ends_before_its_turn_before_is_accounted_stops_nobody() {
    let pool = Fixture::new(4);
    let busy = pool.account();
    let over = Arc::new(AtomicBool::new(false));
    // Whoever looks at the counters takes the pool's lock, so that the threads have to wait for it.
    let lookers: Vec<_> = (0..4)
        .map(|_| {
            let (busy, over) = (busy.clone(), over.clone());
            std::thread::spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    std::hint::black_box(busy.usage());
                }
            })
        })
        .collect();
    for _ in 0..2000 {
        let (ended, end) = oneshot::channel();
        let account = pool.account();
        let mut ended = Some(ended);
        let mut turns = 0;
        let work = std::future::poll_fn(move |cx| {
            turns += 1;
            if turns < 8 {
                let waker = cx.waker().clone();
                tokio::spawn(async move { waker.wake() });
                return std::task::Poll::Pending;
            }
            let _ = ended.take().map(|ended| ended.send(()));
            std::task::Poll::Ready(())
        });
        account.spawn(work).unwrap();
        drop(account);
        soon(end).await.unwrap();
    }
    over.store(true, Ordering::Relaxed);
    lookers.into_iter().for_each(|looker| looker.join().unwrap());
}
