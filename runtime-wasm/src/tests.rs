//! Whole guests, written as component text: they run, end, are killed and limited.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::*;

mod capacity;
mod compiling;
mod limits;

/// One runtime for all tests of this process, in a directory of its own.
static RUNTIME: LazyLock<(tempfile::TempDir, Arc<Runtime>)> = LazyLock::new(|| {
    let dir = tempfile::tempdir().unwrap();
    let config = RuntimeConfig { guest_threads: 2, max_instances: 32, ..RuntimeConfig::new(dir.path().join("aot")) };
    let runtime = Runtime::new(config).unwrap();
    (dir, runtime)
});

fn runtime() -> &'static Arc<Runtime> {
    &RUNTIME.1
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect::<String>())
}

async fn load_bytes(bytes: &[u8]) -> Result<Arc<Program>, LoadError> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    runtime().load(&digest(bytes), file.path()).await
}

async fn load(text: &str) -> Result<Arc<Program>, LoadError> {
    load_bytes(&wat::parse_str(text).unwrap()).await
}

/// A command whose `run` is `body`, with `fields` in its core module.
fn command(fields: &str, body: &str) -> String {
    format!(
        r#"(component
            (import "wasi:cli/exit@0.2.0" (instance $exit (export "exit" (func (param "status" (result))))))
            (core func $exit (canon lower (func $exit "exit")))
            (core module $m
                (import "host" "exit" (func $exit (param i32)))
                {fields}
                (func (export "run") (result i32) {body}))
            (core instance $i (instantiate $m (with "host" (instance (export "exit" (func $exit))))))
            (func $run (result (result)) (canon lift (core func $i "run")))
            (instance $run (export "run" (func $run)))
            (export "wasi:cli/run@0.2.0" (instance $run)))"#
    )
}

const SPIN: &str = "(loop $l (br $l)) (unreachable)";
const GROW: &str = "(loop $l (drop (memory.grow (i32.const 16))) (br $l)) (unreachable)";

/// Nothing is reachable.
struct NoUplink;

#[async_trait::async_trait]
impl Uplink for NoUplink {
    async fn connect(&self, _from: SocketAddr, _to: SocketAddr) -> Result<Endpoint, NetError> {
        Err(NetError::Unreachable)
    }
    async fn resolve(&self, _name: &str) -> Result<Vec<IpAddr>, NetError> {
        Err(NetError::NameUnresolvable)
    }
    async fn send_datagram(&self, _from: SocketAddr, _to: SocketAddr, _data: bytes::Bytes) -> Result<(), NetError> {
        Err(NetError::Unreachable)
    }
}

fn sandbox(runtime: &Arc<Runtime>) -> Sandbox {
    let net = sockets::PodNet::new(vec![[10, 0, 0, 1].into()], Arc::new(NoUplink), Default::default());
    let vfs = vfs::Vfs::new(Default::default());
    Sandbox::new(runtime, SandboxSpec { name: "test".into(), hostname: "test".into(), net, vfs })
}

async fn start(text: &str, change: impl FnOnce(&mut ContainerSpec)) -> Container {
    let mut spec = ContainerSpec::new("main", load(text).await.unwrap());
    change(&mut spec);
    sandbox(runtime()).start(spec).unwrap()
}

async fn ended(container: &Container) -> Exit {
    tokio::time::timeout(Duration::from_secs(60), container.wait()).await.expect("the container ends")
}

#[tokio::test]
async fn ways_to_end() {
    use ExitReason::*;
    for (fields, body, code, reason, word) in [
        ("", "(i32.const 0)", 0, Completed, ""),
        ("", "(i32.const 1)", 1, Error, ""),
        ("", "(call $exit (i32.const 0)) (unreachable)", 0, Completed, ""),
        ("", "(call $exit (i32.const 1)) (unreachable)", 1, Error, ""),
        ("", "(unreachable)", 134, Trap, "unreachable"),
        ("(func $deep (call $deep) (call $deep))", "(call $deep) (i32.const 0)", 134, Trap, "call stack exhausted"),
        ("(memory 1)", GROW, 137, OutOfMemory, "the limit is 8388608 bytes"),
        ("(memory 1000)", "(i32.const 0)", 137, OutOfMemory, "65568784 bytes wanted"),
    ] {
        let container = start(&command(fields, body), |spec| spec.memory_limit = Some(8 << 20)).await;
        let exit = ended(&container).await;
        assert_eq!((exit.code, exit.reason), (code, reason), "{body}: {exit:?}");
        assert!(exit.message.unwrap_or_default().contains(word), "{body}");
        assert_eq!(container.memory_bytes(), 0, "{body}: memory is given back");
        assert!(container.peak_memory_bytes() <= 8 << 20, "{body}");
    }
}

struct Panics;

#[async_trait::async_trait]
impl OutputSink for Panics {
    async fn write(&self, _data: bytes::Bytes) {
        panic!("bug in the host");
    }
}

#[tokio::test]
async fn a_panic_under_a_guest_ends_its_container_alone() {
    let writes = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "\18\00\00\00\02\00\00\00x\0a")
        (func (export "_start") (drop (call $write (i32.const 1) (i32.const 16) (i32.const 1) (i32.const 8)))))"#;
    let pod = sandbox(runtime());
    let spin = load(&command("", SPIN)).await.unwrap();
    let neighbours: Vec<_> = (0..3).map(|_| pod.start(ContainerSpec::new("spin", spin.clone())).unwrap()).collect();
    let mut spec = ContainerSpec::new("main", load(writes).await.unwrap());
    spec.stdout = Arc::new(Panics);
    let faulty = pod.start(spec).unwrap();
    let exit = ended(&faulty).await;
    assert_eq!((exit.code, exit.reason), (128, ExitReason::Error), "{exit:?}");
    assert!(exit.message.unwrap().contains("node fault"));
    while faulty.memory_bytes() > 0 {
        tokio::task::yield_now().await;
    }
    let used: Vec<_> = neighbours.iter().map(Container::cpu_time).collect();
    while neighbours.iter().zip(&used).any(|(neighbour, used)| neighbour.cpu_time() <= *used) {
        tokio::task::yield_now().await;
    }
    assert!(neighbours.iter().all(|neighbour| neighbour.exit().is_none()), "neighbours in the same pod run on");
}

#[tokio::test]
async fn wasi_01_commands_are_wrapped() {
    let text = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
        (memory (export "memory") 1)
        (data (i32.const 16) "\10\00\00\00\00\00\00\00hello from 2019\n")
        (func (export "_start")
            (i32.store (i32.const 0) (i32.const 24))
            (i32.store (i32.const 4) (i32.const 16))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))
            (call $exit (i32.const 7))))"#;
    let out = Arc::new(Lines::default());
    let container = start(text, |spec| spec.stdout = out.clone()).await;
    let exit = ended(&container).await;
    assert_eq!((exit.code, exit.reason), (7, ExitReason::Error), "{exit:?}");
    assert_eq!(out.0.lock().as_slice(), b"hello from 2019\n");
}

#[tokio::test]
async fn exit_codes_are_kept() {
    let p1 = |code: i32| {
        format!(
            r#"(module
                (import "wasi_snapshot_preview1" "fd_close" (func (param i32) (result i32)))
                (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                (memory (export "memory") 1)
                (func (export "_start") (call $exit (i32.const {code}))))"#
        )
    };
    let p2 = |code: i32| {
        format!(
            r#"(component
                (import "wasi:cli/exit@0.2.12" (instance $exit (export "exit-with-code" (func (param "status-code" u8)))))
                (core func $exit (canon lower (func $exit "exit-with-code")))
                (core module $m
                    (import "host" "exit" (func $exit (param i32)))
                    (func (export "run") (result i32) (call $exit (i32.const {code})) (unreachable)))
                (core instance $i (instantiate $m (with "host" (instance (export "exit" (func $exit))))))
                (func $run (result (result)) (canon lift (core func $i "run")))
                (instance $run (export "run" (func $run)))
                (export "wasi:cli/run@0.2.12" (instance $run)))"#
        )
    };
    for (asked, code) in [(0, 0), (1, 1), (7, 7), (255, 255), (256 + 3, 3), (-1, 255)] {
        for text in [p1(asked), p2(asked)] {
            let exit = ended(&start(&text, |_| {}).await).await;
            assert_eq!((exit.code, exit.message), (code, None), "{asked}");
        }
    }
}

#[tokio::test]
async fn configuration_and_logging() {
    let text = r#"(component
        (import "wasi:config/store@0.2.0-rc.1" (instance $config
            (type $e (variant (case "upstream" string) (case "io" string)))
            (export "error" (type $error (eq $e)))
            (export "get" (func (param "key" string) (result (result (option string) (error $error)))))))
        (import "wasi:logging/logging" (instance $logging
            (type $l (enum "trace" "debug" "info" "warn" "error" "critical"))
            (export "level" (type $level (eq $l)))
            (export "log" (func (param "level" $level) (param "context" string) (param "message" string)))))
        (core module $memory
            (memory (export "memory") 1)
            (data (i32.const 16) "GREETINGconfig")
            (global $next (mut i32) (i32.const 1024))
            (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                (global.set $next (i32.add (global.get $next) (local.get 3)))
                (i32.sub (global.get $next) (local.get 3))))
        (core instance $memory (instantiate $memory))
        (core func $get (canon lower (func $config "get")
            (memory (core memory $memory "memory")) (realloc (core func $memory "realloc")) string-encoding=utf8))
        (core func $log (canon lower (func $logging "log") (memory (core memory $memory "memory")) string-encoding=utf8))
        (core module $m
            (import "host" "memory" (memory 1))
            (import "host" "get" (func $get (param i32 i32 i32)))
            (import "host" "log" (func $log (param i32 i32 i32 i32 i32)))
            (func (export "run") (result i32)
                (call $get (i32.const 16) (i32.const 8) (i32.const 512))
                (call $log (i32.const 3) (i32.const 24) (i32.const 6)
                    (i32.load (i32.const 520)) (i32.load (i32.const 524)))
                (i32.load8_u (i32.const 512))))
        (core instance $i (instantiate $m (with "host" (instance
            (export "memory" (memory $memory "memory")) (export "get" (func $get)) (export "log" (func $log))))))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $run (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $run)))"#;
    let err = Arc::new(Lines::default());
    let change = |spec: &mut ContainerSpec| {
        spec.env.push(("GREETING".into(), "hello from outside".into()));
        spec.stderr = err.clone();
    };
    let exit = ended(&start(text, change).await).await;
    assert_eq!((exit.code, exit.message), (0, None));
    assert_eq!(err.0.lock().as_slice(), b"WARN config: hello from outside\n");
}

#[derive(Default)]
struct Lines(parking_lot::Mutex<Vec<u8>>);

#[async_trait::async_trait]
impl OutputSink for Lines {
    async fn write(&self, data: bytes::Bytes) {
        self.0.lock().extend_from_slice(&data);
    }
}

#[tokio::test]
async fn dropping_a_container_kills_it() {
    let container = start(&command("(memory 10)", SPIN), |_| {}).await;
    let mut ended = container.ended_for_tests();
    drop(container);
    let exit = ended.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(exit.unwrap().reason, ExitReason::Killed);
}
