//! Volumes of the machine: hostPath, local volumes through claims, and directories that the node makes for claims.

use std::path::PathBuf;

use copepod_tests::{Cluster, FurtherNode, wait_for};

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
    wait_for("the event", || {
        let events = cluster.ok("get events --field-selector involvedObject.name=waits");
        if events.contains("hostPath type check failed") { Ok(()) } else { Err(events) }
    });
    // So does the cluster's own data, which no guest may see.
    let own = format!("hostPath: {{path: {}}}", cluster.kubeconfig().parent().unwrap().display());
    cluster.apply(&once("nosy", "[cat, /data/admin.kubeconfig]", "", &own));
    wait_for("the refusal", || {
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
    assert_eq!(said(&cluster, "keeps"), "Ok(())\n");
    cluster.ok("delete pod keeps");
    cluster.apply(&once("finds", "[cat, /data/kept]", "", "persistentVolumeClaim: {claimName: data, readOnly: true}"));
    assert_eq!(said(&cluster, "finds"), "/data/kept: Ok(\"across pods\")\n");
}

/// A claim of 1Gi with more in its spec.
fn claim(name: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\nspec: {{accessModes: [ReadWriteOnce], resources: {{requests: {{storage: 1Gi}}}}{more}}}\n"
    )
}

fn described(cluster: &Cluster, what: &str, words: &str) {
    wait_for(&format!("{words:?} of {what}"), || {
        let said = cluster.ok(&format!("describe {what}"));
        if said.contains(words) { Ok(()) } else { Err(said) }
    });
}

/// The directory of a claim's volume.
fn directory(cluster: &Cluster, claim: &str) -> PathBuf {
    let volume = cluster.until(&format!("pvc {claim}"), "/spec/volumeName", |v| v.is_string());
    cluster.data_dir.join("agent/volumes").join(volume.as_str().unwrap())
}

fn gone(cluster: &Cluster, what: &str) {
    wait_for(&format!("{what} to go"), || {
        let ran = cluster.k(&format!("get {what}"));
        if ran.err.contains("not found") { Ok(()) } else { Err(format!("{}{}", ran.out, ran.err)) }
    });
}

#[test]
fn a_claim_gets_a_directory_that_goes_with_it() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    let classes = cluster.ok("get storageclass");
    assert!(classes.contains("local-path (default)") && classes.contains("WaitForFirstConsumer"), "{classes}");
    cluster.apply(&claim("data", ""));
    assert_eq!(cluster.get("pvc data")["spec"]["storageClassName"], "local-path");
    described(&cluster, "pvc data", "waiting for first consumer to be created before binding");

    let uses = "persistentVolumeClaim: {claimName: data}";
    cluster.apply(&once("keeps", "[write, /data/kept, across pods]", "", uses));
    assert_eq!(said(&cluster, "keeps"), "Ok(())\n");
    let directory = self::directory(&cluster, "data");
    assert_eq!(std::fs::read_to_string(directory.join("kept")).unwrap(), "across pods");
    described(&cluster, "pvc data", "Successfully provisioned volume pvc-");
    let bound = cluster.get("pvc data");
    assert_eq!((&bound["status"]["phase"], &bound["status"]["capacity"]["storage"]), (&"Bound".into(), &"1Gi".into()));
    let name = bound["spec"]["volumeName"].as_str().unwrap().to_string();
    cluster.until(&format!("pv {name}"), "/status/phase", |v| *v == "Bound");
    cluster.ok("delete pod keeps");
    cluster.apply(&once("finds", "[cat, /data/kept]", "", uses));
    assert_eq!(said(&cluster, "finds"), "/data/kept: Ok(\"across pods\")\n");

    // While a pod names the claim, it stays; then the volume and the directory go too.
    cluster.ok("delete pvc data --wait=false");
    described(&cluster, "pvc data", "Terminating");
    assert!(directory.join("kept").exists());
    cluster.ok("delete pod finds");
    gone(&cluster, "pvc data");
    gone(&cluster, &format!("pv {name}"));
    assert!(!directory.exists());

    // One that a pod brings is as old as the pod.
    let template = "ephemeral: {volumeClaimTemplate: {spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}}}";
    cluster.apply(&once("brings", "[write, /data/x, text]", "", template));
    assert_eq!(said(&cluster, "brings"), "Ok(())\n");
    let directory = self::directory(&cluster, "brings-v");
    assert!(directory.join("x").exists());
    cluster.ok("delete pod brings");
    gone(&cluster, "pvc brings-v");
    wait_for("the directory to go", || {
        if directory.exists() { Err("it is there") } else { Ok(()) }.map_err(Into::into)
    });
}

#[test]
fn a_stateful_set_keeps_its_data_through_its_pods_deletion_and_a_restart_of_the_node() {
    let mut cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    cluster.apply(
        "apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec:
      containers:
      - name: main
        image: toolbox
        args: [sleep]
        volumeMounts: [{name: data, mountPath: /data}]
  volumeClaimTemplates:
  - metadata: {name: data}
    spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Mi}}}
",
    );
    cluster.ok("rollout status sts/db --timeout=120s");
    for n in 0..2 {
        assert_eq!(cluster.ok(&format!("exec db-{n} -- toolbox write /data/note of-{n}")), "Ok(())\n");
    }
    let keeps = |cluster: &Cluster| {
        for n in 0..2 {
            let read = wait_for("the note", || {
                let ran = cluster.k(&format!("exec db-{n} -- toolbox cat /data/note"));
                if ran.ok { Ok(ran.out) } else { Err(ran.err) }
            });
            assert_eq!(read, format!("/data/note: Ok(\"of-{n}\")\n"));
        }
    };
    let before = cluster.get("pod db-0")["metadata"]["uid"].clone();
    cluster.ok("delete pod db-0");
    cluster.until("pod db-0", "/metadata/uid", |uid| uid.is_string() && *uid != before);
    cluster.until("pod db-0", "/status/containerStatuses/0/ready", |v| *v == true);
    keeps(&cluster);

    let before = cluster.get("pod db-1")["metadata"]["uid"].clone();
    assert!(cluster.terminate(), "SIGTERM must exit 0; log:\n{}", cluster.log());
    cluster.boot();
    cluster.until("pod db-1", "/status/containerStatuses/0/restartCount", |v| v.as_i64() >= Some(1));
    cluster.until("pod db-1", "/status/containerStatuses/0/ready", |v| *v == true);
    assert_eq!(cluster.get("pod db-1")["metadata"]["uid"], before);
    keeps(&cluster);

    // The set goes, its claims stay, and with them what they hold.
    let kept = directory(&cluster, "data-db-0");
    cluster.ok("delete sts db");
    gone(&cluster, "pod db-0");
    assert_eq!(std::fs::read_to_string(kept.join("note")).unwrap(), "of-0");
    cluster.ok("delete pvc data-db-0");
    wait_for("the directory to go", || if kept.exists() { Err(format!("{}", kept.display())) } else { Ok(()) });
    assert!(directory(&cluster, "data-db-1").join("note").exists());
}

#[test]
fn a_claim_says_why_it_is_not_bound_and_is_when_it_can_be() {
    let cluster = Cluster::start();
    cluster.apply(&claim("lacks", ", storageClassName: none"));
    described(&cluster, "pvc lacks", "storageclass.storage.k8s.io \"none\" not found");
    cluster.apply(&claim("names", ", storageClassName: '', volumeName: big"));
    described(&cluster, "pvc names", "volume \"big\" not found");
    cluster.apply(&claim("waits", ", storageClassName: ''"));
    let words = "no persistent volumes available for this claim and no storage class is set";
    described(&cluster, "pvc waits", words);

    let volume = |name: &str, size: &str, policy: &str| {
        cluster.apply(&format!(
            "apiVersion: v1\nkind: PersistentVolume\nmetadata: {{name: {name}}}\nspec: {{capacity: {{storage: {size}}}, accessModes: [ReadWriteOnce], persistentVolumeReclaimPolicy: {policy}, hostPath: {{path: /nowhere}}}}\n"
        ));
    };
    volume("small", "1Mi", "Retain");
    cluster.until("pv small", "/status/phase", |v| *v == "Available");
    assert_eq!(cluster.get("pvc waits")["status"]["phase"], "Pending");
    volume("fits", "2Gi", "Recycle");
    cluster.until("pvc waits", "/status/phase", |v| *v == "Bound");
    cluster.until("pv fits", "/status/phase", |v| *v == "Bound");
    let table = cluster.ok("get pvc waits");
    assert!(table.contains("fits") && table.contains("2Gi") && table.contains("RWO"), "{table}");
    volume("big", "9Gi", "Retain");
    cluster.until("pvc names", "/spec/volumeName", |v| *v == "big");
    cluster.until("pvc names", "/status/phase", |v| *v == "Bound");
    cluster.until("pv big", "/status/phase", |v| *v == "Bound");

    // A bound volume stays while it is bound; what its policy says happens then.
    cluster.ok("delete pv big --wait=false");
    described(&cluster, "pv big", "Terminating");
    cluster.ok("delete pvc names");
    gone(&cluster, "pv big");
    cluster.ok("delete pvc waits");
    cluster.until("pv fits", "/status/phase", |v| *v == "Failed");
    described(&cluster, "pv fits", "No recycler plugin found for the volume!");

    // A class that comes later makes do.
    cluster.apply(
        "apiVersion: storage.k8s.io/v1\nkind: StorageClass\nmetadata: {name: none}\nprovisioner: example.com/disks\n",
    );
    described(
        &cluster,
        "pvc lacks",
        "Waiting for a volume to be created either by the external provisioner 'example.com/disks'",
    );
}

#[test]
fn a_claim_says_which_pod_it_waits_for_and_that_no_disk_is_large_enough() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    cluster.apply(&claim("data", ""));
    described(&cluster, "pvc data", "waiting for first consumer to be created before binding");
    let uses = "persistentVolumeClaim: {claimName: data}";
    let nowhere = once("nowhere", "[sleep]", "", uses).replace("spec:\n", "spec:\n  nodeSelector: {disk: ssd}\n");
    cluster.apply(&nowhere);
    described(&cluster, "pvc data", "WaitForPodScheduled");
    described(&cluster, "pvc data", "waiting for pod nowhere to be scheduled");
    cluster.ok("label node node-1 disk=ssd");
    cluster.until("pvc data", "/status/phase", |v| *v == "Bound");

    cluster.apply(&claim("huge", "").replace("1Gi", "1024Pi"));
    let words = "failed to provision volume with StorageClass \"local-path\": it asks for 1Ei, and the largest disk of any node has ";
    described(&cluster, "pvc huge", words);
    cluster.apply(&once("wants", "[sleep]", "", "persistentVolumeClaim: {claimName: huge}"));
    described(&cluster, "pod wants", "0/1 nodes are available: 1 node(s) did not have enough free storage.");
    assert_eq!(cluster.get("pvc huge")["status"]["phase"], "Pending");
}

#[test]
fn directories_of_volumes_that_went_while_their_node_was_away_go_when_it_is_back() {
    let cluster = Cluster::start();
    cluster.push("toolbox", "toolbox");
    let mut other = FurtherNode::join(&cluster, "node-2", "10.100.0.0/20");
    let place = other.data_dir.join("volumes");
    for name in ["goes", "stays", "lives"] {
        cluster.apply(&claim(name, ""));
        let uses = format!("persistentVolumeClaim: {{claimName: {name}}}");
        let there = once(name, "[write, /data/kept, text]", "", &uses);
        cluster.apply(&there.replace("spec:\n", "spec:\n  nodeSelector: {kubernetes.io/hostname: node-2}\n"));
    }
    let volumes: Vec<String> = ["goes", "stays", "lives"]
        .map(|name| {
            cluster.until(&format!("pod {name}"), "/status/phase", |v| *v == "Succeeded");
            cluster.get(&format!("pvc {name}"))["spec"]["volumeName"].as_str().unwrap().to_string()
        })
        .into();
    let [goes, stays, lives] = [0, 1, 2].map(|n| place.join(&volumes[n]).join("kept"));
    // Somebody's own, and one that is to be kept.
    std::fs::create_dir(place.join("own")).unwrap();
    cluster.ok(&format!("patch pv {} -p {{\"spec\":{{\"persistentVolumeReclaimPolicy\":\"Retain\"}}}}", volumes[1]));
    wait_for("the marks", || {
        let marked = |n: usize| place.join(".marks").join(&volumes[n]).exists();
        if marked(0) && !marked(1) && marked(2) { Ok(()) } else { Err("other marks".into()) }
    });

    other.stop();
    cluster.ok("delete node node-2");
    for name in ["goes", "stays"] {
        cluster.ok(&format!("delete pod {name} --force --grace-period=0 --ignore-not-found"));
        cluster.ok(&format!("delete pvc {name}"));
    }
    cluster.ok(&format!("delete pv {}", volumes[1]));
    gone(&cluster, &format!("pv {}", volumes[0]));
    gone(&cluster, &format!("pv {}", volumes[1]));
    assert!(goes.exists() && stays.exists() && lives.exists());
    other.start();
    wait_for("the directory to go", || if goes.exists() { Err("it is there".into()) } else { Ok(()) });
    assert!(!goes.parent().unwrap().exists());
    assert!(stays.exists() && lives.exists() && place.join("own").exists());
}
