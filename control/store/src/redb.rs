//! The store in one file: a table of records and an undo log of recent changes, in redb.
//!
//! A row of history holds what its change replaced; what the change wrote is in the next row of that key or, for the
//! last one, among the records. So each write stores one old and one new value, and loading rebuilds both.

mod codec;

use std::collections::{BTreeMap, HashMap};
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use ::redb::{Builder, Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};

use crate::index::{FIRST_REVISION, Index};
use crate::indexed::Indexed;
use crate::log::{Batch, Log};
use crate::{Event, EventKind, Options, Record, StoreError};

/// The layout of tables and rows that this program reads and writes.
const FORMAT: u64 = 1;
const META: TableDefinition<&str, u64> = TableDefinition::new("copepod.meta");
const RECORDS: TableDefinition<&str, &[u8]> = TableDefinition::new("copepod.records");
const HISTORY: TableDefinition<u64, &[u8]> = TableDefinition::new("copepod.history");

/// Page cache; small, since reads are answered from the index.
const CACHE_BYTES: usize = 8 << 20;
/// Old history is removed from the file in steps of at least this many rows.
const TRIM_STEP: u64 = 1024;

/// The log in a redb file.
pub struct RedbLog {
    database: Database,
    path: PathBuf,
    /// History in the file starts above this revision.
    trimmed: u64,
}

/// A store in one file. One writer thread commits what has queued meanwhile in one durable transaction.
pub type RedbStore = Indexed<RedbLog>;

impl RedbStore {
    /// Opens the file at `path`, or creates it (mode 0600). The error says what is wrong and what to do: the file is in
    /// use, not readable, not a store, of another format, or damaged.
    pub fn open(path: impl AsRef<Path>, options: Options) -> Result<Self, StoreError> {
        let (log, index) = RedbLog::open(path.as_ref(), &options).map_err(StoreError::Broken)?;
        Self::threaded(index, log, options)
    }
}

impl RedbLog {
    fn open(path: &Path, options: &Options) -> Result<(Self, Index), String> {
        let shown = path.display();
        let file = open_file(path)?;
        let database = Builder::new().set_cache_size(CACHE_BYTES).create_file(file).map_err(|e| match e {
            DatabaseError::DatabaseAlreadyOpen => format!(
                "the store {shown} is already in use by another process; stop that server or choose another data directory"
            ),
            e => format!("cannot open the store {shown}: {e}; if the file is damaged, restore it from a backup"),
        })?;
        let damaged = |what: String| format!("the store {shown} is damaged: {what}; restore it from a backup");
        let fresh = Self::prepare(&database).map_err(|e| format!("the store {shown}: {e}"))?;
        let (index, trimmed) = if fresh {
            (Index::new(options.clone()), FIRST_REVISION)
        } else {
            load(&database, options).map_err(damaged)?
        };
        Ok((Self { database, path: path.into(), trimmed }, index))
    }

    /// Checks the format, or writes it into an empty file; says whether the file was empty.
    fn prepare(database: &Database) -> Result<bool, String> {
        let text = |e: ::redb::Error| e.to_string();
        let read = database.begin_read().map_err(|e| text(e.into()))?;
        if read.list_tables().map_err(|e| text(e.into()))?.next().is_some() {
            let foreign = "is not a Copepod store; choose another data directory";
            let meta = read.open_table(META).map_err(|_| foreign.to_string())?;
            return match meta.get("format").map_err(|e| text(e.into()))?.map(|v| v.value()) {
                Some(FORMAT) => Ok(false),
                Some(other) => Err(format!(
                    "has format {other}, this program knows format {FORMAT} only; use the version that wrote it"
                )),
                None => Err(foreign.into()),
            };
        }
        let write = || -> Result<(), ::redb::Error> {
            let mut txn = database.begin_write()?;
            txn.set_quick_repair(true);
            {
                let mut meta = txn.open_table(META)?;
                meta.insert("format", FORMAT)?;
                meta.insert("revision", FIRST_REVISION)?;
                meta.insert("floor", FIRST_REVISION)?;
                txn.open_table(RECORDS)?;
                txn.open_table(HISTORY)?;
            }
            Ok(txn.commit()?)
        };
        write().map_err(text)?;
        Ok(true)
    }

    fn write(&mut self, batch: &Batch<'_>) -> Result<(), ::redb::Error> {
        let mut txn = self.database.begin_write()?;
        txn.set_quick_repair(true);
        let trim = batch.floor >= self.trimmed + TRIM_STEP;
        {
            let mut records = txn.open_table(RECORDS)?;
            let mut history = txn.open_table(HISTORY)?;
            for event in batch.events {
                let record = &event.record;
                history.insert(record.revision, codec::change(event).as_slice())?;
                match event.kind {
                    EventKind::Deleted => drop(records.remove(&*record.key)?),
                    _ => drop(records.insert(&*record.key, codec::record(record).as_slice())?),
                }
            }
            if trim {
                history.retain_in(..=batch.floor, |_, _| false)?;
            }
            let mut meta = txn.open_table(META)?;
            meta.insert("revision", batch.revision)?;
            meta.insert("floor", batch.floor)?;
        }
        txn.commit()?;
        if trim {
            self.trimmed = batch.floor;
        }
        Ok(())
    }
}

impl Log for RedbLog {
    fn commit(&mut self, batch: &Batch<'_>) -> Result<(), String> {
        self.write(batch).map_err(|e| format!("cannot write to {}: {e}", self.path.display()))
    }
}

/// Opens or creates the file, for its owner only; a new file's name is durable before anything is acknowledged.
fn open_file(path: &Path) -> Result<File, String> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options
        .open(path)
        .map_err(|e| format!("cannot open or create the store {}: {e}; check the data directory", path.display()))?;
    if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        let synced = File::open(parent).and_then(|dir| dir.sync_all());
        synced.map_err(|e| format!("cannot sync the directory {}: {e}", parent.display()))?;
    }
    Ok(file)
}

/// Reads the index back, and above which revision the file holds history.
fn load(database: &Database, options: &Options) -> Result<(Index, u64), String> {
    let text = |e: ::redb::Error| e.to_string();
    let read = database.begin_read().map_err(|e| text(e.into()))?;
    let meta = read.open_table(META).map_err(|e| text(e.into()))?;
    let number = |name: &str| match meta.get(name) {
        Ok(Some(value)) => Ok(value.value()),
        Ok(None) => Err(format!("it has no {name}")),
        Err(e) => Err(e.to_string()),
    };
    let (revision, floor) = (number("revision")?, number("floor")?);

    let mut records: BTreeMap<Arc<str>, Record> = BTreeMap::new();
    let table = read.open_table(RECORDS).map_err(|e| text(e.into()))?;
    for row in table.iter().map_err(|e| text(e.into()))? {
        let (key, row) = row.map_err(|e| text(e.into()))?;
        let key: Arc<str> = key.value().into();
        let record =
            codec::read_record(&key, row.value()).ok_or_else(|| format!("the record of {key} is unreadable"))?;
        records.insert(key, record);
    }

    // Backwards: `state` is what each key held after the change at hand, where that differs from now.
    let mut state: HashMap<Arc<str>, Option<Record>> = HashMap::new();
    let mut history = Vec::new();
    let (mut expected, mut trimmed) = (revision, floor);
    let table = read.open_table(HISTORY).map_err(|e| text(e.into()))?;
    if let Some((first, _)) = table.first().map_err(|e| text(e.into()))? {
        trimmed = trimmed.min(first.value().saturating_sub(1));
    }
    for row in table.range(floor + 1..).map_err(|e| text(e.into()))?.rev() {
        let (at, row) = row.map_err(|e| text(e.into()))?;
        let at = at.value();
        let broken = || format!("the change at revision {at} is unreadable");
        if at != expected {
            return Err(format!("the change at revision {expected} is missing"));
        }
        expected -= 1;
        let (kind, key, previous) = codec::read_change(row.value()).ok_or_else(broken)?;
        let key = records.get_key_value(key).map_or_else(|| Arc::from(key), |(k, _)| k.clone());
        let previous = match previous {
            Some(bytes) => Some(codec::read_record(&key, bytes).ok_or_else(broken)?),
            None => None,
        };
        let record = match kind {
            EventKind::Deleted => previous.clone().map(|p| Record { revision: at, ..p }),
            _ => state.get(&key).cloned().unwrap_or_else(|| records.get(&key).cloned()),
        };
        let record = record.filter(|r| r.revision == at).ok_or_else(broken)?;
        state.insert(key, previous.clone());
        history.push(Arc::new(Event { kind, record, previous, encoded: OnceLock::new() }));
    }
    if expected != floor {
        return Err(format!("the change at revision {expected} is missing"));
    }
    history.reverse();
    Ok((Index::restore(records, history, floor, revision, options.clone()), trimmed))
}

#[cfg(test)]
mod tests;
