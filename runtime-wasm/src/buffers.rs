//! Memory of a pod's sockets and requests: a part of the pod's memory, set aside.
//!
//! What peers send a pod waits here until its guests take it. It has a bound of its own so that no peer can use up the
//! memory that the pod's containers have: a full buffer holds writers up or refuses connections, and ends nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::network::NetError;

/// Bytes that the buffers of a pod's sockets and requests may take, unless its memory limit is small.
pub const BUFFER_BYTES: u64 = 32 << 20;
/// A pod's buffers take at most this part of its memory limit: one in so many bytes.
pub const BUFFER_SHARE: u64 = 8;

/// The account of one pod's buffers.
///
/// Half of it is for what everything needs to work at all ([`Buffers::reserve`]), the other half for what makes it
/// faster ([`Buffers::borrow`]), so that full buffers never keep a new connection from its first bytes.
#[derive(Debug)]
pub struct Buffers {
    limit: AtomicU64,
    used: AtomicU64,
}

impl Buffers {
    /// An account of at most `limit` bytes.
    pub fn new(limit: u64) -> Arc<Buffers> {
        Arc::new(Buffers { limit: AtomicU64::new(limit), used: AtomicU64::new(0) })
    }

    /// Bytes it may hold.
    pub fn limit(&self) -> u64 {
        self.limit.load(Ordering::Relaxed)
    }

    /// Bytes it holds.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// Makes the limit smaller; a larger one changes nothing.
    pub(crate) fn lower_to(&self, limit: u64) {
        self.limit.fetch_min(limit, Ordering::Relaxed);
    }

    /// Takes what is needed, from all that is left; [`NetError::LimitReached`] if that is less.
    pub fn reserve(self: &Arc<Self>, bytes: u64) -> Result<Room, NetError> {
        self.take(bytes, self.limit()).then(|| self.room(bytes)).ok_or(NetError::LimitReached("buffers of the pod"))
    }

    /// Takes what would be of use, from the half of the account that is there for it.
    pub fn borrow(self: &Arc<Self>, bytes: u64) -> Option<Room> {
        self.take(bytes, self.limit() / 2).then(|| self.room(bytes))
    }

    fn room(self: &Arc<Self>, bytes: u64) -> Room {
        Room { buffers: self.clone(), bytes }
    }

    fn take(&self, bytes: u64, limit: u64) -> bool {
        let fits = |used: u64| used.checked_add(bytes).filter(|&sum| sum <= limit);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}

/// Bytes of a pod's buffers, given back when this is dropped.
#[derive(Debug)]
pub struct Room {
    buffers: Arc<Buffers>,
    bytes: u64,
}

impl Room {
    /// Bytes held.
    pub fn bytes(&self) -> usize {
        usize::try_from(self.bytes).unwrap_or(usize::MAX)
    }

    /// Borrows up to `bytes` in all; keeps what it has if there is no more.
    pub(crate) fn grow(&mut self, bytes: usize) {
        let more = (bytes as u64).saturating_sub(self.bytes);
        if more > 0 && self.buffers.take(more, self.buffers.limit() / 2) {
            self.bytes += more;
        }
    }

    /// Gives back all but `bytes`.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let less = self.bytes.saturating_sub(bytes as u64);
        self.bytes -= less;
        self.buffers.used.fetch_sub(less, Ordering::Relaxed);
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.buffers.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_half_is_for_what_is_needed() {
        let buffers = Buffers::new(100);
        let mut room = buffers.borrow(30).unwrap();
        room.grow(50);
        assert_eq!((room.bytes(), buffers.used()), (50, 50));
        room.grow(51);
        assert_eq!(room.bytes(), 50, "the borrowed half is used up");
        assert!(buffers.borrow(1).is_none());
        let needed = buffers.reserve(50).unwrap();
        assert_eq!(buffers.reserve(1).err(), Some(NetError::LimitReached("buffers of the pod")));
        room.shrink(10);
        assert_eq!((room.bytes(), buffers.used()), (10, 60));
        assert!(buffers.borrow(1).is_none(), "what is needed comes first");
        drop((room, needed));
        assert_eq!(buffers.used(), 0);
        buffers.lower_to(7);
        buffers.lower_to(1000);
        assert_eq!(buffers.limit(), 7);
    }
}
