//! Kubeconfig files with embedded credentials.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A kubeconfig whose only context is `copepod`.
pub(super) fn kubeconfig(server: &str, ca: &str, user: &str, cert: &str, key: &str) -> String {
    let (ca, cert, key) = (STANDARD.encode(ca), STANDARD.encode(cert), STANDARD.encode(key));
    format!(
        "apiVersion: v1
kind: Config
current-context: copepod
clusters:
- name: copepod
  cluster:
    server: \"{server}\"
    certificate-authority-data: {ca}
contexts:
- name: copepod
  context:
    cluster: copepod
    user: \"{user}\"
users:
- name: \"{user}\"
  user:
    client-certificate-data: {cert}
    client-key-data: {key}
"
    )
}
