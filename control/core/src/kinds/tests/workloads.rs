//! StatefulSet, DaemonSet, ReplicationController, PodTemplate, ControllerRevision.

use super::columns::row;
use super::updates::{update, with};
use super::validation::check;
use super::*;

const APPS: &str = "apps/v1";

/// A StatefulSet with one claim template, whose volume its container mounts.
fn stateful_set() -> Value {
    let mut object = deployment(json!({}));
    object["spec"]["serviceName"] = json!("web");
    object["spec"]["template"]["spec"]["containers"][0]["volumeMounts"] = json!([{"name": "data", "mountPath": "/d"}]);
    object["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}}]);
    object
}

/// The object with a field of its spec set.
fn spec(mut object: Value, key: &str, value: Value) -> Value {
    object["spec"][key] = value;
    object
}

#[test]
fn stateful_sets() {
    let resource = kind(APPS, "StatefulSet");
    let object = defaulted(&resource, stateful_set());
    for (pointer, expected) in [
        ("/spec/replicas", json!(1)),
        ("/spec/revisionHistoryLimit", json!(10)),
        ("/spec/podManagementPolicy", json!("OrderedReady")),
        ("/spec/updateStrategy", json!({"type": "RollingUpdate", "rollingUpdate": {"partition": 0}})),
        ("/spec/persistentVolumeClaimRetentionPolicy", json!({"whenDeleted": "Retain", "whenScaled": "Retain"})),
        ("/spec/volumeClaimTemplates/0/kind", json!("PersistentVolumeClaim")),
        ("/spec/volumeClaimTemplates/0/spec/volumeMode", json!("Filesystem")),
        ("/spec/volumeClaimTemplates/0/status/phase", json!("Pending")),
        ("/spec/template/spec/dnsPolicy", json!("ClusterFirst")),
    ] {
        assert_eq!(object.pointer(pointer), Some(&expected), "{pointer}");
    }
    let with = |key: &str, value: Value| spec(stateful_set(), key, value);
    for (object, expected) in [
        (stateful_set(), ""),
        (with("volumeClaimTemplates", json!([])), "spec.template.spec.containers[0].volumeMounts[0].name: Not found"),
        (with("selector", json!({})), "spec.selector: Invalid value: {}: empty selector is invalid for statefulset"),
        (with("podManagementPolicy", json!("x")), "spec.podManagementPolicy: Invalid value: \"x\": must be 'Ordered"),
        (with("updateStrategy", json!({"type": "x"})), "spec.updateStrategy: Invalid value: {\"type\":\"x\"}: must be"),
        (
            with("updateStrategy", json!({"type": "OnDelete", "rollingUpdate": {}})),
            "spec.updateStrategy.rollingUpdate: Invalid value: {}: only allowed for updateStrategy 'RollingUpdate'",
        ),
        (
            with("updateStrategy", json!({"rollingUpdate": {"maxUnavailable": 0}})),
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: 0: cannot be 0",
        ),
        (
            with("updateStrategy", json!({"rollingUpdate": {"partition": -1}})),
            "spec.updateStrategy.rollingUpdate.partition: Invalid value: -1: must be greater than or equal to 0",
        ),
        (
            with("persistentVolumeClaimRetentionPolicy", json!({"whenScaled": "x"})),
            "spec.persistentVolumeClaimRetentionPolicy.whenScaled: Unsupported value: \"x\": supported values: \"Retain\"",
        ),
        (
            with("serviceName", json!("Not_A_Label")),
            "spec.serviceName: Invalid value: \"Not_A_Label\": a lowercase RFC 1123 label must consist of",
        ),
        (
            with(
                "volumeClaimTemplates",
                json!([{"metadata": {"name": "data"}, "spec": {"resources": {"requests": {"storage": "1Gi"}}}}]),
            ),
            "spec.volumeClaimTemplates[0].spec.accessModes: Required value: at least 1 access mode is required",
        ),
        (with("ordinals", json!({"start": -1})), "spec.ordinals.start: Invalid value: -1: must be greater"),
    ] {
        let expected: &[&str] = if expected.is_empty() { &[] } else { &[expected] };
        check(APPS, "StatefulSet", object, expected);
    }
    assert!(resource.strategy.validate_name("a.b").is_err(), "names are host names");
    let mut shown = stateful_set();
    shown["spec"]["replicas"] = json!(3);
    shown["status"] = json!({"readyReplicas": 2});
    row(APPS, "StatefulSet", shown, &["a", "2/3", "60s", "web", "web:1"]);
}

#[test]
fn changes_of_stateful_sets() {
    let resource = kind(APPS, "StatefulSet");
    let old = defaulted(&resource, stateful_set());
    const FORBIDDEN: &str = "spec: Forbidden: updates to statefulset spec for fields other than 'replicas', \
        'ordinals', 'template', 'updateStrategy', 'revisionHistoryLimit', 'persistentVolumeClaimRetentionPolicy' and \
        'minReadySeconds' are forbidden";
    for (key, value, fine) in [
        ("replicas", json!(5), true),
        ("minReadySeconds", json!(5), true),
        ("updateStrategy", json!({"type": "OnDelete"}), true),
        ("revisionHistoryLimit", json!(1), true),
        ("ordinals", json!({"start": 1}), true),
        ("serviceName", json!("other"), false),
        ("podManagementPolicy", json!("Parallel"), false),
        ("volumeClaimTemplates", json!([]), false),
        ("selector", json!({"matchLabels": {"a": "b"}}), false),
    ] {
        let expected: &[&str] = if fine { &[] } else { &[FORBIDDEN] };
        let new = spec(old.clone(), key, value);
        update(&resource, &old, new.clone(), expected);
        assert!(resource.strategy.bumps_generation(&new, &old), "{key}");
    }
    assert!(!resource.strategy.bumps_generation(&with(&old, "/metadata", json!({"labels": {"a": "b"}})), &old));
}

#[test]
fn daemon_sets() {
    const TEMPLATE_GENERATION: &str = "/metadata/annotations/deprecated.daemonset.template.generation";
    let resource = kind(APPS, "DaemonSet");
    let mut old = defaulted(&resource, deployment(json!({})));
    resource.strategy.prepare_create(&mut old);
    assert_eq!(
        old["spec"]["updateStrategy"],
        json!({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}})
    );
    assert_eq!(old.pointer(TEMPLATE_GENERATION), Some(&json!("1")));
    assert_eq!(old["status"]["numberReady"], 0);
    let image = "/spec/template/spec/containers/0/image";
    let new = update(&resource, &old, with(&old, image, json!("web:2")), &[]);
    assert_eq!(new.pointer(TEMPLATE_GENERATION), Some(&json!("2")), "the template changed");
    let newer = update(&resource, &new, with(&new, "/metadata", json!({"name": "web"})), &[]);
    assert_eq!(newer.pointer(TEMPLATE_GENERATION), Some(&json!("2")), "a client cannot remove it");
    let other = json!({"matchLabels": {"app": "x"}});
    update(&resource, &old, with(&old, "/spec/selector", other), &["spec.selector: Invalid value"]);

    let with = |key: &str, value: Value| spec(deployment(json!({})), key, value);
    let rolling =
        |u: Value, s: Value| with("updateStrategy", json!({"rollingUpdate": {"maxUnavailable": u, "maxSurge": s}}));
    for (object, expected) in [
        (with("updateStrategy", json!({"type": "OnDelete"})), ""),
        (rolling(json!(0), json!("10%")), ""),
        (with("selector", json!({})), "spec.selector: Invalid value: {}: empty selector is invalid for daemonset"),
        (with("updateStrategy", json!({"type": "x"})), "spec.updateStrategy: Unsupported value: {\"type\":\"x\"}"),
        (
            rolling(json!(0), json!(0)),
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
        ),
        (
            rolling(json!(1), json!(1)),
            "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: 1: may not be set when maxUnavailable is non-zero",
        ),
        (
            rolling(json!("101%"), json!(0)),
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Invalid value: \"101%\": must not be greater than 100%",
        ),
        (
            rolling(json!(0), json!("x")),
            "spec.updateStrategy.rollingUpdate.maxUnavailable: Required value: cannot be 0 when maxSurge is 0",
        ),
    ] {
        let surge = "spec.updateStrategy.rollingUpdate.maxSurge: Invalid value: \"x\": a valid percent string must";
        let expected: Vec<&str> = if object.pointer("/spec/updateStrategy/rollingUpdate/maxSurge") == Some(&json!("x"))
        {
            vec![surge, expected]
        } else {
            Some(expected).filter(|e| !e.is_empty()).into_iter().collect()
        };
        check(APPS, "DaemonSet", object, &expected);
    }
    let mut shown = deployment(json!({"nodeSelector": {"disk": "ssd"}}));
    shown["status"] = json!({"desiredNumberScheduled": 3, "currentNumberScheduled": 2, "numberReady": 1,
        "updatedNumberScheduled": 2, "numberAvailable": 1});
    let expected = ["a", "3", "2", "1", "2", "1", "disk=ssd", "60s", "web", "web:1", "app=web"];
    row(APPS, "DaemonSet", shown, &expected);
}

#[test]
fn replication_controllers() {
    let resource = kind("v1", "ReplicationController");
    let template = json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": "web:1"}]}});
    let object = defaulted(&resource, json!({"metadata": {"name": "a"}, "spec": {"template": template}}));
    assert_eq!(object["spec"]["selector"], json!({"app": "web"}), "from the template");
    assert_eq!(object["metadata"]["labels"], json!({"app": "web"}), "from the template");
    check("v1", "ReplicationController", object.clone(), &[]);
    check(
        "v1",
        "ReplicationController",
        json!({"spec": {"selector": {"app": "x"}, "replicas": -1, "template": template}}),
        &[
            "spec.replicas: Invalid value: -1",
            "spec.template.metadata.labels: Invalid value: {\"app\":\"web\"}: `selector` does not match template `labels`",
        ],
    );
    check(
        "v1",
        "ReplicationController",
        json!({"spec": {"template": {"spec": {"activeDeadlineSeconds": 1, "containers": [{"name": "a", "image": "a"}]}}}}),
        &[
            "spec.selector: Required value",
            "spec.template.spec.activeDeadlineSeconds: Forbidden: activeDeadlineSeconds in ReplicationController is not",
        ],
    );
    let other = with(&object, "/spec/selector", json!({}));
    update(&resource, &object, other, &[]);
    let mut shown = object;
    shown["status"] = json!({"replicas": 2, "readyReplicas": 1});
    assert_eq!(resource.strategy.fields(&shown), [("status.replicas", "2".to_string())]);
    row("v1", "ReplicationController", shown, &["a", "1", "2", "1", "60s", "web", "web:1", "app=web"]);
}

#[test]
fn pod_templates_and_revisions() {
    let template = json!({"metadata": {"labels": {"app": "web"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "web", "image": "web:1"}]}});
    check("v1", "PodTemplate", json!({"template": template}), &[]);
    check("v1", "PodTemplate", json!({}), &["template.spec.containers: Required value"]);
    row("v1", "PodTemplate", json!({"template": template}), &["a", "web", "web:1", "app=web"]);

    let resource = kind(APPS, "ControllerRevision");
    check(APPS, "ControllerRevision", json!({"data": {"a": 1}, "revision": 1}), &[]);
    check(
        APPS,
        "ControllerRevision",
        json!({"revision": -1}),
        &["data: Required value: data is mandatory", "revision: Invalid value: -1"],
    );
    let old = json!({"data": {"a": 1}, "revision": 1});
    update(&resource, &old, with(&old, "/revision", json!(2)), &[]);
    update(
        &resource,
        &old,
        with(&old, "/data", json!({"a": 2})),
        &["data: Invalid value: {\"a\":2}: field is immutable"],
    );
    let mut object = json!({"metadata": {"name": "r", "creationTimestamp": "1970-01-01T00:00:40Z"}, "revision": 3});
    columns::check(APPS, "ControllerRevision", object.clone(), &["r", "<none>", "3", "60s"]);
    object["metadata"]["ownerReferences"] =
        json!([{"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "web", "controller": true}]);
    columns::check(APPS, "ControllerRevision", object, &["r", "statefulset.apps/web", "3", "60s"]);
}
