use super::*;

#[test]
fn deployments_and_their_templates() {
    let mut object = deployment(json!({"volumes": [{"name": "e"}, {"name": "c", "configMap": {"name": "x"}}]}));
    object["spec"]["template"]["spec"]["containers"][0] = json!({"name": "web", "image": "web",
        "ports": [{"containerPort": 80}], "env": [{"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "readinessProbe": {"httpGet": {"port": 80}}});
    let object = defaulted(&kind("apps/v1", "Deployment"), object);
    assert_eq!(
        object["spec"],
        json!({
            "replicas": 1, "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "selector": {"matchLabels": {"app": "web"}},
            "template": {"metadata": {"labels": {"app": "web"}}, "spec": {
                "containers": [{"name": "web", "image": "web", "imagePullPolicy": "Always", "resources": {},
                    "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
                    "ports": [{"containerPort": 80, "protocol": "TCP"}],
                    "env": [{"name": "IP", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": "status.podIP"}}}],
                    "readinessProbe": {"httpGet": {"port": 80, "path": "/", "scheme": "HTTP"}, "timeoutSeconds": 1,
                        "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3}}],
                "volumes": [{"name": "e", "emptyDir": {}}, {"name": "c", "configMap": {"name": "x", "defaultMode": 420}}],
                "dnsPolicy": "ClusterFirst", "restartPolicy": "Always", "schedulerName": "default-scheduler",
                "securityContext": {}, "terminationGracePeriodSeconds": 30}},
        })
    );
    let again = defaulted(&kind("apps/v1", "Deployment"), object.clone());
    assert_eq!(again, object, "defaults are stable");
}

#[test]
fn image_pull_policy() {
    for (image, expected) in [
        ("web", "Always"),
        ("web:latest", "Always"),
        ("shop/web:1", "IfNotPresent"),
        ("registry:5000/web", "Always"),
        ("registry:5000/web:2", "IfNotPresent"),
        ("web@sha256:00", "IfNotPresent"),
        ("web:latest@sha256:00", "Always"),
    ] {
        let pod = json!({"spec": {"containers": [{"name": "a", "image": image}]}});
        let pod = defaulted(&kind("v1", "Pod"), pod);
        assert_eq!(pod.pointer("/spec/containers/0/imagePullPolicy"), Some(&json!(expected)), "{image}");
    }
}

#[test]
fn new_pods() {
    let resource = kind("v1", "Pod");
    let limits = json!({"limits": {"cpu": "1", "memory": "1Gi"}});
    for (resources, tolerations, qos, requests, count) in [
        (json!({}), json!([]), "BestEffort", Value::Null, 2),
        (limits.clone(), json!([]), "Guaranteed", json!({"cpu": "1", "memory": "1Gi"}), 2),
        (json!({"requests": {"cpu": "1"}}), json!([{"operator": "Exists"}]), "Burstable", json!({"cpu": "1"}), 1),
        (
            json!({"limits": {"cpu": "1"}}),
            json!([{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]),
            "Burstable",
            json!({"cpu": "1"}),
            2,
        ),
    ] {
        let pod = json!({"spec": {"tolerations": tolerations,
            "containers": [{"name": "a", "image": "a:1", "resources": resources}]}});
        let mut pod = defaulted(&resource, pod);
        resource.strategy.prepare_create(&mut pod);
        assert_eq!(pod["status"], json!({"phase": "Pending", "qosClass": qos}));
        assert_eq!(pod["spec"]["containers"][0]["resources"]["requests"], requests);
        assert_eq!(pod["spec"]["tolerations"].as_array().unwrap().len(), count);
        assert_eq!(pod["spec"]["serviceAccountName"], "default");
        assert_eq!(pod["spec"]["enableServiceLinks"], true);
    }
}

#[test]
fn gated_pods() {
    let mut pod = json!({"spec": {"schedulingGates": [{"name": "g"}]}});
    kind("v1", "Pod").strategy.prepare_create(&mut pod);
    let condition = &pod["status"]["conditions"][0];
    assert_eq!((&condition["type"], &condition["reason"]), (&json!("PodScheduled"), &json!("SchedulingGated")));
}

#[test]
fn grace_of_a_delete() {
    let grace = |pod: Value| kind("v1", "Pod").strategy.default_grace_seconds(&pod);
    assert_eq!(grace(json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": 5}})), Some(5));
    assert_eq!(grace(json!({"spec": {"nodeName": "n", "terminationGracePeriodSeconds": -5}})), Some(1));
    assert_eq!(grace(json!({"spec": {"nodeName": "n"}})), Some(30));
    assert_eq!(grace(json!({"spec": {}})), Some(0));
    assert_eq!(grace(json!({"spec": {"nodeName": "n"}, "status": {"phase": "Failed"}})), Some(0));
    assert_eq!(kind("v1", "ConfigMap").strategy.default_grace_seconds(&json!({})), None);
}

#[test]
fn services() {
    let of = |spec: Value| defaulted(&kind("v1", "Service"), json!({"spec": spec}))["spec"].clone();
    assert_eq!(
        of(json!({"ports": [{"port": 80}]})),
        json!({"type": "ClusterIP", "sessionAffinity": "None", "internalTrafficPolicy": "Cluster",
            "ports": [{"port": 80, "protocol": "TCP", "targetPort": 80}]})
    );
    let node_port = of(json!({"type": "NodePort", "sessionAffinity": "ClientIP"}));
    assert_eq!(node_port["externalTrafficPolicy"], "Cluster");
    assert_eq!(node_port["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"], 10_800);
    assert_eq!(
        of(json!({"type": "ExternalName", "externalName": "x.y"})),
        json!({"type": "ExternalName", "externalName": "x.y", "sessionAffinity": "None"})
    );
}

#[test]
fn secrets_namespaces_and_endpoints() {
    let secret = json!({"data": {"a": "YQ=="}, "stringData": {"a": "x", "b": "y"}});
    assert_eq!(defaulted(&kind("v1", "Secret"), secret), json!({"type": "Opaque", "data": {"a": "eA==", "b": "eQ=="}}));
    let namespaces = kind("v1", "Namespace");
    let mut namespace = defaulted(&namespaces, json!({"metadata": {"name": "shop"}}));
    namespaces.strategy.prepare_create(&mut namespace);
    assert_eq!(
        namespace,
        json!({"metadata": {"name": "shop", "labels": {"kubernetes.io/metadata.name": "shop"}},
            "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}})
    );
    let slice = json!({"ports": [{"port": 80}]});
    assert_eq!(
        defaulted(&kind("discovery.k8s.io/v1", "EndpointSlice"), slice),
        json!({"ports": [{"port": 80, "name": "", "protocol": "TCP"}]})
    );
}
