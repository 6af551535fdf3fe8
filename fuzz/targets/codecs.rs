//! Bodies in JSON, YAML and protobuf: what is decoded is the same once it is encoded and decoded again. The first
//! byte says the format.
#![no_main]

use copepod_api::Gvk;
use copepod_core::codec;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let media = [codec::JSON, codec::YAML, codec::PROTOBUF][usize::from(*choice) % 3];
    let hint = Gvk::from_api_version("v1", "Pod");
    let Ok(decoded) = codec::decode(media, body, Some(&hint)) else { return };
    if media == codec::PROTOBUF {
        // What is printed from a message can be read into one, and says the same again.
        let encoded = codec::encode_protobuf(&decoded.value).expect("what was decoded can be encoded");
        let again = codec::decode(media, &encoded, None).expect("our own protobuf");
        assert_eq!(again.value, decoded.value);
    } else {
        let text = serde_json::to_vec(&decoded.value).expect("encodes");
        if text.len() <= codec::MAX_BODY {
            assert_eq!(codec::decode(codec::JSON, &text, None).expect("our own JSON").value, decoded.value);
        }
        through_protobuf(&decoded.value);
    }
});

/// An object that has a protobuf form keeps it.
fn through_protobuf(object: &Value) {
    let Ok(encoded) = codec::encode_protobuf(object) else { return };
    let once = codec::decode(codec::PROTOBUF, &encoded, None).expect("our own protobuf").value;
    let encoded = codec::encode_protobuf(&once).expect("what was decoded can be encoded");
    assert_eq!(codec::decode(codec::PROTOBUF, &encoded, None).expect("our own protobuf").value, once);
}
