//! Volumes of the machine: hostPath, and local volumes through claims.

use copepod_tests::Cluster;

/// A pod whose toolbox runs once with these arguments.
fn once(name: &str, args: &str, mount: &str, volume: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  containers:\n  - name: main\n    image: toolbox\n    args: {args}\n    volumeMounts: [{{name: v, mountPath: /data{mount}}}]\n  volumes:\n  - {{name: v, {volume}}}\n"
    )
}

fn said(cluster: &Cluster, pod: &str) -> String {
    cluster.until(&format!("pod {pod}"), "/status/phase", |v| *v == "Succeeded");
    cluster.ok(&format!("logs {pod}"))
}

#[test]
fn host_directories_are_read_and_written_and_not_left() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    let dir = tempfile::tempdir().unwrap();
    let outside = tempfile::tempdir().unwrap();
    std::fs::write(outside.path().join("secret"), "not for guests").unwrap();
    std::fs::write(dir.path().join("in"), "from the machine").unwrap();
    std::os::unix::fs::symlink(outside.path().join("secret"), dir.path().join("link")).unwrap();
    std::os::unix::fs::symlink("in", dir.path().join("inner")).unwrap();
    let host = format!("hostPath: {{path: {}, type: Directory}}", dir.path().display());

    let paths = "[cat, /data/in, /data/inner, /data/link, /data/../../../etc/hostname]";
    cluster.apply(&once("reads", paths, "", &host));
    let read = said(&cluster, "reads");
    assert!(read.contains("/data/in: Ok(\"from the machine\")"), "{read}");
    assert!(read.contains("/data/inner: Ok(\"from the machine\")"), "{read}");
    assert!(read.contains("/data/link: Err(") && !read.contains("not for guests"), "{read}");
    assert!(read.contains("etc/hostname: Err("), "{read}");

    cluster.apply(&once("writes", "[write, /data/out, from the guest]", "", &host));
    assert_eq!(said(&cluster, "writes"), "Ok(())\n");
    assert_eq!(std::fs::read_to_string(dir.path().join("out")).unwrap(), "from the guest");
    cluster.apply(&once("refused", "[write, /data/out, changed]", ", readOnly: true", &host));
    assert!(said(&cluster, "refused").contains("Err("));
    assert_eq!(std::fs::read_to_string(dir.path().join("out")).unwrap(), "from the guest");

    // What is not there waits, and says what for.
    let missing = format!("hostPath: {{path: {}/none, type: Directory}}", dir.path().display());
    cluster.apply(&once("waits", "[cat, /data]", "", &missing));
    copepod_tests::wait_for("the event", || {
        let events = cluster.ok("get events --field-selector involvedObject.name=waits");
        if events.contains("hostPath type check failed") { Ok(()) } else { Err(events) }
    });
    // So does the cluster's own data, which no guest may see.
    let own = format!("hostPath: {{path: {}}}", cluster.kubeconfig().parent().unwrap().display());
    cluster.apply(&once("nosy", "[cat, /data/admin.kubeconfig]", "", &own));
    copepod_tests::wait_for("the refusal", || {
        let events = cluster.ok("get events --field-selector involvedObject.name=nosy");
        if events.contains("FailedMount") { Ok(()) } else { Err(events) }
    });
}

#[test]
fn a_claim_brings_its_local_volume() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    let dir = tempfile::tempdir().unwrap();
    cluster.apply(&format!(
        "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: disk}}\nspec:\n  capacity: {{storage: 1Gi}}\n  accessModes: [ReadWriteOnce]\n  storageClassName: local\n  claimRef: {{namespace: default, name: data}}\n  local: {{path: {}}}\n  nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: kubernetes.io/os, operator: Exists}}]}}]}}}}\n",
        dir.path().display()
    ));
    cluster.apply(&once("keeps", "[write, /data/kept, across pods]", "", "persistentVolumeClaim: {claimName: data}"));
    cluster.apply("apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec: {accessModes: [ReadWriteOnce], storageClassName: local, volumeName: disk, resources: {requests: {storage: 1Gi}}}\n");
    cluster.ok("patch pvc data --subresource=status --type=merge -p {\"status\":{\"phase\":\"Bound\"}}");
    assert_eq!(said(&cluster, "keeps"), "Ok(())\n");
    cluster.ok("delete pod keeps");
    cluster.apply(&once("finds", "[cat, /data/kept]", "", "persistentVolumeClaim: {claimName: data, readOnly: true}"));
    assert_eq!(said(&cluster, "finds"), "/data/kept: Ok(\"across pods\")\n");
}
