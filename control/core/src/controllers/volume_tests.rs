use std::sync::Arc;

use copepod_api::names::{FINALIZER_CLAIM, FINALIZER_LOCAL_PATH, FINALIZER_VOLUME, LOCAL_PATH};
use k8s_openapi::api::core::v1::{Node, PersistentVolume, PersistentVolumeClaim, Pod};
use k8s_openapi::api::storage::v1::StorageClass;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use proptest::prelude::*;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::testing::{now, yaml};
use super::testing_cluster::Cluster;
use super::volume_claims::{self, REPEAT, Seen};
use super::{Action, Plan, local_path, volume_phases, volume_protection};

/// An object in YAML with more of its metadata, spec and status in YAML's flow style.
fn with<T: DeserializeOwned>(base: &str, parts: [(&str, &str); 3]) -> T {
    let mut object: Value = yaml(base);
    for (part, more) in parts {
        json_patch::merge(&mut object[part], &yaml(&format!("{{{more}}}")));
    }
    serde_json::from_value(object).unwrap()
}

/// A claim of 1Gi of class `c` with more.
fn claim(metadata: &str, spec: &str, status: &str) -> PersistentVolumeClaim {
    let base = "metadata: {name: data, namespace: shop, uid: u1, resourceVersion: '7'}\n\
        spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}, storageClassName: c}\n\
        status: {phase: Pending}";
    with(base, [("metadata", metadata), ("spec", spec), ("status", status)])
}

/// A volume of class `c` with more.
fn volume(name: &str, size: &str, metadata: &str, spec: &str) -> Arc<PersistentVolume> {
    let base = format!(
        "metadata: {{name: {name}, uid: uid-{name}, resourceVersion: '3'}}\n\
         spec: {{capacity: {{storage: {size}}}, accessModes: [ReadWriteOnce, ReadOnlyMany], storageClassName: c}}\n\
         status: {{phase: Available}}"
    );
    Arc::new(with(&base, [("metadata", metadata), ("spec", spec), ("status", "")]))
}

fn class(provisioner: &str, mode: &str) -> StorageClass {
    yaml(&format!("metadata: {{name: c}}\nprovisioner: {provisioner}\nvolumeBindingMode: {mode}"))
}

/// A plan in short: what it writes, but for preconditions, and what it says.
fn told(plan: &Plan) -> String {
    let mut parts = Vec::new();
    for action in plan.actions.iter().chain(&plan.status) {
        let target = action.target();
        let place = format!("{}/{}", target.gvr.resource, target.name);
        parts.push(match action {
            Action::Create { object, .. } => format!("create {place} {object}"),
            Action::Delete { .. } => format!("delete {place}"),
            Action::Patch { subresource, patch, .. } => {
                assert!(patch.pointer("/metadata/uid").is_some(), "{patch}");
                let locked = patch.pointer("/metadata/resourceVersion").is_some();
                assert!(locked || *subresource == "status", "{patch}");
                let mut patch = patch.clone();
                let metadata = patch["metadata"].as_object_mut().unwrap();
                metadata.retain(|key, _| !["uid", "resourceVersion"].contains(&key.as_str()));
                format!("{place} {subresource} {patch}")
            }
        });
    }
    parts.extend(
        plan.notes.iter().map(|n| format!("{} {}: {}", if n.warning { "!" } else { "-" }, n.reason, n.message)),
    );
    parts.join("\n")
}

const MINE: &str = "claimRef: {namespace: shop, name: data, uid: u1}";

#[test]
fn a_claim_gets_the_smallest_volume_that_fits() {
    let wants = claim("", "selector: {matchLabels: {disk: ssd}}", "");
    let ssd = "labels: {disk: ssd}";
    for (candidates, expected) in [
        (vec![volume("big", "5Gi", ssd, ""), volume("fits", "1Gi", ssd, ""), volume("fat", "2Gi", ssd, "")], "fits"),
        (vec![volume("b", "1Gi", ssd, ""), volume("a", "1Gi", ssd, "")], "a"),
        (vec![volume("small", "1023Mi", ssd, "")], ""),
        (vec![volume("other", "1Gi", "labels: {disk: hdd}", "")], ""),
        (vec![volume("block", "1Gi", ssd, "volumeMode: Block")], ""),
        (vec![volume("elsewhere", "1Gi", ssd, "storageClassName: d")], ""),
        (vec![volume("going", "1Gi", &format!("{ssd}, deletionTimestamp: '2026-01-01T00:00:00Z'"), "")], ""),
        (vec![volume("taken", "1Gi", ssd, "claimRef: {namespace: shop, name: data, uid: u0}")], ""),
        (
            vec![volume("a", "1Gi", ssd, ""), volume("kept", "9Gi", "", "claimRef: {namespace: shop, name: data}")],
            "kept",
        ),
        (vec![volume("a", "1Gi", ssd, ""), volume("kept", "9Gi", "", &format!("{MINE}, storageClassName: d"))], "kept"),
    ] {
        let class = class("kubernetes.io/no-provisioner", "Immediate");
        let seen = Seen { candidates: &candidates, class: Some(&class), ..Seen::default() };
        let told = told(&volume_claims::reconcile(&wants, &seen));
        if expected.is_empty() {
            assert!(told.starts_with("! ProvisioningFailed: no volume plugin matched name:"), "{told}");
        } else {
            assert!(told.contains(&format!("\"volumeName\":\"{expected}\"")), "{told}");
        }
    }
    let many = volume("v", "1Gi", ssd, "");
    let shared = claim("", "accessModes: [ReadWriteMany]", "");
    let seen = Seen { candidates: &[many], ..Seen::default() };
    assert!(told(&volume_claims::reconcile(&shared, &seen)).contains("not found"));
}

#[test]
fn both_sides_are_tied_step_by_step() {
    let free = volume("v", "2Gi", "", "");
    let plan = volume_claims::reconcile(&claim("", "", ""), &Seen { candidates: &[free], ..Seen::default() });
    assert_eq!(
        told(&plan),
        "persistentvolumes/v  {\"metadata\":{\"annotations\":{\"pv.kubernetes.io/bound-by-controller\":\"yes\"}},\
         \"spec\":{\"claimRef\":{\"apiVersion\":\"v1\",\"kind\":\"PersistentVolumeClaim\",\"name\":\"data\",\
         \"namespace\":\"shop\",\"resourceVersion\":\"7\",\"uid\":\"u1\"}}}\n\
         persistentvolumeclaims/data  {\"metadata\":{\"annotations\":{\"pv.kubernetes.io/bind-completed\":\"yes\",\
         \"pv.kubernetes.io/bound-by-controller\":\"yes\"}},\"spec\":{\"volumeName\":\"v\"}}\n\
         persistentvolumeclaims/data status {\"metadata\":{},\"status\":{\"accessModes\":[\"ReadWriteOnce\",\
         \"ReadOnlyMany\"],\"capacity\":{\"storage\":\"2Gi\"},\"phase\":\"Bound\"}}"
    );
    // What a person tied is not marked as ours.
    let kept = volume("v", "2Gi", "", "claimRef: {namespace: shop, name: data}");
    let named = claim("", "volumeName: v", "");
    let plan = told(&volume_claims::reconcile(&named, &Seen { volume: Some(&kept), ..Seen::default() }));
    assert!(plan.contains("claimRef") && plan.contains("bind-completed") && !plan.contains("bound-by"), "{plan}");
    // Once it is done, nothing is written.
    let done = claim(
        "annotations: {pv.kubernetes.io/bind-completed: 'yes'}",
        "volumeName: v",
        "phase: Bound, capacity: {storage: 2Gi}, accessModes: [ReadWriteOnce, ReadOnlyMany]",
    );
    let bound = volume("v", "2Gi", "", MINE);
    assert_eq!(told(&volume_claims::reconcile(&done, &Seen { volume: Some(&bound), ..Seen::default() })), "");
}

#[test]
fn a_claim_that_is_not_bound_says_why() {
    let immediate = class("example.com/disks", "Immediate");
    let late = class("example.com/disks", "WaitForFirstConsumer");
    let selected = "annotations: {volume.kubernetes.io/selected-node: a}";
    let asked = "annotations: {volume.kubernetes.io/storage-provisioner: example.com/disks}";
    let other = volume("v", "1Gi", "", "claimRef: {namespace: shop, name: other, uid: u2}");
    let small = volume("v", "1Mi", "", "");
    let elsewhere = volume("v", "1Gi", "", "storageClassName: d");
    let block = volume("v", "1Gi", "", "volumeMode: Block");
    let none = Seen::default;
    let pods = |n: usize| (0..n).map(|n| format!("p{n}")).collect::<Vec<_>>();
    for (metadata, spec, seen, expected) in [
        (
            "",
            "storageClassName: ''",
            none(),
            "- FailedBinding: no persistent volumes available for this claim and no storage class is set: create",
        ),
        ("", "", none(), "! ProvisioningFailed: storageclass.storage.k8s.io \"c\" not found"),
        (
            "",
            "",
            Seen { class: Some(&late), ..none() },
            "- WaitForFirstConsumer: waiting for first consumer to be created before binding",
        ),
        (
            "",
            "",
            Seen { class: Some(&late), pods: &pods(1), ..none() },
            "- WaitForPodScheduled: waiting for pod p0 to be scheduled",
        ),
        (
            "",
            "",
            Seen { class: Some(&late), pods: &pods(2), ..none() },
            "- WaitForPodScheduled: waiting for pods p0,p1 to be scheduled",
        ),
        (
            "",
            "",
            Seen { class: Some(&late), pods: &pods(13), ..none() },
            "waiting for pods p0,p1,p2,p3,p4,p5,p6,p7,p8,p9 and 3 more to be scheduled",
        ),
        (
            "",
            "",
            Seen { class: Some(&late), pods: &pods(1), too_small: Some(512 << 20), ..none() },
            "! ProvisioningFailed: failed to provision volume with StorageClass \"c\": it asks for 1Gi, and the largest \
             disk of any node has 512Mi: make it again with less",
        ),
        (
            "",
            "",
            Seen { class: Some(&immediate), ..none() },
            "\"volume.kubernetes.io/storage-provisioner\":\"example.com/disks\"",
        ),
        (
            "",
            "",
            Seen { class: Some(&immediate), ..none() },
            "- ExternalProvisioning: Waiting for a volume to be created either by the external provisioner 'example.com/disks'",
        ),
        (
            selected,
            "",
            Seen { class: Some(&late), ..none() },
            "\"volume.beta.kubernetes.io/storage-provisioner\":\"example.com/disks\"",
        ),
        ("", "volumeName: v", none(), "! FailedBinding: volume \"v\" not found: create it"),
        (
            "",
            "volumeName: v",
            Seen { volume: Some(&other), ..none() },
            "! FailedBinding: volume \"v\" already bound to a different claim.",
        ),
        (
            "",
            "volumeName: v",
            Seen { volume: Some(&small), ..none() },
            "! VolumeMismatch: Cannot bind to requested volume \"v\": requested PV is too small",
        ),
        ("", "volumeName: v", Seen { volume: Some(&elsewhere), ..none() }, "storageClassName does not match"),
        ("", "volumeName: v", Seen { volume: Some(&block), ..none() }, "incompatible volumeMode"),
        (
            "",
            "volumeName: v, accessModes: [ReadWriteMany]",
            Seen { volume: Some(&volume("v", "1Gi", "", "")), ..none() },
            "incompatible accessMode",
        ),
    ] {
        let claim = claim(metadata, spec, "");
        let plan = volume_claims::reconcile(&claim, &seen);
        assert!(told(&plan).contains(expected), "{}", told(&plan));
        // Not more often than that, and with nothing written but what asks for a volume.
        assert_eq!(plan.requeue_after, Some(REPEAT));
        assert!(plan.status.is_none() && plan.actions.len() <= 1);
    }
    let again = volume_claims::reconcile(&claim(asked, "", ""), &Seen { class: Some(&immediate), ..none() });
    assert!(again.is_empty(), "{}", told(&again));
    // A class that waits takes only what is kept for the claim.
    let free = [volume("v", "1Gi", "", "")];
    let waits = Seen { class: Some(&late), candidates: &free, ..none() };
    assert!(told(&volume_claims::reconcile(&claim("", "", ""), &waits)).starts_with("- WaitForFirstConsumer"));
    let kept = [volume("v", "1Gi", "", MINE)];
    let waits = Seen { class: Some(&late), candidates: &kept, ..none() };
    assert!(told(&volume_claims::reconcile(&claim("", "", ""), &waits)).contains("\"volumeName\":\"v\""));
}

#[test]
fn bound_claims_are_lost_with_their_volumes() {
    let once = "annotations: {pv.kubernetes.io/bind-completed: 'yes'}";
    let others = volume("v", "1Gi", "", "claimRef: {namespace: shop, name: data, uid: u0}");
    for (spec, seen, expected) in [
        ("volumeName: v", None, "! ClaimLost: Bound claim has lost its PersistentVolume. Data on the volume is lost!"),
        ("", None, "! ClaimLost: Bound claim has lost reference to PersistentVolume. Data on the volume is lost!"),
        ("volumeName: v", Some(&*others), "! ClaimMisbound: Two claims are bound to the same volume"),
    ] {
        let seen = Seen { volume: seen, ..Seen::default() };
        let plan = told(&volume_claims::reconcile(&claim(once, spec, "phase: Bound"), &seen));
        assert!(plan.contains("\"phase\":\"Lost\"") && plan.contains(expected), "{plan}");
        assert_eq!(told(&volume_claims::reconcile(&claim(once, spec, "phase: Lost"), &seen)), "");
    }
    let unbound = volume("v", "1Gi", "", "");
    let seen = Seen { volume: Some(&unbound), ..Seen::default() };
    let healed = told(&volume_claims::reconcile(&claim(once, "volumeName: v", "phase: Lost"), &seen));
    assert!(healed.contains("\"uid\":\"u1\"") && healed.contains("\"phase\":\"Bound\""), "{healed}");
}

#[test]
fn claims_without_a_class_get_the_default_one() {
    let of = |name: &str, created: &str, mark: &str| -> Arc<StorageClass> {
        Arc::new(yaml(&format!(
            "metadata: {{name: {name}, creationTimestamp: '{created}', annotations: {{storageclass.kubernetes.io/is-default-class: '{mark}'}}}}\nprovisioner: p"
        )))
    };
    let classes = [
        of("old", "2026-01-01T00:00:00Z", "true"),
        of("new", "2026-02-01T00:00:00Z", "true"),
        of("newest", "2026-03-01T00:00:00Z", "false"),
    ];
    let default_class = volume_claims::default_class(&classes);
    assert_eq!(default_class, Some("new"));
    let mut claim = claim("", "", "");
    claim.spec.as_mut().unwrap().storage_class_name = None;
    let plan = told(&volume_claims::reconcile(&claim, &Seen { default_class, ..Seen::default() }));
    assert_eq!(plan, "persistentvolumeclaims/data  {\"metadata\":{},\"spec\":{\"storageClassName\":\"new\"}}");
    assert!(told(&volume_claims::reconcile(&claim, &Seen::default())).starts_with("- FailedBinding"));
}

#[test]
fn phases_and_what_becomes_of_volumes() {
    let made = format!("annotations: {{pv.kubernetes.io/provisioned-by: {LOCAL_PATH}}}");
    let foreign = "annotations: {pv.kubernetes.io/provisioned-by: example.com/disks}";
    let ours = "annotations: {pv.kubernetes.io/bound-by-controller: 'yes'}";
    let here = claim("", "volumeName: v", "");
    let elsewhere = claim("", "volumeName: w", "");
    let unbound = claim("", "", "");
    let policy = |p: &str| format!("{MINE}, persistentVolumeReclaimPolicy: {p}");
    for (metadata, spec, phase, claim, expected) in [
        ("", String::new(), "Pending", None, "\"phase\":\"Available\""),
        ("", String::new(), "Available", None, ""),
        ("", "claimRef: {namespace: shop, name: data}".into(), "Pending", None, "\"phase\":\"Available\""),
        ("", MINE.into(), "Available", Some(&unbound), ""),
        ("", MINE.into(), "Available", Some(&here), "\"phase\":\"Bound\""),
        ("", MINE.into(), "Bound", Some(&here), ""),
        (ours, MINE.into(), "Available", Some(&elsewhere), "\"claimRef\":null"),
        ("", MINE.into(), "Available", Some(&elsewhere), "\"claimRef\":{\"resourceVersion\":null,\"uid\":null}"),
        (&made, policy("Delete"), "Available", Some(&elsewhere), "\"phase\":\"Released\""),
        ("", policy("Retain"), "Bound", None, "\"phase\":\"Released\""),
        ("", policy("Retain"), "Released", None, ""),
        (&made, policy("Delete"), "Bound", None, "\"phase\":\"Released\""),
        (&made, policy("Delete"), "Released", None, "delete persistentvolumes/v"),
        (&made, policy("Retain"), "Released", None, ""),
        (foreign, policy("Delete"), "Released", None, ""),
        (
            "",
            policy("Delete"),
            "Released",
            None,
            "! VolumeFailedDelete: error getting deleter volume plugin for volume \"v\": no deletable volume plugin matched",
        ),
        ("", policy("Recycle"), "Released", None, "! VolumeFailedRecycle: No recycler plugin found for the volume!"),
    ] {
        let mut volume = (*volume("v", "1Gi", metadata, &spec)).clone();
        volume.status.as_mut().unwrap().phase = Some(phase.into());
        let plan = volume_phases::reconcile(&volume, claim, now());
        let told = told(&plan);
        assert!(told.contains(expected) && (!expected.is_empty() || plan.is_empty()), "{phase} {spec}: {told}");
        assert_eq!(told.contains("lastPhaseTransitionTime"), told.contains("\"phase\":"), "{told}");
        if told.contains("\"phase\":\"Failed\"") {
            let patch = |plan: &Plan| match &plan.status {
                Some(Action::Patch { patch, .. }) => patch["status"].clone(),
                _ => Value::Null,
            };
            let mut status = serde_json::to_value(&volume.status).unwrap();
            json_patch::merge(&mut status, &patch(&plan));
            volume.status = serde_json::from_value(status).unwrap();
            let again = volume_phases::reconcile(&volume, claim, now());
            assert!(again.is_empty() && again.notes.is_empty(), "said once");
        }
    }
}

#[test]
fn what_is_in_use_is_held() {
    let going = |f: &str| format!("deletionTimestamp: '2026-01-01T00:00:00Z', finalizers: [a/b, {f}]");
    let without = "{\"metadata\":{\"finalizers\":[\"a/b\"]}}";
    let held = claim(&going(FINALIZER_CLAIM), "", "");
    assert_eq!(told(&volume_protection::claim(&held, true)), "");
    assert_eq!(told(&volume_protection::claim(&held, false)), format!("persistentvolumeclaims/data  {without}"));
    let unprotected = told(&volume_protection::claim(&claim("", "", ""), true));
    assert!(unprotected.contains(&format!("\"finalizers\":[\"{FINALIZER_CLAIM}\"]")), "{unprotected}");
    let mut held = (*volume("v", "1Gi", &going(FINALIZER_VOLUME), MINE)).clone();
    assert_eq!(told(&volume_protection::volume(&held)), format!("persistentvolumes/v  {without}"));
    held.status.as_mut().unwrap().phase = Some("Bound".into());
    assert_eq!(told(&volume_protection::volume(&held)), "");
    let uses = |node: &str, phase: &str| -> Vec<String> {
        let pod: Pod = yaml(&format!(
            "metadata: {{name: p}}\nspec: {{nodeName: '{node}', containers: [], volumes: [{{name: a, persistentVolumeClaim: {{claimName: data}}}}, {{name: b, ephemeral: {{}}}}]}}\nstatus: {{phase: {phase}}}"
        ));
        volume_protection::claims_of(&pod)
    };
    assert_eq!((uses("n", "Succeeded"), uses("", "Pending")), (vec!["data".into(), "p-b".into()], vec![]));
}

#[test]
fn directories_are_provided_on_the_selected_node() {
    let node: Node = yaml("metadata: {name: n1, labels: {kubernetes.io/hostname: host-1}}");
    let asks = |more: &str| format!("annotations: {{volume.kubernetes.io/storage-provisioner: {LOCAL_PATH}, {more}}}");
    let selected = asks("volume.kubernetes.io/selected-node: n1");
    let late = class(LOCAL_PATH, "WaitForFirstConsumer");
    let asked = claim(&selected, "", "");
    assert!(local_path::is_asked(&asked));
    assert!(!local_path::is_asked(&claim(&selected, "volumeName: v", "")) && !local_path::is_asked(&claim("", "", "")));
    let plan = local_path::provision(&asked, Some(&late), Some(&node));
    let Some(Action::Create { object, .. }) = plan.actions.first() else { panic!("{plan:?}") };
    let made: PersistentVolume = serde_json::from_value(object.clone()).unwrap();
    assert_eq!(object["metadata"]["finalizers"], json!([FINALIZER_LOCAL_PATH]));
    assert_eq!(object["metadata"]["labels"]["kubernetes.io/hostname"], "n1");
    assert_eq!(object["spec"]["csi"], json!({"driver": LOCAL_PATH, "volumeHandle": "pvc-u1"}));
    assert_eq!(object["spec"]["persistentVolumeReclaimPolicy"], "Delete");
    let terms = &object["spec"]["nodeAffinity"]["required"]["nodeSelectorTerms"];
    assert_eq!(terms[0]["matchExpressions"][0]["values"], json!(["host-1"]));
    assert!(told(&plan).contains("- ProvisioningSucceeded: Successfully provisioned volume pvc-u1"));
    // It is the claim's, and the binder sees that.
    let seen = Seen { candidates: &[Arc::new(made.clone())], class: Some(&late), ..Seen::default() };
    assert!(told(&volume_claims::reconcile(&asked, &seen)).contains("\"volumeName\":\"pvc-u1\""));

    for (metadata, spec, class, node, expected) in [
        (&asks(""), "", &late, None, ""),
        (
            &asks(""),
            "",
            &class(LOCAL_PATH, "Immediate"),
            None,
            "! ProvisioningFailed: failed to provision volume with StorageClass \"c\": no node is selected",
        ),
        (&selected, "", &late, None, "! ProvisioningFailed: failed to get target node: node \"n1\" not found"),
        (&selected, "accessModes: [ReadWriteMany]", &late, Some(&node), "use access mode ReadWriteOnce"),
        (&selected, "volumeMode: Block", &late, Some(&node), "use Filesystem"),
        (&selected, "selector: {matchLabels: {a: b}}", &late, Some(&node), "Selector is not supported"),
        (&selected, "dataSource: {kind: PersistentVolumeClaim, name: x}", &late, Some(&node), "volumes start empty"),
    ] {
        let plan = told(&local_path::provision(&claim(metadata, spec, ""), Some(class), node));
        assert!(plan.contains(expected) && !plan.contains("create"), "{plan}");
        assert_eq!(plan.is_empty(), expected.is_empty(), "{plan}");
    }
    let gone = told(&local_path::provision(&asked, Some(&late), None));
    assert!(gone.contains("\"volume.kubernetes.io/selected-node\":null"), "{gone}");

    // What no disk can hold is not promised.
    let sized = |size: &str| -> Arc<Node> {
        let disk = if size.is_empty() { String::new() } else { format!("{}: {size}", local_path::DISK) };
        Arc::new(yaml(&format!("metadata: {{name: n1}}\nstatus: {{allocatable: {{{disk}}}}}")))
    };
    for (size, made) in [("1Gi", true), ("1023Mi", false), ("", true)] {
        let plan = told(&local_path::provision(&asked, Some(&late), Some(&sized(size))));
        assert_eq!(plan.contains("create"), made, "{plan}");
        let unselected = plan.contains("\"volume.kubernetes.io/selected-node\":null");
        assert_eq!(unselected && plan.contains("node \"n1\" has a disk of 1072693248 bytes"), !made, "{plan}");
    }
    for (sizes, expected) in [
        (vec![], None),
        (vec!["1Mi", "3Mi", "2Mi"], Some(3 << 20)),
        (vec!["1Mi", "1Gi", "2Mi"], None),
        (vec!["1Mi", ""], None),
    ] {
        let nodes: Vec<_> = sizes.iter().map(|size| sized(size)).collect();
        assert_eq!(local_path::too_small(&asked, &nodes), expected, "{sizes:?}");
    }

    // A directory that went with its node holds nothing.
    let mut going = made;
    going.metadata.deletion_timestamp = Some(Time(now()));
    assert!(local_path::forget(&going, true).is_empty());
    assert!(told(&local_path::forget(&going, false)).contains("\"finalizers\":[]"));
    going.metadata.finalizers.as_mut().unwrap().push(FINALIZER_VOLUME.into());
    assert!(local_path::forget(&going, false).is_empty(), "it is still bound");
}

#[derive(Debug, Clone)]
enum Op {
    See,
    Claim(usize, usize),
    Volume(usize, usize),
    Delete(usize),
    Create(usize, u8, bool),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => Just(Op::See),
        8 => (0..4_usize, 0..4_usize).prop_map(|(claim, most)| Op::Claim(claim, most)),
        8 => (0..5_usize, 0..3_usize).prop_map(|(volume, most)| Op::Volume(volume, most)),
        1 => (0..4_usize).prop_map(Op::Delete),
        3 => (0..4_usize, 1..4_u8, any::<bool>()).prop_map(|(claim, size, named)| Op::Create(claim, size, named)),
    ]
}

/// Decides about a claim on what was `seen`, and writes up to `most` changes.
fn bind(cluster: &mut Cluster, seen: &Cluster, name: &str, most: usize) -> bool {
    let Some(claim) = seen.get("persistentvolumeclaims", name) else { return false };
    let claim: PersistentVolumeClaim = serde_json::from_value(claim.clone()).unwrap();
    let named = seen.get("persistentvolumes", volume_claims::volume_name(&claim));
    let named: Option<PersistentVolume> = named.map(|v| serde_json::from_value(v.clone()).unwrap());
    let volumes = seen.list::<PersistentVolume>("persistentvolumes");
    let seen = Seen { volume: named.as_ref(), candidates: &volumes, ..Seen::default() };
    let plan = volume_claims::reconcile(&claim, &seen);
    cluster.apply(&plan, most);
    !plan.is_empty()
}

fn phase(cluster: &mut Cluster, seen: &Cluster, name: &str, most: usize) -> bool {
    let Some(volume) = seen.get("persistentvolumes", name) else { return false };
    let volume: PersistentVolume = serde_json::from_value(volume.clone()).unwrap();
    let reference = volume.spec.as_ref().and_then(|s| s.claim_ref.as_ref());
    let find = |in_cluster: &Cluster| -> Option<PersistentVolumeClaim> {
        let claim = in_cluster.get("persistentvolumeclaims", reference?.name.as_deref()?)?;
        let claim: PersistentVolumeClaim = serde_json::from_value(claim.clone()).unwrap();
        (claim.metadata.uid == reference?.uid).then_some(claim)
    };
    // The driver asks again before it takes a claim for gone.
    let claim = find(seen).or_else(|| find(cluster));
    let plan = volume_phases::reconcile(&volume, claim.as_ref(), cluster.now());
    cluster.apply(&plan, most);
    !plan.is_empty()
}

/// Claims that were bound, with the volumes that they name.
fn bound(cluster: &Cluster) -> Vec<(String, String)> {
    let done = |c: &&Value| c["metadata"]["annotations"][volume_claims::BIND_COMPLETED] == "yes";
    let text = |v: &Value| v.as_str().unwrap_or_default().to_string();
    let claims = cluster.values("persistentvolumeclaims").filter(done);
    claims.map(|c| (text(&c["metadata"]["uid"]), text(&c["spec"]["volumeName"]))).collect()
}

proptest! {
    #[test]
    fn no_volume_has_two_claims_under_any_order(sizes in proptest::collection::vec(1..4_u8, 5), ops in proptest::collection::vec(op(), 0..80)) {
        let mut cluster = Cluster::default();
        for (n, size) in sizes.iter().enumerate() {
            let spec = json!({"capacity": {"storage": format!("{size}Gi")}, "accessModes": ["ReadWriteOnce"]});
            let volume = json!({"metadata": {"name": format!("v{n}")}, "spec": spec, "status": {"phase": "Pending"}});
            cluster.create("persistentvolumes", volume).unwrap();
        }
        let mut seen = cluster.clone();
        for op in ops {
            match op {
                Op::See => seen = cluster.clone(),
                Op::Claim(n, most) => drop(bind(&mut cluster, &seen, &format!("c{n}"), most)),
                Op::Volume(n, most) => drop(phase(&mut cluster, &seen, &format!("v{n}"), most)),
                Op::Delete(n) => cluster.remove("persistentvolumeclaims", &format!("c{n}")),
                Op::Create(n, size, named) => {
                    let mut spec = json!({"accessModes": ["ReadWriteOnce"], "storageClassName": "",
                        "resources": {"requests": {"storage": format!("{size}Gi")}}});
                    if named {
                        spec["volumeName"] = json!(format!("v{n}"));
                    }
                    let claim = json!({"metadata": {"name": format!("c{n}")}, "spec": spec, "status": {"phase": "Pending"}});
                    let _ = cluster.create("persistentvolumeclaims", claim);
                }
            }
            let mut volumes: Vec<String> = bound(&cluster).into_iter().map(|(_, volume)| volume).collect();
            volumes.sort();
            prop_assert!(volumes.windows(2).all(|w| w[0] != w[1]), "{:?}", volumes);
        }
        // It settles, and then both sides agree.
        let mut moved = true;
        let mut rounds = 0;
        while moved {
            rounds += 1;
            prop_assert!(rounds < 20, "it does not settle");
            moved = false;
            for n in 0..5 {
                let now = cluster.clone();
                moved |= bind(&mut cluster, &now, &format!("c{n}"), 9);
                let now = cluster.clone();
                moved |= phase(&mut cluster, &now, &format!("v{n}"), 9);
            }
        }
        for (uid, name) in bound(&cluster) {
            let volume = cluster.get("persistentvolumes", &name).unwrap();
            prop_assert_eq!(&volume["spec"]["claimRef"]["uid"], &json!(uid));
            prop_assert_eq!(&volume["status"]["phase"], "Bound");
        }
    }
}
