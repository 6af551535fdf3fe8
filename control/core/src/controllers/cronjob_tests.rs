//! CronJobs: which Job is made when, and what becomes of those there are.

use serde_json::Value;

use super::super::testing::yaml;
use super::*;

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A CronJob of 2026-11-21 10:00 UTC.
fn cron(spec: &str, status: &str) -> CronJob {
    yaml(&format!(
        "metadata: {{name: c, namespace: shop, uid: uid-c, resourceVersion: '9', creationTimestamp: '2026-11-21T10:00:00Z'}}\n\
         spec: {{{spec}, jobTemplate: {{metadata: {{labels: {{a: b}}, annotations: {{x: z}}}}, \
         spec: {{template: {{spec: {{containers: [{{name: m}}]}}}}}}}}}}\nstatus: {{{status}}}"
    ))
}

/// A Job of the CronJob: `how` is its condition, or empty while it runs.
fn job(name: &str, how: &str, start: &str) -> Arc<Job> {
    Arc::new(yaml(&format!(
        "metadata: {{name: {name}, namespace: shop, uid: uid-{name}, resourceVersion: '3', annotations: {{{SCHEDULED}: x}}, \
         ownerReferences: [{{apiVersion: batch/v1, kind: CronJob, name: c, uid: uid-c, controller: true}}]}}\n\
         spec: {{template: {{}}}}\nstatus: {{startTime: '{start}', completionTime: '{start}', conditions: [{}]}}",
        if how.is_empty() { String::new() } else { format!("{{type: {how}, status: 'True'}}") }
    )))
}

fn active(names: &[&str]) -> String {
    let list: Vec<String> = names.iter().map(|n| format!("{{name: {n}, uid: uid-{n}}}")).collect();
    format!("active: [{}]", list.join(", "))
}

fn made(plan: &Plan) -> Option<(String, Value)> {
    plan.actions.iter().find_map(|a| match a {
        Action::Create { target, object } => Some((target.name.clone(), object.clone())),
        _ => None,
    })
}

fn deleted(plan: &Plan) -> Vec<&str> {
    let deleted = plan.actions.iter().filter(|a| matches!(a, Action::Delete { .. }));
    deleted.map(|a| a.target().name.as_str()).collect()
}

fn notes(plan: &Plan) -> Vec<&str> {
    plan.notes.iter().map(|n| n.reason).collect()
}

fn status(plan: &Plan, field: &str) -> Value {
    match &plan.status {
        Some(Action::Patch { patch, .. }) => patch["status"][field].clone(),
        _ => Value::Null,
    }
}

#[test]
fn the_job_of_the_latest_time_is_made_once() {
    let many: &[&str] = &["TooManyMissedTimes"];
    // spec, status, now; the time of the Job, seconds to the next look, events
    type Case<'a> = (&'a str, &'a str, &'a str, Option<&'a str>, Option<u64>, &'a [&'a str]);
    let cases: Vec<Case<'_>> = vec![
        ("schedule: '*/5 * * * *'", "", "10:03:00", None, Some(120), &[]),
        ("schedule: '*/5 * * * *'", "", "10:05:00", Some("10:05"), Some(300), &[]),
        ("schedule: '*/5 * * * *'", "", "10:05:02", Some("10:05"), Some(298), &[]),
        ("schedule: '*/5 * * * *'", "", "10:17:00", Some("10:15"), Some(180), &[]),
        ("schedule: '*/5 * * * *'", "lastScheduleTime: '2026-11-21T10:15:00Z'", "10:17:00", None, Some(180), &[]),
        ("schedule: '*/5 * * * *', suspend: true", "", "10:05:00", None, None, &[]),
        ("schedule: '* * * * *'", "", "11:30:30", Some("11:30"), Some(30), &[]),
        ("schedule: '* * * * *'", "", "11:50:30", Some("11:50"), Some(30), many),
        ("schedule: '* * * * *', startingDeadlineSeconds: 600", "", "11:50:30", Some("11:50"), Some(30), &[]),
        ("schedule: '0 * * * *', startingDeadlineSeconds: 20", "", "11:00:19", Some("11:00"), Some(3581), &[]),
        // Too late for the last time.
        ("schedule: '0 * * * *', startingDeadlineSeconds: 20", "", "11:00:40", None, Some(3560), &[]),
        ("schedule: '@every 1h'", "", "10:59:59", None, Some(1), &[]),
        ("schedule: '@every 1h'", "", "13:10:00", Some("13:00"), Some(3000), &[]),
        ("schedule: '@every 1h', startingDeadlineSeconds: 60", "", "11:00:01", Some("11:00"), Some(3599), &[]),
        ("schedule: '0 13 * * *', timeZone: Europe/Berlin", "", "12:00:00", Some("12:00"), Some(86400), &[]),
        ("schedule: '0 0 31 2 *'", "", "12:00:00", None, None, &["InvalidSchedule"]),
        ("schedule: 'x'", "", "12:00:00", None, None, &["UnparseableSchedule"]),
        ("schedule: '* * * * *', timeZone: Nowhere/Land", "", "12:00:00", None, None, &["UnknownTimeZone"]),
    ];
    for (spec, before, now, at, next, events) in cases {
        let now = time(&format!("2026-11-21T{now}Z"));
        let plan = reconcile(&cron(spec, before), &[], now);
        let at = at.map(|at| time(&format!("2026-11-21T{at}:00Z")));
        let name = at.map(|at| format!("c-{}", at.as_second() / 60));
        assert_eq!(made(&plan).map(|(name, _)| name), name, "{spec} {now}");
        let last = at.map_or(Value::Null, |at| json!(at.to_string()));
        assert_eq!(status(&plan, "lastScheduleTime"), last, "{spec} {now}");
        let wait = next.map(|s| Duration::from_secs(s) + AFTER_SCHEDULE);
        assert_eq!(plan.requeue_after, wait, "{spec} {now}");
        assert_eq!(notes(&plan), events, "{spec} {now}");
    }
}

#[test]
fn a_job_is_as_its_template_says() {
    let spec = "schedule: '0 13 * * *', timeZone: Europe/Berlin";
    let (_, job) = made(&reconcile(&cron(spec, ""), &[], time("2026-11-21T12:00:00Z"))).unwrap();
    let metadata = &job["metadata"];
    assert_eq!(metadata["annotations"], json!({"x": "z", SCHEDULED: "2026-11-21T13:00:00+01:00"}));
    assert_eq!(metadata["labels"], json!({"a": "b"}));
    assert_eq!(metadata["ownerReferences"][0]["uid"], "uid-c");
    assert_eq!(job["spec"]["template"]["spec"]["containers"][0]["name"], "m");
    let (_, job) = made(&reconcile(&cron("schedule: '@hourly'", ""), &[], time("2026-11-21T12:00:00Z"))).unwrap();
    assert_eq!(job["metadata"]["annotations"][SCHEDULED], "2026-11-21T12:00:00Z");
}

#[test]
fn what_still_runs_counts() {
    let running = job("c-1", "", "2026-11-21T10:30:00Z");
    let now = time("2026-11-21T11:00:00Z");
    for (policy, makes, deletes, events) in [
        ("Allow", true, vec![], vec![]),
        ("Forbid", false, vec![], vec!["JobAlreadyActive"]),
        ("Replace", true, vec!["c-1"], vec!["SuccessfulDelete"]),
    ] {
        let cron = cron(&format!("schedule: '@hourly', concurrencyPolicy: {policy}"), &active(&["c-1"]));
        let plan = reconcile(&cron, std::slice::from_ref(&running), now);
        assert_eq!((made(&plan).is_some(), deleted(&plan), notes(&plan)), (makes, deletes, events), "{policy}");
    }
    // Once it has ended, the time that it held up is made up for.
    let ended = job("c-1", "Complete", "2026-11-21T10:30:00Z");
    let cron = cron("schedule: '@hourly', concurrencyPolicy: Forbid", &active(&["c-1"]));
    let plan = reconcile(&cron, &[ended], time("2026-11-21T11:20:00Z"));
    assert_eq!(made(&plan).map(|(name, _)| name), Some(format!("c-{}", now.as_second() / 60)));
    assert_eq!(notes(&plan), ["SawCompletedJob"]);
}

#[test]
fn a_name_that_is_taken_is_not_made_again() {
    let now = time("2026-11-21T11:00:01Z");
    let name = format!("c-{}", now.as_second() / 60);
    let cron = cron("schedule: '@hourly'", "");
    // We made it, and were stopped before we could say so.
    let plan = reconcile(&cron, &[job(&name, "", "2026-11-21T11:00:00Z")], now);
    assert!(made(&plan).is_none() && notes(&plan).is_empty());
    assert_eq!(status(&plan, "lastScheduleTime"), "2026-11-21T11:00:00Z");
    assert_eq!(status(&plan, "active")[0]["name"], json!(name));
    let mut foreign = (*job(&name, "", "2026-11-21T11:00:00Z")).clone();
    foreign.metadata.owner_references = None;
    let plan = reconcile(&cron, &[Arc::new(foreign)], now);
    assert!(plan.is_empty() && plan.requeue_after.is_some());
    assert_eq!(notes(&plan), ["FailedCreate"]);
}

#[test]
fn jobs_are_followed() {
    let now = time("2026-11-21T10:10:00Z");
    let mut by_hand = (*job("hand", "", "2026-11-21T10:01:00Z")).clone();
    by_hand.metadata.annotations = None;
    let jobs = [
        job("c-1", "Complete", "2026-11-21T10:01:00Z"),
        job("c-2", "Failed", "2026-11-21T10:02:00Z"),
        job("c-3", "", "2026-11-21T10:03:00Z"),
        job("c-4", "Complete", "2026-11-21T10:00:30Z"),
        Arc::new(by_hand),
    ];
    let plan = reconcile(&cron("schedule: '@hourly'", &active(&["c-1", "c-2", "gone"])), &jobs, now);
    assert_eq!(notes(&plan), ["SawCompletedJob", "SawCompletedJob", "UnexpectedJob", "MissingJob"]);
    assert_eq!(plan.notes[1].message, "Saw completed job: c-2, condition: Failed");
    let listed = status(&plan, "active");
    assert_eq!((listed.as_array().map(Vec::len), &listed[0]["name"]), (Some(1), &json!("c-3")));
    assert_eq!(status(&plan, "lastSuccessfulTime"), "2026-11-21T10:01:00Z");
    let Some(Action::Patch { patch, .. }) = &plan.status else { panic!("{plan:?}") };
    assert_eq!(patch["metadata"]["resourceVersion"], "9");
}

#[test]
fn only_so_many_ended_jobs_stay() {
    let now = time("2026-11-21T10:10:00Z");
    let jobs: Vec<Arc<Job>> = [
        ("a", "Complete", 5),
        ("b", "Complete", 3),
        ("c", "Complete", 4),
        ("d", "Failed", 1),
        ("e", "Failed", 2),
        ("f", "", 0),
    ]
    .iter()
    .map(|(name, how, minute)| job(name, how, &format!("2026-11-21T10:0{minute}:00Z")))
    .collect();
    for (limits, expected) in [
        ("successfulJobsHistoryLimit: 1, failedJobsHistoryLimit: 1", vec!["b", "c", "d"]),
        ("successfulJobsHistoryLimit: 0, failedJobsHistoryLimit: 5", vec!["b", "c", "a"]),
        ("suspend: true", vec![]),
        ("suspend: true, failedJobsHistoryLimit: 0", vec!["d", "e"]),
    ] {
        let plan = reconcile(&cron(&format!("schedule: '@hourly', {limits}"), ""), &jobs, now);
        assert_eq!(deleted(&plan), expected, "{limits}");
    }
}
