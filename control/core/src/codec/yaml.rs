//! YAML: documents to JSON values, bounded against alias bombs.

use serde_json::Value;
use serde_saphyr::{DuplicateKeyPolicy, Error, Options};

use super::{CodecError, Decoded};

/// Most documents in one stream.
pub const MAX_DOCUMENTS: usize = 10_000;
/// Most YAML events (scalars, starts and ends) in one stream.
pub const MAX_EVENTS: usize = 500_000;
/// Most events that aliases may repeat.
pub const MAX_REPLAYED: usize = 100_000;

/// Decodes exactly one document.
///
/// # Errors
/// [`CodecError::Malformed`] with line and column.
pub fn decode(bytes: &[u8]) -> Result<Decoded, CodecError> {
    let strict = serde_saphyr::from_slice_with_options::<Value>(bytes, options(DuplicateKeyPolicy::Error));
    match strict {
        Ok(value) => Ok(Decoded { value, duplicate_fields: Vec::new() }),
        Err(first) => {
            let Some(line) = duplicate_key(&first) else { return Err(malformed(&first)) };
            let value = serde_saphyr::from_slice_with_options(bytes, options(DuplicateKeyPolicy::LastWins))
                .map_err(|e| malformed(&e))?;
            Ok(Decoded { value, duplicate_fields: vec![line] })
        }
    }
}

/// Decodes a stream of documents; empty ones are left out. A key given twice is an error.
///
/// # Errors
/// [`CodecError::Malformed`] with line and column.
pub fn decode_all(bytes: &[u8]) -> Result<Vec<Value>, CodecError> {
    let documents: Vec<Value> =
        serde_saphyr::from_slice_multiple_with_options(bytes, options(DuplicateKeyPolicy::Error))
            .map_err(|e| malformed(&e))?;
    if documents.len() > MAX_DOCUMENTS {
        return Err(CodecError::Malformed(format!("invalid YAML: more than {MAX_DOCUMENTS} documents")));
    }
    Ok(documents.into_iter().filter(|d| !is_empty(d)).collect())
}

/// A document with nothing between its markers: the parser gives null, or an empty scalar.
fn is_empty(document: &Value) -> bool {
    document.is_null() || document.as_str() == Some("")
}

/// Deepest nesting of a YAML document: the parser recurses, and a thread's stack is finite. Kubernetes' own deepest
/// objects have about 20 levels.
const MAX_YAML_DEPTH: usize = 64;

fn options(duplicate_keys: DuplicateKeyPolicy) -> Options {
    let mut options = Options::default();
    options.duplicate_keys = duplicate_keys;
    options.with_snippet = false;
    options.alias_limits.max_total_replayed_events = MAX_REPLAYED;
    if let Some(budget) = &mut options.budget {
        budget.max_events = MAX_EVENTS;
        budget.max_depth = MAX_YAML_DEPTH;
    }
    options
}

fn malformed(error: &Error) -> CodecError {
    let at = error.location().map(|l| format!(" at line {} column {}", l.line(), l.column())).unwrap_or_default();
    CodecError::Malformed(format!("invalid YAML{at}: {error}"))
}

fn duplicate_key(error: &Error) -> Option<String> {
    let Error::DuplicateMappingKey { key, .. } = error else { return None };
    let line = error.location().map(|l| l.line()).unwrap_or_default();
    Some(format!("line {line}: key {:?} already set in map", key.clone().unwrap_or_default()))
}
