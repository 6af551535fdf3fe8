//! Randomness that follows from a thread's seed, for everything in this process that asks the system for some: UIDs,
//! generated names, jitter, and the order of hash maps. One seed on one thread is one run.

use std::cell::Cell;

thread_local! {
    static STATE: Cell<u64> = const { Cell::new(0x5eed) };
}

/// Lets all randomness of this thread follow from `seed`; it must not have used any yet.
pub fn seed_thread(seed: u64) {
    STATE.set(seed);
    // It seeds itself by the time else.
    fastrand::seed(seed);
}

/// SplitMix64, <https://prng.di.unimi.it/splitmix64.c>.
fn next() -> u64 {
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Stands before the C library's function of this name, in this test's process only.
#[allow(unsafe_code, reason = "there is no other way to make what libraries draw repeatable")]
// SAFETY: it has the name, the types and the contract of getrandom(2).
#[unsafe(no_mangle)]
extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    if length == 0 {
        return 0;
    }
    // SAFETY: callers give `length` writable bytes, as getrandom(2) asks.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    for chunk in bytes.chunks_mut(8) {
        let random = next().to_ne_bytes();
        chunk.copy_from_slice(&random[..chunk.len()]);
    }
    isize::try_from(length).unwrap_or(isize::MAX)
}
