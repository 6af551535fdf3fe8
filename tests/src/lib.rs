//! The end-to-end harness: a real `copepod server`, stock kubectl, a DNS client, guests built from source.
//! Run through `cargo xtask test`, which builds what is needed and sets `COPEPOD_BIN`, `COPEPOD_GUESTS` and `KUBECTL`.

pub mod dns;
pub mod http;
pub mod timed;

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a condition may take before the test gives up; generous, since a loaded machine is slow.
pub const PATIENCE: Duration = Duration::from_secs(120);

fn setting(name: &str) -> PathBuf {
    std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set: run the tests with `cargo xtask test`")).into()
}

/// The binary under test.
pub fn copepod() -> Command {
    Command::new(setting("COPEPOD_BIN"))
}

/// A built guest's file.
pub fn guest(name: &str) -> PathBuf {
    let file = setting("COPEPOD_GUESTS").join(format!("{name}.wasm"));
    assert!(file.is_file(), "no guest {}: run `cargo xtask guests`", file.display());
    file
}

/// Waits until `probe` returns a value; fails with the last reason after [`PATIENCE`].
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(last) if Instant::now() > end => panic!("waited in vain for {what}; last seen: {last}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// What a finished program printed.
#[derive(Debug, Clone)]
pub struct Ran {
    /// Whether it exited 0.
    pub ok: bool,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl From<Output> for Ran {
    fn from(o: Output) -> Self {
        let text = |b: &[u8]| String::from_utf8_lossy(b).into_owned();
        Self { ok: o.status.success(), out: text(&o.stdout), err: text(&o.stderr) }
    }
}

/// Runs a command with text on its standard input.
pub fn run_with_input(command: &mut Command, input: &str) -> Ran {
    use std::io::Write;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("spawn");
    child.stdin.take().expect("stdin").write_all(input.as_bytes()).expect("write");
    child.wait_with_output().expect("wait").into()
}

/// Each cluster's node ports listen on a loopback address of their own, so that tests run in parallel.
pub fn own_loopback() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    let pid = std::process::id();
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("127.{}.{}.{}", 16 + (pid >> 8) % 200, pid % 256, 1 + n % 250)
}

/// A one-node cluster in a temporary directory; killed when dropped.
pub struct Cluster {
    /// The data directory.
    pub data_dir: PathBuf,
    /// Where node ports listen.
    pub node_ports: String,
    /// Address of the DNS server.
    pub dns: String,
    /// URL of the API server.
    pub url: String,
    server: Option<Child>,
    log: Arc<Mutex<String>>,
    extra: Vec<String>,
    _dir: tempfile::TempDir,
}

impl Cluster {
    /// Starts a server with a node.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a server with further arguments.
    pub fn start_with(extra: &[&str]) -> Self {
        let dir = tempfile::Builder::new().prefix("copepod-e2e-").tempdir().expect("tempdir");
        let mut cluster = Self {
            data_dir: dir.path().join("data"),
            node_ports: own_loopback(),
            dns: String::new(),
            url: String::new(),
            server: None,
            log: Arc::default(),
            extra: extra.iter().map(ToString::to_string).collect(),
            _dir: dir,
        };
        cluster.boot();
        cluster
    }

    /// Starts the server (again) on the data directory and waits for its ready line.
    pub fn boot(&mut self) {
        let mut child = copepod()
            .arg("server")
            .arg("--data-dir")
            .arg(&self.data_dir)
            .args(["--listen", "127.0.0.1:0", "--dns-listen", "127.0.0.1:0", "--node-name", "node-1"])
            .args(["--node-port-address", &self.node_ports])
            .args(&self.extra)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("start copepod server");
        let mut lines = BufReader::new(child.stdout.take().expect("stdout")).lines();
        collect(child.stderr.take().expect("stderr"), self.log.clone());
        self.server = Some(child);
        let line = lines.by_ref().map_while(Result::ok).find(|l| l.starts_with("copepod ready: "));
        let Some(line) = line else { panic!("the server did not become ready:\n{}", self.log()) };
        let value = |key: &str| {
            let part = line.trim_start_matches("copepod ready: ").split(", ").find_map(|p| p.strip_prefix(key));
            part.unwrap_or_default().trim().to_string()
        };
        (self.url, self.dns) = (value("api"), value("dns"));
        std::thread::spawn(move || lines.for_each(drop));
    }

    /// What the server wrote to standard error so far.
    pub fn log(&self) -> String {
        self.log.lock().expect("log").clone()
    }

    /// The server's process id.
    pub fn pid(&self) -> u32 {
        self.server.as_ref().map(Child::id).expect("running")
    }

    /// kill -9, and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }

    /// SIGTERM; returns whether it exited 0.
    pub fn terminate(&mut self) -> bool {
        let Some(mut server) = self.server.take() else { return false };
        let pid = rustix::process::Pid::from_raw(i32::try_from(server.id()).expect("pid")).expect("pid");
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("kill");
        server.wait().expect("wait").success()
    }

    /// The admin's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.data_dir.join("admin.kubeconfig")
    }

    /// A kubectl command for this cluster.
    pub fn kubectl(&self) -> Command {
        let mut kubectl = Command::new(setting("KUBECTL"));
        // Its own cache: parallel tests must not share discovery.
        kubectl.env("KUBECONFIG", self.kubeconfig()).env("KUBECACHEDIR", self.data_dir.join("kubecache"));
        kubectl
    }

    /// Runs kubectl with arguments split at spaces.
    pub fn k(&self, args: &str) -> Ran {
        self.kubectl().args(args.split_whitespace()).stdin(Stdio::null()).output().expect("kubectl").into()
    }

    /// Runs kubectl and expects success; returns its standard output.
    pub fn ok(&self, args: &str) -> String {
        let ran = self.k(args);
        assert!(ran.ok, "kubectl {args} failed:\n{}{}\nserver log:\n{}", ran.out, ran.err, self.log());
        ran.out
    }

    /// `kubectl apply -f -` with expected success.
    pub fn apply(&self, yaml: &str) -> String {
        let ran = run_with_input(self.kubectl().args(["apply", "-f", "-"]), yaml);
        assert!(ran.ok, "kubectl apply failed:\n{}{}\nserver log:\n{}", ran.out, ran.err, self.log());
        ran.out
    }

    /// `kubectl apply -f -` with expected failure; returns standard error.
    pub fn refuse(&self, yaml: &str) -> String {
        let ran = run_with_input(self.kubectl().args(["apply", "-f", "-"]), yaml);
        assert!(!ran.ok, "kubectl apply took it:\n{}{}", ran.out, ran.err);
        ran.err
    }

    /// An object (or list) as JSON.
    pub fn get(&self, what: &str) -> Value {
        serde_json::from_str(&self.ok(&format!("get {what} -o json"))).expect("JSON")
    }

    /// Puts a guest into the image store.
    pub fn push(&self, guest_name: &str, image: &str) {
        self.push_file(&guest(guest_name), image);
    }

    /// Puts any component file into the image store.
    pub fn push_file(&self, file: &Path, image: &str) {
        let ran: Ran = copepod()
            .args(["push"])
            .arg(file)
            .arg(image)
            .env("KUBECONFIG", self.kubeconfig())
            .output()
            .expect("copepod push")
            .into();
        assert!(ran.ok, "copepod push failed: {}{}", ran.out, ran.err);
    }

    /// Waits until a Deployment's rollout is complete.
    pub fn rolled_out(&self, deployment: &str) {
        let ran = self.k(&format!("rollout status deployment/{deployment} --timeout={}s", PATIENCE.as_secs()));
        assert!(ran.ok, "{}{}\n{}\nserver log:\n{}", ran.out, ran.err, self.k("get pods -A -o wide").out, self.log());
    }

    /// Waits until a pod's log holds a text; returns the whole log.
    pub fn log_holds(&self, pod: &str, text: &str) -> String {
        wait_for(&format!("{text:?} in the log of {pod}"), || {
            let ran = self.k(&format!("logs {pod}"));
            if ran.ok && ran.out.contains(text) { Ok(ran.out) } else { Err(format!("{}{}", ran.out, ran.err)) }
        })
    }

    /// Waits until a JSON pointer of an object holds a value that passes.
    pub fn until(&self, what: &str, pointer: &str, pass: impl Fn(&Value) -> bool) -> Value {
        wait_for(&format!("{pointer} of {what}"), || {
            let ran = self.k(&format!("get {what} -o json"));
            let object: Value = serde_json::from_str(&ran.out).map_err(|_| ran.err.clone())?;
            let value = object.pointer(pointer).cloned().unwrap_or_default();
            if pass(&value) { Ok(value) } else { Err(format!("{value} in {object}")) }
        })
    }

    /// Names of the pods that match a label selector.
    pub fn pods(&self, selector: &str) -> Vec<String> {
        self.ok(&format!("get pods -l {selector} -o name"))
            .lines()
            .map(|l| l.trim_start_matches("pod/").to_string())
            .collect()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // SIGTERM first, so that the agent and its children are gone too.
        if self.server.is_some() {
            self.terminate();
        }
        if std::thread::panicking() {
            eprintln!("---- server log ----\n{}", self.log());
        }
    }
}

/// A further node of a cluster: an agent of its own that uses the admin's credentials, so that no tunnel leads to it and
/// nobody gets its logs. Stopped when dropped.
pub struct FurtherNode {
    /// The agent's data directory.
    pub data_dir: PathBuf,
    /// Where its node ports listen.
    pub node_ports: String,
    name: String,
    pod_cidr: String,
    kubeconfig: PathBuf,
    agent: Option<Child>,
}

impl FurtherNode {
    /// Starts an agent, whose pods have addresses of a range of the cluster's, and waits until its node is ready.
    pub fn join(cluster: &Cluster, name: &str, pod_cidr: &str) -> Self {
        let mut node = Self {
            data_dir: cluster.data_dir.join(format!("further-{name}")),
            node_ports: own_loopback(),
            name: name.into(),
            pod_cidr: pod_cidr.into(),
            kubeconfig: cluster.kubeconfig(),
            agent: None,
        };
        node.start();
        cluster.until(&format!("node {name}"), "/status/conditions", |all| {
            all.as_array().into_iter().flatten().any(|c| c["type"] == "Ready" && c["status"] == "True")
        });
        node
    }

    /// Starts the agent (again) on its data directory.
    pub fn start(&mut self) {
        let mut agent = copepod();
        agent.arg("agent").arg("--kubeconfig").arg(&self.kubeconfig).arg("--data-dir").arg(&self.data_dir);
        agent.args(["--node-name", &self.name, "--pod-cidr", &self.pod_cidr, "--cluster-domain", "cluster.local"]);
        agent.args(["--virtual-cidrs", "10.64.0.0/10,10.43.0.0/16", "--node-port-address", &self.node_ports]);
        // It ends when its standard input does.
        agent.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        self.agent = Some(agent.spawn().expect("start copepod agent"));
    }

    /// Stops the agent and waits until it is gone.
    pub fn stop(&mut self) {
        if let Some(mut agent) = self.agent.take() {
            drop(agent.stdin.take());
            let _ = agent.wait();
        }
    }
}

impl Drop for FurtherNode {
    fn drop(&mut self) {
        self.stop();
    }
}

fn collect(mut from: impl Read + Send + 'static, into: Arc<Mutex<String>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(n) = from.read(&mut buffer) {
            if n == 0 {
                break;
            }
            into.lock().expect("log").push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    });
}

/// A pod of one toolbox container with these arguments.
pub fn toolbox_pod(name: &str, args: &[&str], extra: &str) -> String {
    let args = serde_json::to_string(args).expect("JSON");
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata:\n  name: {name}\n  labels: {{app: {name}}}\nspec:\n  containers:\n  - name: main\n    image: toolbox\n    args: {args}\n{extra}"
    )
}
