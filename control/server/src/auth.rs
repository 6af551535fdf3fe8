//! Who makes a request, and whether they may. Until RBAC, the admin, node agents and our own components pass.

use axum::extract::Request;
use axum::middleware::Next;
use axum::response::Response;
use copepod_api::names::{
    GROUP_MASTERS, GROUP_NODES, USER_APISERVER, USER_CONTROLLER_MANAGER, USER_SCHEDULER, controller_user, node_user,
};
use copepod_api::{ApiError, GroupResource};
use http::{Method, Uri, header};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::api::error::response as error_response;
use crate::identity::Identity;

/// What anyone may read.
const OPEN_PATHS: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];

/// The identity in a client certificate that TLS has verified: common name and organisations. `None` if it names no user.
pub fn identity_of_certificate(der: &[u8]) -> Option<Identity> {
    let (_, cert) = X509Certificate::from_der(der).ok()?;
    let subject = cert.subject();
    let user = subject.iter_common_name().next()?.as_str().ok().filter(|u| !u.is_empty())?;
    let groups: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
    Some(Identity::new(user, &groups))
}

/// The name of the node whose agent this is.
pub fn node_of(identity: &Identity) -> Option<&str> {
    identity.user.strip_prefix(&node_user("")).filter(|name| !name.is_empty() && identity.in_group(GROUP_NODES))
}

/// The layer (`axum::middleware::from_fn`) that gives each request its one [`Identity`] and refuses what that may not
/// do. An identity that is attached already (client certificate, in-process transport) is trusted.
pub async fn guard(mut request: Request, next: Next) -> Response {
    match admit(&request) {
        Ok(identity) => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        Err(error) => error_response(&error),
    }
}

fn admit(request: &Request) -> Result<Identity, ApiError> {
    let identity = match request.extensions().get::<Identity>() {
        Some(identity) => identity.clone(),
        // No token is known yet, so each is wrong.
        None if request.headers().contains_key(header::AUTHORIZATION) => {
            return Err(ApiError::unauthorized("Unauthorized"));
        }
        None => Identity::anonymous(),
    };
    authorize(&identity, request.method(), request.uri())?;
    // Ignoring it would act with more rights than were asked for.
    if request.headers().keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Err(ApiError::new(403, "Forbidden", "impersonation (--as) is not supported by this server yet"));
    }
    Ok(identity)
}

/// Whether an identity may do this.
///
/// # Errors
/// 401 for requests without credentials, 403 in upstream's words for others.
pub fn authorize(identity: &Identity, method: &Method, uri: &Uri) -> Result<(), ApiError> {
    let path = uri.path();
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let under = |open: &str| path.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if (reads && OPEN_PATHS.iter().any(|open| under(open))) || is_trusted(identity) {
        return Ok(());
    }
    if identity.user == copepod_api::names::USER_ANONYMOUS {
        return Err(ApiError::unauthorized("Unauthorized"));
    }
    Err(forbidden(&identity.user, method, uri))
}

fn is_trusted(identity: &Identity) -> bool {
    let user = identity.user.as_str();
    identity.in_group(GROUP_MASTERS)
        || node_of(identity).is_some()
        || [USER_APISERVER, USER_CONTROLLER_MANAGER, USER_SCHEDULER].contains(&user)
        || user.strip_prefix(&controller_user("")).is_some_and(|name| !name.is_empty())
}

/// `pods "x" is forbidden: User "u" cannot get resource "pods" in API group "" in the namespace "default"`.
fn forbidden(user: &str, method: &Method, uri: &Uri) -> ApiError {
    let Some(target) = Target::of(uri.path()) else {
        let verb = method.as_str().to_ascii_lowercase();
        let message = format!("forbidden: User \"{user}\" cannot {verb} path \"{}\"", uri.path());
        return ApiError::new(403, "Forbidden", message);
    };
    let watches = uri.query().is_some_and(|q| q.split('&').any(|p| matches!(p, "watch" | "watch=true" | "watch=1")));
    let verb = match (method.as_str(), target.name.is_empty()) {
        ("GET" | "HEAD", true) if watches => "watch",
        ("GET" | "HEAD", true) => "list",
        ("GET" | "HEAD", false) => "get",
        ("POST", _) => "create",
        ("PUT", _) => "update",
        ("PATCH", _) => "patch",
        ("DELETE", true) => "deletecollection",
        ("DELETE", false) => "delete",
        _ => "use",
    };
    let whole = if target.subresource.is_empty() {
        target.resource.to_string()
    } else {
        format!("{}/{}", target.resource, target.subresource)
    };
    let place = match target.namespace {
        "" => "at the cluster scope".to_string(),
        namespace => format!("in the namespace \"{namespace}\""),
    };
    let group = target.group;
    let why = format!("User \"{user}\" cannot {verb} resource \"{whole}\" in API group \"{group}\" {place}");
    ApiError::forbidden(&GroupResource { group: group.into(), resource: target.resource.into() }, target.name, why)
}

/// What a resource path names; absent parts are empty.
#[derive(Debug, PartialEq, Eq)]
struct Target<'a> {
    group: &'a str,
    namespace: &'a str,
    resource: &'a str,
    name: &'a str,
    subresource: &'a str,
}

impl<'a> Target<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, rest) = match parts.as_slice() {
            ["api", _, rest @ ..] => ("", rest),
            ["apis", group, _, rest @ ..] => (*group, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, _, ..] if !matches!(rest.get(2), Some(&"status" | &"finalize")) => {
                (*namespace, rest.get(2..)?)
            }
            // A Namespace itself counts as being in itself.
            ["namespaces", namespace, ..] => (*namespace, rest),
            _ => ("", rest),
        };
        let at = |i: usize| rest.get(i).copied().unwrap_or_default();
        (!at(0).is_empty()).then(|| Self { group, namespace, resource: at(0), name: at(1), subresource: at(2) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use axum::{Extension, Router};
    use tower::ServiceExt;

    fn masters() -> Identity {
        Identity::new("admin", &[GROUP_MASTERS])
    }

    #[test]
    fn who_may_do_what() {
        let component = |user: &str| Identity::new(user, &[]);
        let cases = [
            (Identity::anonymous(), "/healthz", 0),
            (Identity::anonymous(), "/livez/ping", 0),
            (Identity::anonymous(), "/readyz?verbose", 0),
            (Identity::anonymous(), "/version", 0),
            (Identity::anonymous(), "/versions", 401),
            (Identity::anonymous(), "/api/v1/pods", 401),
            (Identity::anonymous(), "/metrics", 401),
            (Identity::anonymous(), "/", 401),
            (masters(), "/api/v1/pods", 0),
            (Identity::new("system:node:n1", &[GROUP_NODES]), "/api/v1/pods", 0),
            (Identity::new("system:node:", &[GROUP_NODES]), "/api/v1/pods", 403),
            (Identity::new("mallory", &[GROUP_NODES]), "/api/v1/pods", 403),
            (Identity::new("system:node:n1", &[]), "/api/v1/pods", 403),
            (component(USER_SCHEDULER), "/api/v1/pods", 0),
            (component(USER_CONTROLLER_MANAGER), "/api/v1/pods", 0),
            (component(USER_APISERVER), "/api/v1/pods", 0),
            (component("system:serviceaccount:kube-system:deployment-controller"), "/api/v1/pods", 0),
            (component("system:serviceaccount:default:default"), "/api/v1/pods", 403),
            (component("alice"), "/version", 0),
            (component("alice"), "/api/v1/pods", 403),
        ];
        for (identity, uri, code) in cases {
            let result = authorize(&identity, &Method::GET, &uri.parse().unwrap());
            assert_eq!(result.map_or_else(|e| e.code, |()| 0), code, "{} {uri}", identity.user);
        }
        assert_eq!(
            authorize(&Identity::anonymous(), &Method::POST, &"/version".parse().unwrap()).unwrap_err().code,
            401
        );
    }

    #[test]
    fn refusals_are_worded_as_upstream() {
        let cases = [
            (
                Method::GET,
                "/api/v1/namespaces/default/pods/x",
                r#"pods "x" is forbidden: User "alice" cannot get resource "pods" in API group "" in the namespace "default""#,
            ),
            (
                Method::GET,
                "/apis/apps/v1/deployments",
                r#"deployments.apps is forbidden: User "alice" cannot list resource "deployments" in API group "apps" at the cluster scope"#,
            ),
            (
                Method::GET,
                "/api/v1/namespaces/a/pods?watch=true",
                r#"pods is forbidden: User "alice" cannot watch resource "pods" in API group "" in the namespace "a""#,
            ),
            (
                Method::GET,
                "/api/v1/namespaces/a/pods/x/log",
                r#"pods "x" is forbidden: User "alice" cannot get resource "pods/log" in API group "" in the namespace "a""#,
            ),
            (
                Method::DELETE,
                "/api/v1/namespaces/a",
                r#"namespaces "a" is forbidden: User "alice" cannot delete resource "namespaces" in API group "" in the namespace "a""#,
            ),
            (
                Method::PUT,
                "/api/v1/namespaces/a/status",
                r#"namespaces "a" is forbidden: User "alice" cannot update resource "namespaces/status" in API group "" in the namespace "a""#,
            ),
            (
                Method::POST,
                "/api/v1/nodes",
                r#"nodes is forbidden: User "alice" cannot create resource "nodes" in API group "" at the cluster scope"#,
            ),
            (
                Method::DELETE,
                "/api/v1/namespaces/a/secrets",
                r#"secrets is forbidden: User "alice" cannot deletecollection resource "secrets" in API group "" in the namespace "a""#,
            ),
            (Method::GET, "/metrics", r#"forbidden: User "alice" cannot get path "/metrics""#),
            (Method::GET, "/apis", r#"forbidden: User "alice" cannot get path "/apis""#),
        ];
        for (method, uri, message) in cases {
            let e = authorize(&Identity::new("alice", &[]), &method, &uri.parse().unwrap()).unwrap_err();
            assert_eq!((e.code, e.message.as_str()), (403, message));
        }
    }

    #[test]
    fn certificates_name_users_and_groups() {
        let dir = tempfile::tempdir().unwrap();
        let pki = crate::pki::Pki::open(dir.path()).unwrap();
        let (cert, _) = pki.issue_client("system:node:n1", GROUP_NODES).unwrap();
        let der =
            <rustls::pki_types::CertificateDer as rustls::pki_types::pem::PemObject>::from_pem_slice(cert.as_bytes());
        let identity = identity_of_certificate(&der.unwrap()).unwrap();
        assert_eq!(identity, Identity::new("system:node:n1", &[GROUP_NODES]));
        assert_eq!(node_of(&identity), Some("n1"));
        assert_eq!(node_of(&masters()), None);
        assert!(identity_of_certificate(b"x").is_none());
    }

    #[tokio::test]
    async fn every_request_gets_one_identity() {
        let echo = |Extension(who): Extension<Identity>| async move { who.user };
        let router = Router::new()
            .route("/version", get(echo))
            .route("/api/v1/pods", get(echo))
            .layer(axum::middleware::from_fn(guard));
        let ask = async |path: &str, identity: Option<Identity>, token: Option<&str>| {
            let mut request = http::Request::get(path).body(axum::body::Body::empty()).unwrap();
            request.extensions_mut().extend(
                identity
                    .map(|i| {
                        let mut e = http::Extensions::new();
                        e.insert(i);
                        e
                    })
                    .unwrap_or_default(),
            );
            if let Some(token) = token {
                request.headers_mut().insert(header::AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
            }
            let response = router.clone().oneshot(request).await.unwrap();
            let code = response.status().as_u16();
            let body = axum::body::to_bytes(response.into_body(), 10_000).await.unwrap();
            (code, String::from_utf8(body.to_vec()).unwrap())
        };
        assert_eq!(ask("/version", None, None).await, (200, "system:anonymous".into()));
        assert_eq!(ask("/api/v1/pods", Some(masters()), None).await, (200, "admin".into()));
        let (code, body) = ask("/api/v1/pods", None, None).await;
        assert!(
            code == 401 && body.contains(r#""reason":"Unauthorized""#) && body.contains(r#""kind":"Status""#),
            "{body}"
        );
        assert_eq!(ask("/version", None, Some("wrong")).await.0, 401, "a wrong token is not an anonymous request");
        assert_eq!(ask("/api/v1/pods", Some(Identity::new("alice", &[])), None).await.0, 403);
    }
}
