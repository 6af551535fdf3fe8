//! Who makes a request: the guard in front of everything gives each request its one [`Identity`] and asks the one
//! [`Authorizer`].

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::Response;
use copepod_api::ApiError;
use copepod_api::names::{GROUP_NODES, USER_ANONYMOUS, node_user};
use http::header;
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::api::error::response as error_response;
use crate::authorization::{Attributes, Authorizer};
use crate::identity::Identity;

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

/// Whose bearer token this is; `None` if it is no valid one. No token is issued yet, so none is valid.
pub fn identity_of_token(_token: &str) -> Option<Identity> {
    None
}

/// The layer (`axum::middleware::from_fn_with_state`) that gives each request its one [`Identity`] and refuses what
/// that may not do. An identity that is attached already (client certificate, in-process transport) is trusted.
pub async fn guard(State(authorizer): State<Arc<dyn Authorizer>>, mut request: Request, next: Next) -> Response {
    match admit(authorizer.as_ref(), &request) {
        Ok(identity) => {
            request.extensions_mut().insert(identity);
            next.run(request).await
        }
        Err(error) => error_response(&error, request.headers().get(header::ACCEPT)),
    }
}

/// The identity of a request that may go on: 401 for one without credentials or with wrong ones, 403 for others.
fn admit(authorizer: &dyn Authorizer, request: &Request) -> Result<Identity, ApiError> {
    let unauthorized = || ApiError::unauthorized("Unauthorized");
    let identity = match (request.extensions().get::<Identity>(), request.headers().get(header::AUTHORIZATION)) {
        (Some(identity), _) => identity.clone(),
        (None, Some(credentials)) => {
            let token = credentials.to_str().ok().and_then(|c| c.strip_prefix("Bearer "));
            token.and_then(|token| identity_of_token(token.trim())).ok_or_else(unauthorized)?
        }
        (None, None) => Identity::anonymous(),
    };
    let attributes = Attributes::of(request.method(), request.uri());
    let decision = authorizer.authorize(&identity, &attributes);
    if !decision.allowed {
        let anonymous = identity.user == USER_ANONYMOUS;
        return Err(if anonymous { unauthorized() } else { attributes.refusal(&identity.user, &decision.reason) });
    }
    // Ignoring it would act with more rights than were asked for.
    if request.headers().keys().any(|name| name.as_str().starts_with("impersonate-")) {
        return Err(ApiError::new(403, "Forbidden", "impersonation (--as) is not supported by this server yet"));
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authorization::Trusted;
    use axum::routing::get;
    use axum::{Extension, Router};
    use copepod_api::names::GROUP_MASTERS;
    use tower::ServiceExt;

    fn masters() -> Identity {
        Identity::new("admin", &[GROUP_MASTERS])
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
            .layer(axum::middleware::from_fn_with_state(Trusted::shared(), guard));
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
