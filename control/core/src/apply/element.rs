//! One step of a field's path, as structured-merge-diff names it.

use std::cmp::Ordering;
use std::fmt;

use serde_json::{Map, Value};

/// One step from a value to one of its parts.
#[derive(Debug, Clone)]
pub enum Element {
    /// A field of a struct or a key of a map: `f:replicas`.
    Field(Box<str>),
    /// An item of a list of type map, by its keys sorted by name: `k:{"name":"web"}`.
    Key(Vec<(Box<str>, Value)>),
    /// An item of a set: `v:"kubernetes"`.
    Value(Value),
    /// An item by its place: `i:0`.
    Index(i64),
}

impl Element {
    /// A field's element.
    pub fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    /// Parses the form that FieldsV1 has; `Ok(None)` for kinds of elements that are not known, which are passed over.
    ///
    /// # Errors
    /// What is wrong with an element of a known kind.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, String> {
        let Some((kind, rest)) = text.split_once(':') else { return Err(format!("missing colon in {text:?}")) };
        let bad = |e: &dyn fmt::Display| format!("invalid path element {text:?}: {e}");
        Ok(Some(match kind {
            "f" => Self::field(rest),
            "k" => {
                let keys: Map<String, Value> = serde_json::from_str(rest).map_err(|e| bad(&e))?;
                Self::Key(keys.into_iter().map(|(k, v)| (k.into(), v)).collect())
            }
            "v" => Self::Value(serde_json::from_str(rest).map_err(|e| bad(&e))?),
            "i" => Self::Index(rest.parse().map_err(|e| bad(&e))?),
            _ => return Ok(None),
        }))
    }

    /// The form that FieldsV1 has.
    pub(super) fn print(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => {
                let keys: Vec<String> =
                    keys.iter().map(|(k, v)| format!("{}:{v}", Value::String(k.to_string()))).collect();
                format!("k:{{{}}}", keys.join(","))
            }
            Self::Value(value) => format!("v:{value}"),
            Self::Index(i) => format!("i:{i}"),
        }
    }
}

/// As messages print it: `.spec`, `[name="web"]`, `[="a"]`, `[0]`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Field(name) => write!(f, ".{name}"),
            Self::Key(keys) => {
                let keys: Vec<String> = keys.iter().map(|(k, v)| format!("{k}={v}")).collect();
                write!(f, "[{}]", keys.join(","))
            }
            Self::Value(value) => write!(f, "[={value}]"),
            Self::Index(i) => write!(f, "[{i}]"),
        }
    }
}

/// Upstream's order: fields, keys, values, indices.
impl Ord for Element {
    fn cmp(&self, other: &Self) -> Ordering {
        let rank = |e: &Self| match e {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Value(_) => 2,
            Self::Index(_) => 3,
        };
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => compare_lists(a, b, |(a, x), (b, y)| a.cmp(b).then_with(|| compare(x, y))),
            (Self::Value(a), Self::Value(b)) => compare(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => rank(self).cmp(&rank(other)),
        }
    }
}
impl PartialOrd for Element {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl PartialEq for Element {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}
impl Eq for Element {}

/// An order of JSON values in which numbers compare by what they count: 1 equals 1.0.
pub(super) fn compare(a: &Value, b: &Value) -> Ordering {
    let rank = |v: &Value| match v {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    };
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => x.as_f64().partial_cmp(&y.as_f64()).unwrap_or(Ordering::Equal),
        },
        (Value::String(x), Value::String(y)) => x.cmp(y),
        (Value::Bool(x), Value::Bool(y)) => x.cmp(y),
        (Value::Array(x), Value::Array(y)) => compare_lists(x, y, compare),
        (Value::Object(x), Value::Object(y)) => {
            let (x, y): (Vec<_>, Vec<_>) = (x.iter().collect(), y.iter().collect());
            compare_lists(&x, &y, |(a, x), (b, y)| a.cmp(b).then_with(|| compare(x, y)))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

fn compare_lists<T>(a: &[T], b: &[T], item: impl Fn(&T, &T) -> Ordering) -> Ordering {
    let unequal = a.iter().zip(b).map(|(x, y)| item(x, y)).find(|o| o.is_ne());
    unequal.unwrap_or_else(|| a.len().cmp(&b.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        for (text, shown) in [
            ("f:spec", ".spec"),
            ("f:a.b/c:d", ".a.b/c:d"),
            ("f:", "."),
            (r#"k:{"name":"web"}"#, r#"[name="web"]"#),
            (r#"k:{"containerPort":80,"protocol":"TCP"}"#, r#"[containerPort=80,protocol="TCP"]"#),
            (r#"v:"a\"b""#, r#"[="a\"b"]"#),
            ("v:3", "[=3]"),
            ("v:true", "[=true]"),
            ("i:12", "[12]"),
        ] {
            let element = Element::parse(text).unwrap().unwrap();
            assert_eq!((element.print().as_str(), element.to_string().as_str()), (text, shown));
        }
        // Another order of the keys is the same element.
        assert_eq!(
            Element::parse(r#"k:{"protocol":"TCP","containerPort":80.0}"#),
            Element::parse(r#"k:{"containerPort":80,"protocol":"TCP"}"#)
        );
        assert_eq!(Element::parse("z:future"), Ok(None));
        for bad in ["spec", "", "k:[]", "k:{", "v:", "v:a", "i:x", "v:1 2"] {
            assert!(Element::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn order() {
        let sorted = [
            "f:a",
            "f:b",
            r#"k:{"a":2}"#,
            r#"k:{"a":10}"#,
            r#"k:{"a":10,"b":1}"#,
            r#"k:{"b":1}"#,
            "v:1",
            r#"v:"a""#,
            "v:false",
            "v:true",
            "v:[1]",
            "v:{}",
            "v:null",
            "i:2",
            "i:10",
        ];
        let parsed: Vec<Element> = sorted.iter().map(|t| Element::parse(t).unwrap().unwrap()).collect();
        assert!(parsed.is_sorted());
        let distinct = parsed.iter().zip(parsed.iter().skip(1)).all(|(a, b)| a < b);
        assert!(distinct);
    }
}
