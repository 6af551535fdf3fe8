//! Bounds of HTTP: those a container may set, and those of every message's head.

use std::time::Duration;

use http::HeaderMap;

/// Most fields in a message's header section.
pub const MAX_HEADERS: usize = 100;
/// Most bytes of a message's header section; counted as HTTP/2 does, 32 for each field beside its name and value.
pub const MAX_HEADER_BYTES: u32 = 32 << 10;
/// What a field costs beside its name and value, in bytes (RFC 9113, 10.5.1).
const FIELD_BYTES: usize = 32;

/// Bounds of an HTTP container.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    /// Requests one instance serves before it is replaced. 1: nothing is ever shared between requests.
    pub requests_per_instance: u32,
    /// Requests one instance serves at once, if its component is of WASI 0.3 (of 0.2: always one). A trap in one of them
    /// fails all.
    pub requests_at_once: u32,
    /// Requests served at once by all instances; more wait.
    pub max_concurrency: usize,
    /// Requests that wait; more are answered with 503.
    pub max_queued: usize,
    /// How long a request may wait for its turn (then 503), and how long the guest may take to send response
    /// headers (then 504).
    pub timeout: Duration,
    /// Most bytes of a request's body: a longer one is refused with 413 if it says its length, else its reader gets
    /// the error `HTTP-request-body-size`.
    pub max_body: u64,
    /// How long a body may stand still: a client that sends nothing of it fails its reader with
    /// `connection-read-timeout`, one that takes nothing of it loses the response.
    pub idle: Duration,
}

impl Default for HttpLimits {
    fn default() -> HttpLimits {
        HttpLimits {
            requests_per_instance: 1,
            requests_at_once: 1,
            max_concurrency: 256,
            max_queued: 1024,
            timeout: Duration::from_secs(60),
            max_body: 1 << 30,
            idle: Duration::from_secs(300),
        }
    }
}

/// Whether a header section is within [`MAX_HEADERS`] and [`MAX_HEADER_BYTES`]; its bytes if not.
pub(crate) fn check_headers(headers: &HeaderMap) -> Result<(), u32> {
    let size = |total: usize, (name, value): (&http::HeaderName, &http::HeaderValue)| {
        total.saturating_add(name.as_str().len() + value.len() + FIELD_BYTES)
    };
    let bytes = u32::try_from(headers.iter().fold(0, size)).unwrap_or(u32::MAX);
    if headers.len() > MAX_HEADERS || bytes > MAX_HEADER_BYTES { Err(bytes) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_sections_are_counted() {
        for (fields, length, expected) in [
            (0, 0, Ok(())),
            (100, 10, Ok(())),
            (101, 1, Err(101 * (5 + 1 + 32))),
            (1, 32_768 - 37, Ok(())),
            (1, 32_768 - 36, Err(32_769)),
        ] {
            let field = |at: usize| (http::HeaderName::try_from(format!("x-{at:03}")).unwrap(), "v".repeat(length));
            let headers = (0..fields).map(field).map(|(name, value)| (name, value.parse().unwrap())).collect();
            assert_eq!(check_headers(&headers), expected, "{fields} of {length}");
        }
    }
}
