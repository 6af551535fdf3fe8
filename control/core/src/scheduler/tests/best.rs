//! The node that is taken is one of the best: all criteria worked out anew for each node from what is there, as
//! upstream defines them, against counts kept change by change.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const HOST: &str = "kubernetes.io/hostname";
const ZONE: &str = "topology.kubernetes.io/zone";
const MIB: i64 = 1024 * 1024;

fn host(name: &str, kind: usize) -> Value {
    let mut labels = json!({HOST: name});
    if kind % 5 < 4 {
        labels[ZONE] = json!(format!("z{}", kind % 5 % 3));
    }
    if kind.is_multiple_of(2) {
        labels["disk"] = json!("ssd");
    }
    let soft: Vec<Value> =
        (0..kind % 3).map(|n| json!({"key": format!("p{n}"), "effect": "PreferNoSchedule"})).collect();
    let images = if kind.is_multiple_of(3) { json!([{"names": ["web:1"], "sizeBytes": 700 * MIB}]) } else { json!([]) };
    let size = [2, 4, 8][kind % 3];
    json!({
        "name": name, "labels": labels, "spec": {"taints": soft},
        "status": {"allocatable": {"cpu": size.to_string(), "memory": format!("{}Mi", 600 * size), "pods": "8"}, "images": images},
    })
}

const KINDS: usize = 30;

/// A pod by number; the last kinds are only put where they are by force.
fn kind(name: &str, kind: usize) -> Value {
    let app = ["web", "db"][kind % 2];
    let term = |key: &str, app: &str| json!({"topologyKey": key, "labelSelector": {"matchLabels": {"app": app}}});
    let prefer = |what: &str, weight: i64, term: Value| json!({what: {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": weight, "podAffinityTerm": term}]}});
    let image = ["web:1", "other:1"][kind / 2 % 2];
    let request = [json!({"cpu": "200m", "memory": "100Mi"}), json!({"cpu": "100m", "memory": "300Mi"}), json!({})];
    let requests = &request[kind % 3];
    let soft = |key: &str, skew: i64| json!({"maxSkew": skew, "topologyKey": key, "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": app}}});
    let mut pod = json!({
        "name": name, "labels": {"app": app},
        "containers": [{"name": "c", "image": image, "resources": {"requests": requests}}],
    });
    let more = match kind / 6 {
        0 => json!({"owner": app}),
        1 => json!({"topologySpreadConstraints": [soft(HOST, 1), soft(ZONE, 3)]}),
        2 => json!({"tolerations": [{"key": "p0", "operator": "Exists"}], "affinity": {"nodeAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 30, "preference": {"matchExpressions": [{"key": "disk", "operator": "Exists"}]}},
                {"weight": 5, "preference": {"matchExpressions": [{"key": ZONE, "operator": "In", "values": ["z1"]}]}},
            ],
        }}}),
        3 => json!({"affinity": prefer("podAffinity", 7, term(ZONE, "db")), "owner": app}),
        4 if kind.is_multiple_of(2) => json!({"affinity": prefer("podAntiAffinity", 9, term(HOST, "db"))}),
        _ => {
            json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term(ZONE, "web")]}}})
        }
    };
    pod.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pod
}

/// A cluster, plainly.
struct Plain {
    nodes: Vec<Value>,
    /// With the node's position.
    pods: Vec<(Value, usize)>,
}

impl Plain {
    fn label(&self, node: usize, key: &str) -> Option<&str> {
        self.nodes[node]["labels"][key].as_str()
    }

    fn here(&self, node: usize) -> impl Iterator<Item = &Value> {
        self.pods.iter().filter(move |(_, n)| *n == node).map(|(p, _)| p)
    }

    /// Pods in a node's domain that are as asked, on nodes that are as asked.
    fn near(&self, node: usize, key: &str, which: impl Fn(&Value) -> bool, on: impl Fn(usize) -> bool) -> Option<i64> {
        let domain = self.label(node, key)?;
        let there = |(p, n): &&(Value, usize)| self.label(*n, key) == Some(domain) && on(*n) && which(p);
        Some(self.pods.iter().filter(there).count() as i64)
    }

    fn room(&self, node: usize) -> (i64, i64) {
        let size = [2, 4, 8].map(|n: i64| (n.to_string(), n));
        let cpu = self.nodes[node]["status"]["allocatable"]["cpu"].as_str().unwrap();
        let size = size.iter().find(|(text, _)| text == cpu).unwrap().1;
        (size * 1000, size * 600 * MIB)
    }

    fn fitting(&self, pod: &Value) -> Vec<usize> {
        let fits = |node: &usize| {
            let (cpu, memory) = self.room(*node);
            let used = self.here(*node).chain([pod]).map(|p| asks(p, false));
            let used = used.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1));
            // What a pod does not ask for may be used up.
            let (more_cpu, more_memory) = asks(pod, false);
            self.here(*node).count() < 8 && (more_cpu == 0 || used.0 <= cpu) && (more_memory == 0 || used.1 <= memory)
        };
        (0..self.nodes.len()).filter(fits).collect()
    }

    /// All criteria of each node, weighed and added.
    fn totals(&self, pod: &Value, nodes: &[usize]) -> Vec<i64> {
        let each = |f: &dyn Fn(usize) -> i64| nodes.iter().map(|n| f(*n)).collect::<Vec<i64>>();
        let most = |scores: &[i64]| scores.iter().copied().max().unwrap_or(0);
        let least = |scores: &[i64]| scores.iter().copied().min().unwrap_or(0);
        let to_most = |scores: Vec<i64>| -> Vec<i64> {
            let most = most(&scores);
            scores.into_iter().map(|s| if most > 0 { s * 100 / most } else { 0 }).collect()
        };
        let sum = |node: usize, counted: bool| {
            let all = self.here(node).chain([pod]).map(|p| asks(p, counted));
            all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
        };
        let free = each(&|n| {
            let (room, used) = (self.room(n), sum(n, true));
            let share = |have: i64, used: i64| if used > have { 0 } else { (have - used) * 100 / have };
            (share(room.0, used.0) + share(room.1, used.1)) / 2
        });
        let asks_nothing = asks(pod, false) == (0, 0);
        let balanced = each(&|n| {
            let (room, used) = (self.room(n), sum(n, false));
            let share = |have: i64, used: i64| (used as f64 / have as f64).min(1.0);
            let apart = (share(room.0, used.0) - share(room.1, used.1)).abs() / 2.0;
            if asks_nothing { 0 } else { ((1.0 - apart) * 100.0) as i64 }
        });
        let taints = to_most(each(&|n| {
            let taints = self.nodes[n]["spec"]["taints"].as_array().unwrap();
            let borne = |t: &&Value| pod["tolerations"][0]["key"] == t["key"];
            taints.iter().filter(|t| !borne(t)).count() as i64
        }));
        let preferred = &pod["affinity"]["nodeAffinity"];
        let affine = to_most(each(&|n| {
            let disk = if self.label(n, "disk").is_some() { 30 } else { 0 };
            let zone = if self.label(n, ZONE) == Some("z1") { 5 } else { 0 };
            if preferred.is_null() { 0 } else { disk + zone }
        }));
        let image = &pod["containers"][0]["image"];
        let has = |n: usize| self.nodes[n]["status"]["images"][0]["names"][0] == *image;
        let share = (0..self.nodes.len()).filter(|n| has(*n)).count() as f64 / self.nodes.len() as f64;
        let images = each(&|n| {
            let bytes = if has(n) { (700.0 * MIB as f64 * share) as i64 } else { 0 };
            100 * (bytes.clamp(23 * MIB, 1000 * MIB) - 23 * MIB) / (977 * MIB)
        });
        let even = self.even(pod, nodes);
        let near = each(&|n| self.neighbours(pod, n));
        let (low, high) = (least(&near), most(&near));
        let mut totals = Vec::new();
        for i in 0..nodes.len() {
            let near = if high > low { 100 * (near[i] - low) / (high - low) } else { 0 };
            let tainted = 100 - taints[i];
            totals.push(free[i] + balanced[i] + 3 * tainted + 2 * affine[i] + images[i] + 2 * even[i] + 2 * near);
        }
        totals
    }

    fn even(&self, pod: &Value, nodes: &[usize]) -> Vec<i64> {
        let own = pod["topologySpreadConstraints"].as_array();
        let owner = &pod["owner"];
        let constraints: Vec<(&str, i64)> = match own {
            Some(list) => {
                list.iter().map(|c| (c["topologyKey"].as_str().unwrap(), c["maxSkew"].as_i64().unwrap())).collect()
            }
            None if owner.is_string() => vec![(HOST, 3), (ZONE, 5)],
            None => return vec![0; nodes.len()],
        };
        let all_keys = |n: usize| constraints.iter().all(|(key, _)| self.label(n, key).is_some());
        let ignored = |n: usize| own.is_some() && !all_keys(n);
        let sums: Vec<Option<i64>> = nodes
            .iter()
            .map(|n| {
                let mut sum = 0.0;
                for (key, skew) in &constraints {
                    let counted =
                        |p: &Value| if own.is_some() { p["labels"] == pod["labels"] } else { p["owner"] == *owner };
                    let on = |n: usize| own.is_none() || all_keys(n);
                    let domains: BTreeSet<&str> =
                        nodes.iter().filter(|n| !ignored(**n)).filter_map(|n| self.label(*n, key)).collect();
                    if let Some(count) = self.near(*n, key, counted, on) {
                        sum += count as f64 * (domains.len() as f64 + 2.0).ln() + (skew - 1) as f64;
                    }
                }
                (!ignored(*n)).then_some(sum.round() as i64)
            })
            .collect();
        let known = || sums.iter().flatten().copied();
        let (least, most) = (known().min().unwrap_or(0), known().max().unwrap_or(0));
        let scaled = |sum: &Option<i64>| match sum {
            None => 0,
            Some(_) if most == 0 => 100,
            Some(sum) => 100 * (most + least - sum) / most,
        };
        sums.iter().map(scaled).collect()
    }

    fn neighbours(&self, pod: &Value, node: usize) -> i64 {
        let terms = |p: &Value| -> Vec<(i64, Value)> {
            let preferred = |what: &str, sign: i64| {
                let term = &p["affinity"][what]["preferredDuringSchedulingIgnoredDuringExecution"][0];
                term["weight"].as_i64().map(|weight| (sign * weight, term["podAffinityTerm"].clone()))
            };
            preferred("podAffinity", 1).into_iter().chain(preferred("podAntiAffinity", -1)).collect()
        };
        let selects = |term: &Value, p: &Value| term["labelSelector"]["matchLabels"] == p["labels"];
        let mut sum = 0;
        for (weight, term) in terms(pod) {
            let key = term["topologyKey"].as_str().unwrap();
            sum += weight * self.near(node, key, |p| selects(&term, p), |_| true).unwrap_or(0);
        }
        for (p, n) in &self.pods {
            let required = &p["affinity"]["podAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"][0];
            let required = (!required.is_null()).then(|| (1, required.clone()));
            for (weight, term) in terms(p).into_iter().chain(required) {
                let key = term["topologyKey"].as_str().unwrap();
                let same = self.label(*n, key).is_some() && self.label(*n, key) == self.label(node, key);
                sum += if same && selects(&term, pod) { weight } else { 0 };
            }
        }
        sum
    }
}

/// CPU and memory that a pod asks for; `counted`, with what one that asks for none counts as.
fn asks(pod: &Value, counted: bool) -> (i64, i64) {
    let requests = &pod["containers"][0]["resources"]["requests"];
    match requests["cpu"].as_str() {
        Some("200m") => (200, 100 * MIB),
        Some(_) => (100, 300 * MIB),
        None if counted => (100, 200 * MIB),
        None => (0, 0),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_best_node_is_taken(
        hosts in prop::collection::vec(0..30_usize, 1..8),
        placed in prop::collection::vec((0..KINDS, 0..8_usize), 0..20),
        coming in prop::collection::vec((0..27_usize, any::<bool>()), 1..30),
    ) {
        let mut world = World::default();
        let mut plain = Plain { nodes: Vec::new(), pods: Vec::new() };
        for (n, k) in hosts.iter().enumerate() {
            let value = host(&format!("n{n}"), *k);
            world.snapshot.set_node(node(value.clone()));
            plain.nodes.push(value);
        }
        for (i, (k, n)) in placed.iter().enumerate() {
            let (value, n) = (kind(&format!("old{i}"), *k), n % hosts.len());
            world.snapshot.assume(&pod(value.clone()), &format!("n{n}"));
            plain.pods.push((value, n));
        }
        for (i, (k, leaves)) in coming.iter().enumerate() {
            let k = if *k >= 24 && !k.is_multiple_of(2) { 24 } else { *k };
            let value = kind(&format!("new{i}"), k);
            let fitting = plain.fitting(&value);
            match world.put(&pod(value.clone())) {
                Err(failure) => prop_assert!(fitting.is_empty(), "{} may go to {:?}: {}", value, fitting, failure.message),
                Ok(node) => {
                    let n: usize = node.trim_start_matches('n').parse().unwrap();
                    let totals = plain.totals(&value, &fitting);
                    let at = fitting.iter().position(|f| *f == n);
                    prop_assert!(at.is_some(), "{} on {}, may: {:?}", value, node, fitting);
                    let best = totals.iter().max().unwrap();
                    prop_assert_eq!(&totals[at.unwrap()], best, "{} on {}: {:?} for {:?}", value, node, totals, fitting);
                    plain.pods.push((value, n));
                }
            }
            if *leaves && !plain.pods.is_empty() {
                let (gone, _) = plain.pods.remove(i % plain.pods.len());
                world.snapshot.forget_pod(gone["name"].as_str().unwrap());
            }
        }
    }
}
