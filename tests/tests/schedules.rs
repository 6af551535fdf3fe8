//! A CronJob over minutes, with stock kubectl and real guests: the test moves the controllers' time.

use copepod_tests::timed::Timed;
use copepod_tests::{Cluster, Ran, wait_for};
use serde_json::json;

/// The Jobs of the schedule, in the order of their minutes.
fn jobs(cluster: &Cluster) -> Vec<String> {
    let names = cluster.ok("get jobs -o jsonpath={.items[*].metadata.name}");
    names.split_whitespace().map(str::to_string).collect()
}

fn until_jobs(cluster: &Cluster, expected: &[&String]) {
    wait_for(&format!("the Jobs {expected:?}"), || match jobs(cluster) {
        jobs if jobs.iter().eq(expected.iter().copied()) => Ok(()),
        jobs => Err(format!("{jobs:?}")),
    });
}

#[test]
fn a_schedule_runs_its_guest_minute_by_minute() {
    let time = Timed::start();
    let cluster = &time.cluster;
    let next = || format!("tick-{}", time.next_minute());
    cluster.push("toolbox", "toolbox");
    let create =
        ["create", "cronjob", "tick", "--image=toolbox", "--schedule=* * * * *", "--", "toolbox", "argv", "go"];
    let made: Ran = cluster.kubectl().args(create).output().unwrap().into();
    assert!(made.ok, "{}", made.err);
    cluster.ok("patch cronjob tick -p {\"spec\":{\"successfulJobsHistoryLimit\":2,\"concurrencyPolicy\":\"Forbid\"}}");
    assert_eq!(jobs(cluster), Vec::<String>::new(), "its minute has not come");

    // Each minute a Job, whose pod runs to its end; the last two are kept.
    let ran: Vec<String> = (0..3)
        .map(|_| {
            let job = next();
            cluster.until(&format!("job {job}"), "/status/succeeded", |n| *n == 1);
            assert!(cluster.ok(&format!("logs job/{job}")).contains("\"argv\", \"go\""));
            job
        })
        .collect();
    until_jobs(cluster, &[&ran[1], &ran[2]]);
    let status = cluster.until("cronjob tick", "/status", |s| s["active"].is_null());
    let minutes = |name: &String| name.rsplit('-').next().unwrap().parse::<i64>().unwrap();
    let last = status["lastScheduleTime"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    assert_eq!(last.as_second(), minutes(&ran[2]) * 60);
    assert!(status["lastSuccessfulTime"].as_str().unwrap() >= status["lastScheduleTime"].as_str().unwrap(), "{status}");
    let row = cluster.ok("get cronjob tick --no-headers");
    assert!(row.contains("* * * * *") && row.contains("False"), "{row}");

    // One that goes on lets no other begin; when it is gone, the minute that it held up is made up for.
    let stays = json!({"spec": {"jobTemplate": {"spec": {"template": {"spec": {
        "terminationGracePeriodSeconds": 1, "containers": [{"name": "tick", "command": ["toolbox", "sleep"]}]}}}}}});
    cluster.ok(&format!("patch cronjob tick -p {stays}"));
    let long = next();
    cluster.until(&format!("job {long}"), "/status/ready", |n| *n == 1);
    let held_up = next();
    wait_for("the event", || {
        let events = cluster.ok("get events --field-selector=involvedObject.kind=CronJob");
        if events.contains("JobAlreadyActive") { Ok(()) } else { Err(events) }
    });
    assert_eq!(jobs(cluster), [ran[1].clone(), ran[2].clone(), long.clone()]);
    assert_eq!(cluster.get("cronjob tick")["status"]["active"].as_array().map(Vec::len), Some(1));
    cluster.ok(&format!("delete job {long}"));
    until_jobs(cluster, &[&ran[1], &ran[2], &held_up]);

    // Suspended, minutes pass without a Job; resumed, the last of them is made up for.
    cluster.ok("patch cronjob tick -p {\"spec\":{\"suspend\":true}}");
    cluster.ok(&format!("delete job {held_up}"));
    let (first, second) = (next(), next());
    until_jobs(cluster, &[&ran[1], &ran[2]]);
    cluster.ok("patch cronjob tick -p {\"spec\":{\"suspend\":false}}");
    until_jobs(cluster, &[&ran[1], &ran[2], &second]);
    assert!(!jobs(cluster).contains(&first));
    cluster.ok("delete cronjob tick");
    until_jobs(cluster, &[]);
}
