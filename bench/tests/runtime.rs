//! The benchmark of the runtime still works: in its quick mode it gives every row. Times are not looked at.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::process::Command;

const ROWS: [&str; 35] = [
    "command in a pod of its own: start to its main",
    "command: start, run, drop",
    "command: CPU for start, run, drop",
    "commands, 16 at once",
    "3 parked commands: memory of each (PSS)",
    "5 parked commands: memory of each (PSS)",
    "5 parked commands: private dirty memory of each",
    "5 parked commands: page tables of each",
    "5 parked commands: to start them all",
    "5 parked commands: to stop them all",
    "5 parked commands: memory that stays when they have ended, of each",
    "5 idle HTTP pods: memory of each (PSS)",
    "4 parked commands of 2 modules: pss",
    "TCP on loopback: 64 bytes there and back",
    "TCP on loopback: connect, a byte there and back, close",
    "TCP on loopback: one way",
    "UDP on loopback: 64 bytes there and back",
    "UDP on loopback: datagrams of 1,400 bytes one way",
    "files: open and close",
    "files: stat of a path",
    "files: read 4 KiB",
    "files: write 4 KiB",
    "files: create, write 4 KiB, remove",
    "files: read whole files of 1 MiB",
    "files: list a directory of 100",
    "HTTP, an instance per request: requests, 8 connections",
    "HTTP, an instance per request: CPU of a request",
    "HTTP, 128 requests per instance: latency, p99",
    "HTTP through a pod to another in process: latency, p50",
    "probe in process beside 0 spinners: p99",
    "probe in process beside 100 spinners: p99 above that alone",
    "probe in process beside 8 spinners: p99 above the control's",
    "probe in process beside 8 spinners that call the host: p99",
    "probe in process beside 100 spinners that call the host: longest wait in the run queue",
    "probe over a socket beside 2 spinners: p99",
];

#[test]
fn every_row_is_there() {
    let guests = std::env::var_os("COPEPOD_GUESTS").expect("COPEPOD_GUESTS is not set: run `cargo xtask test`");
    let scratch = tempfile::tempdir().unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_copepod-bench"));
    bench.args(["runtime", "--quick", "--guests"]).arg(guests).arg("--scratch").arg(scratch.path());
    let out = bench.output().unwrap();
    let (table, said) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{table}\n{said}");
    for row in ROWS {
        let line = table.lines().find(|line| line.starts_with(&format!("| {row} | ")));
        let value = line.and_then(|line| line.split('|').nth(2)).unwrap_or_else(|| panic!("no {row:?} in\n{table}"));
        let number = value.trim().split(' ').next().and_then(|number| number.parse::<f64>().ok());
        assert!(number.is_some(), "{row}: {value}");
    }
}
