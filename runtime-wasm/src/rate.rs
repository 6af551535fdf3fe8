//! Rates: so much per second, with a reserve for bursts.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;

use crate::stdio::OutputSink;

/// So much per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Units per second; 0 counts as 1.
    pub per_second: u64,
    /// Units that can be had at once after a time of not asking.
    pub burst: u64,
}

/// Output of a container, in bytes: 4 MiB per second after 16 MiB. A guest that writes more waits.
pub const LOG_RATE: Rate = Rate { per_second: 4 << 20, burst: 16 << 20 };

/// What is left of a rate. Pure: `now` comes from the caller.
#[derive(Debug)]
pub struct Bucket {
    rate: Rate,
    /// When the bucket will be full again.
    full_at: Duration,
}

impl Bucket {
    /// A full bucket.
    pub fn new(rate: Rate) -> Bucket {
        Bucket { rate, full_at: Duration::ZERO }
    }

    /// Takes `units`, even if that leaves a debt: how long until it is paid.
    pub fn take(&mut self, units: u64, now: Duration) -> Duration {
        self.full_at = self.full_at.max(now).saturating_add(self.time_for(units));
        self.full_at.saturating_sub(now).saturating_sub(self.time_for(self.rate.burst))
    }

    /// Takes `units` if there are so many.
    pub fn try_take(&mut self, units: u64, now: Duration) -> bool {
        let full_at = self.full_at.max(now).saturating_add(self.time_for(units));
        let fits = full_at.saturating_sub(now) <= self.time_for(self.rate.burst);
        if fits {
            self.full_at = full_at;
        }
        fits
    }

    fn time_for(&self, units: u64) -> Duration {
        let nanos = u128::from(units).saturating_mul(1_000_000_000) / u128::from(self.rate.per_second.max(1));
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

/// Output that comes no faster than a rate allows: the guest's next write waits. Both streams of a container share
/// one bucket.
pub(crate) struct Paced {
    sink: Arc<dyn OutputSink>,
    bucket: Arc<Mutex<Bucket>>,
    start: Instant,
}

impl Paced {
    /// Standard output and error of one container, paced together.
    pub(crate) fn both(sinks: [Arc<dyn OutputSink>; 2], rate: Rate) -> [Arc<dyn OutputSink>; 2] {
        let (bucket, start) = (Arc::new(Mutex::new(Bucket::new(rate))), Instant::now());
        sinks.map(|sink| Arc::new(Paced { sink, bucket: bucket.clone(), start }) as Arc<dyn OutputSink>)
    }
}

#[async_trait]
impl OutputSink for Paced {
    async fn write(&self, data: Bytes) {
        let bytes = data.len() as u64;
        self.sink.write(data).await;
        let wait = self.bucket.lock().take(bytes, self.start.elapsed());
        if !wait.is_zero() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn bursts_then_the_rate() {
        let mut bucket = Bucket::new(Rate { per_second: 1000, burst: 100 });
        for (units, at, wait) in [(100, 0, 0), (10, 0, 10), (10, 10, 10), (0, 20, 0), (100, 1000, 0), (200, 1000, 200)]
        {
            assert_eq!(bucket.take(units, ms(at)), ms(wait), "{units} at {at}");
        }
        let mut bucket = Bucket::new(Rate { per_second: 10, burst: 2 });
        for (at, fits) in [(0, true), (0, true), (0, false), (99, false), (100, true), (100, false), (9000, true)] {
            assert_eq!(bucket.try_take(1, ms(at)), fits, "{at}");
        }
        assert!(!bucket.try_take(3, ms(99_000)), "more than a burst never fits");
        assert_eq!(Bucket::new(Rate { per_second: 0, burst: 0 }).take(1, ms(0)), ms(1000));
    }

    #[tokio::test]
    async fn writers_wait() {
        let rate = Rate { per_second: 1000, burst: 1000 };
        let start = Instant::now();
        let [out, err] = Paced::both([Arc::new(crate::stdio::Discard), Arc::new(crate::stdio::Discard)], rate);
        out.write(Bytes::from(vec![0; 1000])).await;
        err.write(Bytes::from(vec![0; 50])).await;
        assert!(start.elapsed() >= ms(50), "{:?}", start.elapsed());
    }
}
