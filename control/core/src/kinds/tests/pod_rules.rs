//! One row for each rule of containers and volumes: a spec that breaks it, and exactly what is said.

use super::*;

/// What a pod with these fields in its spec, besides one container, is told; the causes joined by `|`.
pub(super) fn told(fields: &Value) -> String {
    let mut pod = json!({"metadata": {"name": "p", "namespace": "n"},
        "spec": {"containers": [{"name": "a", "image": "a:1"}]}});
    merge(&mut pod["spec"], fields);
    let resource = kind("v1", "Pod");
    let pod = defaulted(&resource, pod);
    let mut errors = resource.strategy.validate(&pod);
    errors.extend(resource.strategy.validate_create(&pod));
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("|")
}

pub(super) fn merge(object: &mut Value, fields: &Value) {
    for (key, value) in fields.as_object().unwrap() {
        object[key] = value.clone();
    }
}

/// Rows of fields of the spec and what is said of them; `""`: nothing.
pub(super) fn specs(rows: Vec<(Value, &str)>) {
    for (fields, expected) in rows {
        assert_eq!(told(&fields), expected, "{fields}");
    }
}

/// The same for fields of the one container; `spec.containers[0].` comes before what is said.
pub(super) fn containers(rows: Vec<(Value, &str)>) {
    for (fields, expected) in rows {
        let mut container = json!({"name": "a", "image": "a:1"});
        merge(&mut container, &fields);
        let spec = json!({"containers": [container], "volumes": [{"name": "v", "emptyDir": {}},
            {"name": "p", "persistentVolumeClaim": {"claimName": "c"}}], "resourceClaims": [{"name": "r", "resourceClaimName": "r"}]});
        let expected: Vec<String> =
            expected.split('|').filter(|e| !e.is_empty()).map(|e| format!("spec.containers[0].{e}")).collect();
        assert_eq!(told(&spec), expected.join("|"), "{fields}");
    }
}

/// The same for one volume; `spec.volumes[0].` comes before what is said.
fn volumes(rows: Vec<(Value, &str)>) {
    for (source, expected) in rows {
        let mut volume = json!({"name": "v"});
        merge(&mut volume, &source);
        let expected: Vec<String> =
            expected.split('|').filter(|e| !e.is_empty()).map(|e| format!("spec.volumes[0].{e}")).collect();
        assert_eq!(told(&json!({"volumes": [volume]})), expected.join("|"), "{source}");
    }
}

#[test]
fn resources() {
    containers(vec![
        (json!({"resources": {"limits": {"example.com/x": 2, "cpu": "1"}, "requests": {"cpu": "500m"}}}), ""),
        (
            json!({"resources": {"limits": {"example.com/x": "500m"}}}),
            "resources.limits[example.com/x]: Invalid value: \"500m\": must be an integer|\
             resources.requests[example.com/x]: Invalid value: \"500m\": must be an integer",
        ),
        (
            json!({"resources": {"requests": {"example.com/x": 1}}}),
            "resources.limits: Required value: Limit must be set for non overcommitable resources",
        ),
        (
            json!({"resources": {"limits": {"example.com/x": 2}, "requests": {"example.com/x": 1}}}),
            "resources.requests: Invalid value: \"1\": must be equal to example.com/x limit of 2",
        ),
        (
            json!({"resources": {"limits": {"requests.example.com/x": 1}}}),
            "resources.limits[requests.example.com/x]: Invalid value: \"requests.example.com/x\": doesn't follow extended resource name standard|\
             resources.requests[requests.example.com/x]: Invalid value: \"requests.example.com/x\": doesn't follow extended resource name standard",
        ),
        (
            json!({"resources": {"requests": {"pods": 1}}}),
            "resources.requests[pods]: Invalid value: \"pods\": must be a standard resource for containers",
        ),
        (
            json!({"resources": {"limits": {"hugepages-2Mi": "2Mi"}}}),
            "resources: Forbidden: HugePages require cpu or memory",
        ),
        (
            json!({"resources": {"limits": {"cpu": 1, "hugepages-2Mi": "3Mi"}}}),
            "resources.limits[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi|\
             resources.requests[hugepages-2Mi]: Invalid value: \"3Mi\": 3Mi is not positive integer multiple of hugepages-2Mi",
        ),
        (json!({"resources": {"claims": [{"name": "r"}]}}), ""),
        (
            json!({"resources": {"claims": [{"name": "r"}, {"name": "r", "request": "x"}]}}),
            "resources.claims[1]: Duplicate value: \"r\"",
        ),
        (
            json!({"resources": {"claims": [{"name": "other"}]}}),
            "resources.claims[0]: Not found: \"other\": must be one of the names in pod.spec.resourceClaims: r",
        ),
        (json!({"resizePolicy": [{"resourceName": "cpu", "restartPolicy": "NotRequired"}]}), ""),
        (
            json!({"resizePolicy": [{"resourceName": "x", "restartPolicy": "y"}]}),
            "resizePolicy: Unsupported value: \"x\": supported values: \"cpu\", \"memory\"|\
             resizePolicy: Unsupported value: \"y\": supported values: \"NotRequired\", \"RestartContainer\"",
        ),
    ]);
    let with = |pod: Value, own: Value| json!({"resources": pod, "containers": [{"name": "a", "image": "a:1", "resources": own}]});
    specs(vec![
        (with(json!({"requests": {"cpu": "2"}}), json!({"requests": {"cpu": "2"}})), ""),
        (
            with(json!({"requests": {"cpu": "1"}}), json!({"requests": {"cpu": "2"}})),
            "spec.resources.requests[cpu]: Invalid value: \"1\": must be greater than or equal to aggregate container requests of 2",
        ),
        (
            with(
                json!({"limits": {"memory": "1Gi"}, "requests": {"memory": "1Gi"}}),
                json!({"limits": {"memory": "2Gi"}, "requests": {"memory": "1"}}),
            ),
            "spec.resources.containers[0][memory].limits: Invalid value: \"2Gi\": must be less than or equal to pod limits of 1Gi",
        ),
        (
            with(json!({"requests": {"example.com/x": 1}, "limits": {"example.com/x": 1}}), json!({})),
            "spec.resources.limits[example.com/x]: Unsupported value: \"example.com/x\": supported values: \"cpu\", \"hugepages-\", \"memory\"|\
             spec.resources.requests[example.com/x]: Unsupported value: \"example.com/x\": supported values: \"cpu\", \"hugepages-\", \"memory\"",
        ),
        (
            json!({"overhead": {"cpu": "-1"}}),
            "spec.overhead.limits[cpu]: Invalid value: \"-1\": must be greater than or equal to 0",
        ),
    ]);
}

#[test]
fn environment_and_probes() {
    let env = |from: Value| json!({"env": [{"name": "A", "valueFrom": from}]});
    containers(vec![
        (env(json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}})), ""),
        (
            env(json!({"resourceFieldRef": {"resource": "foo"}})),
            "env[0].valueFrom.resourceFieldRef.resource: Unsupported value: \"foo\": supported values: \"limits.cpu\", \
             \"limits.ephemeral-storage\", \"limits.memory\", \"requests.cpu\", \"requests.ephemeral-storage\", \"requests.memory\"",
        ),
        (
            env(json!({"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}})),
            "env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.cpu\": only divisor's values 1m and 1 are supported with the cpu resource",
        ),
        (
            env(json!({"resourceFieldRef": {"resource": "limits.memory", "divisor": "2"}})),
            "env[0].valueFrom.resourceFieldRef.divisor: Invalid value: \"limits.memory\": only divisor's values 1, 1k, 1M, 1G, \
             1T, 1P, 1E, 1Ki, 1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the memory resource",
        ),
        (
            env(json!({"fieldRef": {"fieldPath": "status.phase"}})),
            "env[0].valueFrom.fieldRef.fieldPath: Unsupported value: \"status.phase\": supported values: \"metadata.name\", \
             \"metadata.namespace\", \"metadata.uid\", \"spec.nodeName\", \"spec.serviceAccountName\", \"status.hostIP\", \
             \"status.hostIPs\", \"status.podIP\", \"status.podIPs\"",
        ),
        (
            env(json!({"fieldRef": {"fieldPath": "spec['x']"}})),
            "env[0].valueFrom.fieldRef.fieldPath: Invalid value: \"spec['x']\": error converting fieldPath: field label does not support subscript: spec['x']",
        ),
        (
            env(json!({"fileKeyRef": {"key": "K", "path": "../x", "volumeName": "v"}})),
            "env[0].valueFrom.fileKeyRef.path: Invalid value: \"../x\": must not contain '..'",
        ),
        (
            env(json!({"fileKeyRef": {"key": "K", "path": "x", "volumeName": "p"}})),
            "env[0].valueFrom.fileKeyRef.volumeName: Invalid value: \"p\": referenced volume must be of type emptyDir",
        ),
        (json!({"lifecycle": {"preStop": {"sleep": {"seconds": 30}}}}), ""),
        (
            json!({"lifecycle": {"preStop": {"sleep": {"seconds": -1}}}}),
            "lifecycle.preStop.sleep: Invalid value: -1: must be non-negative and less than terminationGracePeriodSeconds (30)",
        ),
        (
            json!({"lifecycle": {"stopSignal": "SIGTERM"}}),
            "lifecycle.stopSignal: Forbidden: may not be set for containers with empty `spec.os.name`",
        ),
        (
            json!({"readinessProbe": {"tcpSocket": {"port": 1}, "terminationGracePeriodSeconds": 1}}),
            "readinessProbe.terminationGracePeriodSeconds: Invalid value: 1: must not be set for readinessProbes",
        ),
        (
            json!({"livenessProbe": {"httpGet": {"port": 1, "scheme": "FTP", "httpHeaders": [{"name": "a b", "value": ""}]}}}),
            "livenessProbe.httpGet.scheme: Unsupported value: \"FTP\": supported values: \"HTTP\", \"HTTPS\"|\
             livenessProbe.httpGet.httpHeaders: Invalid value: \"a b\": a valid HTTP header must consist of alphanumeric \
             characters or '-' (e.g. 'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')",
        ),
        (json!({"restartPolicy": "OnFailure"}), ""),
        (
            json!({"restartPolicyRules": [{"action": "Stop"}]}),
            "restartPolicy: Required value: must specify restartPolicy when restart rules are used|\
             restartPolicyRules[0].action: Unsupported value: \"Stop\": supported values: \"Restart\"|\
             restartPolicyRules[0].exitCodes: Required value: must be specified",
        ),
    ]);
    let signal = |os: &str, signal: &str| json!({"os": {"name": os}, "containers": [{"name": "a", "image": "a:1", "lifecycle": {"stopSignal": signal}}]});
    specs(vec![
        (signal("linux", "SIGRTMIN+15"), ""),
        (
            signal("windows", "SIGHUP"),
            "spec.containers[0].lifecycle.stopSignal: Unsupported value: \"SIGHUP\": supported values: \"SIGKILL\", \"SIGTERM\"",
        ),
    ]);
    assert!(told(&signal("linux", "SIGX")).contains("\"SIGRTMAX\", \"SIGRTMAX-1\", \"SIGRTMAX-10\""));
}

#[test]
fn mounts_and_devices() {
    containers(vec![
        (json!({"volumeDevices": [{"name": "p", "devicePath": "/dev/x"}]}), ""),
        (
            json!({"volumeDevices": [{"name": "no", "devicePath": "/dev/x"}]}),
            "volumeDevices[0].name: Not found: \"no\"",
        ),
        (
            json!({"volumeDevices": [{"name": "v", "devicePath": "/../x"}]}),
            "volumeDevices[0].name: Invalid value: \"v\": can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode|\
             volumeDevices[0].devicePath: Invalid value: \"/../x\": can not contain backsteps ('..')",
        ),
        (
            json!({"volumeDevices": [{"name": "p", "devicePath": "/x"}], "volumeMounts": [{"name": "p", "mountPath": "/x"}]}),
            "volumeMounts[0].name: Invalid value: \"p\": must not already exist in volumeDevices|\
             volumeMounts[0].mountPath: Invalid value: \"/x\": must not already exist as a path in volumeDevices|\
             volumeDevices[0].name: Invalid value: \"p\": must not already exist in volumeMounts|\
             volumeDevices[0].devicePath: Invalid value: \"/x\": must not already exist as a path in volumeMounts",
        ),
        (
            json!({"volumeMounts": [{"name": "v", "mountPath": "/x", "mountPropagation": "Bidirectional"}]}),
            "volumeMounts.mountPropagation: Forbidden: Bidirectional mount propagation is available only to privileged containers",
        ),
        (
            json!({"volumeMounts": [{"name": "v", "mountPath": "/x", "recursiveReadOnly": "Enabled"}]}),
            "volumeMounts.recursiveReadOnly: Forbidden: may only be specified when readOnly is true",
        ),
    ]);
}

#[test]
fn sources_of_volumes() {
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}});
    let uri = |kind: &str, uri: &str| json!({"azureDisk": {"diskName": "d", "diskURI": uri, "kind": kind}});
    volumes(vec![
        (json!({"emptyDir": {"sizeLimit": "1Gi"}}), ""),
        (
            json!({"emptyDir": {"sizeLimit": "-1"}}),
            "emptyDir.sizeLimit: Forbidden: SizeLimit field must be a valid resource quantity",
        ),
        (json!({"nfs": {"server": "", "path": "/"}}), "nfs.server: Required value"),
        (
            json!({"nfs": {"server": "s", "path": ""}}),
            "nfs.path: Required value|nfs.path: Invalid value: \"\": must be an absolute path",
        ),
        (
            json!({"hostPath": {"path": "/x", "type": "Dir"}}),
            "hostPath.type: Unsupported value: \"Dir\": supported values: \"\", \"BlockDevice\", \"CharDevice\", \
             \"Directory\", \"DirectoryOrCreate\", \"File\", \"FileOrCreate\", \"Socket\"",
        ),
        (json!({"iscsi": {"targetPortal": "a:1", "iqn": "iqn.2026-11.a.b:c", "lun": 0}}), ""),
        (
            json!({"iscsi": {"targetPortal": "a:1", "iqn": "foo", "lun": 256, "chapAuthSession": true}}),
            "iscsi.iqn: Invalid value: \"foo\": must be valid format starting with iqn, eui, or naa|\
             iscsi.lun: Invalid value: 256: must be between 0 and 255, inclusive|iscsi.secretRef: Required value",
        ),
        (json!({"rbd": {"monitors": [], "image": ""}}), "rbd.monitors: Required value|rbd.image: Required value"),
        (uri("Managed", "/subscriptions/x"), ""),
        (
            uri("Shared", "x"),
            "azureDisk.diskURI: Unsupported value: \"x\": supported values: \
             \"https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd\"",
        ),
        (json!({"gcePersistentDisk": {"pdName": ""}}), "persistentDisk.pdName: Required value"),
        (json!({"fc": {"targetWWNs": ["a"]}}), "fc.lun: Required value: lun is required if targetWWNs is specified"),
        (
            json!({"flexVolume": {"driver": "d", "options": {"k8s.io/x": ""}}}),
            "flexVolume.options[k8s.io/x]: Invalid value: \"k8s.io/x\": kubernetes.io and k8s.io namespaces are reserved",
        ),
        (json!({"csi": {"driver": "D.example"}}), ""),
        (json!({"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}), ""),
        (json!({"ephemeral": {}}), "ephemeral.volumeClaimTemplate: Required value"),
        (
            json!({"ephemeral": {"volumeClaimTemplate": {"metadata": {"name": "x"}, "spec": {}}}}),
            "ephemeral.volumeClaimTemplate.metadata.name: Forbidden: cannot be set|\
             ephemeral.volumeClaimTemplate.spec.accessModes: Required value: at least 1 access mode is required|\
             ephemeral.volumeClaimTemplate.spec.resources[storage]: Required value",
        ),
        (json!({"image": {"reference": ""}}), "image.reference: Required value"),
        (
            json!({"downwardAPI": {"items": [{"path": "..x", "fieldRef": {"fieldPath": "metadata.labels"}}]}}),
            "downwardAPI.path: Invalid value: \"..x\": must not start with '..'",
        ),
        (
            json!({"downwardAPI": {"items": [{"path": "x", "fieldRef": {"fieldPath": "spec.nodeName"}}]}}),
            "downwardAPI.fieldRef.fieldPath: Unsupported value: \"spec.nodeName\": supported values: \
             \"metadata.annotations\", \"metadata.labels\", \"metadata.name\", \"metadata.namespace\", \"metadata.uid\"",
        ),
        (
            json!({"downwardAPI": {"items": [{"path": "x", "resourceFieldRef": {"resource": "limits.cpu"}}]}}),
            "downwardAPI.resourceFieldRef.containerName: Required value",
        ),
        (
            json!({"projected": {"sources": [{"serviceAccountToken": {"path": "t", "expirationSeconds": 1}},
                {"secret": {"name": "s", "items": [{"key": "a", "path": "x"}, {"key": "b", "path": "x"}]}}]}}),
            "projected.sources[0].serviceAccountToken.expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes|\
             projected: Invalid value: \"s\": conflicting duplicate paths",
        ),
        (
            json!({"projected": {"sources": [{"clusterTrustBundle": {"path": "t"}}]}}),
            "projected.sources[0].clusterTrustBundle: Required value: either name or signerName must be specified",
        ),
    ]);
}
