//! Jobs and CronJobs with stock kubectl and real guests.

use copepod_tests::{Cluster, wait_for};
use serde_json::json;

/// A Job of one toolbox container; `spec` are lines of its spec, `pod` of its pods' spec.
fn job(name: &str, args: &[&str], spec: &str, pod: &str) -> String {
    let args = serde_json::to_string(args).unwrap();
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}}}\nspec:\n{spec}  template:\n    spec:\n      \
         restartPolicy: Never\n{pod}      containers:\n      - name: main\n        image: toolbox\n        args: {args}\n"
    )
}

#[test]
fn a_job_that_fails_twice_succeeds_in_the_end() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    let runs = cluster.data_dir.parent().unwrap().join("runs");
    let volume =
        format!("      volumes: [{{name: runs, hostPath: {{path: {}, type: DirectoryOrCreate}}}}]\n", runs.display());
    let yaml = job("flaky", &["flaky", "/runs/log", "2"], "  backoffLimit: 4\n", &volume);
    cluster.apply(&format!("{yaml}        volumeMounts: [{{name: runs, mountPath: /runs}}]\n"));
    cluster.ok("wait --for=condition=complete job/flaky --timeout=180s");

    let status = cluster.get("job flaky")["status"].clone();
    assert_eq!((&status["succeeded"], &status["failed"]), (&json!(1), &json!(2)), "{status}");
    assert_eq!((&status["active"], &status["uncountedTerminatedPods"]), (&json!(null), &json!({})), "{status}");
    assert_eq!(std::fs::read_to_string(runs.join("log")).unwrap().lines().count(), 3);
    let row = cluster.ok("get job flaky --no-headers");
    assert!(row.contains("Complete") && row.contains("1/1"), "{row}");
    let pods = cluster.get("pods -l batch.kubernetes.io/job-name=flaky");
    let pods = pods["items"].as_array().unwrap();
    assert_eq!(pods.len(), 3);
    assert!(pods.iter().all(|p| p["metadata"]["finalizers"].is_null()), "{pods:?}");
    wait_for("the events", || {
        let told = cluster.ok("describe job flaky");
        let all = ["SuccessfulCreate", "Completed", "Job completed", "1 Succeeded / 2 Failed"];
        if all.iter().all(|text| told.contains(text)) { Ok(()) } else { Err(told) }
    });
    // Its pods go with it.
    cluster.ok("delete job flaky");
    wait_for("the pods to go", || match cluster.ok("get pods -o name") {
        none if none.is_empty() => Ok(()),
        some => Err(some),
    });
}

#[test]
fn indexes_limits_time_to_live_and_schedules() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");

    // Each index is told to its pod.
    let indexed = "  completionMode: Indexed\n  completions: 3\n  parallelism: 2\n";
    cluster.apply(&job("ix", &["env", "JOB_COMPLETION_INDEX", "HOSTNAME"], indexed, ""));
    // Fails at once and for good, and is gone a second later.
    cluster.apply(&job("bad", &["exit", "3"], "  backoffLimit: 0\n", ""));
    cluster.ok("wait --for=condition=complete job/ix --timeout=120s");
    assert_eq!(cluster.get("job ix")["status"]["completedIndexes"], "0-2");
    for index in 0..3 {
        let log = cluster.ok(&format!("logs -l batch.kubernetes.io/job-completion-index={index}"));
        assert!(log.contains(&format!("JOB_COMPLETION_INDEX={index}\nHOSTNAME=ix-{index}\n")), "{log}");
    }
    cluster.ok("wait --for=condition=failed job/bad --timeout=120s");
    let status = cluster.get("job bad")["status"].clone();
    let reasons: Vec<&str> =
        status["conditions"].as_array().unwrap().iter().filter_map(|c| c["reason"].as_str()).collect();
    assert_eq!(reasons, ["BackoffLimitExceeded", "BackoffLimitExceeded"], "{status}");
    assert_eq!(status["failed"], 1);
    cluster.ok("patch job bad -p {\"spec\":{\"ttlSecondsAfterFinished\":1}}");
    cluster.ok("wait --for=delete job/bad --timeout=60s");
    assert_eq!(cluster.pods("job-name=bad"), Vec::<String>::new());

    // A suspended Job waits, and a running one that is suspended ends its pods without a failure.
    cluster.apply(&job("still", &["sleep"], "  suspend: true\n", "      terminationGracePeriodSeconds: 1\n"));
    cluster.ok("wait --for=condition=suspended job/still --timeout=60s");
    assert_eq!(cluster.pods("job-name=still"), Vec::<String>::new());
    cluster.ok("patch job still -p {\"spec\":{\"suspend\":false}}");
    cluster.until("job still", "/status/ready", |ready| *ready == 1);
    cluster.ok("patch job still -p {\"spec\":{\"suspend\":true}}");
    wait_for("the pod to go", || match cluster.pods("job-name=still") {
        none if none.is_empty() => Ok(()),
        some => Err(format!("{some:?}")),
    });
    let status = cluster.get("job still")["status"].clone();
    assert_eq!((&status["failed"], &status["startTime"]), (&json!(null), &json!(null)), "{status}");

    // A Job by hand from a schedule that is far off.
    cluster.ok("create cronjob yearly --image=toolbox --schedule=@yearly -- toolbox exit 0");
    cluster.ok("patch cronjob yearly -p {\"spec\":{\"timeZone\":\"Europe/Berlin\"}}");
    cluster.ok("create job now --from=cronjob/yearly");
    let owner = cluster.get("job now")["metadata"]["ownerReferences"][0].clone();
    assert_eq!((&owner["kind"], &owner["name"]), (&json!("CronJob"), &json!("yearly")));
    let row = cluster.ok("get cronjob yearly --no-headers");
    assert!(row.contains("@yearly") && row.contains("Europe/Berlin"), "{row}");
    let refused = cluster.k("create cronjob zone --image=toolbox --schedule=TZ=UTC_0_0_*_*_*");
    assert!(!refused.ok && refused.err.contains("spec.schedule"), "{}", refused.err);
}
