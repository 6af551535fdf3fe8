//! `metadata.managedFields`: who owns which fields since when.

use std::cell::OnceCell;

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::set::FieldSet;

/// How a manager came to own fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// It applied them.
    Apply,
    /// It wrote them in another way.
    Update,
}

impl Operation {
    fn name(self) -> &'static str {
        match self {
            Self::Apply => "Apply",
            Self::Update => "Update",
        }
    }
}

/// One manager, as an entry names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manager {
    /// Name, such as `kubectl`.
    pub name: String,
    /// How it writes.
    pub operation: Operation,
    /// The version that it wrote, such as `apps/v1`.
    pub api_version: String,
    /// The subresource that it wrote to, `""` for the object itself.
    pub subresource: String,
}

impl Manager {
    /// Whether both stand for one manager: who applies is one whatever the version, who updates one per version.
    pub fn is(&self, other: &Self) -> bool {
        self.name == other.name
            && self.operation == other.operation
            && self.subresource == other.subresource
            && (self.operation == Operation::Apply || self.api_version == other.api_version)
    }

    /// Whether both write the same API group. Versions of one group have the same fields here; what an entry of
    /// another group says of its fields cannot be judged.
    pub fn same_group(&self, other: &Self) -> bool {
        let group = |v: &str| v.rsplit_once('/').map(|(g, _)| g.to_owned());
        group(&self.api_version) == group(&other.api_version)
    }

    pub(super) fn sort_key(&self) -> (&str, Operation, &str, &str) {
        (&self.name, self.operation, &self.api_version, &self.subresource)
    }
}

/// As conflicts name it: `"kubectl" with subresource "status" using apps/v1`.
impl std::fmt::Display for Manager {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", Value::from(self.name.as_str()))?;
        if !self.subresource.is_empty() {
            write!(f, " with subresource {}", Value::from(self.subresource.as_str()))?;
        }
        if self.operation == Operation::Update {
            write!(f, " using {}", self.api_version)?;
        }
        Ok(())
    }
}

/// What one manager owns.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub manager: Manager,
    pub time: Option<Timestamp>,
    /// Parsed when they are asked for: most writes meet few managers.
    fields: OnceCell<FieldSet>,
    /// FieldsV1 as they were read, as long as they are so.
    read: Option<Value>,
}

impl Entry {
    pub fn new(manager: Manager, time: Timestamp, fields: FieldSet) -> Self {
        Self { manager, time: Some(time), fields: fields.into(), read: None }
    }
    /// What is owned; nothing, if that cannot be parsed.
    pub fn fields(&self) -> &FieldSet {
        self.fields.get_or_init(|| self.parse().unwrap_or_default())
    }
    fn parse(&self) -> Result<FieldSet, String> {
        self.read.as_ref().map_or_else(|| Ok(FieldSet::default()), FieldSet::from_fields_v1)
    }
    /// Changes what is owned; whether it was another set before.
    pub fn set_fields(&mut self, fields: FieldSet) -> bool {
        let changed = fields != *self.fields();
        if changed {
            self.fields = fields.into();
            self.read = None;
        }
        changed
    }
    /// Whether anything of the set may be owned: judged by the first steps of the paths as long as they are not parsed.
    pub fn may_own(&self, set: &FieldSet) -> bool {
        match (self.fields.get(), &self.read) {
            (None, Some(read)) => set.nodes().iter().any(|n| read.get(n.element.print()).is_some()),
            _ => true,
        }
    }
    fn is_empty(&self) -> bool {
        match (self.fields.get(), &self.read) {
            (None, Some(Value::Object(read))) => read.is_empty(),
            _ => self.fields().is_empty(),
        }
    }

    fn decode(value: Value) -> Result<Self, String> {
        let Value::Object(mut entry) = value else { return Err("an entry is not an object".into()) };
        let mut text = |name: &str| match entry.remove(name) {
            Some(Value::String(text)) => text,
            _ => String::new(),
        };
        let operation = match text("operation").as_str() {
            "Apply" => Operation::Apply,
            "Update" => Operation::Update,
            _ => return Err("operation must be `Apply` or `Update`".into()),
        };
        let manager = Manager {
            name: text("manager"),
            operation,
            api_version: text("apiVersion"),
            subresource: text("subresource"),
        };
        if manager.api_version.is_empty() {
            return Err("apiVersion must not be empty".into());
        }
        match text("fieldsType").as_str() {
            "FieldsV1" => {}
            "" => return Err("missing fieldsType".into()),
            other => return Err(format!("invalid fieldsType {other:?}")),
        }
        let time = match text("time").as_str() {
            "" => None,
            time => Some(time.parse().map_err(|e| format!("invalid time {time:?}: {e}"))?),
        };
        let read = entry.remove("fieldsV1").unwrap_or_else(|| json!({}));
        Ok(Self { manager, time, fields: OnceCell::new(), read: Some(read) })
    }

    fn encode(mut self) -> Value {
        let mut entry = Map::new();
        let mut set = |name: &str, value: String| {
            if !value.is_empty() {
                entry.insert(name.to_owned(), value.into());
            }
        };
        set("manager", std::mem::take(&mut self.manager.name));
        set("operation", self.manager.operation.name().to_owned());
        set("apiVersion", std::mem::take(&mut self.manager.api_version));
        set("time", self.time.map(|t| t.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()).unwrap_or_default());
        set("fieldsType", "FieldsV1".to_owned());
        set("subresource", std::mem::take(&mut self.manager.subresource));
        let fields = self.read.take().unwrap_or_else(|| self.fields().to_fields_v1());
        entry.insert("fieldsV1".to_owned(), fields);
        entry.into()
    }
}

/// All entries of an object; one per manager.
#[derive(Debug, Clone, Default)]
pub(super) struct Managers {
    pub entries: Vec<Entry>,
}

impl Managers {
    /// Reads `metadata.managedFields`; an absent one has no entries.
    ///
    /// # Errors
    /// What is wrong with which entry.
    pub fn decode(managed: Option<Value>) -> Result<Self, String> {
        let mut managers = Self::default();
        let list = match managed {
            None | Some(Value::Null) => return Ok(managers),
            Some(Value::Array(list)) => list,
            Some(_) => return Err("managedFields is not a list".into()),
        };
        for (i, value) in list.into_iter().enumerate() {
            let entry = Entry::decode(value).map_err(|e| format!("managed fields entry {i}: {e}"))?;
            managers.entries.retain(|e| !e.manager.is(&entry.manager));
            managers.entries.push(entry);
        }
        Ok(managers)
    }

    /// The form in metadata; `None` if there are no entries. Appliers first, then by time.
    pub fn encode(mut self) -> Option<Value> {
        self.entries.sort_by(|a, b| {
            let seconds = |e: &Entry| e.time.map_or(0, Timestamp::as_second);
            let (x, y) = (&a.manager, &b.manager);
            (x.operation, seconds(a), &x.name, &x.api_version, &x.subresource).cmp(&(
                y.operation,
                seconds(b),
                &y.name,
                &y.api_version,
                &y.subresource,
            ))
        });
        let list: Vec<Value> = self.entries.into_iter().map(Entry::encode).collect();
        (!list.is_empty()).then(|| list.into())
    }

    /// The same, parsed, and to be printed anew: for entries that a client made.
    ///
    /// # Errors
    /// The first that cannot be parsed.
    pub fn canonical(mut self) -> Result<Self, String> {
        for entry in &mut self.entries {
            entry.fields = entry.parse()?.into();
            entry.read = None;
        }
        Ok(self)
    }

    /// A manager's entry.
    pub fn get(&self, manager: &Manager) -> Option<&Entry> {
        self.entries.iter().find(|e| e.manager.is(manager))
    }
    /// A manager's entry, to change it.
    pub fn get_mut(&mut self, manager: &Manager) -> Option<&mut Entry> {
        self.entries.iter_mut().find(|e| e.manager.is(manager))
    }

    /// Drops managers that own nothing.
    pub fn drop_empty(&mut self) {
        self.entries.retain(|e| !e.is_empty());
    }

    /// Merges the oldest updaters, version by version, until there are no more than `max`.
    pub fn cap_updaters(&mut self, max: usize, bucket: &str) {
        let mut updaters: Vec<Manager> = {
            let mut entries: Vec<&Entry> =
                self.entries.iter().filter(|e| e.manager.operation == Operation::Update).collect();
            entries.sort_by_key(|e| (e.time.map_or(0, Timestamp::as_second), e.manager.sort_key()));
            entries.into_iter().map(|e| e.manager.clone()).collect()
        };
        let mut excess = updaters.len().saturating_sub(max);
        let mut firsts: Vec<Manager> = Vec::new();
        for manager in updaters.drain(..) {
            if excess == 0 {
                return;
            }
            let Some(first) = firsts.iter().find(|f| f.api_version == manager.api_version).cloned() else {
                firsts.push(manager);
                continue;
            };
            let into = Manager {
                name: bucket.to_owned(),
                operation: Operation::Update,
                api_version: manager.api_version.clone(),
                subresource: String::new(),
            };
            if self.get(&into).is_none()
                && let Some(entry) = self.get_mut(&first)
            {
                entry.manager = into.clone();
            }
            let Some(at) = self.entries.iter().position(|e| e.manager.is(&manager)) else { continue };
            if manager.is(&into) {
                continue;
            }
            let merged = self.entries.remove(at);
            if let Some(entry) = self.get_mut(&into) {
                entry.set_fields(entry.fields().union(merged.fields()));
                entry.time = merged.time;
            }
            excess -= 1;
        }
    }
}
