//! Which subresources a resource has: one table for routing and discovery.

use copepod_core::resource::Resource;

use super::delete::is_namespaces;

/// A subresource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sub {
    /// Last part of the URL.
    pub name: &'static str,
    /// Its kind, if not the resource's.
    pub kind: Option<&'static str>,
    /// The kind's group and version, if not the resource's.
    pub api: Option<(&'static str, &'static str)>,
    /// Verbs as discovery names them.
    pub verbs: &'static [&'static str],
}

const STATUS: Sub = Sub { name: "status", kind: None, api: None, verbs: &["get", "patch", "update"] };
const SCALE: Sub =
    Sub { name: "scale", kind: Some("Scale"), api: Some(("autoscaling", "v1")), verbs: &["get", "patch", "update"] };
const BINDING: Sub = Sub { name: "binding", kind: Some("Binding"), api: None, verbs: &["create"] };
const EVICTION: Sub = Sub { name: "eviction", kind: Some("Eviction"), api: Some(("policy", "v1")), verbs: &["create"] };
const LOG: Sub = Sub { name: "log", kind: None, api: None, verbs: &["get"] };
const EPHEMERAL: Sub = Sub { name: "ephemeralcontainers", kind: None, api: None, verbs: &["get", "patch", "update"] };
const RESIZE: Sub = Sub { name: "resize", kind: None, api: None, verbs: &["get", "patch", "update"] };
const APPROVAL: Sub = Sub { name: "approval", kind: None, api: None, verbs: &["get", "patch", "update"] };
const FINALIZE: Sub = Sub { name: "finalize", kind: None, api: None, verbs: &["update"] };
/// What connects a client to a pod.
const CONNECT: &[&str] = &["create", "get"];
/// What passes any request on.
const PROXY: &[&str] = &["create", "delete", "get", "patch", "update"];

const fn connect(name: &'static str, kind: &'static str, verbs: &'static [&'static str]) -> Sub {
    Sub { name, kind: Some(kind), api: None, verbs }
}

/// A resource's subresources.
pub(crate) fn of(resource: &Resource) -> Vec<Sub> {
    let mut subs = Vec::new();
    if resource.subresources.status {
        subs.push(STATUS);
    }
    if resource.subresources.scale.is_some() {
        subs.push(SCALE);
    }
    match (resource.names.group.as_str(), resource.names.plural.as_str()) {
        ("", "pods") => subs.extend([
            BINDING,
            EVICTION,
            LOG,
            EPHEMERAL,
            RESIZE,
            connect("attach", "PodAttachOptions", CONNECT),
            connect("exec", "PodExecOptions", CONNECT),
            connect("portforward", "PodPortForwardOptions", CONNECT),
            connect("proxy", "PodProxyOptions", PROXY),
        ]),
        ("", "services") => subs.push(connect("proxy", "ServiceProxyOptions", PROXY)),
        ("", "nodes") => subs.push(connect("proxy", "NodeProxyOptions", PROXY)),
        _ => {}
    }
    if resource.names.group == "certificates.k8s.io" && resource.names.plural == "certificatesigningrequests" {
        subs.push(APPROVAL);
    }
    if is_namespaces(resource) {
        subs.push(FINALIZE);
    }
    subs
}
