//! Pure control-plane logic: schemas, kinds, patches, codecs, controllers' decisions, the scheduler.
//! Invariant 1: nothing here awaits, reads a clock, draws randomness or does IO.

pub mod admission;
pub mod apply;
pub mod codec;
pub mod controllers;
pub mod cron;
pub mod eviction;
pub mod kinds;
pub mod patch;
pub mod resource;
pub mod scheduler;
pub mod schema;
pub mod table;
pub mod validate;
