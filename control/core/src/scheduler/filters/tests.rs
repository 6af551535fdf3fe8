//! Each rule: which nodes it lets a pod have, and what it says of the others; `!` marks what no preemption heals.

use std::sync::Arc;

use crate::controllers::testing::yaml;
use crate::scheduler::tests::{World, pod_of};

/// (name, nodes, placed pods, the pod, what the nodes say)
type Case<'a> = (&'a str, &'a str, &'a str, &'a str, &'a str);

fn check(cases: &[Case<'_>]) {
    for (name, nodes, placed, pod, expected) in cases {
        let mut world = World::of(nodes).with(placed);
        let spoken = world.verdicts(&pod_of(pod)).replace("node(s) didn't match ", "not ");
        assert_eq!(spoken, *expected, "{name}");
    }
}

const SELECT: &str = "not Pod's node affinity/selector";

#[test]
fn nodes_themselves() {
    let gen7 = "[{name: a, labels: {gen: '7', disk: ssd}}, {name: b}]";
    let required = |terms: &str| {
        format!(
            "{{affinity: {{nodeAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: {{nodeSelectorTerms: [{terms}]}}}}}}}}"
        )
    };
    check(&[
        ("cordoned", "[{name: a, spec: {unschedulable: true}}]", "[]", "{}", "a:! node(s) were unschedulable"),
        (
            "cordoned and tolerated",
            "[{name: a, spec: {unschedulable: true}}]",
            "[]",
            "{tolerations: [{operator: Exists}]}",
            "a",
        ),
        ("named", "[{name: a}, {name: b}]", "[]", "{nodeName: b}", "a:! not the requested node name, b"),
        (
            "taints",
            "[{name: a, spec: {taints: [{key: k, value: v, effect: NoSchedule}]}}, {name: b, spec: {taints: [{key: k, effect: PreferNoSchedule}]}}]",
            "[]",
            "{}",
            "a:! node(s) had untolerated taint(s), b",
        ),
        (
            "tolerated",
            "[{name: a, spec: {taints: [{key: k, value: v, effect: NoSchedule}, {key: l, effect: NoExecute}]}}]",
            "[]",
            "{tolerations: [{key: k, operator: Exists}]}",
            "a:! node(s) had untolerated taint(s)",
        ),
        (
            "the wrong value",
            "[{name: a, spec: {taints: [{key: k, value: v, effect: NoSchedule}]}}]",
            "[]",
            "{tolerations: [{key: k, value: w}]}",
            "a:! node(s) had untolerated taint(s)",
        ),
        ("selector", gen7, "[]", "{nodeSelector: {disk: ssd}}", &format!("a, b:! {SELECT}")),
        (
            "operators",
            gen7,
            "[]",
            &required(
                "{matchExpressions: [{key: gen, operator: Gt, values: ['5']}, {key: disk, operator: NotIn, values: [hdd]}]}",
            ),
            &format!("a, b:! {SELECT}"),
        ),
        (
            "any term",
            gen7,
            "[]",
            &required(
                "{matchExpressions: [{key: x, operator: Exists}]}, {matchExpressions: [{key: disk, operator: DoesNotExist}]}",
            ),
            &format!("a:! {SELECT}, b"),
        ),
        (
            "fields",
            gen7,
            "[]",
            &required("{matchFields: [{key: metadata.name, operator: NotIn, values: [a]}]}"),
            &format!("a:! {SELECT}, b"),
        ),
        ("an empty term", gen7, "[]", &required("{}"), &format!("a:! {SELECT}, b:! {SELECT}")),
    ]);
}

#[test]
fn resources() {
    let asking = |requests: &str| format!("{{containers: [{{name: c, resources: {{requests: {{{requests}}}}}}}]}}");
    let gpu =
        "[{name: a, status: {allocatable: {cpu: '2', memory: 1Gi, pods: '3', gpu: '2', ephemeral-storage: 1Gi}}}]";
    check(&[
        ("fits to the brim", "[{name: a}]", "[]", &asking("cpu: 2, memory: 1Gi"), "a"),
        ("more than is free", "[{name: a}]", "[{name: x, cpu: 1, nodeName: a}]", "{cpu: 1001m}", "a: Insufficient cpu"),
        ("more than there is", "[{name: a}]", "[]", &asking("memory: 1025Mi"), "a:! Insufficient memory"),
        ("both", "[{name: a}]", "[]", &asking("cpu: 3, memory: 2Gi"), "a:! Insufficient cpu and Insufficient memory"),
        (
            "a limit is the request",
            "[{name: a}]",
            "[]",
            "{containers: [{name: c, resources: {limits: {cpu: 3}}}]}",
            "a:! Insufficient cpu",
        ),
        (
            "an init container",
            "[{name: a}]",
            "[]",
            "{initContainers: [{name: i, resources: {requests: {cpu: 3}}}]}",
            "a:! Insufficient cpu",
        ),
        (
            "a sidecar is added",
            "[{name: a}]",
            "[]",
            "{cpu: 1500m, initContainers: [{name: i, restartPolicy: Always, resources: {requests: {cpu: 1}}}]}",
            "a:! Insufficient cpu",
        ),
        ("overhead is added", "[{name: a}]", "[]", "{cpu: 1500m, overhead: {cpu: 1}}", "a:! Insufficient cpu"),
        ("the pod as a whole", "[{name: a}]", "[]", "{cpu: 3, resources: {requests: {cpu: 1}}}", "a"),
        ("extended", gpu, "[]", &asking("gpu: 2"), "a"),
        ("extended, short", gpu, "[]", &asking("gpu: 3"), "a:! Insufficient gpu"),
        ("ephemeral storage", gpu, "[]", &asking("ephemeral-storage: 2Gi"), "a:! Insufficient ephemeral-storage"),
        (
            "too many pods",
            "[{name: a}]",
            "[{name: x, nodeName: a}, {name: 'y', nodeName: a}, {name: z, nodeName: a}]",
            "{}",
            "a: Too many pods",
        ),
    ]);
}

#[test]
fn ports() {
    let web = |port: &str| format!("containers: [{{name: c, ports: [{{containerPort: 80, {port}}}]}}]");
    let taken = "a: node(s) didn't have free ports for the requested pod ports";
    for (theirs, ours, expected) in [
        ("hostPort: 80", "hostPort: 80", taken),
        ("hostPort: 80", "hostPort: 81", "a"),
        ("hostPort: 80", "hostPort: 80, protocol: UDP", "a"),
        ("hostPort: 80, hostIP: 10.0.0.1", "hostPort: 80, hostIP: 10.0.0.2", "a"),
        ("hostPort: 80, hostIP: 10.0.0.1", "hostPort: 80", taken),
        ("", "hostPort: 80", "a"),
    ] {
        let placed = format!("[{{name: x, nodeName: a, {}}}]", web(theirs).replace(", }", "}"));
        let mut world = World::of("[{name: a}]").with(&placed);
        assert_eq!(world.verdicts(&pod_of(&format!("{{{}}}", web(ours)))), expected, "{theirs} and {ours}");
    }
}

const ZONES: &str =
    "[{name: a, labels: {z: x, h: a}}, {name: b, labels: {z: x, h: b}}, {name: c, labels: {z: 'y', h: c}}, {name: d}]";

#[test]
fn spread() {
    let pod = |more: &str| {
        format!(
            "{{labels: {{app: web}}, topologySpreadConstraints: [{{maxSkew: 1, whenUnsatisfiable: DoNotSchedule, topologyKey: z, labelSelector: {{matchLabels: {{app: web}}}}, {more}}}]}}"
        )
    };
    let uneven = "not pod topology spread constraints";
    let no_label = "d:! not pod topology spread constraints (missing required label)";
    let one_in_x = "[{name: w, labels: {app: web}, nodeName: a}]";
    let two_in_x = "[{name: w, labels: {app: web}, nodeName: a}, {name: v, labels: {app: web}, nodeName: b}]";
    let all_but_x = format!("a: {uneven}, b: {uneven}, c, {no_label}");
    check(&[
        ("even", ZONES, "[]", &pod(""), &format!("a, b, c, {no_label}")),
        ("one ahead", ZONES, one_in_x, &pod(""), &all_but_x),
        ("more skew", ZONES, one_in_x, &pod("maxSkew: 2").replace("maxSkew: 1, ", ""), &format!("a, b, c, {no_label}")),
        (
            "others do not count",
            ZONES,
            "[{name: w, labels: {app: db}, nodeName: a}]",
            &pod(""),
            &format!("a, b, c, {no_label}"),
        ),
        (
            "nor other namespaces",
            ZONES,
            "[{name: w, namespace: other, labels: {app: web}, nodeName: a}]",
            &pod(""),
            &format!("a, b, c, {no_label}"),
        ),
        (
            "nor those that go",
            ZONES,
            "[{name: w, labels: {app: web}, nodeName: a, metadata: {deletionTimestamp: '2026-01-01T00:00:00Z'}}]",
            &pod(""),
            &format!("a, b, c, {no_label}"),
        ),
        (
            "too few domains",
            ZONES,
            "[{name: w, labels: {app: web}, nodeName: a}, {name: v, labels: {app: web}, nodeName: c}]",
            &pod("minDomains: 3"),
            &format!("a: {uneven}, b: {uneven}, c: {uneven}, {no_label}"),
        ),
        (
            "enough domains",
            ZONES,
            "[{name: w, labels: {app: web}, nodeName: a}, {name: v, labels: {app: web}, nodeName: c}]",
            &pod("minDomains: 2"),
            &format!("a, b, c, {no_label}"),
        ),
        (
            "one that does not count itself",
            ZONES,
            one_in_x,
            &pod("").replacen("app: web", "app: other", 1),
            &format!("a, b, c, {no_label}"),
        ),
        (
            "the same revision",
            ZONES,
            "[{name: w, labels: {app: web, rev: '1'}, nodeName: a}]",
            &pod("matchLabelKeys: [rev]").replacen("app: web", "app: web, rev: '2'", 1),
            &format!("a, b, c, {no_label}"),
        ),
        (
            "the same revision again",
            ZONES,
            "[{name: w, labels: {app: web, rev: '2'}, nodeName: a}]",
            &pod("matchLabelKeys: [rev]").replacen("app: web", "app: web, rev: '2'", 1),
            &all_but_x,
        ),
        ("only preferred", ZONES, two_in_x, &pod("").replace("DoNotSchedule", "ScheduleAnyway"), "a, b, c, d"),
        (
            "selected nodes count",
            ZONES,
            "[{name: w, labels: {app: web}, nodeName: a}]",
            &pod("").replacen('{', "{nodeSelector: {z: x}, ", 1),
            &format!("a, b, c:! {SELECT}, d:! {SELECT}"),
        ),
        (
            "all nodes count",
            ZONES,
            "[{name: w, labels: {app: web}, nodeName: a}]",
            &pod("nodeAffinityPolicy: Ignore").replacen('{', "{nodeSelector: {z: x}, ", 1),
            &format!("a: {uneven}, b: {uneven}, c:! {SELECT}, d:! {SELECT}"),
        ),
    ]);
    let tainted =
        "[{name: a, labels: {z: x}}, {name: c, labels: {z: 'y'}, spec: {taints: [{key: t, effect: NoSchedule}]}}]";
    let taint = "c:! node(s) had untolerated taint(s)";
    check(&[
        ("tainted nodes count", tainted, one_in_x, &pod(""), &format!("a: {uneven}, {taint}")),
        ("tainted nodes do not", tainted, one_in_x, &pod("nodeTaintsPolicy: Honor"), &format!("a, {taint}")),
    ]);
}

#[test]
fn neighbours() {
    let term = |key: &str, more: &str| {
        format!(
            "{{labels: {{app: db}}, affinity: {{{key}: {{requiredDuringSchedulingIgnoredDuringExecution: [{{topologyKey: z, labelSelector: {{matchLabels: {{app: web}}}}, {more}}}]}}}}}}"
        )
    };
    let (near, apart) = (|more: &str| term("podAffinity", more), |more: &str| term("podAntiAffinity", more));
    let web = "[{name: w, labels: {app: web}, nodeName: a}]";
    let abroad = "[{name: w, namespace: other, labels: {app: web}, nodeName: a}]";
    let far = "not pod affinity rules";
    let close = "not pod anti-affinity rules";
    let unwanted = "node(s) didn't satisfy existing pods anti-affinity rules";
    let in_x = format!("a, b, c:! {far}, d:! {far}");
    let nowhere = format!("a:! {far}, b:! {far}, c:! {far}, d:! {far}");
    let not_x = format!("a: {close}, b: {close}, c, d");
    let guard = apart("").replacen('{', "{name: g, nodeName: a, ", 1);
    check(&[
        ("near", ZONES, web, &near(""), &in_x),
        ("nobody there", ZONES, "[]", &near(""), &nowhere),
        (
            "the first of its kind",
            ZONES,
            "[]",
            &near("").replacen("app: db", "app: web", 1),
            &format!("a, b, c, d:! {far}"),
        ),
        ("the second of its kind", ZONES, web, &near("").replacen("app: db", "app: web", 1), &in_x),
        ("of another namespace", ZONES, abroad, &near(""), &nowhere),
        ("of a named namespace", ZONES, abroad, &near("namespaces: [other]"), &in_x),
        ("of any namespace", ZONES, abroad, &near("namespaceSelector: {}"), &in_x),
        (
            "of the same revision",
            ZONES,
            "[{name: w, labels: {app: web, rev: '1'}, nodeName: a}]",
            &near("matchLabelKeys: [rev]").replacen("app: db", "app: db, rev: '1'", 1),
            &in_x,
        ),
        (
            "of another revision",
            ZONES,
            "[{name: w, labels: {app: web, rev: '1'}, nodeName: a}]",
            &near("mismatchLabelKeys: [rev]").replacen("app: db", "app: db, rev: '1'", 1),
            &nowhere,
        ),
        ("apart", ZONES, web, &apart(""), &not_x),
        ("apart from nobody", ZONES, "[]", &apart(""), "a, b, c, d"),
        ("apart abroad", ZONES, abroad, &apart(""), "a, b, c, d"),
        (
            "not wanted",
            ZONES,
            &format!("[{guard}]"),
            "{labels: {app: web}}",
            &format!("a: {unwanted}, b: {unwanted}, c, d"),
        ),
        ("wanted", ZONES, &format!("[{guard}]"), "{labels: {app: db}}", "a, b, c, d"),
    ]);
    // Namespaces by label, as the labels come and go.
    let mut world = World::of(ZONES).with(abroad);
    let pod = pod_of(&near("namespaceSelector: {matchLabels: {team: one}}"));
    let spoken = |world: &mut World| world.verdicts(&pod).replace("node(s) didn't match ", "not ");
    assert_eq!(spoken(&mut world), nowhere);
    let labelled = yaml("{metadata: {name: other, labels: {team: one}}}");
    world.snapshot.set_namespace("other", Some(&labelled));
    assert_eq!(spoken(&mut world), in_x);
    world.snapshot.set_namespace("other", None);
    assert_eq!(spoken(&mut world), nowhere);
}

#[test]
fn volumes() {
    let nodes =
        "[{name: a, labels: {topology.kubernetes.io/zone: x}}, {name: b, labels: {topology.kubernetes.io/zone: 'y'}}]";
    let uses = "{volumes: [{name: v, persistentVolumeClaim: {claimName: data}}]}";
    let affine = "nodeAffinity: {required: {nodeSelectorTerms: [{matchExpressions: [{key: topology.kubernetes.io/zone, operator: In, values: [x]}]}]}}";
    let waits = "{metadata: {name: late}, provisioner: copepod/local, volumeBindingMode: WaitForFirstConsumer}";
    let bound = "spec: {volumeName: pv, storageClassName: late}, status: {phase: Bound}";
    let pending = "spec: {storageClassName: late, accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}, status: {phase: Pending}";
    let size = "accessModes: [ReadWriteOnce], capacity: {storage: 1Gi}, storageClassName: late";
    let local = waits.replace("copepod/local", copepod_api::names::LOCAL_PATH);
    let large = pending.replace("1Gi", "2Gi");
    let disks = "[{name: a, status: {allocatable: {pods: '9', ephemeral-storage: 1Gi}}}, {name: b, status: {allocatable: {pods: '9', ephemeral-storage: 2Gi}}}, {name: c}]";
    let no_maker = waits.replace("copepod/local", "kubernetes.io/no-provisioner");
    // (name, claim, volume, class, what the nodes say)
    let cases = [
        ("missing", "", "", waits, "none: persistentvolumeclaim \"data\" not found".to_string()),
        ("to be bound at once", "spec: {storageClassName: now}", "", waits, "none: pod has unbound immediate PersistentVolumeClaims".into()),
        ("lost", bound, "", waits, "a:! node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s), b:! node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)".into()),
        ("bound", bound, "spec: {}", waits, "a, b".into()),
        ("bound in a zone", bound, &format!("spec: {{{affine}}}"), waits, "a, b:! not PersistentVolume's node affinity".into()),
        ("labelled with a zone", bound, "labels: {topology.kubernetes.io/zone: 'y'}|spec: {}", waits, "a:! node(s) had no available volume zone, b".into()),
        ("can be made", pending, "", waits, "a, b".into()),
        ("can be made somewhere", pending, "", &waits.replace("provisioner:", "allowedTopologies: [{matchLabelExpressions: [{key: topology.kubernetes.io/zone, values: ['y']}]}], provisioner:"), "a:! node(s) didn't find available persistent volumes to bind, b".into()),
        ("can be found", pending, &format!("spec: {{{size}, {affine}}}"), &no_maker, "a, b:! node(s) didn't find available persistent volumes to bind".into()),
        ("too small", pending, &format!("spec: {{{}}}", size.replace("1Gi", "1Mi")), &no_maker, "a:! node(s) didn't find available persistent volumes to bind, b:! node(s) didn't find available persistent volumes to bind".into()),
        ("someone else's", pending, &format!("spec: {{{size}, claimRef: {{namespace: shop, name: other}}}}"), &no_maker, "a:! node(s) didn't find available persistent volumes to bind, b:! node(s) didn't find available persistent volumes to bind".into()),
    ];
    let full = "a:! node(s) did not have enough free storage, b, c".to_string();
    // (name, nodes, claim, volume, class, what the nodes say)
    let of_size = [
        ("a directory", disks, pending, "", &*local, "a, b, c".to_string()),
        ("a directory larger than a disk", disks, &*large, "", &*local, full),
        ("what somebody else makes", disks, &*large, "", waits, "a, b, c".into()),
    ];
    let cases = cases.into_iter().map(|(name, claim, volume, class, says)| (name, nodes, claim, volume, class, says));
    for (name, nodes, claim, volume, class, expected) in cases.chain(of_size) {
        let mut world = World::of(nodes);
        let volumes = &mut world.snapshot.volumes;
        if !claim.is_empty() {
            let claim = yaml(&format!("{{metadata: {{name: data, namespace: shop}}, {claim}}}"));
            volumes.set_claim("shop", "data", Some(Arc::new(claim)));
        }
        if !volume.is_empty() {
            let (meta, spec) = volume.split_once('|').unwrap_or(("", volume));
            volumes.set_volume("pv", Some(Arc::new(yaml(&format!("{{metadata: {{name: pv, {meta}}}, {spec}}}")))));
        }
        volumes.set_class("late", Some(Arc::new(yaml(class))));
        let spoken = world.verdicts(&pod_of(uses)).replace("node(s) didn't match ", "not ");
        assert_eq!(spoken, expected, "{name}");
    }
}

#[test]
fn volumes_in_use() {
    let mut world = World::of("[{name: a}, {name: b}]");
    let volumes = &mut world.snapshot.volumes;
    for name in ["one", "two", "solo"] {
        let mode = if name == "solo" { "ReadWriteOncePod" } else { "ReadWriteOnce" };
        let claim = format!(
            "{{metadata: {{name: {name}, namespace: shop}}, spec: {{volumeName: {name}, accessModes: [{mode}]}}, status: {{phase: Bound}}}}"
        );
        volumes.set_claim("shop", name, Some(Arc::new(yaml(&claim))));
        let csi = if name == "solo" { String::new() } else { format!("csi: {{driver: d, volumeHandle: {name}}}") };
        let volume = format!("{{metadata: {{name: {name}}}, spec: {{{csi}}}}}");
        volumes.set_volume(name, Some(Arc::new(yaml(&volume))));
    }
    let drivers = "{metadata: {name: a}, spec: {drivers: [{name: d, nodeID: a, allocatable: {count: 1}}]}}";
    volumes.set_drivers("a", Some(Arc::new(yaml(drivers))));
    let uses = |name: &str, more: &str| {
        pod_of(&format!(
            "{{name: {name}-user, volumes: [{{name: v, persistentVolumeClaim: {{claimName: {name}}}}}]{more}}}"
        ))
    };
    assert_eq!(world.verdicts(&uses("one", "")), "a, b");
    world.snapshot.set_pod(&uses("two", ", nodeName: a"));
    assert_eq!(world.verdicts(&uses("one", "")), "a: node(s) exceed max volume count, b");
    assert_eq!(world.verdicts(&uses("two", "")), "a, b", "the same volume counts once");
    assert_eq!(world.verdicts(&uses("solo", "")), "a, b");
    world.snapshot.set_pod(&uses("solo", ", nodeName: a"));
    let mut second = uses("solo", "").pod.as_ref().clone();
    second.metadata.uid = Some("second".into());
    let spoken = world.verdicts(&crate::scheduler::PodInfo::of(Arc::new(second)));
    let in_use = "node has pod using PersistentVolumeClaim with the same name and ReadWriteOncePod access mode";
    assert_eq!(spoken, format!("a: {in_use}, b: {in_use}"));
}
