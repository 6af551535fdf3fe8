//! The command line itself.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use copepod_tests::{Ran, copepod, guest, http};

#[test]
fn help_teaches_and_version_tells() {
    let help: Ran = copepod().arg("--help").output().unwrap().into();
    for word in ["copepod up ./app", "copepod push", "KUBECONFIG", "server"] {
        assert!(help.out.contains(word), "{word} in {}", help.out);
    }
    let version: Ran = copepod().arg("version").output().unwrap().into();
    assert!(version.out.starts_with("copepod 0.") && version.out.contains("v1.36."), "{}", version.out);
    let typo: Ran = copepod().arg("sever").output().unwrap().into();
    assert!(!typo.ok && typo.err.contains("server"), "{}", typo.err);
    let lost: Ran = copepod().args(["push", "x.wasm", "x"]).env_remove("KUBECONFIG").output().unwrap().into();
    assert!(!lost.ok && lost.err.contains("x.wasm"), "{}", lost.err);
}

#[test]
fn up_runs_an_app_directory_until_ctrl_c() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(guest("hello"), dir.path().join("hello.wasm")).unwrap();
    // A node port of its own: the examples' may be in use on this machine.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = 30000 + port % 2768;
    let yaml = include_str!("../../examples/hello/hello.yaml").replace("30080", &port.to_string());
    std::fs::write(dir.path().join("hello.yaml"), yaml).unwrap();
    let mut up =
        Stopped(copepod().arg("up").arg(dir.path()).stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap());
    let up = &mut up.0;
    let mut lines = BufReader::new(up.stdout.take().unwrap()).lines().map_while(Result::ok);
    let mut url = String::new();
    for line in lines.by_ref() {
        if let Some(found) = line.trim().strip_prefix("URL") {
            url = found.trim().trim_start_matches("http://").trim_end_matches('/').to_string();
        }
        if line.starts_with("Ready.") {
            break;
        }
    }
    let (code, body) = http::get(&url, "/").expect(&url);
    assert!(code == 200 && body.starts_with("Hello from hello-"), "{code} {body}");
    let pid = rustix::process::Pid::from_raw(i32::try_from(up.id()).unwrap()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    lines.for_each(drop);
    assert!(up.wait().unwrap().success());
    assert!(http::get(&url, "/").is_err(), "the cluster is gone");
}

/// Interrupts `copepod up` however the test ends.
struct Stopped(std::process::Child);

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait()
            && let Some(pid) = i32::try_from(self.0.id()).ok().and_then(rustix::process::Pid::from_raw)
        {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::INT);
            let _ = self.0.wait();
        }
    }
}

#[test]
fn up_names_mistakes_before_it_starts_anything() {
    let dir = tempfile::tempdir().unwrap();
    let empty: Ran = copepod().arg("up").arg(dir.path()).output().unwrap().into();
    assert!(!empty.ok && empty.err.contains("has no .yaml"), "{}", empty.err);
    std::fs::write(dir.path().join("a.yaml"), "kind: [").unwrap();
    let broken: Ran = copepod().arg("up").arg(dir.path()).output().unwrap().into();
    assert!(!broken.ok && broken.err.contains("a.yaml is not valid YAML"), "{}", broken.err);
    let missing: Ran = copepod().args(["up", "/no/such/dir"]).output().unwrap().into();
    assert!(!missing.ok && missing.err.contains("/no/such/dir"), "{}", missing.err);
}
