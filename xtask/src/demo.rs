//! `cargo xtask demo`: from a fresh clone to a component that answers.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

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
    println!("GET {url} -> {}", body.lines().find(|l| l.contains("Hello")).unwrap_or_default());
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
    first_address(answer, query.len()).with_context(|| format!("{server} has no address for {name}"))
}

/// The address in the first record of an answer whose records begin at `at`; `None` if that is no A record.
fn first_address(answer: &[u8], at: usize) -> Option<String> {
    let mut rest = answer.get(at..)?;
    // The owner's name: labels up to an empty one, or up to a pointer (RFC 1035 section 4.1.4).
    loop {
        rest = match *rest.first()? {
            0 => {
                rest = rest.get(1..)?;
                break;
            }
            pointer if pointer >= 0xc0 => {
                rest = rest.get(2..)?;
                break;
            }
            label => rest.get(usize::from(label) + 1..)?,
        };
    }
    match rest {
        // Type A, class IN, time to live, length, address.
        [0, 1, 0, 1, _, _, _, _, 0, 4, a, b, c, d, ..] => Some(format!("{a}.{b}.{c}.{d}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_addresses_after_whole_and_compressed_names() {
        let record = [0, 1, 0, 1, 0, 0, 0, 5, 0, 4, 127, 0, 0, 1];
        for name in [&[1, b'a', 2, b'b', b'c', 0][..], &[0xc0, 12], &[1, b'a', 0xc0, 12]] {
            let answer = [&[9; 7], name, &record].concat();
            assert_eq!(first_address(&answer, 7).as_deref(), Some("127.0.0.1"), "{name:?}");
        }
        for bad in [&[][..], &[1], &[5, b'a'], &[0, 0, 28, 0, 1]] {
            assert_eq!(first_address(bad, 0), None, "{bad:?}");
        }
    }
}
