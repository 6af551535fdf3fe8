//! Jobs as people see them: what becomes of one in a small cluster, and what single passes decide.

use std::time::Duration;

use super::super::job_pods::index_of;
use super::super::testing::{at, now, yaml};
use super::super::{Action, Plan};
use super::sim_tests::{Sim, node, typed};
use super::*;

/// A node whose pods fail until `times` of them did.
fn fails(times: usize, code: i32) -> impl FnMut(&mut Sim) -> bool {
    let mut left = times;
    node(move |_, _| {
        if left > 0 {
            left -= 1;
            Some(code)
        } else {
            Some(0)
        }
    })
}

fn index(pod: &Value) -> i32 {
    index_of(&typed(pod)).unwrap()
}

fn settled(spec: &str, node: impl FnMut(&mut Sim) -> bool) -> Sim {
    let mut sim = Sim::new(spec);
    sim.settle(node);
    sim
}

#[test]
fn jobs_end_as_documented() {
    let complete = ["SuccessCriteriaMet:CompletionsReached", "Complete:CompletionsReached"];
    let failed = |reason: &str| vec![format!("FailureTarget:{reason}"), format!("Failed:{reason}")];
    let policy = "podFailurePolicy: {rules: [{action: Ignore, onExitCodes: {operator: In, values: [7]}}, \
                  {action: FailJob, onExitCodes: {containerName: c, operator: NotIn, values: [1, 2]}}]}";
    let (ignores, counts, fails_job) = (
        format!("completions: 1, backoffLimit: 0, {policy}"),
        format!("completions: 1, backoffLimit: 5, {policy}"),
        format!("completions: 1, {policy}"),
    );
    let complete: Vec<String> = complete.map(String::from).to_vec();
    // spec, failures with a code before the successes; how it ends, succeeded, failed, least seconds
    type Case<'a> = (&'a str, usize, i32, Vec<String>, i64, i64, i64);
    let cases: Vec<Case<'_>> = vec![
        ("completions: 1", 0, 0, complete.clone(), 1, 0, 0),
        ("completions: 5, parallelism: 2", 0, 0, complete.clone(), 5, 0, 0),
        ("completions: 1, parallelism: 5", 0, 0, complete.clone(), 1, 0, 0),
        ("completions: 0", 0, 0, complete.clone(), 0, 0, 0),
        ("completions: 1", 2, 1, complete.clone(), 1, 2, 30),
        ("completions: 1, backoffLimit: 2", 2, 1, complete.clone(), 1, 2, 30),
        ("completions: 1, backoffLimit: 1", 2, 1, failed("BackoffLimitExceeded"), 0, 2, 10),
        ("completions: 1, backoffLimit: 0", 9, 1, failed("BackoffLimitExceeded"), 0, 1, 0),
        ("completions: 1, activeDeadlineSeconds: 25", 9, 1, failed("DeadlineExceeded"), 0, 2, 25),
        (&ignores, 2, 7, complete.clone(), 1, 0, 30),
        (&counts, 1, 2, complete.clone(), 1, 1, 10),
        (&fails_job, 1, 3, failed("PodFailurePolicy"), 0, 1, 0),
        // A success after the failure ends the wait.
        ("completionMode: Indexed, completions: 4, parallelism: 3", 1, 1, complete, 4, 1, 0),
        (
            "completionMode: Indexed, completions: 3, parallelism: 3, backoffLimitPerIndex: 1, maxFailedIndexes: 0",
            9,
            1,
            failed("MaxFailedIndexesExceeded"),
            0,
            6,
            10,
        ),
    ];
    for (spec, failures, code, conditions, succeeded, failed, seconds) in cases {
        let sim = settled(spec, fails(failures, code));
        assert_eq!(sim.conditions(), conditions, "{spec}");
        let number = |field: &str| sim.status(field).as_i64().unwrap_or(0);
        assert_eq!((number("succeeded"), number("failed")), (succeeded, failed), "{spec}");
        assert_eq!((number("active"), number("ready"), number("terminating")), (0, 0, 0), "{spec}");
        assert!(sim.seconds >= seconds && sim.seconds <= seconds + 5, "{spec}: after {} s", sim.seconds);
        let complete = sim.conditions().iter().any(|c| c.starts_with("Complete"));
        assert_eq!(sim.status("completionTime").is_string(), complete, "{spec}");
        let last = sim.notes.last().map(String::as_str);
        assert_eq!(last == Some("Completed"), complete, "{spec}: {:?}", sim.notes);
    }
}

#[test]
fn an_index_that_fails_too_often_fails_alone() {
    let spec = "completionMode: Indexed, completions: 4, parallelism: 4, backoffLimit: 100, backoffLimitPerIndex: 1";
    let sim = settled(spec, node(|_, pod| Some(if index(pod) == 1 { 1 } else { 0 })));
    assert_eq!(sim.conditions(), ["FailureTarget:FailedIndexes", "Failed:FailedIndexes"]);
    assert_eq!((sim.status("completedIndexes"), sim.status("failedIndexes")), (json!("0,2,3"), json!("1")));
    assert_eq!((sim.status("succeeded"), sim.status("failed")), (json!(3), json!(2)));
    let mut counts: Vec<(i32, i32)> =
        sim.pods().values().map(|p| (index(p), pods::index_failures(&typed(p)).0)).collect();
    counts.sort_unstable();
    assert_eq!(counts, [(0, 0), (1, 0), (1, 1), (2, 0), (3, 0)]);

    let fail_index = format!(
        "{spec}, podFailurePolicy: {{rules: [{{action: FailIndex, onExitCodes: {{operator: In, values: [42]}}}}]}}"
    );
    let sim = settled(&fail_index, node(|_, pod| Some(if index(pod) == 2 { 42 } else { 0 })));
    assert_eq!((sim.status("failedIndexes"), sim.status("failed")), (json!("2"), json!(1)), "at once");
}

#[test]
fn a_success_policy_ends_the_rest() {
    for (rule, done, why) in [
        ("{succeededIndexes: '1,3'}", vec![1, 3], "Matched rules at index 1"),
        ("{succeededCount: 2}", vec![0, 2], "Matched rules at index 1"),
        ("{succeededIndexes: '0-2', succeededCount: 1}", vec![2], "Matched rules at index 1"),
    ] {
        let spec = format!(
            "completionMode: Indexed, completions: 5, parallelism: 5, \
             successPolicy: {{rules: [{{succeededIndexes: '4'}}, {rule}]}}"
        );
        let wanted = done.clone();
        let sim = settled(&spec, node(move |_, pod| wanted.contains(&index(pod)).then_some(0)));
        assert_eq!(sim.conditions(), ["SuccessCriteriaMet:SuccessPolicy", "Complete:SuccessPolicy"], "{rule}");
        assert_eq!(sim.job().pointer("/status/conditions/0/message"), Some(&json!(why)));
        let succeeded = i64::try_from(done.len()).unwrap();
        assert_eq!((sim.status("succeeded"), sim.status("failed")), (json!(succeeded), json!(null)), "{rule}");
        assert!(sim.active().is_empty());
    }
}

#[test]
fn a_suspended_job_keeps_no_pods_and_counts_no_failures() {
    let mut sim = Sim::new("completions: 3, parallelism: 2");
    sim.settle(node(|_, _| None));
    assert_eq!((sim.status("active"), sim.status("ready")), (json!(2), json!(2)));
    let started = sim.status("startTime");
    sim.seconds += 100;
    sim.change_spec(json!({"suspend": true}));
    sim.settle(node(|_, _| None));
    assert_eq!(sim.conditions(), ["Suspended:JobSuspended"]);
    assert_eq!(
        (sim.status("active"), sim.status("failed"), sim.status("startTime")),
        (json!(null), json!(null), json!(null))
    );
    assert!(sim.pods().is_empty());
    sim.seconds += 100;
    sim.change_spec(json!({"suspend": false}));
    let before = sim.seconds;
    sim.settle(node(|_, _| Some(0)));
    assert_eq!(sim.seconds, before, "no back-off after a suspension");
    assert!(sim.ended());
    assert_ne!(sim.status("startTime"), started);
    assert_eq!((sim.status("succeeded"), sim.status("failed")), (json!(3), json!(null)));
    assert_eq!(sim.notes, ["Suspended", "Resumed", "Completed"]);
}

#[test]
fn a_deleted_pod_is_replaced_as_the_policy_says() {
    for (policy, at_once) in [("TerminatingOrFailed", true), ("Failed", false)] {
        let mut sim = Sim::new(&format!("completions: 1, podReplacementPolicy: {policy}"));
        sim.settle(node(|_, _| None));
        let first = sim.active()[0].clone();
        sim.seconds += 60;
        sim.delete(&first);
        // The node takes its time.
        sim.settle(|_| false);
        assert_eq!(sim.active().len(), usize::from(at_once), "{policy}");
        assert_eq!(sim.status("terminating"), json!(1), "{policy}");
        sim.settle(node(|_, _| Some(0)));
        assert!(sim.ended());
        assert_eq!((sim.status("succeeded"), sim.status("failed")), (json!(1), json!(1)), "{policy}");
    }
}

#[test]
fn a_work_queue_starts_nothing_after_the_first_success() {
    let mut sim = Sim::new("parallelism: 3");
    sim.settle(node(|_, _| None));
    assert_eq!(sim.active().len(), 3);
    let names = sim.active();
    sim.end(&names[0], 0);
    sim.end(&names[1], 1);
    sim.settle(|_| false);
    assert_eq!(sim.active(), names[2..]);
    assert!(!sim.ended());
    sim.end(&names[2], 0);
    sim.settle(|_| false);
    assert!(sim.ended());
    assert_eq!((sim.status("succeeded"), sim.status("failed")), (json!(2), json!(1)));
}

#[test]
fn indexed_jobs_grow_and_shrink() {
    let mut sim = Sim::new("completionMode: Indexed, completions: 3, parallelism: 3");
    sim.settle(node(|_, pod| (index(pod) != 0).then_some(0)));
    assert_eq!(sim.status("completedIndexes"), json!("1,2"));
    sim.change_spec(json!({"completions": 5, "parallelism": 5}));
    sim.settle(node(|_, pod| (index(pod) != 0).then_some(0)));
    assert_eq!(sim.status("completedIndexes"), json!("1-4"));
    sim.change_spec(json!({"completions": 2, "parallelism": 2}));
    sim.settle(|_| false);
    assert_eq!((sim.status("completedIndexes"), sim.status("succeeded")), (json!("1"), json!(1)));
    sim.settle(node(|_, _| Some(0)));
    assert!(sim.ended());
    assert_eq!(sim.status("completedIndexes"), json!("0,1"));
}

#[test]
fn fewer_pods_at_once_are_no_failures() {
    let mut sim = Sim::new("completions: 9, parallelism: 4");
    sim.settle(node(|_, _| None));
    for parallelism in [1, 0] {
        sim.change_spec(json!({"parallelism": parallelism}));
        sim.settle(node(|_, _| None));
        assert_eq!(sim.active().len(), usize::try_from(parallelism).unwrap());
        assert_eq!(sim.status("failed"), json!(null));
    }
}

#[test]
fn pods_that_cannot_be_made_hold_up_nothing_else() {
    let mut sim = Sim::new("completions: 2, parallelism: 2");
    sim.settle(node(|_, _| None));
    sim.refuse = true;
    let names = sim.active();
    sim.end(&names[0], 1);
    sim.end(&names[1], 0);
    sim.seconds += 100;
    sim.settle(|_| false);
    assert_eq!(
        (sim.status("succeeded"), sim.status("failed"), sim.status("active")),
        (json!(1), json!(1), json!(null))
    );
    sim.refuse = false;
    sim.settle(node(|_, _| Some(0)));
    assert!(sim.ended());
}

/// A Job as the API gives it, and a pod of it.
fn job(spec: &str) -> Job {
    yaml(&format!(
        "metadata: {{name: j, namespace: shop, uid: uid-j, resourceVersion: '5'}}\n\
         spec: {{selector: {{matchLabels: {{job: j}}}}, template: {{metadata: {{labels: {{job: j}}, annotations: {{a: b}}}}, \
         spec: {{restartPolicy: OnFailure, initContainers: [{{name: i}}], containers: [{{name: c}}]}}}}, {spec}}}"
    ))
}

fn pod(name: &str, metadata: &str, status: &str) -> Arc<Pod> {
    let owner = "ownerReferences: [{apiVersion: batch/v1, kind: Job, name: j, uid: uid-j, controller: true}]";
    let owner = if metadata.contains("ownerReferences") { "" } else { owner };
    let labels = if metadata.contains("labels") { "" } else { "labels: {job: j}," };
    Arc::new(yaml(&format!(
        "metadata: {{name: {name}, namespace: shop, uid: uid-{name}, resourceVersion: '7', {labels} {metadata} {owner}}}\n\
         spec: {{containers: []}}\nstatus: {{{status}}}"
    )))
}

fn patches(plan: &Plan) -> Vec<(String, Value)> {
    let patches = plan.actions.iter().filter_map(|a| match a {
        Action::Patch { target, patch, .. } => Some((target.name.clone(), patch["metadata"]["finalizers"].clone())),
        _ => None,
    });
    patches.collect()
}

#[test]
fn a_pod_knows_its_index() {
    let plan = reconcile(&job("completionMode: Indexed, completions: 2, parallelism: 2"), &[], now(), true);
    let [Action::Create { .. }, Action::Create { object, target }] = plan.actions.as_slice() else {
        panic!("{plan:?}")
    };
    assert_eq!(target.collection_path(), "/api/v1/namespaces/shop/pods");
    let key = "batch.kubernetes.io/job-completion-index";
    let metadata = &object["metadata"];
    assert_eq!(metadata["generateName"], "j-1-");
    assert_eq!(metadata["annotations"], json!({key: "1", "a": "b"}));
    assert_eq!(metadata["labels"], json!({key: "1", "job": "j"}));
    assert_eq!(metadata["finalizers"], json!([FINALIZER]));
    assert_eq!(metadata["ownerReferences"][0]["uid"], "uid-j");
    assert_eq!(object["spec"]["hostname"], "j-1");
    let path = format!("metadata.labels['{key}']");
    for kind in ["containers", "initContainers"] {
        assert_eq!(object["spec"][kind][0]["env"][0]["name"], "JOB_COMPLETION_INDEX", "{kind}");
        assert_eq!(object["spec"][kind][0]["env"][0]["valueFrom"]["fieldRef"]["fieldPath"], path, "{kind}");
    }
}

#[test]
fn orphans_are_taken_in_and_strangers_let_go_with_the_finalizer() {
    let orphan = pod("orphan", "ownerReferences: []", "");
    let stranger = pod("stranger", &format!("labels: {{job: x}}, finalizers: [x/y, {FINALIZER}],"), "");
    let plan = reconcile(&job("completions: 1"), &[orphan, stranger], now(), true);
    assert!(plan.confirm_owner);
    assert_eq!(patches(&plan), [("orphan".into(), json!([FINALIZER])), ("stranger".into(), json!(["x/y"]))]);
}

#[test]
fn who_ended_or_goes_lets_pods_go() {
    let held = || pod("held", &format!("finalizers: [{FINALIZER}],"), "phase: Running");
    let mut ended = job("completions: 1");
    ended.status = Some(yaml("conditions: [{type: Failed, status: 'True'}]"));
    let mut going = job("completions: 1");
    going.metadata.deletion_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(-1)));
    for job in [ended, going] {
        let plan = reconcile(&job, &[held()], now(), true);
        assert_eq!(patches(&plan), [("held".into(), json!([]))]);
        assert!(plan.status.is_none());
    }
    let theirs = job("completions: 1, managedBy: example.com/other");
    assert!(reconcile(&theirs, &[held()], now(), true).is_empty());
    assert!(!reconcile(&job(&format!("completions: 1, managedBy: {MANAGER}")), &[], now(), true).is_empty());
}

#[test]
fn restarts_in_place_count_too() {
    for (limit, restarts, fails) in [(0, 0, false), (0, 1, true), (2, 1, false), (2, 2, true)] {
        let status = format!(
            "phase: Running, containerStatuses: [{{name: c, image: i, imageID: '', ready: true, restartCount: {restarts}}}]"
        );
        let running = pod("p", &format!("finalizers: [{FINALIZER}],"), &status);
        let plan = reconcile(&job(&format!("completions: 1, backoffLimit: {limit}")), &[running], now(), true);
        let deletes = plan.actions.iter().any(|a| matches!(a, Action::Delete { .. }));
        assert_eq!(deletes, fails, "{limit} {restarts}: {plan:?}");
    }
}

#[test]
fn a_status_write_demands_what_was_seen() {
    let plan = reconcile(&job("completions: 1"), &[], now(), true);
    let Some(Action::Patch { patch, subresource: "status", .. }) = &plan.status else { panic!("{plan:?}") };
    assert_eq!(patch["metadata"], json!({"uid": "uid-j", "resourceVersion": "5"}));
    assert_eq!((&patch["status"]["active"], &patch["status"]["ready"]), (&json!(1), &json!(0)));
}

#[test]
fn policies_judge_by_their_first_rule_that_fits() {
    let rules = "podFailurePolicy: {rules: [\
        {action: Ignore, onPodConditions: [{type: DisruptionTarget, status: 'True'}]}, \
        {action: Count, onExitCodes: {operator: In, values: [1]}}, \
        {action: FailJob, onPodConditions: [{type: ConfigIssue, status: 'True'}]}, \
        {action: FailJob, onExitCodes: {containerName: c, operator: NotIn, values: [1, 5]}}]}";
    let job = job(&format!("completions: 1, {rules}"));
    let ended = |name: &str, code: i32| {
        format!(
            "containerStatuses: [{{name: {name}, image: i, imageID: '', ready: false, restartCount: 0, \
             state: {{terminated: {{exitCode: {code}}}}}}}]"
        )
    };
    let why = "Container c for pod shop/p failed with exit code 3 matching FailJob rule at index 3";
    let condition = "conditions: [{type: ConfigIssue, status: 'True'}]";
    for (status, ignored, fails_job) in [
        (ended("c", 1), false, None),
        (ended("c", 3), false, Some(why)),
        (ended("c", 5), false, None),
        (ended("d", 3), false, None),
        (format!("{}, conditions: [{{type: DisruptionTarget, status: 'True'}}]", ended("c", 3)), true, None),
        (condition.into(), false, Some("Pod shop/p has condition ConfigIssue matching FailJob rule at index 2")),
        ("conditions: [{type: ConfigIssue, status: 'False'}]".into(), false, None),
    ] {
        let verdict = pods::judge(job.spec.as_ref().unwrap(), &pod("p", "", &status));
        assert_eq!((verdict.ignored, verdict.fails_job.as_deref()), (ignored, fails_job), "{status}");
    }
}

#[test]
fn the_wait_after_failures_doubles_up_to_six_minutes() {
    for (failures, passed, left) in [
        (0, 0, None),
        (1, 0, Some(10)),
        (1, 4, Some(6)),
        (1, 10, None),
        (3, 0, Some(40)),
        (6, 0, Some(320)),
        (7, 0, Some(360)),
        (99, 60, Some(300)),
    ] {
        let wait = pods::backoff(failures, Some(at(-passed)), now());
        assert_eq!(wait, left.map(Duration::from_secs), "{failures} {passed}");
    }
}
