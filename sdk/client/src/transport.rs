//! The two transports: the API server's router in the same process, or HTTPS with the credentials of a kubeconfig.

use std::path::{Path, PathBuf};

use http::header::USER_AGENT;
use http::{HeaderValue, Request, Response};
use kube::client::Body;
use kube::config::{Config, KubeConfigOptions, Kubeconfig};
use tower::{BoxError, Service, ServiceExt};

/// Why a kubeconfig gives no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The file cannot be read or parsed, or names no usable cluster, user or context.
    #[error("cannot use kubeconfig {path}: {why}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The server's URL is not HTTPS.
    #[error("kubeconfig {path}: server {server:?} is not an https:// URL; credentials are only sent over TLS")]
    NotHttps {
        /// The file.
        path: PathBuf,
        /// The URL found.
        server: String,
    },
    /// The certificates or keys in the file do not work.
    #[error("kubeconfig {path}: cannot set up TLS: {why}")]
    Tls {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
}

/// A client over a router in this process. `identity` is attached to every request as an extension: the router trusts
/// it as it would a client certificate. `component` is its User-Agent, and so the manager of the fields it writes.
pub fn in_process<S, B, I>(router: S, identity: I, component: &'static str) -> kube::Client
where
    S: Service<Request<Body>, Response = Response<B>> + Send + 'static,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
    B: hyper::body::Body<Data = hyper::body::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
    I: Clone + Send + Sync + 'static,
{
    let identified = router.map_request(move |mut request: Request<Body>| {
        request.extensions_mut().insert(identity.clone());
        request.headers_mut().insert(USER_AGENT, HeaderValue::from_static(component));
        request
    });
    kube::Client::new(identified, "default")
}

/// A client from a kubeconfig file's current context. Environment variables are not consulted. `component` is its
/// User-Agent, and so the manager of the fields it writes.
pub async fn https(kubeconfig: &Path, component: &'static str) -> Result<kube::Client, ConnectError> {
    // A second installation is refused, which is fine: one provider is in place.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let path = || kubeconfig.to_path_buf();
    let unusable = |why: String| ConnectError::Kubeconfig { path: path(), why };
    let file = Kubeconfig::read_from(kubeconfig).map_err(|e| unusable(chain(&e)))?;
    let has_proxy = file.clusters.iter().any(|c| c.cluster.as_ref().is_some_and(|c| c.proxy_url.is_some()));
    let mut config =
        Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.map_err(|e| unusable(chain(&e)))?;
    if config.cluster_url.scheme_str() != Some("https") {
        return Err(ConnectError::NotHttps { path: path(), server: config.cluster_url.to_string() });
    }
    if !has_proxy {
        config.proxy_url = None;
    }
    config.headers.push((USER_AGENT, HeaderValue::from_static(component)));
    kube::Client::try_from(config).map_err(|e| ConnectError::Tls { path: path(), why: chain(&e) })
}

/// An error with its causes, each once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Extension, Json, Router, routing::get};
    use k8s_openapi::api::core::v1::ConfigMap;
    use serde_json::json;

    #[derive(Clone)]
    struct Who(&'static str);

    #[tokio::test]
    async fn the_identity_reaches_the_router() {
        let router = Router::new().route(
            "/api/v1/namespaces/default/configmaps/me",
            get(|Extension(who): Extension<Who>| async move {
                Json(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "me"}, "data": {"user": who.0}}))
            }),
        );
        let client = in_process(router, Who("system:kube-scheduler"), "kube-scheduler");
        let map = kube::Api::<ConfigMap>::default_namespaced(client).get("me").await.unwrap();
        assert_eq!(map.data.unwrap().get("user").map(String::as_str), Some("system:kube-scheduler"));
    }

    #[tokio::test]
    async fn bad_kubeconfigs_say_why() {
        let file = |server: &str| {
            format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters:\n- name: c\n  cluster: {{server: \"{server}\"}}\n\
                 users:\n- name: u\n  user: {{}}\ncontexts:\n- name: c\n  context: {{cluster: c, user: u}}\n"
            )
        };
        let cases = [
            (None, "cannot use kubeconfig"),
            (Some("{".to_string()), "cannot use kubeconfig"),
            (Some(file("http://127.0.0.1:1")), "not an https:// URL"),
            (Some("apiVersion: v1\nkind: Config\n".to_string()), "cannot use kubeconfig"),
        ];
        for (index, (content, expected)) in cases.into_iter().enumerate() {
            let path = std::env::temp_dir().join(format!("copepod-client-{}-{index}.kubeconfig", std::process::id()));
            if let Some(content) = content {
                std::fs::write(&path, content).unwrap();
            }
            let error = https(&path, "test").await.err().map(|e| e.to_string()).unwrap_or_default();
            let _ = std::fs::remove_file(&path);
            assert!(error.contains(expected) && error.contains("kubeconfig"), "case {index}: {error}");
        }
    }
}
