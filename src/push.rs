//! `copepod push`: a component into the cluster's image store.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use copepod_api::names::IMAGES_PATH;
use sha2::{Digest, Sha256};

use crate::cli::PushArgs;
use crate::kubeconfig;

/// Largest component that is sent, in bytes; the server's own bound.
const MAX_BYTES: u64 = 256 << 20;

/// Runs the command.
pub async fn run(args: PushArgs) -> Result<()> {
    let (name, tag) = split_name(&args.name)?;
    let component = read(&args.file)?;
    let client = kubeconfig::client(args.kubeconfig.as_deref()).await?;
    let digest = upload(&client, component).await?;
    tag_as(&client, name, tag, &digest, &file_name(&args.file)).await?;
    println!("pushed {name}:{tag} ({digest})");
    Ok(())
}

/// Reads a component and checks that it is WebAssembly at all.
///
/// # Errors
/// It cannot be read, is too large, or is something else.
pub fn read(file: &Path) -> Result<Vec<u8>> {
    let shown = file.display();
    let size = std::fs::metadata(file).with_context(|| format!("cannot read {shown}"))?.len();
    ensure!(size <= MAX_BYTES, "{shown} has {size} bytes; the image store takes at most {MAX_BYTES}");
    let bytes = std::fs::read(file).with_context(|| format!("cannot read {shown}"))?;
    if !bytes.starts_with(b"\0asm") {
        bail!(
            "{shown} is not WebAssembly: it does not begin with the bytes 00 61 73 6d. Build a component, for example \
               with `cargo build --release --target wasm32-wasip2`"
        );
    }
    Ok(bytes)
}

/// Sends a component, unless the store has it; returns its digest (`sha256:HEX`).
pub async fn upload(client: &kube::Client, component: Vec<u8>) -> Result<String> {
    let hex: String = Sha256::digest(&component).iter().map(|b| format!("{b:02x}")).collect();
    let digest = format!("sha256:{hex}");
    let path = format!("{IMAGES_PATH}/blobs/{digest}");
    let head = http::Request::head(&path).body(kube::client::Body::empty())?;
    if client.send(head).await.context("cannot reach the API server")?.status().is_success() {
        return Ok(digest);
    }
    let put = http::Request::put(&path).header("content-type", "application/wasm").body(component)?;
    client.request_text(put).await.context("the image store refused the component")?;
    Ok(digest)
}

/// Lets `NAME:TAG` mean a component.
pub async fn tag_as(client: &kube::Client, name: &str, tag: &str, digest: &str, file: &str) -> Result<()> {
    let body = serde_json::to_vec(&serde_json::json!({"digest": digest, "file": file}))?;
    let path = format!("{IMAGES_PATH}/tags/{}/{tag}", name.replace('/', "%2F"));
    let put = http::Request::put(path).header("content-type", "application/json").body(body)?;
    client.request_text(put).await.with_context(|| format!("the image store refused the name {name}:{tag}"))?;
    Ok(())
}

/// The last part of a path: what a container finds as its argv[0].
pub fn file_name(file: &Path) -> String {
    file.file_name().map_or_else(|| "app.wasm".into(), |n| n.to_string_lossy().into_owned())
}

/// `NAME[:TAG]` in the words of the OCI distribution specification: lower-case path parts, a tag of word characters.
fn split_name(text: &str) -> Result<(&str, &str)> {
    let (name, tag) = match text.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (text, "latest"),
    };
    let part = |p: &str| {
        p.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && p.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c))
    };
    ensure!(
        name.len() <= 255 && name.split('/').all(part),
        "{text}: a name is lower-case letters, digits, `.`, `_`, `-` and `/`, such as shop/web:1"
    );
    let tag_ok =
        !tag.is_empty() && tag.len() <= 128 && tag.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    ensure!(tag_ok, "{text}: a tag is at most 128 letters, digits, `.`, `_` and `-`, such as shop/web:1");
    Ok((name, tag))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_tags() {
        assert_eq!(split_name("web").unwrap(), ("web", "latest"));
        assert_eq!(split_name("shop/web:1.2").unwrap(), ("shop/web", "1.2"));
        for bad in ["", "Web", "web:", "web:a b", "/web", "web/", "a:b:c d", "../x"] {
            assert!(split_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn other_files_are_refused_with_advice() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "#!/bin/sh").unwrap();
        let error = read(file.path()).unwrap_err().to_string();
        assert!(error.contains("not WebAssembly") && error.contains("wasm32-wasip2"), "{error}");
    }
}
