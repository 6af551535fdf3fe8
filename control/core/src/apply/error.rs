//! Why an apply was refused.

use copepod_api::{ApiError, FieldError};
use serde_json::json;

use super::MAX_APPLIERS;
use super::element::Element;
use super::managers::Manager;
use super::set::FieldSet;
use super::walk::WalkError;

/// A field that somebody else owns with another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Who owns it.
    pub manager: Manager,
    /// Which field, such as `.spec.replicas`.
    pub path: String,
    pub(super) fields: Vec<Element>,
}

impl Conflict {
    /// What a manager would lose.
    pub(super) fn all(manager: &Manager, owned: &FieldSet, changed: &FieldSet) -> Vec<Self> {
        let lost = owned.intersection(changed).paths();
        lost.into_iter()
            .map(|fields| Self {
                manager: manager.clone(),
                path: fields.iter().map(ToString::to_string).collect(),
                fields,
            })
            .collect()
    }
}

/// Why an apply was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// Others own fields that the configuration sets otherwise: 409.
    #[error("{}", message(.0))]
    Conflicts(Vec<Conflict>),
    /// The object's managedFields cannot be read: 500.
    #[error("failed to decode managed fields: {0}")]
    Managers(String),
    /// A list in the object has items that cannot be told apart: 500.
    #[error("failed to merge config: {0}")]
    Merge(#[from] WalkError),
    /// One applier more than an object may have: 422.
    #[error("metadata.managedFields: Too many: must have at most {MAX_APPLIERS} managers that apply")]
    TooManyAppliers,
}

impl ApplyError {
    /// The error as the API reports it. Group, kind and name are the object's.
    pub fn api_error(&self, group: &str, kind: &str, name: &str) -> ApiError {
        match self {
            Self::Conflicts(conflicts) => {
                let causes: Vec<_> = conflicts
                    .iter()
                    .map(|c| {
                        let message = format!("conflict with {}", c.manager);
                        json!({"reason": "FieldManagerConflict", "message": message, "field": c.path})
                    })
                    .collect();
                let mut e = ApiError::new(409, "Conflict", self.to_string());
                e.details = Some(json!({"causes": causes}));
                e
            }
            Self::TooManyAppliers => {
                let why = format!("Too many: must have at most {MAX_APPLIERS} managers that apply");
                let field = "metadata.managedFields".into();
                let e = FieldError { field, reason: "FieldValueTooMany", message: why };
                ApiError::invalid(group, kind, name, &[e])
            }
            Self::Managers(_) | Self::Merge(_) => ApiError::internal(self),
        }
    }
}

/// Upstream's message: one line for one conflict, else a list by manager.
fn message(conflicts: &[Conflict]) -> String {
    if let [one] = conflicts {
        return format!("Apply failed with 1 conflict: conflict with {}: {}", one.manager, one.path);
    }
    let mut managers: Vec<&Manager> = Vec::new();
    for conflict in conflicts {
        if !managers.contains(&&conflict.manager) {
            managers.push(&conflict.manager);
        }
    }
    managers.sort_by(|a, b| a.sort_key().cmp(&b.sort_key()));
    let mut lines = Vec::new();
    for manager in managers {
        lines.push(format!("conflicts with {manager}:"));
        lines.extend(conflicts.iter().filter(|c| c.manager == *manager).map(|c| format!("- {}", c.path)));
    }
    format!("Apply failed with {} conflicts: {}", conflicts.len(), lines.join("\n"))
}
