//! Label and field selectors, in the query-string form and the `metav1.LabelSelector` form.
//! Grammar: <https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors>.

mod parser;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde_json::Value;

/// How a requirement compares a label with its values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    /// The label's value is one of the values.
    In,
    /// The label is absent or has another value.
    NotIn,
    /// `=`.
    Equals,
    /// `!=`; true of an absent label too.
    NotEquals,
    /// The label is there.
    Exists,
    /// The label is not there.
    DoesNotExist,
    /// `>`: the label is an integer above the value.
    GreaterThan,
    /// `<`: the label is an integer below the value.
    LessThan,
}

/// One condition on one label.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// The comparison.
    pub operator: Operator,
    /// The values, sorted, without repeats.
    pub values: Vec<String>,
}

impl Requirement {
    /// Builds and validates a requirement; the error is worded as upstream's.
    pub fn new(key: impl Into<String>, operator: Operator, mut values: Vec<String>) -> Result<Self, String> {
        let key = key.into();
        validate_key(&key)?;
        values.sort();
        values.dedup();
        let invalid = |why: &str| Err(format!("values: Invalid value: {values:?}: {why}"));
        match operator {
            Operator::In | Operator::NotIn if values.is_empty() => {
                return invalid("for 'in', 'notin' operators, values set can't be empty");
            }
            Operator::Equals | Operator::NotEquals if values.len() != 1 => {
                return invalid("exact-match compatibility requires one single value");
            }
            Operator::Exists | Operator::DoesNotExist if !values.is_empty() => {
                return invalid("values set must be empty for exists and does not exist");
            }
            Operator::GreaterThan | Operator::LessThan => match values.as_slice() {
                [one] if one.parse::<i64>().is_ok() => {}
                [_] => return invalid("for 'Gt', 'Lt' operators, the value must be an integer"),
                _ => return invalid("for 'Gt', 'Lt' operators, exactly one value is required"),
            },
            _ => {}
        }
        for (i, value) in values.iter().enumerate() {
            validate_value(value).map_err(|why| format!("values[{i}][{key}]: Invalid value: {value:?}: {why}"))?;
        }
        Ok(Self { key, operator, values })
    }

    /// Whether an object's labels meet the requirement.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let present = labels.get(&self.key);
        let listed = |value: &String| self.values.contains(value);
        let number = |text: Option<&String>| text.and_then(|t| t.parse::<i64>().ok());
        match self.operator {
            Operator::In | Operator::Equals => present.is_some_and(listed),
            Operator::NotIn | Operator::NotEquals => !present.is_some_and(listed),
            Operator::Exists => present.is_some(),
            Operator::DoesNotExist => present.is_none(),
            Operator::GreaterThan => {
                matches!((number(present), number(self.values.first())), (Some(have), Some(want)) if have > want)
            }
            Operator::LessThan => {
                matches!((number(present), number(self.values.first())), (Some(have), Some(want)) if have < want)
            }
        }
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (key, values) = (&self.key, self.values.join(","));
        match self.operator {
            Operator::In => write!(f, "{key} in ({values})"),
            Operator::NotIn => write!(f, "{key} notin ({values})"),
            Operator::Equals => write!(f, "{key}={values}"),
            Operator::NotEquals => write!(f, "{key}!={values}"),
            Operator::Exists => write!(f, "{key}"),
            Operator::DoesNotExist => write!(f, "!{key}"),
            Operator::GreaterThan => write!(f, "{key}>{values}"),
            Operator::LessThan => write!(f, "{key}<{values}"),
        }
    }
}

/// A conjunction of label requirements. Prints in the form that query strings and `Scale.status.selector` use.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// Selects no object at all: the absent `metav1.LabelSelector`.
    nothing: bool,
}

impl LabelSelector {
    /// Selects every object.
    pub fn everything() -> Self {
        Self::default()
    }
    /// Selects no object.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// Parses `a=b,c!=d,e in (x,y),f notin (z),g,!h`; the empty text selects everything. Errors as upstream's.
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(Self::of(parser::parse(text)?))
    }

    /// Labels that must all be equal: a Service's or a ReplicationController's selector. Empty selects everything, so
    /// callers that mean "no selector" must ask [`Self::is_empty`] first. Values are not validated.
    pub fn from_labels<'a>(labels: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        let requirement = |(k, v): (&String, &String)| Requirement {
            key: k.clone(),
            operator: Operator::Equals,
            values: vec![v.clone()],
        };
        Self::of(labels.into_iter().map(requirement).collect())
    }

    /// Reads the JSON of a `metav1.LabelSelector`; `null` selects nothing, `{}` everything.
    pub fn from_json(selector: &Value) -> Result<Self, String> {
        if selector.is_null() {
            return Ok(Self::nothing());
        }
        let typed = serde_json::from_value(selector.clone()).map_err(|e| format!("invalid label selector: {e}"))?;
        Self::from_typed(Some(&typed))
    }

    /// Reads a typed `metav1.LabelSelector`; `None` selects nothing, an empty one everything.
    pub fn from_typed(
        selector: Option<&k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector>,
    ) -> Result<Self, String> {
        let Some(selector) = selector else { return Ok(Self::nothing()) };
        let mut requirements = Vec::new();
        for (key, value) in selector.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::Equals, vec![value.clone()])?);
        }
        for expression in selector.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        Ok(Self::of(requirements))
    }

    /// Demands one thing more.
    pub fn require(&mut self, requirement: Requirement) {
        self.requirements.push(requirement);
    }

    /// Whether an object's labels meet every requirement.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        !self.nothing && self.requirements.iter().all(|r| r.matches(labels))
    }
    /// Whether it has no requirements and so selects everything.
    pub fn is_empty(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }
    /// The requirements, sorted by key.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    fn of(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, requirement) in self.requirements.iter().enumerate() {
            write!(f, "{}{requirement}", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl FromStr for LabelSelector {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

/// Checks a label's key (`[prefix/]name`); the error starts with `key:`.
pub fn validate_key(key: &str) -> Result<(), String> {
    let fail = |why: &str| Err(format!("key: Invalid value: {key:?}: {why}"));
    let (prefix, name) = match key.split_once('/') {
        Some((prefix, name)) if !name.contains('/') => (Some(prefix), name),
        Some(_) => {
            return fail(
                "a valid label key must consist of alphanumeric characters, '-', '_' or '.', and must start and end with \
                 an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
                 '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. \
                 'example.com/MyName')",
            );
        }
        None => (None, key),
    };
    if let Some(prefix) = prefix {
        if prefix.is_empty() {
            return fail("prefix part must be non-empty");
        }
        let label = |l: &str| {
            let ok = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            l.bytes().all(|b| ok(b) || b == b'-')
                && l.bytes().next().is_some_and(ok)
                && l.bytes().last().is_some_and(ok)
        };
        if prefix.len() > 253 {
            return fail("prefix part must be no more than 253 bytes");
        }
        if !prefix.split('.').all(label) {
            return fail(
                "prefix part a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or \
                 '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation \
                 is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')",
            );
        }
    }
    if name.is_empty() {
        return fail("name part must be non-empty");
    }
    if name.len() > 63 {
        return fail("name part must be no more than 63 bytes");
    }
    if !is_label_text(name) {
        return fail(
            "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric \
             character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is \
             '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')",
        );
    }
    Ok(())
}

/// Checks a label's value; the error says what a valid value is.
pub fn validate_value(value: &str) -> Result<(), String> {
    if value.len() > 63 {
        return Err("must be no more than 63 bytes".into());
    }
    if !value.is_empty() && !is_label_text(value) {
        return Err("a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
                    start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for \
                    validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
            .into());
    }
    Ok(())
}

fn is_label_text(text: &str) -> bool {
    let edge = |b: Option<u8>| b.is_some_and(|b| b.is_ascii_alphanumeric());
    text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && edge(text.bytes().next())
        && edge(text.bytes().last())
}

/// One condition on one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldRequirement {
    /// The field's path, such as `metadata.name`.
    pub path: String,
    /// Whether the field must equal the value (`=`) or differ from it (`!=`).
    pub equal: bool,
    /// The value compared with.
    pub value: String,
}

/// A conjunction of field requirements: `metadata.name=x,status.phase!=Running`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSelector {
    requirements: Vec<FieldRequirement>,
}

impl FieldSelector {
    /// Parses a field selector; the empty text selects everything. Errors as upstream's. Which paths a resource
    /// supports is for the caller to check.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut requirements = Vec::new();
        for term in split_terms(text) {
            if term.is_empty() {
                continue;
            }
            let Some((path, equal, value)) = split_term(term) else {
                return Err(format!("invalid selector: '{text}'; can't understand '{term}'"));
            };
            requirements.push(FieldRequirement { path: path.into(), equal, value: unescape(value)? });
        }
        requirements.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(Self { requirements })
    }

    /// The requirements, sorted by path.
    pub fn requirements(&self) -> &[FieldRequirement] {
        &self.requirements
    }
    /// Whether it selects everything.
    pub fn is_empty(&self) -> bool {
        self.requirements.is_empty()
    }
    /// The value that `path` must equal, if the selector says so: for lookups by an indexed field.
    pub fn exact(&self, path: &str) -> Option<&str> {
        self.requirements.iter().find(|r| r.equal && r.path == path).map(|r| r.value.as_str())
    }
    /// Whether an object meets every requirement; `field` gives a path's value, absent counting as the empty string.
    pub fn matches<'a>(&self, field: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|r| (field(&r.path).unwrap_or_default() == r.value) == r.equal)
    }
}

impl FromStr for FieldSelector {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl fmt::Display for FieldSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, r) in self.requirements.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{}{}", r.path, if r.equal { "=" } else { "!=" })?;
            for c in r.value.chars() {
                if matches!(c, '\\' | ',' | '=') {
                    f.write_str("\\")?;
                }
                write!(f, "{c}")?;
            }
        }
        Ok(())
    }
}

/// Splits at commas that no backslash escapes.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut start, mut escaped) = (0, false);
    for (i, c) in text.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            ',' => {
                terms.push(text.get(start..i).unwrap_or_default());
                start = i + 1;
            }
            _ => {}
        }
    }
    terms.push(text.get(start..).unwrap_or_default());
    terms
}

/// Splits at the first `!=`, `==` or `=`.
fn split_term(term: &str) -> Option<(&str, bool, &str)> {
    let at = term.char_indices().find(|(i, c)| *c == '=' || term.get(*i..).is_some_and(|t| t.starts_with("!=")))?.0;
    let (path, rest) = term.split_at(at);
    if let Some(value) = rest.strip_prefix("!=") {
        return Some((path, false, value));
    }
    Some((path, true, rest.strip_prefix("==").or_else(|| rest.strip_prefix('='))?))
}

fn unescape(value: &str) -> Result<String, String> {
    let mut out = String::with_capacity(value.len());
    let mut chars = value.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some(next @ ('\\' | ',' | '=')) => out.push(next),
                Some(next) => return Err(format!("invalid field selector: invalid escape sequence: \\{next}")),
                None => return Err("invalid field selector: invalid escape sequence: \\".into()),
            },
            ',' | '=' => return Err(format!("invalid field selector: unescaped character in value: {c}")),
            _ => out.push(c),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
