//! The connections whose TLS handshake is not over: bounded, the oldest goes first, so that those who never finish
//! theirs keep no place from those who do.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// All pending handshakes of a listener.
#[derive(Clone)]
pub(super) struct Handshakes {
    max: usize,
    pending: Arc<Mutex<Pending>>,
}

#[derive(Default)]
struct Pending {
    /// By age.
    by_number: BTreeMap<u64, CancellationToken>,
    next: u64,
}

impl Handshakes {
    /// At most `max` at once.
    pub fn new(max: usize) -> Self {
        Self { max, pending: Arc::default() }
    }

    /// Counts one in, and the oldest out if there are too many.
    pub fn begin(&self) -> Handshake {
        let mut pending = self.pending.lock();
        let (number, cut) = (pending.next, CancellationToken::new());
        pending.next += 1;
        pending.by_number.insert(number, cut.clone());
        if pending.by_number.len() > self.max
            && let Some((_, oldest)) = pending.by_number.pop_first()
        {
            oldest.cancel();
        }
        Handshake { number, cut, all: self.clone() }
    }
}

/// A pending handshake.
pub(super) struct Handshake {
    number: u64,
    /// Cancelled when it has to make place.
    pub cut: CancellationToken,
    all: Handshakes,
}

impl Drop for Handshake {
    fn drop(&mut self) {
        self.all.pending.lock().by_number.remove(&self.number);
    }
}
