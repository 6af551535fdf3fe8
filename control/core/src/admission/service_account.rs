//! What a ServiceAccount gives its pods, and which Secrets it keeps them from.
//! Source: <https://kubernetes.io/docs/reference/access-authn-authz/service-accounts-admin/>.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::kinds::value::{child, list, set, text};

/// The account of pods that name none.
pub const DEFAULT: &str = "default";
/// Makes an account's pods use only the Secrets that it lists.
const ENFORCE: &str = "kubernetes.io/enforce-mountable-secrets";

/// Names the account that a new pod runs under, by the present field and the old one.
pub fn name(pod: &mut Value) -> String {
    let given = |field: &str| Some(text(pod, field)).filter(|name| !name.is_empty());
    let account = given("/spec/serviceAccountName").or_else(|| given("/spec/serviceAccount"));
    let account = account.unwrap_or(DEFAULT).to_string();
    if let Some(spec) = child(pod, "spec") {
        set(spec, "serviceAccountName", account.clone());
        set(spec, "serviceAccount", account.clone());
    }
    account
}

/// Gives a new pod its account's pull secrets.
///
/// # Errors
/// The account allows its pods only its own Secrets, and the pod uses another.
pub fn apply(pod: &mut Value, account: &Value) -> Result<(), String> {
    let secrets = list(account, "/imagePullSecrets");
    if list(pod, "/spec/imagePullSecrets").is_empty()
        && !secrets.is_empty()
        && let Some(spec) = child(pod, "spec")
    {
        let named: Vec<Value> = secrets.iter().map(|s| json!({"name": text(s, "/name")})).collect();
        set(spec, "imagePullSecrets", named);
    }
    let enforced = account.pointer("/metadata/annotations").and_then(|a| a.get(ENFORCE)).and_then(Value::as_str);
    if enforced.is_some_and(|v| matches!(v, "1" | "t" | "T" | "true" | "TRUE" | "True")) {
        check_secrets(pod, account)?;
    }
    Ok(())
}

fn check_secrets(pod: &Value, account: &Value) -> Result<(), String> {
    let names = |field: &str| -> BTreeSet<&str> { list(account, field).iter().map(|s| text(s, "/name")).collect() };
    let (own, pull, account) = (names("/secrets"), names("/imagePullSecrets"), text(account, "/metadata/name"));
    let missing = |what: String, kind: &str| {
        format!("{what} is not allowed because service account {account} does not reference that {kind}")
    };
    for volume in list(pod, "/spec/volumes") {
        let name = text(volume, "/secret/secretName");
        if !name.is_empty() && !own.contains(name) {
            return Err(missing(format!("volume with secret.secretName={name:?}"), "secret"));
        }
    }
    for (field, kind) in [
        ("initContainers", "init container"),
        ("containers", "container"),
        ("ephemeralContainers", "ephemeral container"),
    ] {
        for container in list(pod, &format!("/spec/{field}")) {
            for env in list(container, "/env") {
                let secret = text(env, "/valueFrom/secretKeyRef/name");
                if !secret.is_empty() && !own.contains(secret) {
                    let (container, env) = (text(container, "/name"), text(env, "/name"));
                    let what = format!("{kind} {container} with envVar {env} referencing secret.secretName={secret:?}");
                    return Err(missing(what, "secret"));
                }
            }
        }
    }
    for (i, secret) in list(pod, "/spec/imagePullSecrets").iter().enumerate() {
        let name = text(secret, "/name");
        if !pull.contains(name) {
            return Err(missing(format!("imagePullSecrets[{i}].name={name:?}"), "imagePullSecret"));
        }
    }
    Ok(())
}
