//! `copepod push`: a component into the cluster's image store.

use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use copepod_api::image::{Digest, MAX_BLOB, Reference, Tag, Version, encode_segment};
use copepod_api::names::IMAGES_PATH;
use sha2::{Digest as _, Sha256};

use crate::cli::PushArgs;
use crate::kubeconfig;

/// Runs the command.
pub async fn run(args: PushArgs) -> Result<()> {
    let Reference { name, version: Version::Tag(tag) } = args.name.parse()? else {
        bail!("{}: a component is pushed under a NAME[:TAG], such as shop/web:1; its digest follows", args.name);
    };
    let component = read(&args.file)?;
    let client = kubeconfig::client(args.kubeconfig.as_deref()).await?;
    let digest = upload(&client, component).await?;
    tag_as(&client, &name, &tag, &Tag { digest: digest.clone(), file: file_name(&args.file) }).await?;
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
    ensure!(size <= MAX_BLOB, "{shown} has {size} bytes; the image store takes at most {MAX_BLOB}");
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
    let digest = Digest::from(<[u8; 32]>::from(Sha256::digest(&component))).to_string();
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
pub async fn tag_as(client: &kube::Client, name: &str, tag: &str, record: &Tag) -> Result<()> {
    let body = serde_json::to_vec(record)?;
    let path = format!("{IMAGES_PATH}/tags/{}/{}", encode_segment(name), encode_segment(tag));
    let put = http::Request::put(path).header("content-type", "application/json").body(body)?;
    client.request_text(put).await.with_context(|| format!("the image store refused the name {name}:{tag}"))?;
    Ok(())
}

/// The last part of a path: what a container finds as its argv[0].
pub fn file_name(file: &Path) -> String {
    file.file_name().map_or_else(|| "app.wasm".into(), |n| n.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_files_are_refused_with_advice() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "#!/bin/sh").unwrap();
        let error = read(file.path()).unwrap_err().to_string();
        assert!(error.contains("not WebAssembly") && error.contains("wasm32-wasip2"), "{error}");
    }
}
