//! What a container's memory may be, and what it is: charged as it grows. CPU time is [`crate::fair`]'s.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use wasmtime::ResourceLimiter;

/// What one table element costs in a container's memory account, in bytes.
const TABLE_ELEMENT_BYTES: u64 = 8;
/// What an instance costs beside its memories and tables, in bytes: the touched part of its stack, its bookkeeping,
/// its first handles.
pub const INSTANCE_BYTES: u64 = 32 << 10;
/// What one handle (stream, socket, descriptor) costs at least, in bytes; [`crate::handles`] has the others. Counted
/// each time that the guest comes to run, and each tick in which it runs.
pub const HANDLE_BYTES: u64 = 256;
/// Bytes of handles that are part of [`INSTANCE_BYTES`].
const FREE_HANDLE_BYTES: u64 = 32 * HANDLE_BYTES;
/// Most linear memories, tables and core instances in one guest instance (one pooled slot each).
const MAX_PARTS_PER_INSTANCE: usize = 64;

/// The guest asked for more memory than its container, or its pod, may have.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("out of memory: {wanted} bytes wanted, the {}limit is {limit} bytes", if *.of_pod { "pod's " } else { "" })]
pub struct OutOfMemory {
    /// Bytes the container, or the pod, would have had.
    pub wanted: u64,
    /// Bytes it may have.
    pub limit: u64,
    /// Bytes that the asking instance alone would have had.
    pub own: u64,
    /// The limit is the pod's.
    pub of_pod: bool,
}

/// A memory account: a container's, shared by its instances and part of its pod's; or a pod's, to which also goes what
/// its containers share (files). Sockets' and requests' buffers have an account of their own ([`crate::buffers`]).
pub struct MemoryBudget {
    limit: u64,
    pod: Option<Arc<MemoryBudget>>,
    used: AtomicU64,
    peak: AtomicU64,
    reclaim: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

impl MemoryBudget {
    /// A pod's account of at most `limit` bytes (`None`: no limit but those of its containers).
    pub fn of_pod(limit: Option<u64>) -> Arc<MemoryBudget> {
        Self::new(limit, None)
    }

    /// An account in the pod's account, of at most `limit` bytes (`None`: the pod's limit alone).
    pub fn of_container(limit: Option<u64>, pod: &Arc<MemoryBudget>) -> Arc<MemoryBudget> {
        Self::new(limit, Some(pod.clone()))
    }

    fn new(limit: Option<u64>, pod: Option<Arc<MemoryBudget>>) -> Arc<MemoryBudget> {
        Arc::new(MemoryBudget {
            limit: limit.unwrap_or(u64::MAX),
            pod,
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

    /// Charges what the pod's containers share; [`MemoryBudget::give`] gives it back. Beyond the limit nothing is
    /// charged, and the container in whose turn this is asked, if it is in one's turn, is ended as out of memory: the
    /// guest may see an error of the call that asked, but not for long.
    pub fn take_shared(&self, bytes: u64) -> Result<(), OutOfMemory> {
        let taken = self.take(bytes, 0);
        if let (Err(error), Some(container)) = (&taken, crate::fair::current()) {
            container.out_of_memory(error);
        }
        taken
    }

    /// As [`MemoryBudget::take_shared`], for as long as the charge is held.
    pub fn charge_shared(self: &Arc<Self>, bytes: u64) -> Result<MemoryCharge, OutOfMemory> {
        self.take_shared(bytes)?;
        Ok(MemoryCharge { budget: self.clone(), bytes })
    }

    /// Charges what is held already, even beyond the limit.
    pub(crate) fn take_held(&self, bytes: u64) {
        let before = self.used.fetch_add(bytes, Ordering::Relaxed);
        self.peak.fetch_max(before.saturating_add(bytes), Ordering::Relaxed);
    }

    /// Sets what frees memory that is held but not needed (idle instances), called before a request is denied.
    pub(crate) fn on_pressure(&self, reclaim: impl Fn() + Send + Sync + 'static) {
        let _ = self.reclaim.set(Box::new(reclaim));
    }

    fn try_take(&self, bytes: u64) -> Result<(), OutOfMemory> {
        let taken = self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |used| {
            used.checked_add(bytes).filter(|&sum| sum <= self.limit)
        });
        let out_of_memory = |used: u64| {
            let wanted = used.saturating_add(bytes);
            OutOfMemory { wanted, limit: self.limit, own: 0, of_pod: self.pod.is_none() }
        };
        let before = taken.map_err(out_of_memory)?;
        if let Some(pod) = &self.pod {
            pod.try_take(bytes).inspect_err(|_| {
                self.used.fetch_sub(bytes, Ordering::Relaxed);
            })?;
        }
        self.peak.fetch_max(before.saturating_add(bytes), Ordering::Relaxed);
        Ok(())
    }

    fn take(&self, bytes: u64, own: u64) -> Result<(), OutOfMemory> {
        let mut taken = self.try_take(bytes);
        if let (Err(_), Some(reclaim)) = (&taken, self.reclaim.get()) {
            reclaim();
            taken = self.try_take(bytes);
        }
        taken.map_err(|error| OutOfMemory { own, ..error })
    }

    /// Gives back what was taken.
    pub fn give(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
        if let Some(pod) = &self.pod {
            pod.give(bytes);
        }
    }
}

/// Bytes of a pod's memory account, given back when this is dropped.
pub struct MemoryCharge {
    budget: Arc<MemoryBudget>,
    bytes: u64,
}

impl Drop for MemoryCharge {
    fn drop(&mut self) {
        self.budget.give(self.bytes);
    }
}

/// Charges one store's growth to the container's account and gives it back when the store goes.
pub(crate) struct Limiter {
    budget: Arc<MemoryBudget>,
    held: u64,
    handles: u64,
}

impl Limiter {
    pub(crate) fn new(budget: Arc<MemoryBudget>) -> Limiter {
        Limiter { budget, held: 0, handles: FREE_HANDLE_BYTES }
    }

    /// Charges the instance itself, with `more` bytes for what it is given: arguments and environment.
    pub(crate) fn begin(&mut self, more: u64) -> wasmtime::Result<()> {
        self.grow(more).map(drop)
    }

    /// Growth beyond the limit traps: a container over its limit is killed, whatever the guest would do about it.
    fn grow(&mut self, bytes: u64) -> wasmtime::Result<bool> {
        let bytes = if self.held == 0 { bytes.saturating_add(INSTANCE_BYTES) } else { bytes };
        let own = self.held.saturating_add(bytes);
        self.budget.take(bytes, own)?;
        self.held = own;
        Ok(true)
    }

    /// Charges the instance's handles, which take `bytes` now. The most they took stays charged: tables do not shrink.
    pub(crate) fn handles(&mut self, bytes: u64) -> wasmtime::Result<()> {
        let more = bytes.saturating_sub(self.handles);
        if more > 0 {
            self.grow(more)?;
            self.handles += more;
        }
        Ok(())
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

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    const OWN: u64 = INSTANCE_BYTES;

    fn container(limit: u64) -> Arc<MemoryBudget> {
        MemoryBudget::of_container(Some(limit), &MemoryBudget::of_pod(None))
    }

    fn denied(result: wasmtime::Result<bool>) -> OutOfMemory {
        result.unwrap_err().downcast().unwrap()
    }

    #[test]
    fn memory_is_charged_and_given_back() {
        let budget = container(OWN + 100);
        let mut limiter = Limiter::new(budget.clone());
        assert!(limiter.memory_growing(0, 60, None).unwrap());
        assert!(limiter.table_growing(0, 5, None).unwrap(), "40 bytes of table still fit");
        let error = denied(limiter.memory_growing(60, 61, None));
        let expected = OutOfMemory { wanted: OWN + 101, limit: OWN + 100, own: OWN + 101, of_pod: false };
        assert_eq!(error, expected);
        assert!(!limiter.memory_growing(60, 70, Some(65)).unwrap(), "beyond the module's own maximum: no trap");
        drop(limiter);
        assert_eq!((budget.used(), budget.peak()), (0, OWN + 100));
    }

    #[test]
    fn containers_share_their_pods_limit() {
        let pod = MemoryBudget::of_pod(Some(2 * OWN + 100));
        let budgets = [None, Some(OWN + 60)].map(|limit| MemoryBudget::of_container(limit, &pod));
        let [mut first, mut second] = budgets.clone().map(Limiter::new);
        assert!(first.memory_growing(0, 50, None).unwrap());
        assert!(second.memory_growing(0, 30, None).unwrap());
        let error = denied(second.memory_growing(30, 70, None));
        assert!(!error.of_pod && error.to_string().ends_with(&format!("the limit is {} bytes", OWN + 60)), "{error}");
        let error = denied(first.memory_growing(50, 80, None));
        assert!(error.of_pod && error.to_string().contains("the pod's limit is"), "{error}");
        assert_eq!(budgets[0].used(), OWN + 50, "what was denied is not held");
        let charge = pod.charge_shared(20).unwrap();
        assert!(pod.charge_shared(1).is_err() && pod.take_shared(1).is_err());
        assert_eq!(pod.used(), 2 * OWN + 100);
        drop((first, charge));
        assert_eq!(pod.used(), OWN + 30);
        drop(second);
        assert_eq!((pod.used(), pod.peak()), (0, 2 * OWN + 100));
    }

    #[test]
    fn an_instance_costs_what_it_is_given() {
        let budget = container(OWN + 100);
        let mut limiter = Limiter::new(budget.clone());
        limiter.begin(60).unwrap();
        assert_eq!(budget.used(), OWN + 60, "without any memory of its own");
        assert!(Limiter::new(budget.clone()).begin(0).is_err(), "there is no room for another");
        assert!(limiter.memory_growing(0, 40, None).unwrap());
        assert_eq!(budget.used(), OWN + 100);
    }

    #[test]
    fn handles_cost_memory() {
        let budget = container(OWN + 10 * HANDLE_BYTES);
        let mut limiter = Limiter::new(budget.clone());
        assert!(limiter.memory_growing(0, 0, None).unwrap());
        limiter.handles(FREE_HANDLE_BYTES).unwrap();
        assert_eq!(budget.used(), OWN);
        limiter.handles(FREE_HANDLE_BYTES + 10 * HANDLE_BYTES).unwrap();
        limiter.handles(3).unwrap();
        assert_eq!(budget.used(), OWN + 10 * HANDLE_BYTES);
        assert!(limiter.handles(FREE_HANDLE_BYTES + 10 * HANDLE_BYTES + 1).is_err());
    }

    #[test]
    fn pressure_frees_before_denying() {
        let budget = container(OWN + 100);
        let idle = Arc::new(Mutex::new(Some(Limiter::new(budget.clone()))));
        assert!(idle.lock().as_mut().unwrap().memory_growing(0, 80, None).unwrap());
        budget.on_pressure({
            let idle = idle.clone();
            move || drop(idle.lock().take())
        });
        let mut limiter = Limiter::new(budget.clone());
        assert!(limiter.memory_growing(0, 90, None).unwrap());
        assert_eq!(budget.used(), OWN + 90);
    }
}
