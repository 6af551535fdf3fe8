//! The protobuf form of `apiregistration.k8s.io/v1`, whose package no registry has: the numbers and types of its fields,
//! and what Go's JSON makes of them. Source: the API of Kubernetes 1.36.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// The package, as a folder of Go's sources.
const DIR: &str = "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1";
/// Its name in protobuf.
const PACKAGE: &str = "k8s.io.kube_aggregator.pkg.apis.apiregistration.v1";
const META: &str = ".k8s.io.apimachinery.pkg.apis.meta.v1.";

/// Messages by name: fields as (type, name, number, facts); a `*` before the type is a list, a `.` a type of `META`.
/// Facts are the letters of `control/core/data/README.md`.
type Message = (&'static str, &'static [(&'static str, &'static str, u8, &'static str)]);

const MESSAGES: [Message; 6] = [
    (
        "APIService",
        &[(".ObjectMeta", "metadata", 1, ""), ("APIServiceSpec", "spec", 2, ""), ("APIServiceStatus", "status", 3, "")],
    ),
    (
        "APIServiceCondition",
        &[
            ("string", "type", 1, "k"),
            ("string", "status", 2, "k"),
            (".Time", "lastTransitionTime", 3, ""),
            ("string", "reason", 4, ""),
            ("string", "message", 5, ""),
        ],
    ),
    ("APIServiceList", &[(".ListMeta", "metadata", 1, ""), ("*APIService", "items", 2, "k")]),
    (
        "APIServiceSpec",
        &[
            ("ServiceReference", "service", 1, "p"),
            ("string", "group", 2, ""),
            ("string", "version", 3, ""),
            ("bool", "insecureSkipTLSVerify", 4, ""),
            ("bytes", "caBundle", 5, ""),
            ("int32", "groupPriorityMinimum", 7, "k"),
            ("int32", "versionPriority", 8, "k"),
        ],
    ),
    ("APIServiceStatus", &[("*APIServiceCondition", "conditions", 1, "")]),
    ("ServiceReference", &[("string", "namespace", 1, ""), ("string", "name", 2, ""), ("int32", "port", 3, "p")]),
];

/// Writes the package's messages among the others in `go`, and adds its facts.
///
/// # Errors
/// The file cannot be written.
pub fn add(go: &Path, facts: &mut BTreeMap<String, BTreeMap<String, Value>>) -> Result<()> {
    let mut text = format!(
        "syntax = \"proto2\";\npackage {PACKAGE};\nimport \"k8s.io/apimachinery/pkg/apis/meta/v1/generated.proto\";\n"
    );
    for (name, fields) in MESSAGES {
        writeln!(text, "message {name} {{")?;
        for (ty, field, number, fact) in fields {
            let (label, ty) = ty.strip_prefix('*').map_or(("optional", *ty), |ty| ("repeated", ty));
            let ty = ty.strip_prefix('.').map_or_else(|| ty.to_owned(), |meta| format!("{META}{meta}"));
            writeln!(text, "  {label} {ty} {field} = {number};")?;
            if !fact.is_empty() {
                let message = facts.entry(format!("{PACKAGE}.{name}")).or_default();
                message.insert((*field).to_owned(), json!({ *fact: true }));
            }
        }
        text.push_str("}\n");
    }
    let dir = go.join(DIR);
    fs::create_dir_all(&dir)?;
    fs::write(dir.join("generated.proto"), text).with_context(|| dir.display().to_string())
}
