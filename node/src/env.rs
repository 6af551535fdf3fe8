//! PURE: a container's environment and argument vector.
//! Source: <https://kubernetes.io/docs/tasks/inject-data-application/>.

use std::collections::HashMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, Service};

use crate::fields::{self, Place};
use crate::refs::Refs;

/// Environment variables in order; later ones replace earlier ones of the same name.
#[derive(Debug, Default)]
struct Variables {
    list: Vec<(String, String)>,
    at: HashMap<String, usize>,
}

impl Variables {
    fn set(&mut self, name: String, value: String) {
        match self.at.get(&name).and_then(|i| self.list.get_mut(*i)) {
            Some(old) => old.1 = value,
            None => {
                self.at.insert(name.clone(), self.list.len());
                self.list.push((name, value));
            }
        }
    }
    fn get(&self, name: &str) -> Option<&str> {
        self.at.get(name).and_then(|i| self.list.get(*i)).map(|(_, v)| v.as_str())
    }
}

/// What the environment is built from.
pub struct Inputs<'a> {
    /// The pod.
    pub pod: &'a Pod,
    /// The container.
    pub container: &'a Container,
    /// ConfigMaps and Secrets found.
    pub refs: &'a Refs,
    /// Addresses and capacity.
    pub place: &'a Place,
    /// The services of the pod's namespace, and `kubernetes` in `default`.
    pub services: &'a [std::sync::Arc<Service>],
    /// The pod's host name.
    pub hostname: &'a str,
}

/// Builds the environment. The error is what `CreateContainerConfigError` shows.
pub fn environment(i: &Inputs<'_>) -> Result<Vec<(String, String)>, String> {
    let mut vars = Variables::default();
    vars.set("HOSTNAME".into(), i.hostname.into());
    let ns = i.pod.metadata.namespace.as_deref().unwrap_or_default();
    let links = i.pod.spec.as_ref().and_then(|s| s.enable_service_links).unwrap_or(true);
    for service in i.services {
        let m = &service.metadata;
        let is_api = m.namespace.as_deref() == Some("default") && m.name.as_deref() == Some("kubernetes");
        if is_api || (links && m.namespace.as_deref() == Some(ns)) {
            service_links(&mut vars, service);
        }
    }
    for source in i.container.env_from.iter().flatten() {
        let prefix = source.prefix.as_deref().unwrap_or_default();
        if let Some(r) = &source.config_map_ref {
            match i.refs.config_maps.get(&r.name) {
                Some(found) => {
                    for (k, v) in found.data.iter().flatten() {
                        vars.set(format!("{prefix}{k}"), v.clone());
                    }
                }
                None if r.optional.unwrap_or(false) => {}
                None => return Err(format!("configmap {:?} not found", r.name)),
            }
        }
        if let Some(r) = &source.secret_ref {
            match i.refs.secrets.get(&r.name) {
                Some(found) => {
                    for (k, v) in found.data.iter().flatten() {
                        vars.set(format!("{prefix}{k}"), String::from_utf8_lossy(&v.0).into_owned());
                    }
                }
                None if r.optional.unwrap_or(false) => {}
                None => return Err(format!("secret {:?} not found", r.name)),
            }
        }
    }
    for e in i.container.env.iter().flatten() {
        if let Some(from) = &e.value_from {
            if let Some(value) = from_source(i, ns, from)? {
                vars.set(e.name.clone(), value);
            }
        } else {
            let value = expand(e.value.as_deref().unwrap_or_default(), |name| vars.get(name).map(Into::into));
            vars.set(e.name.clone(), value);
        }
    }
    Ok(vars.list)
}

fn from_source(i: &Inputs<'_>, ns: &str, from: &EnvVarSource) -> Result<Option<String>, String> {
    if let Some(f) = &from.field_ref {
        return fields::field(i.pod, i.place, &f.field_path).map(Some);
    }
    if let Some(r) = &from.resource_field_ref {
        let named = r.container_name.as_deref().filter(|n| !n.is_empty());
        let containers = i.pod.spec.iter().flat_map(|s| s.containers.iter().chain(s.init_containers.iter().flatten()));
        let other = named.and_then(|name| containers.into_iter().find(|c| c.name == name));
        return fields::resource(other.unwrap_or(i.container), i.place, r).map(Some);
    }
    if let Some(r) = &from.config_map_key_ref {
        let optional = r.optional.unwrap_or(false);
        let Some(found) = i.refs.config_maps.get(&r.name) else {
            return if optional { Ok(None) } else { Err(format!("configmap {:?} not found", r.name)) };
        };
        return match found.data.as_ref().and_then(|d| d.get(&r.key)) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {} in ConfigMap {ns}/{}", r.key, r.name)),
        };
    }
    if let Some(r) = &from.secret_key_ref {
        let optional = r.optional.unwrap_or(false);
        let Some(found) = i.refs.secrets.get(&r.name) else {
            return if optional { Ok(None) } else { Err(format!("secret {:?} not found", r.name)) };
        };
        return match found.data.as_ref().and_then(|d| d.get(&r.key)) {
            Some(value) => Ok(Some(String::from_utf8_lossy(&value.0).into_owned())),
            None if optional => Ok(None),
            None => Err(format!("couldn't find key {} in Secret {ns}/{}", r.key, r.name)),
        };
    }
    Err("this kind of valueFrom is not supported by this node".into())
}

/// The variables by which a pod finds Services that were there before it.
fn service_links(vars: &mut Variables, service: &Service) {
    let (Some(name), Some(spec)) = (&service.metadata.name, &service.spec) else { return };
    let Some(ip) = spec.cluster_ip.as_deref().filter(|ip| !ip.is_empty() && *ip != "None") else { return };
    let upper = |s: &str| s.to_ascii_uppercase().replace('-', "_");
    let name = upper(name);
    for (n, port) in spec.ports.iter().flatten().enumerate() {
        let protocol = port.protocol.as_deref().unwrap_or("TCP");
        let url = format!("{}://{ip}:{}", protocol.to_ascii_lowercase(), port.port);
        if n == 0 {
            vars.set(format!("{name}_SERVICE_HOST"), ip.into());
            vars.set(format!("{name}_SERVICE_PORT"), port.port.to_string());
            vars.set(format!("{name}_PORT"), url.clone());
        }
        if let Some(port_name) = port.name.as_deref().filter(|n| !n.is_empty()) {
            vars.set(format!("{name}_SERVICE_PORT_{}", upper(port_name)), port.port.to_string());
        }
        let prefix = format!("{name}_PORT_{}_{protocol}", port.port);
        vars.set(prefix.clone(), url);
        vars.set(format!("{prefix}_PROTO"), protocol.to_ascii_lowercase());
        vars.set(format!("{prefix}_PORT"), port.port.to_string());
        vars.set(format!("{prefix}_ADDR"), ip.into());
    }
}

/// The argument vector: `command` or the component's file name, then `args`, with `$(VAR)` expanded.
pub fn arguments(container: &Container, file_name: &str, env: &[(String, String)]) -> Vec<String> {
    let lookup = |name: &str| env.iter().rev().find(|(k, _)| k == name).map(|(_, v)| v.clone());
    let command = container.command.as_deref().unwrap_or_default();
    let args = container.args.as_deref().unwrap_or_default();
    let mut out: Vec<String> = command.iter().map(|s| expand(s, lookup)).collect();
    if out.is_empty() {
        out.push(file_name.into());
    }
    out.extend(args.iter().map(|s| expand(s, lookup)));
    out
}

/// Replaces `$(NAME)`; `$$` stands for `$`, and unknown names stay as they are.
pub fn expand(text: &str, lookup: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        match after.strip_prefix('(').and_then(|a| a.split_once(')')) {
            Some((name, after)) => {
                match lookup(name) {
                    Some(value) => out.push_str(&value),
                    None => out.push_str(&format!("$({name})")),
                }
                rest = after;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};
    use std::sync::Arc;

    fn pod(container: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p", "namespace": "n", "uid": "u", "labels": {"app": "web"}},
            "spec": {"nodeName": "node-1", "serviceAccountName": "default", "containers": [container]},
        }))
        .unwrap()
    }
    fn refs() -> Refs {
        let cm = json!({"metadata": {"name": "cm"}, "data": {"a": "1", "b": "2"}});
        let secret = json!({"metadata": {"name": "sec"}, "data": {"k": "czNjcjN0"}});
        Refs {
            config_maps: [("cm".to_string(), Arc::new(serde_json::from_value(cm).unwrap()))].into(),
            secrets: [("sec".to_string(), Arc::new(serde_json::from_value(secret).unwrap()))].into(),
            ..Refs::default()
        }
    }
    fn services() -> Vec<Arc<Service>> {
        [("default", "kubernetes", "10.43.0.1", 443), ("n", "my-db", "10.43.0.7", 5432), ("other", "x", "10.43.0.8", 1)]
            .map(|(ns, name, ip, port)| {
                let v = json!({"metadata": {"name": name, "namespace": ns},
                    "spec": {"clusterIP": ip, "ports": [{"name": "main", "port": port}]}});
                Arc::new(serde_json::from_value(v).unwrap())
            })
            .into()
    }
    fn build(container: Value) -> Result<HashMap<String, String>, String> {
        let pod = pod(container);
        let place = Place {
            host_ips: vec!["10.0.0.1".parse().unwrap()],
            pod_ips: vec!["10.64.0.2".parse().unwrap()],
            node_cpus: 4,
            node_memory: 1 << 30,
        };
        let container = &pod.spec.as_ref().unwrap().containers[0];
        let services = services();
        let inputs = Inputs { pod: &pod, container, refs: &refs(), place: &place, services: &services, hostname: "p" };
        environment(&inputs).map(|list| list.into_iter().collect())
    }

    #[test]
    fn values_from_everywhere() {
        let cases = [
            (json!({"value": "x"}), "x"),
            (json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}), "p"),
            (json!({"valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}}), "web"),
            (json!({"valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}), "node-1"),
            (json!({"valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}), "10.64.0.2"),
            (json!({"valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}}), "10.0.0.1"),
            (json!({"valueFrom": {"configMapKeyRef": {"name": "cm", "key": "a"}}}), "1"),
            (json!({"valueFrom": {"secretKeyRef": {"name": "sec", "key": "k"}}}), "s3cr3t"),
            (json!({"valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}}), "1"),
            (json!({"valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1m"}}}), "500"),
            (json!({"valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}}), "1073741824"),
            (json!({"value": "$(FIRST)-$(MY_DB_SERVICE_HOST)-$$(FIRST)-$(NONE)"}), "1st-10.43.0.7-$(FIRST)-$(NONE)"),
        ];
        for (source, expected) in cases {
            let mut v = source.clone();
            v["name"] = json!("V");
            let container = json!({"name": "c", "resources": {"limits": {"cpu": "500m"}},
                "env": [{"name": "FIRST", "value": "1st"}, v]});
            assert_eq!(build(container).unwrap()["V"], expected, "{source}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let cases = [
            (
                json!({"env": [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "no", "key": "a"}}}]}),
                "configmap \"no\" not found",
            ),
            (
                json!({"env": [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "z"}}}]}),
                "couldn't find key z in ConfigMap n/cm",
            ),
            (
                json!({"env": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "z"}}}]}),
                "couldn't find key z in Secret n/sec",
            ),
            (json!({"envFrom": [{"secretRef": {"name": "no"}}]}), "secret \"no\" not found"),
            (
                json!({"env": [{"name": "V", "valueFrom": {"fieldRef": {"fieldPath": "spec.x"}}}]}),
                "unsupported fieldPath: spec.x",
            ),
        ];
        for (mut container, message) in cases {
            container["name"] = json!("c");
            assert_eq!(build(container).unwrap_err(), message);
        }
        let optional = json!({"name": "c", "envFrom": [{"configMapRef": {"name": "no", "optional": true}}],
            "env": [{"name": "V", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "z", "optional": true}}}]});
        assert!(!build(optional).unwrap().contains_key("V"));
    }

    #[test]
    fn env_from_prefixes_and_service_links() {
        let env = build(json!({"name": "c", "envFrom": [{"prefix": "X_", "configMapRef": {"name": "cm"}}]})).unwrap();
        assert_eq!((env["X_a"].as_str(), env["X_b"].as_str(), env["HOSTNAME"].as_str()), ("1", "2", "p"));
        assert_eq!(env["KUBERNETES_SERVICE_HOST"], "10.43.0.1");
        assert_eq!(env["MY_DB_PORT_5432_TCP"], "tcp://10.43.0.7:5432");
        assert_eq!(env["MY_DB_SERVICE_PORT_MAIN"], "5432");
        assert!(!env.contains_key("X_SERVICE_HOST"), "other namespaces' services are not linked");
    }

    #[test]
    fn argument_vectors() {
        let env = [("WHO".to_string(), "me".to_string())];
        let cases = [
            (json!({"name": "c"}), vec!["hello.wasm"]),
            (json!({"name": "c", "args": ["--name=$(WHO)"]}), vec!["hello.wasm", "--name=me"]),
            (json!({"name": "c", "command": ["x", "y"]}), vec!["x", "y"]),
            (json!({"name": "c", "command": ["$(WHO)"], "args": ["$$x", "$(", "5$"]}), vec!["me", "$x", "$(", "5$"]),
        ];
        for (container, expected) in cases {
            let container: Container = serde_json::from_value(container).unwrap();
            assert_eq!(arguments(&container, "hello.wasm", &env), expected);
        }
    }
}
