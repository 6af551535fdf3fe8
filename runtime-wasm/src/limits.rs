//! What a container may use, and what it used: memory charged as it grows, CPU time measured around each poll.

use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use wasmtime::ResourceLimiter;

use crate::engine::Ticker;

/// A CPU quota is counted over periods of this length, as Linux's CFS bandwidth control does.
pub const CPU_PERIOD: Duration = Duration::from_millis(100);
/// What one table element costs in a container's memory account, in bytes.
const TABLE_ELEMENT_BYTES: u64 = 8;
/// Most linear memories, tables and core instances in one guest instance (one pooled slot each).
const MAX_PARTS_PER_INSTANCE: usize = 64;

/// The guest asked for more memory than its container may have.
#[derive(Debug, Clone, thiserror::Error)]
#[error("out of memory: {wanted} bytes wanted, the limit is {limit} bytes")]
pub struct OutOfMemory {
    /// Bytes the container would have had.
    pub wanted: u64,
    /// Bytes it may have.
    pub limit: u64,
    /// Bytes that the asking instance alone would have had.
    pub own: u64,
}

/// A container's memory account, shared by its instances.
pub struct MemoryBudget {
    limit: u64,
    used: AtomicU64,
    peak: AtomicU64,
    reclaim: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl MemoryBudget {
    /// An account of at most `limit` bytes (`None`: what wasm32 can address, per memory).
    pub fn new(limit: Option<u64>) -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget {
            limit: limit.unwrap_or(u64::MAX),
            used: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            reclaim: OnceLock::new(),
        })
    }

    /// Bytes held now.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// The most bytes held at any time.
    pub fn peak(&self) -> u64 {
        self.peak.load(Ordering::Relaxed)
    }

    /// Sets what frees memory that is held but not needed (idle instances), called before a request is denied.
    pub(crate) fn on_pressure(&self, reclaim: impl Fn() + Send + Sync + 'static) {
        let _ = self.reclaim.set(Box::new(reclaim));
    }

    fn try_take(&self, bytes: u64) -> Result<(), u64> {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|&sum| sum <= self.limit)
        });
        match taken {
            Ok(before) => {
                self.peak.fetch_max(before.saturating_add(bytes), Ordering::Relaxed);
                Ok(())
            }
            Err(used) => Err(used.saturating_add(bytes)),
        }
    }

    fn take(&self, bytes: u64, own: u64) -> Result<(), OutOfMemory> {
        let Err(mut wanted) = self.try_take(bytes) else { return Ok(()) };
        if let Some(reclaim) = self.reclaim.get() {
            reclaim();
            match self.try_take(bytes) {
                Ok(()) => return Ok(()),
                Err(sum) => wanted = sum,
            }
        }
        Err(OutOfMemory { wanted, limit: self.limit, own })
    }

    fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// Charges one store's growth to the container's account and gives it back when the store goes.
pub(crate) struct Limiter {
    budget: Arc<MemoryBudget>,
    held: u64,
}

impl Limiter {
    pub(crate) fn new(budget: Arc<MemoryBudget>) -> Limiter {
        Limiter { budget, held: 0 }
    }

    /// Growth beyond the limit traps: a container over its limit is killed, whatever the guest would do about it.
    fn grow(&mut self, bytes: u64) -> wasmtime::Result<bool> {
        let own = self.held.saturating_add(bytes);
        self.budget.take(bytes, own)?;
        self.held = own;
        Ok(true)
    }
}

impl Drop for Limiter {
    fn drop(&mut self) {
        self.budget.give(self.held);
    }
}

impl ResourceLimiter for Limiter {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        self.grow(desired.saturating_sub(current) as u64)
    }

    fn table_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        if maximum.is_some_and(|maximum| desired > maximum) || desired > crate::engine::MAX_TABLE_ELEMENTS {
            return Ok(false);
        }
        self.grow((desired.saturating_sub(current) as u64).saturating_mul(TABLE_ELEMENT_BYTES))
    }

    fn instances(&self) -> usize {
        MAX_PARTS_PER_INSTANCE
    }

    fn tables(&self) -> usize {
        MAX_PARTS_PER_INSTANCE
    }

    fn memories(&self) -> usize {
        MAX_PARTS_PER_INSTANCE
    }
}

/// A container's CPU account, shared by its instances: the time its guests held a thread, and its quota.
pub struct CpuMeter {
    ticker: Arc<Ticker>,
    used: AtomicU64,
    quota: Option<Mutex<Quota>>,
}

struct Quota {
    per_period: Duration,
    period_start: Instant,
    used: Duration,
}

impl CpuMeter {
    /// `millicores`: the most CPU time per second of wall time, in thousandths of a core (`None`: no quota).
    pub(crate) fn new(ticker: Arc<Ticker>, millicores: Option<u64>) -> Arc<CpuMeter> {
        let quota = millicores.map(|millicores| {
            let nanos = CPU_PERIOD.as_nanos() as u64 / 1000;
            let per_period = Duration::from_nanos(nanos.saturating_mul(millicores.max(1)));
            Mutex::new(Quota { per_period, period_start: Instant::now(), used: Duration::ZERO })
        });
        Arc::new(CpuMeter { ticker, used: AtomicU64::new(0), quota })
    }

    /// CPU time used so far.
    pub fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Ordering::Relaxed))
    }

    /// Charges `spent`; `Some(until)` when the quota of this period is used up.
    fn charge(&self, spent: Duration, now: Instant) -> Option<Instant> {
        self.used.fetch_add(spent.as_nanos() as u64, Ordering::Relaxed);
        self.quota.as_ref().and_then(|quota| quota.lock().charge(spent, now))
    }
}

impl Quota {
    /// What was used beyond a period's quota is owed by the next ones.
    fn charge(&mut self, spent: Duration, now: Instant) -> Option<Instant> {
        self.used += spent;
        let elapsed = now.saturating_duration_since(self.period_start);
        let periods = u32::try_from(elapsed.as_nanos() / CPU_PERIOD.as_nanos()).unwrap_or(u32::MAX);
        if periods > 0 {
            self.used = self.used.saturating_sub(self.per_period.saturating_mul(periods));
            self.period_start += CPU_PERIOD.saturating_mul(periods);
        }
        if self.used < self.per_period {
            return None;
        }
        let owed = self.used.as_nanos() / self.per_period.as_nanos().max(1);
        Some(self.period_start + CPU_PERIOD.saturating_mul(u32::try_from(owed).unwrap_or(u32::MAX)))
    }
}

/// Runs a guest's future: measures it, and holds it back while its container is over its quota.
pub(crate) struct Metered<F> {
    inner: Pin<Box<F>>,
    meter: Arc<CpuMeter>,
    pause: Option<Pin<Box<tokio::time::Sleep>>>,
}

impl<F: Future> Metered<F> {
    pub(crate) fn new(inner: F, meter: Arc<CpuMeter>) -> Metered<F> {
        Metered { inner: Box::pin(inner), meter, pause: None }
    }
}

impl<F: Future> Future for Metered<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if let Some(pause) = &mut self.pause {
            std::task::ready!(pause.as_mut().poll(cx));
            self.pause = None;
        }
        let before = thread_cpu_time();
        let this = &mut *self;
        let running = this.meter.ticker.running();
        let polled = this.inner.as_mut().poll(cx);
        drop(running);
        let over = self.meter.charge(thread_cpu_time().saturating_sub(before), Instant::now());
        if let (Some(until), Poll::Pending) = (over, &polled) {
            let mut pause = Box::pin(tokio::time::sleep_until(until.into()));
            match pause.as_mut().poll(cx) {
                Poll::Pending => self.pause = Some(pause),
                Poll::Ready(()) => cx.waker().wake_by_ref(),
            }
        }
        polled
    }
}

fn thread_cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.max(0) as u64, time.tv_nsec.clamp(0, 999_999_999) as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_charged_and_given_back() {
        let budget = MemoryBudget::new(Some(100));
        let mut limiter = Limiter::new(budget.clone());
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.table_growing(0, 5, None).unwrap(), "40 bytes of table still fit");
        let error = limiter.memory_growing(60, 61, None).unwrap_err();
        let error = error.downcast::<OutOfMemory>().unwrap();
        assert_eq!((error.wanted, error.limit, error.own), (101, 100, 101));
        assert!(!limiter.memory_growing(60, 70, Some(65)).unwrap(), "beyond the module's own maximum: no trap");
        drop(limiter);
        assert_eq!((budget.used(), budget.peak()), (0, 100));
    }

    #[test]
    fn pressure_frees_before_denying() {
        let budget = MemoryBudget::new(Some(100));
        let idle = Arc::new(Mutex::new(Some(Limiter::new(budget.clone()))));
        assert!(idle.lock().as_mut().unwrap().memory_growing(0, 80, None).unwrap());
        budget.on_pressure({
            let idle = idle.clone();
            move || drop(idle.lock().take())
        });
        let mut limiter = Limiter::new(budget.clone());
        assert!(limiter.memory_growing(0, 90, None).unwrap());
        assert_eq!(budget.used(), 90);
    }

    #[test]
    fn quota_holds_back_and_debts_are_paid() {
        let start = Instant::now();
        let ms = Duration::from_millis;
        let mut quota = Quota { per_period: ms(10), period_start: start, used: Duration::ZERO };
        assert_eq!(quota.charge(ms(4), start + ms(5)), None);
        assert_eq!(quota.charge(ms(6), start + ms(11)), Some(start + ms(100)), "used up: until the next period");
        assert_eq!(quota.charge(ms(25), start + ms(100)), Some(start + ms(300)), "owes two periods");
        assert_eq!(quota.charge(ms(0), start + ms(300)), None);
    }
}
