//! Real guests, built from `tests/guests` by `cargo xtask test`, in real sandboxes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use copepod_runtime::vfs::{Mount, Mounts, Source, Vfs, VfsLimits};
use copepod_runtime::{ContainerSpec, Endpoint, ExecSpec, ExitReason, HttpLimits, OutputSink, serve_stream};
use http_body_util::BodyExt;
use support::{Collect, Pod};

#[tokio::test]
async fn a_command_gets_what_its_container_says() {
    let change = |spec: &mut ContainerSpec| spec.env.push(("GREETING".into(), "hi there".into()));
    let said = Pod::new().start("say", &["a", "b c"], change).await;
    assert_eq!(said.ended().await.reason, ExitReason::Completed);
    let out = said.stdout.text();
    for line in
        [r#"args ["say", "a", "b c"]"#, "env GREETING=hi there", "env HOSTNAME=web-0", "stdin 0", "after 2020 true"]
    {
        assert!(out.lines().any(|got| got == line), "{line:?} is not in\n{out}");
    }
    assert_eq!(out.matches("env ").count(), 2, "nothing of the node's own environment: {out}");
    assert_eq!(said.stderr.text(), "this is standard error\n");
}

#[tokio::test]
async fn commands_end_as_programs_do() {
    let pod = Pod::new();
    assert_eq!(pod.run("say", &["exit", "0"]).await.0.code, 0);
    let (exit, ..) = pod.run("say", &["exit", "3"]).await;
    assert_eq!((exit.code, exit.reason), (1, ExitReason::Error), "wasm32-wasip2's std has one failure code");
    let (exit, _, err) = pod.run("say", &["panic"]).await;
    assert_eq!((exit.code, exit.reason), (134, ExitReason::Trap));
    assert!(err.contains("asked to"), "{err}");
    assert!(exit.message.unwrap().contains("unreachable"));
    assert_eq!(pod.run("say", &["sleep", "20"]).await.1, "slept\n");
    let (exit, out, _) = pod.run("say", &["lines", "20000"]).await;
    assert_eq!(exit.code, 0);
    assert!(out.lines().enumerate().all(|(at, line)| line == format!("line {at}")));
    assert_eq!(out.lines().count(), 20_000);
}

#[tokio::test]
async fn a_waiting_guest_dies_when_told() {
    let sleeper = Pod::new().start("say", &["sleep", "3600000"], |_| {}).await;
    while sleeper.container.cpu_time().is_zero() {
        tokio::task::yield_now().await;
    }
    sleeper.container.kill();
    assert_eq!(sleeper.ended().await.reason, ExitReason::Killed);
    sleeper.no_instances().await;
}

/// A sink with a bug.
struct Panics;

#[async_trait::async_trait]
impl OutputSink for Panics {
    async fn write(&self, _data: Bytes) {
        panic!("bug in the host");
    }
}

#[tokio::test]
async fn a_panic_of_the_host_stays_with_its_container() {
    let pod = Pod::new();
    let neighbour = pod.start("say", &["sleep", "3600000"], |_| {}).await;
    let exit = pod.start("say", &[], |spec| spec.stdout = Arc::new(Panics)).await.ended().await;
    assert_eq!((exit.code, exit.reason), (128, ExitReason::Error));
    assert!(exit.message.unwrap().contains("node fault"));
    let web = pod.start("web", &[], |spec| spec.stderr = Arc::new(Panics)).await;
    assert_eq!(pod.get("/trap").await.0, 500);
    assert_eq!(pod.get("/hello").await.0, 200);
    assert!(web.container.exit().is_none() && neighbour.container.exit().is_none());
}

#[tokio::test]
async fn a_memory_limit_kills() {
    let limit = |spec: &mut ContainerSpec| spec.memory_limit = Some(32 << 20);
    let pod = Pod::new();
    let small = pod.start("bomb", &["8"], limit).await;
    assert_eq!(small.ended().await.code, 0, "{}", small.stderr.text());
    assert!(small.container.peak_memory_bytes() > 8 << 20);
    let large = pod.start("bomb", &[], limit).await;
    let exit = large.ended().await;
    assert_eq!((exit.code, exit.reason), (137, ExitReason::OutOfMemory));
    assert!(large.container.peak_memory_bytes() <= 32 << 20);
}

#[tokio::test]
async fn http_requests_and_bodies() {
    let pod = Pod::new();
    let web = pod.start("web", &[], |_| {}).await;
    assert_eq!(pod.get("/hello").await, (200, "hello\n".into()));
    assert_eq!(pod.get("/none").await, (404, "no such page\n".into()));
    let (_, headers) = pod.get("/headers?x=y").await;
    assert!(headers.contains("x-test: yes\n") && headers.contains("authority web\n"), "{headers}");
    let long = "0123456789".repeat(20_000);
    assert_eq!(pod.request("/echo", &long).await, (200, long));
    assert_eq!(pod.get("/big?300000").await, (200, "x".repeat(300_000)));
    assert_eq!(pod.get("/count").await.1, "0");
    assert_eq!(pod.get("/count").await.1, "0", "an instance per request");
    web.no_instances().await;
    assert!(web.container.cpu_time() > Duration::ZERO);
    assert_eq!(web.stderr.text(), "");
    web.container.kill();
    assert_eq!(web.ended().await.reason, ExitReason::Killed);
    assert!(pod.net.connect_endpoint("127.0.0.1:80".parse().unwrap()).await.is_err(), "the port is free again");
}

#[tokio::test]
async fn http_guests_that_misbehave() {
    let pod = Pod::new();
    let limits = |spec: &mut ContainerSpec| {
        spec.http_limits.timeout = Duration::from_secs(3);
        spec.memory_limit = Some(64 << 20);
    };
    let web = pod.start("web", &[], limits).await;
    assert_eq!(pod.get("/trap").await.0, 500);
    web.stderr.wait_for("asked to").await;
    web.stderr.wait_for("copepod: POST /trap: ").await;
    assert_eq!(pod.get("/silent").await.0, 500);
    web.stderr.wait_for("copepod: POST /silent: no response was set").await;
    assert_eq!(pod.get("/spin").await.0, 504);
    web.stderr.wait_for("POST /spin: no response within").await;
    let (status, body) = pod.get("/break").await;
    assert_eq!(status, 200);
    assert!(body.starts_with("broken: "), "a cut body is an error, not an end: {body}");
    assert_eq!(pod.get("/hello").await.0, 200, "others are not harmed");
    assert_eq!(pod.get("/grow").await.0, 500);
    let exit = web.ended().await;
    assert_eq!((exit.code, exit.reason), (137, ExitReason::OutOfMemory));
}

#[tokio::test]
async fn http_instances_are_reused_as_told() {
    let pod = Pod::new();
    let reuse = |spec: &mut ContainerSpec| {
        spec.http_limits = HttpLimits { requests_per_instance: 3, ..HttpLimits::default() };
    };
    let web = pod.start("web", &[], reuse).await;
    let mut counts = Vec::new();
    for _ in 0..7 {
        counts.push(pod.get("/count").await.1);
    }
    // The instance is back in the pool shortly after its response is out; a fresh one serves who comes sooner.
    assert!(counts.iter().all(|count| count.parse::<u32>().unwrap() < 3), "{counts:?}");
    assert!(counts.iter().any(|count| count != "0"), "{counts:?}");
    web.container.kill();
    web.ended().await;
    web.no_instances().await;
}

#[tokio::test]
async fn http_concurrency_is_bounded() {
    let pod = Pod::new();
    let bounds = |spec: &mut ContainerSpec| {
        let timeout = Duration::from_secs(2);
        spec.http_limits = HttpLimits { max_concurrency: 2, max_queued: 1, timeout, ..HttpLimits::default() };
    };
    let _web = pod.start("web", &[], bounds).await;
    let answers = futures::future::join_all((0..8).map(|_| pod.get("/spin"))).await;
    let with = |status: u16| answers.iter().filter(|(got, _)| *got == status).count();
    assert!(with(503) >= 5, "two run, one waits, five are turned away: {answers:?}");
    assert!((2..=3).contains(&with(504)), "{answers:?}");
    assert_eq!(pod.get("/hello").await.0, 200);
}

#[tokio::test]
async fn a_stopping_http_container_finishes_what_it_serves() {
    let pod = Pod::new();
    let web = pod.start("web", &[], |_| {}).await;
    let port = "127.0.0.1:80".parse().unwrap();
    let Ok(Endpoint::Http(handler)) = pod.net.connect_endpoint(port).await else { panic!("port 80 is served") };
    let (send, mut rest) = tokio::sync::mpsc::channel::<Bytes>(1);
    let body = http_body_util::StreamBody::new(futures::stream::poll_fn(move |cx| {
        rest.poll_recv(cx).map(|chunk| chunk.map(|c| Ok(http_body::Frame::data(c))))
    }));
    let request = http::Request::post("/echo").header("host", "web").body(body.boxed_unsync()).unwrap();
    let answering = tokio::spawn(async move {
        let response = handler.handle(request).await;
        (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
    });
    // Room for the third means that the guest took the first: the request is being served.
    for chunk in ["one ", "two ", "three"] {
        send.send(Bytes::from(chunk)).await.unwrap();
    }
    let stopping = tokio::spawn(async move {
        web.container.stop(Duration::from_secs(60)).await;
        web.ended().await
    });
    while pod.net.connect_endpoint(port).await.is_ok() {
        tokio::task::yield_now().await;
    }
    drop(send);
    assert_eq!(answering.await.unwrap(), (200, Bytes::from("one two three")));
    assert_eq!(stopping.await.unwrap().code, 137);
}

#[tokio::test]
async fn guests_call_each_other_and_get_errors() {
    let pod = Pod::new();
    let _web = pod.start("web", &[], |_| {}).await;
    assert_eq!(pod.get("/fetch?http://127.0.0.1/hello").await, (200, "hello\n".into()));
    assert_eq!(pod.get("/fetch?http://localhost:80/big?5000").await, (200, "x".repeat(5000)));
    assert_eq!(pod.get("/fetch?http://web.shop/hello").await, (200, "hello\n".into()));
    let (status, error) = pod.get("/fetch?http://nowhere.shop/hello").await;
    assert_eq!(status, 502);
    assert!(error.contains("NXDOMAIN"), "{error}");
    let (status, error) = pod.get("/fetch?http://127.0.0.1:81/").await;
    assert_eq!(status, 502);
    assert!(error.contains("ConnectionRefused"), "{error}");
}

#[tokio::test]
async fn http_over_a_byte_stream() {
    let pod = Pod::new();
    let _web = pod.start("web", &[], |_| {}).await;
    let Ok(Endpoint::Http(handler)) = pod.net.connect_endpoint("127.0.0.1:80".parse().unwrap()).await else {
        panic!("port 80 is served")
    };
    let (near, far) = tokio::io::duplex(64 << 10);
    let server = tokio::spawn(serve_stream(handler, Box::new(far)));
    let io = hyper_util::rt::TokioIo::new(near);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..2 {
        let request = http::Request::post("/echo").header("host", "web").body("ping".to_owned()).unwrap();
        let response = sender.send_request(request).await.unwrap();
        assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "ping");
    }
    drop(sender);
    connection.await.unwrap().unwrap();
    server.await.unwrap().unwrap();
}

#[tokio::test]
async fn files_are_the_pods_and_behave_as_unix() {
    let pod = Pod::new();
    let (exit, out, err) = pod.run("files", &["/tmp"]).await;
    assert_eq!((exit.code, out.as_str()), (0, "ok\n"), "{err}");

    // One container writes, another reads; a third sees the same files through its own mounts.
    assert_eq!(pod.run("files", &["write", "/tmp/shared", "from one"]).await.0.code, 0);
    assert_eq!(pod.run("files", &["cat", "/tmp/shared"]).await.1, "from one");
    let mounts = Mounts::new(Vfs::new(VfsLimits::default()).root());
    let source = Source::Node(pod.vfs.mkdir_all("tmp").unwrap());
    mounts.mount("/data", Mount { source, sub_path: String::new(), read_only: true }).unwrap();
    let mounts = Arc::new(mounts);
    let mounted = |spec: &mut ContainerSpec| spec.files = Some(mounts.clone());
    let reader = pod.start("files", &["cat", "/data/shared"], mounted).await;
    assert_eq!((reader.ended().await.code, reader.stdout.text().as_str()), (0, "from one"));
    let writer = pod.start("files", &["write", "/data/shared", "no"], mounted).await;
    assert_ne!(writer.ended().await.code, 0, "mounted read-only");

    let (_, out, _) = pod.run("files", &["fill", "/tmp/big"]).await;
    assert!(out.starts_with("full after "), "the tree's limit holds: {out}");
    assert!(pod.vfs.usage().0 <= 8 << 20);
}

#[tokio::test]
async fn containers_talk_over_loopback() {
    let pod = Pod::new();
    let server = pod.start("tcp", &["serve", "0.0.0.0:7000"], |_| {}).await;
    server.stdout.wait_for("listening on 0.0.0.0:7000").await;
    for target in ["127.0.0.1:7000", "10.64.0.7:7000", "localhost:7000", "web.shop:7000"] {
        let (exit, out, err) = pod.run("tcp", &["call", target, "ping"]).await;
        assert_eq!((exit.code, out.as_str()), (0, "answer ping\n"), "{target}: {err}");
    }
    let (exit, _, err) = pod.run("tcp", &["call", "127.0.0.1:7001", "ping"]).await;
    assert_eq!(exit.code, 1);
    assert!(err.contains("onnection refused"), "{err}");
    assert_eq!(pod.run("tcp", &["resolve", "web.shop"]).await.1, "address 10.64.0.7\n");

    // A guest's socket reaches the node's HTTP server in front of another container.
    let _web = pod.start("web", &[], |_| {}).await;
    let (_, out, err) = pod.run("tcp", &["ask", "127.0.0.1:80", "GET /hello HTTP/1.0\r\n\r\n"]).await;
    assert!(out.starts_with("answer HTTP/1.0 200 OK") && out.trim_end().ends_with("hello"), "{out} {err}");

    // The server's end frees its port.
    server.container.kill();
    assert_eq!(server.ended().await.reason, ExitReason::Killed);
    let again = pod.start("tcp", &["serve", "127.0.0.1:7000"], |_| {}).await;
    again.stdout.wait_for("listening").await;
}

#[tokio::test]
async fn wasi_03_commands() {
    let pod = Pod::new();
    assert_eq!(pod.run("p3_run", &["exit", "42"]).await.0.code, 42);
    assert_eq!(pod.run("p3_run", &["fail"]).await.0.code, 1);
    assert_eq!(pod.run("p3_run", &["sleep"]).await.0.code, 0);
    let (exit, out, err) = pod.run("p3_run", &["file", "/tmp/x"]).await;
    assert_eq!((exit.code, out.as_str()), (0, "written\n"), "both WASIs in one component: {err}");
    let text = "0123456789".repeat(50_000);
    let source = std::io::Cursor::new(text.clone().into_bytes());
    let copied = pod.start("p3_run", &[], |spec| spec.stdin = Some(Box::new(source))).await;
    assert_eq!(copied.ended().await.code, 0, "{}", copied.stderr.text());
    assert!(copied.stdout.text() == text);
}

#[tokio::test]
async fn wasi_03_http() {
    let pod = Pod::new();
    let web = pod.start("p3_web", &[], |_| {}).await;
    assert_eq!(pod.get("/you?x").await, (200, "hello /you?x of web\n".into()));
    let long = "0123456789".repeat(20_000);
    assert_eq!(pod.request("/echo", &long).await, (200, long));
    assert_eq!(pod.get("/big").await, (200, "000000007\n".repeat(10_000)));
    assert_eq!(pod.get("/fail").await.0, 500);
    web.stderr.wait_for("copepod: POST /fail: the handler returned").await;
    assert_eq!(pod.get("/trap").await.0, 500);
    web.stderr.wait_for("copepod: POST /trap: ").await;
    web.no_instances().await;
}

#[tokio::test]
async fn further_processes_in_a_container() {
    let pod = Pod::new();
    let limits = |spec: &mut ContainerSpec| {
        spec.env.push(("GREETING".into(), "hi".into()));
        spec.memory_limit = Some(32 << 20);
    };
    let main = pod.start("say", &["sleep", "3600000"], limits).await;
    let exec = |program, args: &[&str], stdin: &'static str| {
        let (stdout, stderr) = (Arc::new(Collect::default()), Arc::new(Collect::default()));
        let spec = ExecSpec {
            program,
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            env: vec![("EXTRA".into(), "more".into())],
            stdin: Some(Box::new(stdin.as_bytes())),
            tty: false,
            stdout: stdout.clone(),
            stderr: stderr.clone(),
        };
        let container = pod.sandbox.exec(&main.container, spec).unwrap();
        support::Running { container, stdout, stderr }
    };
    // The container's own component with other arguments.
    let again = exec(None, &["say", "what"], "from outside");
    assert_eq!(again.ended().await.code, 0, "{}", again.stderr.text());
    let out = again.stdout.text();
    for line in [r#"args ["say", "what"]"#, "env GREETING=hi", "env EXTRA=more", "env HOSTNAME=web-0", "stdin 12"] {
        assert!(out.lines().any(|got| got == line), "{line:?} is not in\n{out}");
    }
    // Another component in the same files and network.
    assert_eq!(exec(Some(support::guest("files").await), &["files", "write", "/tmp/x", "y"], "").ended().await.code, 0);
    assert_eq!(&pod.vfs.read_file("/tmp/x").unwrap()[..], b"y");
    // Killed alone, and with its container.
    let alone = exec(None, &["say", "sleep", "3600000"], "");
    alone.container.kill();
    assert_eq!(alone.ended().await.reason, ExitReason::Killed);
    let with = exec(None, &["say", "sleep", "3600000"], "");
    main.container.kill();
    assert_eq!(with.ended().await.reason, ExitReason::Killed);
    assert_eq!(main.ended().await.reason, ExitReason::Killed);
    // And when its container ends by itself.
    let main = pod.start("say", &["sleep", "300"], limits).await;
    let left = {
        let (stdout, stderr) = (Arc::new(Collect::default()), Arc::new(Collect::default()));
        let args = ["say", "sleep", "3600000"].map(str::to_owned).to_vec();
        let (out, err) = (stdout.clone(), stderr.clone());
        let spec = ExecSpec { program: None, args, env: vec![], stdin: None, tty: false, stdout: out, stderr: err };
        support::Running { container: pod.sandbox.exec(&main.container, spec).unwrap(), stdout, stderr }
    };
    assert_eq!(main.ended().await.code, 0);
    assert_eq!(left.ended().await.reason, ExitReason::Killed);
    // Under the container's memory limit.
    let main = pod.start("say", &["sleep", "3600000"], limits).await;
    let bomb = ExecSpec {
        program: Some(support::guest("bomb").await),
        args: vec!["bomb".into()],
        env: vec![],
        stdin: None,
        tty: false,
        stdout: left.stdout.clone(),
        stderr: left.stderr.clone(),
    };
    let bomb = pod.sandbox.exec(&main.container, bomb).unwrap();
    assert_eq!(bomb.wait().await.reason, ExitReason::OutOfMemory);
    assert_eq!(main.container.exit(), None, "the container itself goes on");
    assert!(main.container.peak_memory_bytes() <= 32 << 20);
    main.container.kill();
    main.ended().await;
    let late = ExecSpec {
        program: None,
        args: Vec::new(),
        env: Vec::new(),
        stdin: None,
        tty: false,
        stdout: with.stdout.clone(),
        stderr: with.stderr.clone(),
    };
    let refused = pod.sandbox.exec(&main.container, late).err().unwrap();
    assert!(refused.to_string().contains("container not running"), "{refused}");
}
