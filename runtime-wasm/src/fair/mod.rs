//! Fair CPU time for guests: a run queue by weight, quotas, exact accounts, and the threads that work the queue off.
//!
//! A container is one [`CpuAccount`]; everything that runs for it (its command, its requests, what it left to clean up)
//! are tasks of that account. Threads take the task whose account has used least for its weight, run it until it waits
//! or an epoch tick ends its turn, and charge the CPU time that this took. [`queue`] and [`quota`] decide, without clock or
//! threads; [`pool`] and [`task`] do.

mod account;
mod pool;
#[cfg(test)]
mod pool_tests;
mod queue;
#[cfg(test)]
mod queue_tests;
mod quota;
mod task;

pub use account::{CpuAccount, CpuUsage};
pub(crate) use pool::GuestPool;
pub use queue::{DEFAULT_WEIGHT, MAX_WEIGHT, weight_of};
pub use quota::CPU_PERIOD;
pub(crate) use task::{AbortOnDrop, current, has_overrun, until_next_turn, used_its_turn};
