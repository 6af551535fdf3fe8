//! A Deployment and its ReplicaSets in a simulated cluster: what each decision may do, and that all heals.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::replicaset;
use super::super::testing::*;
use super::super::testing_cluster::Cluster;
use super::*;

const DEPLOYMENTS: &str = "deployments";
const SETS: &str = "replicasets";

/// A strategy, and how many pods there may be beyond the desired and how many may lack, by the desired.
type Shape = (&'static str, fn(i32) -> i32, fn(i32) -> i32);

const SHAPES: [Shape; 8] = [
    ("strategy: {rollingUpdate: {maxSurge: 25%, maxUnavailable: 25%}}", |n| (n + 3) / 4, |n| n / 4),
    ("strategy: {rollingUpdate: {maxSurge: 1, maxUnavailable: 0}}", |_| 1, |_| 0),
    ("strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 2}}", |_| 0, |_| 2),
    ("strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 0}}", |_| 0, |_| 1),
    ("strategy: {rollingUpdate: {maxSurge: 50%, maxUnavailable: 1}}", |n| (n + 1) / 2, |_| 1),
    ("minReadySeconds: 3, strategy: {rollingUpdate: {maxSurge: 2, maxUnavailable: 10%}}", |_| 2, |n| n / 10),
    ("strategy: {rollingUpdate: {maxSurge: 0, maxUnavailable: 30%}}", |_| 0, |n| (n * 3 / 10).max(1)),
    ("strategy: {type: Recreate}", |_| 0, |n| n),
];

struct Sim {
    cluster: Cluster,
    shape: Shape,
}

impl Sim {
    /// A Deployment of six that are all available.
    fn new(shape: Shape) -> Self {
        let mut deployment: Value = yaml(
            "metadata: {name: web}\nspec:\n  replicas: 6\n  selector: {matchLabels: {app: web}}\n  \
             template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: a}]}}",
        );
        let more: Value = yaml(&format!("{{{}}}", shape.0));
        json_patch::merge(&mut deployment, &json!({"spec": more}));
        let mut cluster = Cluster::default();
        cluster.create(DEPLOYMENTS, deployment).unwrap();
        let mut sim = Self { cluster, shape };
        sim.heal();
        sim
    }

    fn deployment(&self) -> Arc<Deployment> {
        self.cluster.list::<Deployment>(DEPLOYMENTS)[0].clone()
    }
    fn sets(&self) -> Vec<Arc<ReplicaSet>> {
        self.cluster.list(SETS)
    }
    fn pods(&self, which: impl Fn(&Pod) -> bool) -> Vec<Arc<Pod>> {
        self.cluster.list::<Pod>("pods").into_iter().filter(|p| which(p)).collect()
    }
    fn edit(&mut self, change: impl FnOnce(&mut Value)) {
        self.cluster.edit(DEPLOYMENTS, "web", |d| change(&mut d["spec"]));
    }

    /// Whether a pod serves.
    fn serves(&self, pod: &Pod) -> bool {
        let min_ready = self.deployment().spec.as_ref().and_then(|s| s.min_ready_seconds).unwrap_or(0);
        pod::active(pod) && pod::available_in(pod, min_ready, self.cluster.now()).is_some_and(|wait| wait.is_zero())
    }

    /// The Deployment's controller looks, and at most `most` of its writes are carried out. Whether there were any.
    fn roll_out(&mut self, most: usize) -> bool {
        let (deployment, sets) = (self.deployment(), self.sets());
        let pods = self.pods(|_| true);
        let plan = reconcile(&deployment, &sets, &pods, self.cluster.now());
        check(self.shape, &deployment, &sets, &pods, &plan);
        self.cluster.apply(&plan, most);
        !plan.is_empty()
    }

    /// A set's controller looks. Whether it wrote anything.
    fn resize(&mut self, set: &ReplicaSet) -> bool {
        let pods = self.pods(|_| true);
        let plan = replicaset::reconcile(replicaset::Kind::ReplicaSet, set, &pods, &self.sets(), self.cluster.now());
        check_set(set, &pods, &plan);
        self.cluster.apply(&plan, usize::MAX);
        !plan.is_empty()
    }

    fn start(&mut self, pod: &Pod, ready: bool) {
        self.cluster.run(text(&pod.metadata.name), "n1", ready);
    }
    fn stop_all(&mut self) {
        for pod in self.pods(pod::terminating) {
            self.cluster.remove("pods", text(&pod.metadata.name));
        }
    }

    fn step(&mut self, what: u8, which: usize, calm: bool) {
        fn pick<T: Clone>(from: &[T], which: usize) -> Option<T> {
            from.get(which % from.len().max(1)).cloned()
        }
        let running = |p: &Pod| pod::phase(p) == "Running" && !pod::terminating(p);
        match what % if calm { 12 } else { 18 } {
            0..=3 => {
                self.roll_out(if which.is_multiple_of(4) { which % 3 } else { usize::MAX });
            }
            4..=6 => {
                let at = which % self.sets().len().max(1);
                // Its status tells of what it has just ended only when it looks again.
                while self.sets().get(at).cloned().is_some_and(|set| self.resize(&set)) && calm {}
            }
            7 | 8 => {
                let pending = self.pods(|p| pod::phase(p) == "Pending" && !pod::terminating(p));
                pick(&pending, which).into_iter().for_each(|p| self.start(&p, true));
            }
            9 => self.stop_all(),
            10 if which.is_multiple_of(2) => {
                let image = ["a", "b", "c", "d"][which / 2 % 4];
                self.edit(|spec| spec["template"]["spec"]["containers"][0]["image"] = json!(image));
            }
            10 | 11 => self.cluster.wait(2),
            12 | 13 => self.edit(|spec| spec["replicas"] = json!(which % 9)),
            14 => self.edit(|spec| spec["paused"] = json!(which.is_multiple_of(2))),
            15 => pick(&self.pods(running), which).into_iter().for_each(|p| self.start(&p, false)),
            16 => pick(&self.pods(running), which).into_iter().for_each(|p| self.cluster.fail(text(&p.metadata.name))),
            _ => pick(&self.pods(running), which)
                .into_iter()
                .for_each(|p| self.cluster.delete("pods", text(&p.metadata.name), false)),
        }
    }

    /// Everything heals: all converges, and then nothing is written.
    fn heal(&mut self) {
        for _ in 0..100 {
            self.edit(|spec| spec["paused"] = json!(false));
            self.stop_all();
            for pod in self.pods(|p| pod::active(p) && !pod::ready(p)) {
                self.start(&pod, true);
            }
            self.cluster.wait(2000);
            let mut written = self.roll_out(usize::MAX);
            for set in self.sets() {
                written |= self.resize(&set);
            }
            if !written {
                return;
            }
        }
        panic!("does not converge: {:?}", self.cluster.values(SETS).collect::<Vec<_>>());
    }
}

/// Which set has how many replicas once a plan is carried out.
fn planned(sets: &[Arc<ReplicaSet>], plan: &Plan) -> BTreeMap<String, i32> {
    let mut sizes: BTreeMap<String, i32> =
        sets.iter().map(|s| (text(&s.metadata.name).into(), spec_replicas(s))).collect();
    for action in plan.actions.iter().filter(|a| a.target().gvr.resource == SETS) {
        let name = action.target().name.clone();
        let size = match action {
            Action::Create { object, .. } => object.pointer("/spec/replicas"),
            Action::Patch { patch, .. } => patch.pointer("/spec/replicas"),
            Action::Delete { .. } => {
                assert_eq!(sizes.remove(&name), Some(0), "{name} goes with its pods: {plan:?}");
                continue;
            }
        };
        if let Some(size) = size {
            sizes.insert(name, i32::try_from(size.as_i64().unwrap()).unwrap());
        }
    }
    sizes
}

/// No plan asks for more pods than the surge allows, takes available pods below what may lack, or, under Recreate,
/// starts the new before the old are gone.
fn check((_, surge, lack): Shape, d: &Deployment, sets: &[Arc<ReplicaSet>], pods: &[Arc<Pod>], plan: &Plan) {
    let spec = d.spec.as_ref().unwrap();
    let wanted = spec.replicas.unwrap();
    let before: BTreeMap<String, i32> = planned(sets, &Plan::default());
    let after = planned(sets, plan);
    let total = |sizes: &BTreeMap<String, i32>| sizes.values().sum::<i32>();
    let most = wanted + surge(wanted);
    assert!(after.values().all(|n| *n >= 0), "{plan:?}");
    assert!(total(&after) <= total(&before).max(most), "{before:?} to {after:?}, not above {most}: {plan:?}");
    // Who scales down asks for less than there was: that is no rollout.
    let noted = |s: &ReplicaSet| s.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION_DESIRED)).cloned();
    let scaled = sets.iter().any(|s| spec_replicas(s) > 0 && noted(s) != Some(wanted.to_string()));
    if scaled || spec.paused == Some(true) {
        return;
    }
    if spec.strategy.as_ref().is_some_and(|s| s.type_.as_deref() == Some("Recreate")) {
        let grows = after.iter().filter(|(name, n)| before.get(*name).copied().unwrap_or(0) < **n);
        for (name, _) in grows {
            let uid = sets.iter().find(|s| s.metadata.name.as_ref() == Some(name)).and_then(|s| s.metadata.uid.clone());
            let old = pods
                .iter()
                .filter(|p| !pod::terminal(p))
                .filter(|p| meta::controller_of(&p.metadata).map(|o| o.uid.clone()) != uid);
            assert_eq!(old.count(), 0, "{name} grows beside old pods: {plan:?}");
        }
        return;
    }
    // A set keeps those that are available as long as it can.
    let serving = |sizes: &BTreeMap<String, i32>| {
        let of = |s: &Arc<ReplicaSet>| {
            let available = s.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0);
            available.min(sizes.get(text(&s.metadata.name)).copied().unwrap_or(0))
        };
        sets.iter().map(of).sum::<i32>()
    };
    let least = serving(&before).min(wanted - lack(wanted));
    assert!(serving(&after) >= least, "{before:?} to {after:?} leaves {}, not {least}: {plan:?}", serving(&after));
}

/// No plan of a set asks for more pods than are missing, or ends more than are too many, or one that is ready while
/// another is not.
fn check_set(set: &ReplicaSet, pods: &[Arc<Pod>], plan: &Plan) {
    let ours = |p: &&Arc<Pod>| pod::active(p) && meta::controlled_by(&p.metadata, text(&set.metadata.uid));
    let (ready, unready): (Vec<_>, Vec<_>) = pods.iter().filter(ours).partition(|p| pod::ready(p));
    let names = |pods: &[&Arc<Pod>]| pods.iter().map(|p| text(&p.metadata.name).to_string()).collect::<Vec<_>>();
    let (ready, unready) = (names(&ready), names(&unready));
    let have = i32::try_from(ready.len() + unready.len()).unwrap();
    let ended: Vec<&String> =
        plan.actions.iter().filter(|a| matches!(a, Action::Delete { .. })).map(|a| &a.target().name).collect();
    let made = plan.actions.iter().filter(|a| matches!(a, Action::Create { .. })).count();
    let change = i32::try_from(made).unwrap() - i32::try_from(ended.len()).unwrap();
    assert!(made == 0 || ended.is_empty(), "{plan:?}");
    let missing = spec_replicas(set) - have;
    assert!(change == missing || (change == 0 && missing > 0), "{change} instead of {missing}: {plan:?}");
    let takes_ready = ended.iter().any(|name| ready.contains(name));
    assert!(!takes_ready || unready.iter().all(|name| ended.contains(&name)), "{plan:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]
    #[test]
    fn no_plan_exceeds_its_bounds_and_all_heals(
        shape in 0_usize..8,
        steps in prop::collection::vec((any::<u8>(), 0_usize..100), 1..90),
    ) {
        let mut sim = Sim::new(SHAPES[shape]);
        for (what, which) in steps {
            sim.step(what, which, false);
        }
        sim.heal();
        let (deployment, pods) = (sim.deployment(), sim.pods(pod::active));
        let (spec, status) = (deployment.spec.as_ref().unwrap(), deployment.status.clone().unwrap());
        prop_assert_eq!(Some(i32::try_from(pods.len()).unwrap()), spec.replicas);
        let image = |p: &Pod| p.spec.as_ref().unwrap().containers[0].image.clone();
        let wanted = spec.template.spec.as_ref().unwrap().containers[0].image.clone();
        prop_assert!(pods.iter().all(|p| image(p) == wanted));
        prop_assert_eq!((status.updated_replicas, status.available_replicas), (spec.replicas, spec.replicas));
        let progress = status::condition(&deployment, "Progressing").and_then(|c| c.reason.as_deref());
        prop_assert_eq!(progress, Some("NewReplicaSetAvailable"));
    }

    /// As long as no pod fails and nobody scales, a rollout over another never leaves less than promised.
    #[test]
    fn a_rollout_alone_keeps_what_it_promises(
        shape in 0_usize..7,
        steps in prop::collection::vec((any::<u8>(), 0_usize..100), 1..120),
    ) {
        let mut sim = Sim::new(SHAPES[shape]);
        let least = 6 - SHAPES[shape].2(6);
        for (what, which) in steps {
            sim.step(what, which, true);
            let serving = i32::try_from(sim.pods(|p| sim.serves(p)).len()).unwrap();
            prop_assert!(serving >= least, "{} of {} serve", serving, least);
        }
    }
}
