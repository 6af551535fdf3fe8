use super::*;

/// Sequences of random writes by three managers, with what structured-merge-diff 4.7.0 (Apache-2.0) makes of each:
/// object, owned fields (`A` applies, `U` updates) and conflicts.
const GOLDEN: &str = include_str!("golden.json");

#[test]
fn as_upstream() {
    let cases: Vec<Vec<Value>> = serde_json::from_str(GOLDEN).unwrap();
    assert!(cases.len() > 20);
    for (i, steps) in cases.into_iter().enumerate() {
        let mut c = Cluster::toy();
        for (j, step) in steps.iter().enumerate() {
            let (name, spec) = (step["manager"].as_str().unwrap(), step["spec"].clone());
            let conflicts = match step["op"].as_str().unwrap() {
                "update" => {
                    c.update(name, spec);
                    None
                }
                op => match c.apply_object(name, &c.whole(spec), op == "force") {
                    Ok(()) => None,
                    Err(ApplyError::Conflicts(conflicts)) => Some(conflicts),
                    Err(e) => panic!("{e}"),
                },
            };
            let at = format!("case {i}, step {j}: {step}");
            let letter = |operation: Operation| if operation == Operation::Apply { 'A' } else { 'U' };
            let conflicts = conflicts.map(|all| {
                let line = |c: &Conflict| format!("{}{} {}", letter(c.manager.operation), c.manager.name, c.path);
                let mut lines: Vec<String> = all.iter().map(line).collect();
                lines.sort();
                lines
            });
            assert_eq!(json!(conflicts), step.get("conflicts").cloned().unwrap_or_default(), "{at}");
            if conflicts.is_some() {
                continue;
            }
            let mut managers = json!({});
            for entry in c.managed.iter().filter_map(Value::as_array).flatten() {
                let key =
                    format!("{}{}", &entry["operation"].as_str().unwrap()[..1], entry["manager"].as_str().unwrap());
                managers[key] = entry["fieldsV1"].clone();
            }
            assert_eq!(managers, step["managers"], "{at}");
            assert_eq!(c.object.as_ref().unwrap().get("spec").cloned().unwrap_or_default(), step["result"], "{at}");
        }
    }
}
