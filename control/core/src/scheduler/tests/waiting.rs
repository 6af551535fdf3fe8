//! Pods that wait, over time: who is tried, how often, and who comes first.

use std::collections::BTreeMap;
use std::time::Duration;

use super::super::queue::LONGEST_WAIT;
use super::*;

/// The scheduler with a clock, without its driver: what is bound stays bound.
#[derive(Default)]
struct Line {
    state: State,
    profile: Profile,
    now: Duration,
    /// By pod: how often it was tried.
    tries: BTreeMap<String, usize>,
}

impl Line {
    fn of(nodes: &str) -> Self {
        let mut line = Self::default();
        list(nodes).into_iter().for_each(|n| line.state.snapshot.set_node(node(n)));
        line
    }

    fn come(&mut self, pod: &str) {
        self.state.queue.set(pod_of(pod), self.now);
    }

    /// Decides until nobody is to be tried now; who was placed, in order.
    fn run(&mut self) -> Vec<String> {
        let mut placed = Vec::new();
        while let Some(next) = self.state.queue.pop(self.now) {
            let name = next.pod.name().to_string();
            *self.tries.entry(name.clone()).or_default() += 1;
            let decision = self.state.decide(&next, &self.profile, self.now);
            if !matches!(decision, Some(Decision::Bind(_))) {
                continue;
            }
            // The binding is seen.
            self.state.queue.remove(next.pod.uid(), self.now);
            self.state.tell(&Change::PodPlaced(next.pod.clone()), self.now);
            placed.push(name);
        }
        placed
    }

    fn wait(&mut self, millis: u64) -> Vec<String> {
        self.now += Duration::from_millis(millis);
        self.run()
    }

    fn gone(&mut self, name: &str, node: &str) {
        let pod = self.state.snapshot.placed(name).cloned().unwrap_or_else(|| pod_of(&format!("{{name: {name}}}")));
        self.state.queue.remove(name, self.now);
        self.state.snapshot.forget_pod(name);
        self.state.tell(&Change::PodGone { pod, node: node.into() }, self.now);
    }

    fn node(&mut self, value: Value) {
        let name = value["name"].as_str().unwrap().to_string();
        self.state.snapshot.set_node(node(value));
        self.state.tell(&Change::Node(name), self.now);
    }

    fn tried(&self) -> usize {
        self.tries.values().sum()
    }
}

#[test]
fn of_equal_pods_as_many_are_woken_as_find_a_place() {
    let mut line = Line::of("[{name: a}]");
    for n in 0..50 {
        line.come(&format!("{{name: p{n:02}, cpu: 1}}"));
    }
    assert_eq!(line.run(), ["p00", "p01"]);
    assert_eq!(line.tried(), 50, "each was told why it waits");
    line.now += Duration::from_secs(20);
    line.gone("p00", "a");
    assert_eq!(line.run(), ["p02"], "the first of those that wait");
    assert_eq!(line.tried(), 52, "and the next, which does not fit any more");
    // A node for two of them: one after the other, at once.
    line.now += Duration::from_secs(20);
    line.node(json!({"name": "b"}));
    assert_eq!(line.run(), ["p03", "p04"]);
    assert_eq!(line.tried(), 55);
    // Whoever was woken for all and goes away hands it on.
    line.gone("p01", "a");
    line.gone("p05", "a");
    assert_eq!(line.wait(10_000), ["p06"]);
    // In the end all are tried again, so that what they say is not old.
    let before = line.tried();
    line.wait(u64::try_from(LONGEST_WAIT.as_millis()).unwrap());
    assert_eq!(line.tried() - before, 43);
}

#[test]
fn a_pod_of_another_kind_is_not_held_up_by_one_that_was_woken() {
    let mut line = Line::of("[{name: a}]");
    line.come("{name: full, cpu: 2}");
    assert_eq!(line.run(), ["full"]);
    for n in 0..5 {
        line.come(&format!("{{name: big{n}, cpu: 2, priority: 9, preemptionPolicy: Never, nodeSelector: {{x: 'y'}}}}"));
        line.come(&format!("{{name: small{n}, cpu: 1}}"));
    }
    line.come("{name: gated, priority: 99, schedulingGates: [{name: g}]}");
    assert_eq!(line.run(), [""; 0]);
    line.now += Duration::from_secs(2);
    line.gone("full", "a");
    assert_eq!(line.run(), ["small0", "small1"]);
}

#[test]
fn what_cannot_be_placed_is_tried_seldom_whatever_happens() {
    let mut line = Line::of("[{name: a}, {name: b}]");
    let far = "affinity: {podAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: h, labelSelector: {matchLabels: {app: web}}}]}}";
    line.come("{name: no-label, nodeSelector: {x: 'y'}}");
    line.come("{name: too-big, cpu: 100}");
    line.come("{name: no-claim, volumes: [{name: v, persistentVolumeClaim: {claimName: none}}]}");
    line.come(&format!("{{name: lonely, {far}}}"));
    line.come("{name: gated, schedulingGates: [{name: g}]}");
    for n in 0..200 {
        line.come(&format!("{{name: many{n}, cpu: 50}}"));
    }
    line.run();
    let mut said = BTreeMap::new();
    for step in 0..1_200_u64 {
        // Ten changes a second for two minutes: nodes, pods, volumes.
        match step % 4 {
            0 => line.node(json!({"name": "a", "labels": {"turn": step.to_string()}})),
            1 => {
                let pod = pod_of("{name: passing, labels: {app: web}}");
                line.state.snapshot.assume(&pod, "b");
                line.state.tell(&Change::PodPlaced(pod), line.now);
            }
            2 => line.gone("passing", "b"),
            _ => line.state.tell(&Change::Volume, line.now),
        }
        line.wait(100);
        said = line.tries.clone();
    }
    let minutes = 2;
    for (name, tries) in &said {
        // The first few come sooner: after 1, 2, 4, 8 seconds.
        assert!(*tries <= 4 + minutes * 6, "{name} was tried {tries} times in {minutes} minutes");
    }
    let many: usize = said.iter().filter(|(name, _)| name.starts_with("many")).map(|(_, tries)| tries).sum();
    assert!(many <= 200 + 4 + minutes * 6, "{many}");
    assert_eq!(said.get("gated"), None);
}

#[test]
fn the_important_are_not_overtaken_for_ever() {
    let mut line = Line::of("[{name: a}]");
    line.come("{name: low0, cpu: 2}");
    line.run();
    line.come("{name: high, cpu: 2, priority: 9}");
    assert_eq!(line.run(), [""; 0]);
    assert_eq!(line.state.snapshot.nomination("high"), Some("a"));
    // Until its victim is gone, for however long, lesser pods come and go: none takes the room, none makes it tired.
    for n in 0..600 {
        line.come(&format!("{{name: late{n}, cpu: 1, priority: 1}}"));
        assert_eq!(line.wait(100), [""; 0], "{n}");
        line.gone(&format!("late{n}"), "elsewhere");
    }
    assert!(line.tries["high"] <= 4 + 6, "{:?}", line.tries["high"]);
    line.come("{name: last, cpu: 1, priority: 1}");
    line.gone("low0", "a");
    assert_eq!(line.run(), ["high"], "at once");
}

#[test]
fn room_that_is_no_longer_kept_is_given_to_others() {
    let mut line = Line::of("[{name: a}]");
    line.come("{name: low, cpu: 2}");
    line.run();
    line.come("{name: high, cpu: 2, priority: 9}");
    line.come("{name: other, cpu: 1}");
    line.run();
    // The one for which room was made goes away.
    line.now += Duration::from_secs(5);
    line.gone("low", "a");
    line.gone("high", "a");
    assert_eq!(line.run(), ["other"]);
}

#[test]
fn nominations_are_of_a_kind_of_their_own() {
    let mut line = Line::of("[{name: a}, {name: b}]");
    for (name, node) in [("x", "a"), ("y", "b")] {
        line.state.snapshot.assume(&pod_of(&format!("{{name: '{name}', cpu: 2}}")), node);
    }
    // Equal pods: each makes room for itself.
    line.come("{name: high1, cpu: 2, priority: 9}");
    line.come("{name: high2, cpu: 2, priority: 9}");
    assert_eq!(line.run(), [""; 0]);
    let of = |line: &Line, pod: &str| line.state.snapshot.nomination(pod).map(ToString::to_string);
    let (first, second) = (of(&line, "high1").unwrap(), of(&line, "high2").unwrap());
    assert_ne!(first, second);
    // The second one's room comes first.
    let victim = if second == "a" { "x" } else { "y" };
    line.gone(victim, &second);
    assert_eq!(line.run(), ["high2"]);
}
