//! Bodies in JSON, YAML and protobuf: what is decoded is the same once it is encoded and decoded again.
#![no_main]

use copepod_api::Gvk;
use copepod_core::codec;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((choice, body)) = data.split_first() else { return };
    let media = [codec::JSON, codec::YAML, codec::PROTOBUF][usize::from(*choice) % 3];
    let hint = Gvk::from_api_version("v1", "Pod");
    let Ok(decoded) = codec::decode(media, body, Some(&hint)) else { return };
    if media == codec::PROTOBUF {
        let Ok(encoded) = codec::encode_protobuf(&decoded.value) else { return };
        let again = codec::decode(media, &encoded, None).expect("our own protobuf");
        let twice = codec::encode_protobuf(&again.value).expect("encodes");
        assert_eq!(codec::decode(media, &twice, None).expect("decodes").value, again.value);
    } else {
        let text = serde_json::to_vec(&decoded.value).expect("encodes");
        if text.len() <= codec::MAX_BODY {
            assert_eq!(codec::decode(codec::JSON, &text, None).expect("our own JSON").value, decoded.value);
        }
    }
});
