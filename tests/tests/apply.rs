//! Server-side apply with stock kubectl.

use copepod_tests::{Cluster, run_with_input};

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\ndata:\n";

fn map(data: &str) -> String {
    format!("{MAP}{}", data.split(' ').map(|kv| format!("  {}\n", kv.replace('=', ": "))).collect::<String>())
}

/// kubectl with a file on its standard input: what it said, and whether it went well.
fn kubectl(cluster: &Cluster, args: &str, yaml: &str) -> (String, bool) {
    let mut command = cluster.kubectl();
    let ran = run_with_input(command.args(args.split_whitespace()), yaml);
    (format!("{}{}", ran.out, ran.err), ran.ok)
}

#[test]
fn server_side_apply() {
    let cluster = Cluster::start_with(&["--no-agent"]);
    let ok = |args: &str, yaml: &str| {
        let (said, ok) = kubectl(&cluster, args, yaml);
        assert!(ok, "{args}: {said}");
        said
    };

    // Create, no change, change.
    assert_eq!(ok("apply --server-side -f -", &map("a=x b=x")), "configmap/settings serverside-applied\n");
    let version = || cluster.get("configmap settings")["metadata"]["resourceVersion"].clone();
    let before = version();
    ok("apply --server-side -f -", &map("a=x b=x"));
    assert_eq!(version(), before);
    ok("apply --server-side -f -", &map("a=w"));
    assert_eq!(cluster.get("configmap settings")["data"], serde_json::json!({"a": "w"}));

    // Others' fields: kept, told of, taken.
    cluster.ok(r#"patch configmap settings --type=merge -p {"data":{"a":"z","c":"z"}}"#);
    let (said, went) = kubectl(&cluster, "apply --server-side -f -", &map("a=w"));
    assert!(
        !went && said.contains("Apply failed with 1 conflict: conflict with \"kubectl-patch\" using v1: .data.a"),
        "{said}"
    );
    assert!(said.contains("--force-conflicts"), "kubectl knows the error as a conflict: {said}");
    ok("apply --server-side --force-conflicts -f -", &map("a=w"));
    assert_eq!(cluster.get("configmap settings")["data"], serde_json::json!({"a": "w", "c": "z"}));
    ok("apply --server-side --field-manager=ci -f -", &map("d=x"));
    let shown = cluster.ok("get configmap settings -o yaml --show-managed-fields");
    for part in [
        "manager: kubectl\n",
        "manager: ci\n",
        "manager: kubectl-patch\n",
        "operation: Apply",
        "f:data:",
        "fieldsType: FieldsV1",
    ] {
        assert!(shown.contains(part), "{part} in {shown}");
    }
    assert!(!cluster.ok("get configmap settings -o yaml").contains("managedFields"));

    // diff: 1 says that there is something, and nothing is written.
    let before = version();
    let (said, went) = kubectl(&cluster, "diff --server-side -f -", &map("a=q"));
    assert!(!went && said.contains("-  a: w") && said.contains("+  a: q"), "{said}");
    let (said, went) = kubectl(&cluster, "diff --server-side -f -", &map("a=w"));
    assert!(went, "{said}");
    ok("apply --server-side --dry-run=server -f -", &map("a=q"));
    assert_eq!(version(), before);

    // What does not fit is told.
    let (said, went) =
        kubectl(&cluster, "apply --server-side --validate=false -f -", &format!("{}dada: {{}}\n", map("a=w")));
    assert!(!went && said.contains(".dada: field not declared in schema"), "{said}");
}

/// From client-side apply to server-side apply and on: no conflict with oneself, and what is left out goes.
#[test]
fn migration() {
    let cluster = Cluster::start_with(&["--no-agent"]);
    let deployment = |replicas: u32, image: &str, label: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web{label}}}\nspec:\n  replicas: {replicas}\n  \
             selector: {{matchLabels: {{app: web}}}}\n  template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      \
             containers: [{{name: web, image: '{image}', ports: [{{containerPort: 80}}]}}]\n"
        )
    };
    let ok = |args: &str, yaml: &str| {
        let (said, ok) = kubectl(&cluster, args, yaml);
        assert!(ok, "{args}: {said}");
        said
    };
    ok("apply -f -", &deployment(1, "web:1", ", labels: {old: yes-it-is}"));
    let managers = || -> Vec<String> {
        let object = cluster.get("deployment web --show-managed-fields");
        let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        entries
            .iter()
            .map(|e| format!("{} {}", e["manager"].as_str().unwrap(), e["operation"].as_str().unwrap()))
            .collect()
    };
    assert!(managers().contains(&"kubectl-client-side-apply Update".into()), "{:?}", managers());
    ok("apply --server-side -f -", &deployment(2, "web:2", ""));
    let object = cluster.get("deployment web");
    assert_eq!((&object["spec"]["replicas"], object["metadata"].get("labels")), (&serde_json::json!(2), None));
    assert_eq!(object["spec"]["template"]["spec"]["containers"][0]["image"], "web:2");
    assert!(managers().contains(&"kubectl Apply".into()), "{:?}", managers());
    assert!(!managers().iter().any(|m| m.starts_with("kubectl-client-side-apply")), "{:?}", managers());
    // The controllers write status as themselves, and that is no conflict.
    cluster.until("deployment web --show-managed-fields", "/metadata/managedFields", |m| {
        m.as_array().is_some_and(|m| {
            m.iter().any(|e| e["manager"] == "kube-controller-manager" && e["subresource"] == "status")
        })
    });
    ok("apply --server-side -f -", &deployment(3, "web:3", ""));
    // Another who scales keeps the count if it is not applied.
    cluster.ok("scale deployment web --replicas=5");
    let (said, went) = kubectl(&cluster, "apply --server-side -f -", &deployment(3, "web:3", ""));
    assert!(!went && said.contains("with subresource \"scale\" using apps/v1: .spec.replicas"), "{said}");
    ok("apply --server-side -f -", &deployment(3, "web:3", "").replace("  replicas: 3\n", ""));
    assert_eq!(cluster.get("deployment web")["spec"]["replicas"], 5);
    // And back: client-side apply still works on it.
    ok("apply -f -", &deployment(4, "web:4", ""));
    assert_eq!(cluster.get("deployment web")["spec"]["replicas"], 4);
}
