//! A simulated cluster under the StatefulSet decision, with old caches and crashes.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::testing_cluster::Cluster;
use super::tests::{SET, cluster, decide, image};
use super::*;

/// A simulation: the cluster, its past (for old caches), and what runs on the node by UID.
struct Sim {
    cluster: Cluster,
    past: Vec<Cluster>,
    /// How far each cache has come, as an index of `past`.
    caches: [usize; 4],
    processes: BTreeMap<String, String>,
    failures: Backoff,
}

impl Sim {
    fn new(more: &str) -> Self {
        let cluster = cluster(more);
        Self {
            past: vec![cluster.clone()],
            cluster,
            caches: [0; 4],
            processes: BTreeMap::new(),
            failures: Backoff::default(),
        }
    }

    /// Syncs from caches that are up to `lag` changes old, each for itself, and carries out at most `most` writes.
    fn sync(&mut self, lag: usize, most: usize) {
        let newest = self.past.len() - 1;
        for (at, cache) in self.caches.iter_mut().enumerate() {
            *cache = (*cache).max(newest.saturating_sub(if lag == 0 { 0 } else { (lag * (at + 1)) % 7 }));
        }
        let [sets, pods, claims, revisions] = self.caches;
        let (pods, claims) = (self.past[pods].list("pods"), self.past[claims].list("persistentvolumeclaims"));
        let revisions = self.past[revisions].list("controllerrevisions");
        let set = self.past[sets].list::<StatefulSet>(SET)[0].clone();
        let seen = Observed { pods: &pods, claims: &claims, revisions: &revisions };
        let plan = reconcile(&set, &seen, &mut self.failures, self.cluster.now());
        check_bounds(&set, &pods, &plan, self.cluster.now());
        self.cluster.apply(&plan, most);
    }

    fn pods(&self, which: impl Fn(&Value) -> bool) -> Vec<String> {
        let name = |p: &Value| p["metadata"]["name"].as_str().unwrap().to_string();
        self.cluster.values("pods").filter(|p| which(p)).map(name).collect()
    }

    fn start(&mut self, pod: &str, ready: bool) {
        let uid = self.cluster.get("pods", pod).unwrap()["metadata"]["uid"].as_str().unwrap().to_string();
        self.processes.insert(uid, pod.to_string());
        self.cluster.run(pod, "n1", ready);
    }

    /// The node has stopped a pod that is being deleted.
    fn stopped(&mut self, pod: &str) {
        let uid = self.cluster.get("pods", pod).unwrap()["metadata"]["uid"].as_str().unwrap().to_string();
        self.processes.remove(&uid);
        self.cluster.remove("pods", pod);
    }

    fn step(&mut self, what: u8, which: usize) {
        let pick = |from: Vec<String>| from.get(which % from.len().max(1)).cloned();
        let pending = |p: &Value| p["status"]["phase"] == "Pending" && p["metadata"]["deletionTimestamp"].is_null();
        let runs = |p: &Value| p["status"]["phase"] == "Running";
        let ending = |p: &Value| !p["metadata"]["deletionTimestamp"].is_null();
        match what % 12 {
            0..=2 => self.sync(which % 5, usize::MAX),
            3 => self.sync(0, which % 3),
            4 | 5 => pick(self.pods(pending)).into_iter().for_each(|p| self.start(&p, !which.is_multiple_of(5))),
            6 | 7 => pick(self.pods(ending)).into_iter().for_each(|p| self.stopped(&p)),
            8 => pick(self.pods(runs)).into_iter().for_each(|p| self.cluster.run(&p, "n1", which.is_multiple_of(2))),
            9 => pick(self.pods(runs)).into_iter().for_each(|p| self.cluster.fail(&p)),
            10 if which.is_multiple_of(3) => {
                pick(self.pods(|_| true)).into_iter().for_each(|p| self.cluster.delete("pods", &p, false))
            }
            10 => self.cluster.edit(SET, "web", |s| s["spec"]["replicas"] = json!(which % 5)),
            _ => image(&mut self.cluster, ["a", "b", "c"][which % 3]),
        }
        self.cluster.wait(i64::from(what) % 3);
        self.past.push(self.cluster.clone());
        let names: std::collections::BTreeSet<&String> = self.processes.values().collect();
        assert_eq!(names.len(), self.processes.len(), "two processes of one identity: {:?}", self.processes);
        for (uid, pod) in &self.processes {
            let object = self.cluster.get("pods", pod).map(|p| p["metadata"]["uid"].clone());
            assert_eq!(object, Some(json!(uid)), "{pod} runs without its object");
        }
    }

    /// Everything heals: all converges, and then nothing is written.
    fn heal(&mut self) {
        for _ in 0..200 {
            self.cluster.wait(2000);
            for pod in self.pods(|p| !p["metadata"]["deletionTimestamp"].is_null()) {
                self.stopped(&pod);
            }
            for pod in self.pods(|p| p["status"]["phase"] != "Failed") {
                self.start(&pod, true);
            }
            self.cluster.wait(100);
            self.past.push(self.cluster.clone());
            let plan = decide(&self.cluster, &mut self.failures);
            if plan.is_empty() {
                return;
            }
            self.cluster.apply(&plan, usize::MAX);
        }
        panic!("does not converge: {:?}", decide(&self.cluster, &mut self.failures));
    }
}

/// The lowest ordinal.
fn start(spec: &StatefulSetSpec) -> i32 {
    spec.ordinals.as_ref().and_then(|o| o.start).unwrap_or(0)
}

/// No plan takes away more available pods than may be unavailable, and under OrderedReady none does two things at once.
fn check_bounds(set: &StatefulSet, pods: &[Arc<Pod>], plan: &Plan, now: Timestamp) {
    let spec = set.spec.as_ref().unwrap();
    let writes: Vec<&Action> = plan
        .actions
        .iter()
        .filter(|a| a.target().gvr.resource == "pods" && !matches!(a, Action::Patch { .. }))
        .collect();
    let unavailable = spec.update_strategy.as_ref().and_then(|s| s.rolling_update.as_ref()?.max_unavailable.as_ref());
    let replicas = spec.replicas.unwrap();
    let allowed = unavailable.map_or(1, |u| meta::scaled(Some(u), replicas, false)).max(1);
    if spec.pod_management_policy.as_deref() != Some("Parallel") {
        assert!(writes.len() <= usize::try_from(allowed).unwrap(), "{writes:?}");
    }
    let first = start(spec);
    let in_range = |name: &str| pods::ordinal("web", name).is_some_and(|n| (first..first + replicas).contains(&n));
    let least = usize::try_from(replicas - allowed).unwrap_or(0);
    for (what, min_ready) in [("ready", 0), ("available", spec.min_ready_seconds.unwrap_or(0))] {
        let up: Vec<&str> = pods
            .iter()
            .filter(|p| pod::active(p) && pod::phase(p) == "Running" && in_range(text(&p.metadata.name)))
            .filter(|p| pod::available_in(p, min_ready, now).is_some_and(|w| w.is_zero()))
            .map(|p| text(&p.metadata.name))
            .collect();
        let taken = writes.iter().filter(|a| up.contains(&a.target().name.as_str())).count();
        let stay = up.len() - taken;
        assert!(taken == 0 || stay >= least, "{taken} {what} pods taken, {stay} of {least} stay: {plan:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]
    #[test]
    fn no_two_pods_share_an_identity_and_all_heals(
        shape in 0_usize..9,
        steps in prop::collection::vec((any::<u8>(), 0_usize..100), 1..80),
    ) {
        let shapes = [
            "",
            "podManagementPolicy: Parallel",
            "minReadySeconds: 3, updateStrategy: {rollingUpdate: {partition: 1}}",
            "podManagementPolicy: Parallel, updateStrategy: {rollingUpdate: {maxUnavailable: 2}}",
            "updateStrategy: {rollingUpdate: {maxUnavailable: 50%}}, volumeClaimTemplates: [{metadata: {name: data}}]",
            "podManagementPolicy: Parallel, updateStrategy: {type: OnDelete, rollingUpdate: null}",
            "podManagementPolicy: Parallel, minReadySeconds: 9",
            "ordinals: {start: 6}, updateStrategy: {rollingUpdate: {partition: 1, maxUnavailable: 2}}",
            "ordinals: {start: 6}, podManagementPolicy: Parallel, updateStrategy: {rollingUpdate: {partition: 1}}",
        ];
        let mut sim = Sim::new(shapes[shape]);
        for (what, which) in steps {
            sim.step(what, which);
        }
        sim.heal();
        let set = sim.cluster.list::<StatefulSet>(SET)[0].clone();
        let (spec, status) = (set.spec.as_ref().unwrap(), set.status.as_ref().unwrap());
        let expected: Vec<String> = (0..spec.replicas.unwrap()).map(|n| format!("web-{}", start(spec) + n)).collect();
        prop_assert_eq!(sim.cluster.names("pods"), expected);
        prop_assert_eq!(status.available_replicas, spec.replicas);
        let latest = status.update_revision.clone().unwrap();
        let from = usize::from([2, 7, 8].contains(&shape));
        if shape != 5 {
            for pod in sim.cluster.list::<Pod>("pods").iter().skip(from) {
                prop_assert_eq!(revision(pod), &latest);
            }
        }
        prop_assert!(sim.cluster.names("controllerrevisions").len() <= 3, "all three templates at most");
    }
}
