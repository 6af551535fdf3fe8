//! The promises of priorities.

use serde_json::Value;

use super::{World, active, name, number, text, uid};

impl World {
    /// Keeps who waits for a node, and how important it is.
    pub(super) fn note_waiting(&mut self, pod: &Value, there: bool) {
        let now = self.now();
        let waits = there && active(pod) && text(pod, "/spec/nodeName").is_empty();
        match self.memory.waiting.get_mut(uid(pod)) {
            Some((_, until)) if !waits => *until = until.or(Some(now)),
            None if waits && text(pod, "/spec/preemptionPolicy") != "Never" => {
                self.memory.waiting.insert(uid(pod).into(), (number(pod, "/spec/priority"), None));
            }
            _ => {}
        }
        let forgotten = |until: Option<jiff::Timestamp>| until.is_some_and(|until| until + super::MEMORY < now);
        self.memory.waiting.retain(|_, (_, until)| !forgotten(*until));
    }

    /// A pod goes only for one that matters more, and that has no node yet.
    pub(super) fn preempted(&mut self, pod: &Value) {
        let (now, lag) = (self.now(), self.lag(name(pod), &[&["pods"]]));
        let priority = number(pod, "/spec/priority");
        let lately = |until: &Option<jiff::Timestamp>| until.is_none_or(|until| until + lag >= now);
        let waiting = self.memory.waiting.values().filter(|(_, until)| lately(until)).map(|(p, _)| *p).max();
        if waiting.is_none_or(|waiting| waiting <= priority) {
            let what = format!("{} of priority {priority} goes, the highest that waits is {waiting:?}", name(pod));
            self.violate(what);
        }
        self.preemptions += 1;
    }
}
