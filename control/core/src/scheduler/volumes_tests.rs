use super::*;
use crate::controllers::testing::yaml;
use k8s_openapi::api::core::v1::Node;

fn node(name: &str) -> NodeInfo {
    let node: Node = yaml(&format!("metadata: {{name: {name}, labels: {{zone: {name}}}}}"));
    NodeInfo { name: name.into(), node: Some(Arc::new(node)), ..NodeInfo::default() }
}

/// A volume of 0 to 3 GiB, of one of two classes, reached from one of two nodes or both, kept for one of two claims or
/// nobody: all of it from a number.
fn volume(number: usize) -> Arc<PersistentVolume> {
    let (size, class) = (number % 4, ["fast", "slow"][number / 4 % 2]);
    let zone = ["a", "b", ""][number / 8 % 3];
    let keeper = ["", "c1", "c2"][number / 24 % 3];
    let affinity = match zone {
        "" => String::new(),
        zone => format!(
            ", nodeAffinity: {{required: {{nodeSelectorTerms: [{{matchExpressions: [{{key: zone, operator: In, values: [{zone}]}}]}}]}}}}"
        ),
    };
    let keeper = match keeper {
        "" => String::new(),
        keeper => format!(", claimRef: {{namespace: shop, name: {keeper}}}"),
    };
    let spec = format!("accessModes: [ReadWriteOnce], capacity: {{storage: {size}Gi}}, storageClassName: {class}");
    Arc::new(yaml(&format!("metadata: {{name: v{number:02}}}\nspec: {{{spec}{affinity}{keeper}}}")))
}

fn claim(name: &str, class: &str, size: usize) -> PersistentVolumeClaim {
    yaml(&format!(
        "metadata: {{name: {name}, namespace: shop, uid: {name}}}\nspec: {{accessModes: [ReadWriteOnce], \
         storageClassName: {class}, resources: {{requests: {{storage: {size}Gi}}}}}}"
    ))
}

#[test]
fn what_is_found_is_what_a_walk_over_all_volumes_finds() {
    let mut volumes = Volumes::default();
    let mut all: Vec<Arc<PersistentVolume>> = (0..72).map(volume).collect();
    for volume in &all {
        volumes.set_volume(meta::text(&volume.metadata.name), Some(volume.clone()));
    }
    let step = |volume: &str, claim: &str| ClaimStep::Reserve {
        claim: claim.into(),
        volume: volume.into(),
        uid: None,
        revision: None,
    };
    // Reservations: one stays, one was taken back, one is seen to be another's, one went with its volume.
    let reserved = [step("v17", "c1"), step("v02", "c2"), step("v01", "c1"), step("v18", "c1")];
    volumes.reserve("shop", &reserved);
    volumes.release("shop", &reserved[1..2]);
    volumes.set_volume("v01", Some(all[1].clone()));
    volumes.set_volume("v18", None);
    all.remove(18);
    let mut found = 0;
    for (name, class, size) in ["c1", "c2", "c3"]
        .iter()
        .flat_map(|n| ["fast", "slow"].map(|c| (*n, c)))
        .flat_map(|(name, class)| (0..5).map(move |size| (name, class, size)))
    {
        let claim = claim(name, class, size);
        for node in [node("a"), node("b"), node("c")] {
            for taken in [vec![], vec!["v01".to_string(), "v19".into(), "v25".into()]] {
                let keeps = |v: &PersistentVolume| {
                    v.spec.as_ref().unwrap().claim_ref.is_some()
                        || (name == "c1" && v.metadata.name.as_deref() == Some("v17"))
                };
                let fitting = all.iter().filter(|v| {
                    let volume = v.metadata.name.clone().unwrap();
                    !taken.contains(&volume)
                        && (volume != "v17" || name == "c1")
                        && may_hold(v, &claim)
                        && reaches(v, &node)
                });
                let walked = fitting.min_by_key(|v| (!keeps(v), capacity(v), v.metadata.name.clone()));
                let looked_up = volumes.find(&claim, &node, &taken);
                assert_eq!(
                    looked_up.and_then(|v| v.metadata.name.clone()),
                    walked.and_then(|v| v.metadata.name.clone()),
                    "{name} {class} {size} {} {taken:?}",
                    node.name
                );
                found += usize::from(walked.is_some());
            }
        }
    }
    assert!(found > 60, "{found}");
    for number in 0..72 {
        volumes.set_volume(&format!("v{number:02}"), None);
    }
    assert!(volumes.kept.is_empty() && volumes.free.is_empty() && volumes.reserved.is_empty());
}
