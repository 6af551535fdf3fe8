//! Decisions as a whole: messages, sampling, assumptions, nominations, profiles.

use std::collections::BTreeMap;

use super::super::profile::{self, Strategy};
use super::super::volumes::SELECTED_NODE;
use super::super::writes;
use super::super::{Change, Snapshot};
use super::*;
use crate::controllers::Action;
use crate::controllers::testing::now;
use crate::controllers::volume_claims::BIND_COMPLETED;

#[test]
fn messages_are_upstreams() {
    let three = "[{name: a, spec: {taints: [{key: k, value: v, effect: NoSchedule}]}}, {name: b, spec: {taints: [{key: k, value: v, effect: NoExecute}]}}, {name: c}]";
    // (nodes, placed, pod, message)
    let cases = [
        ("[]", "[]", "{}", "no nodes available to schedule pods"),
        (
            three,
            "[]",
            "{cpu: 3}",
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
        ),
        (
            three,
            "[{name: x, cpu: 1, nodeName: c}]",
            "{cpu: 2}",
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) had untolerated taint(s). preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.",
        ),
        (
            "[{name: a}]",
            "[{name: x, cpu: 1, nodeName: a}]",
            "{cpu: 2, priority: 5, preemptionPolicy: Never}",
            "0/1 nodes are available: 1 Insufficient cpu. preemption: not eligible due to preemptionPolicy=Never.",
        ),
        (
            "[{name: a}]",
            "[]",
            "{containers: [{name: c, resources: {requests: {cpu: 3, memory: 2Gi, gpu: 1}}}]}",
            "0/1 nodes are available: 1 Insufficient cpu, 1 Insufficient gpu, 1 Insufficient memory. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
        ),
        (
            "[{name: a}]",
            "[]",
            "{volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]}",
            "0/1 nodes are available: persistentvolumeclaim \"data\" not found. preemption: 0/1 nodes are available: 1 Preemption is not helpful for scheduling.",
        ),
        (
            "[{name: a}, {name: b}]",
            "[]",
            "{affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [gone]}]}]}}}}",
            "0/2 nodes are available: 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
        ),
        // A daemon's pod: only its own node is looked at.
        (
            "[{name: a}, {name: b}, {name: c}]",
            "[]",
            "{cpu: 5, affinity: {nodeAffinity: {requiredDuringSchedulingIgnoredDuringExecution: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [b]}]}]}}}}",
            "0/3 nodes are available: 1 Insufficient cpu, 2 node(s) didn't satisfy plugin(s) [NodeAffinity]. preemption: 0/3 nodes are available: 3 Preemption is not helpful for scheduling.",
        ),
        (
            "[{name: a}, {name: b}]",
            "[]",
            "{nodeSelector: {disk: ssd}}",
            "0/2 nodes are available: 2 node(s) didn't match Pod's node affinity/selector. preemption: 0/2 nodes are available: 2 Preemption is not helpful for scheduling.",
        ),
    ];
    for (nodes, placed, pod, message) in cases {
        assert_eq!(World::of(nodes).with(placed).message(pod), message);
    }
}

#[test]
fn assumed_pods_count_until_forgotten() {
    let mut world = World::of("[{name: 'n'}]");
    let (a, b) = (pod_of("{name: a, cpu: 1500m}"), pod_of("{name: b, cpu: 1500m}"));
    assert_eq!(world.put(&a).unwrap(), "n");
    world.snapshot.set_pod(&a);
    assert!(world.decide(&b).is_err(), "an event from before the binding changes nothing");
    let bound = |status: &str| pod_of(&format!("{{name: a, cpu: 1500m, nodeName: 'n', status: {{phase: {status}}}}}"));
    world.snapshot.set_pod(&bound("Running"));
    assert!(world.decide(&b).is_err(), "and the binding's own counts once");
    world.snapshot.set_pod(&bound("Succeeded"));
    assert!(world.decide(&b).is_ok(), "ended pods use nothing");
    for name in ["x", "y", "z"] {
        world.snapshot.assume(&pod_of(&format!("{{name: '{name}'}}")), "n");
    }
    assert!(world.message("{}").starts_with("0/1 nodes are available: 1 Too many pods."));
    world.snapshot.remove_node("n");
    assert_eq!(world.message("{}"), "no nodes available to schedule pods");
    world.snapshot.set_node(node(json!({"name": "n"})));
    assert!(world.message("{}").contains("Too many pods"), "its pods stayed known");
}

#[test]
fn siblings_are_spread_and_ties_go_round() {
    let mut world = World::of("[{name: a}, {name: b}, {name: c}]");
    let picks: Vec<String> = (0..4).map(|_| world.decide(&pod_of("{}")).unwrap()).collect();
    assert_eq!(picks, ["a", "b", "c", "a"]);
    let labelled = |n: &str| format!("{{name: {n}, labels: {{kubernetes.io/hostname: {n}}}}}");
    let mut world = World::of(&format!("[{}, {}, {}]", labelled("a"), labelled("b"), labelled("c")));
    let mut counts = BTreeMap::new();
    for n in 0..6 {
        let node = world.put(&pod_of(&format!("{{name: p{n}, owner: rs}}"))).unwrap();
        *counts.entry(node).or_insert(0) += 1;
    }
    assert_eq!(counts.into_values().collect::<Vec<_>>(), [2, 2, 2]);
}

#[test]
fn large_clusters_are_sampled_in_turn() {
    let nodes: Vec<String> = (0..1000).map(|n| format!("{{name: n{n:04}}}")).collect();
    let mut world = World::of(&format!("[{}]", nodes.join(",")));
    assert_eq!(world.profile.enough(100), 100);
    assert_eq!(world.profile.enough(1000), 420);
    assert_eq!(world.profile.enough(10_000), 500);
    assert_eq!(world.profile.enough(150), 100);
    let mut seen = BTreeMap::new();
    for n in 0..1000 {
        *seen.entry(world.put(&pod_of(&format!("{{name: p{n}, cpu: 100m}}"))).unwrap()).or_insert(0) += 1;
    }
    assert_eq!(seen.len(), 1000, "each node has one pod, though each decision looks at some");
}

#[test]
fn room_is_kept_for_the_nominated() {
    let mut world = World::of("[{name: a}]");
    let high = pod_of("{name: high, cpu: 1500m, priority: 10}");
    world.snapshot.nominate(&high, "a");
    assert!(world.message("{cpu: 1, priority: 5}").contains("1 Insufficient cpu"));
    assert!(world.decide(&pod_of("{cpu: 1, priority: 11}")).is_ok(), "a pod that matters more need not care");
    assert!(world.decide(&pod_of("{cpu: 500m}")).is_ok(), "what is left is free");
    assert_eq!(world.put(&high).unwrap(), "a");
    assert_eq!(world.snapshot.nomination("high"), None);
    assert_eq!(world.snapshot.forget_pod("high").as_deref(), Some("a"));
    assert!(world.decide(&pod_of("{cpu: 2}")).is_ok());
}

#[test]
fn the_nominated_node_comes_first() {
    let mut world = World::of("[{name: a}, {name: b}]").with("[{name: x, cpu: 1, nodeName: b}]");
    let pod = pod_of("{cpu: 1}");
    world.snapshot.nominate(&pod, "b");
    assert_eq!(world.decide(&pod).unwrap(), "b");
    let pod = pod_of("{cpu: 2}");
    world.snapshot.nominate(&pod, "b");
    assert_eq!(world.decide(&pod).unwrap(), "a", "unless it does not fit there");
}

#[test]
fn claims_that_wait_are_bound_for_the_node() {
    let class = "{metadata: {name: local}, provisioner: copepod/local, volumeBindingMode: WaitForFirstConsumer}";
    let claim = |more: &str| -> Arc<k8s_openapi::api::core::v1::PersistentVolumeClaim> {
        Arc::new(crate::controllers::testing::yaml(&format!(
            "{{metadata: {{name: data, namespace: shop, uid: u, {more}}}, spec: {{storageClassName: local, accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}}}}}"
        )))
    };
    let mut world = World::of("[{name: a}]");
    world.snapshot.volumes.set_class("local", Some(Arc::new(crate::controllers::testing::yaml(class))));
    world.snapshot.volumes.set_claim("shop", "data", Some(claim("")));
    let pod = pod_of("{volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]}");
    let Decision::BindClaims { node, steps } = schedule(&pod, &mut world.snapshot, &world.profile, &mut world.cursor)
    else {
        panic!()
    };
    let actions = writes::claims(&pod, |_| Some("u".into()), &steps);
    assert_eq!((node.as_str(), actions.len()), ("a", 1));
    let refused = Snapshot::claims_refused();
    world.snapshot.nominate(&pod, "a");
    assert!(refused.helped_by(&pod, &Change::Volume, &world.snapshot), "it is not written yet");
    world.snapshot.volumes.set_claim("shop", "data", Some(claim(&format!("annotations: {{{SELECTED_NODE}: a}}"))));
    assert_eq!(world.decide(&pod).unwrap(), "a [Await { claim: \"data\" }]", "nothing is written twice");
    assert!(!refused.helped_by(&pod, &Change::Volume, &world.snapshot), "it is under way");
    let volume = crate::controllers::testing::yaml(
        "{metadata: {name: pv}, spec: {nodeAffinity: {required: {nodeSelectorTerms: [{matchFields: [{key: metadata.name, operator: In, values: [a]}]}]}}}}",
    );
    world.snapshot.volumes.set_volume("pv", Some(Arc::new(volume)));
    let mut bound = (*claim("")).clone();
    bound.spec.as_mut().unwrap().volume_name = Some("pv".into());
    bound.metadata.annotations = Some([(BIND_COMPLETED.into(), "yes".into())].into());
    world.snapshot.volumes.set_claim("shop", "data", Some(Arc::new(bound.clone())));
    assert_eq!(world.decide(&pod).unwrap(), "a [Await { claim: \"data\" }]", "its status comes last");
    assert!(!Change::Volume.settles(&pod, &world.snapshot));
    bound.status = Some(crate::controllers::testing::yaml("{phase: Bound}"));
    world.snapshot.volumes.set_claim("shop", "data", Some(Arc::new(bound)));
    assert!(refused.helped_by(&pod, &Change::Volume, &world.snapshot) && Change::Volume.settles(&pod, &world.snapshot));
    assert_eq!(world.decide(&pod).unwrap(), "a");
}

#[test]
fn a_volume_is_reserved_for_one_claim_as_it_was_seen() {
    let yaml = |text: String| crate::controllers::testing::yaml::<Value>(&text);
    let mut world = World::of("[{name: a}]");
    let class =
        "{metadata: {name: local}, provisioner: kubernetes.io/no-provisioner, volumeBindingMode: WaitForFirstConsumer}";
    world.snapshot.volumes.set_class("local", Some(Arc::new(crate::controllers::testing::yaml(class))));
    let asks = "storageClassName: local, accessModes: [ReadWriteOnce]";
    for claim in ["one", "two"] {
        let object = yaml(format!(
            "{{metadata: {{name: {claim}, namespace: shop, uid: {claim}}}, spec: {{{asks}, resources: {{requests: {{storage: 1Gi}}}}}}}}"
        ));
        world.snapshot.volumes.set_claim("shop", claim, Some(Arc::new(serde_json::from_value(object).unwrap())));
    }
    let volume = |name: &str, size: &str, more: &str| {
        let object = yaml(format!(
            "{{metadata: {{name: {name}, uid: u-{name}, resourceVersion: '7'}}, spec: {{{asks}, capacity: {{storage: {size}}}{more}}}}}"
        ));
        Some(Arc::new(serde_json::from_value(object).unwrap()))
    };
    world.snapshot.volumes.set_volume("big", volume("big", "2Gi", ""));
    let user = |claim: &str| {
        pod_of(&format!("{{name: {claim}, volumes: [{{name: v, persistentVolumeClaim: {{claimName: {claim}}}}}]}}"))
    };
    let Decision::BindClaims { steps, .. } =
        schedule(&user("one"), &mut world.snapshot, &world.profile, &mut world.cursor)
    else {
        panic!()
    };
    let actions = writes::claims(&user("one"), |claim| Some(claim.into()), &steps);
    let [Action::Patch { target, patch, .. }] = actions.as_slice() else { panic!("{actions:?}") };
    assert_eq!(target.name, "big");
    assert_eq!((&patch["metadata"]["uid"], &patch["metadata"]["resourceVersion"]), (&json!("u-big"), &json!("7")));

    world.snapshot.volumes.reserve("shop", &steps);
    assert!(
        world.message("{name: two, volumes: [{name: v, persistentVolumeClaim: {claimName: two}}]}").contains("to bind")
    );
    world.snapshot.volumes.set_volume("small", volume("small", "1Gi", ""));
    assert!(world.decide(&user("one")).unwrap().contains("\"big\""), "what is reserved for it already");
    assert!(world.decide(&user("two")).unwrap().contains("\"small\""));
    world.snapshot.volumes.set_volume("small", None);

    let seen = ", claimRef: {namespace: shop, name: one, uid: one}";
    world.snapshot.volumes.set_volume("big", volume("big", "2Gi", seen));
    assert_eq!(world.decide(&user("one")).unwrap(), "a [Await { claim: \"one\" }]");
    assert!(world.decide(&user("two")).is_err());

    world.snapshot.volumes.set_volume("big", volume("big", "2Gi", ""));
    world.snapshot.volumes.reserve("shop", &steps);
    world.snapshot.volumes.release("shop", &steps);
    assert!(world.decide(&user("two")).unwrap().contains("\"big\""), "it was not reserved after all");
}

#[test]
fn profiles_are_read() {
    let text = "
apiVersion: kubescheduler.config.k8s.io/v1
kind: KubeSchedulerConfiguration
percentageOfNodesToScore: 30
profiles:
- schedulerName: packer
  plugins:
    score: {disabled: [{name: PodTopologySpread}], enabled: [{name: NodeResourcesFit, weight: 5}]}
    filter: {disabled: [{name: NodePorts}]}
    postFilter: {disabled: [{name: '*'}]}
  pluginConfig:
  - {name: NodeResourcesFit, args: {kind: NodeResourcesFitArgs, scoringStrategy: {type: MostAllocated}}}
  - {name: InterPodAffinity, args: {hardPodAffinityWeight: 1}}
- plugins: {multiPoint: {enabled: [{name: PrioritySort}, {name: DefaultBinder}]}}
";
    let profiles = profile::read(text).unwrap();
    let packer = &profiles[0];
    assert_eq!((packer.name.as_str(), packer.strategy, packer.preempts), ("packer", Strategy::MostAllocated, false));
    assert_eq!((packer.weight("PodTopologySpread", 2), packer.weight("NodeResourcesFit", 1)), (0, 5));
    assert_eq!((packer.filters("NodePorts"), packer.filters("NodeName")), (false, true));
    assert_eq!(packer.enough(1000), 300);
    let mut plain = Profile::default();
    plain.percentage_of_nodes_to_score = Some(30);
    assert_eq!(profiles[1], plain);
    let mut world = World::of("[{name: a}, {name: b}]").with("[{name: x, cpu: 1, nodeName: b}]");
    assert_eq!(world.decide(&pod_of("{cpu: 1}")).unwrap(), "a");
    world.profile = packer.clone();
    assert_eq!(world.decide(&pod_of("{cpu: 1}")).unwrap(), "b");
    let one = |profile: &str| {
        format!("apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\nprofiles: [{profile}]\n")
    };
    for (text, why) in [
        (one("{}, {}"), "profiles[1].schedulerName: Duplicate value: \"default-scheduler\""),
        (one("{plugins: {score: {enabled: [{name: X}]}}}"), "profiles[0].plugins.score.enabled: \"X\" does not exist"),
        (
            one("{plugins: {score: {enabled: [{name: ImageLocality, weight: 101}]}}}"),
            "profiles[0].plugins.score.enabled: \"ImageLocality\": weight 101 not in 1-100",
        ),
        (
            one(
                "{pluginConfig: [{name: NodeResourcesFit, args: {scoringStrategy: {type: RequestedToCapacityRatio}}}]}",
            ),
            "profiles[0].pluginConfig[0].args.scoringStrategy.type: Unsupported value: \"RequestedToCapacityRatio\": \
             supported values: \"LeastAllocated\", \"MostAllocated\"",
        ),
        (
            one("{pluginConfig: [{name: InterPodAffinity, args: {hardPodAffinityWeight: 7}}]}"),
            "profiles[0].pluginConfig[0].args.hardPodAffinityWeight: Forbidden: InterPodAffinity does not follow this \
             setting here",
        ),
        (one("{}") + "extenders: [{urlPrefix: 'http://x'}]\n", "extenders: Forbidden: schedulers have none here"),
        (one("{percentageOfNodesToScore: 101}"), "profiles[0].percentageOfNodesToScore: not in the range 0-100"),
        (
            "{apiVersion: v1, kind: Pod}".into(),
            "v1, Pod: want kubescheduler.config.k8s.io/v1, KubeSchedulerConfiguration",
        ),
    ] {
        assert_eq!(profile::read(&text).unwrap_err(), why);
    }
}

#[test]
fn changes_wake_those_that_they_help() {
    let gone = |pod: &str, node: &str| Change::PodGone { pod: pod_of(pod), node: node.into() };
    let apart = |key: &str| {
        format!(
            "{{{key}: {{requiredDuringSchedulingIgnoredDuringExecution: [{{topologyKey: h, labelSelector: {{matchLabels: {{app: web}}}}}}]}}}}"
        )
    };
    let port = |more: &str| {
        let (port, more) = more.split_once(',').unwrap();
        format!("{{containers: [{{name: c, ports: [{{containerPort: 80, hostPort: {port}}}]}}], {more}}}")
    };
    let claimer = |name: &str| format!("{{volumes: [{{name: v, persistentVolumeClaim: {{claimName: {name}}}}}]}}");
    let claim = |namespace: &str, name: &str| Change::Claim { namespace: namespace.into(), name: name.into() };
    // (pod, change, helped): one node `a` of 2 CPUs with half of one free and port 80 taken, labelled and tainted.
    let cases = [
        ("{cpu: 1}".to_string(), Change::Node("a".into()), false),
        ("{cpu: 500m}".into(), Change::Node("a".into()), true),
        ("{cpu: 500m}".into(), gone("{name: 'y'}", "a"), true),
        ("{cpu: 1}".into(), gone("{name: 'y'}", "a"), false),
        ("{cpu: 1, priority: 5}".into(), gone("{name: 'y'}", "a"), true),
        ("{cpu: 1, priority: 5, preemptionPolicy: Never}".into(), gone("{name: 'y'}", "a"), false),
        ("{cpu: 3, priority: 5}".into(), gone("{name: 'y'}", "a"), false),
        (port("80, priority: 0"), gone("{name: 'y'}", "a"), false),
        (port("81, priority: 0"), gone("{name: 'y'}", "a"), true),
        (port("80, priority: 5"), gone("{name: 'y'}", "a"), true),
        (port("80, priority: 5, preemptionPolicy: Never"), gone("{name: 'y'}", "a"), false),
        ("{cpu: 1}".into(), Change::Volume, false),
        (claimer("data"), claim("shop", "data"), true),
        (claimer("data"), claim("shop", "other"), false),
        (claimer("data"), claim("other", "data"), false),
        (claimer("data"), Change::Volume, true),
        ("{cpu: 500m, nodeSelector: {d: e}}".into(), gone("{name: 'y'}", "a"), false),
        ("{cpu: 1}".into(), Change::NodeGone, false),
        ("{nodeSelector: {d: e}}".into(), Change::Node("a".into()), false),
        ("{nodeSelector: {h: a}}".into(), Change::Node("a".into()), true),
        (format!("{{affinity: {}}}", apart("podAffinity")), Change::PodPlaced(pod_of("{labels: {app: web}}")), true),
        (format!("{{affinity: {}}}", apart("podAffinity")), Change::PodPlaced(pod_of("{labels: {app: db}}")), false),
        (format!("{{affinity: {}}}", apart("podAntiAffinity")), gone("{labels: {app: web}}", "a"), true),
        (format!("{{affinity: {}}}", apart("podAntiAffinity")), gone("{labels: {app: db}}", "a"), false),
    ];
    for (spec, change, helped) in cases {
        let mut world = World::of("[{name: a, labels: {h: a}}]").with(
            "[{name: x, cpu: 1500m, nodeName: a}, {name: w, nodeName: a, containers: [{name: c, ports: [{containerPort: 80, hostPort: 80}]}]}]",
        );
        let pod = pod_of(&spec);
        let filter = match &spec {
            s if s.contains("cpu") => "NodeResourcesFit",
            s if s.contains("hostPort") => "NodePorts",
            s if s.contains("nodeSelector") => "NodeAffinity",
            s if s.contains("volumes") => "VolumeBinding",
            _ => "InterPodAffinity",
        };
        let woken = RefusedBy::by(filter).helped_by(&pod, &change, &world.snapshot);
        assert_eq!(woken, helped, "{spec} {change:?}");
        assert!(RefusedBy::default().helped_by(&pod, &change, &world.snapshot), "who was refused by none");
        let _ = world.decide(&pod);
    }
}

#[test]
fn what_is_written() {
    let pod = pod_of("{}");
    let first = writes::unplaced(&pod.pod, writes::UNSCHEDULABLE, "why", Some("a"), now()).unwrap();
    let Action::Patch { patch, subresource, .. } = first else { panic!() };
    assert_eq!((subresource, &patch["status"]["nominatedNodeName"]), ("status", &json!("a")));
    let condition = &patch["status"]["conditions"][0];
    assert_eq!((&condition["reason"], &condition["message"]), (&json!("Unschedulable"), &json!("why")));
    let said = pod_of(&format!("{{status: {}}}", patch["status"]));
    let again = writes::unplaced(&said.pod, writes::UNSCHEDULABLE, "why", None, now());
    assert_eq!(again, None, "what the status says is not written again");
    assert!(writes::not_nominated(&said.pod).is_some() && writes::not_nominated(&pod.pod).is_none());
    let ready = "{type: Ready, status: 'True'}";
    let victim = pod_of(&format!("{{metadata: {{resourceVersion: '7'}}, status: {{conditions: [{ready}]}}}}"));
    let ended = writes::end(&victim.pod, "default-scheduler", now());
    let [Action::Patch { patch, .. }, Action::Delete { .. }] = &ended[..] else { panic!("{ended:?}") };
    assert_eq!(patch["metadata"]["resourceVersion"], "7", "what others write meanwhile is not undone");
    let kinds = |at: usize| &patch["status"]["conditions"][at]["type"];
    assert_eq!((kinds(0), kinds(1)), (&json!("Ready"), &json!("DisruptionTarget")));
    let going = pod_of("{metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}}");
    assert!(writes::end(&going.pod, "default-scheduler", now()).is_empty());
}
