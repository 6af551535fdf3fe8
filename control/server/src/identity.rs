//! Who makes a request.

/// The authenticated identity of a request: attached as an axum extension by the TLS listener (client certificate),
/// by bearer-token authentication, or by the in-process transport's layer. Every request carries exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// User name.
    pub user: String,
    /// Groups, `system:authenticated` or `system:unauthenticated` included.
    pub groups: Vec<String>,
}

impl Identity {
    /// An authenticated identity; adds `system:authenticated`.
    pub fn new(user: impl Into<String>, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(ToString::to_string).collect();
        groups.push(copepod_api::names::GROUP_AUTHENTICATED.into());
        Self { user: user.into(), groups }
    }
    /// The identity of a request without credentials.
    pub fn anonymous() -> Self {
        Self {
            user: copepod_api::names::USER_ANONYMOUS.into(),
            groups: vec![copepod_api::names::GROUP_UNAUTHENTICATED.into()],
        }
    }
    /// Whether the identity belongs to a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }
}
