//! What this machine and its containers use, in the form of the kubelet's `/stats/summary`. CPU time is sampled now and
//! then, so that rates are there for whoever asks. Rates and parsing are pure; `/proc` is read at the edge.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::observed::Stage;
use crate::pods::{Found, Pods};
use crate::runtime::Usage;

/// How often CPU time is sampled.
pub const SAMPLE_PERIOD: Duration = Duration::from_secs(5);
/// Samples kept: a rate is over 10 to 15 seconds, or over the time since a container's first sample.
const KEPT: usize = 3;
/// Rates over less time than this say nothing.
const MIN_WINDOW: Duration = Duration::from_secs(1);
/// Milliseconds of one unit of `/proc/stat`, which the kernel prints in hundredths of a second whatever its own tick is.
const TICK_MS: u64 = 10;

/// Samples CPU time and tells rates.
pub struct Meter {
    node: String,
    samples: Mutex<Samples>,
}

/// One instance of a container: a restarted container counts from zero again.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct InstanceKey {
    uid: String,
    container: String,
    instance: u32,
}

/// CPU time used at one moment.
#[derive(Debug, Clone)]
struct Sample {
    at: Instant,
    machine: Option<Duration>,
    instances: HashMap<InstanceKey, Duration>,
}

/// The newest samples, the oldest first.
#[derive(Debug, Default)]
struct Samples(VecDeque<Sample>);

/// CPU time used per time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rate {
    /// Thousand-millionths of a core.
    nano_cores: u64,
    /// Over which time.
    window: Duration,
}

/// The machine's memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Memory {
    total: u64,
    free: u64,
    /// What programs could have without swapping.
    available: u64,
}

impl Meter {
    /// Without samples yet, for the node of this name.
    pub fn new(node: &str) -> Self {
        Self { node: node.into(), samples: Mutex::default() }
    }

    /// Samples until cancelled.
    pub async fn run(self: Arc<Self>, pods: Arc<Pods>, stop: CancellationToken) {
        let mut tick = tokio::time::interval(SAMPLE_PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            let machine = busy_time(&proc_file("stat").await);
            let instances = pods.all().iter().flat_map(instances).map(|i| (i.key, i.usage.cpu)).collect();
            self.samples.lock().add(Sample { at: Instant::now(), machine, instances });
        }
    }

    /// What is used now. The rates' window, which the kubelet's form has no field for, stands beside them in `cpu`.
    pub async fn summary(&self, pods: &Pods) -> Value {
        let (stat, meminfo) = (proc_file("stat").await, proc_file("meminfo").await);
        let (now, time) = (Instant::now(), Timestamp::now().to_string());
        let samples = self.samples.lock();
        let mut node = json!({"nodeName": self.node});
        let mut set = |key: &str, value: Value| {
            if let Some(node) = node.as_object_mut() {
                node.insert(key.into(), value);
            }
        };
        if let Some(used) = busy_time(&stat) {
            set("cpu", cpu(&time, used, samples.rate(now, used, |s| s.machine)));
        }
        if let Some(memory) = memory(&meminfo) {
            let used = memory.total.saturating_sub(memory.free);
            let working_set = memory.total.saturating_sub(memory.available);
            set(
                "memory",
                json!({"time": time, "availableBytes": memory.available, "usageBytes": used,
                    "workingSetBytes": working_set}),
            );
        }
        let list: Vec<Value> = pods.all().iter().map(|pod| pod_summary(pod, &samples, now, &time)).collect();
        json!({"node": node, "pods": list})
    }
}

impl Samples {
    fn add(&mut self, sample: Sample) {
        if self.0.len() == KEPT {
            self.0.pop_front();
        }
        self.0.push_back(sample);
    }

    /// The rate since the oldest sample that knows what is asked for; `None` if there is none, or only a newer one.
    fn rate(&self, now: Instant, used: Duration, of: impl Fn(&Sample) -> Option<Duration>) -> Option<Rate> {
        let (at, before) = self.0.iter().find_map(|sample| Some((sample.at, of(sample)?)))?;
        let window = now.saturating_duration_since(at);
        if window < MIN_WINDOW {
            return None;
        }
        let nanos = used.saturating_sub(before).as_nanos().saturating_mul(1_000_000_000) / window.as_nanos();
        Some(Rate { nano_cores: u64::try_from(nanos).unwrap_or(u64::MAX), window })
    }
}

/// A running instance of a pod's container.
struct Instance {
    key: InstanceKey,
    started: Option<Timestamp>,
    usage: Usage,
}

fn instances(pod: &Found) -> Vec<Instance> {
    let view = pod.view.read();
    let mut list: Vec<Instance> = view
        .handles
        .iter()
        .map(|(name, handle)| {
            let seen = view.containers.get(name);
            let started = seen.and_then(|s| match s.stage {
                Stage::Running { since } => Some(since),
                _ => None,
            });
            let instance = seen.map_or(0, |s| s.instance());
            let key = InstanceKey { uid: pod.key.uid.clone(), container: name.clone(), instance };
            Instance { key, started, usage: handle.usage() }
        })
        .collect();
    list.sort_by(|a, b| a.key.container.cmp(&b.key.container));
    list
}

fn pod_summary(pod: &Found, samples: &Samples, now: Instant, time: &str) -> Value {
    let running = instances(pod);
    let containers: Vec<Value> = running
        .iter()
        .map(|i| {
            let rate = samples.rate(now, i.usage.cpu, |s| s.instances.get(&i.key).copied());
            json!({"name": i.key.container, "startTime": i.started.map(|t| t.to_string()),
                "cpu": cpu(time, i.usage.cpu, rate), "memory": bytes(time, i.usage.memory)})
        })
        .collect();
    let key = &pod.key;
    let used: Duration = running.iter().map(|i| i.usage.cpu).sum();
    let whole = running.iter().map(|i| i.usage.pod_memory).max().unwrap_or(0);
    json!({
        "podRef": {"name": key.name, "namespace": key.namespace, "uid": key.uid},
        "cpu": cpu(time, used, None), "memory": bytes(time, whole), "containers": containers,
    })
}

fn cpu(time: &str, used: Duration, rate: Option<Rate>) -> Value {
    let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX);
    let mut cpu = json!({"time": time, "usageCoreNanoSeconds": nanos(used)});
    if let (Some(rate), Some(cpu)) = (rate, cpu.as_object_mut()) {
        cpu.insert("usageNanoCores".into(), rate.nano_cores.into());
        cpu.insert("windowNanoSeconds".into(), nanos(rate.window).into());
    }
    cpu
}

fn bytes(time: &str, used: u64) -> Value {
    json!({"time": time, "usageBytes": used, "workingSetBytes": used})
}

/// A file of `/proc`; empty if it cannot be read.
async fn proc_file(name: &str) -> String {
    tokio::fs::read_to_string(format!("/proc/{name}")).await.unwrap_or_default()
}

/// How long the machine's cores were busy since it started, by the text of `/proc/stat`: all but idling, waiting for
/// disks and what a hypervisor took; guests' time is part of the user's.
fn busy_time(stat: &str) -> Option<Duration> {
    let line = stat.lines().find_map(|l| l.strip_prefix("cpu "))?;
    let fields: Vec<u64> = line.split_ascii_whitespace().map_while(|f| f.parse().ok()).collect();
    let [user, nice, system, _idle, _iowait, irq, softirq, ..] = *fields.as_slice() else { return None };
    let ticks = [user, nice, system, irq, softirq].into_iter().fold(0, u64::saturating_add);
    Some(Duration::from_millis(ticks.saturating_mul(TICK_MS)))
}

/// The machine's memory, by the text of `/proc/meminfo`.
fn memory(meminfo: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Memory { total: field("MemTotal")?, free: field("MemFree")?, available: field("MemAvailable")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(instance: u32) -> InstanceKey {
        InstanceKey { uid: "u".into(), container: "c".into(), instance }
    }

    #[test]
    fn rates_are_over_the_kept_samples() {
        let start = Instant::now();
        let mut samples = Samples::default();
        let add = |samples: &mut Samples, second: u32, instance: u32, used_ms: u64| {
            let instances = [(key(instance), Duration::from_millis(used_ms))].into();
            samples.add(Sample { at: start + SECOND * second, machine: Some(SECOND * second / 2), instances });
        };
        let rate = |samples: &Samples, second: u32, instance: u32, used_ms: u64| {
            let of = |s: &Sample| s.instances.get(&key(instance)).copied();
            let rate = samples.rate(start + SECOND * second, Duration::from_millis(used_ms), of);
            rate.map(|r| (r.nano_cores, r.window.as_secs()))
        };
        assert_eq!(rate(&samples, 1, 0, 10), None, "no sample yet");
        add(&mut samples, 0, 0, 0);
        assert_eq!(rate(&samples, 0, 0, 10), None, "too short");
        assert_eq!(rate(&samples, 2, 0, 1000), Some((500_000_000, 2)));
        add(&mut samples, 5, 0, 1000);
        add(&mut samples, 10, 0, 1000);
        add(&mut samples, 15, 1, 4000);
        assert_eq!(samples.0.len(), KEPT);
        assert_eq!(rate(&samples, 15, 0, 2000), Some((100_000_000, 10)), "since second 5, the oldest kept");
        assert_eq!(rate(&samples, 17, 1, 4002), Some((1_000_000, 2)), "an instance counts from its own first sample");
        assert_eq!(rate(&samples, 17, 1, 3000), Some((0, 2)), "never below nothing");
        assert_eq!(rate(&samples, 17, 2, 1), None, "an instance without a sample");
        let machine = samples.rate(start + SECOND * 20, SECOND * 10, |s| s.machine).unwrap();
        assert_eq!((machine.nano_cores, machine.window), (500_000_000, SECOND * 15));
    }

    #[test]
    fn proc_texts() {
        let stat = "cpu  100 20 30 4000 500 6 7 800 90 10\ncpu0 1 2 3\n";
        for (text, expected) in [
            (stat, Some(Duration::from_millis(1630))),
            ("cpu  360000000 0 0 0 0 0 0\n", Some(Duration::from_secs(3_600_000))),
            ("cpu0 1 2 3 4 5 6 7\n", None),
            ("cpu  1 2 3\n", None),
            ("", None),
        ] {
            assert_eq!(busy_time(text), expected, "{text}");
        }
        let meminfo = "MemTotal:       16000 kB\nMemFree:         4000 kB\nMemAvailable:    8000 kB\n";
        let kib = 1024;
        let expected = Memory { total: 16000 * kib, free: 4000 * kib, available: 8000 * kib };
        assert_eq!(memory(meminfo), Some(expected));
        assert_eq!(memory("MemTotal: 16000 kB\n"), None);
        assert_eq!(memory("MemTotal: x kB\nMemFree: 1 kB\nMemAvailable: 1 kB\n"), None);
    }

    #[tokio::test]
    async fn this_machine_can_be_read() {
        assert!(busy_time(&proc_file("stat").await).is_some_and(|busy| !busy.is_zero()));
        assert!(memory(&proc_file("meminfo").await).is_some_and(|m| m.total > m.available && m.available > 0));
    }
}
