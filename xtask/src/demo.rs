//! `cargo xtask demo`: from a fresh clone to a component that answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use crate::{cmd, guests, kubectl, test};

/// Runs `copepod up examples/hello`; with `check` it calls the URL, resolves the name and stops.
pub fn run(root: &Path, check: bool) -> Result<()> {
    let kubectl = kubectl::ensure(root)?;
    guests::build(root)?;
    let copepod = test::binary(root)?;
    cmd::step("copepod up examples/hello");
    let mut up = Command::new(copepod);
    up.arg("up").arg(root.join("examples/hello")).env("KUBECTL", kubectl).current_dir(root);
    if !check {
        eprintln!("    (Ctrl-C stops the cluster)");
        // In place of this process, so that the shell waits until `up` has stopped everything.
        return Err(up.exec()).context("cannot start copepod up");
    }
    up.arg("--no-logs");
    let mut child = up.stdout(Stdio::piped()).spawn().context("cannot start copepod up")?;
    let outcome = check_answers(&mut child);
    // As Ctrl-C would.
    let _ = Command::new("kill").arg("-INT").arg(child.id().to_string()).status();
    let status = child.wait()?;
    outcome?;
    ensure!(status.success(), "copepod up ended with {status}");
    println!("demo check: 1 passed, 0 failed");
    Ok(())
}

/// Reads the summary that `up` prints and tries what it promises.
fn check_answers(up: &mut Child) -> Result<()> {
    let stdout = up.stdout.take().context("no output")?;
    let (mut url, mut name) = (None, None);
    for line in BufReader::new(stdout).lines() {
        let line = line?;
        println!("{line}");
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            ["URL", found, ..] => url = Some((*found).to_string()),
            ["DNS", found, server, ..] => {
                name = Some(((*found).to_string(), server.trim_start_matches('@').to_string()))
            }
            ["Ready.", ..] => break,
            _ => {}
        }
    }
    let url = url.context("copepod up ended before it printed a URL")?;
    say_hello(&url)?;
    let (name, server) = name.context("copepod up printed no DNS name")?;
    let address = resolve(&name, server.parse()?)?;
    println!("{name} -> {address}");
    let port = url.trim_end_matches('/').rsplit_once(':').with_context(|| format!("{url} has no port"))?.1;
    say_hello(&format!("http://{address}:{port}/"))
}

/// Calls the URL and requires hello's answer.
fn say_hello(url: &str) -> Result<()> {
    let body = get(url)?;
    ensure!(body.contains("Hello from hello-"), "{url} answered {body:?}");
    println!("GET {url} -> {}", body.lines().last().unwrap_or_default());
    Ok(())
}

fn get(url: &str) -> Result<String> {
    let authority = url.trim_start_matches("http://").trim_end_matches('/');
    let mut stream = TcpStream::connect(authority).with_context(|| format!("cannot connect to {authority}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(30)))?;
    write!(stream, "GET / HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    ensure!(answer.starts_with("HTTP/1.1 200"), "{url} answered {answer:?}");
    Ok(answer)
}

/// One A query (RFC 1035 section 4): the first address of the answer.
fn resolve(name: &str, server: SocketAddr) -> Result<String> {
    let mut query = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        query.push(u8::try_from(label.len())?);
        query.extend(label.as_bytes());
    }
    query.extend([0, 0, 1, 0, 1]);
    let socket = UdpSocket::bind(if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" })?;
    socket.set_read_timeout(Some(Duration::from_secs(10)))?;
    socket.send_to(&query, server)?;
    let mut buffer = [0; 512];
    let n = socket.recv(&mut buffer).with_context(|| format!("no answer from {server}"))?;
    let answer = buffer.get(..n).unwrap_or_default();
    let count = answer.get(7).copied().unwrap_or_default();
    // The answer's address is the last four octets after a record header: name pointer, type, class, TTL, length.
    match answer.get(query.len()..) {
        Some([_, _, 0, 1, 0, 1, _, _, _, _, 0, 4, a, b, c, d, ..]) if count > 0 => Ok(format!("{a}.{b}.{c}.{d}")),
        _ => bail!("{server} has no address for {name}"),
    }
}
