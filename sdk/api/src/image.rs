//! Images: references, digests and tags in the words of the OCI distribution specification, and the image store's
//! wire form. Source: <https://github.com/opencontainers/distribution-spec/blob/main/spec.md#pulling-manifests>.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::ApiError;

/// The largest module that the image store and the nodes take, in bytes.
pub const MAX_BLOB: u64 = 256 << 20;
/// Longest image name, in bytes.
const MAX_NAME: usize = 255;
/// Longest tag, in bytes.
const MAX_TAG: usize = 128;

/// A malformed name, tag or digest; says what is expected. 400 to clients.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidImage(String);

impl InvalidImage {
    fn new(text: &str, what: &str) -> Self {
        let shown: String = text.chars().take(100).collect();
        Self(format!("{shown:?} is not {what}"))
    }
}

impl From<InvalidImage> for ApiError {
    fn from(error: InvalidImage) -> Self {
        Self::bad_request(error.0)
    }
}

/// An image's parsed name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Name, with slashes.
    pub name: String,
    /// What it points to.
    pub version: Version,
}

/// A tag or a digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// A tag; `latest` if none is given.
    Tag(String),
    /// A module.
    Digest(Digest),
}

impl Reference {
    /// The file name by which a container of a digest reference calls itself: the name's last part.
    pub fn file_name(&self) -> String {
        let last = self.name.rsplit('/').next().unwrap_or(&self.name);
        if last.ends_with(".wasm") { last.into() } else { format!("{last}.wasm") }
    }
}

/// `NAME[:TAG]` or `NAME@sha256:HEX`.
impl FromStr for Reference {
    type Err = InvalidImage;
    fn from_str(text: &str) -> Result<Self, InvalidImage> {
        let (name, version) = match text.split_once('@') {
            Some((name, digest)) => (name, Version::Digest(digest.parse()?)),
            None => {
                let (name, tag) = text.split_once(':').unwrap_or((text, "latest"));
                check_tag(tag)?;
                (name, Version::Tag(tag.into()))
            }
        };
        check_name(name)?;
        Ok(Self { name: name.into(), version })
    }
}

/// Checks an image's name: at most 255 bytes; parts separated by `/`, each of `a-z` and `0-9` with single `.`, one or two
/// `_`, or any number of `-` between them.
pub fn check_name(name: &str) -> Result<(), InvalidImage> {
    let part = |part: &str| {
        let ends = part.starts_with(alphanumeric) && part.ends_with(alphanumeric);
        ends && part.split(alphanumeric).all(|between| between.is_empty() || is_separator(between))
    };
    if name.len() <= MAX_NAME && name.split('/').all(part) {
        return Ok(());
    }
    let what =
        "an image name; one is lower-case letters and digits with '.', '_', '-' and '/' between them, such as shop/web";
    Err(InvalidImage::new(name, what))
}

/// Checks a tag: at most 128 letters, digits, `_`, `.` and `-`, the first neither `.` nor `-`.
pub fn check_tag(tag: &str) -> Result<(), InvalidImage> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if tag.len() <= MAX_TAG && tag.starts_with(word) && tag.chars().all(|c| word(c) || matches!(c, '.' | '-')) {
        return Ok(());
    }
    Err(InvalidImage::new(tag, "a tag; one is at most 128 letters, digits, '.', '_' and '-', such as 1.2"))
}

/// A valid image name of one part that resembles a text such as a file's name: lower case, with `-` in place of what no
/// name has; `app` if nothing remains.
pub fn name_like(text: &str) -> String {
    let (mut name, mut between) = (String::new(), String::new());
    for c in text.chars().take(MAX_NAME).map(|c| c.to_ascii_lowercase()) {
        if !alphanumeric(c) {
            between.push(c);
            continue;
        }
        if !name.is_empty() && !between.is_empty() {
            name.push_str(if is_separator(&between) { &between } else { "-" });
        }
        between.clear();
        name.push(c);
    }
    if name.is_empty() { "app".into() } else { name }
}

fn alphanumeric(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn is_separator(text: &str) -> bool {
    matches!(text, "." | "_" | "__") || text.bytes().all(|b| b == b'-')
}

/// A content's SHA-256, as `sha256:` and 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Digest(String);

impl Digest {
    const PREFIX: &str = "sha256:";

    /// The whole text, `sha256:HEX`.
    pub fn as_str(&self) -> &str {
        &self.0
    }
    /// The digits alone.
    pub fn hex(&self) -> &str {
        self.0.strip_prefix(Self::PREFIX).unwrap_or_default()
    }
}

/// From a finished SHA-256.
impl From<[u8; 32]> for Digest {
    fn from(hash: [u8; 32]) -> Self {
        let hex: String = hash.iter().map(|b| format!("{b:02x}")).collect();
        Self(format!("{}{hex}", Self::PREFIX))
    }
}

impl FromStr for Digest {
    type Err = InvalidImage;
    fn from_str(text: &str) -> Result<Self, InvalidImage> {
        let hex = text.strip_prefix(Self::PREFIX).unwrap_or_default();
        if hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Self(text.into()));
        }
        Err(InvalidImage::new(text, "a digest; one is sha256: and 64 lower-case hexadecimal digits"))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a name and tag stand for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tag {
    /// `sha256:HEX`; whoever reads the record checks it ([`Digest`]).
    pub digest: String,
    /// The file name that a container without `command` finds as its argv\[0\].
    pub file: String,
}

/// Percent-encodes a text as one segment of a path, or one value of a query.
pub fn encode_segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(b)),
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let hex = "a".repeat(64);
        let long = "n".repeat(MAX_NAME);
        let tag = |name: &str, tag: &str| Ok((name.to_string(), Version::Tag(tag.into())));
        let digest = |name: &str| Ok((name.to_string(), Version::Digest(Digest::from([0xaa; 32]))));
        let cases = [
            ("hello".to_string(), tag("hello", "latest")),
            ("shop/web:1.2".into(), tag("shop/web", "1.2")),
            ("a.b_c__d---e/0:_A.b-".into(), tag("a.b_c__d---e/0", "_A.b-")),
            (format!("{long}:{}", "t".repeat(MAX_TAG)), tag(&long, &"t".repeat(MAX_TAG))),
            (format!("x@sha256:{hex}"), digest("x")),
            (format!("{long}n:1"), Err("an image name")),
            (format!("x:{}", "t".repeat(MAX_TAG + 1)), Err("a tag")),
            ("x@sha256:12".into(), Err("a digest")),
            (format!("x@sha256:{}", hex.to_uppercase()), Err("a digest")),
            (format!("x:1@sha256:{hex}"), Err("an image name")),
            (format!("@sha256:{hex}"), Err("an image name")),
            ("".into(), Err("an image name")),
            ("Web:1".into(), Err("an image name")),
            ("../x:1".into(), Err("an image name")),
            ("/web".into(), Err("an image name")),
            ("web/".into(), Err("an image name")),
            ("web/_tags".into(), Err("an image name")),
            ("a..b".into(), Err("an image name")),
            ("a.-b".into(), Err("an image name")),
            ("a-".into(), Err("an image name")),
            ("müsli".into(), Err("an image name")),
            ("x:".into(), Err("a tag")),
            ("x:-1".into(), Err("a tag")),
            ("x:a b".into(), Err("a tag")),
            ("a:b:c".into(), Err("a tag")),
            ("localhost:5000/x".into(), Err("a tag")),
        ];
        for (text, expected) in cases {
            match (text.parse::<Reference>(), expected) {
                (Ok(r), Ok(expected)) => assert_eq!((r.name, r.version), expected, "{text}"),
                (Err(e), Err(what)) => assert!(e.to_string().contains(&format!("is not {what};")), "{text}: {e}"),
                (got, expected) => panic!("{text}: {got:?} instead of {expected:?}"),
            }
        }
        for (name, file) in [("shop/web", "web.wasm"), ("web.wasm", "web.wasm")] {
            assert_eq!(format!("{name}@sha256:{hex}").parse::<Reference>().unwrap().file_name(), file);
        }
    }

    #[test]
    fn names_like_other_texts() {
        let long = "X".repeat(300);
        for (text, name) in [
            ("My App", "my-app"),
            ("web_1.2", "web_1.2"),
            ("_Héllo (copy)_", "h-llo-copy"),
            ("a.-b", "a-b"),
            ("../x", "x"),
            ("日本", "app"),
            ("", "app"),
            (&long, &"x".repeat(MAX_NAME)),
        ] {
            assert_eq!(name_like(text), name, "{text}");
            check_name(&name_like(text)).unwrap();
        }
    }

    #[test]
    fn digests_print_as_they_parse() {
        let digest = Digest::from([0x0f; 32]);
        assert_eq!(digest.to_string(), format!("sha256:{}", "0f".repeat(32)));
        assert_eq!((digest.hex(), digest.as_str().parse()), ("0f".repeat(32).as_str(), Ok(digest.clone())));
    }

    #[test]
    fn segments() {
        assert_eq!(encode_segment("shop/web:1 ü%~"), "shop%2Fweb%3A1%20%C3%BC%25~");
    }
}
