use super::*;
use futures::stream;
use kube::runtime::watcher::Event;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

fn of<K: DeserializeOwned>(objects: &[Value]) -> Vec<Event<K>> {
    objects.iter().map(|o| Event::Apply(serde_json::from_value(o.clone()).unwrap())).collect()
}

/// Labels `a` and `b`, each absent, 1 or 2.
fn all_labels() -> Vec<Value> {
    let values = [None, Some("1"), Some("2")];
    let each = values.iter().flat_map(|a| values.map(|b| (*a, b)));
    let map = |(a, b): (Option<&str>, Option<&str>)| {
        let some = [("a", a), ("b", b)].into_iter().filter_map(|(key, value)| Some((key.to_string(), value?.into())));
        Value::Object(some.collect())
    };
    each.map(map).collect()
}

/// Selectors of budgets: labels, expressions, both, all, none, and one that is wrong.
fn selectors() -> Vec<Value> {
    let expressions = [
        json!([]),
        json!([{"key": "a", "operator": "In", "values": ["2"]}]),
        json!([{"key": "a", "operator": "In", "values": ["1", "2"]}]),
        json!([{"key": "b", "operator": "NotIn", "values": ["1"]}]),
        json!([{"key": "b", "operator": "Exists"}]),
        json!([{"key": "a", "operator": "Wrong"}]),
    ];
    let both = |labels: &Value| expressions.clone().map(|e| json!({"matchLabels": labels, "matchExpressions": e}));
    let mut all: Vec<Value> = all_labels().iter().flat_map(both).collect();
    all.push(Value::Null);
    all
}

/// Pods with all labels in two namespaces, Services and budgets with all selectors in one.
async fn caches() -> Caches {
    let caches = Caches::default();
    let mut pods = Vec::new();
    for namespace in ["shop", "other"] {
        for (i, labels) in all_labels().iter().enumerate() {
            let node = ["", "n1", "n2"][i % 3];
            pods.push(json!({"metadata": {"name": format!("p{i}"), "namespace": namespace, "labels": labels},
                "spec": {"nodeName": node, "containers": [],
                    "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": format!("c{}", i % 2)}}]}}));
        }
    }
    caches.pods.follow(stream::iter(of::<Pod>(&pods))).await;
    let services = all_labels().into_iter().enumerate().map(
        |(i, labels)| json!({"metadata": {"name": format!("s{i}"), "namespace": "shop"}, "spec": {"selector": labels}}),
    );
    caches.services.follow(stream::iter(of::<Service>(&services.collect::<Vec<_>>()))).await;
    let budgets = selectors().into_iter().enumerate().map(|(i, selector)| {
        json!({"metadata": {"name": format!("b{i:02}"), "namespace": "shop"}, "spec": {"selector": selector}})
    });
    caches.budgets.follow(stream::iter(of::<PodDisruptionBudget>(&budgets.collect::<Vec<_>>()))).await;
    caches
}

fn names<K: kube::Resource>(objects: &[Arc<K>]) -> Vec<String> {
    objects.iter().map(|o| Key::of(&**o).to_string()).collect()
}

fn walk(pods: &[Arc<Pod>], selector: Option<&LabelSelector>) -> Vec<Arc<Pod>> {
    pods.iter().filter(|p| selector.is_some_and(|s| meta::selects(s, &p.metadata))).cloned().collect()
}

#[tokio::test]
async fn what_is_looked_up_is_what_a_walk_finds() {
    let caches = caches().await;
    let pods = caches.pods.list("shop");
    let (mut served, mut guarded) = (0, 0);
    for service in caches.services.list("shop") {
        let selector = endpointslice::selector(&service);
        let walked = walk(&pods, selector.as_ref());
        if let Some(selector) = &selector {
            assert_eq!(names(&caches.pods_selected("shop", selector)), names(&walked));
        }
        for pod in &pods {
            let selects = walked.iter().any(|p| p.metadata.name == pod.metadata.name);
            assert_eq!(caches.services_of(pod).contains(&Key::of(&*service)), selects);
            served += usize::from(selects);
        }
    }
    for budget in caches.budgets.list("shop") {
        let selector = budget.spec.as_ref().and_then(|s| s.selector.as_ref());
        let selector = selector.and_then(|s| LabelSelector::from_typed(Some(s)).ok());
        let walked = walk(&pods, selector.as_ref());
        assert_eq!(names(&caches.pods_guarded(&budget)), names(&walked), "{budget:?}");
        for pod in &pods {
            let guards = walked.iter().any(|p| p.metadata.name == pod.metadata.name);
            assert_eq!(caches.budgets_of(pod).contains(&Key::of(&*budget)), guards, "{budget:?} {pod:?}");
            guarded += usize::from(guards);
        }
    }
    assert!(served > 8 && guarded > 50, "{served} {guarded}");
    for pod in caches.pods.list("other") {
        assert!(caches.services_of(&pod).is_empty() && caches.budgets_of(&pod).is_empty());
    }
    for node in ["n1", "n2", "n3"] {
        let on = |p: &&Arc<Pod>| pod::node_name(p) == node;
        let mut walked = names(&caches.pods.all().iter().filter(on).cloned().collect::<Vec<_>>());
        walked.sort();
        assert_eq!(names(&caches.pods_on(node)), walked);
    }
    for (claim, users) in [("c0", ["p2", "p4", "p8"].as_slice()), ("c1", &["p1", "p5", "p7"]), ("c2", &[])] {
        let users: Vec<String> = users.iter().map(|name| format!("shop/{name}")).collect();
        assert_eq!(names(&caches.pods_using(&Key::new("shop", claim))), users, "{claim}");
    }
}

#[tokio::test]
async fn claims_and_their_sets_find_each_other() {
    let caches = Caches::default();
    let set = |name: &str, templates: &[&str]| {
        let templates: Vec<Value> = templates.iter().map(|t| json!({"metadata": {"name": t}})).collect();
        json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {"selector": {}, "serviceName": "s",
            "template": {}, "volumeClaimTemplates": templates}})
    };
    let sets = [set("db", &["data", "log"]), set("x-db", &["data"]), set("db-1", &["data"]), set("none", &[])];
    caches.stateful_sets.follow(stream::iter(of::<StatefulSet>(&sets))).await;
    let claim = |name: &str| json!({"metadata": {"name": name, "namespace": "shop"}, "spec": {}});
    let all = ["data-db-0", "data-db-1", "data-db-12", "log-db-0", "data-x-db-0", "data-db-1-0", "other", "data-db"];
    caches.claims.follow(stream::iter(of::<PersistentVolumeClaim>(&all.map(claim)))).await;
    let claims = caches.claims.list("shop");
    let mut owned = 0;
    for set in caches.stateful_sets.list("shop") {
        let found = names(&caches.claims_of(&set));
        for claim in &claims {
            let owns = statefulset_pods::may_own(&set, meta::text(&claim.metadata.name));
            let (key, name) = (Key::of(&**claim), Key::of(&*set));
            assert!(!owns || found.contains(&key.to_string()), "{key} {name}");
            assert_eq!(caches.sets_of(claim).contains(&name), owns, "{key} {name}");
            owned += usize::from(owns);
        }
    }
    assert_eq!(owned, 6);
    let db = caches.stateful_sets.get(&Key::new("shop", "db")).unwrap();
    assert_eq!(names(&caches.claims_of(&db)), ["shop/data-db-0", "shop/data-db-1", "shop/data-db-12", "shop/log-db-0"]);
}
