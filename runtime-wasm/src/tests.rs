//! Whole guests, written as component text: they run, end, are killed and limited.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::*;

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
        ("(memory 1000)", "(i32.const 0)", 137, OutOfMemory, "65568768 bytes wanted"),
    ] {
        let container = start(&command(fields, body), |spec| spec.memory_limit = Some(8 << 20)).await;
        let exit = ended(&container).await;
        assert_eq!((exit.code, exit.reason), (code, reason), "{body}: {exit:?}");
        assert!(exit.message.unwrap_or_default().contains(word), "{body}");
        assert_eq!(container.memory_bytes(), 0, "{body}: memory is given back");
        assert!(container.peak_memory_bytes() <= 8 << 20, "{body}");
    }
}

/// A command that instantiates a core module with this start function.
fn starting(body: &str) -> String {
    command(&format!("(memory 1) (func $start {body}) (start $start)"), "(i32.const 0)")
}

#[tokio::test]
async fn starting_has_a_budget() {
    let dir = tempfile::tempdir().unwrap();
    let config = RuntimeConfig { max_instances: 4, ..RuntimeConfig::new(dir.path()) };
    let budget = RuntimeConfig { start_cpu: Duration::from_millis(20), ..config.clone() };
    let timeout =
        RuntimeConfig { start_timeout: Duration::from_millis(20), cache_dir: dir.path().join("b"), ..config.clone() };
    let bytes = wat::parse_str(starting("(loop $l (br $l))")).unwrap();
    let module = dir.path().join("m.wasm");
    std::fs::write(&module, &bytes).unwrap();
    for (config, words) in [(budget, "start-up budget used up"), (timeout, "start-up timeout")] {
        let runtime = Runtime::new(config).unwrap();
        let program = runtime.load(&digest(&bytes), &module).await.unwrap();
        let container = sandbox(&runtime).start(ContainerSpec::new("main", program)).unwrap();
        let exit = ended(&container).await;
        assert_eq!((exit.code, exit.reason), (128, ExitReason::NotStarted), "{exit:?}");
        assert!(exit.message.unwrap().contains(words));
        assert_eq!(container.memory_bytes(), 0);
    }
    let body = "(local $n i32) (loop $l (br_if $l (i32.lt_u (local.tee $n (i32.add (local.get $n) (i32.const 1))) (i32.const 1000))))";
    assert_eq!(ended(&start(&starting(body), |_| {}).await).await.code, 0, "what starts in time runs");
}

#[tokio::test]
async fn containers_share_their_pods_memory() {
    let net = sockets::PodNet::new(vec![[10, 0, 0, 1].into()], Arc::new(NoUplink), Default::default());
    let vfs = vfs::Vfs::new(Default::default());
    let spec = SandboxSpec { name: "test".into(), hostname: "test".into(), net, vfs: vfs.clone() };
    let pod = Sandbox::limited(runtime(), spec, Some(16 << 20));
    let holds = "(if (i32.eq (memory.grow (i32.const 160)) (i32.const -1)) (then (unreachable))) (loop $l (br $l)) (unreachable)";
    let program = load(&command("(memory 1)", holds)).await.unwrap();
    let first = pod.start(ContainerSpec::new("first", program.clone())).unwrap();
    while first.memory_bytes() < 10 << 20 {
        tokio::task::yield_now().await;
    }
    let exit = ended(&pod.start(ContainerSpec::new("second", program)).unwrap()).await;
    assert_eq!((exit.code, exit.reason), (137, ExitReason::OutOfMemory));
    assert!(exit.message.unwrap().contains("the pod's limit is 16777216 bytes"));
    assert!(first.exit().is_none());
    vfs.write_file("small", &[0; 1 << 20]).unwrap();
    assert!(pod.memory().used() > 11 << 20, "files count");
    assert_eq!(vfs.write_file("large", &[0; 8 << 20]), Err(vfs::VfsError::NoSpace));
    first.kill();
    ended(&first).await;
    vfs.remove_all("small").unwrap();
    vfs.remove_all("large").unwrap();
    assert!(pod.memory().used() < 1 << 20, "{}", pod.memory().used());
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

#[tokio::test]
async fn tables_are_bounded() {
    // Returns 1, failure, unless growing is refused before the table is of a hundred thousand elements.
    let grow = "(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 100)) (i32.const -1))))
        (i32.gt_u (table.size $t) (i32.const 100000))";
    let container = start(&command("(table $t 1 funcref)", grow), |_| {}).await;
    assert_eq!(ended(&container).await.code, 0);
    let error = load(&command("(table $t 1000000 funcref)", "(i32.const 0)")).await.err().unwrap();
    assert!(error.is_permanent() && error.to_string().contains("limit of 10000"), "{error}");
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
async fn spinning_guests_are_measured_share_threads_and_die_when_told() {
    let spinners: Vec<Container> =
        futures::future::join_all((0..4).map(|_| async { start(&command("", SPIN), |_| {}).await })).await;
    // More spinners than threads: each gets its turn, and so does a guest that starts later.
    while spinners.iter().any(|container| container.cpu_time() < Duration::from_millis(5)) {
        assert!(spinners.iter().all(|container| container.exit().is_none()));
        tokio::task::yield_now().await;
    }
    assert_eq!(ended(&start(&command("", "(i32.const 0)"), |_| {}).await).await.code, 0);
    for container in &spinners {
        container.kill();
    }
    for container in &spinners {
        let exit = ended(container).await;
        assert_eq!((exit.code, exit.reason), (137, ExitReason::Killed));
    }
}

#[tokio::test]
async fn a_cpu_limit_holds() {
    let started = Instant::now();
    let container = start(&command("", SPIN), |spec| spec.cpu_limit = Some(100)).await;
    // 10 ms of each 100 ms period: the seventh period has to begin before this much is used.
    while container.cpu_time() < Duration::from_millis(70) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let wall = started.elapsed();
    assert!(wall >= Duration::from_millis(400), "a tenth of a core gave 70 ms in {wall:?}");
    container.kill();
    assert_eq!(ended(&container).await.reason, ExitReason::Killed);
}

#[tokio::test]
async fn shares_of_cpu_time_follow_requests() {
    let dir = tempfile::tempdir().unwrap();
    let config = RuntimeConfig { guest_threads: 1, max_instances: 4, ..RuntimeConfig::new(dir.path()) };
    let runtime = Runtime::new(config).unwrap();
    let bytes = wat::parse_str(command("", SPIN)).unwrap();
    let module = dir.path().join("m.wasm");
    std::fs::write(&module, &bytes).unwrap();
    let program = runtime.load(&digest(&bytes), &module).await.unwrap();
    let sandbox = sandbox(&runtime);
    let [large, small] = [600, 200].map(|cpu_request| {
        sandbox.start(ContainerSpec { cpu_request, ..ContainerSpec::new("spin", program.clone()) }).unwrap()
    });
    while large.cpu_time() + small.cpu_time() < Duration::from_millis(400) {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (large, small) = (large.cpu_usage(), small.cpu_usage());
    let ratio = large.used.as_secs_f64() / small.used.as_secs_f64();
    assert!((2.5..3.5).contains(&ratio), "{ratio}");
    assert!(small.waited > large.waited, "who gets less waits longer: {small:?} {large:?}");
}

/// Stands in for the compiler's process: this test binary, told to run this test with the two paths behind it.
#[test]
#[ignore = "run by `compiles_in_a_limited_process`"]
fn compiler_child() {
    let args: Vec<String> = std::env::args().collect();
    if let [.., input, output] = args.as_slice() {
        std::process::exit(compile::child_main(input.as_ref(), output.as_ref()));
    }
}

#[tokio::test]
async fn compiles_in_a_limited_process() {
    let dir = tempfile::tempdir().unwrap();
    let args = ["tests::compiler_child", "--ignored", "--exact", "--nocapture"].map(String::from).to_vec();
    let compiler = Compiler { program: std::env::current_exe().unwrap(), args };
    let config =
        RuntimeConfig { compiler: Some(compiler), max_instances: 4, ..RuntimeConfig::new(dir.path().join("aot")) };
    let runtime = Runtime::new(config.clone()).unwrap();
    let module = dir.path().join("m.wasm");
    for (bytes, expected) in [
        (wat::parse_str(command("", "(i32.const 0)")).unwrap(), Ok(Kind::Command)),
        (wat::parse_str("(module)").unwrap(), Err(LoadError::CoreModule)),
        (b"\0asm\x0d\0\x01\0\xff\xff\xff".to_vec(), Err(LoadError::Compile(String::new()))),
    ] {
        std::fs::write(&module, &bytes).unwrap();
        let loaded = runtime.load(&digest(&bytes), &module).await.map(|program| program.kind());
        match (loaded, expected) {
            (Err(LoadError::Compile(text)), Err(LoadError::Compile(_))) => assert!(!text.is_empty()),
            (loaded, expected) => assert_eq!(loaded, expected),
        }
    }
    let bytes = wat::parse_str(command("", "(i32.const 1)")).unwrap();
    std::fs::write(&module, &bytes).unwrap();
    let (cache, aside) = (dir.path().join("aot"), dir.path().join("aside"));
    std::fs::rename(&cache, &aside).unwrap();
    let error = runtime.load(&digest(&bytes), &module).await.err().unwrap();
    assert!(!error.is_permanent() && error.to_string().contains("writing artifact"), "{error}");
    std::fs::rename(&aside, &cache).unwrap();
    assert!(runtime.load(&digest(&bytes), &module).await.is_ok(), "a fault of the disk is not remembered");
    let gone = Compiler { program: "/nonexistent/compiler".into(), args: Vec::new() };
    let runtime =
        Runtime::new(RuntimeConfig { compiler: Some(gone), cache_dir: dir.path().join("b"), ..config }).unwrap();
    let bytes = wat::parse_str(command("", "(i32.const 0)")).unwrap();
    std::fs::write(&module, &bytes).unwrap();
    let error = runtime.load(&digest(&bytes), &module).await.err().unwrap();
    assert!(!error.is_permanent() && error.to_string().contains("/nonexistent/compiler"), "{error}");
}

#[tokio::test]
async fn compilations_have_a_budget() {
    let dir = tempfile::tempdir().unwrap();
    let bytes = wat::parse_str(command("", "(i32.const 0)")).unwrap();
    let module = dir.path().join("m.wasm");
    std::fs::write(&module, &bytes).unwrap();
    for (number, (script, words, permanent)) in [
        ("kill -XCPU $$", "compiling was given up: it takes more than 900 s of CPU time", true),
        ("kill -XFSZ $$", "compiling was given up: its code takes more than 2147483648 bytes", true),
        ("echo memory allocation of 9 bytes failed >&2; kill -ABRT $$", "8589934592 bytes of memory", true),
        ("kill -KILL $$", "compiler was killed", false),
    ]
    .into_iter()
    .enumerate()
    {
        let compiler = Compiler { program: "/bin/sh".into(), args: vec!["-c".into(), script.into()] };
        let config = RuntimeConfig::new(dir.path().join(format!("aot-{number}")));
        let runtime = Runtime::new(RuntimeConfig { compiler: Some(compiler), max_instances: 1, ..config }).unwrap();
        let error = runtime.load(&digest(&bytes), &module).await.err().unwrap();
        assert!(error.to_string().contains(words), "{error} lacks {words:?}");
        assert_eq!(error.is_permanent(), permanent, "{error}");
    }
}

#[tokio::test]
async fn compiling_is_told_to_all_who_wait() {
    use crate::compile::Progress;
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(RuntimeConfig { max_instances: 1, ..RuntimeConfig::new(dir.path()) }).unwrap();
    let bytes = wat::parse_str(command("", "(i32.const 0)")).unwrap();
    let (module, digest) = (dir.path().join("m.wasm"), digest(&bytes));
    std::fs::write(&module, &bytes).unwrap();
    let told = parking_lot::Mutex::new(Vec::new());
    let load = |who: usize| {
        let (runtime, told, digest, module) = (&runtime, &told, &digest, &module);
        let tell = move |progress| told.lock().push((who, progress));
        async move { runtime.load_telling(digest, module, &tell).await }
    };
    let loaded = futures::future::join_all((0..4).map(load)).await;
    assert!(loaded.iter().all(Result::is_ok));
    let told_to = |who: usize| -> Vec<_> {
        told.lock().iter().filter(|(whom, _)| *whom == who).map(|(_, progress)| *progress).collect()
    };
    assert!(matches!(told_to(0)[..], [Progress::Compiling, Progress::Compiled(_)]), "{:?}", told_to(0));
    assert!((1..4).all(|who| told_to(who) == [Progress::Waiting]), "{:?}", told.lock());
    drop(loaded);
    runtime.load_telling(&digest, &module, &|progress| panic!("{progress:?} of an artifact at hand")).await.unwrap();
}

#[tokio::test]
async fn dropping_a_container_kills_it() {
    let container = start(&command("(memory 10)", SPIN), |_| {}).await;
    let mut ended = container.ended_for_tests();
    drop(container);
    let exit = ended.wait_for(Option::is_some).await.unwrap().clone();
    assert_eq!(exit.unwrap().reason, ExitReason::Killed);
}

#[tokio::test]
async fn unloadable_modules_say_why() {
    let import = r#"(component
        (import "acme:db/query@1.0.0" (instance (export "get" (func))))
        (core module $m (func (export "run") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $run (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $run)))"#;
    let two = r#"(component
        (import "acme:db/query@1.0.0" (instance (export "get" (func))))
        (import "wasi:keyvalue/store@0.2.0" (instance (export "bucket" (type (sub resource)))))
        (import "acme:db/types" (instance (export "row" (type (eq 0)))))
        (core module $m (func (export "run") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $run (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $run)))"#
        .replace(
            r#"(export "row" (type (eq 0)))"#,
            r#"(type $t (record (field "a" u8))) (export "row" (type (eq $t)))"#,
        );
    let mistyped = r#"(component
        (import "wasi:cli/exit@0.2.0" (instance (export "exit" (func (param "status" u32)))))
        (core module $m (func (export "run") (result i32) (i32.const 0)))
        (core instance $i (instantiate $m))
        (func $run (result (result)) (canon lift (core func $i "run")))
        (instance $run (export "run" (func $run)))
        (export "wasi:cli/run@0.2.0" (instance $run)))"#;
    let broken = b"\0asm\x0d\0\x01\0\xff\xff\xff";
    for (bytes, word) in [
        (b"#!/bin/sh\n".to_vec(), "not a WebAssembly module: first bytes are 23 21 2f"),
        (Vec::new(), "the file is empty"),
        (wat::parse_str("(module)").unwrap(), "build a component for wasm32-wasip2"),
        (wat::parse_str(r#"(module (import "env" "f" (func)))"#).unwrap(), "imports \"env.f\""),
        (wat::parse_str(import).unwrap(), "imports \"acme:db/query@1.0.0\", which this node does not offer"),
        (
            wat::parse_str(two).unwrap(),
            r#"imports "acme:db/query@1.0.0", "wasi:keyvalue/store@0.2.0", which this node does not offer"#,
        ),
        (wat::parse_str(mistyped).unwrap(), "wasi:cli/exit@0.2.0"),
        (wat::parse_str("(component)").unwrap(), "it exports nothing"),
        (broken.to_vec(), "cannot be compiled"),
    ] {
        let error = load_bytes(&bytes).await.err().expect(word);
        assert!(error.to_string().contains(word), "{error} lacks {word:?}");
        assert!(error.is_permanent());
        assert_eq!(load_bytes(&bytes).await.err(), Some(error), "remembered");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let wrong = runtime().load("sha256:zz", file.path()).await.err().unwrap();
    assert!(matches!(wrong, LoadError::BadDigest(_)));
    std::fs::write(file.path(), wat::parse_str(command("", SPIN)).unwrap()).unwrap();
    let wrong = runtime().load(&digest(b"something else"), file.path()).await.err().unwrap();
    assert!(matches!(wrong, LoadError::DigestMismatch(_)));
}

#[tokio::test]
async fn artifacts_are_made_once_kept_and_checked() {
    let dir = tempfile::tempdir().unwrap();
    let cache = dir.path().join("aot");
    let new_runtime = || Runtime::new(RuntimeConfig { max_instances: 4, ..RuntimeConfig::new(&cache) }).unwrap();
    let bytes = wat::parse_str(command("", "(i32.const 0)")).unwrap();
    let module = dir.path().join("m.wasm");
    std::fs::write(&module, &bytes).unwrap();
    let (first, digest) = (new_runtime(), digest(&bytes));
    let programs = futures::future::join_all((0..8).map(|_| first.load(&digest, &module))).await;
    let programs: Vec<_> = programs.into_iter().map(Result::unwrap).collect();
    assert!(programs.iter().all(|program| Arc::ptr_eq(program, &programs[0])), "one program for all who ask");
    let artifacts = || -> Vec<_> { std::fs::read_dir(&cache).unwrap().map(|entry| entry.unwrap().path()).collect() };
    assert_eq!(artifacts().len(), 1);
    use std::os::unix::fs::PermissionsExt;
    assert_eq!(std::fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);

    // The module is gone: only the artifact can have served this.
    std::fs::remove_file(&module).unwrap();
    let second = new_runtime();
    second.load(&digest, &module).await.unwrap();

    // A damaged artifact is not mapped.
    let artifact = artifacts().remove(0);
    let mut damaged = std::fs::read(&artifact).unwrap();
    damaged[4096] ^= 1;
    std::fs::write(&artifact, damaged).unwrap();
    let third = new_runtime();
    assert!(matches!(third.load(&digest, &module).await, Err(LoadError::Io(_))), "it must look for the module again");
    std::fs::write(&module, &bytes).unwrap();
    third.load(&digest, &module).await.unwrap();
    new_runtime().load(&digest, &module).await.unwrap();
}

#[tokio::test]
async fn instances_beyond_the_capacity_are_an_error_not_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(RuntimeConfig { max_instances: 1, ..RuntimeConfig::new(dir.path()) }).unwrap();
    assert_eq!(runtime.capacity().instances, 1);
    let bytes = wat::parse_str(command("(memory 1)", SPIN)).unwrap();
    let module = dir.path().join("m.wasm");
    std::fs::write(&module, &bytes).unwrap();
    let program = runtime.load(&digest(&bytes), &module).await.unwrap();
    let sandbox = sandbox(&runtime);
    let first = sandbox.start(ContainerSpec::new("a", program.clone())).unwrap();
    while first.cpu_time().is_zero() {
        tokio::task::yield_now().await;
    }
    let second = ended(&sandbox.start(ContainerSpec::new("b", program)).unwrap()).await;
    assert_eq!((second.code, second.reason), (128, ExitReason::NotStarted), "{second:?}");
    assert!(second.message.unwrap().contains("concurrent limit"));
    assert!(first.exit().is_none());
}
