//! The guest's own source, to run natively.

#[path = "../../../tests/guests/bench/src/work.rs"]
mod work;

pub use work::run;
