//! PersistentVolume, PersistentVolumeClaim and the storage group.

use super::columns::row;
use super::updates::{update, with};
use super::validation::check;
use super::*;

const STORAGE: &str = "storage.k8s.io/v1";

fn volume(fields: Value) -> Value {
    let mut object = json!({"metadata": {"name": "pv"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "capacity": {"storage": "1Gi"}, "hostPath": {"path": "/data"}}});
    for (key, value) in fields.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

fn claim(fields: Value) -> Value {
    let mut object = json!({"metadata": {"name": "c"}, "spec": {"accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}}}});
    for (key, value) in fields.as_object().unwrap() {
        object["spec"][key] = value.clone();
    }
    object
}

/// Checks objects that each break one rule, or none (`""`).
fn each(api_version: &str, kind_: &str, cases: Vec<(Value, &str)>) {
    for (object, expected) in cases {
        let expected: &[&str] = if expected.is_empty() { &[] } else { &[expected] };
        check(api_version, kind_, object, expected);
    }
}

#[test]
fn volumes() {
    let resource = kind("v1", "PersistentVolume");
    let mut object = defaulted(&resource, volume(json!({})));
    object["metadata"]["creationTimestamp"] = json!("1970-01-01T00:00:40Z");
    resource.strategy.prepare_create(&mut object);
    assert_eq!(object["status"], json!({"phase": "Pending", "lastPhaseTransitionTime": "1970-01-01T00:00:40Z"}));
    assert_eq!(object["spec"]["persistentVolumeReclaimPolicy"], "Retain");
    assert_eq!(object["spec"]["volumeMode"], "Filesystem");
    assert_eq!(object["spec"]["hostPath"], json!({"path": "/data", "type": ""}));
    let csi = json!({"driver": "d.example", "volumeHandle": "h"});
    each(
        "v1",
        "PersistentVolume",
        vec![
            (volume(json!({})), ""),
            (volume(json!({"accessModes": []})), "spec.accessModes: Required value"),
            (
                volume(json!({"accessModes": ["x"]})),
                "spec.accessModes: Unsupported value: \"x\": supported values: \"ReadOnlyMany\", \"ReadWriteMany\", \
                 \"ReadWriteOnce\", \"ReadWriteOncePod\"",
            ),
            (
                volume(json!({"accessModes": ["ReadWriteOncePod", "ReadWriteOnce"]})),
                "spec.accessModes: Forbidden: may not use ReadWriteOncePod with other access modes",
            ),
            (volume(json!({"capacity": {}})), "spec.capacity: Required value"),
            (volume(json!({"capacity": {"cpu": "1"}})), "spec.capacity: Unsupported value: {\"cpu\":\"1\"}"),
            (
                volume(json!({"capacity": {"storage": "0"}})),
                "spec.capacity[storage]: Invalid value: \"0\": must be greater than zero",
            ),
            (volume(json!({"hostPath": null})), "spec: Required value: must specify a volume type"),
            (volume(json!({"csi": csi})), "spec.csi: Forbidden: may not specify more than 1 volume type"),
            (volume(json!({"hostPath": {"path": "/a/../b"}})), "spec.hostPath.path: Invalid value"),
            (volume(json!({"hostPath": null, "csi": {"driver": "d"}})), "spec.csi.volumeHandle: Required value"),
            (
                volume(json!({"hostPath": null, "nfs": {"server": "s", "path": "x"}})),
                "spec.nfs.path: Invalid value: \"x\": must be an absolute path",
            ),
            (
                volume(json!({"hostPath": null, "local": {"path": "/x"}})),
                "spec.nodeAffinity: Required value: Local volume requires node affinity",
            ),
            (volume(json!({"nodeAffinity": {}})), "spec.nodeAffinity.required: Required value"),
            (
                volume(json!({"persistentVolumeReclaimPolicy": "x"})),
                "spec.persistentVolumeReclaimPolicy: Unsupported value: \"x\"",
            ),
            (
                volume(json!({"persistentVolumeReclaimPolicy": "Recycle", "hostPath": {"path": "/"}})),
                "spec.persistentVolumeReclaimPolicy: Forbidden: may not be 'recycle' for a hostPath mount of '/'",
            ),
            (
                volume(json!({"volumeMode": "x"})),
                "spec.volumeMode: Unsupported value: \"x\": supported values: \"Block\", \"Filesystem\"",
            ),
            (volume(json!({"storageClassName": "A"})), "spec.storageClassName: Invalid value: \"A\""),
        ],
    );
    let old = defaulted(&resource, volume(json!({})));
    update(&resource, &old, with(&old, "/spec/capacity/storage", json!("2Gi")), &[]);
    update(
        &resource,
        &old,
        with(&old, "/spec/hostPath/path", json!("/other")),
        &["spec.persistentvolumesource: Forbidden: spec.persistentvolumesource is immutable after creation"],
    );
    let block = with(&old, "/spec/volumeMode", json!("Block"));
    update(&resource, &old, block, &["volumeMode: Invalid value: \"Block\": field is immutable"]);
    let mut bound = volume(json!({"accessModes": ["ReadOnlyMany", "ReadWriteOnce"], "storageClassName": "fast",
        "claimRef": {"namespace": "shop", "name": "data"}, "persistentVolumeReclaimPolicy": "Delete"}));
    bound["status"] = json!({"phase": "Bound"});
    let cells = ["a", "1Gi", "RWO,ROX", "Delete", "Bound", "shop/data", "fast", "<unset>", "", "60s", "<unset>"];
    row("v1", "PersistentVolume", bound, &cells);
}

#[test]
fn claims() {
    let resource = kind("v1", "PersistentVolumeClaim");
    let snapshot = json!({"apiGroup": "snapshot.storage.k8s.io", "kind": "VolumeSnapshot", "name": "s"});
    let mut object = defaulted(&resource, claim(json!({"dataSource": snapshot})));
    resource.strategy.prepare_create(&mut object);
    assert_eq!(object["status"], json!({"phase": "Pending"}));
    assert_eq!(object["spec"]["volumeMode"], "Filesystem");
    assert_eq!(object["spec"]["dataSourceRef"], snapshot, "both forms are shown");
    each(
        "v1",
        "PersistentVolumeClaim",
        vec![
            (claim(json!({})), ""),
            (claim(json!({"accessModes": []})), "spec.accessModes: Required value: at least 1 access mode is required"),
            (claim(json!({"resources": {}})), "spec.resources[storage]: Required value"),
            (
                claim(json!({"resources": {"requests": {"storage": "-1"}}})),
                "spec.resources[storage]: Invalid value: \"-1\": must be greater than zero",
            ),
            (
                claim(json!({"dataSource": {"kind": "Pod", "name": "x"}})),
                "spec.dataSource: Invalid value: \"Pod\": must be 'PersistentVolumeClaim' when referencing the default",
            ),
            (claim(json!({"selector": {"matchLabels": {"a b": ""}}})), "spec.selector.matchLabels: Invalid value"),
            (claim(json!({"storageClassName": ""})), ""),
        ],
    );
    let bound = |fields: Value| {
        let mut object = defaulted(&resource, claim(fields));
        object["spec"]["volumeName"] = json!("pv");
        object["status"] = json!({"phase": "Bound", "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]});
        object
    };
    let pending = defaulted(&resource, claim(json!({})));
    let size = "/spec/resources/requests/storage";
    const IMMUTABLE: &str = "spec: Forbidden: spec is immutable after creation except resources.requests and \
        volumeAttributesClassName for bound claims";
    const SHRUNK: &str = "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity";
    let mut placed = pending.clone();
    placed["spec"]["volumeName"] = json!("pv");
    placed["spec"]["storageClassName"] = json!("fast");
    update(&resource, &pending, placed.clone(), &[]);
    update(&resource, &placed, with(&placed, "/spec/volumeName", json!("other")), &[IMMUTABLE]);
    update(&resource, &placed, with(&placed, "/spec/storageClassName", json!("slow")), &[IMMUTABLE]);
    update(&resource, &pending, with(&pending, size, json!("2Gi")), &[IMMUTABLE]);
    let without = defaulted(&resource, claim(json!({"storageClassName": ""})));
    update(&resource, &without, pending.clone(), &[IMMUTABLE]);
    let old = bound(json!({"volumeAttributesClassName": "gold"}));
    update(&resource, &old, with(&old, size, json!("2Gi")), &[]);
    update(&resource, &old, with(&old, size, json!("512Mi")), &[SHRUNK]);
    update(&resource, &old, with(&old, "/spec/volumeAttributesClassName", json!("silver")), &[]);
    update(
        &resource,
        &old,
        with(&old, "/spec/volumeAttributesClassName", Value::Null),
        &["spec.volumeAttributesClassName: Forbidden: update from non-nil value to nil is forbidden"],
    );
    row("v1", "PersistentVolumeClaim", old, &["a", "Bound", "pv", "1Gi", "RWO", "", "gold", "60s", "Filesystem"]);
    row("v1", "PersistentVolumeClaim", pending, &["a", "Pending", "", "", "", "", "<unset>", "60s", "Filesystem"]);
}

#[test]
fn classes() {
    let resource = kind(STORAGE, "StorageClass");
    let class = |fields: Value| {
        let mut object = json!({"provisioner": "Example.com/disk"});
        for (key, value) in fields.as_object().unwrap() {
            object[key] = value.clone();
        }
        object
    };
    let old = defaulted(&resource, class(json!({})));
    assert_eq!((&old["reclaimPolicy"], &old["volumeBindingMode"]), (&json!("Delete"), &json!("Immediate")));
    let many: Value = (0..513).map(|i| (format!("k{i}"), json!(""))).collect::<serde_json::Map<_, _>>().into();
    each(
        STORAGE,
        "StorageClass",
        vec![
            (class(json!({})), ""),
            (json!({}), "provisioner: Required value"),
            (class(json!({"provisioner": "a/b/c"})), "provisioner: Invalid value: \"a/b/c\""),
            (
                class(json!({"reclaimPolicy": "x"})),
                "reclaimPolicy: Unsupported value: \"x\": supported values: \"Delete\"",
            ),
            (class(json!({"volumeBindingMode": "x"})), "volumeBindingMode: Unsupported value: \"x\""),
            (class(json!({"parameters": {"": "x"}})), "parameters: Invalid value: \"\": field can not be empty."),
            (class(json!({"parameters": many})), "parameters: Too long: may not be more than 512 bytes"),
            (
                class(json!({"parameters": {"a": "x".repeat(300_000)}})),
                "parameters: Too long: may not be more than 262144",
            ),
        ],
    );
    for (key, value, expected) in [
        ("provisioner", json!("x"), "provisioner: Forbidden: updates to provisioner are forbidden."),
        ("parameters", json!({"a": "b"}), "parameters: Forbidden: updates to parameters are forbidden."),
        ("reclaimPolicy", json!("Retain"), "reclaimPolicy: Forbidden: updates to reclaimPolicy are forbidden."),
        ("volumeBindingMode", json!("x"), "volumeBindingMode: Invalid value: \"x\": field is immutable"),
    ] {
        let mut new = old.clone();
        new[key] = value;
        update(&resource, &old, new, &[expected]);
    }
    update(
        &resource,
        &old,
        class(json!({"allowVolumeExpansion": true, "reclaimPolicy": "Delete",
        "volumeBindingMode": "Immediate"})),
        &[],
    );
    row(STORAGE, "StorageClass", old, &["a", "Example.com/disk", "Delete", "Immediate", "false", "60s"]);
    let default = json!({"metadata": {"name": "std", "creationTimestamp": "1970-01-01T00:00:40Z",
        "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}}, "allowVolumeExpansion": true});
    columns::check(STORAGE, "StorageClass", default, &["std (default)", "", "", "", "true", "60s"]);

    let resource = kind(STORAGE, "VolumeAttributesClass");
    let old = json!({"driverName": "d", "parameters": {"iops": "9"}});
    check(STORAGE, "VolumeAttributesClass", old.clone(), &[]);
    let both = &["driverName: Required value", "parameters: Required value: must contain at least one key/value pair"];
    check(STORAGE, "VolumeAttributesClass", json!({}), both);
    let forbidden = "parameters: Forbidden: updates to parameters are forbidden.";
    update(&resource, &old, with(&old, "/parameters/iops", json!("10")), &[forbidden]);
    row(STORAGE, "VolumeAttributesClass", old, &["a", "d", "60s"]);
}

#[test]
fn attachments() {
    let resource = kind(STORAGE, "VolumeAttachment");
    let attachment = |source: Value| json!({"spec": {"attacher": "d.example", "nodeName": "n1", "source": source}});
    let by_name = json!({"persistentVolumeName": "pv"});
    each(
        STORAGE,
        "VolumeAttachment",
        vec![
            (attachment(by_name.clone()), ""),
            (attachment(json!({})), "spec.source: Required value: must specify exactly one of inlineVolumeSpec and"),
            (
                attachment(json!({"persistentVolumeName": "pv", "inlineVolumeSpec": {}})),
                "spec.source: Forbidden: must specify exactly one of",
            ),
            (
                attachment(json!({"persistentVolumeName": ""})),
                "spec.source.persistentVolumeName: Required value: must specify non empty persistentVolumeName",
            ),
        ],
    );
    let mut old = attachment(by_name);
    resource.strategy.prepare_create(&mut old);
    assert_eq!(old["status"], json!({"attached": false}));
    let other = with(&old, "/spec/nodeName", json!("n2"));
    update(&resource, &old, other, &["spec: Invalid value: "]);
    row(STORAGE, "VolumeAttachment", old, &["a", "d.example", "pv", "n1", "false", "60s"]);
    let mut failed = attachment(json!({"persistentVolumeName": "pv"}));
    failed["status"] = json!({"attachError": {"message": "x".repeat(1025), "errorCode": -1}});
    let expected = ["status.attachError.message: Too long", "status.attachError.errorCode: Invalid value: -1"];
    check(STORAGE, "VolumeAttachment", failed, &expected);
}

#[test]
fn csi() {
    let resource = kind(STORAGE, "CSIDriver");
    let driver = |fields: Value| json!({"spec": fields});
    let old = defaulted(&resource, driver(json!({})));
    assert_eq!(
        old["spec"],
        json!({"attachRequired": true, "podInfoOnMount": false, "storageCapacity": false, "requiresRepublish": false,
            "seLinuxMount": false, "fsGroupPolicy": "ReadWriteOnceWithFSType", "volumeLifecycleModes": ["Persistent"]})
    );
    each(
        STORAGE,
        "CSIDriver",
        vec![
            (driver(json!({"fsGroupPolicy": "x"})), "spec.fsGroupPolicy: Unsupported value: \"x\""),
            (driver(json!({"volumeLifecycleModes": ["x"]})), "spec.volumeLifecycleModes: Unsupported value: \"x\""),
            (
                driver(json!({"tokenRequests": [{"audience": "a"}, {"audience": "a"}]})),
                "spec.tokenRequests[1].audience: Duplicate value: \"a\"",
            ),
            (
                driver(json!({"tokenRequests": [{"audience": "", "expirationSeconds": 599}]})),
                "spec.tokenRequests[0].expirationSeconds: Invalid value: 599: may not specify a duration less than 10 minutes",
            ),
            (
                driver(json!({"nodeAllocatableUpdatePeriodSeconds": 9})),
                "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
            ),
        ],
    );
    let detached = with(&old, "/spec/attachRequired", json!(false));
    update(&resource, &old, detached, &["spec.attachedRequired: Invalid value: false: field is immutable"]);
    update(&resource, &old, with(&old, "/spec/storageCapacity", json!(true)), &[]);
    let cells = ["a", "true", "false", "false", "<unset>", "false", "Persistent", "60s"];
    row(STORAGE, "CSIDriver", old, &cells);

    let resource = kind(STORAGE, "CSINode");
    let node = |fields: Value| {
        let mut driver = json!({"name": "d", "nodeID": "n1", "topologyKeys": ["zone"], "allocatable": {"count": 3}});
        for (key, value) in fields.as_object().unwrap() {
            driver[key] = value.clone();
        }
        json!({"spec": {"drivers": [driver]}})
    };
    each(
        STORAGE,
        "CSINode",
        vec![
            (node(json!({})), ""),
            (node(json!({"nodeID": ""})), "spec.drivers[0].nodeID: Required value"),
            (node(json!({"nodeID": "x".repeat(193)})), "spec.drivers[0].nodeID: Invalid value: \"xxx"),
            (node(json!({"topologyKeys": ["zone", "zone"]})), "spec.drivers[0]: Duplicate value: \"zone\""),
            (node(json!({"allocatable": {"count": -1}})), "spec.drivers[0].allocatable.count: Invalid value: -1"),
        ],
    );
    update(&resource, &node(json!({})), node(json!({"allocatable": {"count": 4}})), &[]);
    update(&resource, &node(json!({})), node(json!({"nodeID": "n2"})), &["spec.drivers: Invalid value"]);
    row(STORAGE, "CSINode", node(json!({})), &["a", "1", "60s"]);

    let resource = kind(STORAGE, "CSIStorageCapacity");
    let old = json!({"storageClassName": "fast", "capacity": "5Gi", "nodeTopology": {"matchLabels": {"z": "1"}}});
    check(STORAGE, "CSIStorageCapacity", old.clone(), &[]);
    let negative = with(&old, "/capacity", json!("-1"));
    check(STORAGE, "CSIStorageCapacity", negative, &["capacity: Invalid value: \"-1\": must be greater"]);
    update(&resource, &old, with(&old, "/capacity", json!("1Gi")), &[]);
    let slow = with(&old, "/storageClassName", json!("slow"));
    update(&resource, &old, slow, &["storageClassName: Invalid value: \"slow\": field is immutable"]);
    row(STORAGE, "CSIStorageCapacity", old, &["a", "fast", "5Gi"]);
}
