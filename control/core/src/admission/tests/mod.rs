//! Admission's decisions, in tables.

mod limits;
mod pods;
mod quotas;
