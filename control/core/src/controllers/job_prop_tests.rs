//! Jobs under random orders of what pods, people, watches and crashes do.

use proptest::prelude::*;
use serde_json::json;

use super::sim_tests::{Sim, deleting, node, terminal, tracked};

#[derive(Debug, Clone)]
enum Op {
    Pass,
    Crash(usize),
    Restart,
    SeeJob(usize),
    SeePods(usize),
    Run(usize),
    End(usize, i32),
    Delete(usize),
    Touch(usize),
    Suspend(bool),
    Parallelism(i32),
    Wait(i64),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => Just(Op::Pass),
        2 => (0..6_usize).prop_map(Op::Crash),
        1 => Just(Op::Restart),
        4 => (1..4_usize).prop_map(Op::SeeJob),
        4 => (1..9_usize).prop_map(Op::SeePods),
        5 => any::<usize>().prop_map(Op::Run),
        3 => any::<usize>().prop_map(|pod| Op::End(pod, 0)),
        2 => any::<usize>().prop_map(|pod| Op::End(pod, 1)),
        1 => any::<usize>().prop_map(|pod| Op::End(pod, 42)),
        1 => any::<usize>().prop_map(Op::Delete),
        1 => any::<usize>().prop_map(Op::Touch),
        1 => any::<bool>().prop_map(Op::Suspend),
        1 => (0..5).prop_map(Op::Parallelism),
        2 => (0..400_i64).prop_map(Op::Wait),
    ]
}

fn spec() -> impl Strategy<Value = String> {
    let mode = prop_oneof![
        Just("backoffLimit: 3"),
        Just("backoffLimit: 3, podReplacementPolicy: Failed"),
        Just("backoffLimit: 0"),
        Just("backoffLimit: 3, completionMode: Indexed"),
        Just("backoffLimit: 3, completionMode: Indexed, podReplacementPolicy: Failed"),
        Just("backoffLimit: 100, completionMode: Indexed, backoffLimitPerIndex: 1, maxFailedIndexes: 2"),
        Just("backoffLimit: 100, completionMode: Indexed, backoffLimitPerIndex: 0"),
        Just("backoffLimit: 3, completionMode: Indexed, successPolicy: {rules: [{succeededCount: 2}]}"),
        Just("backoffLimit: 3, activeDeadlineSeconds: 500"),
        Just(
            "backoffLimit: 3, podFailurePolicy: {rules: [{action: Ignore, onExitCodes: {operator: In, values: [42]}}]}"
        ),
        Just(
            "backoffLimit: 3, podFailurePolicy: {rules: [{action: FailJob, onExitCodes: {operator: In, values: [42]}}]}"
        ),
    ];
    (mode, 1..6, 1..5).prop_map(|(mode, completions, parallelism)| {
        format!("completions: {completions}, parallelism: {parallelism}, {mode}")
    })
}

proptest! {
    #[test]
    fn counters_are_exact_under_any_order(spec in spec(), ops in proptest::collection::vec(op(), 0..120)) {
        let mut sim = Sim::new(&spec);
        for op in ops {
            let pick = |at: usize, sim: &Sim| {
                let names: Vec<String> = sim.pods().keys().cloned().collect();
                (!names.is_empty()).then(|| names[at % names.len()].clone())
            };
            match op {
                Op::Pass => drop(sim.pass(None)),
                Op::Crash(limit) => drop(sim.pass(Some(limit))),
                Op::Restart => sim.restart(),
                Op::SeeJob(n) => sim.see(n, 0),
                Op::SeePods(n) => sim.see(0, n),
                Op::Run(pod) => pick(pod, &sim).into_iter().for_each(|p| sim.run(&p)),
                Op::End(pod, code) => pick(pod, &sim).into_iter().for_each(|p| sim.end(&p, code)),
                Op::Delete(pod) => pick(pod, &sim).into_iter().for_each(|p| sim.delete(&p)),
                Op::Touch(pod) => pick(pod, &sim).into_iter().for_each(|p| sim.touch(&p)),
                Op::Suspend(suspend) if !sim.ended() => sim.change_spec(json!({"suspend": suspend})),
                Op::Parallelism(n) if !sim.ended() => sim.change_spec(json!({"parallelism": n})),
                Op::Suspend(_) | Op::Parallelism(_) => {}
                Op::Wait(seconds) => sim.seconds += seconds,
            }
        }
        // Everything heals: the Job ends, with nothing open.
        if !sim.ended() {
            sim.change_spec(json!({"suspend": false, "parallelism": 2}));
        }
        sim.settle(node(|_, _| Some(0)));
        prop_assert!(sim.ended(), "{}\n{:?}", sim.job(), sim.pods());
        prop_assert_eq!(sim.status("uncountedTerminatedPods"), json!({}));
        prop_assert!(sim.pods().values().all(|p| !tracked(p) && (terminal(p) || deleting(p))));
        prop_assert_eq!(sim.notes.iter().filter(|n| *n == "Completed").count() <= 1, true);
        let conditions = sim.conditions();
        if conditions.iter().any(|c| c == "Complete:CompletionsReached") {
            let completions = sim.job()["spec"]["completions"].as_i64().unwrap();
            prop_assert!(sim.status("succeeded").as_i64().unwrap() >= completions);
        }
        prop_assert!(sim.pass(None).is_empty(), "at rest");
    }
}
