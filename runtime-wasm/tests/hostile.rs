//! Guests that attack: each gets an error or ends for a named reason, and leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use copepod_runtime::rate::Rate;
use copepod_runtime::sockets::NetLimits;
use copepod_runtime::vfs::{HostDir, Mount, Mounts, Source, Vfs};
use copepod_runtime::{ContainerSpec, Endpoint, ExitReason, OutputSink, Uplink};
use http_body_util::{BodyExt, Empty};
use support::{Alone, Pod, Running, Silent};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};

/// Memory of a hostile container.
const MEMORY: u64 = 64 << 20;
/// How long an attack may take to end by itself; a debug build on a busy machine is slow.
const PATIENCE: Duration = Duration::from_secs(120);

fn limited(spec: &mut ContainerSpec) {
    spec.memory_limit = Some(MEMORY);
}

/// What the pod holds when no guest runs: no memory, no socket, no port.
fn nothing_is_left(pod: &Pod, attacker: &Running, attack: &str) {
    assert_eq!(attacker.container.memory_bytes(), 0, "{attack}: memory");
    assert_eq!(pod.net.socket_count(), 0, "{attack}: sockets");
    assert_eq!(pod.net.ports_held(), 0, "{attack}: ports");
    assert_eq!(pod.net.lookups_under_way(), 0, "{attack}: lookups");
    assert_eq!(pod.net.buffers().used(), 0, "{attack}: buffers");
}

async fn settled(pod: &Pod, attacker: &Running) {
    let quiet = async {
        while attacker.container.memory_bytes() > 0
            || pod.net.socket_count() > 0
            || pod.net.ports_held() > 0
            || pod.net.lookups_under_way() > 0
            || pod.net.buffers().used() > 0
        {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(10), quiet).await;
}

/// What stops an attack.
enum Stop {
    /// The guest is told, by an error with this in it.
    Told(&'static str),
    /// The guest gets through, and it does no harm.
    Harmless,
    /// The guest traps, with this in the message.
    Trapped(&'static str),
    /// It runs out of its memory.
    OutOfMemory,
    /// The guest's own exit code.
    Exits(i32),
}
use Stop::*;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attacks_end_and_leave_nothing() {
    let cases: &[(&str, &str, Stop)] = &[
        ("memory", "", OutOfMemory),
        ("recursion", "", Trapped("call stack exhausted")),
        ("exit", "", Exits(1)),
        // The standard library tells no more of a failed write.
        ("bytes", "/tmp", Told("I/O error")),
        ("inodes", "/tmp", Told("No space left")),
        ("names", "/tmp", Told("No space left")),
        ("deep", "/tmp", Told("Filename too long")),
        ("sockets", "", Told("No file descriptors available")),
        ("half-open", "", Told("refused")),
        ("unread", "", Harmless),
        ("udp", "", Harmless),
        ("headers", "", Trapped("total size of fields exceeds limit")),
        ("fields", "", OutOfMemory),
        ("bodies", "", OutOfMemory),
        ("requests", "", Told("ConnectionLimitReached")),
        ("open-files", "/tmp", Told("emory")),
        ("handles", "", Trapped("resource table has no free keys")),
        ("pollables", "", Trapped("store handle limit exceeded")),
        ("random", "", Trapped("exceeds limit 1048576")),
        ("random-flood", "", Harmless),
        ("forged-handle", "", Trapped("unknown handle index 4242")),
        ("forged-drop", "", Trapped("unknown handle index 4242")),
        ("bad-result", "", Trapped("pointer out of bounds")),
        ("bad-list", "", Trapped("out of bounds of memory")),
        ("lookups", "", Harmless),
        ("lookup", "no.such.name", Told("does not resolve")),
        ("connect", "169.254.169.254:80", Told("denied")),
        ("connect", "[::ffff:169.254.169.254]:80", Told("Invalid argument")),
        ("connect", "[fd00:ec2::254]:80", Told("denied")),
        ("connect", "[::ffff:127.0.0.1]:80", Told("Invalid argument")),
        ("connect", "0.0.0.0:80", Told("Invalid argument")),
        ("connect", "[::]:80", Told("Invalid argument")),
        ("connect", "127.0.0.1:7900", Told("refused")),
        ("connect", "255.255.255.255:80", Told("Invalid argument")),
        ("send", "169.254.169.254:53", Told("denied")),
        ("send", "224.0.0.251:5353", Told("denied")),
        ("bind", "169.254.0.1:80", Told("denied")),
        ("bind", "10.64.0.8:80", Told("not available")),
        ("read", "/proc/self/environ", Told("No such file")),
        ("read", "../../../../etc/passwd", Told("No such file")),
        ("write", "/dev/null/x", Told("No such file")),
    ];
    attacks("hostile", Arc::new(Alone), cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attacks_by_wasi_03_end_and_leave_nothing() {
    let cases: &[(&str, &str, Stop)] = &[
        ("streams", "", Trapped("resource table has no free keys")),
        ("joined", "", Trapped("resource table has no free keys")),
        ("tasks", "", Trapped("handle limit exceeded")),
        // Of open files: the limit of handles comes after it, and traps.
        ("descriptors", "", Told("InsufficientMemory")),
        ("sockets", "", Told("limit of sockets")),
        ("half-open", "", Told("ConnectionRefused")),
        ("accepts", "", Harmless),
        ("unread", "", Harmless),
        ("cancels", "", Harmless),
        ("endless", "", Told("InsufficientSpace")),
        ("datagrams", "", Harmless),
        ("connects", "", Told("limit of sockets")),
        ("lookups", "", Told("TemporaryResolverFailure")),
        ("given-up", "", Harmless),
        ("outgoing", "", Harmless),
        ("forged-cancel", "", Trapped("unknown handle index 4242")),
        ("forged-drop", "", Trapped("unknown handle index 4242")),
        ("idle-cancel", "", Trapped("cancel")),
        ("bad-buffer", "", Trapped("out of bounds")),
    ];
    attacks("p3_hostile", Arc::new(Silent), cases).await;
}

/// Runs each attack of a guest beside a neighbour that must not suffer.
async fn attacks(guest: &str, uplink: Arc<dyn Uplink>, cases: &[(&str, &str, Stop)]) {
    // Another pod's loopback: the same address means the attacker's own.
    let other = Pod::new();
    let _neighbour = other.net.listen("127.0.0.1:7900".parse().unwrap(), 1).unwrap();
    let probe = Pod::new();
    let _web = probe.start("web", &[], |_| {}).await;
    assert_eq!(probe.get("/hello").await.0, 200);
    let mut slowest = (Duration::ZERO, "");
    for (attack, argument, stop) in cases {
        let pod = Pod::below(uplink.clone());
        let before = pod.vfs.usage();
        let change = |spec: &mut ContainerSpec| {
            limited(spec);
            spec.stdin = Some(Box::new(Mute));
        };
        let attacker = pod.start(guest, &[attack, argument], change).await;
        let ended = tokio::time::timeout(PATIENCE, attacker.container.wait());
        let watch = async {
            loop {
                let asked = Instant::now();
                assert_eq!(probe.get("/hello").await.0, 200, "{attack}: the neighbour answers");
                if asked.elapsed() > slowest.0 {
                    slowest = (asked.elapsed(), attack);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let exit = tokio::select! {
            exit = ended => exit.unwrap_or_else(|_| panic!("{attack} {argument} does not end: {}", attacker.stdout.text())),
            () = watch => unreachable!(),
        };
        let (out, err) = (attacker.stdout.text(), attacker.stderr.text());
        let message = exit.message.clone().unwrap_or_default();
        println!("{attack} {argument}: {} {:?} {out:?} {:?}", exit.code, exit.reason, message.lines().next());
        let what = format!("{attack} {argument}: {exit:?}\n{out}{err}");
        match stop {
            Told(word) => {
                assert_eq!(exit.reason, ExitReason::Completed, "{what}");
                assert!(out.starts_with("stopped: ") && out.contains(word), "no {word:?}: {what}");
            }
            Harmless => assert_eq!((exit.reason, out.as_str()), (ExitReason::Completed, "survived\n"), "{what}"),
            Trapped(word) => {
                assert_eq!((exit.code, exit.reason), (134, ExitReason::Trap), "{what}");
                assert!(message.contains(word), "no {word:?}: {what}");
            }
            OutOfMemory => assert_eq!((exit.code, exit.reason), (137, ExitReason::OutOfMemory), "{what}"),
            Exits(code) => assert_eq!((exit.code, exit.reason), (*code, ExitReason::Error), "{what}"),
        }
        assert!(attacker.container.peak_memory_bytes() <= MEMORY, "{attack}");
        settled(&pod, &attacker).await;
        nothing_is_left(&pod, &attacker, attack);
        pod.vfs.remove_all("/tmp").unwrap();
        pod.vfs.mkdir_all("/tmp").unwrap();
        assert_eq!(pod.vfs.usage(), before, "{attack}: files");
    }
    println!("slowest answer of the neighbour: {:?} beside {}", slowest.0, slowest.1);
}

/// An input that never says anything.
struct Mute;

impl AsyncRead for Mute {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        Poll::Pending
    }
}

/// A log writer that takes everything.
struct Anything;

#[async_trait::async_trait]
impl OutputSink for Anything {
    async fn write(&self, _data: Bytes) {}
}

/// A log writer that never takes anything.
struct Stuck;

#[async_trait::async_trait]
impl OutputSink for Stuck {
    async fn write(&self, _data: Bytes) {
        std::future::pending::<()>().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_never_ends_is_killed_at_once() {
    for (guest, attack) in [
        ("hostile", "spin"),
        ("hostile", "spin-calls"),
        ("hostile", "log"),
        ("hostile", "log-stuck"),
        ("p3_hostile", "hole"),
        // Copies its input to its output, by the host alone.
        ("p3_run", "copy"),
    ] {
        let pod = Pod::new();
        let change = |spec: &mut ContainerSpec| {
            limited(spec);
            if attack == "log-stuck" {
                spec.stdout = Arc::new(Stuck);
            }
            if guest.starts_with("p3") {
                spec.stdin = Some(Box::new(tokio::io::repeat(b'x')));
                (spec.stdout, spec.log_rate) = (Arc::new(Anything), Rate { per_second: u64::MAX, burst: u64::MAX });
            }
        };
        let attacker = pod.start(guest, &[attack.trim_end_matches("-stuck")], change).await;
        while attacker.container.cpu_time().is_zero() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(attacker.container.exit(), None, "{attack}");
        let killed = Instant::now();
        attacker.container.kill();
        assert_eq!(attacker.ended().await.reason, ExitReason::Killed, "{attack}");
        assert!(killed.elapsed() < Duration::from_secs(5), "{attack}: took {:?}", killed.elapsed());
        settled(&pod, &attacker).await;
        nothing_is_left(&pod, &attacker, attack);
        assert!(attacker.container.peak_memory_bytes() < 16 << 20, "{attack}: what waits for the log is bounded");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn exit_storms() {
    let pod = Pod::new();
    for _ in 0..100 {
        let storm: Vec<_> = futures::future::join_all((0..8).map(|_| pod.start("hostile", &["exit"], limited))).await;
        for one in storm {
            assert_eq!(one.ended().await.code, 1);
            settled(&pod, &one).await;
            nothing_is_left(&pod, &one, "exit");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_leads_out_of_a_host_directory() {
    let outer = tempfile::tempdir().unwrap();
    let inside = outer.path().join("inside");
    std::fs::create_dir(&inside).unwrap();
    std::fs::write(outer.path().join("secret"), "outside").unwrap();
    std::fs::write(inside.join("own"), "inside").unwrap();
    std::os::unix::fs::symlink(outer.path().join("secret"), inside.join("absolute")).unwrap();
    std::os::unix::fs::symlink("../secret", inside.join("relative")).unwrap();
    std::os::unix::fs::symlink(outer.path(), inside.join("up")).unwrap();
    for (attack, path, read_only, expected) in [
        ("read", "/data/own", false, "inside\nsurvived\n"),
        ("read", "/data/absolute", false, "stopped: No such file"),
        ("read", "/data/relative", false, "stopped: No such file"),
        ("read", "/data/up/secret", false, "stopped: No such file"),
        ("read", "/data/../secret", false, "stopped: No such file"),
        ("read", "/data/../../../../../../etc/passwd", false, "stopped: No such file"),
        ("write", "/data/absolute", false, "stopped: "),
        ("write", "/data/up/new", false, "stopped: "),
        ("write", "/data/new", true, "stopped: Read-only"),
        ("write", "/data/own", true, "stopped: Read-only"),
        ("write", "/data/made", false, "survived\n"),
    ] {
        let pod = Pod::new();
        let view = Mounts::new(Vfs::new(Default::default()).root());
        let source = Source::Node(HostDir::open(&inside, &[]).unwrap());
        view.mount("/data", Mount { source, sub_path: String::new(), read_only }).unwrap();
        let view = Arc::new(view);
        let attacker = pod.start("hostile", &[attack, path], |spec| spec.files = Some(view)).await;
        assert_eq!(attacker.ended().await.code, 0, "{path}: {}", attacker.stderr.text());
        assert!(attacker.stdout.text().starts_with(expected), "{attack} {path}: {}", attacker.stdout.text());
    }
    assert_eq!(std::fs::read_to_string(outer.path().join("secret")).unwrap(), "outside");
    assert_eq!(std::fs::read_to_string(inside.join("made")).unwrap(), "escaped");
    let mut names: Vec<_> = std::fs::read_dir(outer.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["inside", "secret"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_directory_behaves_as_unix() {
    let dir = tempfile::tempdir().unwrap();
    let pod = Pod::new();
    for guest in ["files", "fs"] {
        let view = Mounts::new(Vfs::new(Default::default()).root());
        let source = Source::Node(HostDir::open(dir.path(), &[]).unwrap());
        view.mount("/data", Mount { source, sub_path: "sub".into(), read_only: false }).unwrap();
        let view = Arc::new(view);
        let ran = pod.start(guest, &["/data"], |spec| spec.files = Some(view)).await;
        assert_eq!(ran.ended().await.code, 0, "{guest}: {}", ran.stderr.text());
        assert_eq!(ran.stdout.text(), "ok\n");
    }
    assert_eq!(std::fs::read_dir(dir.path().join("sub")).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http_bombs() {
    let pod = Pod::new();
    let web = pod.start("web", &[], limited).await;
    let many = (0..10_000).map(|i| format!("x-{i}: bomb\r\n")).collect::<String>();
    for (bomb, status) in [(many, "431"), (format!("x: {}\r\n", "b".repeat(4 << 20)), "431"), (String::new(), "200")] {
        let mut stream = pod.net.connect("127.0.0.1:80".parse().unwrap()).await.unwrap();
        let request = format!("GET /hello HTTP/1.1\r\nhost: web\r\nconnection: close\r\n{bomb}\r\n");
        // The server may close before it has read all of it.
        let _ = stream.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer:.200}");
    }
    // A body without end: no more of it is made than is read, and its guest ends when its reader goes.
    let Ok(Endpoint::Http(handler)) = pod.net.connect_endpoint("127.0.0.1:80".parse().unwrap()).await else {
        panic!("port 80 is served")
    };
    let body = Empty::new().map_err(|never| match never {}).boxed_unsync();
    let request = http::Request::get("/flood").header("host", "web").body(body).unwrap();
    let mut body = handler.handle(request).await.into_body();
    let mut got = 0;
    while got < 4 << 20 {
        got += body.frame().await.unwrap().unwrap().into_data().unwrap().len();
    }
    assert!(web.container.memory_bytes() > 0);
    drop(body);
    web.no_instances().await;
    assert!(web.container.peak_memory_bytes() < 16 << 20);
    assert_eq!(pod.get("/hello").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_have_a_rate() {
    let pod = Pod::with(NetLimits { lookup_rate: Rate { per_second: 1, burst: 2 }, ..NetLimits::default() });
    // The name is asked for in both families or in one: at most two lookups.
    let (_, first, _) = pod.run("hostile", &["lookup", "web.shop"]).await;
    assert_eq!(first, "survived\n");
    let (_, second, _) = pod.run("hostile", &["lookup", "localhost"]).await;
    assert_eq!(second, "survived\n", "what needs nobody else is not counted");
    let mut answers = Vec::new();
    for _ in 0..3 {
        answers.push(pod.run("hostile", &["lookup", "web.shop"]).await.1);
    }
    assert!(answers.iter().any(|answer| answer.contains("stopped: ")), "{answers:?}");
    assert!(!answers.iter().any(|answer| answer.contains("does not resolve")), "{answers:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_are_refused_when_the_buffers_are_full() {
    let pod = Pod::new();
    let _web = pod.start("web", &[], limited).await;
    assert_eq!(pod.get("/hello").await.0, 200);
    while pod.net.buffers().used() > 0 {
        tokio::task::yield_now().await;
    }
    let all = pod.net.buffers().reserve(pod.net.buffers().limit()).unwrap();
    let Endpoint::Http(handler) = pod.net.accept_from(80, "10.64.0.9:5000".parse().unwrap()).await.unwrap() else {
        panic!("port 80 is served")
    };
    let empty = || Empty::new().map_err(|never| match never {}).boxed_unsync();
    let ask = || http::Request::get("/hello").header("host", "web").body(empty()).unwrap();
    let refused = handler.handle(ask()).await;
    assert_eq!(refused.status(), 503);
    let text = refused.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(text, "pod's buffers are full\n");
    assert!(handler.admit().is_err(), "nor is there room for a connection in bytes");
    drop(all);
    assert_eq!(handler.handle(ask()).await.status(), 200);
    assert!(handler.admit().unwrap().is_some());
}
