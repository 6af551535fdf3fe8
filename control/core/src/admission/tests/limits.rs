//! LimitRanges, and what a pod asks for altogether.

use serde_json::{Value, json};

use super::super::amounts::{Ask, of_pod, of_pod_with_overhead, to_value};
use super::super::limit_range::{check_claim, check_pod, fill};

fn range(limit: Value) -> Value {
    json!({"spec": {"limits": [limit]}})
}

fn pod(containers: Value) -> Value {
    json!({"metadata": {"name": "p"}, "spec": {"containers": containers}})
}

#[test]
fn defaults_are_filled_in_and_noted() {
    let limits = range(json!({"type": "Container", "default": {"cpu": "1", "memory": "1Gi"},
        "defaultRequest": {"cpu": "100m"}}));
    let mut p =
        pod(json!([{"name": "a"}, {"name": "b", "resources": {"limits": {"cpu": "2"}, "requests": {"cpu": "2"}}}]));
    p["spec"]["initContainers"] = json!([{"name": "i", "resources": {"limits": {"cpu": "2", "memory": "2"}}}]);
    fill(&limits, &mut p);
    let defaults = json!({"limits": {"cpu": "1", "memory": "1Gi"}, "requests": {"cpu": "100m"}});
    assert_eq!(p["spec"]["containers"][0]["resources"], defaults);
    let partly = json!({"limits": {"cpu": "2", "memory": "1Gi"}, "requests": {"cpu": "2"}});
    assert_eq!(p["spec"]["containers"][1]["resources"], partly);
    assert_eq!(
        p["metadata"]["annotations"]["kubernetes.io/limit-ranger"],
        "LimitRanger plugin set: cpu request for container a; cpu, memory limit for container a; memory limit for \
         container b; cpu request for init container i"
    );
    let mut untouched = pod(json!([{"name": "a"}]));
    fill(&range(json!({"type": "Pod", "max": {"cpu": "1"}})), &mut untouched);
    assert_eq!(untouched, pod(json!([{"name": "a"}])));
}

#[test]
fn pods_stay_within_bounds() {
    let of = |requests: Value, limits: Value| {
        pod(json!([{"name": "c", "resources": {"requests": requests, "limits": limits}}]))
    };
    let max = json!({"type": "Container", "max": {"cpu": "1"}});
    let min = json!({"type": "Container", "min": {"memory": "1Gi"}});
    let ratio = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}});
    let whole = json!({"type": "Pod", "max": {"cpu": "1"}});
    let cases = [
        (&max, of(json!({"cpu": "1"}), json!({"cpu": "1"})), ""),
        (&max, of(json!({}), json!({"cpu": "2"})), "maximum cpu usage per Container is 1, but limit is 2"),
        (&max, of(json!({}), json!({})), "maximum cpu usage per Container is 1.  No limit is specified"),
        (&max, of(json!({"cpu": "2"}), json!({"cpu": "1"})), "maximum cpu usage per Container is 1, but request is 2"),
        (&min, of(json!({}), json!({})), "minimum memory usage per Container is 1Gi.  No request is specified"),
        (&min, of(json!({"memory": "1"}), json!({})), "minimum memory usage per Container is 1Gi, but request is 1"),
        (
            &min,
            of(json!({"memory": "1Gi"}), json!({"memory": "1Mi"})),
            "minimum memory usage per Container is 1Gi, but limit is 1Mi",
        ),
        (&ratio, of(json!({"cpu": "500m"}), json!({"cpu": "1"})), ""),
        (
            &ratio,
            of(json!({"cpu": "400m"}), json!({"cpu": "1"})),
            "cpu max limit to request ratio per Container is 2, but provided ratio is 2.500000",
        ),
        (
            &ratio,
            of(json!({"cpu": "0"}), json!({"cpu": "1"})),
            "cpu max limit to request ratio per Container is 2, but no request is specified or request is 0",
        ),
        (
            &ratio,
            of(json!({"cpu": "1"}), json!({})),
            "cpu max limit to request ratio per Container is 2, but no limit is specified or limit is 0",
        ),
        (&whole, of(json!({}), json!({"cpu": "1"})), ""),
        (&whole, of(json!({}), json!({"cpu": "1100m"})), "maximum cpu usage per Pod is 1, but limit is 1100m"),
    ];
    for (limit, pod, want) in cases {
        let got = check_pod(&range(limit.clone()), &pod);
        assert_eq!(got.err().unwrap_or_default(), want, "{limit} {pod}");
    }
    let both = range(json!({"type": "Container", "max": {"cpu": "1", "memory": "1"}}));
    let two = pod(json!([{"name": "a"}, {"name": "b"}]));
    let want = "[maximum cpu usage per Container is 1.  No limit is specified, \
                maximum memory usage per Container is 1.  No limit is specified]";
    assert_eq!(check_pod(&both, &two).unwrap_err(), want, "each once");
}

#[test]
fn claims_stay_within_bounds() {
    let limits = range(json!({"type": "PersistentVolumeClaim", "min": {"storage": "1Gi"}, "max": {"storage": "2Gi"}}));
    for (requests, want) in [
        (json!({"storage": "1Gi"}), ""),
        (json!({"storage": "3Gi"}), "maximum storage usage per PersistentVolumeClaim is 2Gi, but request is 3Gi"),
        (json!({"storage": "1Mi"}), "minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi"),
        (
            json!({}),
            "[minimum storage usage per PersistentVolumeClaim is 1Gi.  No request is specified, \
             maximum storage usage per PersistentVolumeClaim is 2Gi.  No request is specified]",
        ),
    ] {
        let claim = json!({"spec": {"resources": {"requests": requests}}});
        assert_eq!(check_claim(&limits, &claim).err().unwrap_or_default(), want, "{requests}");
    }
}

#[test]
fn what_a_pod_asks_for() {
    let of = |cpu: &str| json!({"requests": {"cpu": cpu}, "limits": {"cpu": cpu}});
    let spec = json!({
        "containers": [{"resources": of("1")}, {"resources": of("500m")}],
        "initContainers": [
            {"resources": of("1")},
            {"resources": of("200m"), "restartPolicy": "Always"},
            {"resources": of("3")},
        ],
        "overhead": {"cpu": "50m", "memory": "1Mi"},
    });
    let mut pod = json!({"spec": spec});
    assert_eq!(to_value(&of_pod(&pod, Ask::Requests)), json!({"cpu": "3200m"}), "an init container beside a sidecar");
    assert_eq!(to_value(&of_pod_with_overhead(&pod, Ask::Requests)), json!({"cpu": "3250m", "memory": "1Mi"}));
    assert_eq!(to_value(&of_pod_with_overhead(&pod, Ask::Limits)), json!({"cpu": "3250m"}), "limits that are set");
    pod["spec"]["initContainers"] = json!([{"resources": of("1"), "restartPolicy": "Always"}]);
    assert_eq!(to_value(&of_pod(&pod, Ask::Requests)), json!({"cpu": "2500m"}), "a sidecar beside the containers");
    pod["spec"]["resources"] = json!({"requests": {"cpu": "4", "example.com/x": "1"}});
    assert_eq!(to_value(&of_pod(&pod, Ask::Requests)), json!({"cpu": "4"}), "the pod as a whole");
}
