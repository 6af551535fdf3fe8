//! What every active namespace has: the `default` ServiceAccount and the cluster's CA in `kube-root-ca.crt`.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Namespace;
use serde_json::json;

use super::meta::{self, text};
use super::{Action, Target};

/// The ConfigMap with the cluster's CA.
pub const ROOT_CA: &str = "kube-root-ca.crt";
/// The key in it.
pub const ROOT_CA_KEY: &str = "ca.crt";

fn active(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_none()
}

/// Creates the `default` ServiceAccount if it is not there.
pub fn default_account(namespace: &Namespace, exists: bool) -> Option<Action> {
    (active(namespace) && !exists).then(|| Action::Create {
        target: Target::new(meta::v1("", "serviceaccounts"), text(&namespace.metadata.name), "default"),
        object: json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default"}}),
    })
}

/// Creates or restores the CA's ConfigMap. `current` is its data, if it is there.
pub fn root_ca(namespace: &Namespace, current: Option<&BTreeMap<String, String>>, ca_pem: &str) -> Option<Action> {
    if !active(namespace) {
        return None;
    }
    let target = Target::new(meta::v1("", "configmaps"), text(&namespace.metadata.name), ROOT_CA);
    let data = json!({ROOT_CA_KEY: ca_pem});
    match current {
        None => {
            let about = "Contains a CA bundle that can be used to verify the kube-apiserver when using internal \
                         endpoints such as the internal service IP or kubernetes.default.svc.";
            let object = json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": ROOT_CA, "annotations": {"kubernetes.io/description": about}},
                "data": data,
            });
            Some(Action::Create { target, object })
        }
        Some(current) => {
            let change = copepod_api::merge::diff(&json!(current), &data)?;
            Some(Action::Patch { target, subresource: "", patch: json!({"data": change}) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::yaml;
    use super::*;

    #[test]
    fn created_restored_and_left_alone() {
        let live: Namespace = yaml("metadata: {name: shop}");
        let going: Namespace = yaml("metadata: {name: shop, deletionTimestamp: '2026-01-01T00:00:00Z'}");
        let data = |ca: &str| BTreeMap::from([(ROOT_CA_KEY.to_string(), ca.to_string())]);
        assert!(matches!(default_account(&live, false), Some(Action::Create { .. })));
        assert_eq!((default_account(&live, true), default_account(&going, false)), (None, None));
        assert!(matches!(root_ca(&live, None, "CA"), Some(Action::Create { .. })));
        assert!(matches!(root_ca(&live, Some(&data("forged")), "CA"), Some(Action::Patch { .. })));
        assert_eq!((root_ca(&live, Some(&data("CA")), "CA"), root_ca(&going, None, "CA")), (None, None));
    }
}
