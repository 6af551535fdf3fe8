//! Digests, names and tags, in the words of the OCI distribution specification.

use std::fmt;

use copepod_api::ApiError;
use sha2::{Digest as _, Sha256};

/// A content's SHA-256. Prints as `sha256:HEX`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Digest(String);

impl Digest {
    /// Parses `sha256:` and 64 lower-case hexadecimal digits; anything else is 400.
    pub fn parse(text: &str) -> Result<Self, ApiError> {
        let hex = text.strip_prefix("sha256:").unwrap_or_default();
        if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Self(hex.into()));
        }
        let shown: String = text.chars().take(100).collect();
        Err(ApiError::bad_request(format!(
            "{shown:?} is not a digest; one is sha256: and 64 lower-case hexadecimal digits"
        )))
    }
    /// The digits alone.
    pub fn hex(&self) -> &str {
        &self.0
    }
    pub(super) fn of(hash: Sha256) -> Self {
        Self(hash.finalize().iter().map(|b| format!("{b:02x}")).collect())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

/// Checks an image's name: at most 255 bytes of lower-case letters, digits, `.`, `_`, `-` in parts separated by `/`, each
/// beginning with a letter or digit. Anything else is 400.
pub fn check_name(name: &str) -> Result<(), ApiError> {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let part = |p: &str| {
        p.bytes().next().is_some_and(alphanumeric)
            && p.bytes().all(|b| alphanumeric(b) || matches!(b, b'.' | b'_' | b'-'))
    };
    if name.len() <= 255 && name.split('/').all(part) {
        return Ok(());
    }
    let shown: String = name.chars().take(100).collect();
    Err(ApiError::bad_request(format!(
        "{shown:?} is not an image name; one is lower-case letters, digits, '.', '_', '-' and '/', such as shop/web"
    )))
}

/// Checks a tag: at most 128 letters, digits, `.`, `_`, `-`, not beginning with `.` or `-`. Anything else is 400.
pub fn check_tag(tag: &str) -> Result<(), ApiError> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let good = tag.bytes().next().is_some_and(word) && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'));
    if good && tag.len() <= 128 {
        return Ok(());
    }
    let shown: String = tag.chars().take(100).collect();
    Err(ApiError::bad_request(format!("{shown:?} is not a tag; one is at most 128 letters, digits, '.', '_' and '-'")))
}
