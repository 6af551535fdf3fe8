//! Whether an identity may do something: one [`Authorizer`] behind the guard of all requests and the access reviews.
//! [`Trusted`] is today's: the admin, node agents and our own components pass.

use std::sync::Arc;

use copepod_api::names::{
    GROUP_AUTHENTICATED, GROUP_MASTERS, USER_APISERVER, USER_CONTROLLER_MANAGER, USER_SCHEDULER, controller_user,
};
use copepod_api::{ApiError, GroupResource};
use http::{Method, Uri};

use crate::api::{self, Target};
use crate::auth::node_of;
use crate::identity::Identity;

/// Decides who may do what. An in-memory decision: it is asked on every request.
pub trait Authorizer: Send + Sync {
    /// Whether `identity` may do this.
    fn authorize(&self, identity: &Identity, attributes: &Attributes) -> Decision;
    /// All that `identity` may do in a namespace and outside of resources.
    fn rules(&self, identity: &Identity, namespace: &str) -> Rules;
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attributes {
    /// `get`, `list`, `watch`, `create`, ... on resources; the method in lower case on other paths.
    pub verb: String,
    /// On what.
    pub on: On,
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum On {
    /// A resource. A Namespace itself counts as being in itself.
    Resource(Target),
    /// Any other path.
    Path(String),
}

/// An authorizer's answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// Whether it is allowed.
    pub allowed: bool,
    /// Why, for people; may be empty.
    pub reason: String,
}

/// What an identity may do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// On resources.
    pub resources: Vec<ResourceRule>,
    /// On other paths.
    pub paths: Vec<PathRule>,
}

/// Verbs on resources, `*` for all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceRule {
    /// Verbs.
    pub verbs: Vec<String>,
    /// API groups.
    pub api_groups: Vec<String>,
    /// Resources.
    pub resources: Vec<String>,
}

/// Methods in lower case on paths; a path may end with `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PathRule {
    /// Methods.
    pub verbs: Vec<String>,
    /// Paths.
    pub paths: Vec<String>,
}

impl Attributes {
    /// What an HTTP request asks for.
    pub fn of(method: &Method, uri: &Uri) -> Self {
        let Some(mut target) = api::target_of(uri.path()) else {
            return Self { verb: method.as_str().to_ascii_lowercase(), on: On::Path(uri.path().to_string()) };
        };
        let verb = match (method.as_str(), target.name.is_some()) {
            ("GET" | "HEAD", _) if target.watch => "watch",
            ("GET" | "HEAD", false) if api::is_watch(uri) => "watch",
            ("GET" | "HEAD", false) => "list",
            ("GET" | "HEAD", true) => "get",
            ("POST", _) => "create",
            ("PUT", _) => "update",
            ("PATCH", _) => "patch",
            ("DELETE", false) => "deletecollection",
            ("DELETE", true) => "delete",
            _ => "use",
        };
        if target.group.is_empty() && target.resource == "namespaces" && target.namespace.is_none() {
            target.namespace.clone_from(&target.name);
        }
        Self { verb: verb.into(), on: On::Resource(target) }
    }

    /// The refusal in upstream's words:
    /// `pods "x" is forbidden: User "u" cannot get resource "pods" in API group "" in the namespace "default"`.
    pub fn refusal(&self, user: &str, reason: &str) -> ApiError {
        let verb = &self.verb;
        let target = match &self.on {
            On::Path(path) => {
                let message = format!("forbidden: User \"{user}\" cannot {verb} path \"{path}\"");
                return ApiError::new(403, "Forbidden", message);
            }
            On::Resource(target) => target,
        };
        let whole = match &target.subresource {
            Some(sub) => format!("{}/{sub}", target.resource),
            None => target.resource.clone(),
        };
        let place = match &target.namespace {
            Some(namespace) => format!("in the namespace \"{namespace}\""),
            None => "at the cluster scope".into(),
        };
        let group = &target.group;
        let mut why = format!("User \"{user}\" cannot {verb} resource \"{whole}\" in API group \"{group}\" {place}");
        if !reason.is_empty() {
            why.push_str(": ");
            why.push_str(reason);
        }
        let resource = GroupResource { group: group.clone(), resource: target.resource.clone() };
        ApiError::forbidden(&resource, target.name.as_deref().unwrap_or_default(), why)
    }
}

/// What anyone may read.
const OPEN_PATHS: [&str; 4] = ["/healthz", "/livez", "/readyz", "/version"];
/// What every authenticated user may ask about itself: (group, resource).
const OWN_REVIEWS: [(&str, &str); 3] = [
    ("authentication.k8s.io", "selfsubjectreviews"),
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
];

/// The authorizer until RBAC: the admin, node agents and our own components may do all; others may read whether the
/// server is well and ask about themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trusted;

impl Trusted {
    /// Ready to be shared.
    pub fn shared() -> Arc<dyn Authorizer> {
        Arc::new(Self)
    }
}

impl Authorizer for Trusted {
    fn authorize(&self, identity: &Identity, attributes: &Attributes) -> Decision {
        let open = match &attributes.on {
            On::Path(path) => {
                let under =
                    |open: &str| path.strip_prefix(open).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
                matches!(attributes.verb.as_str(), "get" | "head") && OPEN_PATHS.iter().any(|open| under(open))
            }
            On::Resource(target) => {
                attributes.verb == "create"
                    && identity.in_group(GROUP_AUTHENTICATED)
                    && OWN_REVIEWS.contains(&(target.group.as_str(), target.resource.as_str()))
            }
        };
        Decision { allowed: open || is_trusted(identity), reason: String::new() }
    }

    fn rules(&self, identity: &Identity, _namespace: &str) -> Rules {
        let owned = |list: &[&str]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
        if is_trusted(identity) {
            return Rules {
                resources: vec![ResourceRule {
                    verbs: owned(&["*"]),
                    api_groups: owned(&["*"]),
                    resources: owned(&["*"]),
                }],
                paths: vec![PathRule { verbs: owned(&["*"]), paths: owned(&["*"]) }],
            };
        }
        let paths = OPEN_PATHS.iter().flat_map(|p| [p.to_string(), format!("{p}/*")]).collect();
        let mut rules =
            Rules { resources: Vec::new(), paths: vec![PathRule { verbs: owned(&["get", "head"]), paths }] };
        if identity.in_group(GROUP_AUTHENTICATED) {
            let own = OWN_REVIEWS.iter().map(|(group, resource)| ResourceRule {
                verbs: owned(&["create"]),
                api_groups: owned(&[group]),
                resources: owned(&[resource]),
            });
            rules.resources.extend(own);
        }
        rules
    }
}

fn is_trusted(identity: &Identity) -> bool {
    identity.in_group(GROUP_MASTERS) || node_of(identity).is_some() || is_component(identity)
}

/// Whether this is a component of the control plane itself.
pub(crate) fn is_component(identity: &Identity) -> bool {
    let user = identity.user.as_str();
    [USER_APISERVER, USER_CONTROLLER_MANAGER, USER_SCHEDULER].contains(&user)
        || user.strip_prefix(&controller_user("")).is_some_and(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use copepod_api::names::GROUP_NODES;

    fn masters() -> Identity {
        Identity::new("admin", &[GROUP_MASTERS])
    }

    fn allowed(identity: &Identity, method: &Method, uri: &str) -> bool {
        Trusted.authorize(identity, &Attributes::of(method, &uri.parse().unwrap())).allowed
    }

    #[test]
    fn who_may_do_what() {
        let component = |user: &str| Identity::new(user, &[]);
        let own = "/apis/authentication.k8s.io/v1/selfsubjectreviews";
        let cases = [
            (Identity::anonymous(), "GET", "/healthz", true),
            (Identity::anonymous(), "GET", "/livez/ping", true),
            (Identity::anonymous(), "GET", "/readyz?verbose", true),
            (Identity::anonymous(), "HEAD", "/version", true),
            (Identity::anonymous(), "GET", "/versions", false),
            (Identity::anonymous(), "POST", "/version", false),
            (Identity::anonymous(), "GET", "/api/v1/pods", false),
            (Identity::anonymous(), "GET", "/metrics", false),
            (Identity::anonymous(), "GET", "/", false),
            (Identity::anonymous(), "POST", own, false),
            (masters(), "GET", "/api/v1/pods", true),
            (Identity::new("system:node:n1", &[GROUP_NODES]), "GET", "/api/v1/pods", true),
            (Identity::new("system:node:", &[GROUP_NODES]), "GET", "/api/v1/pods", false),
            (Identity::new("mallory", &[GROUP_NODES]), "GET", "/api/v1/pods", false),
            (Identity::new("system:node:n1", &[]), "GET", "/api/v1/pods", false),
            (component(USER_SCHEDULER), "GET", "/api/v1/pods", true),
            (component(USER_CONTROLLER_MANAGER), "GET", "/api/v1/pods", true),
            (component(USER_APISERVER), "GET", "/api/v1/pods", true),
            (component("system:serviceaccount:kube-system:deployment-controller"), "GET", "/api/v1/pods", true),
            (component("system:serviceaccount:default:default"), "GET", "/api/v1/pods", false),
            (component("alice"), "GET", "/version", true),
            (component("alice"), "GET", "/api/v1/pods", false),
            (component("alice"), "POST", own, true),
            (component("alice"), "POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", false),
        ];
        for (identity, method, uri, expected) in cases {
            let method = method.parse().unwrap();
            assert_eq!(allowed(&identity, &method, uri), expected, "{} {method} {uri}", identity.user);
        }
        assert!(!allowed(&component("alice"), &Method::GET, "/%61pi/v1/pods"));
        let encoded = Attributes::of(&Method::GET, &"/%61pi/v1/namespaces/%61/pods".parse().unwrap());
        assert!(matches!(&encoded.on, On::Resource(t) if t.namespace.as_deref() == Some("a")), "{encoded:?}");
        assert_eq!(Trusted.rules(&masters(), "default").resources[0].verbs, ["*"]);
        assert_eq!(Trusted.rules(&component("alice"), "default").resources.len(), OWN_REVIEWS.len());
        assert!(Trusted.rules(&Identity::anonymous(), "default").resources.is_empty());
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
            let attributes = Attributes::of(&method, &uri.parse().unwrap());
            assert!(!Trusted.authorize(&Identity::new("alice", &[]), &attributes).allowed);
            let e = attributes.refusal("alice", "");
            assert_eq!((e.code, e.message.as_str()), (403, message));
        }
    }
}
