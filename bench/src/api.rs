//! `cargo xtask bench api`: the API server's verbs at several numbers of clients, watch fan-out, memory by number of
//! objects, and the store beside raw redb and etcd. The server runs without a node, on a durable store.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::cluster::{Cluster, Parts, poll};
use crate::load::{self, Ask, Load};
use crate::program::step;
use crate::report::{self, Samples, number, table};
use crate::target::Target;
use crate::{Tools, etcd, fanout, memory, store};

/// Clients at once.
pub const CLIENTS: [usize; 3] = [1, 16, 64];
/// Bytes of data in every object.
pub const VALUE: usize = 1024;
const ROUNDS: usize = 3;
const ROUND: Duration = Duration::from_secs(3);
/// Updates and deletes end when their work is done; this is only their limit.
const LIMIT: Duration = Duration::from_secs(60);
/// Objects in the list.
const LISTED: u64 = 2000;
/// Where the other verbs work.
const NAMESPACE: &str = "default";

/// Measures, prints the tables.
///
/// # Errors
/// A part failed; its heading says so.
pub fn run(tools: &Tools, etcd: Option<&Path>, only: &str) -> Result<()> {
    let peer = etcd::version(etcd);
    let peers = peer.as_deref().unwrap_or("etcd cannot be had");
    println!("{}", report::about("api", &tools.copepod, peers)?);
    println!(
        "The load generator shares the cores. Figures to beat are recorded ones of upstream's API server 1.36 and etcd \
         on two cores, load generator included; they were not measured in this run. etcd and raw redb were.\n"
    );
    let mut failed = Vec::new();
    let mut part = |name: &'static str, measure: &dyn Fn() -> Result<String>| {
        if !name.contains(only) {
            return;
        }
        match measure() {
            Ok(text) => println!("## {name}\n\n{text}"),
            Err(error) => {
                println!("## {name}\n\nfailed: {error:#}\n");
                failed.push(name);
            }
        }
    };
    part("Requests", &|| requests(tools));
    part("Watch fan-out", &|| fanout::run(tools));
    part("Memory", &|| memory::run(tools));
    part("Store", &|| store::run(tools, peer.is_ok().then_some(etcd).flatten()));
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// A recorded figure of upstream's for a verb and a number of clients: requests a second, milliseconds each, CPU
/// seconds for 1,000.
struct ToBeat {
    rate: Option<f64>,
    millis: Option<f64>,
    cpu: Option<f64>,
}

fn to_beat(verb: &str, clients: usize) -> ToBeat {
    let none = ToBeat { rate: None, millis: None, cpu: None };
    match (verb, clients) {
        ("create", 1) => ToBeat { rate: Some(388.0), cpu: Some(3.1), ..none },
        ("create", 16) => ToBeat { rate: Some(851.0), cpu: Some(2.0), ..none },
        ("create", 64) => ToBeat { rate: Some(1154.0), cpu: Some(1.5), ..none },
        ("get", 1) => ToBeat { rate: Some(765.0), ..none },
        ("get", 16) => ToBeat { rate: Some(2068.0), ..none },
        ("get", 64) => ToBeat { rate: Some(2601.0), ..none },
        ("list", 1) => ToBeat { millis: Some(61.0), ..none },
        _ => none,
    }
}

/// What one verb gave at one number of clients, over all rounds.
#[derive(Default)]
struct Cell {
    rate: Samples,
    p50: Samples,
    p99: Samples,
    cpu: Samples,
    decoded: f64,
    answers: u64,
    failures: u64,
    failure: Option<String>,
}

impl Cell {
    fn add(&mut self, load: &Load, decoded: f64) {
        self.rate.push(load.rate());
        self.p50.push(load.latencies.quantile(0.5));
        self.p99.push(load.latencies.quantile(0.99));
        self.cpu.push(load.cpu_per_thousand());
        self.decoded += decoded;
        self.answers += load.answers;
        self.failures += load.failures;
        self.failure = self.failure.take().or_else(|| load.failure.clone());
    }

    fn row(&self, verb: &str, clients: usize) -> Vec<String> {
        let beat = to_beat(verb, clients);
        let (rate, p50, cpu) = (self.rate.median(), self.p50.median(), self.cpu.median());
        let (mut aims, mut times) = (Vec::new(), Vec::new());
        if let Some(theirs) = beat.rate {
            aims.push(format!("{} /s", number(theirs)));
            times.push(format!("{:.1}x the rate", rate / theirs));
        }
        if let Some(theirs) = beat.millis {
            aims.push(format!("{} ms", number(theirs)));
            times.push(format!("1/{:.1} of the time", theirs / p50));
        }
        if let Some(theirs) = beat.cpu {
            aims.push(format!("{} s CPU", number(theirs)));
            times.push(format!("1/{:.1} of the CPU", theirs / cpu));
        }
        vec![
            verb.into(),
            clients.to_string(),
            number(rate),
            number(p50),
            number(self.p99.median()),
            format!("{cpu:.3}"),
            format!("{:.3}", self.decoded / self.answers.max(1) as f64),
            aims.join(", "),
            times.join(", "),
        ]
    }
}

fn requests(tools: &Tools) -> Result<String> {
    let cluster = Cluster::start(tools, &tools.scratch.join("requests"), Parts::Control)?;
    let target = cluster.target()?;
    let server = cluster.server.pid();
    step("2,000 objects to list");
    make_namespace(&target, "list")?;
    fill(&target, server, "list", 0..LISTED)?;
    let mut cells: BTreeMap<(usize, usize), Cell> = BTreeMap::new();
    for round in 0..ROUNDS {
        for (at, clients) in CLIENTS.into_iter().enumerate() {
            step(&format!("requests of {clients} clients, round {} of {ROUNDS}", round + 1));
            for (verb, (load, decoded)) in verbs(&target, server, clients)?.into_iter().enumerate() {
                cells.entry((verb, at)).or_default().add(&load, decoded);
            }
        }
    }
    let mut rows = Vec::new();
    let mut notes = String::new();
    for ((verb, at), cell) in &cells {
        let (Some(verb), Some(clients)) = (VERBS.get(*verb), CLIENTS.get(*at)) else { continue };
        rows.push(cell.row(verb, *clients));
        if cell.failures > 0 {
            let why = cell.failure.as_deref().unwrap_or_default();
            notes += &format!("\n{verb} at {clients}: {} failures, such as: {why}\n", cell.failures);
        }
    }
    let columns = [
        "Verb",
        "Clients",
        "Per second",
        "p50, ms",
        "p99, ms",
        "Server's CPU, s per 1,000",
        "Stored objects decoded per request",
        "To beat (recorded)",
        "Copepod is",
    ];
    Ok(format!(
        "ConfigMaps of 1 KB, JSON over HTTPS with a client certificate, HTTP/1.1, kept connections; `update` is a PUT \
         that changes data; `list` answers 2,000 objects. Medians of {ROUNDS} rounds. Aims: 5 times the rate, a fifth \
         of the time and of the CPU.\n\n{}{notes}",
        table(&columns, &rows)
    ))
}

const VERBS: [&str; 5] = ["create", "get", "update", "list", "delete"];

/// One round of every verb, in the order of [`VERBS`], each with how many stored objects the server decoded meanwhile.
/// It leaves nothing behind.
fn verbs(target: &Target, server: u32, clients: usize) -> Result<Vec<(Load, f64)>> {
    let name = |client: usize, i: u64| format!("c{client}-{i}");
    let path = |name: &str| format!("/api/v1/namespaces/{NAMESPACE}/configmaps/{name}");
    let mut made: Vec<u64> = Vec::new();
    let mut loads = Vec::new();
    for verb in VERBS {
        let count = |client: usize| made.get(client).copied().unwrap_or_default().max(1);
        let next = |client: usize, i: u64| match verb {
            "create" => Some(create(target, NAMESPACE, &name(client, i))),
            "get" => {
                let request = target.request("GET", &path(&name(client, i % count(client))), "");
                Some(Ask { request, expect: 200 })
            }
            "update" => {
                let name = name(client, i % count(client));
                let body = config_map(&name, char::from(b'a' + (i / count(client) % 25) as u8));
                Some(Ask { request: target.request("PUT", &path(&name), &body), expect: 200 })
            }
            "list" => {
                let request = target.request("GET", "/api/v1/namespaces/list/configmaps", "");
                Some(Ask { request, expect: 200 })
            }
            _ => (i < count(client)).then(|| {
                let request = target.request("DELETE", &path(&name(client, i)), "");
                Ask { request, expect: 200 }
            }),
        };
        let before = decoded(target)?;
        let length = if verb == "delete" { LIMIT } else { ROUND };
        let load = load::run(target, server, clients, length, next).with_context(|| verb.to_string())?;
        if verb == "create" {
            made.clone_from(&load.by_client);
        }
        // The server's own controllers decode now and then: what counts is this verb's.
        let after = decoded(target)?;
        let label = metric_verb(verb);
        let difference = after.get(label).unwrap_or(&0.0) - before.get(label).unwrap_or(&0.0);
        loads.push((load, difference));
    }
    Ok(loads)
}

fn metric_verb(verb: &str) -> &'static str {
    match verb {
        "create" => "POST",
        "get" => "GET",
        "update" => "PUT",
        "list" => "LIST",
        "watch" => "WATCH",
        _ => "DELETE",
    }
}

/// How many stored objects the server has decoded so far, by verb.
///
/// # Errors
/// `/metrics` does not answer.
pub fn decoded(target: &Target) -> Result<BTreeMap<String, f64>> {
    let ask = Ask { request: target.request("GET", "/metrics", ""), expect: 200 };
    let text = String::from_utf8(load::ask(target, &ask)?)?;
    Ok(decoded_in(&text))
}

fn decoded_in(metrics: &str) -> BTreeMap<String, f64> {
    let line = |line: &str| {
        let rest = line.strip_prefix("copepod_stored_objects_decoded_total{verb=\"")?;
        let (verb, value) = rest.split_once("\"} ")?;
        Some((verb.to_string(), value.trim().parse().ok()?))
    };
    metrics.lines().filter_map(line).collect()
}

/// A ConfigMap in JSON with 1 KB of data.
pub fn config_map(name: &str, fill: char) -> String {
    let data = fill.to_string().repeat(VALUE);
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"text": data}}).to_string()
}

/// The request that creates it.
pub fn create(target: &Target, namespace: &str, name: &str) -> Ask {
    let path = format!("/api/v1/namespaces/{namespace}/configmaps");
    Ask { request: target.request("POST", &path, &config_map(name, 'z')), expect: 201 }
}

/// Makes a namespace.
///
/// # Errors
/// It is refused.
pub fn make_namespace(target: &Target, name: &str) -> Result<()> {
    let body = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}).to_string();
    let request = target.request("POST", "/api/v1/namespaces", &body);
    poll(LIMIT, || load::ask(target, &Ask { request: request.clone(), expect: 201 }).map(drop))
}

/// Creates ConfigMaps called `o0`, `o1` and so on, as many clients as are usual for it.
///
/// # Errors
/// One is refused.
pub fn fill(target: &Target, server: u32, namespace: &str, numbers: std::ops::Range<u64>) -> Result<Load> {
    let clients = 16;
    let next = |client: usize, i: u64| {
        let number = numbers.start + i * clients + client as u64;
        (number < numbers.end).then(|| create(target, namespace, &format!("o{number}")))
    };
    let load = load::run(target, server, clients as usize, Duration::from_secs(600), next)?;
    let failure = load.failure.as_deref().unwrap_or_default();
    ensure!(load.failures == 0, "{} creates failed, such as: {failure}", load.failures);
    Ok(load)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodings_are_read_from_the_metrics() {
        let text = "# TYPE copepod_stored_objects_decoded_total counter\n\
                    copepod_stored_objects_decoded_total{verb=\"GET\"} 3\nother{verb=\"LIST\"} 4\n";
        assert_eq!(decoded_in(text), BTreeMap::from([("GET".to_string(), 3.0)]));
    }

    #[test]
    fn a_row_says_how_it_stands_to_what_is_recorded() {
        let mut cell = Cell::default();
        let load = Load { answers: 3880, seconds: 2.0, cpu: 1.203_1, latencies: vec![1.0].into(), ..Load::default() };
        cell.add(&load, 1940.0);
        let row = cell.row("create", 1);
        assert_eq!(row[2..7], ["1940", "1.00", "1.00", "0.310", "0.500"]);
        assert_eq!(row[7..], ["388 /s, 3.10 s CPU", "5.0x the rate, 1/10.0 of the CPU"]);
        assert_eq!(cell.row("update", 1)[7..], ["", ""]);
    }
}
