//! The benchmark of controllers and scheduler still works: in its quick mode it gives every row. Times are not looked at.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::PathBuf;
use std::process::Command;

const ROWS: [&str; 14] = [
    "0 to 12 Ready",
    "rolling update of 12",
    "namespace with 12 pods gone",
    "rolling update of 5",
    "namespace with 8 pods gone",
    "0 to 12 Ready, 2 to a Deployment",
    "the namespace with these 12 pods gone",
    "0 to 24 Ready",
    "namespace with 24 pods gone",
    "0 to 4 Ready",
    "rolling update of 4",
    "namespace with 4 pods gone",
    "12 pods on 3 nodes",
    "4 pods on a real node",
];

#[test]
fn every_row_is_there() {
    let of = |name: &str| std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: run `cargo xtask test`"));
    let scratch = tempfile::tempdir().unwrap();
    let mut bench = Command::new(env!("CARGO_BIN_EXE_copepod-bench"));
    bench.args(["workloads", "--quick", "--copepod"]).arg(of("COPEPOD_BIN")).arg("--kubectl").arg(of("KUBECTL"));
    bench.arg("--component").arg(PathBuf::from(of("COPEPOD_GUESTS")).join("hello.wasm"));
    let out = bench.arg("--scratch").arg(scratch.path()).output().unwrap();
    let (table, said) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    assert!(out.status.success(), "{table}\n{said}");
    for row in ROWS {
        let line = table.lines().find(|line| line.starts_with(&format!("| {row} | ")));
        let value = line.and_then(|line| line.split('|').nth(2)).unwrap_or_else(|| panic!("no {row:?} in\n{table}"));
        assert!(value.trim().parse::<f64>().is_ok(), "{row}: {value}");
    }
    for pods in ["plain", "bound"] {
        assert!(table.contains(&format!("| {pods} | 10 | ")), "{table}");
    }
}
