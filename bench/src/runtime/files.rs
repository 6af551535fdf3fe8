//! Files of a pod, beside wasmtime's on tmpfs and the kernel's.

use anyhow::Result;

use super::Bench;
use super::side::{MICROS, Side, Value, compare};
use crate::report::Row;

const VALUES: [Value; 7] = [
    ("files-open", "files: open and close", "us", MICROS),
    ("files-stat", "files: stat of a path", "us", MICROS),
    ("files-read", "files: read 4 KiB", "us", MICROS),
    ("files-write", "files: write 4 KiB", "us", MICROS),
    ("files-make", "files: create, write 4 KiB, remove", "us", MICROS),
    ("files-whole", "files: read whole files of 1 MiB", "MiB/s", 1.0),
    ("files-list", "files: list a directory of 100", "us", MICROS),
];

/// All sides in turn.
///
/// # Errors
/// A guest failed.
pub fn run(bench: &Bench) -> Result<Vec<Row>> {
    let sides = Side::all(bench)?;
    compare(bench, &sides, &VALUES, |_, side| side.call(&["files", side.dir(), bench.of("10000", "10")]))
}
