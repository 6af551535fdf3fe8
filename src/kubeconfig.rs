//! Clients from a kubeconfig, with errors for people.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

/// A client for the cluster that the kubeconfig names.
///
/// # Errors
/// No kubeconfig is given, or it cannot be used.
pub async fn client(path: Option<&Path>) -> Result<kube::Client> {
    let Some(path) = path else {
        bail!(
            "which cluster? Set KUBECONFIG or pass --kubeconfig FILE; `copepod server` writes DATA_DIR/admin.kubeconfig \
             (for you: {})",
            crate::data_dir::default_path()
                .unwrap_or_else(|_| PathBuf::from("DATA_DIR"))
                .join("admin.kubeconfig")
                .display()
        );
    };
    copepod_client::transport::https(path, "copepod")
        .await
        .with_context(|| format!("cannot use the kubeconfig {}", path.display()))
}
