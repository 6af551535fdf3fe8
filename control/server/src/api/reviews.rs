//! Reviews: questions about identities and access, answered by the request's own [`Identity`] and the server's one
//! authorizer. Nothing is stored.

use axum::response::Response;
use copepod_api::ApiError;
use serde_json::{Value, json};

use super::admission::{Operation, Review};
use super::object::{as_map, meta_mut, meta_str};
use super::path::Target;
use super::request::Request;
use super::{body, create, present};
use crate::auth::identity_of_token;
use crate::authorization::{Attributes, On, Rules};
use crate::identity::Identity;

/// POST of a review: the same object with its status.
pub(crate) async fn answer(request: &Request) -> Result<Response, ApiError> {
    let mut object = body::decode(request)?;
    create::check_namespace(request, &object)?;
    if let Some(namespace) = request.namespace() {
        meta_mut(&mut object).insert("namespace".into(), namespace.into());
    }
    let strategy = &request.resource.strategy;
    strategy.default(&mut object);
    let name = meta_str(&object, "name").to_string();
    request.state.admit(&mut Review::new(request, Operation::Create, &name, &mut object, None)).await?;
    let errors = strategy.validate(&object);
    if !errors.is_empty() {
        return Err(request.invalid(&name, &errors));
    }
    let status = status(request, &object)?;
    as_map(&mut object).insert("status".into(), status);
    present::plain(request, 201, &object)
}

fn status(request: &Request, object: &Value) -> Result<Value, ApiError> {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    match request.resource.names.kind.as_str() {
        "SelfSubjectReview" => Ok(json!({"userInfo": user_info(&request.identity)})),
        "TokenReview" => token(text("/spec/token")),
        "SelfSubjectAccessReview" => Ok(access(request, &request.identity, object)),
        "SubjectAccessReview" | "LocalSubjectAccessReview" => {
            let groups = object.pointer("/spec/groups").and_then(Value::as_array);
            let groups = groups.into_iter().flatten().filter_map(|g| g.as_str().map(Into::into)).collect();
            Ok(access(request, &Identity { user: text("/spec/user").into(), groups }, object))
        }
        "SelfSubjectRulesReview" => match text("/spec/namespace") {
            "" => Err(ApiError::bad_request("no namespace on request")),
            namespace => Ok(rules(&request.state.authorizer.rules(&request.identity, namespace))),
        },
        kind => Err(ApiError::internal(format!("nothing answers a {kind}"))),
    }
}

fn user_info(identity: &Identity) -> Value {
    json!({"username": identity.user, "groups": identity.groups})
}

fn token(token: &str) -> Result<Value, ApiError> {
    if token.is_empty() {
        return Err(ApiError::bad_request("token is required for TokenReview in authentication"));
    }
    Ok(match identity_of_token(token) {
        Some(identity) => json!({"authenticated": true, "user": user_info(&identity)}),
        None => json!({"authenticated": false, "user": {}, "error": "invalid bearer token"}),
    })
}

fn access(request: &Request, identity: &Identity, object: &Value) -> Value {
    let decision = request.state.authorizer.authorize(identity, &attributes(object));
    let mut status = json!({"allowed": decision.allowed});
    if !decision.reason.is_empty() {
        as_map(&mut status).insert("reason".into(), decision.reason.into());
    }
    status
}

/// What an access review asks about.
fn attributes(object: &Value) -> Attributes {
    let null = Value::Null;
    let of = |from: &Value, key: &str| from.get(key).and_then(Value::as_str).unwrap_or_default().to_string();
    if let Some(path) = object.pointer("/spec/nonResourceAttributes").filter(|p| !p.is_null()) {
        return Attributes { verb: of(path, "verb"), on: On::Path(of(path, "path")) };
    }
    let asked = object.pointer("/spec/resourceAttributes").unwrap_or(&null);
    let optional = |key: &str| Some(of(asked, key)).filter(|value| !value.is_empty());
    let target = Target {
        group: of(asked, "group"),
        version: of(asked, "version"),
        namespace: optional("namespace"),
        resource: of(asked, "resource"),
        name: optional("name"),
        subresource: optional("subresource"),
        watch: false,
    };
    Attributes { verb: of(asked, "verb"), on: On::Resource(target) }
}

fn rules(rules: &Rules) -> Value {
    let resources = rules.resources.iter();
    let resources: Vec<Value> =
        resources.map(|r| json!({"verbs": r.verbs, "apiGroups": r.api_groups, "resources": r.resources})).collect();
    let paths: Vec<Value> = rules.paths.iter().map(|r| json!({"verbs": r.verbs, "nonResourceURLs": r.paths})).collect();
    json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false})
}
