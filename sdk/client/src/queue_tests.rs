use super::*;
use std::sync::atomic::{AtomicUsize, Ordering};

fn settings() -> Settings {
    Settings { base: Duration::from_millis(10), cap: Duration::from_millis(40), min_interval: Duration::ZERO, seed: 7 }
}

/// Runs `work` on the queue while `script` runs, and returns the milliseconds at which each key was worked on.
async fn trace(
    settings: Settings,
    work: impl Fn(usize) -> (Duration, Outcome) + Send + Sync + 'static,
    script: impl AsyncFnOnce(WorkQueue<&'static str>),
) -> Vec<(u128, &'static str)> {
    let queue = WorkQueue::new(settings);
    let token = CancellationToken::new();
    let start = Instant::now();
    let log = Arc::new(Mutex::new(Vec::new()));
    let runner = tokio::spawn({
        let (queue, token, log) = (queue.clone(), token.clone(), log.clone());
        let work = Arc::new(work);
        async move {
            queue
                .run(4, token, move |key| {
                    let (log, work) = (log.clone(), work.clone());
                    async move {
                        let nth = {
                            let mut log = log.lock();
                            log.push((start.elapsed().as_millis(), key));
                            log.len()
                        };
                        let (takes, outcome) = work(nth);
                        tokio::time::sleep(takes).await;
                        outcome
                    }
                })
                .await;
        }
    });
    script(queue).await;
    token.cancel();
    runner.await.unwrap();
    Arc::try_unwrap(log).map(Mutex::into_inner).unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_key_is_queued_once_and_worked_on_serially() {
    let log = trace(
        settings(),
        |_| (Duration::from_millis(5), Outcome::Done),
        async |queue| {
            queue.add("a");
            queue.add("a");
            queue.add("b");
            tokio::time::sleep(Duration::from_millis(2)).await;
            queue.add("a");
            queue.add("a");
            tokio::time::sleep(Duration::from_millis(100)).await;
        },
    )
    .await;
    assert_eq!(log, [(0, "a"), (0, "b"), (5, "a")]);
}

#[tokio::test(start_paused = true)]
async fn failures_back_off_to_the_cap_and_success_forgets() {
    let outcome = |nth| if nth <= 5 { Outcome::Retry } else { Outcome::Done };
    let log = trace(
        settings(),
        move |nth| (Duration::ZERO, outcome(nth)),
        async |queue| {
            queue.add("a");
            tokio::time::sleep(Duration::from_secs(2)).await;
        },
    )
    .await;
    let gaps: Vec<u128> = log.windows(2).map(|w| w[1].0 - w[0].0).collect();
    assert_eq!(gaps.len(), 5, "{log:?}");
    for (gap, (low, high)) in gaps.iter().zip([(5, 11), (10, 21), (20, 41), (20, 41), (20, 41)]) {
        assert!((low..=high).contains(gap), "{gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn delays_keep_the_earliest_appointment() {
    let log = trace(
        settings(),
        |_| (Duration::ZERO, Outcome::Done),
        async |queue| {
            queue.add_after("a", Duration::from_millis(50));
            queue.add_after("a", Duration::from_millis(20));
            queue.add_after("a", Duration::from_millis(80));
            tokio::time::sleep(Duration::from_millis(200)).await;
        },
    )
    .await;
    assert_eq!(log, [(20, "a")]);
}

#[tokio::test(start_paused = true)]
async fn a_busy_key_rests_between_runs() {
    let busy = Settings { min_interval: Duration::from_millis(10), ..settings() };
    let log = trace(
        busy,
        |_| (Duration::ZERO, Outcome::Done),
        async |queue| {
            for _ in 0..30 {
                queue.add("a");
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        },
    )
    .await;
    assert!(log.len() <= 5 && log.len() >= 3, "{log:?}");
    assert_eq!(log[0], (0, "a"));
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_a_failure() {
    let runs = Arc::new(AtomicUsize::new(0));
    let queue = WorkQueue::new(settings());
    let token = CancellationToken::new();
    queue.add(1);
    let runner = tokio::spawn({
        let (runs, token) = (runs.clone(), token.clone());
        queue.run(1, token, move |_| {
            let runs = runs.clone();
            async move {
                if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                    panic!("first run");
                }
                Outcome::Done
            }
        })
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    token.cancel();
    runner.await.unwrap();
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}
