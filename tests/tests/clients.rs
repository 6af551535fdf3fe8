//! Clients that people have: kubectl of several releases, helm 3 and 4, the Python client. `cargo xtask test` fetches
//! them; where they cannot be had, these tests are left out (not in CI).

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use copepod_tests::{Cluster, Ran};

const TOUR: &str = include_str!("../clients/tour.txt");
/// The editor of `kubectl edit`.
const EDITOR: &str = "sed -i s/tier/tear/";

/// The folder of the clients, if there is one.
fn clients() -> Option<PathBuf> {
    let folder = std::env::var_os("COPEPOD_CLIENTS").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("left out: COPEPOD_CLIENTS is not set");
    }
    folder
}

/// A cluster, and a folder with the tour's files.
fn prepare() -> (Cluster, tempfile::TempDir) {
    let cluster = Cluster::start();
    for image in ["hello:1", "hello:2"] {
        cluster.push("hello", image);
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/files"), folder.path());
    (cluster, folder)
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (path, target) = (entry.as_ref().unwrap().path(), to.join(entry.unwrap().file_name()));
        if path.is_dir() {
            copy(&path, &target);
        } else {
            std::fs::copy(path, target).unwrap();
        }
    }
}

fn run(program: &Path, args: &[&str], cluster: &Cluster, folder: &Path) -> Ran {
    let mut command = Command::new(program);
    command.args(args).current_dir(folder).stdin(Stdio::null()).env("KUBECONFIG", cluster.kubeconfig());
    command.env("KUBECACHEDIR", folder.join("cache")).env("KUBE_EDITOR", EDITOR);
    for (name, place) in [("HELM_CACHE_HOME", "h1"), ("HELM_CONFIG_HOME", "h2"), ("HELM_DATA_HOME", "h3")] {
        command.env(name, folder.join(place));
    }
    command.output().unwrap().into()
}

fn tour(version: &str) {
    let Some(clients) = clients() else { return };
    let kubectl = clients.join(format!("kubectl-{version}/kubectl"));
    let (cluster, folder) = prepare();
    let mut wrong = String::new();
    for line in TOUR.lines().map(str::trim).filter(|l| !l.is_empty() && !l.starts_with('#')) {
        let (line, since) = match line.strip_prefix('[').and_then(|l| l.split_once(']')) {
            Some((since, rest)) => (rest.trim(), since),
            None => (line, "1.0"),
        };
        let minor = |v: &str| v.trim_start_matches("1.").parse::<u32>().unwrap();
        if minor(since) > minor(version) {
            continue;
        }
        let (command, wanted) = line.split_once(" => ").unwrap_or((line, ""));
        let (command, fails) = match command.strip_prefix('!') {
            Some(command) => (command, true),
            None => (command, false),
        };
        // `~` stands for a space within an argument.
        let args: Vec<String> = command.split_whitespace().map(|a| a.replace('~', " ")).collect();
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let ran = run(&kubectl, &args, &cluster, folder.path());
        let missing: Vec<&str> = wanted.split(" & ").filter(|w| !ran.out.contains(w) && !ran.err.contains(w)).collect();
        if ran.ok == fails || !missing.is_empty() {
            let shown: String = format!("{}{}", ran.out, ran.err).chars().take(2000).collect();
            wrong += &format!("kubectl {command}\n  succeeded: {}, not printed: {missing:?}\n{shown}\n", ran.ok);
        }
    }
    assert!(wrong.is_empty(), "kubectl {version}:\n{wrong}");
}

#[test]
fn kubectl_1_27() {
    tour("1.27");
}

#[test]
fn kubectl_1_32() {
    tour("1.32");
}

#[test]
fn kubectl_1_36() {
    tour("1.36");
}

#[test]
fn helm_installs_upgrades_and_rolls_back() {
    let Some(clients) = clients() else { return };
    for version in ["1.27", "1.32", "1.36"] {
        let (cluster, folder) = prepare();
        let helm = clients.join(format!("kubectl-{version}/helm"));
        for (command, greeting) in [
            ("install r chart --wait --timeout 60s", "one"),
            ("upgrade r chart --set greeting=two --wait --timeout 60s", "two"),
            ("rollback r 1 --wait --timeout 60s", "one"),
        ] {
            let args: Vec<&str> = command.split(' ').collect();
            let ran = run(&helm, &args, &cluster, folder.path());
            assert!(ran.ok, "helm of {version}: {command}\n{}{}\n{}", ran.out, ran.err, cluster.log());
            assert_eq!(cluster.ok("get cm r -o jsonpath={.data.greeting}"), greeting);
            cluster.rolled_out("r");
        }
        let history = run(&helm, &["history", "r"], &cluster, folder.path());
        assert!(history.ok && history.out.contains("Rollback to 1"), "{}{}", history.out, history.err);
        let gone = run(&helm, &["uninstall", "r", "--wait", "--timeout", "60s"], &cluster, folder.path());
        assert!(gone.ok, "{}{}", gone.out, gone.err);
        assert_eq!(cluster.ok("get deploy,cm -l release=r -o name"), "");
    }
}

#[test]
fn the_python_client() {
    let Some(clients) = clients() else { return };
    let cluster = Cluster::start();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/python_client.py");
    let ran: Ran = Command::new("python3")
        .arg(script)
        .arg(cluster.kubeconfig())
        .env("PYTHONPATH", clients.join("python"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        // The dynamic client keeps its discovery in a temporary folder.
        .env("TMPDIR", &cluster.data_dir)
        .stdin(Stdio::null())
        .output()
        .unwrap()
        .into();
    assert!(ran.ok, "{}{}\n{}", ran.out, ran.err, cluster.log());
    assert_eq!(ran.out.lines().collect::<Vec<_>>(), ["typed", "watch", "dynamic", "pages"]);
}
