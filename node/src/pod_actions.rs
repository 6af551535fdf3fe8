//! PURE: what to do next for a pod, from its spec, what is observed of its containers, and the time (invariant 1).

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::observed::{Containers, Observed, PodKey, RestartPolicy, Stage, Waiting, init_containers, is_sidecar};

/// One step for the pod worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Start an instance of the named container.
    Start(String),
    /// End the named container's instance, within the grace period.
    Kill(String),
}

/// How a pod ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// All containers ended with exit code 0.
    Succeeded,
    /// At least one container ended otherwise and is not restarted.
    Failed,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// Steps, independent of one another.
    pub actions: Vec<Action>,
    /// What containers in back-off wait for.
    pub waiting: Vec<(String, Waiting)>,
    /// Ask again after this time even if nothing happens.
    pub requeue_after: Option<Duration>,
    /// Nothing runs and nothing will run again.
    pub done: bool,
}

impl Plan {
    fn kill(&mut self, name: &str, seen: Option<&Observed>) {
        if seen.is_some_and(|s| s.is_alive() && !s.stopping) {
            self.actions.push(Action::Kill(name.into()));
        }
    }

    /// Starts a container now, or says when its back-off ends.
    fn start(&mut self, name: &str, seen: Option<&Observed>, key: &PodKey, now: Timestamp) {
        let Some(seen) = seen else {
            self.actions.push(Action::Start(name.into()));
            return;
        };
        match seen.retry_at {
            Some(at) if at > now => {
                let left = at.duration_since(now).unsigned_abs();
                self.requeue_after = Some(self.requeue_after.map_or(left, |r| r.min(left)));
                if matches!(seen.stage, Stage::Exited(_)) && !is_start_failure(seen) {
                    let message = format!(
                        "back-off {} restarting failed container={name} pod={key}",
                        show_duration(seen.back_off)
                    );
                    self.waiting.push((name.into(), Waiting { reason: "CrashLoopBackOff".into(), message }));
                }
            }
            _ => self.actions.push(Action::Start(name.into())),
        }
    }
}

/// Whether what it waits for is a start that failed before an instance was made; that reason stays shown.
fn is_start_failure(seen: &Observed) -> bool {
    seen.waiting.as_ref().is_some_and(|w| w.reason != "CrashLoopBackOff")
}

/// `10s`, `1m20s`, `5m0s`, as Go prints durations.
pub fn show_duration(d: Duration) -> String {
    let (minutes, seconds) = (d.as_secs() / 60, d.as_secs() % 60);
    match (minutes, d.subsec_millis()) {
        (0, 0) => format!("{seconds}s"),
        (0, ms) if seconds == 0 => format!("{ms}ms"),
        (0, ms) => format!("{}s", f64::from(ms) / 1000.0 + d.as_secs() as f64),
        _ => format!("{minutes}m{seconds}s"),
    }
}

/// Decides a pod's next steps. `deleting`: its end has been asked for.
pub fn compute(key: &PodKey, spec: &PodSpec, deleting: bool, seen: &Containers, now: Timestamp) -> Plan {
    let mut plan = Plan::default();
    if deleting || outcome(spec, seen).is_some() {
        // The pod's own containers first, then the sidecars they may still need.
        for c in &spec.containers {
            plan.kill(&c.name, seen.get(&c.name));
        }
        let main_alive = spec.containers.iter().any(|c| seen.get(&c.name).is_some_and(Observed::is_alive));
        if !main_alive {
            for c in init_containers(spec).iter().rev() {
                plan.kill(&c.name, seen.get(&c.name));
            }
        }
        plan.done = !seen.values().any(Observed::is_alive);
        return plan;
    }
    let policy = RestartPolicy::of(spec);
    for c in init_containers(spec) {
        if !advance_init(&mut plan, key, c, policy, seen.get(&c.name), now) {
            return plan;
        }
    }
    for c in &spec.containers {
        let one = seen.get(&c.name);
        match one.map(|s| &s.stage) {
            None | Some(Stage::Created) => plan.start(&c.name, one, key, now),
            Some(Stage::Exited(exit)) if policy.restarts(exit.code) => plan.start(&c.name, one, key, now),
            Some(Stage::Exited(_) | Stage::Starting | Stage::Running { .. }) => {}
        }
    }
    plan
}

/// Plans one init container's step; true if the next container may go on.
fn advance_init(
    plan: &mut Plan,
    key: &PodKey,
    c: &Container,
    policy: RestartPolicy,
    seen: Option<&Observed>,
    now: Timestamp,
) -> bool {
    let sidecar = is_sidecar(c);
    match seen.map(|s| (&s.stage, s)) {
        None | Some((Stage::Created, _)) => {
            plan.start(&c.name, seen, key, now);
            false
        }
        Some((Stage::Starting, _)) => false,
        Some((Stage::Running { .. }, s)) => sidecar && s.started,
        // A sidecar that was up once and crashed does not hold up the others.
        Some((Stage::Exited(_), _)) if sidecar => {
            plan.start(&c.name, seen, key, now);
            true
        }
        Some((Stage::Exited(exit), _)) if exit.code == 0 => true,
        Some((Stage::Exited(_), _)) => {
            if policy != RestartPolicy::Never {
                plan.start(&c.name, seen, key, now);
            }
            false
        }
    }
}

/// Whether the pod has ended by itself: `None` while something runs or will run again.
pub fn outcome(spec: &PodSpec, seen: &Containers) -> Option<Outcome> {
    let policy = RestartPolicy::of(spec);
    let init_failed = init_containers(spec)
        .iter()
        .filter(|c| !is_sidecar(c))
        .any(|c| seen.get(&c.name).and_then(Observed::exit).is_some_and(|e| e.code != 0));
    if init_failed && policy == RestartPolicy::Never {
        return Some(Outcome::Failed);
    }
    let mut failed = false;
    for c in &spec.containers {
        let exit = seen.get(&c.name).and_then(Observed::exit)?;
        if policy.restarts(exit.code) {
            return None;
        }
        failed |= exit.code != 0;
    }
    Some(if failed { Outcome::Failed } else { Outcome::Succeeded })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::{BackOff, Exit, after_node_restart};
    use Action::{Kill, Start};
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }
    fn key() -> PodKey {
        PodKey { namespace: "ns".into(), name: "p".into(), uid: "u1".into() }
    }
    fn spec(policy: &str) -> PodSpec {
        serde_json::from_value(json!({
            "restartPolicy": policy,
            "initContainers": [{"name": "i1"}, {"name": "side", "restartPolicy": "Always"}, {"name": "i2"}],
            "containers": [{"name": "a"}, {"name": "b"}],
        }))
        .unwrap()
    }
    fn running() -> Observed {
        Observed { stage: Stage::Running { since: at(0) }, started: true, instances: 1, ..Observed::default() }
    }
    fn exited(code: i32) -> Observed {
        let exit = Exit {
            code,
            reason: "Error".into(),
            message: String::new(),
            started_at: at(0),
            finished_at: at(1),
            instance: 0,
        };
        Observed { stage: Stage::Exited(exit), instances: 1, ..Observed::default() }
    }
    fn seen(list: &[(&str, Observed)]) -> Containers {
        list.iter().map(|(n, o)| ((*n).to_string(), o.clone())).collect()
    }
    fn start(names: &[&str]) -> Vec<Action> {
        names.iter().map(|n| Start((*n).into())).collect()
    }
    fn kill(names: &[&str]) -> Vec<Action> {
        names.iter().map(|n| Kill((*n).into())).collect()
    }

    #[test]
    fn steps() {
        let init = [("i1", exited(0)), ("side", running()), ("i2", exited(0))];
        let with = |more: &[(&str, Observed)]| {
            let mut all = seen(&init);
            all.extend(seen(more));
            all
        };
        let unstarted_side = Observed { started: false, ..running() };
        type Case = (&'static str, &'static str, bool, Containers, Vec<Action>, bool);
        let cases: Vec<Case> = vec![
            ("first init first", "Always", false, seen(&[]), start(&["i1"]), false),
            ("init runs", "Always", false, seen(&[("i1", running())]), vec![], false),
            ("then the sidecar", "Always", false, seen(&[("i1", exited(0))]), start(&["side"]), false),
            (
                "sidecar must start",
                "Always",
                false,
                seen(&[("i1", exited(0)), ("side", unstarted_side)]),
                vec![],
                false,
            ),
            ("then init 2", "Always", false, seen(&[("i1", exited(0)), ("side", running())]), start(&["i2"]), false),
            ("init retried", "OnFailure", false, seen(&[("i1", exited(1))]), start(&["i1"]), false),
            ("init failed", "Never", false, seen(&[("i1", exited(1))]), vec![], true),
            ("all containers at once", "Always", false, with(&[]), start(&["a", "b"]), false),
            ("restart", "Always", false, with(&[("a", exited(0)), ("b", running())]), start(&["a"]), false),
            ("no restart", "OnFailure", false, with(&[("a", exited(0)), ("b", running())]), vec![], false),
            ("restart failed", "OnFailure", false, with(&[("a", exited(2)), ("b", running())]), start(&["a"]), false),
            ("never", "Never", false, with(&[("a", exited(2)), ("b", running())]), vec![], false),
            (
                "ended: sidecar goes",
                "Never",
                false,
                with(&[("a", exited(2)), ("b", exited(0))]),
                kill(&["side"]),
                false,
            ),
            ("deleted", "Always", true, with(&[("a", running()), ("b", running())]), kill(&["a", "b"]), false),
            (
                "deleted, sidecar last",
                "Always",
                true,
                with(&[("a", exited(0)), ("b", exited(1))]),
                kill(&["side"]),
                false,
            ),
            ("deleted before start", "Always", true, seen(&[]), vec![], true),
        ];
        for (what, policy, deleting, seen, actions, done) in cases {
            let plan = compute(&key(), &spec(policy), deleting, &seen, at(1));
            assert_eq!((plan.actions, plan.done), (actions, done), "{what}");
        }
    }

    #[test]
    fn crashed_sidecar_restarts_and_blocks_nobody() {
        let s = seen(&[("i1", exited(0)), ("side", exited(1)), ("i2", exited(0))]);
        assert_eq!(compute(&key(), &spec("Never"), false, &s, at(1)).actions, start(&["side", "a", "b"]));
    }

    #[test]
    fn killing_twice_is_not_asked() {
        let s = seen(&[("a", Observed { stopping: true, ..running() }), ("b", running())]);
        assert_eq!(compute(&key(), &spec("Always"), true, &s, at(1)).actions, kill(&["b"]));
    }

    #[test]
    fn back_off_doubles_to_its_maximum_and_resets_after_a_long_run() {
        let policy = BackOff::default();
        let mut c = Observed::default();
        let mut now = at(0);
        let mut delays = Vec::new();
        let crash = |c: &mut Observed, now: &mut Timestamp, run: i64| {
            c.begin();
            c.running(*now);
            let end = *now + jiff::SignedDuration::from_secs(run);
            let exit = Exit {
                code: 1,
                reason: "Error".into(),
                message: String::new(),
                started_at: *now,
                finished_at: end,
                instance: c.instance(),
            };
            c.exited(exit, policy);
            *now = c.retry_at.unwrap_or(end);
            c.retry_at.map_or(0, |r| r.duration_since(end).as_secs())
        };
        for _ in 0..8 {
            delays.push(crash(&mut c, &mut now, 1));
        }
        assert_eq!(delays, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(crash(&mut c, &mut now, 601), 0, "reset after ten minutes");
        assert_eq!(crash(&mut c, &mut now, 1), 10);
        assert_eq!((c.restarts, c.instances), (9, 10));
    }

    #[test]
    fn waiting_says_the_back_off() {
        let mut a = exited(1);
        a.restarts = 1;
        a.back_off = Duration::from_secs(80);
        a.retry_at = Some(at(81));
        let spec: PodSpec = serde_json::from_value(json!({"containers": [{"name": "a"}]})).unwrap();
        let plan = compute(&key(), &spec, false, &seen(&[("a", a)]), at(1));
        assert_eq!(plan.requeue_after, Some(Duration::from_secs(80)));
        let (_, waiting) = plan.waiting.first().unwrap();
        assert_eq!(waiting.reason, "CrashLoopBackOff");
        assert_eq!(waiting.message, "back-off 1m20s restarting failed container=a pod=p_ns(u1)");
    }

    #[test]
    fn node_restart_repeats_initialisation_unless_the_pod_ended() {
        let mut s =
            seen(&[("i1", exited(0)), ("side", running()), ("i2", exited(0)), ("a", running()), ("b", running())]);
        after_node_restart(&spec("Always"), &mut s, at(5));
        assert_eq!(compute(&key(), &spec("Always"), false, &s, at(5)).actions, start(&["i1"]));
        let mut one = s["a"].clone();
        one.begin();
        assert_eq!((one.restarts, one.last.unwrap().code), (1, 137));

        let mut s = seen(&[("i1", exited(0)), ("i2", exited(0)), ("a", running()), ("b", exited(0))]);
        after_node_restart(&spec("Never"), &mut s, at(5));
        assert_eq!(outcome(&spec("Never"), &s), Some(Outcome::Failed));
        assert!(compute(&key(), &spec("Never"), false, &s, at(5)).done);
    }

    #[test]
    fn durations_read_as_go_prints_them() {
        for (ms, text) in [(10_000, "10s"), (80_000, "1m20s"), (300_000, "5m0s"), (50, "50ms"), (1500, "1.5s")] {
            assert_eq!(show_duration(Duration::from_millis(ms)), text);
        }
    }
}
