//! PriorityLevelConfiguration.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::conditions;
use super::value::{has, int, set, set_default, set_default_nonzero, text};
use super::{names, with_status};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};

const MAX_QUEUES: i64 = 10_000_000;
/// Bits of a request's hash that queues are drawn from.
const MAX_HASH_BITS: u32 = 60;

/// PriorityLevelConfigurations.
pub fn resource() -> Option<Resource> {
    let (api, plural) = ("flowcontrol.apiserver.k8s.io/v1", "prioritylevelconfigurations");
    let names = names(api, plural, "PriorityLevelConfiguration", &[], Scope::Cluster);
    super::built_in(names, with_status(), PriorityLevel)
}

struct PriorityLevel;

impl Strategy for PriorityLevel {
    fn default(&self, object: &mut Value) {
        if let Some(exempt) = object.pointer_mut("/spec/exempt") {
            set_default(exempt, "nominalConcurrencyShares", 0);
            set_default(exempt, "lendablePercent", 0);
        }
        if let Some(limited) = object.pointer_mut("/spec/limited") {
            set_default(limited, "nominalConcurrencyShares", 30);
            set_default(limited, "lendablePercent", 0);
        }
        if let Some(queuing) = object.pointer_mut("/spec/limited/limitResponse/queuing") {
            set_default_nonzero(queuing, "handSize", 8);
            set_default_nonzero(queuing, "queues", 64);
            set_default_nonzero(queuing, "queueLengthLimit", 50);
        }
    }
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let type_ = text(object, "/spec/type");
        if (text(object, "/metadata/name") == "exempt") != (type_ == "Exempt") {
            let message = "type must be 'Exempt' if and only if name is 'exempt'";
            errors.push(FieldError::invalid("spec.type", &json!(type_), message));
        }
        match type_ {
            "Exempt" => {
                if has(object, "/spec/limited") {
                    errors.push(FieldError::forbidden("spec.limited", "must be nil if the type is not Limited"));
                }
                shares(&mut errors, object, "exempt");
            }
            "Limited" => {
                if has(object, "/spec/exempt") {
                    errors.push(FieldError::forbidden("spec.exempt", "must be nil if the type is Limited"));
                }
                if has(object, "/spec/limited") {
                    limited(&mut errors, object);
                } else {
                    errors.push(FieldError::required("spec.limited", "must not be empty when type is Limited"));
                }
            }
            other => errors.push(FieldError::not_supported("spec.type", &json!(other), &["Exempt", "Limited"])),
        }
        conditions(&mut errors, object);
        errors
    }
    fn columns(&self) -> Vec<Column> {
        vec![
            Column::name(),
            Column::new("Type", "string", "Exempt or Limited."),
            Column::new("NominalConcurrencyShares", "string", "Its share of the server's places."),
            Column::new("Queues", "string", "How many queues it has."),
            Column::new("HandSize", "string", "Queues that one flow may use."),
            Column::new("QueueLengthLimit", "string", "How many requests wait in one queue."),
            Column::age(),
        ]
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let number = |pointer: &str| json!(int(object, pointer).map_or_else(|| "<none>".into(), |n| n.to_string()));
        let queuing = |key: &str| number(&format!("/spec/limited/limitResponse/queuing/{key}"));
        let part = if has(object, "/spec/limited") { "limited" } else { "exempt" };
        vec![
            table::name(object),
            json!(text(object, "/spec/type")),
            number(&format!("/spec/{part}/nominalConcurrencyShares")),
            queuing("queues"),
            queuing("handSize"),
            queuing("queueLengthLimit"),
            table::age(object, now),
        ]
    }
}

fn shares(errors: &mut Vec<FieldError>, object: &Value, part: &str) {
    for (key, most, message) in [
        ("nominalConcurrencyShares", i64::MAX, "must be a non-negative integer"),
        ("lendablePercent", 100, "must be between 0 and 100, inclusive"),
        ("borrowingLimitPercent", i64::MAX, "if specified, must be a non-negative integer"),
    ] {
        if let Some(n) = int(object, &format!("/spec/{part}/{key}")).filter(|n| !(0..=most).contains(n)) {
            errors.push(FieldError::invalid(format!("spec.{part}.{key}"), &json!(n), message));
        }
    }
}

fn limited(errors: &mut Vec<FieldError>, object: &Value) {
    const FIELD: &str = "spec.limited.limitResponse";
    shares(errors, object, "limited");
    let queues = has(object, "/spec/limited/limitResponse/queuing");
    match text(object, "/spec/limited/limitResponse/type") {
        "Reject" if queues => {
            let message = "must be nil if limited.limitResponse.type is not Limited";
            errors.push(FieldError::forbidden(format!("{FIELD}.queuing"), message));
        }
        "Queue" if queues => queuing(errors, object),
        "Queue" => {
            let message = "must not be empty if limited.limitResponse.type is Limited";
            errors.push(FieldError::required(format!("{FIELD}.queuing"), message));
        }
        "Reject" => {}
        other => errors.push(FieldError::not_supported(format!("{FIELD}.type"), &json!(other), &["Queue", "Reject"])),
    }
}

fn queuing(errors: &mut Vec<FieldError>, object: &Value) {
    let of = |key: &str| int(object, &format!("/spec/limited/limitResponse/queuing/{key}")).unwrap_or(0);
    let (queues, hand) = (of("queues"), of("handSize"));
    let mut bad = |key: &str, message: &str| {
        let field = format!("spec.limited.limitResponse.queuing.{key}");
        errors.push(FieldError::invalid(field, &json!(of(key)), message));
    };
    if of("queueLengthLimit") <= 0 {
        bad("queueLengthLimit", "must be positive");
    }
    match queues {
        ..=0 => bad("queues", "must be positive"),
        n if n > MAX_QUEUES => bad("queues", &format!("must not be greater than {MAX_QUEUES}")),
        _ => {}
    }
    let bits = entropy_bits(queues, hand);
    match hand {
        ..=0 => bad("handSize", "must be positive"),
        n if n > queues => bad("handSize", &format!("should not be greater than queues ({queues})")),
        _ if bits > MAX_HASH_BITS => bad(
            "handSize",
            &format!(
                "required entropy bits of deckSize {queues} and handSize {hand} should not be greater than \
                 {MAX_HASH_BITS}"
            ),
        ),
        _ => {}
    }
}

/// Bits that tell all hands of `hand` cards out of `deck` apart.
fn entropy_bits(deck: i64, hand: i64) -> u32 {
    let mut bits = 0.0_f64;
    // More cards than this need more than the limit from any deck that has them.
    for card in 0..hand.clamp(0, i64::from(MAX_HASH_BITS) + 1) {
        let left = u32::try_from(deck.saturating_sub(card).max(1)).unwrap_or(u32::MAX);
        bits += f64::from(left).log2();
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "at most 61 times 32")]
    let bits = bits.ceil() as u32;
    bits
}
