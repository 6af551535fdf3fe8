//! What guests may import, by name: read from a component before anything of it runs.

use wasmtime::Engine;
use wasmtime::component::types::{Component, ComponentItem};

/// Interfaces that this node offers: package, version, names. A guest built for a compatible version may import them.
const OFFERED: &[(&str, &str, &[&str])] = &[
    ("wasi:io", "0.2.12", &["error", "poll", "streams"]),
    ("wasi:clocks", "0.2.12", &["monotonic-clock", "wall-clock"]),
    ("wasi:random", "0.2.12", &["random", "insecure", "insecure-seed"]),
    ("wasi:cli", "0.2.12", CLI),
    ("wasi:filesystem", "0.2.12", &["types", "preopens"]),
    ("wasi:sockets", "0.2.12", SOCKETS),
    ("wasi:http", "0.2.12", &["types", "outgoing-handler"]),
    ("wasi:clocks", "0.3.0", &["monotonic-clock", "system-clock"]),
    ("wasi:random", "0.3.0", &["random", "insecure", "insecure-seed"]),
    ("wasi:cli", "0.3.0", CLI),
    ("wasi:filesystem", "0.3.0", &["types", "preopens"]),
    ("wasi:sockets", "0.3.0", &["types", "ip-name-lookup"]),
    ("wasi:http", "0.3.0", &["types", "client"]),
    ("wasi:config", "0.2.0-rc.1", &["store"]),
    ("wasi:logging", "0.1.0-draft", &["logging"]),
    ("wasi:logging", "", &["logging"]),
];

const CLI: &[&str] = &[
    "environment",
    "exit",
    "stdin",
    "stdout",
    "stderr",
    "terminal-input",
    "terminal-output",
    "terminal-stdin",
    "terminal-stdout",
    "terminal-stderr",
];

const SOCKETS: &[&str] =
    &["network", "instance-network", "ip-name-lookup", "tcp", "tcp-create-socket", "udp", "udp-create-socket"];

/// The imports of a component that this node lacks, by their full names. Interfaces that only name types are none.
pub(crate) fn missing(engine: &Engine, component: &Component) -> Vec<String> {
    let calls = |item: &ComponentItem| match item {
        ComponentItem::ComponentInstance(instance) => instance
            .exports(engine)
            .any(|(_, export)| matches!(export.ty, ComponentItem::ComponentFunc(_) | ComponentItem::Resource(_))),
        ComponentItem::Type(_) => false,
        _ => true,
    };
    let lacks = component.imports(engine).filter(|(name, import)| calls(&import.ty) && !is_offered(name));
    lacks.map(|(name, _)| name.to_owned()).collect()
}

fn is_offered(import: &str) -> bool {
    let (path, version) = import.split_once('@').unwrap_or((import, ""));
    let Some((package, name)) = path.split_once('/') else { return false };
    OFFERED
        .iter()
        .any(|(offered, at, names)| *offered == package && track(at) == track(version) && names.contains(&name))
}

/// What compatible versions have in common: the major number, below 1 the minor too, of pre-releases everything.
fn track(version: &str) -> &str {
    if version.contains('-') {
        return version;
    }
    let dots: Vec<usize> = version.match_indices('.').map(|(at, _)| at).collect();
    let end = if version.starts_with("0.") { dots.get(1) } else { dots.first() };
    end.and_then(|end| version.get(..*end)).unwrap_or(version)
}

#[cfg(test)]
pub(crate) fn offered() -> Vec<String> {
    let name = |package: &str, version: &str, name: &str| match version {
        "" => format!("{package}/{name}"),
        _ => format!("{package}/{name}@{version}"),
    };
    OFFERED.iter().flat_map(|(package, version, names)| names.iter().map(|n| name(package, version, n))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_that_fit() {
        for (import, expected) in [
            ("wasi:io/poll@0.2.0", true),
            ("wasi:io/poll@0.2.99", true),
            ("wasi:io/poll@0.3.0", false),
            ("wasi:io/poll@0.2.0-rc-2023-11-10", false),
            ("wasi:io/poll", false),
            ("wasi:io/pool@0.2.0", false),
            ("wasi:http/client@0.3.2", true),
            ("wasi:sockets/types@0.3.2", true),
            ("wasi:sockets/tcp@0.3.0", false),
            ("wasi:config/store@0.2.0-rc.1", true),
            ("wasi:config/store@0.2.0-draft", false),
            ("wasi:logging/logging", true),
            ("wasi:logging/logging@0.1.0-draft", true),
            ("acme:db/query@1.0.0", false),
            ("query", false),
        ] {
            assert_eq!(is_offered(import), expected, "{import}");
        }
        for (version, expected) in [("0.2.12", "0.2"), ("1.2.3", "1"), ("0.2.0-rc.1", "0.2.0-rc.1"), ("", "")] {
            assert_eq!(track(version), expected);
        }
    }
}
