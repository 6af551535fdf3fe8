//! Programs in C and Python whose sockets are those of any Unix (`tests/foreign`). `cargo xtask foreign` gets the
//! compilers, builds the guests and runs this; that is too much for every commit.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use support::Pod;

async fn works(guest: &str, says: &str) {
    let pod = Pod::new();
    let (exit, out, err) = pod.run(guest, &[]).await;
    assert_eq!((exit.code, out.as_str()), (0, says), "{err}");
    assert_eq!((pod.net.socket_count(), pod.net.ports_held()), (0, 0));
}

#[tokio::test]
#[ignore = "needs a compiler for C: cargo xtask foreign"]
async fn c_programs_with_bsd_sockets_work_unmodified() {
    works("net_c", "ok\n").await;
}

#[tokio::test]
#[ignore = "needs CPython for WASI: cargo xtask foreign"]
async fn python_programs_with_sockets_work_unmodified() {
    works("net_python", "ok 3\n").await;
}
