//! Start-up, memory, CPU and instances: what a guest may have.

use super::*;

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
    let set_aside = pod.spec().net.buffers().limit();
    assert_eq!(set_aside, 2 << 20, "an eighth");
    assert!(exit.message.unwrap().contains("the pod's limit is 14680064 bytes"));
    assert!(first.exit().is_none());
    vfs.write_file("small", &[0; 1 << 20]).unwrap();
    assert!(pod.memory().used() > 11 << 20, "files count");
    assert_eq!(vfs.write_file("large", &[0; 6 << 20]), Err(vfs::VfsError::NoSpace));
    first.kill();
    ended(&first).await;
    vfs.remove_all("small").unwrap();
    vfs.remove_all("large").unwrap();
    assert!(pod.memory().used() < 1 << 20, "{}", pod.memory().used());
}

#[tokio::test]
async fn tables_are_bounded() {
    // Returns 1, failure, unless growing is refused before the table is of a hundred thousand elements.
    let grow = "(loop $l (br_if $l (i32.ne (table.grow $t (ref.null func) (i32.const 100)) (i32.const -1))))
        (i32.gt_u (table.size $t) (i32.const 100000))";
    let container = start(&command("(table $t 1 funcref)", grow), |_| {}).await;
    assert_eq!(ended(&container).await.code, 0);
    let error = load(&command("(table $t 1000000 funcref)", "(i32.const 0)")).await.err().unwrap();
    assert!(error.is_permanent() && error.to_string().contains("limit of 100000"), "{error}");
    // Compilers compiled to wasm have tables of tens of thousands of functions.
    let container =
        start(&command("(table $t 20000 funcref)", "(i32.ne (table.size $t) (i32.const 20000))"), |_| {}).await;
    assert_eq!(ended(&container).await.code, 0);
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
    // By CPU time, which a busy machine does not lengthen: a turn that had begun, and the tick that ends it.
    let used: Vec<_> = spinners.iter().map(Container::cpu_time).collect();
    for container in &spinners {
        container.kill();
    }
    for (container, used) in spinners.iter().zip(used) {
        let exit = ended(container).await;
        assert_eq!((exit.code, exit.reason), (137, ExitReason::Killed));
        let after = container.cpu_time().saturating_sub(used);
        assert!(after < Duration::from_millis(100), "it ran on for {after:?}");
    }
}

#[tokio::test]
async fn a_cpu_limit_holds() {
    let started = Instant::now();
    let container = start(&command("", SPIN), |spec| spec.cpu_limit = Some(100)).await;
    // 10 ms of each 100 ms period: the seventh period has to begin before this much is used.
    while container.cpu_time() < Duration::from_millis(70) {
        tokio::task::yield_now().await;
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
        tokio::task::yield_now().await;
    }
    let (large, small) = (large.cpu_usage(), small.cpu_usage());
    let ratio = large.used.as_secs_f64() / small.used.as_secs_f64();
    assert!((2.5..3.5).contains(&ratio), "{ratio}");
    assert!(small.waited > large.waited, "who gets less waits longer: {small:?} {large:?}");
}
