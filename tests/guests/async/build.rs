//! Sets `accepts` where the compiler's wasi-libc knows `accept4`, with which tokio's listener accepts: Rust 1.97's does,
//! 1.95's answers EINVAL.

use std::process::Command;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(accepts)");
    let rustc = std::env::var_os("RUSTC").expect("cargo says which compiler");
    let version = Command::new(rustc).arg("--version").output().expect("the compiler tells its version").stdout;
    let version = String::from_utf8_lossy(&version);
    let minor = version.split_whitespace().nth(1).and_then(|v| v.split('.').nth(1)).and_then(|m| m.parse::<u32>().ok());
    if minor.is_some_and(|minor| minor >= 97) {
        println!("cargo::rustc-cfg=accepts");
    }
}
