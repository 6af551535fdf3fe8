//! Which claims may grow: bound ones, if the class that made their volume says that it can.
//! Source: <https://kubernetes.io/docs/concepts/storage/persistent-volumes/#expanding-persistent-volumes-claims>.

use copepod_api::Quantity;
use serde_json::Value;

use super::classes::claim_class;
use crate::kinds::value::text;

/// The class that must be asked ([`refusal`]) whether a changed claim may grow; `None` if it does not grow, `Some("")`
/// if it has no class.
pub fn asks<'a>(claim: &'a Value, old: &Value) -> Option<&'a str> {
    (size(claim)? > size(old)?).then(|| claim_class(claim).unwrap_or_default())
}

/// Why a claim may not grow. `class` is the one that it names, if that is there.
pub fn refusal(claim: &Value, old: &Value, class: Option<&Value>) -> Option<&'static str> {
    let expands = |class: &Value| class.get("allowVolumeExpansion") == Some(&Value::Bool(true));
    if text(old, "/status/phase") != "Bound" {
        Some("Only bound persistent volume claims can be expanded")
    } else if claim_class(claim) != claim_class(old) || !class.is_some_and(expands) {
        Some(
            "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must \
             support resize",
        )
    } else {
        None
    }
}

fn size(claim: &Value) -> Option<Quantity> {
    Quantity::parse(claim.pointer("/spec/resources/requests/storage")?.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_grow_where_their_class_can() {
        let claim = |size: &str, class: Value, phase: &str| {
            json!({
                "spec": {"storageClassName": class, "resources": {"requests": {"storage": size}}},
                "status": {"phase": phase},
            })
        };
        let (bound, never) = ("Only bound persistent volume claims can be expanded", "only dynamically provisioned");
        // (old size, its class, its phase, new size, whether the class can, how the refusal begins)
        let cases = [
            ("1Gi", json!("fast"), "Bound", "2Gi", Some(true), ""),
            ("1Gi", json!("fast"), "Bound", "2Gi", Some(false), never),
            ("1Gi", json!("fast"), "Bound", "2Gi", None, never),
            ("1Gi", Value::Null, "Bound", "2Gi", None, never),
            ("1Gi", json!("fast"), "Pending", "2Gi", Some(true), bound),
            ("1Gi", json!("fast"), "Pending", "1024Mi", None, ""),
            ("2Gi", json!("fast"), "Bound", "1Gi", None, ""),
        ];
        for (before, class, phase, after, can, refused) in cases {
            let (old, new) = (claim(before, class.clone(), phase), claim(after, class.clone(), phase));
            let about = format!("{before} {class} {phase} {after} {can:?}");
            let class = can.map(|can| json!({"allowVolumeExpansion": can}));
            let why = asks(&new, &old).and_then(|_| refusal(&new, &old, class.as_ref()));
            assert_eq!(why.is_some(), !refused.is_empty(), "{about}: {why:?}");
            assert!(why.unwrap_or_default().starts_with(refused), "{about}: {why:?}");
        }
    }
}
