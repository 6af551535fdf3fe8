//! For any order of changes: counts kept change by change are those of a cluster seen at once, and no decision breaks a
//! rule, as a plain reading of the rules judges it.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

const ZONES: [&str; 3] = ["x", "y", "z"];

/// A pod by number: what it is and asks for.
fn kind(name: &str, kind: usize) -> Value {
    let app = ["web", "db"][kind % 2];
    let selector = json!({"matchLabels": {"app": app}});
    let term = |key: &str| json!([{"topologyKey": key, "labelSelector": selector}]);
    let cpu = ["100m", "500m", "1"][kind % 3];
    let mut pod = json!({"name": name, "labels": {"app": app}, "cpu": cpu});
    let more = match kind / 6 {
        0 => json!({}),
        1 => json!({"affinity": {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term("host")}}}),
        2 => json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": term("zone")}}}),
        3 => json!({"topologySpreadConstraints": [{
            "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector,
        }]}),
        4 => json!({"topologySpreadConstraints": [{
            "maxSkew": 2, "topologyKey": "host", "whenUnsatisfiable": "DoNotSchedule", "labelSelector": selector,
            "nodeTaintsPolicy": "Honor",
        }], "nodeSelector": {"disk": "ssd"}}),
        5 => json!({"containers": [{"name": "c", "ports": [{"containerPort": 1, "hostPort": 1}]}]}),
        _ => json!({"nodeSelector": {"disk": "ssd"}, "priority": 5, "affinity": {"podAntiAffinity": {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 7, "podAffinityTerm": term("zone")[0]}],
        }}}),
    };
    pod.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    pod
}
const KINDS: usize = 42;

fn host(name: &str, kind: usize) -> Value {
    let mut labels = json!({"host": name});
    if kind % 4 < 3 {
        labels["zone"] = json!(ZONES[kind % 4]);
    }
    if kind.is_multiple_of(2) {
        labels["disk"] = json!("ssd");
    }
    let taints = if kind.is_multiple_of(5) { json!([{"key": "t", "effect": "NoSchedule"}]) } else { json!([]) };
    json!({"name": name, "labels": labels, "spec": {"taints": taints}})
}

#[derive(Debug, Clone)]
enum Step {
    Node(usize, usize),
    NoNode(usize),
    Pod(usize, usize),
    NoPod(usize),
    /// Puts a pod somewhere by its name, as if another scheduler had.
    Forced(usize, usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..6_usize, 0..20_usize).prop_map(|(n, k)| Step::Node(n, k)),
        1 => (0..6_usize).prop_map(Step::NoNode),
        6 => (0..20_usize, 0..KINDS).prop_map(|(p, k)| Step::Pod(p, k)),
        2 => (0..20_usize).prop_map(Step::NoPod),
        1 => (0..20_usize, 0..KINDS, 0..6_usize).prop_map(|(p, k, n)| Step::Forced(p, k, n)),
    ];
    prop::collection::vec(step, 1..60)
}

/// What is there, plainly.
#[derive(Default)]
struct Plain {
    nodes: BTreeMap<String, Value>,
    pods: BTreeMap<String, (Value, String)>,
}

impl Plain {
    fn label<'a>(&'a self, node: &str, key: &str) -> Option<&'a str> {
        self.nodes.get(node)?["labels"][key].as_str()
    }

    fn matching<'a>(&'a self, selector: &'a Value) -> impl Iterator<Item = &'a str> {
        self.pods.values().filter(move |(p, _)| p["labels"] == selector["matchLabels"]).map(|(_, n)| n.as_str())
    }

    /// Whether a node may have a pod, by the rules that the test's pods use.
    fn may(&self, pod: &Value, node: &str) -> bool {
        let host = &self.nodes[node];
        let here = || self.pods.values().filter(|(_, n)| n == node).map(|(p, _)| p);
        let cpu = |p: &Value| pod_info(p).request.cpu_milli;
        let selected = pod["nodeSelector"].is_null() || self.label(node, "disk") == Some("ssd");
        let ports = |p: &Value| !p["containers"].is_null();
        let required = "requiredDuringSchedulingIgnoredDuringExecution";
        let same =
            |a: &str, b: &str, key: &str| self.label(a, key).is_some() && self.label(a, key) == self.label(b, key);
        let apart = &pod["affinity"]["podAntiAffinity"][required][0];
        let near = &pod["affinity"]["podAffinity"][required][0];
        let unwanted = self.pods.values().any(|(p, n)| {
            let term = &p["affinity"]["podAntiAffinity"][required][0];
            term["labelSelector"]["matchLabels"] == pod["labels"] && !term.is_null() && same(n, node, "host")
        });
        let spread = &pod["topologySpreadConstraints"][0];
        let even = spread.is_null() || {
            let key = spread["topologyKey"].as_str().unwrap();
            let honor = spread["nodeTaintsPolicy"] == "Honor";
            let counts = |n: &&String| {
                let h = &self.nodes[*n];
                self.label(n, key).is_some()
                    && (pod["nodeSelector"].is_null() || self.label(n, "disk") == Some("ssd"))
                    && (!honor || h["spec"]["taints"] == json!([]))
            };
            let domains: BTreeSet<&str> = self.nodes.keys().filter(counts).filter_map(|n| self.label(n, key)).collect();
            let eligible: BTreeSet<&String> = self.nodes.keys().filter(counts).collect();
            let count = |domain: &str| {
                let inside = |n: &&str| eligible.contains(&n.to_string()) && self.label(n, key) == Some(domain);
                self.matching(&spread["labelSelector"]).filter(inside).count()
            };
            let least = domains.iter().map(|d| count(d)).min().unwrap_or(0);
            match self.label(node, key) {
                Some(domain) => count(domain) < least + spread["maxSkew"].as_u64().unwrap() as usize,
                None => false,
            }
        };
        let near_enough = near.is_null()
            || self.label(node, "zone").is_some() && {
                let selector = &near["labelSelector"];
                let anywhere = self.matching(selector).any(|n| self.label(n, "zone").is_some());
                !anywhere || self.matching(selector).any(|n| same(n, node, "zone"))
            };
        here().count() < 3
            && host["spec"]["taints"] == json!([])
            && cpu(pod) + here().map(cpu).sum::<i64>() <= 2000
            && selected
            && !(ports(pod) && here().any(ports))
            && !unwanted
            && (apart.is_null() || !self.matching(&apart["labelSelector"]).any(|n| same(n, node, "host")))
            && near_enough
            && even
    }
}

fn pod_info(value: &Value) -> Arc<PodInfo> {
    pod(value.clone())
}

/// The same cluster, seen at once.
fn rebuilt(plain: &Plain) -> World {
    let mut world = World::default();
    for (p, n) in plain.pods.values() {
        world.snapshot.assume(&pod_info(p), n);
    }
    plain.nodes.values().for_each(|n| world.snapshot.set_node(node(n.clone())));
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn no_decision_breaks_a_rule_and_no_count_drifts(steps in steps()) {
        let mut world = World::default();
        let mut plain = Plain::default();
        for step in steps {
            match step {
                Step::Node(n, k) => {
                    let value = host(&format!("n{n}"), k);
                    world.snapshot.set_node(node(value.clone()));
                    plain.nodes.insert(format!("n{n}"), value);
                }
                Step::NoNode(n) => {
                    world.snapshot.remove_node(&format!("n{n}"));
                    plain.nodes.remove(&format!("n{n}"));
                }
                Step::NoPod(p) => {
                    world.snapshot.forget_pod(&format!("p{p}"));
                    plain.pods.remove(&format!("p{p}"));
                }
                Step::Forced(p, k, n) => {
                    let value = kind(&format!("p{p}"), k);
                    world.snapshot.assume(&pod_info(&value), &format!("n{n}"));
                    plain.pods.insert(format!("p{p}"), (value, format!("n{n}")));
                }
                Step::Pod(p, k) => {
                    let name = format!("p{p}");
                    if plain.pods.contains_key(&name) {
                        continue;
                    }
                    let value = kind(&name, k);
                    let fitting: Vec<&String> = plain.nodes.keys().filter(|n| plain.may(&value, n)).collect();
                    match world.put(&pod_info(&value)) {
                        Ok(node) => {
                            prop_assert!(fitting.contains(&&node), "{} on {}, may: {:?}", value, node, fitting);
                            plain.pods.insert(name, (value, node));
                        }
                        Err(failure) => prop_assert!(fitting.is_empty(), "{} may go to {:?}: {}", value, fitting, failure.message),
                    }
                }
            }
        }
        let mut fresh = rebuilt(&plain);
        for k in 0..KINDS {
            let probe = pod_info(&kind("probe", k));
            prop_assert_eq!(world.verdicts(&probe), fresh.verdicts(&probe), "kind {}", k);
        }
        for (name, info) in world.snapshot.nodes() {
            let other = fresh.snapshot.node(name).unwrap();
            prop_assert_eq!((&info.used, &info.counted, info.pod_count()), (&other.used, &other.counted, other.pod_count()));
        }
        // All pods gone, nothing is left.
        for name in plain.pods.keys() {
            world.snapshot.forget_pod(name);
        }
        world.snapshot.index.sweep();
        prop_assert_eq!(world.snapshot.index.sizes().1, 0);
        for (_, info) in world.snapshot.nodes() {
            prop_assert!(info.used.is_nothing() && info.pods.is_empty() && info.ports.is_empty());
        }
    }
}
