//! What this server says of itself at `/version`.

/// The Kubernetes version whose API this server follows.
pub const KUBERNETES: &str = "1.36.0";

/// `gitVersion`: build metadata after `+` keeps it a release for version constraints, a `-` suffix would not.
pub fn git_version() -> String {
    format!("v{KUBERNETES}+copepod.{}", env!("CARGO_PKG_VERSION"))
}
