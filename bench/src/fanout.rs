//! Watch fan-out: many watches of one collection, each on a TLS connection of its own, and writers that change it.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::Tools;
use crate::api::{config_map, decoded, fill, make_namespace};
use crate::cluster::{Cluster, Parts};
use crate::http::Connection;
use crate::load::{self, Ask};
use crate::process;
use crate::program::step;
use crate::report::{Samples, number, table};
use crate::target::Target;

const ROUNDS: usize = 3;
const SIZES: [Size; 2] = [
    Size { watchers: 100, events: 3000, to_beat: None },
    Size { watchers: 1000, events: 400, to_beat: Some(ToBeat { rate: 32_600.0, micros: 38.0 }) },
];
const WRITERS: u64 = 4;
const OBJECTS: u64 = 16;
const COLLECTION: &str = "/api/v1/namespaces/fan/configmaps";
const LIMIT: Duration = Duration::from_secs(120);
/// A watcher's thread needs little.
const STACK: usize = 256 << 10;

/// One fan-out.
struct Size {
    watchers: usize,
    /// For each watcher.
    events: u64,
    to_beat: Option<ToBeat>,
}

/// Recorded figures of upstream's: events a second, and microseconds of CPU for each.
struct ToBeat {
    rate: f64,
    micros: f64,
}

/// Measures both sizes.
///
/// # Errors
/// A watch broke or fell behind.
pub fn run(tools: &Tools) -> Result<String> {
    let cluster = Cluster::start(tools, &tools.scratch.join("fan-out"), Parts::Control)?;
    let target = cluster.target()?;
    make_namespace(&target, "fan")?;
    fill(&target, cluster.server.pid(), "fan", 0..OBJECTS)?;
    let mut rows = Vec::new();
    for Size { watchers, events, to_beat } in SIZES {
        let (mut rate, mut cpu, mut opened) = (Samples::default(), Samples::default(), 0.0);
        for round in 0..ROUNDS {
            step(&format!("{watchers} watchers, round {} of {ROUNDS}", round + 1));
            let before = decoded(&target)?;
            let one = fan_out(&target, cluster.server.pid(), watchers, events)?;
            let after = decoded(&target)?;
            rate.push(one.rate);
            cpu.push(one.cpu_micros);
            opened += after.get("WATCH").unwrap_or(&0.0) - before.get("WATCH").unwrap_or(&0.0);
        }
        let (beat, times) = match to_beat {
            Some(ToBeat { rate: r, micros: c }) => (
                format!("{} /s, {} us", number(r), number(c)),
                format!("{:.1}x the rate, 1/{:.1} of the CPU", rate.median() / r, c / cpu.median()),
            ),
            None => Default::default(),
        };
        let delivered = watchers as u64 * events;
        rows.push(vec![
            watchers.to_string(),
            delivered.to_string(),
            rate.show("/s"),
            cpu.show("us"),
            number(opened),
            beat,
            times,
        ]);
    }
    let columns = [
        "Watchers",
        "Events delivered a round",
        "Delivered per second",
        "Server's CPU per delivered event",
        "Stored objects decoded for watches, all rounds",
        "To beat (recorded)",
        "Copepod is",
    ];
    Ok(format!(
        "{WRITERS} writers change {OBJECTS} ConfigMaps of 1 KB; the CPU of their writes is in the figure. From the first \
         write until the last watcher has the last event.\n\n{}",
        table(&columns, &rows)
    ))
}

struct Round {
    rate: f64,
    cpu_micros: f64,
}

fn fan_out(target: &Target, server: u32, watchers: usize, events: u64) -> Result<Round> {
    let go = Barrier::new(watchers + 1);
    std::thread::scope(|scope| {
        let go = &go;
        let mut threads = Vec::new();
        for _ in 0..watchers {
            let watch = move || {
                let standing = stand(target);
                go.wait();
                follow(standing?, events)
            };
            threads.push(std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, watch)?);
        }
        go.wait();
        let (before, start) = (process::cpu_seconds(server)?, Instant::now());
        let writes = write(target, server, events);
        let mut last = start;
        for thread in threads {
            let ended = thread.join().map_err(|_| anyhow::anyhow!("a watcher's thread failed"))?;
            last = last.max(ended.context("a watcher")?);
        }
        writes?;
        let used = process::cpu_seconds(server)? - before;
        let delivered = (watchers as u64 * events) as f64;
        let seconds = last.duration_since(start).as_secs_f64();
        Ok(Round { rate: delivered / seconds, cpu_micros: used * 1e6 / delivered })
    })
}

/// Opens a watch of what changes from now on.
fn stand(target: &Target) -> Result<Connection> {
    let mut connection = Connection::open(target)?;
    let list = connection.exchange(&target.request("GET", &format!("{COLLECTION}?limit=1"), ""))?;
    ensure!(list.status == 200, "the list answered {}", list.status);
    let list: serde_json::Value = serde_json::from_slice(connection.body(&list))?;
    let revision = list.pointer("/metadata/resourceVersion").and_then(|v| v.as_str()).context("no resourceVersion")?;
    let path = format!("{COLLECTION}?watch=1&resourceVersion={revision}");
    connection.start_stream(&target.request("GET", &path, ""))?;
    Ok(connection)
}

/// Reads so many events; returns when the last came.
fn follow(mut connection: Connection, events: u64) -> Result<Instant> {
    let mut counter = Counter::default();
    while counter.events < events {
        let seen = counter.events;
        let bytes = connection.stream().with_context(|| format!("after {seen} of {events} events"))?;
        counter.count(bytes);
    }
    Ok(Instant::now())
}

/// Counts the lines of a body in chunks: JSON has no raw control characters, and the chunks' own lines end in CR LF.
#[derive(Default)]
struct Counter {
    events: u64,
    last: u8,
}

impl Counter {
    fn count(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.events += u64::from(byte == b'\n' && self.last != b'\r');
            self.last = byte;
        }
    }
}

fn write(target: &Target, server: u32, events: u64) -> Result<()> {
    let next = |writer: usize, i: u64| {
        let number = i * WRITERS + writer as u64;
        (number < events).then(|| {
            // Each object has one writer, so that no write is refused.
            let name = format!("o{}", number % OBJECTS);
            let letter = char::from(b'a' + (number / OBJECTS % 25) as u8);
            let request = target.request("PUT", &format!("{COLLECTION}/{name}"), &config_map(&name, letter));
            Ask { request, expect: 200 }
        })
    };
    let load = load::run(target, server, WRITERS as usize, LIMIT, next)?;
    let failure = load.failure.unwrap_or_default();
    ensure!(load.failures == 0 && load.answers == events, "{} writes, {failure}", load.answers);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_counted_however_they_are_cut() {
        let stream = b"14\r\n{\"type\":\"ADDED\"}\n\r\n28\r\n{\"a\":1}\n{\"a\":\"\\n\"}\n\r\n";
        for size in 1..stream.len() {
            let mut counter = Counter::default();
            stream.chunks(size).for_each(|part| counter.count(part));
            assert_eq!(counter.events, 3, "{size}");
        }
    }
}
