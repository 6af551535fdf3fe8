//! Get and list: stored bytes are copied into the response, never decoded unless a transformation asks for it.

use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use bytes::BytesMut;
use copepod_api::{ApiError, FieldError};
use copepod_store::{ListOptions, Record, StoreError};
use serde_json::{Value, json};

use super::accept::Shape;
use super::error::{self, invalid_options};
use super::object;
use super::present::{self, Outcome};
use super::request::Request;
use super::selector::Selector;

/// How many records are examined at a time when a selector thins out a limited list.
const SCAN_CHUNK: usize = 1000;

/// GET of one object, at least as new as `resourceVersion`.
pub(crate) fn get(request: &Request) -> Result<Response, ApiError> {
    let store = &request.state.store;
    if let Some(asked) = request.query.revision("resourceVersion")? {
        let current = store.current_revision();
        if asked > current {
            return Err(error::too_large(asked, current));
        }
    }
    let record = store
        .get(&request.key(request.name()))
        .ok_or_else(|| ApiError::not_found(&request.group_resource(), request.name()))?;
    present::object(request, 200, &Outcome::Stored(record))
}

/// GET of a collection.
pub(crate) fn list(request: &Request) -> Result<Response, ApiError> {
    let selector = Selector::of(&request.resource, &request.query)?;
    if request.query.has("sendInitialEvents") {
        let e = FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list");
        return Err(invalid_options("ListOptions", e));
    }
    request.query.integer("timeoutSeconds")?;
    let page = list_page(request, &selector)?;
    present::list(request, &page)
}

/// One page of selected records.
pub(crate) struct ListPage {
    pub records: Vec<Record>,
    pub revision: u64,
    /// The token that continues the list.
    pub cont: Option<String>,
    /// How many objects follow, if that is known.
    pub remaining: Option<u64>,
}

impl ListPage {
    /// The envelope up to the items.
    pub fn head(&self, kind: &str, api_version: &str) -> String {
        let meta = self.metadata();
        format!("{{\"kind\":{},\"apiVersion\":{},\"metadata\":{meta},\"items\":[", json!(kind), json!(api_version))
    }
    /// `metav1.ListMeta`.
    pub fn metadata(&self) -> Value {
        let mut meta = json!({"resourceVersion": self.revision.to_string()});
        let fields = object::as_map(&mut meta);
        if let Some(token) = &self.cont {
            fields.insert("continue".into(), json!(token));
        }
        if let Some(remaining) = self.remaining.filter(|_| self.cont.is_some()) {
            fields.insert("remainingItemCount".into(), json!(remaining));
        }
        meta
    }
    /// The whole list in JSON, of objects or of their metadata.
    pub fn bytes(&self, request: &Request) -> Result<BytesMut, ApiError> {
        let partial = match &request.accept.shape {
            Shape::Metadata(version) => Some(version.as_str()),
            _ => None,
        };
        let gvk = request.resource.gvk();
        let (kind, api_version) = match partial {
            None => (format!("{}List", gvk.kind), gvk.api_version()),
            Some(version) => ("PartialObjectMetadataList".into(), format!("meta.k8s.io/{version}")),
        };
        let size: usize = self.records.iter().map(|r| r.value.len() + 48).sum();
        let mut out = BytesMut::with_capacity(size + 256);
        out.extend_from_slice(self.head(&kind, &api_version).as_bytes());
        for (i, record) in self.records.iter().enumerate() {
            if i > 0 {
                out.extend_from_slice(b",");
            }
            match partial {
                None => object::served_into(request, record, &mut out)?,
                Some(version) => object::metadata_into(request, version, record, &mut out)?,
            }
        }
        out.extend_from_slice(b"]}");
        Ok(out)
    }
}

/// Reads the page that the query asks for.
pub(crate) fn list_page(request: &Request, selector: &Selector) -> Result<ListPage, ApiError> {
    let store = &request.state.store;
    let namespace = request.namespace().or_else(|| selector.namespace());
    let prefix = object::prefix(&request.resource, namespace);
    let limit = usize::try_from(request.query.integer("limit")?.unwrap_or(0).max(0)).unwrap_or(0);
    let (mut options, token) = start(request, &prefix, limit)?;
    let failed = |e: StoreError| match e {
        StoreError::Compacted { .. } if token => expired_token(&options_after(request), &prefix),
        StoreError::Compacted { .. } => ApiError::expired("The resourceVersion for the provided list is too old."),
        other => error::from_store(other, &request.group_resource(), ""),
    };
    if let (Some(name), None, false) = (selector.name(), options.at_revision, token)
        && (namespace.is_some() || !request.resource.namespaced())
    {
        let revision = store.current_revision();
        let found = store.get(&format!("{prefix}{name}")).filter(|r| selector.takes(request, r));
        let revision = found.as_ref().map_or(revision, |r| r.revision.max(revision));
        return Ok(ListPage { records: found.into_iter().collect(), revision, cont: None, remaining: None });
    }
    if selector.is_empty() {
        options.limit = limit;
        let page = store.list(&prefix, &options).map_err(failed)?;
        let cont =
            if page.more { page.records.last().map(|r| encode_token(page.revision, &prefix, &r.key)) } else { None };
        return Ok(ListPage { records: page.records, revision: page.revision, cont, remaining: Some(page.remaining) });
    }
    let mut records: Vec<Record> = Vec::new();
    options.limit = if limit == 0 { 0 } else { SCAN_CHUNK.max(limit) };
    loop {
        let page = store.list(&prefix, &options).map_err(failed)?;
        options.at_revision = Some(page.revision);
        options.after = page.records.last().map(|r| r.key.to_string());
        for record in page.records {
            if !selector.takes(request, &record) {
                continue;
            }
            if limit > 0 && records.len() == limit {
                // One more matches: the list goes on after the last one taken.
                let cont = records.last().map(|r| encode_token(page.revision, &prefix, &r.key));
                return Ok(ListPage { records, revision: page.revision, cont, remaining: None });
            }
            records.push(record);
        }
        if !page.more {
            return Ok(ListPage { records, revision: page.revision, cont: None, remaining: None });
        }
    }
}

/// Where a list starts: from its token, or at the revision that the query asks for. Says whether there was a token.
fn start(request: &Request, prefix: &str, limit: usize) -> Result<(ListOptions, bool), ApiError> {
    let query = &request.query;
    let (asked, matching) = (query.revision("resourceVersion")?, query.get("resourceVersionMatch"));
    let invalid = |e| Err(invalid_options("ListOptions", e));
    let forbidden = |why: &str| invalid(FieldError::forbidden("resourceVersionMatch", why));
    if let Some(m) = matching {
        if asked.is_none() {
            return forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if query.get("continue").is_some() {
            return forbidden("resourceVersionMatch is forbidden when continue is provided");
        }
        if m != "Exact" && m != "NotOlderThan" {
            let e = FieldError::not_supported("resourceVersionMatch", &json!(m), &["Exact", "NotOlderThan", ""]);
            return invalid(e);
        }
        if m == "Exact" && asked == Some(0) {
            return forbidden("resourceVersionMatch \"Exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    if let Some(token) = query.get("continue") {
        if asked.is_some_and(|rv| rv != 0) {
            return Err(ApiError::bad_request("specifying resource version is not allowed when using continue"));
        }
        let (revision, start) = decode_token(token)?;
        let after = Some(format!("{prefix}{start}"));
        return Ok((ListOptions { limit, after, at_revision: revision }, true));
    }
    let exact = match (asked, matching) {
        (Some(rv), Some("Exact")) => Some(rv),
        (Some(rv), None) if rv > 0 && limit > 0 => Some(rv),
        _ => None,
    };
    let current = request.state.store.current_revision();
    match asked {
        Some(rv) if rv > current => Err(error::too_large(rv, current)),
        _ => Ok((ListOptions { limit, after: None, at_revision: exact }, false)),
    }
}

fn options_after(request: &Request) -> String {
    let token = request.query.get("continue").unwrap_or_default();
    decode_token(token).map(|(_, start)| start).unwrap_or_default()
}

/// 410 of a token whose revision is compacted, with a token that goes on at the present revision
/// ([`error::response`] puts it into the Status's metadata).
fn expired_token(start: &str, prefix: &str) -> ApiError {
    let mut e = ApiError::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list without \
         the continue parameter, or use the continue token in this response to retrieve the remainder of the results. \
         Continuing with the provided token results in an inconsistent list - objects that were created, modified, or \
         deleted between the time the first chunk was returned and now may show up in the list.",
    );
    let key = format!("{prefix}{start}");
    e.details = Some(json!({ "continue": write_token(-1, prefix, &key) }));
    e
}

fn encode_token(revision: u64, prefix: &str, key: &str) -> String {
    write_token(i64::try_from(revision).unwrap_or(-1), prefix, key)
}

fn write_token(revision: i64, prefix: &str, key: &str) -> String {
    let start = key.strip_prefix(prefix).unwrap_or(key);
    BASE64_URL_SAFE_NO_PAD.encode(json!({"v": "meta.k8s.io/v1", "rv": revision, "start": start}).to_string())
}

/// The revision (`None`: the present one) and the key after which a list goes on.
fn decode_token(token: &str) -> Result<(Option<u64>, String), ApiError> {
    let bad = |why: &str| ApiError::bad_request(format!("continue key is not valid: {why}"));
    let raw = BASE64_URL_SAFE_NO_PAD.decode(token).map_err(|e| bad(&e.to_string()))?;
    let value: Value = serde_json::from_slice(&raw).map_err(|e| bad(&e.to_string()))?;
    if value.get("v").and_then(Value::as_str) != Some("meta.k8s.io/v1") {
        return Err(bad("server does not recognize this encoded version"));
    }
    let start = value.get("start").and_then(Value::as_str).filter(|s| !s.is_empty());
    let start = start.ok_or_else(|| bad("encoded start key empty (version meta.k8s.io/v1)"))?;
    if start.split('/').any(|part| part == "." || part == "..") {
        return Err(bad("encoded start key is not a key"));
    }
    match value.get("rv").and_then(Value::as_i64) {
        Some(rv) if rv > 0 => Ok((u64::try_from(rv).ok(), start.into())),
        Some(-1) => Ok((None, start.into())),
        _ => Err(bad("incorrect encoded start resourceVersion (version meta.k8s.io/v1)")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens() {
        let token = encode_token(7, "/core/pods/", "/core/pods/a/b");
        assert_eq!(decode_token(&token).unwrap(), (Some(7), "a/b".to_string()));
        assert_eq!(decode_token(&write_token(-1, "/p/", "/p/x")).unwrap(), (None, "x".to_string()));
        for bad in
            ["", "%%%", "e30", &BASE64_URL_SAFE_NO_PAD.encode("{\"v\":\"meta.k8s.io/v1\",\"rv\":1,\"start\":\"../x\"}")]
        {
            assert_eq!(decode_token(bad).unwrap_err().code, 400, "{bad}");
        }
    }
}
