//! The one grammar of resource URLs: every verb of every resource is reached through [`parse`].

/// What a request's path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Path {
    /// `/api`: the core group's versions.
    CoreVersions,
    /// `/apis`: all other groups.
    Groups,
    /// `/apis/{group}`.
    Group(String),
    /// `/api/{version}` or `/apis/{group}/{version}`.
    Version {
        /// API group, `""` for core.
        group: String,
        /// API version.
        version: String,
    },
    /// Anything below a group version.
    Resource(Target),
}

/// The parts of a resource URL.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Target {
    /// API group, `""` for core.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace, if the path has one.
    pub namespace: Option<String>,
    /// Lower-case plural.
    pub resource: String,
    /// Object name.
    pub name: Option<String>,
    /// Subresource.
    pub subresource: Option<String>,
    /// The older form of a watch: `/api/v1/watch/pods`.
    pub watch: bool,
}

/// Parses a path; `None` if it is not one of the resource API.
pub(crate) fn parse(path: &str) -> Option<Path> {
    let mut parts = Vec::new();
    for part in path.trim_matches('/').split('/') {
        parts.push(percent_decode(part)?);
    }
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["api"] => Some(Path::CoreVersions),
        ["apis"] => Some(Path::Groups),
        ["apis", group] => Some(Path::Group((*group).into())),
        ["api", version] => Some(Path::Version { group: String::new(), version: (*version).into() }),
        ["apis", group, version] => Some(Path::Version { group: (*group).into(), version: (*version).into() }),
        ["api", version, rest @ ..] => target("", version, rest).map(Path::Resource),
        ["apis", group, version, rest @ ..] => target(group, version, rest).map(Path::Resource),
        _ => None,
    }
}

fn target(group: &str, version: &str, rest: &[&str]) -> Option<Target> {
    let mut t = Target { group: group.into(), version: version.into(), ..Target::default() };
    let rest = match rest {
        ["watch", inner @ ..] if !inner.is_empty() => {
            t.watch = true;
            inner
        }
        other => other,
    };
    // `namespaces/x/status` and `namespaces/x/finalize` are the namespace's own subresources, not resources in it.
    let rest = match rest {
        ["namespaces", _, "status" | "finalize"] => rest,
        ["namespaces", namespace, inner @ ..] if !inner.is_empty() => {
            t.namespace = Some((*namespace).into());
            inner
        }
        other => other,
    };
    match rest {
        [resource] => t.resource = (*resource).into(),
        [resource, name] => {
            t.resource = (*resource).into();
            t.name = Some((*name).into());
        }
        // What follows a proxy's name is the path at its target.
        [resource, name, subresource @ "proxy", ..] | [resource, name, subresource] => {
            t.resource = (*resource).into();
            t.name = Some((*name).into());
            t.subresource = Some((*subresource).into());
        }
        _ => return None,
    }
    let parts = [t.namespace.as_deref(), Some(t.resource.as_str()), t.name.as_deref(), t.subresource.as_deref()];
    let sound = parts.into_iter().flatten().all(is_segment);
    sound.then_some(t)
}

/// Keys of the store are `/`-separated, so a decoded segment must be one.
fn is_segment(s: &str) -> bool {
    !s.is_empty() && s != "." && s != ".." && !s.contains('/') && !s.contains('\0')
}

fn percent_decode(s: &str) -> Option<String> {
    if !s.contains('%') {
        return Some(s.to_string());
    }
    let mut out = Vec::with_capacity(s.len());
    let mut bytes = s.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(b);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(path: &str) -> String {
        match parse(path) {
            None => "none".into(),
            Some(Path::Resource(t)) => format!(
                "{}|{}|{}|{}|{}|{}",
                t.group,
                t.version,
                t.namespace.unwrap_or_default(),
                t.resource,
                t.name.unwrap_or_default(),
                t.subresource.unwrap_or_default()
            ),
            Some(other) => format!("{other:?}"),
        }
    }

    #[test]
    fn paths() {
        for (path, want) in [
            ("/api", "CoreVersions"),
            ("/apis/", "Groups"),
            ("/apis/apps", "Group(\"apps\")"),
            ("/api/v1/pods", "|v1||pods||"),
            ("/api/v1/namespaces", "|v1||namespaces||"),
            ("/api/v1/namespaces/a", "|v1||namespaces|a|"),
            ("/api/v1/namespaces/a/status", "|v1||namespaces|a|status"),
            ("/api/v1/namespaces/a/finalize", "|v1||namespaces|a|finalize"),
            ("/api/v1/namespaces/a/pods", "|v1|a|pods||"),
            ("/api/v1/namespaces/a/pods/p/log", "|v1|a|pods|p|log"),
            ("/apis/apps/v1/namespaces/a/deployments/d", "apps|v1|a|deployments|d|"),
            ("/apis/apps/v1/namespaces/a/deployments/system%3Ad", "apps|v1|a|deployments|system:d|"),
            ("/apis/apps/v1/namespaces/a/deployments/x%2Fy", "none"),
            ("/api/v1/namespaces/../pods", "none"),
            ("/api/v1/namespaces/a/pods/p/log/more", "none"),
            ("/api/v1/watch/namespaces/a/pods/p", "|v1|a|pods|p|"),
            ("/apis/apps/v1/watch/deployments", "apps|v1||deployments||"),
            ("/api/v1/watch", "|v1||watch||"),
            ("/other", "none"),
            ("/api/v1/pods/%zz", "none"),
        ] {
            assert_eq!(show(path), want, "{path}");
        }
    }
}
