//! An app directory: its YAML objects and the components they name by relative path.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use copepod_api::image::name_like;
use serde_json::Value;

use crate::push;

/// What `copepod up` read.
#[derive(Default, Debug)]
pub struct App {
    /// Objects in file order, namespaces first.
    pub objects: Vec<Value>,
    /// `image:` values that are relative paths, with the file each means.
    images: BTreeMap<String, PathBuf>,
}

/// Reads a YAML file, or all `.yaml`, `.yml` and `.json` files of a directory in name order.
///
/// # Errors
/// Nothing to read, broken YAML (file, line and column), objects without kind, a component that is not there.
pub fn load(path: &Path) -> Result<App> {
    let mut app = App::default();
    for file in files(path)? {
        let text = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let documents = copepod_core::codec::yaml::decode_all(&text)
            .with_context(|| format!("{} is not valid YAML", file.display()))?;
        let folder = file.parent().unwrap_or(Path::new("."));
        for (n, object) in documents.into_iter().enumerate().flat_map(|(n, d)| items(d).map(move |o| (n, o))) {
            let named = ["/apiVersion", "/kind", "/metadata/name"]
                .iter()
                .all(|p| object.pointer(p).is_some_and(Value::is_string));
            ensure!(named, "{}: document {} needs apiVersion, kind and metadata.name", file.display(), n + 1);
            find_images(&object, folder, &mut app.images)?;
            app.objects.push(object);
        }
    }
    ensure!(!app.objects.is_empty(), "{} holds no objects: write a Deployment in YAML there", path.display());
    app.objects.sort_by_key(|o| o.get("kind").and_then(Value::as_str) != Some("Namespace"));
    Ok(app)
}

/// The objects of a document: a `kind: List` holds several (and `kubectl get -o yaml` prints such).
fn items(mut document: Value) -> impl Iterator<Item = Value> {
    let list = document.get("kind").and_then(Value::as_str).is_some_and(|k| k.ends_with("List"));
    match document.get_mut("items").map(Value::take) {
        Some(Value::Array(items)) if list => items.into_iter(),
        _ => vec![document].into_iter(),
    }
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    let shown = path.display();
    let metadata = std::fs::metadata(path).with_context(|| format!("cannot read {shown}"))?;
    if metadata.is_file() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(path).with_context(|| format!("cannot read {shown}"))? {
        let file = entry?.path();
        if matches!(file.extension().and_then(|e| e.to_str()), Some("yaml" | "yml" | "json")) {
            files.push(file);
        }
    }
    if files.is_empty() {
        bail!("{shown} has no .yaml, .yml or .json files");
    }
    files.sort();
    Ok(files)
}

/// Finds every `image` that is a relative path to a .wasm file.
fn find_images(value: &Value, folder: &Path, found: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(image) if key == "image" && is_path(image) => {
                        let file = folder.join(image);
                        ensure!(
                            file.is_file(),
                            "image {image}: there is no file {}: build the component first",
                            file.display()
                        );
                        found.insert(image.clone(), file);
                    }
                    other => find_images(other, folder, found)?,
                }
            }
            Ok(())
        }
        Value::Array(items) => items.iter().try_for_each(|item| find_images(item, folder, found)),
        _ => Ok(()),
    }
}

fn is_path(image: &str) -> bool {
    image.ends_with(".wasm") && (image.starts_with("./") || image.starts_with("../") || !image.starts_with('/'))
}

/// Sends the components and replaces their paths by name and digest.
///
/// # Errors
/// A file is no component, or the store refuses it.
pub async fn send_images(client: &kube::Client, app: &mut App) -> Result<()> {
    let mut references = BTreeMap::new();
    for (image, file) in &app.images {
        let digest = push::upload(client, push::read(file)?).await?;
        eprintln!("sent {} ({})", file.display(), digest.get(..19).unwrap_or(&digest));
        references.insert(image.clone(), reference(file, &digest));
    }
    for object in &mut app.objects {
        rewrite(object, &references);
    }
    Ok(())
}

/// A digest under a name made from the file's.
fn reference(file: &Path, digest: &str) -> String {
    let stem = file.file_stem().unwrap_or_default().to_string_lossy();
    format!("{}@{digest}", name_like(&stem))
}

fn rewrite(value: &mut Value, references: &BTreeMap<String, String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                match value {
                    Value::String(image) if key == "image" => {
                        if let Some(reference) = references.get(image) {
                            *image = reference.clone();
                        }
                    }
                    other => rewrite(other, references),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| rewrite(item, references)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn app(yaml: &str) -> (tempfile::TempDir, Result<App>) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("app.yaml"), yaml).unwrap();
        std::fs::write(dir.path().join("a.wasm"), b"\0asm").unwrap();
        let app = load(dir.path());
        (dir, app)
    }

    #[test]
    fn namespaces_come_first_and_images_are_rewritten() {
        let (_dir, app) = app(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers: [{name: c, image: ./a.wasm}, {name: d, image: 'x/y:1'}]\n---\n---\napiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n",
        );
        let mut app = app.unwrap();
        assert_eq!(app.objects[0]["kind"], "Namespace");
        assert!(app.images.contains_key("./a.wasm") && app.images.len() == 1);
        rewrite(&mut app.objects[1], &BTreeMap::from([("./a.wasm".to_string(), "a@sha256:0".to_string())]));
        assert_eq!(app.objects[1]["spec"]["containers"][0]["image"], "a@sha256:0");
        assert_eq!(app.objects[1]["spec"]["containers"][1]["image"], "x/y:1");
    }

    #[test]
    fn a_list_is_its_items() {
        let yaml = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: ConfigMap, metadata: {name: a}}\n- {apiVersion: v1, kind: Namespace, metadata: {name: b}}\n";
        let (_dir, read) = app(yaml);
        let kinds: Vec<_> = read.unwrap().objects.iter().map(|o| o["kind"].clone()).collect();
        assert_eq!(kinds, ["Namespace", "ConfigMap"]);
        let (_dir, read) = app(&yaml.replace("metadata: {name: a}", ""));
        assert!(format!("{:#}", read.unwrap_err()).contains("document 1 needs apiVersion"));
    }

    #[test]
    fn any_file_name_makes_a_valid_reference() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (file, name) in [("My App.wasm", "my-app"), ("../web.wasm", "web"), ("b/Hej_då.v1.wasm", "hej_d-v1")] {
            let text = reference(Path::new(file), &digest);
            assert_eq!(text, format!("{name}@{digest}"));
            assert!(text.parse::<copepod_api::image::Reference>().is_ok(), "{text}");
        }
    }

    #[test]
    fn mistakes_are_named() {
        for (yaml, words) in [
            ("kind: [", "app.yaml is not valid YAML"),
            ("kind: Pod\n", "needs apiVersion"),
            ("# nothing\n", "holds no objects"),
            (
                "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{image: ./b.wasm}]}\n",
                "build the component first",
            ),
        ] {
            let (_dir, app) = app(yaml);
            let error = format!("{:#}", app.unwrap_err());
            assert!(error.contains(words), "{yaml}: {error}");
        }
    }
}
