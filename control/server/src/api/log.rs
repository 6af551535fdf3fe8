//! `pods/log`: the node's agent has the logs; they are streamed from it through the [`crate::dialer::NodeDialer`].

use axum::body::Body;
use axum::response::Response;
use copepod_api::image::encode_segment;
use copepod_api::{ApiError, FieldError};
use futures::StreamExt;
use http::{HeaderValue, StatusCode, header};
use http_body_util::BodyExt;
use serde_json::{Value, json};

use super::node_request;
use super::object;
use super::request::{Query, Request};

/// Parameters of `v1.PodLogOptions` that the node takes.
const PASSED: &[&str] =
    &["follow", "previous", "timestamps", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "stream"];

/// GET of a container's log.
pub(crate) async fn log(request: &Request) -> Result<Response, ApiError> {
    let name = request.name();
    let record = request
        .state
        .store
        .get(&request.key(name))
        .ok_or_else(|| ApiError::not_found(&request.group_resource(), name))?;
    let pod = object::decode(request, &record)?;
    validate(&request.query)?;
    let container = container(&pod, name, request.query.get("container"))?;
    let node = pod.pointer("/spec/nodeName").and_then(Value::as_str).unwrap_or_default();
    if node.is_empty() {
        // Not bound yet: there is nothing to read and nobody to ask.
        return Ok(text(Body::empty()));
    }
    let namespace = request.namespace().unwrap_or_default();
    stream(request, node, &format!("/containerLogs/{namespace}/{name}/{container}{}", query_string(&request.query)))
        .await
}

fn validate(query: &Query) -> Result<(), ApiError> {
    let invalid = |e: FieldError| Err(ApiError::invalid("", "PodLogOptions", "", &[e]));
    for (field, least) in [("tailLines", 0), ("sinceSeconds", 1), ("limitBytes", 1)] {
        if let Some(n) = query.integer(field)?.filter(|n| *n < least) {
            let why = if least == 0 { "must be greater than or equal to 0" } else { "must be greater than 0" };
            return invalid(FieldError::invalid(field, &json!(n), why));
        }
    }
    if query.get("sinceSeconds").is_some() && query.get("sinceTime").is_some() {
        return invalid(FieldError::forbidden(
            "sinceSeconds",
            "at most one of `sinceTime` or `sinceSeconds` may be specified",
        ));
    }
    match query.get("sinceTime") {
        Some(t) if t.parse::<jiff::Timestamp>().is_err() => {
            Err(ApiError::bad_request(format!("sinceTime: {t:?} is not an RFC 3339 time")))
        }
        _ => Ok(()),
    }
}

/// The container asked for, or the pod's only one.
pub(super) fn container<'a>(pod: &'a Value, name: &str, asked: Option<&'a str>) -> Result<&'a str, ApiError> {
    let names = |list: &str| -> Vec<&'a str> {
        let list = pod.pointer(list).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|c| c.get("name").and_then(Value::as_str)).collect()
    };
    let (main, init, ephemeral) =
        (names("/spec/containers"), names("/spec/initContainers"), names("/spec/ephemeralContainers"));
    match asked {
        Some(asked) if main.iter().chain(&init).chain(&ephemeral).any(|n| *n == asked) => Ok(asked),
        Some(asked) => Err(ApiError::bad_request(format!("container {asked} is not valid for pod {name}"))),
        None => match main.as_slice() {
            [only] => Ok(only),
            many => {
                let mut why =
                    format!("a container name must be specified for pod {name}, choose one of: [{}]", many.join(" "));
                if !init.is_empty() {
                    why.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
                }
                Err(ApiError::bad_request(why))
            }
        },
    }
}

fn query_string(query: &Query) -> String {
    let pairs: Vec<String> =
        PASSED.iter().filter_map(|k| query.get(k).map(|v| format!("{k}={}", encode_segment(v)))).collect();
    if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) }
}

/// Sends the request to the node and streams its answer.
async fn stream(request: &Request, node: &str, path: &str) -> Result<Response, ApiError> {
    let answer = node_request::send(request, node, http::Request::get(path)).await?;
    if answer.status() != StatusCode::OK {
        return Err(node_request::refusal(answer).await);
    }
    let shutdown = request.state.shutdown.clone();
    let body = answer.into_body().into_data_stream().take_until(async move { shutdown.cancelled().await });
    Ok(text(Body::from_stream(body)))
}

fn text(body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers() {
        let pod = json!({"spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]}});
        let one = json!({"spec": {"containers": [{"name": "a"}]}});
        for (pod, asked, want) in [
            (&one, None, "a"),
            (&pod, Some("i"), "i"),
            (&pod, Some("x"), "container x is not valid for pod p"),
            (
                &pod,
                None,
                "a container name must be specified for pod p, choose one of: [a b] or one of the init containers: [i]",
            ),
        ] {
            let got = container(pod, "p", asked).map_or_else(|e| e.message, str::to_string);
            assert_eq!(got, want);
        }
    }
}
