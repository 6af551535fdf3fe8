//! The version 2 document as protobuf: gnostic's `openapi.v2.Document`, which kubectl before 1.28 and client-go ask for.
//! One table of field numbers, after `openapiv2/OpenAPIv2.proto` of github.com/google/gnostic-models, drives it.

use prost::encoding::{WireType, encode_key, encode_varint};
use serde_json::Value;

/// A message: its fields by JSON name, and the number of the field that holds the `x-` extensions.
struct Message {
    fields: &'static [(&'static str, u32, Form)],
    extensions: u32,
}

/// How a JSON value is written as a field.
enum Form {
    Text,
    Flag,
    Integer,
    Number,
    /// Any value, as YAML text.
    Any,
    Is(&'static Message),
    /// A field for each item of a list.
    Each(&'static Form),
    /// A `(name, value)` message for each entry of a map.
    Entries(&'static Form),
    /// The only field, of this number, of a message of its own.
    Within(u32, &'static Form),
    /// A schema or a flag.
    SchemaOrFlag,
    /// A parameter: its message depends on where it is passed.
    Parameter,
}

use Form::{Any, Each, Entries, Flag, Integer, Is, Number, Text, Within};

static DOCUMENT: Message = Message {
    fields: &[
        ("swagger", 1, Text),
        ("info", 2, Is(&INFO)),
        ("paths", 8, Within(2, &Entries(&Is(&PATH)))),
        ("definitions", 9, Within(1, &Entries(&Is(&SCHEMA)))),
    ],
    extensions: 16,
};
static INFO: Message =
    Message { fields: &[("title", 1, Text), ("version", 2, Text), ("description", 3, Text)], extensions: 7 };
static PATH: Message = Message {
    fields: &[
        ("get", 2, Is(&OPERATION)),
        ("put", 3, Is(&OPERATION)),
        ("post", 4, Is(&OPERATION)),
        ("delete", 5, Is(&OPERATION)),
        ("options", 6, Is(&OPERATION)),
        ("head", 7, Is(&OPERATION)),
        ("patch", 8, Is(&OPERATION)),
        ("parameters", 9, PARAMETERS),
    ],
    extensions: 10,
};
static OPERATION: Message = Message {
    fields: &[
        ("tags", 1, TEXTS),
        ("summary", 2, Text),
        ("description", 3, Text),
        ("operationId", 5, Text),
        ("produces", 6, TEXTS),
        ("consumes", 7, TEXTS),
        ("parameters", 8, PARAMETERS),
        // Each is a response (1) or a reference; none is a reference here.
        ("responses", 9, Within(1, &Entries(&Within(1, &Is(&RESPONSE))))),
        ("schemes", 10, TEXTS),
        ("deprecated", 11, Flag),
    ],
    extensions: 13,
};
static RESPONSE: Message =
    Message { fields: &[("description", 1, Text), ("schema", 2, Within(1, &Is(&SCHEMA)))], extensions: 5 };
static BODY: Message = Message {
    fields: &[
        ("description", 1, Text),
        ("name", 2, Text),
        ("in", 3, Text),
        ("required", 4, Flag),
        ("schema", 5, Is(&SCHEMA)),
    ],
    extensions: 6,
};
static QUERY: Message = Message {
    fields: &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 6, Text),
        ("format", 7, Text),
        ("uniqueItems", 20, Flag),
    ],
    extensions: 23,
};
static IN_PATH: Message = Message {
    fields: &[
        ("required", 1, Flag),
        ("in", 2, Text),
        ("description", 3, Text),
        ("name", 4, Text),
        ("type", 5, Text),
        ("format", 6, Text),
        ("uniqueItems", 19, Flag),
    ],
    extensions: 22,
};
static SCHEMA: Message = Message {
    fields: &[
        ("$ref", 1, Text),
        ("format", 2, Text),
        ("title", 3, Text),
        ("description", 4, Text),
        ("default", 5, Any),
        ("multipleOf", 6, Number),
        ("maximum", 7, Number),
        ("exclusiveMaximum", 8, Flag),
        ("minimum", 9, Number),
        ("exclusiveMinimum", 10, Flag),
        ("maxLength", 11, Integer),
        ("minLength", 12, Integer),
        ("pattern", 13, Text),
        ("maxItems", 14, Integer),
        ("minItems", 15, Integer),
        ("uniqueItems", 16, Flag),
        ("maxProperties", 17, Integer),
        ("minProperties", 18, Integer),
        ("required", 19, TEXTS),
        ("enum", 20, Each(&Any)),
        ("additionalProperties", 21, Form::SchemaOrFlag),
        ("type", 22, Within(1, &Text)),
        ("items", 23, Within(1, &Is(&SCHEMA))),
        ("allOf", 24, Each(&Is(&SCHEMA))),
        ("properties", 25, Within(1, &Entries(&Is(&SCHEMA)))),
        ("example", 30, Any),
    ],
    extensions: 31,
};
const TEXTS: Form = Each(&Text);
const PARAMETERS: Form = Each(&Form::Parameter);

/// Encodes a version 2 document. Members that the message has no field for are left out, as gnostic leaves them out.
pub fn v2_protobuf(document: &Value) -> Vec<u8> {
    message(&DOCUMENT, document)
}

fn message(is: &Message, value: &Value) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, number, form) in is.fields {
        if let Some(value) = value.get(name) {
            field(&mut out, *number, form, value);
        }
    }
    for (name, value) in value.as_object().into_iter().flatten().filter(|(name, _)| name.starts_with("x-")) {
        entry(&mut out, is.extensions, &Any, name, value);
    }
    out
}

/// Appends a value as a field; one that does not have the field's form is left out.
fn field(out: &mut Vec<u8>, number: u32, form: &Form, value: &Value) {
    match form {
        Text => {
            if let Some(text) = value.as_str() {
                bytes(out, number, text.as_bytes());
            }
        }
        Flag => {
            if value == true {
                varint(out, number, 1);
            }
        }
        Integer => {
            if let Some(n) = value.as_i64() {
                varint(out, number, n.cast_unsigned());
            }
        }
        Number => {
            if let Some(n) = value.as_f64() {
                encode_key(number, WireType::SixtyFourBit, out);
                out.extend_from_slice(&n.to_le_bytes());
            }
        }
        Any => {
            if let Ok(yaml) = serde_saphyr::to_string(value) {
                let mut any = Vec::new();
                bytes(&mut any, 2, yaml.as_bytes());
                bytes(out, number, &any);
            }
        }
        Is(is) => bytes(out, number, &message(is, value)),
        Each(form) => value.as_array().into_iter().flatten().for_each(|item| field(out, number, form, item)),
        Entries(form) => {
            value.as_object().into_iter().flatten().for_each(|(name, item)| entry(out, number, form, name, item));
        }
        Within(inner, form) => {
            let mut within = Vec::new();
            field(&mut within, *inner, form, value);
            bytes(out, number, &within);
        }
        Form::SchemaOrFlag => {
            let mut either = Vec::new();
            match value.as_bool() {
                Some(flag) => varint(&mut either, 2, flag.into()),
                None => field(&mut either, 1, &Is(&SCHEMA), value),
            }
            bytes(out, number, &either);
        }
        Form::Parameter => {
            static IN_BODY: Form = Within(1, &Is(&BODY));
            static OF_PATH: Form = Within(2, &Within(4, &Is(&IN_PATH)));
            static OF_QUERY: Form = Within(2, &Within(3, &Is(&QUERY)));
            let form = match value.get("in").and_then(Value::as_str) {
                Some("body") => &IN_BODY,
                Some("path") => &OF_PATH,
                Some("query") => &OF_QUERY,
                _ => return,
            };
            // An item is a parameter (1) or a reference; none is a reference here.
            field(out, number, &Within(1, form), value);
        }
    }
}

fn entry(out: &mut Vec<u8>, number: u32, form: &Form, name: &str, value: &Value) {
    let mut entry = Vec::new();
    bytes(&mut entry, 1, name.as_bytes());
    field(&mut entry, 2, form, value);
    bytes(out, number, &entry);
}

fn bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    encode_key(number, WireType::LengthDelimited, out);
    encode_varint(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

fn varint(out: &mut Vec<u8>, number: u32, n: u64) {
    encode_key(number, WireType::Varint, out);
    encode_varint(n, out);
}
