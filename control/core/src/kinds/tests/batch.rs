//! Job and CronJob.

use super::columns::row;
use super::updates::{update, with};
use super::validation::check;
use super::*;

const BATCH: &str = "batch/v1";

/// A Job as a client sends it, with these fields in its spec.
fn job(fields: Value) -> Value {
    let mut object = json!({"metadata": {"name": "pi", "uid": "u1"}, "spec": {"template": {"spec":
        {"restartPolicy": "Never", "containers": [{"name": "pi", "image": "pi:1"}]}}}});
    for (key, value) in fields.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

/// The Job as it is stored.
fn created(fields: Value) -> Value {
    let resource = kind(BATCH, "Job");
    let mut object = defaulted(&resource, job(fields));
    resource.strategy.prepare_create(&mut object);
    object
}

/// What is wrong with a Job of these fields; `expected` are the starts of all messages.
fn wrong(fields: Value, expected: &[&str]) {
    check(BATCH, "Job", created(fields), expected);
}

#[test]
fn job_defaults() {
    let object = created(json!({}));
    let labels = json!({"controller-uid": "u1", "batch.kubernetes.io/controller-uid": "u1", "job-name": "pi",
        "batch.kubernetes.io/job-name": "pi"});
    assert_eq!(object["spec"]["template"]["metadata"]["labels"], labels);
    assert_eq!(object["metadata"]["labels"], labels);
    assert_eq!(object["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}}));
    let mut rest = object["spec"].clone();
    for key in ["template", "selector"] {
        rest.as_object_mut().unwrap().remove(key);
    }
    assert_eq!(
        rest,
        json!({"completions": 1, "parallelism": 1, "backoffLimit": 6, "completionMode": "NonIndexed",
            "suspend": false, "manualSelector": false, "podReplacementPolicy": "TerminatingOrFailed"})
    );
    assert_eq!(created(json!({"parallelism": 3}))["spec"].get("completions"), None, "a work queue");
    assert_eq!(created(json!({"completions": 3}))["spec"]["parallelism"], 1);
    let indexed = created(json!({"completionMode": "Indexed", "completions": 2, "backoffLimitPerIndex": 1,
        "podFailurePolicy": {"rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]}]}}));
    assert_eq!(indexed["spec"]["backoffLimit"], i32::MAX);
    assert_eq!(indexed["spec"]["podReplacementPolicy"], "Failed");
    assert_eq!(indexed.pointer("/spec/podFailurePolicy/rules/0/onPodConditions/0/status"), Some(&json!("True")));
    let manual = created(json!({"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}}));
    assert_eq!(manual["spec"]["selector"], json!({"matchLabels": {"a": "b"}}));
    assert_eq!(manual["spec"]["template"].get("metadata"), None);
}

#[test]
fn job_rules() {
    wrong(json!({}), &[]);
    wrong(
        json!({"manualSelector": true, "selector": {"matchLabels": {"a": "b"}}}),
        &["spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`"],
    );
    wrong(json!({"manualSelector": true}), &["spec.selector: Required value"]);
    wrong(
        json!({"selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u2"}}}),
        &[
            "spec.selector: Invalid value: {\"matchLabels\":{\"batch.kubernetes.io/controller-uid\":\"u2\"}}: `selector` not",
            "spec.template.metadata.labels: Invalid value",
        ],
    );
    wrong(json!({"parallelism": -1, "backoffLimit": -1}), &["spec.parallelism: Invalid", "spec.backoffLimit: Invalid"]);
    let restart = |policy: &str| {
        let mut template = job(json!({}))["spec"]["template"].clone();
        template["spec"]["restartPolicy"] = json!(policy);
        json!({"template": template})
    };
    wrong(restart(""), &["spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\""]);
    wrong(restart("OnFailure"), &[]);
    wrong(
        json!({"completionMode": "Indexed", "parallelism": 1}),
        &["spec.completions: Required value: when completion mode is Indexed"],
    );
    wrong(
        json!({"completionMode": "x"}),
        &["spec.completionMode: Unsupported value: \"x\": supported values: \"NonIndexed\", \"Indexed\""],
    );
    wrong(
        json!({"maxFailedIndexes": 1}),
        &[
            "spec.backoffLimitPerIndex: Required value: when maxFailedIndexes is specified",
            "spec.maxFailedIndexes: Invalid value: 1: requires indexed completion mode",
        ],
    );
    wrong(
        json!({"completionMode": "Indexed", "completions": 100_001, "parallelism": 100_001, "backoffLimitPerIndex": 1}),
        &[
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 100000 when completion mode is Indexed",
            "spec.parallelism: Invalid value: 100001: must be less than or equal to 10000 when completions are above",
            "spec.maxFailedIndexes: Required value: must be specified when completions is above 100000",
        ],
    );
    wrong(json!({"managedBy": "x"}), &["spec.managedBy: Invalid value: \"x\": must be a domain-prefixed path"]);
    wrong(json!({"podReplacementPolicy": "x"}), &["spec.podReplacementPolicy: Unsupported value: \"x\""]);
    let mut long = created(json!({"completionMode": "Indexed", "completions": 10}));
    long["metadata"]["name"] = json!("a".repeat(62));
    for label in ["job-name", "batch.kubernetes.io/job-name"] {
        long["spec"]["template"]["metadata"]["labels"][label] = json!("a".repeat(62));
    }
    check(BATCH, "Job", long, &[&format!("metadata.name: Invalid value: {:?}: will not able", "a".repeat(62))]);
}

#[test]
fn job_policies() {
    let failure = |rule: Value| json!({"podFailurePolicy": {"rules": [rule]}});
    let rule = "spec.podFailurePolicy.rules[0]";
    for (fields, expected) in [
        (failure(json!({"action": "FailJob", "onExitCodes": {"operator": "In", "values": [1, 42]}})), ""),
        (failure(json!({"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget"}]})), ""),
        (
            failure(json!({"action": "FailJob"})),
            ": Invalid value: {\"action\":\"FailJob\"}: specifying one of OnExitCodes and OnPodConditions is required",
        ),
        (
            failure(json!({"action": "FailIndex", "onExitCodes": {"operator": "NotIn", "values": [0]}})),
            ".action: Invalid value: \"FailIndex\": requires the backoffLimitPerIndex to be set",
        ),
        (
            failure(json!({"action": "x", "onExitCodes": {"operator": "NotIn", "values": [0]}})),
            ".action: Unsupported value: \"x\": supported values: \"Count\", \"FailIndex\", \"FailJob\", \"Ignore\"",
        ),
        (
            failure(json!({"action": "Count", "onExitCodes": {"operator": "In", "values": [0]}})),
            ".onExitCodes.values[0]: Invalid value: 0: must not be 0 for the In operator",
        ),
        (
            failure(json!({"action": "Count", "onExitCodes": {"operator": "In", "values": [2, 1]}})),
            ".onExitCodes.values: Invalid value: [2,1]: must be ordered",
        ),
        (
            failure(json!({"action": "Count", "onExitCodes": {"operator": "In", "values": [1, 1]}})),
            ".onExitCodes.values[1]: Duplicate value: 1",
        ),
        (
            failure(json!({"action": "Count", "onExitCodes": {"containerName": "x", "operator": "In", "values": [1]}})),
            ".onExitCodes.containerName: Invalid value: \"x\": must be one of the container or initContainer names",
        ),
        (
            failure(json!({"action": "Count", "onPodConditions": [{"type": "a", "status": "x"}]})),
            ".onPodConditions[0].status: Unsupported value: \"x\"",
        ),
    ] {
        let expected = if expected.is_empty() { Vec::new() } else { vec![format!("{rule}{expected}")] };
        wrong(fields, &expected.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let many: Vec<Value> = (0..21).map(|_| json!({"action": "Ignore", "onPodConditions": [{"type": "a"}]})).collect();
    let many = json!({"podFailurePolicy": {"rules": many}});
    wrong(many, &["spec.podFailurePolicy.rules: Too many: 21: must have at most 20 items"]);

    let success =
        |rules: Value| json!({"completionMode": "Indexed", "completions": 5, "successPolicy": {"rules": rules}});
    wrong(success(json!([{"succeededIndexes": "0,2-3", "succeededCount": 2}])), &[]);
    wrong(success(json!([])), &["spec.successPolicy.rules: Required value: at least one rules must"]);
    wrong(success(json!([{}])), &["spec.successPolicy.rules[0]: Required value: at least one of"]);
    wrong(
        success(json!([{"succeededIndexes": "0,7", "succeededCount": 9}])),
        &[
            "spec.successPolicy.rules[0].succeededIndexes: Invalid value: \"0,7\": error parsing succeededIndexes: too large",
            "spec.successPolicy.rules[0].succeededCount: Invalid value: 9: must be less than or equal to 5 (the number of spec",
            "spec.successPolicy.rules[0].succeededCount: Invalid value: 9: must be less than or equal to 0 (the number of index",
        ],
    );
    let not_indexed = json!({"successPolicy": {"rules": [{"succeededCount": 1}]}});
    wrong(not_indexed, &["spec.successPolicy: Invalid value: {\"rules\":[{\"succeededCount\":1}]}: requires indexed"]);
}

#[test]
fn job_changes() {
    let resource = kind(BATCH, "Job");
    let old = created(json!({}));
    update(&resource, &old, with(&old, "/spec/suspend", json!(true)), &[]);
    update(&resource, &old, with(&old, "/spec/parallelism", json!(0)), &[]);
    let completions = "spec.completions: Invalid value: 2: field is immutable";
    update(&resource, &old, with(&old, "/spec/completions", json!(2)), &[completions]);
    let selector = json!({"matchLabels": {"a": "b"}});
    update(&resource, &old, with(&old, "/spec/selector", selector), &["spec.selector: Invalid value"]);
    let mode = "spec.completionMode: Invalid value: \"Indexed\": field is immutable";
    update(&resource, &old, with(&old, "/spec/completionMode", json!("Indexed")), &[mode]);
    let selected = |job: &Value| {
        let mut new = job.clone();
        new["spec"]["template"]["spec"]["nodeSelector"] = json!({"disk": "ssd"});
        new
    };
    update(&resource, &old, selected(&old), &["spec.template: Invalid value"]);
    let suspended = created(json!({"suspend": true}));
    update(&resource, &suspended, selected(&suspended), &[]);
    let image = "/spec/template/spec/containers/0/image";
    update(&resource, &suspended, with(&suspended, image, json!("x:2")), &["spec.template: Invalid value"]);
    let mut started = suspended.clone();
    started["status"]["startTime"] = json!("1970-01-01T00:00:00Z");
    update(&resource, &started, selected(&started), &["spec.template: Invalid value"]);
    let elastic = created(json!({"completionMode": "Indexed", "completions": 2, "parallelism": 2}));
    let alone = with(&elastic, "/spec/completions", json!(3));
    let message = "spec.completions: Invalid value: 3: can only be modified in tandem with spec.parallelism";
    update(&resource, &elastic, alone.clone(), &[message]);
    update(&resource, &elastic, with(&alone, "/spec/parallelism", json!(3)), &[]);
}

#[test]
fn job_rows() {
    let shown = |spec: Value, status: Value| {
        let mut object = job(spec);
        object["status"] = status;
        object
    };
    let condition = |type_: &str| json!({"conditions": [{"type": type_, "status": "True"}]});
    let wide = ["pi", "pi:1", "<none>"];
    for (object, expected) in [
        (shown(json!({"completions": 3}), json!({})), ["a", "Running", "0/3", "", "60s"]),
        (
            shown(json!({"completions": 3}), json!({"succeeded": 1, "startTime": "1970-01-01T00:00:50Z"})),
            ["a", "Running", "1/3", "50s", "60s"],
        ),
        (
            shown(
                json!({}),
                json!({"succeeded": 1, "startTime": "1970-01-01T00:00:50Z",
                "completionTime": "1970-01-01T00:01:00Z", "conditions": [{"type": "Complete", "status": "True"}]}),
            ),
            ["a", "Complete", "1/1", "10s", "60s"],
        ),
        (shown(json!({"parallelism": 4}), condition("Failed")), ["a", "Failed", "0/1 of 4", "", "60s"]),
        (shown(json!({"completions": 1}), condition("Suspended")), ["a", "Suspended", "0/1", "", "60s"]),
        (shown(json!({"completions": 1}), condition("FailureTarget")), ["a", "FailureTarget", "0/1", "", "60s"]),
    ] {
        row(BATCH, "Job", object, &[&expected[..], &wide[..]].concat());
    }
    let fields = kind(BATCH, "Job").strategy.fields(&json!({"status": {"succeeded": 2}}));
    assert_eq!(fields, [("status.successful", "2".to_string())]);
}

#[test]
fn cron_jobs() {
    let resource = kind(BATCH, "CronJob");
    let cron = |fields: Value| {
        let mut object = json!({"metadata": {"name": "c"}, "spec": {"schedule": "*/5 * * * *",
            "jobTemplate": {"spec": job(json!({}))["spec"]}}});
        for (key, value) in fields.as_object().unwrap() {
            object["spec"][key] = value.clone();
        }
        object
    };
    let object = defaulted(&resource, cron(json!({})));
    for (key, expected) in [
        ("concurrencyPolicy", json!("Allow")),
        ("suspend", json!(false)),
        ("successfulJobsHistoryLimit", json!(3)),
        ("failedJobsHistoryLimit", json!(1)),
    ] {
        assert_eq!(object["spec"][key], expected, "{key}");
    }
    let template = &object["spec"]["jobTemplate"]["spec"];
    assert_eq!(template["template"]["spec"]["dnsPolicy"], "ClusterFirst");
    assert_eq!(template.get("backoffLimit"), None, "the jobs get it");
    for (fields, expected) in [
        (json!({}), ""),
        (json!({"timeZone": "Europe/Berlin", "schedule": "@hourly"}), ""),
        (json!({"schedule": ""}), "spec.schedule: Required value"),
        (json!({"schedule": "x"}), "spec.schedule: Invalid value: \"x\": expected exactly 5 fields, found 1: [x]"),
        (
            json!({"schedule": "TZ=UTC 0 0 * * *"}),
            "spec.schedule: Invalid value: \"TZ=UTC 0 0 * * *\": cannot use TZ or CRON_TZ in schedule, use timeZone field",
        ),
        (json!({"timeZone": "a b"}), "spec.timeZone: Invalid value: \"a b\": unknown time zone a b"),
        (json!({"startingDeadlineSeconds": -1}), "spec.startingDeadlineSeconds: Invalid value: -1"),
        (json!({"failedJobsHistoryLimit": -1}), "spec.failedJobsHistoryLimit: Invalid value: -1"),
        (
            json!({"concurrencyPolicy": "x"}),
            "spec.concurrencyPolicy: Unsupported value: \"x\": supported values: \"Allow\", \"Forbid\", \"Replace\"",
        ),
        (
            json!({"jobTemplate": {"spec": job(json!({"manualSelector": true}))["spec"]}}),
            "spec.jobTemplate.spec.manualSelector: Unsupported value: true: supported values: \"nil\", \"false\"",
        ),
        (
            json!({"jobTemplate": {"spec": job(json!({"selector": {}}))["spec"]}}),
            "spec.jobTemplate.spec.selector: Invalid value: {}: `selector` will be auto-generated",
        ),
    ] {
        let expected: &[&str] = if expected.is_empty() { &[] } else { &[expected] };
        check(BATCH, "CronJob", cron(fields), expected);
    }
    assert!(resource.strategy.validate_name(&"a".repeat(52)).is_ok());
    assert_eq!(resource.strategy.validate_name(&"a".repeat(53)).unwrap_err(), "must be no more than 52 characters");
    let mut shown = cron(json!({"timeZone": "UTC", "suspend": true}));
    shown["status"] = json!({"active": [{}], "lastScheduleTime": "1970-01-01T00:01:10Z"});
    row(BATCH, "CronJob", shown, &["a", "*/5 * * * *", "UTC", "True", "1", "30s", "60s", "pi", "pi:1", "<none>"]);
    let expected = ["a", "*/5 * * * *", "<none>", "False", "0", "<none>", "60s", "pi", "pi:1", "<none>"];
    row(BATCH, "CronJob", cron(json!({})), &expected);
}
