//! Patches of all kinds against pods: an original and a patch, divided by a zero byte.
#![no_main]

use std::sync::{Arc, LazyLock};

use copepod_api::Gvk;
use copepod_core::codec;
use copepod_core::patch::{self, PatchKind};
use copepod_core::schema::{self, Schema};
use libfuzzer_sys::fuzz_target;

static POD: LazyLock<Arc<Schema>> = LazyLock::new(|| schema::builtin(&Gvk::from_api_version("v1", "Pod")).expect("Pod"));

fuzz_target!(|data: &[u8]| {
    let Some((choice, rest)) = data.split_first() else { return };
    let kind = [PatchKind::Json, PatchKind::Merge, PatchKind::Strategic][usize::from(*choice) % 3];
    let mut parts = rest.splitn(2, |b| *b == 0);
    let (Some(original), Some(change)) = (parts.next(), parts.next()) else { return };
    let Ok(mut original) = codec::json::decode(original) else { return };
    let Ok(change) = codec::json::decode(change) else { return };
    if POD.decode(&mut original.value).is_err() {
        return;
    }
    if let Ok(mut patched) = patch::apply(kind, &POD, &original.value, &change.value) {
        let _ = POD.decode(&mut patched);
    }
});
