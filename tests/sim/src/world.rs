//! The cluster as the store has it, rebuilt from every single commit. Each commit is held against the promises
//! (`rules`), and what is not as asked for yet can be named (`unfinished`).

mod priority;
mod rules;
mod storage;
#[cfg(test)]
mod tests;
mod unfinished;
mod workloads;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash};
use std::sync::Arc;
use std::time::Duration;

use copepod_server::api::Clock;
use copepod_store::{Event, EventKind};
use jiff::Timestamp;
use serde_json::Value;

use crate::wire::Wire;

/// How long what was asked for is remembered.
const MEMORY: Duration = Duration::from_secs(300);

const MINUTE: Duration = Duration::from_secs(60);
/// So many times a minute no object need be written.
const MOST_WRITES: u32 = 300;

/// A number that was asked for, and what it was before: those who act may have seen an older one.
#[derive(Default)]
pub struct Recent(VecDeque<(Timestamp, i64)>);

impl Recent {
    fn set(&mut self, now: Timestamp, value: i64) {
        if self.0.back().is_some_and(|(_, last)| *last == value) {
            return;
        }
        self.0.push_back((now, value));
        while self.0.len() > 1 && now.duration_since(self.0[1].0).unsigned_abs() > MEMORY {
            self.0.pop_front();
        }
    }
    /// All values that were in force within `window`.
    fn within(&self, now: Timestamp, window: Duration) -> impl Iterator<Item = i64> {
        let ends = self.0.iter().skip(1).map(|(at, _)| *at).chain([now]);
        self.0.iter().zip(ends).filter(move |(_, end)| *end + window >= now).map(|((_, value), _)| *value)
    }
}

/// See the module.
pub struct World {
    wire: Arc<Wire>,
    clock: Clock,
    /// By the store's key: `/group/resource/namespace/name`.
    pub objects: BTreeMap<String, Value>,
    /// Commits by key since last cleared.
    pub commits: BTreeMap<String, u64>,
    /// Promises that were broken.
    pub violations: Vec<String>,
    /// Pods that went for others.
    pub preemptions: u32,
    /// How old what writes rested on may have been, each time that it was asked.
    pub lags: Vec<Duration>,
    /// Counts commits.
    pub version: u64,
    /// Of all that was ever written, events apart, which bear the system's time.
    pub digest: DefaultHasher,
    memory: Memory,
    /// Whether commits are printed.
    trace: bool,
}

/// What rules remember.
#[derive(Default)]
struct Memory {
    /// By a workload's key: replicas asked for.
    replicas: BTreeMap<String, Recent>,
    /// By Deployment's key: the least that must be available.
    floors: BTreeMap<String, Recent>,
    /// By Deployment's key: the most that its sets may ask for.
    ceilings: BTreeMap<String, Recent>,
    /// By namespace and `app`: pods that stopped being available, when, and by whose doing.
    losses: BTreeMap<(String, String), VecDeque<(Timestamp, Loss)>>,
    /// Since when nodes have a taint that keeps pods away, cordons included.
    tainted: BTreeMap<(String, String), Timestamp>,
    /// By Job's UID, the pods that ended well, and those that did not or were to go.
    succeeded: BTreeMap<String, BTreeSet<String>>,
    failed: BTreeMap<String, BTreeSet<String>>,
    /// By workload's name: the least and the most that its autoscaler may ask for.
    bounds: BTreeMap<String, (Recent, Recent)>,
    /// By CronJob's key: whether it is suspended.
    suspended: BTreeMap<String, Recent>,
    /// By CronJob's UID: the last time for which a Job was made.
    kept: BTreeMap<String, Timestamp>,
    /// By UID: priorities of pods that may end others and have no node, and until when they had none.
    waiting: BTreeMap<String, (i64, Option<Timestamp>)>,
    /// By UID: when pods got their nodes.
    placed: BTreeMap<String, Timestamp>,
    /// By key: since when writes are counted, and how many there were.
    written: BTreeMap<String, (Timestamp, u32)>,
}

/// By whose doing a pod is not available any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    /// Its workload's controller deleted it.
    Controller,
    /// An eviction.
    Eviction,
    /// Its node, a person, or itself.
    Other,
}

impl World {
    pub fn new(wire: Arc<Wire>, clock: Clock) -> Self {
        let (objects, commits) = (BTreeMap::new(), BTreeMap::new());
        let (violations, digest, memory) = (Vec::new(), DefaultHasher::new(), Memory::default());
        let trace = std::env::var_os("COPEPOD_SIM_TRACE").is_some();
        Self {
            wire,
            clock,
            objects,
            commits,
            violations,
            preemptions: 0,
            lags: Vec::new(),
            version: 0,
            digest,
            memory,
            trace,
        }
    }

    /// The present time.
    pub fn now(&self) -> Timestamp {
        (self.clock)()
    }

    /// Notes a broken promise.
    pub fn violate(&mut self, what: String) {
        let at = self.now();
        self.violations.push(format!("{at}: {what}"));
    }

    /// Takes in a commit.
    pub fn saw(&mut self, event: &Event) {
        let key = event.record.key.to_string();
        *self.commits.entry(key.clone()).or_default() += 1;
        self.count(&key);
        if key.starts_with("/core/events/") {
            return;
        }
        (&key, &event.record.value).hash(&mut self.digest);
        if self.trace {
            println!("{} {:?} {key} {}", self.now(), event.kind, String::from_utf8_lossy(&event.record.value));
        }
        if key.starts_with("/coordination.k8s.io/") {
            return;
        }
        let new = match event.kind {
            EventKind::Deleted => None,
            _ => Some(serde_json::from_slice::<Value>(&event.record.value).unwrap()),
        };
        self.take(key, new);
    }

    /// Holds what is stored under a key from now on against the rules.
    fn take(&mut self, key: String, new: Option<Value>) {
        self.version += 1;
        let old = self.objects.remove(&key);
        if let Some(new) = &new {
            self.objects.insert(key.clone(), new.clone());
        }
        self.obey(&key, old.as_ref(), new.as_ref());
    }

    /// Nobody writes the same again and again.
    fn count(&mut self, key: &str) {
        let now = self.now();
        let (since, count) = self.memory.written.entry(key.into()).or_insert((now, 0));
        if now.duration_since(*since).unsigned_abs() >= MINUTE {
            (*since, *count) = (now, 0);
        }
        *count += 1;
        if *count == MOST_WRITES {
            self.violate(format!("{key} is written {MOST_WRITES} times within a minute"));
        }
    }

    /// All objects of a resource, such as `core/pods`.
    pub fn all(&self, resource: &str) -> impl Iterator<Item = (&str, &Value)> {
        let prefix = format!("/{resource}/");
        let range = self.objects.range(prefix.clone()..);
        range.take_while(move |(key, _)| key.starts_with(&prefix)).map(|(key, object)| (key.as_str(), object))
    }

    /// All pods.
    pub fn pods(&self) -> impl Iterator<Item = &Value> {
        self.all("core/pods").map(|(_, pod)| pod)
    }

    /// The pods of a controller.
    fn pods_of<'a>(&'a self, uid: &'a str) -> impl Iterator<Item = &'a Value> {
        self.pods().filter(move |pod| owner(pod).is_some_and(|o| text(o, "/uid") == uid))
    }
}

/// A text, empty if there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// A number, 0 if there is none.
pub fn number(object: &Value, pointer: &str) -> i64 {
    object.pointer(pointer).and_then(Value::as_i64).unwrap_or(0)
}

/// The name.
pub fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// The UID.
pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// Whether it is to go.
pub fn going(object: &Value) -> bool {
    object.pointer("/metadata/deletionTimestamp").is_some()
}

/// The reference to its controller.
pub fn owner(object: &Value) -> Option<&Value> {
    object.pointer("/metadata/ownerReferences")?.as_array()?.iter().find(|o| o["controller"] == true)
}

/// Whether a condition is true.
pub fn is(object: &Value, condition: &str) -> bool {
    let conditions = object.pointer("/status/conditions").and_then(Value::as_array);
    conditions.into_iter().flatten().any(|c| c["type"] == condition && c["status"] == "True")
}

/// Whether a pod has ended.
pub fn over(pod: &Value) -> bool {
    ["Succeeded", "Failed"].contains(&text(pod, "/status/phase"))
}

/// Whether a pod counts to its workload.
pub fn active(pod: &Value) -> bool {
    !over(pod) && !going(pod)
}

/// Whether a pod serves.
pub fn available(pod: &Value) -> bool {
    active(pod) && is(pod, "Ready")
}

/// A number of pods that may be given in percent.
fn scaled(value: Option<&Value>, of: i64, up: bool, default: &str) -> i64 {
    let default = Value::from(default);
    match value.unwrap_or(&default) {
        Value::Number(n) => n.as_i64().unwrap_or(0),
        other => {
            let percent: i64 = other.as_str().unwrap_or("0%").trim_end_matches('%').parse().unwrap_or(0);
            if up { (of * percent + 99) / 100 } else { of * percent / 100 }
        }
    }
}

/// A quantity in thousandths, or in MiB.
fn amount(quantity: &str) -> i64 {
    let number = |text: &str| text.parse::<i64>().unwrap_or(0);
    if let Some(milli) = quantity.strip_suffix('m') {
        number(milli)
    } else if let Some(mib) = quantity.strip_suffix("Mi") {
        number(mib)
    } else if let Some(gib) = quantity.strip_suffix("Gi") {
        number(gib) * 1024
    } else {
        number(quantity) * 1000
    }
}
