//! Objects that describe the server itself: the API groups that it serves, the range of its cluster IPs, and the
//! configuration of priority and fairness that clients expect to find. Made where they are missing, else left alone.
//! Sources of the values: <https://kubernetes.io/docs/concepts/cluster-administration/flow-control/>,
//! <https://kubernetes.io/docs/reference/kubernetes-api/networking-resources/service-cidr-v1/>.

use std::collections::BTreeSet;

use copepod_api::Cidr;
use copepod_api::names::{
    GROUP_AUTHENTICATED, GROUP_MASTERS, GROUP_NODES, GROUP_UNAUTHENTICATED, USER_CONTROLLER_MANAGER, USER_SCHEDULER,
};
use http::{Method, Request};
use serde::Deserialize;
use serde_json::{Value, json};

use super::BootstrapError;

/// Each served group version but these objects' own, with the priorities of its group and version in discovery.
const API_SERVICES: [(&str, &str, i64, i64); 22] = [
    ("", "v1", 18_000, 1),
    ("apps", "v1", 17_800, 15),
    ("events.k8s.io", "v1", 17_750, 15),
    ("authentication.k8s.io", "v1", 17_700, 15),
    ("authorization.k8s.io", "v1", 17_600, 15),
    ("autoscaling", "v1", 17_500, 15),
    ("autoscaling", "v2", 17_500, 30),
    ("batch", "v1", 17_400, 15),
    ("certificates.k8s.io", "v1", 17_300, 15),
    ("networking.k8s.io", "v1", 17_200, 15),
    ("policy", "v1", 17_100, 15),
    ("rbac.authorization.k8s.io", "v1", 17_000, 15),
    ("storage.k8s.io", "v1", 16_800, 15),
    ("apiextensions.k8s.io", "v1", 16_700, 15),
    ("admissionregistration.k8s.io", "v1", 16_700, 15),
    ("scheduling.k8s.io", "v1", 16_600, 15),
    ("coordination.k8s.io", "v1", 16_500, 15),
    ("node.k8s.io", "v1", 16_300, 15),
    ("discovery.k8s.io", "v1", 16_200, 15),
    ("flowcontrol.apiserver.k8s.io", "v1", 16_100, 21),
    ("resource.k8s.io", "v1", 15_900, 15),
    ("metrics.k8s.io", "v1beta1", 100, 100),
];

/// Levels of priority: name, shares of the places, percent of them that may be lent, queues, queues that one flow may
/// use. Where there are no queues, what finds no place is refused.
const LEVELS: [(&str, i64, i64, i64, i64); 7] = [
    ("system", 30, 33, 64, 6),
    ("node-high", 40, 25, 64, 6),
    ("leader-election", 10, 0, 16, 4),
    ("workload-high", 40, 50, 128, 6),
    ("workload-low", 100, 90, 128, 6),
    ("global-default", 20, 50, 128, 6),
    ("catch-all", 5, 0, 0, 0),
];
/// Requests that wait in one queue at most.
const QUEUE_LENGTH: i64 = 50;

/// A kind of such objects.
struct Kind {
    path: &'static str,
    kind: &'static str,
    objects: Vec<(Value, Value)>,
}

/// Makes what is missing.
///
/// # Errors
/// The API server refused something; the error says what.
pub(super) async fn ensure(client: &kube::Client, service_cidr: Cidr) -> Result<(), BootstrapError> {
    let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let kinds = [
        Kind {
            path: "/apis/apiregistration.k8s.io/v1/apiservices",
            kind: "APIService",
            objects: API_SERVICES.iter().map(|service| api_service(service, &now)).collect(),
        },
        Kind {
            path: "/apis/flowcontrol.apiserver.k8s.io/v1/prioritylevelconfigurations",
            kind: "PriorityLevelConfiguration",
            objects: levels().into_iter().map(|level| (level, Value::Null)).collect(),
        },
        Kind { path: "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas", kind: "FlowSchema", objects: schemas(&now) },
        Kind {
            path: "/apis/networking.k8s.io/v1/servicecidrs",
            kind: "ServiceCIDR",
            objects: vec![cidr(service_cidr, &now)],
        },
    ];
    for kind in &kinds {
        make_missing(client, kind).await?;
    }
    Ok(())
}

async fn make_missing(client: &kube::Client, kind: &Kind) -> Result<(), BootstrapError> {
    let list: Listed =
        send(client, Method::GET, kind.path, &Value::Null).await.map_err(BootstrapError::of(kind.kind, ""))?;
    let present: BTreeSet<&str> = list.items.iter().map(|i| i.metadata.name.as_str()).collect();
    let name_of =
        |object: &Value| object.pointer("/metadata/name").and_then(Value::as_str).unwrap_or_default().to_string();
    let missing =
        kind.objects.iter().map(|made| (name_of(&made.0), made)).filter(|(n, _)| !present.contains(n.as_str()));
    // Together: one write to the disk holds them all.
    let makes = missing.map(|(name, (object, status))| async move {
        make(client, kind.path, &name, object, status).await.map_err(BootstrapError::of(kind.kind, &name))
    });
    futures::future::try_join_all(makes).await.map(drop)
}

async fn make(
    client: &kube::Client,
    path: &str,
    name: &str,
    object: &Value,
    status: &Value,
) -> Result<(), kube::Error> {
    match send::<Value>(client, Method::POST, path, object).await {
        Err(kube::Error::Api(refusal)) if refusal.reason == "AlreadyExists" => return Ok(()),
        made => drop(made?),
    }
    if !status.is_null() {
        let path = format!("{path}/{name}/status");
        send::<Value>(client, Method::PATCH, &path, &json!({"status": status})).await?;
    }
    Ok(())
}

#[derive(Deserialize)]
struct Listed {
    items: Vec<Item>,
}
#[derive(Deserialize)]
struct Item {
    metadata: Named,
}
#[derive(Deserialize)]
struct Named {
    name: String,
}

async fn send<T: serde::de::DeserializeOwned>(
    client: &kube::Client,
    method: Method,
    path: &str,
    body: &Value,
) -> Result<T, kube::Error> {
    let media = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).map_err(kube::Error::SerdeError)? };
    let request = Request::builder().method(method).uri(path).header("content-type", media).body(bytes);
    client.request(request.map_err(kube::Error::HttpError)?).await
}

fn condition(kind: &str, status: &str, reason: &str, message: &str, now: &str) -> Value {
    json!({"conditions": [
        {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": now},
    ]})
}

fn api_service((group, version, group_priority, priority): &(&str, &str, i64, i64), now: &str) -> (Value, Value) {
    let mut spec = json!({"version": version, "groupPriorityMinimum": group_priority, "versionPriority": priority});
    if let Some(spec) = spec.as_object_mut().filter(|_| !group.is_empty()) {
        spec.insert("group".into(), json!(group));
    }
    let labels = json!({"kube-aggregator.kubernetes.io/automanaged": "onstart"});
    let object = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
        "metadata": {"name": format!("{version}.{group}"), "labels": labels}, "spec": spec,
    });
    (object, condition("Available", "True", "Local", "Local APIServices are always available", now))
}

fn cidr(range: Cidr, now: &str) -> (Value, Value) {
    let object = json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": [range.to_string()]},
    });
    (object, condition("Ready", "True", "", "Kubernetes default Service CIDR is ready", now))
}

fn flow_control(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": kind,
        "metadata": {"name": name, "annotations": {"apf.kubernetes.io/autoupdate-spec": "true"}}, "spec": spec,
    })
}

fn levels() -> Vec<Value> {
    let exempt = json!({"type": "Exempt", "exempt": {"nominalConcurrencyShares": 0, "lendablePercent": 0}});
    let mut all = vec![flow_control("PriorityLevelConfiguration", "exempt", exempt)];
    all.extend(LEVELS.iter().map(|(name, shares, lendable, queues, hand)| {
        let queuing = json!({"queues": queues, "handSize": hand, "queueLengthLimit": QUEUE_LENGTH});
        let response =
            if *queues == 0 { json!({"type": "Reject"}) } else { json!({"type": "Queue", "queuing": queuing}) };
        let limited =
            json!({"nominalConcurrencyShares": shares, "lendablePercent": lendable, "limitResponse": response});
        flow_control("PriorityLevelConfiguration", name, json!({"type": "Limited", "limited": limited}))
    }));
    all
}

fn schemas(now: &str) -> Vec<(Value, Value)> {
    let group = |name: &str| json!({"kind": "Group", "group": {"name": name}});
    let user = |name: &str| json!({"kind": "User", "user": {"name": name}});
    let system_accounts =
        || json!({"kind": "ServiceAccount", "serviceAccount": {"name": "*", "namespace": "kube-system"}});
    let everyone = || vec![group(GROUP_UNAUTHENTICATED), group(GROUP_AUTHENTICATED)];
    let on = |verbs: &[&str], api_group: &str, resources: &[&str], cluster: bool| {
        let mut rule = json!({"verbs": verbs, "apiGroups": [api_group], "resources": resources, "namespaces": ["*"]});
        if let Some(rule) = rule.as_object_mut().filter(|_| cluster) {
            rule.insert("clusterScope".into(), json!(true));
        }
        rule
    };
    let anything = || (vec![on(&["*"], "*", &["*"], true)], vec![json!({"verbs": ["*"], "nonResourceURLs": ["*"]})]);
    let probes = vec![json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/readyz", "/livez"]})];
    let leases = |verbs: &[&str]| on(verbs, "coordination.k8s.io", &["leases"], false);
    let node_health = vec![on(&["*"], "", &["nodes", "nodes/status"], true), leases(&["*"])];
    let electors = vec![user(USER_CONTROLLER_MANAGER), user(USER_SCHEDULER), system_accounts()];
    let election = vec![leases(&["get", "create", "update"])];
    let (by_user, by_namespace) = ("ByUser", "ByNamespace");
    // Name, level, precedence, how flows are told apart, whose requests, which requests.
    let all = [
        ("exempt", "exempt", 1, "", vec![group(GROUP_MASTERS)], anything()),
        ("probes", "exempt", 2, "", everyone(), (vec![], probes)),
        ("system-leader-election", "leader-election", 100, by_user, electors, (election, vec![])),
        ("system-node-high", "node-high", 400, by_user, vec![group(GROUP_NODES)], (node_health, vec![])),
        ("system-nodes", "system", 500, by_user, vec![group(GROUP_NODES)], anything()),
        (
            "kube-controller-manager",
            "workload-high",
            800,
            by_namespace,
            vec![user(USER_CONTROLLER_MANAGER)],
            anything(),
        ),
        ("kube-scheduler", "workload-high", 800, by_namespace, vec![user(USER_SCHEDULER)], anything()),
        ("kube-system-service-accounts", "workload-high", 900, by_namespace, vec![system_accounts()], anything()),
        ("service-accounts", "workload-low", 9000, by_user, vec![group("system:serviceaccounts")], anything()),
        ("global-default", "global-default", 9900, by_user, everyone(), anything()),
        ("catch-all", "catch-all", 10_000, by_user, everyone(), anything()),
    ];
    let schema = |(name, level, precedence, distinguisher, subjects, (resources, others))| {
        let (name, level, distinguisher): (&str, &str, &str) = (name, level, distinguisher);
        let (resources, others): (Vec<Value>, Vec<Value>) = (resources, others);
        let (precedence, subjects): (i64, Vec<Value>) = (precedence, subjects);
        let mut rule = serde_json::Map::from_iter([("subjects".to_string(), json!(subjects))]);
        for (key, rules) in [("resourceRules", resources), ("nonResourceRules", others)] {
            if !rules.is_empty() {
                rule.insert(key.into(), json!(rules));
            }
        }
        let mut spec = json!({
            "priorityLevelConfiguration": {"name": level}, "matchingPrecedence": precedence, "rules": [rule],
        });
        if let Some(spec) = spec.as_object_mut().filter(|_| !distinguisher.is_empty()) {
            spec.insert("distinguisherMethod".into(), json!({"type": distinguisher}));
        }
        let message =
            format!("This FlowSchema references the PriorityLevelConfiguration object named {level:?} and it exists");
        (flow_control("FlowSchema", name, spec), condition("Dangling", "False", "Found", &message, now))
    };
    all.into_iter().map(schema).collect()
}
