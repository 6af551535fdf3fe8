//! Rows of the file, little-endian; texts are a u32 length and their bytes.
//!
//! record: created u64, revision u64, splice u32, labels, fields, value to the end.
//! labels, fields: count u32, then key and value texts.
//! change: kind u8, key text, then the replaced record if there was one.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;

use crate::{Attrs, Event, EventKind, Record};

pub(super) fn record(record: &Record) -> Vec<u8> {
    let mut out = Vec::with_capacity(record.value.len() + 256);
    put_record(&mut out, record);
    out
}

pub(super) fn change(event: &Event) -> Vec<u8> {
    let mut out = Vec::with_capacity(event.previous.as_ref().map_or(0, |p| p.value.len() + 256) + 64);
    out.push(match event.kind {
        EventKind::Created => 0,
        EventKind::Updated => 1,
        EventKind::Deleted => 2,
    });
    put_text(&mut out, &event.record.key);
    if let Some(previous) = &event.previous {
        put_record(&mut out, previous);
    }
    out
}

/// `None` if the row is damaged.
pub(super) fn read_record(key: &Arc<str>, row: &[u8]) -> Option<Record> {
    let mut r = Reader(row);
    let (created, revision, splice) = (r.u64()?, r.u64()?, r.u32()?);
    let attrs = Arc::new(Attrs { labels: r.map()?, fields: r.map()?, splice });
    Some(Record { key: key.clone(), value: Bytes::copy_from_slice(r.0), attrs, created, revision })
}

/// Kind, key, and the replaced record's row; `None` if the row is damaged.
pub(super) fn read_change(row: &[u8]) -> Option<(EventKind, &str, Option<&[u8]>)> {
    let (kind, rest) = row.split_first()?;
    let mut r = Reader(rest);
    let key = r.text()?;
    let kind = match kind {
        0 => EventKind::Created,
        1 => EventKind::Updated,
        2 => EventKind::Deleted,
        _ => return None,
    };
    let previous = (kind != EventKind::Created).then_some(r.0);
    Some((kind, key, previous))
}

fn put_record(out: &mut Vec<u8>, record: &Record) {
    out.extend(record.created.to_le_bytes());
    out.extend(record.revision.to_le_bytes());
    out.extend(record.attrs.splice.to_le_bytes());
    put_map(out, &record.attrs.labels);
    put_map(out, &record.attrs.fields);
    out.extend_from_slice(&record.value);
}

fn put_map(out: &mut Vec<u8>, map: &BTreeMap<String, String>) {
    out.extend((map.len() as u32).to_le_bytes());
    for (key, value) in map {
        put_text(out, key);
        put_text(out, value);
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u32).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
    fn text(&mut self) -> Option<&'a str> {
        let length = self.u32()? as usize;
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        std::str::from_utf8(head).ok()
    }
    fn map(&mut self) -> Option<BTreeMap<String, String>> {
        let count = self.u32()?;
        (0..count).map(|_| Some((self.text()?.to_string(), self.text()?.to_string()))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn survives(labels in any::<BTreeMap<String, String>>(), fields in any::<BTreeMap<String, String>>(),
                    splice: u32, value: Vec<u8>, created: u64, revision: u64) {
            let key: Arc<str> = "/k".into();
            let attrs = Arc::new(Attrs { labels, fields, splice });
            let r = Record { key: key.clone(), value: value.into(), attrs, created, revision };
            let row = record(&r);
            let back = read_record(&key, &row).unwrap();
            prop_assert_eq!((&back.value, &back.attrs, back.created, back.revision), (&r.value, &r.attrs, created, revision));
        }

        #[test]
        fn damage_never_panics(row: Vec<u8>) {
            let _ = read_record(&"/k".into(), &row);
            let _ = read_change(&row);
        }
    }
}
