//! Runs docs/tutorial.md: every `sh` block in one shell, in order; each line of a `text` block must stand in the output
//! of the block before it.

use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use copepod_tests::{Ran, guest, own_loopback};

/// Separates the blocks' outputs.
const MARK: &str = "@@ next block @@";

#[test]
fn the_tutorial_works_word_for_word() {
    let page = include_str!("../../docs/tutorial.md");
    let (mut script, mut expected) = (String::from("set -euo pipefail\n"), Vec::new());
    let mut fence: Option<&str> = None;
    for line in page.lines() {
        match (fence, line.strip_prefix("```")) {
            (None, Some(kind)) => {
                fence = Some(kind);
                if kind == "sh" {
                    script.push_str(&format!("echo '{MARK}'\n"));
                    expected.push(Vec::new());
                }
            }
            (Some(_), Some(_)) => fence = None,
            (Some("sh"), None) => script.push_str(&format!("{line}\n")),
            (Some("text"), None) => expected.last_mut().expect("text after sh").push(line),
            _ => {}
        }
    }
    assert!(expected.len() >= 7, "the page has its blocks");

    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    std::fs::create_dir(&bin).unwrap();
    for (name, setting) in [("copepod", "COPEPOD_BIN"), ("kubectl", "KUBECTL")] {
        let wrapper = bin.join(name);
        let program = std::env::var(setting).expect("run by cargo xtask test");
        // kubectl may be meant by name: look past the wrapper itself.
        std::fs::write(&wrapper, format!("#!/bin/sh\nPATH=${{PATH#*:}} exec {program} \"$@\"\n")).unwrap();
        std::fs::set_permissions(&wrapper, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    std::fs::copy(guest("hello"), dir.path().join("hello.wasm")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let ran: Ran = Command::new("timeout")
        .args(["-k", "5", "200", "bash", "-c", &format!("trap 'kill %1 2>/dev/null || true' EXIT\n{script}")])
        .current_dir(dir.path())
        .env("PATH", path)
        .env("HOME", dir.path())
        .env("NODE_PORTS", own_loopback())
        .env_remove("KUBECONFIG")
        .output()
        .unwrap()
        .into();
    assert!(ran.ok, "the tutorial failed:\n{}\n{}", ran.out, ran.err);
    let outputs: Vec<&str> = ran.out.split(MARK).skip(1).collect();
    assert_eq!(outputs.len(), expected.len());
    for (output, lines) in outputs.iter().zip(expected) {
        for line in lines {
            assert!(output.contains(line), "{line:?} is not in:\n{output}");
        }
    }
}
