//! Decisions of admission: what a new object gets from the objects around it (its class, its account, its namespace's
//! limits), and why it may not come in. The server reads those objects and asks.
//!
//! Refusals are worded as upstream's; the server puts `pods "x" is forbidden: ` before them.

pub mod amounts;
pub mod claim_resize;
pub mod classes;
pub mod limit_range;
pub mod priority;
pub mod quota;
pub mod runtime_class;
pub mod service_account;

#[cfg(test)]
mod tests;
