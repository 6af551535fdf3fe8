//! What a full node, a small machine and a flooded pod do.

use super::*;

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
    let error = sandbox.start(ContainerSpec::new("b", program.clone())).err().unwrap();
    assert!(matches!(error, StartError::AtCapacity(AtCapacity(1))), "{error}");
    assert_eq!(error.to_string(), "node is at capacity: 1 guest instances are alive and no more fit");
    assert!(first.exit().is_none());
    first.kill();
    ended(&first).await;
    let second = loop {
        match sandbox.start(ContainerSpec::new("b", program.clone())) {
            Ok(second) => break second,
            Err(error) => assert!(matches!(error, StartError::AtCapacity(_)), "{error}"),
        }
        tokio::task::yield_now().await;
    };
    while second.cpu_time().is_zero() {
        assert_eq!(second.exit(), None, "there is room again");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn more_memories_than_slots_are_an_error_not_a_crash() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Runtime::new(RuntimeConfig { max_instances: 2, ..RuntimeConfig::new(dir.path()) }).unwrap();
    let mut programs = Vec::new();
    let second = "(core module $x (memory 1)) (core instance (instantiate $x)) (core instance $i";
    let greedy = command("(memory 1)", SPIN).replacen("(core instance $i", second, 1);
    for text in [greedy, command("(memory 1)", "(i32.const 0)")] {
        let bytes = wat::parse_str(text).unwrap();
        let module = dir.path().join("m.wasm");
        std::fs::write(&module, &bytes).unwrap();
        programs.push(runtime.load(&digest(&bytes), &module).await.unwrap());
    }
    let pod = sandbox(&runtime);
    let start = |i: usize| pod.start(ContainerSpec::new("a", programs[i].clone())).unwrap();
    let greedy = start(0);
    while greedy.cpu_time() < Duration::from_millis(2) {
        assert_eq!(greedy.exit(), None);
        tokio::task::yield_now().await;
    }
    let exit = ended(&start(1)).await;
    assert_eq!((exit.code, exit.reason), (128, ExitReason::NotStarted), "{exit:?}");
    assert!(exit.message.unwrap().contains("node is at capacity"));
}

/// What runs in the process of [`a_small_address_space_is_an_honest_capacity`].
#[test]
#[ignore = "run by `a_small_address_space_is_an_honest_capacity`"]
fn small_address_space_child() {
    let dir = tempfile::tempdir().unwrap();
    let config = RuntimeConfig { guest_threads: 1, network_threads: 1, ..RuntimeConfig::new(dir.path()) };
    let runtime = Runtime::new(config).unwrap();
    let capacity = runtime.capacity();
    assert!((1..=13).contains(&capacity.instances), "{capacity:?}");
    assert!(capacity.why.contains("RLIMIT_AS"), "{capacity:?}");
    let ran = tokio::runtime::Runtime::new().unwrap().block_on(async {
        let bytes = wat::parse_str(command("(memory 1)", "(i32.const 0)")).unwrap();
        let module = dir.path().join("m.wasm");
        std::fs::write(&module, &bytes).unwrap();
        let program = runtime.load(&digest(&bytes), &module).await.unwrap();
        ended(&sandbox(&runtime).start(ContainerSpec::new("a", program)).unwrap()).await
    });
    assert_eq!(ran.code, 0, "{ran:?}");
    println!("it ran");
}

#[test]
fn a_small_address_space_is_an_honest_capacity() {
    let own = std::env::current_exe().unwrap();
    // 64 GiB, given in KiB.
    let limited = "ulimit -v 67108864; exec \"$@\"";
    let child = std::process::Command::new("sh")
        .args(["-c", limited, "sh"])
        .arg(own)
        .args(["tests::capacity::small_address_space_child", "--ignored", "--exact", "--nocapture"])
        .output()
        .unwrap();
    let out = String::from_utf8_lossy(&child.stdout);
    assert!(child.status.success() && out.contains("it ran"), "{out}{}", String::from_utf8_lossy(&child.stderr));
}

/// A peer that floods a pod takes nothing from what its containers have.
#[tokio::test]
async fn no_peer_uses_up_a_pods_memory() {
    use tokio::io::AsyncWriteExt as _;
    let net = sockets::PodNet::new(vec![[10, 0, 0, 1].into()], Arc::new(NoUplink), Default::default());
    let spec = SandboxSpec {
        name: "test".into(),
        hostname: "test".into(),
        net: net.clone(),
        vfs: vfs::Vfs::new(Default::default()),
    };
    let pod = Sandbox::limited(runtime(), spec, Some(16 << 20));
    let (buffers, before) = (net.buffers().clone(), pod.memory().used());
    let _listener = net.listen("0.0.0.0:80".parse().unwrap(), 1000).unwrap();
    let _socket = net.bind_udp("0.0.0.0:53".parse().unwrap()).unwrap();
    let peer: SocketAddr = "10.0.0.2:4000".parse().unwrap();
    let mut flood = Vec::new();
    while let Ok(Endpoint::Stream(mut stream)) = net.accept_from(80, peer).await {
        while futures::poll!(Box::pin(stream.write(&[7; 64 << 10]))).is_ready() {}
        flood.push(stream);
    }
    for _ in 0..10_000 {
        net.deliver_datagram(peer, "10.0.0.1:53".parse().unwrap(), bytes::Bytes::from_static(&[7; 1400])).unwrap();
    }
    assert!(flood.len() >= 100, "{} connections", flood.len());
    assert!(buffers.used() <= buffers.limit() && buffers.limit() == 2 << 20);
    assert_eq!(pod.memory().used(), before, "the containers' memory is untouched");
    let grows = "(i32.eq (memory.grow (i32.const 200)) (i32.const -1))";
    let program = load(&command("(memory 1)", grows)).await.unwrap();
    assert_eq!(ended(&pod.start(ContainerSpec::new("main", program)).unwrap()).await.code, 0, "13 of 16 MiB");
    drop(flood);
    net.close();
    drop((_listener, _socket));
    assert_eq!(buffers.used(), 0);
}
