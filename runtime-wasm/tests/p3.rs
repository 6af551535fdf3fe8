//! Files and sockets of WASI 0.3 under real guests of `tests/guests`, built by `cargo xtask test`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::Arc;

use copepod_runtime::vfs::{HostDir, Mount, Mounts, Source, Vfs};
use support::Pod;

#[tokio::test]
async fn files_are_as_promised_and_leave_nothing() {
    let pod = Pod::new();
    let before = pod.vfs.usage();
    let (exit, out, err) = pod.run("p3_fs", &["tmp"]).await;
    assert_eq!((exit.code, out.as_str()), (0, "ok\n"), "{err}");
    assert_eq!(pod.vfs.usage(), before);
}

#[tokio::test]
async fn files_of_a_host_directory_are_as_promised() {
    let dir = tempfile::tempdir().unwrap();
    let view = Mounts::new(Vfs::new(Default::default()).root());
    let source = Source::Node(HostDir::open(dir.path(), &[]).unwrap());
    view.mount("/data", Mount { source, sub_path: String::new(), read_only: false }).unwrap();
    let ran = Pod::new().start("p3_fs", &["data"], |spec| spec.files = Some(Arc::new(view))).await;
    assert_eq!(ran.ended().await.code, 0, "{}", ran.stderr.text());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sockets_are_as_promised_and_leave_nothing() {
    let pod = Pod::new();
    let (exit, out, err) = pod.run("p3_net", &["denied"]).await;
    assert_eq!((exit.code, out.as_str()), (0, "ok\n"), "{err}");
    assert_eq!((pod.net.socket_count(), pod.net.ports_held(), pod.net.lookups_under_way()), (0, 0, 0));
}
