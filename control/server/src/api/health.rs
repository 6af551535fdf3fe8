//! `/healthz`, `/livez`, `/readyz`, `/version`.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde_json::{Value, json};

use super::ApiState;

/// The answer of a health endpoint: `ok`, or 500 with the reason. A read-only store still serves reads, so only
/// readiness and health fail, and liveness does not ask for a restart in a loop.
pub(crate) fn check(state: &ApiState, path: &str, verbose: bool) -> Response {
    let failure = if path.starts_with("/livez") || path.ends_with("/ping") { None } else { state.store.read_only() };
    let failure = failure.or_else(|| state.shutdown.is_cancelled().then(|| "shutting down".to_string()));
    let (code, text) = match (&failure, verbose) {
        (None, false) => (StatusCode::OK, "ok".to_string()),
        (None, true) => {
            let name = path.trim_start_matches('/');
            (StatusCode::OK, format!("[+]ping ok\n[+]store ok\n{name} check passed\n"))
        }
        (Some(why), _) => {
            let name = path.trim_start_matches('/');
            let code = StatusCode::INTERNAL_SERVER_ERROR;
            (code, format!("[+]ping ok\n[-]store failed: {why}\n{name} check failed\n"))
        }
    };
    text_response(code, text, "text/plain; charset=utf-8")
}

/// A response of text.
pub(crate) fn text_response(code: StatusCode, text: String, media_type: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = code;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
    response
}

/// `/version`.
pub(crate) fn version() -> Value {
    let mut parts = crate::version::KUBERNETES.split('.');
    let (major, minor) = (parts.next().unwrap_or("1"), parts.next().unwrap_or("0"));
    let arch = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    json!({
        "major": major, "minor": minor, "emulationMajor": major, "emulationMinor": minor,
        "minCompatibilityMajor": major, "minCompatibilityMinor": minor,
        "gitVersion": crate::version::git_version(), "gitCommit": "unknown", "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z", "goVersion": "none (rust)", "compiler": "rustc",
        "platform": format!("{}/{arch}", std::env::consts::OS),
    })
}
