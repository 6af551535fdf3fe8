//! One row for each rule of security, scheduling and the rest of a pod's spec, as in `pod_rules`.

use super::pod_rules::{containers, merge, specs, told};
use super::*;

#[test]
fn security() {
    let of_pod = |context: Value| json!({"securityContext": context});
    let of_container = |context: Value| json!({"securityContext": context});
    specs(vec![
        (of_pod(json!({"runAsUser": 0, "fsGroup": 1, "sysctls": [{"name": "net.core.x", "value": "1"}]})), ""),
        (
            of_pod(json!({"runAsUser": -1})),
            "spec.securityContext.runAsUser: Invalid value: -1: must be between 0 and 2147483647, inclusive",
        ),
        (
            of_pod(json!({"sysctls": [{"name": "x y"}]})),
            r#"spec.securityContext.sysctls[0].name: Invalid value: "x y": must have at most 253 characters and match regex ^([a-z0-9]([-_a-z0-9]*[a-z0-9])?[\./])*[a-z0-9]([-_a-z0-9]*[a-z0-9])?$"#,
        ),
        (
            json!({"hostNetwork": true, "securityContext": {"sysctls": [{"name": "net/core/x"}]}}),
            "spec.securityContext.sysctls[0].name: Invalid value: \"net/core/x\": may not be specified when 'hostNetwork' is true",
        ),
        (
            of_pod(json!({"fsGroupChangePolicy": "X"})),
            "spec.securityContext.fsGroupChangePolicy: Unsupported value: \"X\": supported values: \"Always\", \"OnRootMismatch\"",
        ),
        (
            of_pod(json!({"seccompProfile": {"type": "X"}})),
            "spec.securityContext.seccompProfile.type: Unsupported value: \"X\": supported values: \"Localhost\", \"RuntimeDefault\", \"Unconfined\"",
        ),
        (
            of_pod(json!({"seccompProfile": {"type": "Unconfined", "localhostProfile": "x"}})),
            "spec.securityContext.seccompProfile.localhostProfile: Invalid value: {\"Type\":\"Unconfined\",\"LocalhostProfile\":\"x\"}: can only be set when seccomp type is Localhost",
        ),
        (
            of_pod(json!({"appArmorProfile": {"type": "Localhost"}})),
            "spec.securityContext.appArmorProfile.localhostProfile: Required value: must be set when AppArmor type is Localhost",
        ),
        (
            json!({"shareProcessNamespace": true, "hostPID": true}),
            "spec.securityContext.shareProcessNamespace: Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
        ),
        (
            json!({"hostUsers": false, "hostNetwork": true, "hostPID": true}),
            "spec.hostNetwork: Forbidden: when `hostUsers` is false|spec.HostPID: Forbidden: when `hostUsers` is false",
        ),
        (
            json!({"os": {"name": "foo"}}),
            "spec.os: Unsupported value: \"foo\": supported values: \"linux\", \"windows\"",
        ),
        (
            json!({"os": {"name": "windows"}, "hostPID": true}),
            "spec.hostPID: Forbidden: cannot be set for a windows pod",
        ),
        (
            json!({"os": {"name": "linux"}, "securityContext": {"windowsOptions": {"runAsUserName": "a\\b\\c"}}}),
            "spec.securityContext.windowsOptions.runAsUserName: Invalid value: \"a\\\\b\\\\c\": runAsUserName cannot contain more than one backslash|\
             spec.securityContext.windowsOptions: Forbidden: windows options cannot be set for a linux pod",
        ),
        (
            of_pod(json!({"windowsOptions": {"hostProcess": true}})),
            "spec.hostNetwork: Invalid value: false: hostNetwork must be true if pod contains any hostProcess containers",
        ),
    ]);
    containers(vec![
        (of_container(json!({"privileged": true, "allowPrivilegeEscalation": true})), ""),
        (
            of_container(
                json!({"privileged": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}),
            ),
            "securityContext: Invalid value: {\"Capabilities\":{\"Add\":null,\"Drop\":[\"ALL\"]},\"Privileged\":true,\
             \"SELinuxOptions\":null,\"WindowsOptions\":null,\"RunAsUser\":null,\"RunAsGroup\":null,\"RunAsNonRoot\":null,\
             \"ReadOnlyRootFilesystem\":null,\"AllowPrivilegeEscalation\":false,\"ProcMount\":null,\"SeccompProfile\":null,\
             \"AppArmorProfile\":null}: cannot set `allowPrivilegeEscalation` to false and `privileged` to true",
        ),
        (
            of_container(json!({"procMount": "Unmasked"})),
            "securityContext.procMount: Invalid value: \"Unmasked\": `hostUsers` must be false to use `Unmasked`",
        ),
    ]);
}

#[test]
fn scheduling() {
    let node = |required: Value| json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": required}}});
    let expression = |item: Value| node(json!({"nodeSelectorTerms": [{"matchExpressions": [item]}]}));
    let pod =
        |term: Value| json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [term]}}});
    let spread = |fields: Value| {
        let mut constraint = json!({"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"});
        merge(&mut constraint, &fields);
        json!({"topologySpreadConstraints": [constraint]})
    };
    const TERM: &str = "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
    const POD: &str = "spec.affinity.podAffinity.requiredDuringSchedulingIgnoredDuringExecution[0]";
    const KEY: &str = "name part must be non-empty";
    let at = |field: &str, message: &str| format!("{field}{message}");
    for (fields, expected) in [
        (expression(json!({"key": "zone", "operator": "In", "values": ["a"]})), String::new()),
        (
            node(json!({"nodeSelectorTerms": []})),
            at(TERM, ": Required value: must have at least one node selector term"),
        ),
        (
            expression(json!({"key": "zone", "operator": "In"})),
            at(TERM, "[0].matchExpressions[0].values: Required value: must be specified when `operator` is 'In' or 'NotIn'"),
        ),
        (
            expression(json!({"key": "zone", "operator": "Foo"})),
            at(TERM, "[0].matchExpressions[0].operator: Invalid value: \"Foo\": not a valid selector operator"),
        ),
        (
            node(json!({"nodeSelectorTerms": [{"matchFields": [{"key": "x", "operator": "In", "values": ["a"]}]}]})),
            at(TERM, "[0].matchFields[0].key: Invalid value: \"x\": not a valid field selector key"),
        ),
        (pod(json!({"topologyKey": "zone"})), String::new()),
        (
            pod(json!({"topologyKey": ""})),
            at(POD, &format!(".topologyKey: Required value: can not be empty|{POD}.topologyKey: Invalid value: \"\": {KEY}")),
        ),
        (
            pod(json!({"topologyKey": "zone", "matchLabelKeys": ["a"]})),
            at(POD, ".matchLabelKeys: Forbidden: must not be specified when labelSelector is not set"),
        ),
        (
            pod(json!({"topologyKey": "zone", "labelSelector": {}, "matchLabelKeys": ["a"], "mismatchLabelKeys": ["a"]})),
            at(POD, ".matchLabelKeys[0]: Invalid value: \"a\": exists in both matchLabelKeys and mismatchLabelKeys"),
        ),
        (
            json!({"affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [
                {"weight": 0, "podAffinityTerm": {"topologyKey": "zone"}}]}}}),
            "spec.affinity.podAntiAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].weight: Invalid value: 0: must be in the range 1-100".into(),
        ),
        (spread(json!({})), String::new()),
        (
            spread(json!({"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "X"})),
            "spec.topologySpreadConstraints[0].maxSkew: Invalid value: 0: must be greater than zero|\
             spec.topologySpreadConstraints[0].topologyKey: Required value: can not be empty|\
             spec.topologySpreadConstraints[0].whenUnsatisfiable: Unsupported value: \"X\": supported values: \
             \"DoNotSchedule\", \"ScheduleAnyway\"".into(),
        ),
        (
            spread(json!({"whenUnsatisfiable": "ScheduleAnyway", "minDomains": 1})),
            "spec.topologySpreadConstraints[0].minDomains: Invalid value: 1: can only use minDomains if \
             whenUnsatisfiable=DoNotSchedule, not ScheduleAnyway".into(),
        ),
        (
            json!({"schedulingGates": [{"name": "a"}, {"name": "a"}]}),
            "spec.schedulingGates[1]: Duplicate value: \"a\"".into(),
        ),
        (
            json!({"schedulingGates": [{"name": "a"}], "nodeName": "n"}),
            "spec.nodeName: Forbidden: cannot be set until all schedulingGates have been cleared".into(),
        ),
        (
            json!({"preemptionPolicy": "X"}),
            "spec.preemptionPolicy: Unsupported value: \"X\": supported values: \"PreemptLowerPriority\", \"Never\"".into(),
        ),
        (
            json!({"tolerations": [{"key": "a", "operator": "Exists", "value": "v", "effect": "X"}]}),
            "spec.tolerations[0].operator: Invalid value: \"v\": value must be empty when `operator` is 'Exists'|\
             spec.tolerations[0].effect: Unsupported value: \"X\": supported values: \"NoSchedule\", \"PreferNoSchedule\", \"NoExecute\"".into(),
        ),
    ] {
        assert_eq!(told(&fields), expected, "{fields}");
    }
}

#[test]
fn the_rest_of_the_spec() {
    let ephemeral = json!([{"name": "e", "image": "a:1"}]);
    let host_port = |port: i64| {
        json!({"hostNetwork": true, "containers": [{"name": "a", "image": "a:1",
            "ports": [{"containerPort": 80, "hostPort": port}]}]})
    };
    specs(vec![
        (json!({"terminationGracePeriodSeconds": -1}), ""),
        (json!({"dnsConfig": {"nameservers": ["10.0.0.1"], "searches": [".", "a_b.c."]}}), ""),
        (
            json!({"dnsConfig": {"nameservers": ["x"], "options": [{"value": "1"}]}}),
            "spec.dnsConfig.nameservers[0]: Invalid value: \"x\": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)|\
             spec.dnsConfig.options[0]: Required value: must not be empty",
        ),
        (
            json!({"dnsPolicy": "None"}),
            "spec.dnsConfig: Required value: must provide `dnsConfig` when `dnsPolicy` is None",
        ),
        (
            json!({"hostnameOverride": "a", "setHostnameAsFQDN": true}),
            "spec.hostnameOverride: Forbidden: may not be specified when setHostnameAsFQDN is true",
        ),
        (host_port(80), ""),
        (
            host_port(81),
            "spec.containers[0].ports[0].hostPort: Invalid value: 81: must match `containerPort` when `hostNetwork` is true",
        ),
        (
            json!({"containers": [{"name": "a", "image": "a:1", "ports": [{"containerPort": 1, "hostPort": 5}]},
                {"name": "b", "image": "a:1", "ports": [{"containerPort": 1, "hostPort": 5}]}]}),
            "spec.containers[1].ports[0].hostPort: Duplicate value: \"TCP//5\"",
        ),
        (json!({"ephemeralContainers": ephemeral}), "spec.ephemeralContainers: Forbidden: cannot be set on create"),
        (
            json!({"ephemeralContainers": [{"name": "e", "image": "a:1", "targetContainerName": "x", "ports": [{"containerPort": 1}]}]}),
            "spec.ephemeralContainers[0].targetContainerName: Not found: \"x\"|\
             spec.ephemeralContainers[0].ports: Forbidden: cannot be set for an Ephemeral Container|\
             spec.ephemeralContainers: Forbidden: cannot be set on create",
        ),
        (
            json!({"resourceClaims": [{"name": "r"}]}),
            "spec.resourceClaims[0]: Invalid value: {\"Name\":\"r\",\"ResourceClaimName\":null,\"ResourceClaimTemplateName\":null}: \
             must specify one of: `resourceClaimName`, `resourceClaimTemplateName`",
        ),
        (
            json!({"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a_b"]}]}),
            "spec.hostAliases[0].hostnames[0]: Invalid value: \"a_b\": a lowercase RFC 1123 subdomain must consist of lower \
             case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. \
             'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
        ),
    ]);
    let template = defaulted(&kind("apps/v1", "Deployment"), deployment(json!({"ephemeralContainers": ephemeral})));
    let errors = kind("apps/v1", "Deployment").strategy.validate(&template);
    assert_eq!(
        errors.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["spec.template.spec.ephemeralContainers: Forbidden: ephemeral containers not allowed in pod template"]
    );
}

#[test]
fn annotations() {
    for (key, value, expected) in [
        ("controller.kubernetes.io/pod-deletion-cost", "-5", ""),
        ("controller.kubernetes.io/pod-deletion-cost", "+5", ": Invalid value: \"+5\": must be a 32bit integer"),
        (
            "kubernetes.io/config.mirror",
            "x",
            ": Invalid value: \"x\": must set spec.nodeName if mirror pod annotation is set",
        ),
        (
            "container.apparmor.security.beta.kubernetes.io/b",
            "unconfined",
            ": Invalid value: \"b\": container not found",
        ),
    ] {
        let resource = kind("v1", "Pod");
        let pod =
            json!({"metadata": {"annotations": {key: value}}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}});
        let errors = resource.strategy.validate(&defaulted(&resource, pod));
        let told: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let expected =
            if expected.is_empty() { Vec::new() } else { vec![format!("metadata.annotations[{key}]{expected}")] };
        assert_eq!(told, expected);
    }
}

#[test]
fn defaults_of_volumes() {
    let claim = json!({"accessModes": ["ReadWriteOnce"]});
    for (given, expected) in [
        (json!({"iscsi": {"iqn": "x"}}), json!({"iscsi": {"iqn": "x", "iscsiInterface": "default"}})),
        (
            json!({"rbd": {"image": "x", "user": ""}}),
            json!({"rbd": {"image": "x", "pool": "rbd", "user": "admin", "keyring": "/etc/ceph/keyring"}}),
        ),
        (
            json!({"azureDisk": {"diskName": "x"}}),
            json!({"azureDisk": {"diskName": "x", "cachingMode": "ReadWrite", "kind": "Shared", "fsType": "ext4", "readOnly": false}}),
        ),
        (
            json!({"scaleIO": {"system": "x"}}),
            json!({"scaleIO": {"system": "x", "storageMode": "ThinProvisioned", "fsType": "xfs"}}),
        ),
        (
            json!({"ephemeral": {"volumeClaimTemplate": {"spec": claim}}}),
            json!({"ephemeral": {"volumeClaimTemplate": {"spec": {"accessModes": ["ReadWriteOnce"], "volumeMode": "Filesystem"}}}}),
        ),
        (json!({"image": {"reference": "x"}}), json!({"image": {"reference": "x", "pullPolicy": "Always"}})),
        (json!({"image": {}}), json!({"image": {"pullPolicy": "IfNotPresent"}})),
    ] {
        let pod = defaulted(&kind("v1", "Pod"), json!({"spec": {"volumes": [given]}}));
        assert_eq!(pod["spec"]["volumes"][0], expected);
    }
    let volume = defaulted(&kind("v1", "PersistentVolume"), json!({"spec": {"rbd": {"image": "x"}}}));
    assert_eq!(volume["spec"]["rbd"]["pool"], "rbd");
}
