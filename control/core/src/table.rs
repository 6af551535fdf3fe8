//! Table output: columns and cells as kubectl prints them. Cells hold strings for people (ages, not timestamps), as
//! upstream's printers do; kubectl only aligns them.

use serde::Serialize;
use serde_json::{Value, json};

use crate::kinds::value::text;

/// One column of a `meta.k8s.io/v1 Table`, in its wire form.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Column {
    /// Heading; kubectl prints it in upper case.
    pub name: String,
    /// `string`, `integer`, `number`, `boolean` or `date`.
    #[serde(rename = "type")]
    pub type_: String,
    /// `name` for the column that identifies the object, else usually empty.
    pub format: String,
    /// For people.
    pub description: String,
    /// 0: always shown; above: only with `-o wide`.
    pub priority: i32,
}

impl Column {
    /// A column that is always shown.
    pub fn new(name: &str, type_: &str, description: &str) -> Self {
        Self {
            name: name.into(),
            type_: type_.into(),
            format: String::new(),
            description: description.into(),
            priority: 0,
        }
    }
    /// The first column of most tables: the object's name.
    pub fn name() -> Self {
        Self { format: "name".into(), ..Self::new("Name", "string", "Name of the object, unique in its scope.") }
    }
    /// The age column.
    pub fn age() -> Self {
        Self::new("Age", "string", "Time since the object was created.")
    }
    /// The same column, shown only with `-o wide`.
    pub fn wide(mut self) -> Self {
        self.priority = 1;
        self
    }
}

/// Columns of a kind without its own: Name and Age.
pub fn default_columns() -> Vec<Column> {
    vec![Column::name(), Column { type_: "date".into(), ..Column::age() }]
}

/// Cells of [`default_columns`]; `now` in seconds since the epoch.
pub fn default_cells(object: &Value, now: i64) -> Vec<Value> {
    vec![name(object), age(object, now)]
}

/// Columns of the kinds that print when they were created: Name and Created At (roles, custom resource definitions).
pub fn created_columns() -> Vec<Column> {
    let created = Column::new("Created At", "date", "When the object was created, in UTC.");
    vec![Column::name(), created]
}

/// Cells of [`created_columns`].
pub fn created_cells(object: &Value) -> Vec<Value> {
    vec![name(object), json!(text(object, "/metadata/creationTimestamp"))]
}

/// The name cell.
pub fn name(object: &Value) -> Value {
    json!(text(object, "/metadata/name"))
}

/// The age cell: time since creation at `now` (seconds since the epoch).
pub fn age(object: &Value, now: i64) -> Value {
    json!(since(text(object, "/metadata/creationTimestamp"), now))
}

/// Time from an RFC 3339 `timestamp` to `now` for people; `<unknown>` when it is empty or no timestamp.
pub fn since(timestamp: &str, now: i64) -> String {
    match epoch_seconds(timestamp) {
        Some(then) => human_duration(now.saturating_sub(then)),
        None => "<unknown>".into(),
    }
}

/// Seconds since the epoch of an RFC 3339 timestamp.
pub fn epoch_seconds(timestamp: &str) -> Option<i64> {
    timestamp.parse::<jiff::Timestamp>().ok().map(|t| t.as_second())
}

/// A duration of `seconds` in two units at most, coarser as it grows: `5s`, `3m20s`, `15m`, `2d4h`, `3y`.
pub fn human_duration(seconds: i64) -> String {
    let two = |big: i64, unit: &str, small: i64, sub: &str| match small {
        0 => format!("{big}{unit}"),
        _ => format!("{big}{unit}{small}{sub}"),
    };
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let days = hours / 24;
    match seconds {
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200..63_072_000 => format!("{days}d"),
        63_072_000..252_288_000 => two(days / 365, "y", days % 365, "d"),
        _ => format!("{}y", days / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_kubectl_prints_them() {
        let (m, h, d, y) = (60, 3600, 86_400, 365 * 86_400);
        for (seconds, expected) in [
            (-5, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (200, "3m20s"),
            (10 * m + 5, "10m"),
            (179 * m, "179m"),
            (3 * h, "3h"),
            (3 * h + 4 * m, "3h4m"),
            (8 * h + 30 * m, "8h"),
            (47 * h, "47h"),
            (52 * h, "2d4h"),
            (72 * h, "3d"),
            (8 * d + 5 * h, "8d"),
            (729 * d, "729d"),
            (2 * y, "2y"),
            (2 * y + 3 * d, "2y3d"),
            (9 * y, "9y"),
        ] {
            assert_eq!(human_duration(seconds), expected, "{seconds}");
        }
    }

    #[test]
    fn default_row() {
        let object = json!({"metadata": {"name": "a", "creationTimestamp": "1970-01-01T00:01:00Z"}});
        assert_eq!(default_cells(&object, 65), vec![json!("a"), json!("5s")]);
        assert_eq!(default_cells(&json!({}), 65), vec![json!(""), json!("<unknown>")]);
        assert_eq!(default_columns().len(), 2);
        assert_eq!(
            serde_json::to_value(Column::name()).unwrap(),
            json!({"name": "Name", "type": "string", "format": "name", "priority": 0,
                   "description": "Name of the object, unique in its scope."})
        );
    }
}
