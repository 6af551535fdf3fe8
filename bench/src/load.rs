//! Load: clients that each send their next request after the answer to the one before, one thread and kept connection
//! each.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::http::Connection;
use crate::process;
use crate::report::Samples;
use crate::target::Target;

/// A client gives up after so many failures.
const MAX_FAILURES: u64 = 20;

/// What one client asks next.
pub struct Ask {
    /// The bytes of the request.
    pub request: Vec<u8>,
    /// The status of a good answer.
    pub expect: u16,
}

/// What a round of load gave.
#[derive(Debug, Default)]
pub struct Load {
    /// Good answers.
    pub answers: u64,
    /// Other answers and broken connections.
    pub failures: u64,
    /// The first failure.
    pub failure: Option<String>,
    /// From the first request to the last answer, in seconds.
    pub seconds: f64,
    /// CPU seconds of the server meanwhile; connecting is not in it.
    pub cpu: f64,
    /// Of each good answer, in milliseconds.
    pub latencies: Samples,
    /// Good answers of each client.
    pub by_client: Vec<u64>,
}

impl Load {
    /// Answers per second.
    pub fn rate(&self) -> f64 {
        self.answers as f64 / self.seconds.max(f64::MIN_POSITIVE)
    }

    /// CPU seconds of the server for 1,000 answers.
    pub fn cpu_per_thousand(&self) -> f64 {
        self.cpu * 1000.0 / self.answers as f64
    }
}

#[derive(Default)]
struct One {
    failures: u64,
    failure: Option<String>,
    millis: Vec<f64>,
}

/// Runs so many clients for at most so long, all of them connected before the first request. `next` gives a client's
/// request by the client's number and the request's, both from 0, or `None` when the client is done. `server` is the
/// process whose CPU counts, with its descendants.
///
/// # Errors
/// Nothing answered, or the server is gone.
pub fn run(
    target: &Target,
    server: u32,
    clients: usize,
    length: Duration,
    next: impl Fn(usize, u64) -> Option<Ask> + Sync,
) -> Result<Load> {
    let (connected, go) = (Barrier::new(clients + 1), Barrier::new(clients + 1));
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..clients)
            .map(|client| {
                let (connected, go, next) = (&connected, &go, &next);
                scope.spawn(move || {
                    let open = Connection::open(target);
                    connected.wait();
                    go.wait();
                    one_client(target, open, Instant::now() + length, |i| next(client, i))
                })
            })
            .collect();
        connected.wait();
        let before = process::cpu_seconds(server);
        let start = Instant::now();
        go.wait();
        let mut all = Load::default();
        let mut millis = Vec::new();
        for thread in threads {
            let Ok(one) = thread.join() else { bail!("a client's thread failed") };
            all.by_client.push(one.millis.len() as u64);
            all.failures += one.failures;
            all.failure = all.failure.or(one.failure);
            millis.extend(one.millis);
        }
        all.seconds = start.elapsed().as_secs_f64();
        all.cpu = process::cpu_seconds(server)? - before?;
        all.answers = millis.len() as u64;
        all.latencies = millis.into();
        let why = all.failure.as_deref().unwrap_or("nothing was asked");
        ensure!(all.answers > 0, "{} gave no answer ({} failures, such as: {why})", target.address, all.failures);
        Ok(all)
    })
}

fn one_client(target: &Target, mut open: Result<Connection>, end: Instant, next: impl Fn(u64) -> Option<Ask>) -> One {
    let mut one = One::default();
    let mut asked = 0;
    while Instant::now() < end && one.failures < MAX_FAILURES {
        let Some(ask) = next(asked) else { break };
        asked += 1;
        let begin = Instant::now();
        let answer = open.and_then(|mut connection| {
            let response = connection.exchange(&ask.request)?;
            if response.status != ask.expect {
                let body = String::from_utf8_lossy(connection.body(&response)).into_owned();
                bail!("status {}: {body}", response.status);
            }
            Ok((connection, response))
        });
        open = match answer {
            Ok((connection, response)) => {
                one.millis.push(begin.elapsed().as_secs_f64() * 1000.0);
                if response.keep { Ok(connection) } else { Connection::open(target) }
            }
            Err(error) => {
                one.failures += 1;
                one.failure.get_or_insert_with(|| format!("{error:#}"));
                Connection::open(target)
            }
        };
    }
    one
}

/// Sends one request; returns the answer's body.
///
/// # Errors
/// The status is not the expected one.
pub fn ask(target: &Target, ask: &Ask) -> Result<Vec<u8>> {
    let mut connection = Connection::open(target)?;
    let response = connection.exchange(&ask.request).context("no answer")?;
    let body = connection.body(&response).to_vec();
    ensure!(response.status == ask.expect, "status {}: {}", response.status, String::from_utf8_lossy(&body));
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::net::{SocketAddr, TcpListener};

    /// Answers every request, and closes a connection after its third.
    fn server(answer: &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                std::thread::spawn(move || {
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
                    for _ in 0..3 {
                        if lines.by_ref().find(|l| l.is_empty()).is_none()
                            || (&stream).write_all(answer.as_bytes()).is_err()
                        {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    fn get(server: SocketAddr, length: Duration, most: u64) -> Result<Load> {
        let target = Target::plain(server);
        let request = target.request("GET", "/", "");
        let next = |_, i| (i < most).then(|| Ask { request: request.clone(), expect: 200 });
        run(&target, std::process::id(), 2, length, next)
    }

    #[test]
    fn load_counts_answers_and_reconnects() {
        let good = server("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok");
        let load = get(good, Duration::from_secs(60), 9).unwrap();
        assert_eq!((load.answers + load.failures, load.by_client.len()), (18, 2), "{load:?}");
        // Every fourth request finds its connection closed.
        assert!(load.answers >= 12 && load.latencies.quantile(1.0) > 0.0 && load.rate() > 0.0, "{load:?}");
        let load = get(good, Duration::from_millis(100), u64::MAX).unwrap();
        assert!(load.seconds < 30.0, "{load:?}");
    }

    #[test]
    fn other_answers_are_failures() {
        let bad = server("HTTP/1.1 503 Unavailable\r\ncontent-length: 0\r\n\r\n");
        let error = get(bad, Duration::from_secs(60), u64::MAX).unwrap_err().to_string();
        assert!(error.contains("(40 failures, such as: status 503"), "{error}");
    }
}
