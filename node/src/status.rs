//! PURE: a pod's status from its spec and what is observed of its containers (invariant 1).
//! Source: <https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/>.

use std::collections::BTreeMap;
use std::net::IpAddr;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
    HostIP, Pod, PodCondition, PodIP, PodSpec, PodStatus,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::observed::{Containers, Exit, Observed, Stage, Waiting, init_containers, is_sidecar};
use crate::pod_actions::{Outcome, outcome};
use crate::unserved;

/// Facts beside the containers.
#[derive(Debug, Clone, Default)]
pub struct Surroundings {
    /// The node's addresses, the preferred one first.
    pub host_ips: Vec<IpAddr>,
    /// The pod's addresses; empty before it has any.
    pub pod_ips: Vec<IpAddr>,
    /// Its sandbox exists.
    pub sandbox: bool,
    /// Deletion was asked for and nothing runs any more.
    pub ended_by_deletion: bool,
}

/// Computes the status to report; transition times of unchanged conditions and fields that others own are kept.
pub fn compute(pod: &Pod, uid: &str, seen: &Containers, around: &Surroundings, now: Timestamp) -> PodStatus {
    let before = pod.status.clone().unwrap_or_default();
    let empty = PodSpec::default();
    let spec = pod.spec.as_ref().unwrap_or(&empty);
    let creating = if initialized(spec, seen) { "ContainerCreating" } else { "PodInitializing" };
    let kept = |c: &Container| kept(&before, c).filter(|_| !seen.contains_key(&c.name));
    let main = |c: &Container| kept(c).unwrap_or_else(|| container_status(uid, c, seen.get(&c.name), creating));
    let statuses: Vec<ContainerStatus> = spec.containers.iter().map(main).collect();
    let first = |c: &Container| kept(c).unwrap_or_else(|| init_status(uid, c, seen));
    let init: Vec<ContainerStatus> = init_containers(spec).iter().map(first).collect();
    let phase = phase(spec, seen, around, before.phase.as_deref());
    let terminal = matches!(phase, "Succeeded" | "Failed");
    let generation = pod.metadata.generation;
    let mut conditions =
        Conditions { before: before.conditions.clone().unwrap_or_default(), now, generation, out: vec![] };

    conditions.set("PodReadyToStartContainers", verdict(around.sandbox && !terminal));
    conditions.set("Initialized", initialized_verdict(spec, seen, phase));
    let ready = ready_verdict(spec, &statuses, &init, phase);
    conditions.set("Ready", ready.clone());
    conditions.set("ContainersReady", ready);
    conditions.set("PodScheduled", verdict(true));
    match unserved::pending_resize(spec, seen) {
        Some(message) => {
            conditions
                .set("PodResizePending", Verdict { status: true, reason: Some("Deferred"), message: Some(message) });
        }
        None => conditions.clear("PodResizePending"),
    }

    PodStatus {
        phase: Some(phase.into()),
        conditions: Some(conditions.finish()),
        container_statuses: Some(statuses),
        init_container_statuses: if init.is_empty() { None } else { Some(init) },
        ephemeral_container_statuses: unserved::ephemeral(spec),
        host_ip: around.host_ips.first().map(ToString::to_string),
        host_ips: Some(around.host_ips.iter().map(|ip| HostIP { ip: ip.to_string() }).collect()),
        pod_ip: around.pod_ips.first().map(ToString::to_string),
        pod_ips: if around.pod_ips.is_empty() {
            None
        } else {
            Some(around.pod_ips.iter().map(|ip| PodIP { ip: ip.to_string() }).collect())
        },
        start_time: before.start_time.clone().or(Some(Time(now))),
        observed_generation: generation,
        ..before
    }
}

/// Whether all init containers have done their work, and all sidecars have started.
pub fn initialized(spec: &PodSpec, seen: &Containers) -> bool {
    init_containers(spec).iter().all(|c| init_done(c, seen.get(&c.name)))
}

fn init_done(c: &Container, seen: Option<&Observed>) -> bool {
    seen.is_some_and(|s| if is_sidecar(c) { s.started || s.exit().is_some() } else { s.succeeded() })
}

fn phase(spec: &PodSpec, seen: &Containers, around: &Surroundings, before: Option<&str>) -> &'static str {
    match before {
        Some("Succeeded") => return "Succeeded",
        Some("Failed") => return "Failed",
        _ => {}
    }
    match outcome(spec, seen) {
        Some(Outcome::Succeeded) => return "Succeeded",
        Some(Outcome::Failed) => return "Failed",
        None => {}
    }
    if around.ended_by_deletion {
        let clean = spec.containers.iter().all(|c| seen.get(&c.name).is_some_and(Observed::succeeded));
        return if clean { "Succeeded" } else { "Failed" };
    }
    if !initialized(spec, seen) {
        return "Pending";
    }
    let ever_ran = |c: &Container| {
        seen.get(&c.name).is_some_and(|s| match s.stage {
            Stage::Running { .. } | Stage::Exited(_) => true,
            Stage::Created | Stage::Starting => s.last.is_some(),
        })
    };
    if spec.containers.iter().all(ever_ran) { "Running" } else { "Pending" }
}

/// What a pod that has ended said of a container; it stands, even if nothing else is known of the container any more.
fn kept(before: &PodStatus, c: &Container) -> Option<ContainerStatus> {
    let ended = matches!(before.phase.as_deref(), Some("Succeeded" | "Failed"));
    let statuses = [&before.container_statuses, &before.init_container_statuses];
    statuses.into_iter().flatten().flatten().find(|s| ended && s.name == c.name).cloned()
}

/// As a main container's, but a regular init container is ready once it has succeeded.
fn init_status(uid: &str, c: &Container, seen: &Containers) -> ContainerStatus {
    let mut status = container_status(uid, c, seen.get(&c.name), "PodInitializing");
    if !is_sidecar(c) {
        status.ready = init_done(c, seen.get(&c.name));
    }
    status
}

fn container_status(uid: &str, c: &Container, seen: Option<&Observed>, creating: &str) -> ContainerStatus {
    let fresh = Observed::default();
    let seen = seen.unwrap_or(&fresh);
    let id = |instance: u32| format!("copepod://{uid}-{}-{instance}", c.name);
    let terminated =
        |exit: &Exit| ContainerState { terminated: Some(terminated(exit, id(exit.instance))), ..Default::default() };
    let (state, last) = match (&seen.stage, &seen.waiting) {
        (Stage::Running { since }, _) => (
            ContainerState {
                running: Some(ContainerStateRunning { started_at: Some(Time(*since)) }),
                ..Default::default()
            },
            seen.last.as_ref().map(terminated),
        ),
        (Stage::Exited(exit), Some(waiting)) => (waiting_state(waiting), Some(terminated(exit))),
        (Stage::Exited(exit), None) => (terminated(exit), seen.last.as_ref().map(terminated)),
        (_, Some(waiting)) => (waiting_state(waiting), seen.last.as_ref().map(terminated)),
        (_, None) => (
            waiting_state(&Waiting { reason: creating.into(), message: String::new() }),
            seen.last.as_ref().map(terminated),
        ),
    };
    let alive = matches!(seen.stage, Stage::Running { .. });
    ContainerStatus {
        name: c.name.clone(),
        image: c.image.clone().unwrap_or_default(),
        image_id: seen.image_id.clone(),
        container_id: (seen.instances > 0).then(|| id(seen.instance())),
        ready: alive && seen.ready,
        started: Some(alive && seen.started),
        restart_count: i32::try_from(seen.restarts).unwrap_or(i32::MAX),
        state: Some(state),
        last_state: Some(last.unwrap_or_default()),
        resources: seen.resources.clone().filter(|_| alive),
        ..ContainerStatus::default()
    }
}

fn waiting_state(waiting: &Waiting) -> ContainerState {
    let message = (!waiting.message.is_empty()).then(|| waiting.message.clone());
    let waiting = ContainerStateWaiting { reason: Some(waiting.reason.clone()), message };
    ContainerState { waiting: Some(waiting), ..ContainerState::default() }
}

fn terminated(exit: &Exit, id: String) -> ContainerStateTerminated {
    ContainerStateTerminated {
        exit_code: exit.code,
        reason: Some(exit.reason.clone()),
        message: (!exit.message.is_empty()).then(|| exit.message.clone()),
        started_at: Some(Time(exit.started_at)),
        finished_at: Some(Time(exit.finished_at)),
        container_id: Some(id),
        signal: None,
    }
}

/// A condition's value: status, reason, message.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    status: bool,
    reason: Option<&'static str>,
    message: Option<String>,
}

fn verdict(status: bool) -> Verdict {
    Verdict { status, reason: None, message: None }
}

fn initialized_verdict(spec: &PodSpec, seen: &Containers, phase: &str) -> Verdict {
    if phase == "Succeeded" {
        return Verdict { status: true, reason: Some("PodCompleted"), message: None };
    }
    let missing: Vec<&str> =
        init_containers(spec).iter().filter(|c| !init_done(c, seen.get(&c.name))).map(|c| c.name.as_str()).collect();
    if missing.is_empty() {
        return verdict(true);
    }
    let message = format!("containers with incomplete status: [{}]", missing.join(" "));
    Verdict { status: false, reason: Some("ContainersNotInitialized"), message: Some(message) }
}

fn ready_verdict(spec: &PodSpec, main: &[ContainerStatus], init: &[ContainerStatus], phase: &str) -> Verdict {
    match phase {
        "Succeeded" => return Verdict { status: false, reason: Some("PodCompleted"), message: None },
        "Failed" => return Verdict { status: false, reason: Some("PodFailed"), message: None },
        _ => {}
    }
    let sidecars: BTreeMap<&str, bool> =
        init_containers(spec).iter().map(|c| (c.name.as_str(), is_sidecar(c))).collect();
    let unready: Vec<&str> = init
        .iter()
        .filter(|c| sidecars.get(c.name.as_str()).copied().unwrap_or(false))
        .chain(main)
        .filter(|c| !c.ready)
        .map(|c| c.name.as_str())
        .collect();
    if unready.is_empty() {
        return verdict(true);
    }
    let message = format!("containers with unready status: [{}]", unready.join(" "));
    Verdict { status: false, reason: Some("ContainersNotReady"), message: Some(message) }
}

/// Builds the list of conditions: ours anew, others' kept, transition times kept where the status is unchanged.
struct Conditions {
    before: Vec<PodCondition>,
    now: Timestamp,
    generation: Option<i64>,
    out: Vec<PodCondition>,
}

impl Conditions {
    fn set(&mut self, type_: &str, value: Verdict) {
        let status = if value.status { "True" } else { "False" };
        let old = self.before.iter().position(|c| c.type_ == type_).map(|i| self.before.remove(i));
        let since = match old {
            Some(old) if old.status == status => old.last_transition_time,
            _ => Some(Time(self.now)),
        };
        self.out.push(PodCondition {
            type_: type_.into(),
            status: status.into(),
            reason: value.reason.map(Into::into),
            message: value.message,
            last_transition_time: since,
            observed_generation: self.generation,
            ..PodCondition::default()
        });
    }
    fn clear(&mut self, type_: &str) {
        self.before.retain(|c| c.type_ != type_);
    }
    fn finish(mut self) -> Vec<PodCondition> {
        self.out.append(&mut self.before);
        self.out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }
    fn exit(code: i32, message: &str) -> Exit {
        Exit {
            code,
            reason: if code == 0 { "Completed" } else { "Error" }.into(),
            message: message.into(),
            started_at: at(0),
            finished_at: at(1),
            instance: 0,
        }
    }
    fn running(ready: bool) -> Observed {
        Observed { stage: Stage::Running { since: at(0) }, started: true, ready, instances: 1, ..Default::default() }
    }
    fn exited(code: i32) -> Observed {
        Observed { stage: Stage::Exited(exit(code, "")), instances: 1, ..Default::default() }
    }
    fn pod(policy: &str, init: bool) -> Pod {
        let mut spec = json!({"restartPolicy": policy, "containers": [{"name": "a", "image": "x:1"}, {"name": "b"}]});
        if init {
            spec["initContainers"] = json!([{"name": "i"}]);
        }
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec, "status": {"qosClass": "Burstable"}}))
            .unwrap()
    }
    fn seen(list: &[(&str, Observed)]) -> Containers {
        list.iter().map(|(n, o)| ((*n).to_string(), o.clone())).collect()
    }
    fn around() -> Surroundings {
        Surroundings {
            host_ips: vec!["10.0.0.1".parse().unwrap()],
            pod_ips: vec!["10.64.0.2".parse().unwrap()],
            sandbox: true,
            ended_by_deletion: false,
        }
    }
    fn condition<'a>(s: &'a PodStatus, type_: &str) -> &'a PodCondition {
        s.conditions.as_ref().unwrap().iter().find(|c| c.type_ == type_).unwrap()
    }

    #[test]
    fn phases() {
        let cases = [
            ("Always", true, vec![], "Pending", "False"),
            ("Always", true, vec![("i", exited(0)), ("a", running(true))], "Pending", "False"),
            ("Always", false, vec![("a", running(true)), ("b", running(true))], "Running", "True"),
            ("Always", false, vec![("a", running(true)), ("b", running(false))], "Running", "False"),
            ("Always", false, vec![("a", exited(1)), ("b", running(true))], "Running", "False"),
            ("Always", false, vec![("a", exited(0)), ("b", exited(0))], "Running", "False"),
            ("OnFailure", false, vec![("a", exited(0)), ("b", exited(0))], "Succeeded", "False"),
            ("OnFailure", false, vec![("a", exited(1)), ("b", exited(0))], "Running", "False"),
            ("Never", false, vec![("a", exited(1)), ("b", exited(0))], "Failed", "False"),
            ("Never", true, vec![("i", exited(1))], "Failed", "False"),
            ("OnFailure", true, vec![("i", exited(1))], "Pending", "False"),
        ];
        for (policy, init, list, phase, ready) in cases {
            let status = compute(&pod(policy, init), "u", &seen(&list), &around(), at(2));
            assert_eq!(status.phase.as_deref(), Some(phase), "{policy} {list:?}");
            assert_eq!(condition(&status, "Ready").status, ready, "{policy} {list:?}");
            assert_eq!(status.qos_class.as_deref(), Some("Burstable"));
        }
    }

    #[test]
    fn a_trap_shows_in_the_last_state_while_backing_off() {
        let trap = "wasm trap: wasm `unreachable` instruction executed";
        let mut a = Observed { stage: Stage::Exited(exit(134, trap)), restarts: 1, instances: 2, ..Default::default() };
        a.waiting = Some(Waiting { reason: "CrashLoopBackOff".into(), message: "back-off 10s restarting".into() });
        let status = compute(&pod("Always", false), "u1", &seen(&[("a", a)]), &around(), at(2));
        let c = &status.container_statuses.as_ref().unwrap()[0];
        assert_eq!(c.state.as_ref().unwrap().waiting.as_ref().unwrap().reason.as_deref(), Some("CrashLoopBackOff"));
        let last = c.last_state.as_ref().unwrap().terminated.as_ref().unwrap();
        assert_eq!((last.exit_code, last.message.as_deref()), (134, Some(trap)));
        assert_eq!((c.restart_count, c.container_id.as_deref()), (1, Some("copepod://u1-a-1")));
    }

    #[test]
    fn transition_times_are_kept_until_the_status_changes() {
        let mut p = pod("Always", false);
        let first = compute(&p, "u", &seen(&[]), &around(), at(1));
        p.status = Some(first.clone());
        let second = compute(&p, "u", &seen(&[("a", running(true)), ("b", running(false))]), &around(), at(5));
        let since = |s: &PodStatus, t: &str| condition(s, t).last_transition_time.clone().unwrap().0;
        assert_eq!(since(&second, "Ready"), at(1));
        p.status = Some(second);
        let third = compute(&p, "u", &seen(&[("a", running(true)), ("b", running(true))]), &around(), at(9));
        assert_eq!((since(&third, "Ready"), since(&third, "PodScheduled")), (at(9), at(1)));
        assert_eq!(third.start_time, first.start_time);
        let same = compute(
            &Pod { status: Some(third.clone()), ..p },
            "u",
            &seen(&[("a", running(true)), ("b", running(true))]),
            &around(),
            at(20),
        );
        assert_eq!(same, third, "nothing changed, nothing to write");
    }

    #[test]
    fn waiting_containers_say_why() {
        let failing = Observed {
            waiting: Some(Waiting { reason: "ErrImagePull".into(), message: "no such image".into() }),
            ..Default::default()
        };
        let status = compute(&pod("Always", true), "u", &seen(&[("i", failing)]), &around(), at(1));
        let reason = |c: &ContainerStatus| c.state.as_ref().unwrap().waiting.as_ref().unwrap().reason.clone().unwrap();
        assert_eq!(reason(&status.init_container_statuses.as_ref().unwrap()[0]), "ErrImagePull");
        assert_eq!(reason(&status.container_statuses.as_ref().unwrap()[0]), "PodInitializing");
        let c = condition(&status, "Initialized");
        assert_eq!(c.message.as_deref(), Some("containers with incomplete status: [i]"));
    }

    #[test]
    fn a_resize_is_pending_until_the_container_restarts() {
        let mut p = pod("Always", false);
        let small: k8s_openapi::api::core::v1::ResourceRequirements =
            serde_json::from_value(json!({"limits": {"memory": "1Mi"}})).unwrap();
        let a = Observed { resources: Some(small.clone()), ..running(true) };
        let status = compute(&p, "u", &seen(&[("a", a.clone())]), &around(), at(1));
        let pending = condition(&status, "PodResizePending");
        assert_eq!((pending.status.as_str(), pending.reason.as_deref()), ("True", Some("Deferred")));
        assert_eq!(status.container_statuses.as_ref().unwrap()[0].resources, Some(small.clone()));
        p.status = Some(status);
        p.spec.as_mut().unwrap().containers[0].resources = Some(small);
        let status = compute(&p, "u", &seen(&[("a", a)]), &around(), at(2));
        assert!(status.conditions.unwrap().iter().all(|c| c.type_ != "PodResizePending"));
    }

    #[test]
    fn a_deleted_pod_ends_in_a_terminal_phase() {
        let around = Surroundings { ended_by_deletion: true, ..around() };
        let killed = seen(&[("a", exited(137)), ("b", exited(0))]);
        assert_eq!(compute(&pod("Always", false), "u", &killed, &around, at(1)).phase.as_deref(), Some("Failed"));
        let clean = seen(&[("a", exited(0)), ("b", exited(0))]);
        assert_eq!(compute(&pod("Always", false), "u", &clean, &around, at(1)).phase.as_deref(), Some("Succeeded"));
    }
}
