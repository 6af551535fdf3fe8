//! Patches of all kinds against pods, whose result is bounded by what went in; merge patches may be applied twice. The
//! first byte says the kind, a tab divides the original from the patch.
#![no_main]

use std::sync::{Arc, LazyLock};

use copepod_api::Gvk;
use copepod_core::codec;
use copepod_core::patch::{self, MAX_COPY_BYTES, PatchKind};
use copepod_core::schema::{self, Schema};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

static POD: LazyLock<Arc<Schema>> =
    LazyLock::new(|| schema::builtin(&Gvk::from_api_version("v1", "Pod")).expect("Pod"));

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let kind = [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic][usize::from(*choice) % 3];
    let mut parts = rest.splitn(2, |b| *b == b'\t');
    let (Some(original), Some(change)) = (parts.next(), parts.next()) else { return };
    let Ok(mut original) = codec::json::decode(original) else { return };
    let Ok(change) = codec::json::decode(change) else { return };
    if POD.decode(&mut original.value).is_err() {
        return;
    }
    let (original, change) = (original.value, change.value);
    let Ok(mut patched) = patch::apply(kind, &POD, &original, &change) else { return };
    let copies = if kind == PatchKind::Json { MAX_COPY_BYTES } else { 0 };
    assert!(size(&patched) <= size(&original) + size(&change) + copies, "{patched}");
    if kind == PatchKind::Merge {
        assert_eq!(patch::apply(kind, &POD, &patched, &change).as_ref(), Ok(&patched));
    }
    let _ = POD.decode(&mut patched);
});

fn size(value: &Value) -> usize {
    value.to_string().len()
}
