use super::*;

const START: &str = "2026-01-01T00:00:00Z";
const END: &str = "2026-01-01T01:00:00Z";

fn job(spec: Value, status: Value) -> Value {
    json!({"spec": spec, "status": status})
}

fn conditions(types: &[&str]) -> Value {
    types.iter().map(|type_| json!({"type": type_, "status": "True"})).collect()
}

fn status(fields: Value, types: &[&str]) -> Value {
    let mut status = json!({"startTime": START, "conditions": conditions(types)});
    status.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    status
}

fn check(name: &str, spec: &Value, old: Value, new: Value, expected: &[&str]) {
    let new = job(spec.clone(), new);
    let errors: Vec<String> = change(&new, &job(spec.clone(), old)).iter().map(ToString::to_string).collect();
    let matches = errors.len() == expected.len() && errors.iter().zip(expected).all(|(e, x)| e.starts_with(x));
    assert!(matches, "{name}: {new}\n got {errors:#?}\nwant {expected:#?}");
    // What is wrong already may stay so.
    assert!(change(&new, &new).is_empty(), "{name}");
}

#[test]
fn ends() {
    let spec = json!({"completions": 1, "parallelism": 1});
    let complete = ["SuccessCriteriaMet", "Complete"];
    let whole = status(json!({"succeeded": 1, "completionTime": END}), &complete);
    let cases: Vec<(&str, Value, Value, Vec<&str>)> = vec![
        ("well", json!({}), whole.clone(), vec![]),
        ("badly", json!({}), status(json!({"failed": 1}), &["FailureTarget", "Failed"]), vec![]),
        (
            "both",
            json!({}),
            status(json!({"completionTime": END}), &["SuccessCriteriaMet", "FailureTarget", "Complete", "Failed"]),
            vec![
                "status.conditions: Invalid value: cannot set Complete=True and Failed=true conditions",
                "status.conditions: Invalid value: cannot set Complete=True and FailureTarget=true",
                "status.conditions: Invalid value: cannot set SuccessCriteriaMet=True and Failed=true",
                "status.conditions: Invalid value: cannot set SuccessCriteriaMet=True and FailureTarget=true",
            ],
        ),
        (
            "without a word before",
            json!({}),
            status(json!({}), &["Failed"]),
            vec!["status.conditions: Invalid value: cannot set Failed=True condition without"],
        ),
        (
            "without its time",
            json!({}),
            status(json!({}), &complete),
            vec!["status.completionTime: Required value: completionTime is required for Complete jobs"],
        ),
        (
            "a time without an end",
            json!({}),
            status(json!({"completionTime": END}), &[]),
            vec!["status.completionTime: Invalid value: \"2026-01-01T01:00:00Z\": cannot set completionTime when"],
        ),
        (
            "before it began",
            json!({}),
            status(json!({"startTime": END, "completionTime": START}), &complete),
            vec!["status.completionTime: Invalid value: \"2026-01-01T00:00:00Z\": completionTime cannot be set before"],
        ),
        (
            "never begun",
            json!({}),
            json!({"conditions": conditions(&["FailureTarget", "Failed"])}),
            vec!["status.startTime: Required value: startTime is required for finished job"],
        ),
        (
            "with pods",
            json!({}),
            status(
                json!({"active": 1, "terminating": 2, "uncountedTerminatedPods": {"failed": ["u"]}}),
                &["FailureTarget", "Failed"],
            ),
            vec![
                "status.active: Invalid value: 1: active>0 is invalid for finished job",
                "status.terminating: Invalid value: 2: terminating>0 is invalid",
                "status.uncountedTerminatedPods: Invalid value: {\"failed\":[\"u\"]}: uncountedTerminatedPods needs",
            ],
        ),
        (
            "and begins anew",
            whole.clone(),
            status(json!({"succeeded": 1}), &[]),
            vec![
                "status.conditions: Invalid value: cannot disable the terminal Complete=True condition",
                "status.conditions: Invalid value: cannot disable the SuccessCriteriaMet=True condition",
            ],
        ),
        (
            "another time",
            whole,
            status(json!({"succeeded": 1, "completionTime": "2026-01-01T02:00:00Z"}), &complete),
            vec!["status.completionTime: Invalid value: \"2026-01-01T02:00:00Z\": completionTime cannot be mutated"],
        ),
    ];
    for (name, old, new, expected) in cases {
        check(name, &spec, old, new, &expected);
    }
}

#[test]
fn counters() {
    let plain = json!({"completions": 9, "parallelism": 2});
    let elastic = json!({"completions": 3, "parallelism": 3, "completionMode": "Indexed"});
    let before = json!({"startTime": START, "succeeded": 5, "failed": 2});
    let cases: Vec<(&str, &Value, Value, Vec<&str>)> = vec![
        ("more", &plain, json!({"succeeded": 6, "failed": 3}), vec![]),
        (
            "fewer",
            &plain,
            json!({"succeeded": 4, "failed": 1}),
            vec![
                "status.failed: Invalid value: 1: cannot decrease the failed counter",
                "status.succeeded: Invalid value: 4: cannot decrease the succeeded counter",
            ],
        ),
        ("fewer indexes", &elastic, json!({"succeeded": 3, "failed": 2}), vec![]),
        (
            "more ready than there are",
            &plain,
            json!({"succeeded": 5, "failed": 2, "active": 1, "ready": 2}),
            vec!["status.ready: Invalid value: 2: cannot set more ready pods than active"],
        ),
        (
            "negative",
            &plain,
            json!({"succeeded": 5, "failed": 2, "active": -1, "terminating": -2}),
            vec![
                "status.active: Invalid value: -1: must be greater than or equal to 0",
                "status.terminating:",
                "status.ready:",
            ],
        ),
        (
            "twice",
            &plain,
            json!({"succeeded": 5, "failed": 2, "uncountedTerminatedPods": {"succeeded": ["a", ""], "failed": ["a"]}}),
            vec![
                "status.uncountedTerminatedPods.succeeded[1]: Invalid value: \"\": must not be empty",
                "status.uncountedTerminatedPods.failed[0]: Duplicate value: \"a\"",
            ],
        ),
        (
            "its start",
            &plain,
            json!({"succeeded": 5, "failed": 2, "startTime": null}),
            vec!["status.startTime: Required value: startTime cannot be removed for unsuspended job"],
        ),
    ];
    for (name, spec, fields, expected) in cases {
        check(name, spec, before.clone(), status(fields, &[]), &expected);
    }
    let suspended = json!({"suspend": true});
    check("a suspended job's start", &suspended, before, json!({"succeeded": 5, "failed": 2}), &[]);
}

#[test]
fn indexes() {
    let plain = json!({"completions": 9});
    let indexed = json!({"completions": 9, "completionMode": "Indexed"});
    let limited = json!({"completions": 9, "completionMode": "Indexed", "backoffLimitPerIndex": 1});
    let cases: Vec<(&str, &Value, Value, Vec<&str>)> = vec![
        ("well", &limited, json!({"completedIndexes": "0,2-3", "failedIndexes": "1,4"}), vec![]),
        (
            "nonsense",
            &limited,
            json!({"completedIndexes": "x", "failedIndexes": "9"}),
            vec![
                "status.completedIndexes: Invalid value: \"x\": error parsing completedIndexes: cannot convert",
                "status.failedIndexes: Invalid value: \"9\": error parsing failedIndexes: too large index: \"9\"",
            ],
        ),
        (
            "both",
            &limited,
            json!({"completedIndexes": "0-4", "failedIndexes": "3,5"}),
            vec![
                "status.failedIndexes: Invalid value: \"3,5\": failedIndexes and completedIndexes overlap at index: 3",
            ],
        ),
        (
            "no indexes",
            &plain,
            json!({"completedIndexes": "1"}),
            vec![
                "status.completedIndexes: Invalid value: \"1\": cannot set non-empty completedIndexes when non-indexed",
            ],
        ),
        (
            "no limit",
            &indexed,
            json!({"failedIndexes": "1"}),
            vec![
                "status.failedIndexes: Invalid value: \"1\": cannot set non-null failedIndexes when backoffLimitPerIndex",
            ],
        ),
    ];
    for (name, spec, fields, expected) in cases {
        check(name, spec, json!({}), status(fields, &[]), &expected);
    }
}
