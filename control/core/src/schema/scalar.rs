//! Scalars with a form of their own: what Go's types accept and how they print.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use copepod_api::Quantity;
use serde_json::{Number, Value};

/// The layout that Go names in its time errors.
const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";

/// Go's word for a JSON value in decode errors.
pub(super) fn go_value(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A quantity's canonical form.
pub(crate) fn quantity(value: &Value) -> Result<Value, String> {
    let text = match value {
        Value::String(s) => s.trim().to_owned(),
        other => other.to_string(),
    };
    Quantity::parse(&text).map(|q| Value::String(q.to_string()))
}

/// Checks an integer or string.
pub(super) fn int_or_string(value: &Value) -> Result<(), String> {
    match value {
        Value::String(_) => Ok(()),
        Value::Number(n) if fits_int32(n) => Ok(()),
        Value::Number(n) => Err(format!("json: cannot unmarshal number {n} into Go value of type int32")),
        other => Err(format!("json: cannot unmarshal {} into Go value of type int32", go_value(other))),
    }
}

/// Whether a number is a 32-bit integer.
pub(super) fn fits_int32(n: &Number) -> bool {
    n.as_i64().is_some_and(|i| i32::try_from(i).is_ok())
}

/// A time in UTC, with seconds or microseconds.
pub(super) fn time(value: &Value, micro: bool) -> Result<Value, String> {
    let Value::String(text) = value else {
        return Err(format!("json: cannot unmarshal {} into Go value of type string", go_value(value)));
    };
    check_time(text)?;
    let stamp: jiff::Timestamp = text.parse().map_err(|_| format!("parsing time {text:?}: day out of range"))?;
    Ok(Value::String(print_time(stamp, micro)))
}

/// How Kubernetes prints a time: UTC, whole seconds or six digits of a second.
pub(crate) fn print_time(stamp: jiff::Timestamp, micro: bool) -> String {
    stamp.strftime(if micro { "%Y-%m-%dT%H:%M:%S.%6fZ" } else { "%Y-%m-%dT%H:%M:%SZ" }).to_string()
}

/// Walks RFC 3339 as Go does, for Go's error text.
fn check_time(text: &str) -> Result<(), String> {
    let mut rest = text;
    let fail = |rest: &str, element: &str| {
        Err(format!("parsing time {text:?} as {LAYOUT:?}: cannot parse {rest:?} as {element:?}"))
    };
    let parts: [(&str, usize, u32, u32, &str); 6] = [
        ("2006", 4, 0, 9999, "year"),
        ("01", 2, 1, 12, "month"),
        ("02", 2, 1, 31, "day"),
        ("15", 2, 0, 23, "hour"),
        ("04", 2, 0, 59, "minute"),
        ("05", 2, 0, 59, "second"),
    ];
    for ((element, digits, low, high, name), separator) in parts.into_iter().zip(["-", "-", "T", ":", ":", ""]) {
        let number = rest.get(..digits).filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
        let Some(number) = number.and_then(|d| d.parse::<u32>().ok()) else { return fail(rest, element) };
        if !(low..=high).contains(&number) {
            return Err(format!("parsing time {text:?}: {name} out of range"));
        }
        rest = rest.get(digits..).unwrap_or_default();
        rest = match rest.strip_prefix(separator) {
            Some(rest) => rest,
            None => return fail(rest, separator),
        };
    }
    if let Some(fraction) = rest.strip_prefix('.') {
        rest = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
        if fraction.len() == rest.len() || fraction.len() - rest.len() > 9 {
            return fail(rest, "Z07:00");
        }
    }
    let zone = match rest.as_bytes() {
        [b'Z'] => true,
        [b'+' | b'-', a, b, b':', c, d] => [a, b, c, d].iter().all(|b| b.is_ascii_digit()),
        [b'Z', ..] => {
            return Err(format!("parsing time {text:?}: extra text: {:?}", rest.get(1..).unwrap_or_default()));
        }
        _ => false,
    };
    if zone { Ok(()) } else { fail(rest, "Z07:00") }
}

/// Checks base64 as Go's standard decoder does (line breaks are skipped), and gives the form without line breaks if
/// it differs.
pub(super) fn bytes(text: &str) -> Result<Option<String>, String> {
    let broken = text.contains(['\r', '\n']);
    let joined: String;
    let text = if broken {
        joined = text.replace(['\r', '\n'], "");
        &joined
    } else {
        text
    };
    match STANDARD.decode(text) {
        Ok(_) => Ok(broken.then(|| text.to_owned())),
        Err(e) => {
            let at = match e {
                base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
                base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => text.len() / 4 * 4,
            };
            Err(format!("illegal base64 data at input byte {at}"))
        }
    }
}
