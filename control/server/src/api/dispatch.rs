//! From an HTTP request to its handler: path, verb, bounds, panics, metrics.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use copepod_api::ApiError;
use copepod_core::kinds::resource_metrics::GROUP;
use copepod_core::resource::Resource;
use futures::FutureExt;
use http::{HeaderMap, Method, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use serde_json::Value;

use super::accept::{Accept, Format, Shape};
use super::metrics::RequestKey;
use super::path::{self, Path, Target};
use super::request::{Query, Request, Verb};
use super::update::Part;
use super::{
    ApiState, body, component_status, connect, create, delete, discovery, error, eviction, health, log, openapi, parts,
    patch, pod, present, read, resource_metrics, reviews, scale, subresources, update, watch,
};
use crate::identity::Identity;

/// The one axum handler.
pub(crate) async fn serve(
    State(state): State<Arc<ApiState>>,
    identity: Option<Extension<Identity>>,
    request: axum::extract::Request,
) -> Response {
    let identity = identity.map_or_else(Identity::anonymous, |Extension(i)| i);
    let started = Instant::now();
    let mut key = None;
    let user = identity.user.clone();
    let accept = request.headers().get(header::ACCEPT).cloned();
    let work = AssertUnwindSafe(route(&state, identity, request, &mut key)).catch_unwind();
    let response = match work.await {
        Ok(Ok(response)) => response,
        Ok(Err(e)) => error::response(&e, accept.as_ref()),
        Err(_) => {
            state.metrics.panics.fetch_add(1, Ordering::Relaxed);
            tracing::error!(request = ?key, "a request failed by a bug of the server; the panic is logged above");
            let e = ApiError::internal("this request failed by a bug of the server; see its log");
            error::response(&e, accept.as_ref())
        }
    };
    let code = response.status().as_u16();
    let key = key.unwrap_or_else(|| RequestKey {
        verb: "other",
        group: String::new(),
        version: String::new(),
        resource: String::new(),
        subresource: "",
    });
    tracing::debug!(user, verb = key.verb, resource = key.resource, subresource = key.subresource, code);
    let long = key.verb == Verb::Watch.name() || key.subresource == "log" || is_connection(key.subresource);
    state.metrics.record(key, code, (!long).then(|| started.elapsed()));
    response
}

async fn route(
    state: &Arc<ApiState>,
    identity: Identity,
    request: axum::extract::Request,
    key: &mut Option<RequestKey>,
) -> Result<Response, ApiError> {
    let (mut parts, body) = request.into_parts();
    let url = parts.uri.path().to_string();
    let query = Query::of(&parts.uri)?;
    if let "/healthz" | "/livez" | "/readyz" | "/healthz/ping" | "/livez/ping" | "/readyz/ping" = url.as_str() {
        return Ok(health::check(state, &url, query.flag("verbose")));
    }
    let is_read = matches!(parts.method, Method::GET | Method::HEAD);
    let Some(Path::Resource(target)) = path::parse(&url) else {
        if !is_read {
            return Err(ApiError::no_such_path());
        }
        if url.starts_with("/openapi/") {
            return openapi::serve(state, &url, &parts.headers).await;
        }
        return fixed(state, &url, &parts.headers);
    };
    let (mut target, mut query) = (target, query);
    let found = find(state, &target)?;
    if target.watch
        && let Some(name) = target.name.take()
    {
        query.select(&format!("metadata.name={name}"));
    }
    let verb = verb(&parts.method, &target, &query, &found)?;
    let sub = found.sub;
    *key = Some(RequestKey {
        verb: verb.name(),
        group: target.group.clone(),
        version: target.version.clone(),
        resource: found.resource.names.plural.clone(),
        subresource: sub,
    });
    let (state, resource) = (state.clone(), found.resource);
    let mut request = Request::new(state.clone(), identity, resource, target, verb, query, parts.headers)?;
    match verb {
        Verb::Watch => watch::watch(request),
        Verb::Get if sub == "log" => log::log(&request).await,
        _ if is_connection(sub) => connect::connect(&request, sub, parts.extensions.remove::<OnUpgrade>()).await,
        _ => {
            // The body comes first: a slow client holds memory within its bound, but no place.
            let mut received = None;
            if !matches!(verb, Verb::Get | Verb::List) {
                let body = body::read(&state, &request.identity.user, &request.headers, body).await?;
                request.body = received.insert(body).bytes.clone();
            }
            let _place = state.places(&request.identity).enter(&request.identity.user, 1).await?;
            let _count = Inflight::enter(&state);
            call(&request, sub).await
        }
    }
}

/// Whether a subresource connects a client to something, for as long as they like.
fn is_connection(sub: &str) -> bool {
    matches!(sub, "attach" | "exec" | "portforward" | "proxy")
}

/// Calls the handler of a verb on a resource or subresource.
async fn call(request: &Request, sub: &'static str) -> Result<Response, ApiError> {
    match (sub, request.verb) {
        ("", Verb::Get | Verb::List) if request.resource.names.group == GROUP => resource_metrics::serve(request).await,
        ("", Verb::Get | Verb::List) if !request.resource.is_stored() => component_status::serve(request),
        ("", Verb::Get) => read::get(request),
        ("", Verb::List) => read::list(request),
        ("", Verb::Create) if !request.resource.is_stored() => reviews::answer(request).await,
        ("", Verb::Create) => create::create(request).await,
        ("", Verb::Update) => update::replace(request, Part::Main).await,
        ("", Verb::Patch) => patch::patch(request, Part::Main).await,
        ("", Verb::Delete) => delete::delete(request).await,
        ("", Verb::DeleteCollection) => delete::delete_collection(request).await,
        ("status", Verb::Get) => read::get(request),
        ("status", Verb::Update) => update::replace(request, Part::Status).await,
        ("status", Verb::Patch) => patch::patch(request, Part::Status).await,
        ("scale", _) => match &request.resource.subresources.scale {
            Some(paths) => scale::serve(request, paths).await,
            None => Err(ApiError::no_such_path()),
        },
        ("binding", Verb::Create) => pod::bind(request).await,
        ("eviction", Verb::Create) => eviction::evict(request).await,
        ("approval" | "ephemeralcontainers" | "resize", _) => parts::serve(request, sub).await,
        ("finalize", _) => pod::finalize(request).await,
        (_, verb) => Err(ApiError::method_not_allowed(&request.group_resource(), verb.name())),
    }
}

/// A resource with the subresource that the URL names (`""`: none).
struct Found {
    resource: Arc<Resource>,
    sub: &'static str,
}

fn find(state: &ApiState, target: &Target) -> Result<Found, ApiError> {
    // `bindings` is no resource of its own: what is bound are pods.
    let bindings = target.group.is_empty() && target.resource == "bindings" && target.name.is_none();
    let plural = if bindings { "pods" } else { &target.resource };
    let resource =
        state.registry.find(&target.group, &target.version, plural).ok_or_else(ApiError::no_such_path)?.clone();
    let placed = match (resource.namespaced(), &target.namespace, &target.name) {
        (true, None, Some(_)) | (false, Some(_), _) => false,
        (true, None, None) => !bindings,
        _ => true,
    };
    if !placed {
        return Err(ApiError::no_such_path());
    }
    if bindings {
        return Ok(Found { resource, sub: "binding" });
    }
    let sub = match &target.subresource {
        None => "",
        Some(asked) => {
            let known = subresources::of(&resource).into_iter().find(|s| s.name == asked);
            known.ok_or_else(ApiError::no_such_path)?.name
        }
    };
    Ok(Found { resource, sub })
}

fn verb(method: &Method, target: &Target, query: &Query, found: &Found) -> Result<Verb, ApiError> {
    let collection = target.name.is_none();
    // All namespaces at once are for reading.
    let everywhere = collection && found.resource.namespaced() && target.namespace.is_none();
    let verb = match *method {
        Method::GET | Method::HEAD if collection && (target.watch || query.flag("watch")) => Verb::Watch,
        _ if target.watch => return Err(ApiError::no_such_path()),
        Method::GET | Method::HEAD if collection => Verb::List,
        Method::GET | Method::HEAD => Verb::Get,
        Method::POST if (collection && !everywhere) || !found.sub.is_empty() => Verb::Create,
        Method::PUT if !collection => Verb::Update,
        Method::PATCH if !collection => Verb::Patch,
        Method::DELETE if !collection && found.sub.is_empty() => Verb::Delete,
        Method::DELETE if collection && !everywhere => Verb::DeleteCollection,
        _ => return Err(not_allowed()),
    };
    if found.sub == "binding" && verb != Verb::Create {
        return Err(ApiError::method_not_allowed(&found.resource.group_resource(), verb.name()));
    }
    if found.sub.is_empty() && !found.resource.serves(verb.word()) {
        return Err(not_allowed());
    }
    Ok(verb)
}

/// 405 of a path that has no such method.
fn not_allowed() -> ApiError {
    let why = "the server does not allow this method on the requested resource";
    let mut e = ApiError::new(405, "MethodNotAllowed", why);
    e.details = Some(Value::Object(serde_json::Map::new()));
    e
}

/// The paths that are not resources.
fn fixed(state: &ApiState, url: &str, headers: &HeaderMap) -> Result<Response, ApiError> {
    let accepted = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    if url == "/metrics" {
        let text = state.metrics.render(state);
        return Ok(health::text_response(StatusCode::OK, text, "text/plain; version=0.0.4"));
    }
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or("localhost");
    let accept = Accept::negotiate(accepted, true)?;
    let parsed = path::parse(url);
    if let (Shape::Discovery(version), Some(Path::CoreVersions | Path::Groups)) = (&accept.shape, &parsed) {
        let value = discovery::aggregated(state, parsed == Some(Path::CoreVersions), version);
        let media = format!("application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList");
        let bytes: Bytes = serde_json::to_vec(&value).map_err(ApiError::internal)?.into();
        return Ok(discovery::tagged(headers, &media, bytes));
    }
    let value = match (url, parsed) {
        ("/", _) => discovery::paths(state),
        ("/version" | "/version/", _) => health::version(),
        (_, Some(Path::CoreVersions)) => discovery::core_versions(host),
        (_, Some(Path::Groups)) => discovery::groups(state),
        (_, Some(Path::Group(group))) => discovery::group(state, &group)?,
        (_, Some(Path::Version { group, version })) => discovery::resources(state, &group, &version)?,
        _ => return Err(ApiError::no_such_path()),
    };
    // Legacy discovery has no protobuf form here; every client that asks for it takes JSON too.
    let format = if accept.format == Format::Protobuf { Format::Json } else { accept.format };
    let (format, bytes) = present::encode(format, &value)?;
    Ok(present::bytes_response(headers, 200, format.media_type(), bytes))
}

/// Counts a request while it is answered.
struct Inflight<'a>(&'a ApiState);

impl<'a> Inflight<'a> {
    fn enter(state: &'a ApiState) -> Self {
        state.metrics.inflight.fetch_add(1, Ordering::Relaxed);
        Self(state)
    }
}
impl Drop for Inflight<'_> {
    fn drop(&mut self) {
        self.0.metrics.inflight.fetch_sub(1, Ordering::Relaxed);
    }
}
