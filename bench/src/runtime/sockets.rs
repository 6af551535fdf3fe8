//! Two commands of one pod that talk over its loopback, beside two programs on the kernel's.

use anyhow::{Context, Result};

use super::Bench;
use super::side::{MICROS, Side, Value, compare};
use crate::report::Row;

const TCP: [Value; 3] = [
    ("tcp-round-trip", "TCP on loopback: 64 bytes there and back", "us", MICROS),
    ("tcp-connect", "TCP on loopback: connect, a byte there and back, close", "us", MICROS),
    ("tcp-stream", "TCP on loopback: one way", "MiB/s", 1.0),
];
const UDP: [Value; 2] = [
    ("udp-round-trip", "UDP on loopback: 64 bytes there and back", "us", MICROS),
    ("udp-stream", "UDP on loopback: datagrams of 1,400 bytes one way", "MiB/s", 1.0),
];

/// All sides in turn.
///
/// # Errors
/// A guest failed.
pub fn run(bench: &Bench) -> Result<Vec<Row>> {
    let sides = Side::all(bench)?;
    let count = bench.of("10000", "10");
    let mut rows = Vec::new();
    for (server, client, mib, values) in [
        ("tcp-serve", "tcp-call", bench.of("512", "1"), &TCP[..]),
        ("udp-serve", "udp-call", bench.of("64", "1"), &UDP),
    ] {
        let servers: Vec<_> = sides.iter().map(|side| side.serve(server)).collect::<Result<_>>()?;
        rows.extend(compare(bench, &sides, values, |at, side| {
            let (_, address) = servers.get(at).context("no server")?;
            side.call(&[client, address, count, mib])
        })?);
    }
    Ok(rows)
}
