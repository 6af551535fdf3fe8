//! Label and field selectors of lists and watches, matched on the index: no object is decoded.

use std::collections::BTreeMap;

use copepod_api::{ApiError, FieldSelector, LabelSelector};
use copepod_core::resource::Resource;
use copepod_store::Record;

use super::object;
use super::request::{Query, Request};

/// Which objects a list or watch wants.
#[derive(Debug, Clone)]
pub(crate) struct Selector {
    labels: LabelSelector,
    fields: FieldSelector,
}

impl Selector {
    /// From `labelSelector` and `fieldSelector`; fields that the kind does not index are refused.
    pub fn of(resource: &Resource, query: &Query) -> Result<Self, ApiError> {
        let text = |name: &str| query.get(name).unwrap_or_default();
        let parsed = Self {
            labels: LabelSelector::parse(text("labelSelector")).map_err(ApiError::bad_request)?,
            fields: FieldSelector::parse(text("fieldSelector")).map_err(ApiError::bad_request)?,
        };
        let known = resource.strategy.field_names();
        for r in parsed.fields.requirements() {
            let generic = r.path == "metadata.name" || (r.path == "metadata.namespace" && resource.namespaced());
            if !generic && !known.contains(&r.path.as_str()) {
                return Err(ApiError::bad_request(match known {
                    [] => format!(
                        "{:?} is not a known field selector: only \"metadata.name\", \"metadata.namespace\"",
                        r.path
                    ),
                    _ => format!("field label not supported: {}", r.path),
                }));
            }
        }
        Ok(parsed)
    }

    /// Whether every object is wanted.
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }
    /// The only name that can match, if the selector says one.
    pub fn name(&self) -> Option<&str> {
        self.fields.exact("metadata.name")
    }
    /// The only namespace that can match, if the selector says one.
    pub fn namespace(&self) -> Option<&str> {
        self.fields.exact("metadata.namespace")
    }
    /// Whether a record is wanted.
    pub fn takes(&self, request: &Request, record: &Record) -> bool {
        self.labels.matches(&record.attrs.labels) && self.takes_fields(request, record)
    }

    fn takes_fields(&self, request: &Request, record: &Record) -> bool {
        if self.fields.is_empty() {
            return true;
        }
        let mut parts = record.key.rsplit('/');
        let (name, namespace) = (parts.next(), parts.next().filter(|_| request.resource.namespaced()));
        if request.resource.storage.is_none() {
            return self.fields.matches(|path| field(&record.attrs.fields, name, namespace, path));
        }
        // The index has the storage resource's fields, not the view's.
        let Ok(object) = object::decode(request, record) else { return false };
        let fields = object::selectable(&request.resource, &object);
        self.fields.matches(|path| field(&fields, name, namespace, path))
    }
}

/// What a field selector compares: the key says name and namespace, the index the others.
fn field<'a>(
    fields: &'a BTreeMap<String, String>,
    name: Option<&'a str>,
    namespace: Option<&'a str>,
    path: &str,
) -> Option<&'a str> {
    match path {
        "metadata.name" => name,
        "metadata.namespace" => namespace,
        _ => fields.get(path).map(String::as_str),
    }
}
