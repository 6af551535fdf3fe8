//! Shared validation: names, labels, quantities, ports, addresses. The messages are part of the API (people and tests
//! read them), so they are worded as upstream words them. A check returns the first rule that is broken.

mod object_meta;

pub use object_meta::{annotations, labels, object_meta, object_meta_update, standard_finalizers};

use std::net::IpAddr;

use copepod_api::{FieldError, MAX_FIELD_ERRORS, Quantity};
use serde_json::Value;

/// Longest DNS-1123 or DNS-1035 label in bytes.
pub const MAX_LABEL_BYTES: usize = 63;
/// Longest DNS-1123 subdomain in bytes: the limit of most object names.
pub const MAX_SUBDOMAIN_BYTES: usize = 253;
/// Most bytes of all annotation keys and values of one object.
pub const MAX_ANNOTATIONS_BYTES: usize = 256 * 1024;
/// Longest port name in bytes.
pub const MAX_PORT_NAME_BYTES: usize = 15;
/// Upstream's wording of "no change allowed".
pub const IMMUTABLE: &str = "field is immutable";
/// Upstream's wording of a negative count.
pub const NON_NEGATIVE: &str = "must be greater than or equal to 0";

const QUALIFIED_NAME: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an \
    alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
    '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";

/// `Ok` or the rule that was broken.
pub type Check = Result<(), String>;

fn rule(holds: bool, message: &str) -> Check {
    if holds { Ok(()) } else { Err(message.to_string()) }
}

fn no_longer_than(value: &str, max: usize) -> Check {
    rule(value.len() <= max, &format!("must be no more than {max} bytes"))
}

fn edges(value: &str, ok: impl Fn(u8) -> bool) -> bool {
    let bytes = value.as_bytes();
    bytes.first().is_some_and(|b| ok(*b)) && bytes.last().is_some_and(|b| ok(*b))
}

fn lower_alnum(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(value: &str) -> bool {
    edges(value, lower_alnum) && value.bytes().all(|b| lower_alnum(b) || b == b'-')
}

/// A DNS label (RFC 1123): names of namespaces, containers, volumes.
pub fn dns1123_label(value: &str) -> Check {
    no_longer_than(value, MAX_LABEL_BYTES)?;
    rule(!value.contains('.') || dns1123_subdomain(value).is_err(), "must not contain dots")?;
    rule(
        is_label(value),
        "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end \
         with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
    )
}

/// A DNS subdomain (RFC 1123): most objects' names.
pub fn dns1123_subdomain(value: &str) -> Check {
    no_longer_than(value, MAX_SUBDOMAIN_BYTES)?;
    rule(
        value.split('.').all(is_label),
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start \
         and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    )
}

/// A DNS subdomain whose labels may have underscores inside: search domains.
pub fn dns1123_subdomain_with_underscore(value: &str) -> Check {
    no_longer_than(value, MAX_SUBDOMAIN_BYTES)?;
    let is_label =
        |label: &str| edges(label, lower_alnum) && label.bytes().all(|b| lower_alnum(b) || b"-_".contains(&b));
    rule(
        value.split('.').all(is_label),
        "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must \
         start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is \
         '[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')",
    )
}

/// A DNS label that starts with a letter (RFC 1035): Services' names.
pub fn dns1035_label(value: &str) -> Check {
    no_longer_than(value, MAX_LABEL_BYTES)?;
    rule(
        is_label(value) && value.bytes().next().is_some_and(|b| b.is_ascii_lowercase()),
        "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic \
         character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation \
         is '[a-z]([-a-z0-9]*[a-z0-9])?')",
    )
}

/// A label key: an optional DNS prefix and `/`, then a name.
pub fn qualified_name(value: &str) -> Check {
    let name = match value.split('/').collect::<Vec<_>>().as_slice() {
        [name] => *name,
        [prefix, name] => {
            rule(!prefix.is_empty(), "prefix part must be non-empty")?;
            dns1123_subdomain(prefix).map_err(|m| format!("prefix part {m}"))?;
            name
        }
        _ => {
            return Err(format!(
                "a qualified name {QUALIFIED_NAME} with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')"
            ));
        }
    };
    rule(!name.is_empty(), "name part must be non-empty")?;
    no_longer_than(name, MAX_LABEL_BYTES).map_err(|m| format!("name part {m}"))?;
    rule(is_name_part(name), &format!("name part {QUALIFIED_NAME}"))
}

fn is_name_part(value: &str) -> bool {
    edges(value, |b| b.is_ascii_alphanumeric())
        && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// A label's value; empty is fine.
pub fn label_value(value: &str) -> Check {
    no_longer_than(value, MAX_LABEL_BYTES)?;
    rule(
        value.is_empty() || is_name_part(value),
        "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start \
         and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
         validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')",
    )
}

/// A key of a ConfigMap or Secret.
pub fn config_key(value: &str) -> Check {
    no_longer_than(value, MAX_SUBDOMAIN_BYTES)?;
    rule(
        !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')),
        "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or \
         'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')",
    )?;
    rule(value != ".", "must not be '.'")?;
    rule(value != "..", "must not be '..'")?;
    rule(!value.starts_with(".."), "must not start with '..'")
}

/// An environment variable's name.
pub fn env_name(value: &str) -> Check {
    rule(!value.is_empty(), "environment variable name must be non-empty")?;
    rule(
        value.bytes().all(|b| (b' '..=b'~').contains(&b) && b != b'='),
        "a valid environment variable name must consist only of printable ASCII characters other than '='",
    )
}

/// The name of an HTTP header.
pub fn http_header_name(value: &str) -> Check {
    rule(
        !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'),
        "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. 'X-Header-Name', regex used for \
         validation is '[-A-Za-z0-9]+')",
    )
}

/// A port number.
pub fn port(value: i64) -> Check {
    rule((1..=65_535).contains(&value), "must be between 1 and 65535, inclusive")
}

/// A port's name (IANA service name).
pub fn port_name(value: &str) -> Check {
    no_longer_than(value, MAX_PORT_NAME_BYTES)?;
    rule(
        value.bytes().all(|b| lower_alnum(b) || b == b'-'),
        "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
    )?;
    rule(value.bytes().any(|b| b.is_ascii_lowercase()), "must contain at least one letter (a-z)")?;
    rule(!value.contains("--"), "must not contain consecutive hyphens")?;
    rule(!value.starts_with('-') && !value.ends_with('-'), "must not begin or end with a hyphen")
}

/// An IPv4 or IPv6 address.
pub fn ip(value: &str) -> Check {
    rule(value.parse::<IpAddr>().is_ok(), "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)")
}

/// An address that others can reach an endpoint at: none of the special ones. What is no address passes.
pub fn endpoint_ip(value: &str) -> Check {
    let Ok(address) = value.parse::<IpAddr>() else { return Ok(()) };
    rule(!address.is_unspecified(), &format!("may not be unspecified ({value})"))?;
    rule(!address.is_loopback(), "may not be in the loopback range (127.0.0.0/8, ::1/128)")?;
    let (local, multicast) = match address {
        IpAddr::V4(v4) => (v4.is_link_local(), v4.octets().starts_with(&[224, 0, 0])),
        IpAddr::V6(v6) => (v6.is_unicast_link_local(), v6.octets().starts_with(&[0xff, 0x02])),
    };
    rule(!local, "may not be in the link-local range (169.254.0.0/16, fe80::/10)")?;
    rule(!multicast, "may not be in the link-local multicast range (224.0.0.0/24, ff02::/10)")
}

/// A name that may be a part of a URL: the loosest rule there is on names (roles, signing requests).
pub fn path_segment(value: &str) -> Check {
    rule(value != ".", "may not be '.'")?;
    rule(value != "..", "may not be '..'")?;
    for character in ['/', '%'] {
        rule(!value.contains(character), &format!("may not contain '{character}'"))?;
    }
    Ok(())
}

/// A DNS subdomain whose first label is `*`: hosts of an Ingress.
pub fn wildcard_dns1123_subdomain(value: &str) -> Check {
    rule(
        value.strip_prefix("*.").is_some_and(|rest| dns1123_subdomain(rest).is_ok())
            && value.len() <= MAX_SUBDOMAIN_BYTES,
        "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of \
         lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character (e.g. '*.example.com', \
         regex used for validation is '\\*\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
    )
}

/// A network in CIDR notation, such as `10.0.0.0/8`, as network address and prefix length.
///
/// # Errors
/// In upstream's words, if it is none.
pub fn cidr(value: &str) -> Result<(IpAddr, u8), String> {
    let parsed = value.split_once('/').and_then(|(address, bits)| {
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        bits.parse::<u8>().ok().filter(|bits| *bits <= most).map(|bits| (address, bits))
    });
    parsed.ok_or_else(|| "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)".to_string())
}

/// A quantity, such as `500m` or `1Gi`, from a JSON string or number.
pub fn quantity(value: &Value) -> Result<Quantity, String> {
    let parsed = match value {
        Value::String(s) => s.parse::<Quantity>().ok(),
        Value::Number(n) => n.to_string().parse::<Quantity>().ok(),
        _ => None,
    };
    parsed.ok_or_else(|| {
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'".to_string()
    })
}

/// Pushes an `Invalid value` error for `value` when a check failed, unless there are more errors than are shown.
pub fn report(errors: &mut Vec<FieldError>, field: impl Into<String>, value: &Value, check: Check) {
    if let Err(message) = check
        && errors.len() < MAX_FIELD_ERRORS
    {
        errors.push(FieldError::invalid(field, value, &message));
    }
}

/// A value of more than `max` bytes.
pub fn too_long(field: impl Into<String>, max: usize) -> FieldError {
    FieldError {
        field: field.into(),
        reason: "FieldValueTooLong",
        message: format!("Too long: may not be more than {max} bytes"),
    }
}

/// A list of more than `max` items; it has `actual`.
pub fn too_many(field: impl Into<String>, actual: usize, max: usize) -> FieldError {
    FieldError {
        field: field.into(),
        reason: "FieldValueTooMany",
        message: format!("Too many: {actual}: must have at most {max} items"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let long = "a".repeat(64);
        let domain = ["a"; 130].join(".");
        type F = fn(&str) -> Check;
        let cases: &[(F, &str, &str)] = &[
            (dns1123_label, "web-1", ""),
            (dns1123_label, "1", ""),
            (dns1123_label, "Web", "a lowercase RFC 1123 label must"),
            (dns1123_label, "a.b", "must not contain dots"),
            (dns1123_label, "A.b", "a lowercase RFC 1123 label must"),
            (dns1123_subdomain_with_underscore, "_a.b", "a lowercase RFC 1123 subdomain must"),
            (dns1123_subdomain_with_underscore, "a_b.c", ""),
            (http_header_name, "X-A", ""),
            (http_header_name, "X A", "a valid HTTP header must"),
            (dns1123_label, "-a", "a lowercase RFC 1123 label must"),
            (dns1123_label, "", "a lowercase RFC 1123 label must"),
            (dns1123_label, &long, "must be no more than 63 bytes"),
            (dns1123_subdomain, "web.example.com", ""),
            (dns1123_subdomain, "web..com", "a lowercase RFC 1123 subdomain must"),
            (dns1123_subdomain, "web.", "a lowercase RFC 1123 subdomain must"),
            (dns1123_subdomain, "über", "a lowercase RFC 1123 subdomain must"),
            (dns1123_subdomain, &domain, "must be no more than 253 bytes"),
            (dns1035_label, "web-1", ""),
            (dns1035_label, "1web", "a DNS-1035 label must"),
            (qualified_name, "app", ""),
            (qualified_name, "app.kubernetes.io/Name_x", ""),
            (qualified_name, "/x", "prefix part must be non-empty"),
            (qualified_name, "Ex/x", "prefix part a lowercase RFC 1123 subdomain"),
            (qualified_name, "x/", "name part must be non-empty"),
            (qualified_name, "a/b/c", "a qualified name must consist"),
            (qualified_name, "a b", "name part must consist of"),
            (qualified_name, &long, "name part must be no more than 63 bytes"),
            (label_value, "", ""),
            (label_value, "v1.2_x", ""),
            (label_value, "v1 2", "a valid label must be an empty string"),
            (label_value, "-a", "a valid label must be an empty string"),
            (config_key, "app.properties", ""),
            (config_key, "..", "must not be '..'"),
            (config_key, "..x", "must not start with '..'"),
            (config_key, "a/b", "a valid config key must consist"),
            (env_name, "PATH", ""),
            (env_name, "a b.c", ""),
            (env_name, "a=b", "a valid environment variable name"),
            (port_name, "http", ""),
            (port_name, "HTTP", "must contain only alpha-numeric"),
            (port_name, "80", "must contain at least one letter"),
            (port_name, "a--b", "must not contain consecutive hyphens"),
            (port_name, "a-", "must not begin or end with a hyphen"),
            (port_name, "abcdefghijklmnop", "must be no more than 15 bytes"),
            (ip, "10.0.0.1", ""),
            (ip, "::1", ""),
            (ip, "10.0.0.256", "must be a valid IP address"),
            (endpoint_ip, "10.0.0.1", ""),
            (endpoint_ip, "0.0.0.0", "may not be unspecified (0.0.0.0)"),
            (endpoint_ip, "::1", "may not be in the loopback range"),
            (endpoint_ip, "169.254.1.1", "may not be in the link-local range"),
            (endpoint_ip, "ff02::1", "may not be in the link-local multicast range"),
            (path_segment, "system:admin", ""),
            (path_segment, "a/b", "may not contain '/'"),
            (path_segment, "..", "may not be '..'"),
            (wildcard_dns1123_subdomain, "*.example.com", ""),
            (wildcard_dns1123_subdomain, "a.*.com", "a wildcard DNS-1123 subdomain must start with '*.'"),
        ];
        for (check, input, expected) in cases {
            match check(input) {
                Ok(()) => assert_eq!(*expected, "", "{input:?} passed"),
                Err(m) => assert!(!expected.is_empty() && m.starts_with(expected), "{input:?}: {m}"),
            }
        }
        assert_eq!(cidr("10.0.0.0/8"), Ok(("10.0.0.0".parse().unwrap(), 8)));
        assert!(cidr("10.0.0.0/33").is_err() && cidr("10.0.0.0").is_err() && cidr("x/8").is_err());
        assert!(port(0).is_err() && port(65_536).is_err() && port(-1).is_err());
        assert!(port(1).is_ok() && port(65_535).is_ok());
        assert!(quantity(&Value::from("100m")).is_ok() && quantity(&Value::from("x")).is_err());
    }
}
