//! Events are kept for an hour after they last happened.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event;

/// How long an Event is kept, in seconds.
pub const TTL_SECONDS: i64 = 3600;

/// Whether an Event last happened too long ago to be kept.
pub fn expired(event: &Event, now: Timestamp) -> bool {
    let times = [
        event.series.as_ref().and_then(|s| s.last_observed_time.as_ref()).map(|t| t.0),
        event.last_timestamp.as_ref().map(|t| t.0),
        event.event_time.as_ref().map(|t| t.0),
        event.metadata.creation_timestamp.as_ref().map(|t| t.0),
    ];
    let last = times.into_iter().flatten().max();
    last.is_some_and(|last| now.as_second().saturating_sub(last.as_second()) > TTL_SECONDS)
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    #[test]
    fn the_last_time_counts() {
        let event = |created: i64, last: i64| -> Event {
            yaml(&format!(
                "metadata: {{creationTimestamp: '{}'}}\nlastTimestamp: '{}'\ninvolvedObject: {{}}",
                at(created),
                at(last)
            ))
        };
        let cases = [((-7200, -10), false), ((-7200, -3601), true), ((-10, -7200), false)];
        for ((created, last), expected) in cases {
            assert_eq!(expired(&event(created, last), now()), expected, "{created} {last}");
        }
    }
}
