//! Events that tell people what a component did and why: counted instead of repeated, bounded, never in the way.

use std::collections::{HashMap, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Event, EventSource, ObjectReference};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Events that wait to be written; more are dropped and counted.
pub const MAX_WAITING: usize = 4096;
/// Events remembered for counting; the oldest is forgotten, and would be written anew.
pub const MAX_REMEMBERED: usize = 4096;
/// Writes about one object that may come at once, as upstream's spam filter has it...
pub const BURST_PER_OBJECT: u32 = 25;
/// ...and then one more each time this passes.
pub const REFILL: Duration = Duration::from_secs(300);
/// From so many different messages of one reason about one object on, further ones are counted as one event...
pub const MANY_SIMILAR: usize = 10;
/// ...while no more than this passes between two of them, both as upstream's aggregator has it.
pub const SIMILAR_WITHIN: Duration = Duration::from_secs(600);
/// How the message of an event begins that stands for many.
const COMBINED: &str = "(combined from similar events): ";

/// `Normal` or `Warning`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Severity {
    /// As it should be.
    Normal,
    /// Something for people to look at.
    Warning,
}

impl Severity {
    /// The field `type`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Records events for one component; a handle to be cloned. Recording never blocks.
#[derive(Clone)]
pub struct Recorder {
    queue: mpsc::Sender<Note>,
    dropped: Arc<AtomicU64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Identity {
    involved: String,
    severity: Severity,
    reason: String,
    message: String,
}

struct Note {
    involved: ObjectReference,
    severity: Severity,
    reason: String,
    message: String,
    /// It stands for many that differ in their messages alone.
    combined: bool,
}

impl Recorder {
    /// Starts a recorder; `component` is the events' source, `host` the node's name for node agents.
    /// The future writes the events and must be spawned; it ends when cancelled.
    pub fn new(
        client: kube::Client,
        component: &str,
        host: Option<&str>,
        token: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, notes) = mpsc::channel(MAX_WAITING);
        let source = EventSource { component: Some(component.into()), host: host.map(Into::into) };
        let recorder = Self { queue, dropped: Arc::default() };
        let write = async move {
            tokio::select! {
                () = token.cancelled() => {}
                () = write_all(client, source, notes) => {}
            }
        };
        (recorder, write)
    }

    /// Records that `reason` happened to `involved`. Dropped if too many wait.
    pub fn event(&self, involved: ObjectReference, severity: Severity, reason: &str, message: &str) {
        let note = Note { involved, severity, reason: reason.into(), message: message.into(), combined: false };
        if self.queue.try_send(note).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many events were dropped because too many waited.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

async fn write_all(client: kube::Client, source: EventSource, mut notes: mpsc::Receiver<Note>) {
    let mut memory = Memory::default();
    let mut serial: u64 = 0;
    while let Some(mut note) = notes.recv().await {
        memory.combine(&mut note, Instant::now());
        let namespace = note.involved.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into());
        let api: Api<Event> = Api::namespaced(client.clone(), &namespace);
        let now = Time(jiff::Timestamp::now());
        let written = match memory.judge(&note, Instant::now()) {
            Verdict::Drop => continue,
            Verdict::Repeat { name, count } => {
                let patch = json!({"count": count, "lastTimestamp": now, "message": note.message});
                match api.patch(&name, &PatchParams::default(), &Patch::Merge(&patch)).await {
                    // The event aged out: write it anew.
                    Err(kube::Error::Api(e)) if e.code == 404 => {
                        memory.forget(&note);
                        create(&api, &source, &note, now, &mut serial, &mut memory).await
                    }
                    other => other.map(|_| ()),
                }
            }
            Verdict::New => create(&api, &source, &note, now, &mut serial, &mut memory).await,
        };
        if let Err(error) = written {
            tracing::debug!(reason = note.reason, %error, "event not recorded");
        }
    }
}

async fn create(
    api: &Api<Event>,
    source: &EventSource,
    note: &Note,
    now: Time,
    serial: &mut u64,
    memory: &mut Memory,
) -> Result<(), kube::Error> {
    *serial += 1;
    let stamp = u64::try_from(now.0.as_nanosecond()).unwrap_or_default().wrapping_add(*serial);
    let name = format!("{}.{stamp:x}", note.involved.name.as_deref().unwrap_or("object"));
    let event = Event {
        metadata: ObjectMeta {
            name: Some(name.clone()),
            namespace: Some(
                note.involved.namespace.clone().filter(|n| !n.is_empty()).unwrap_or_else(|| "default".into()),
            ),
            ..ObjectMeta::default()
        },
        involved_object: note.involved.clone(),
        type_: Some(note.severity.as_str().into()),
        reason: Some(note.reason.clone()),
        message: Some(note.message.clone()),
        source: Some(source.clone()),
        reporting_component: source.component.clone(),
        reporting_instance: source.host.clone(),
        count: Some(1),
        first_timestamp: Some(now.clone()),
        last_timestamp: Some(now),
        ..Event::default()
    };
    api.create(&PostParams::default(), &event).await?;
    memory.remember(note, name);
    Ok(())
}

/// What was written lately, to count repeats and to hold back floods.
#[derive(Default)]
struct Memory {
    known: HashMap<Identity, (String, i32)>,
    order: VecDeque<Identity>,
    budgets: HashMap<String, (u32, Instant)>,
    similar: HashMap<Identity, Similar>,
}

/// The latest messages of one reason about one object, as hashes, and when the last one came.
struct Similar {
    messages: VecDeque<u64>,
    last: Instant,
}

#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    New,
    Repeat { name: String, count: i32 },
    Drop,
}

impl Memory {
    /// Makes a note stand for many if too many like it came lately, such as failures to make pods of random names.
    fn combine(&mut self, note: &mut Note, now: Instant) {
        if self.similar.len() >= MAX_REMEMBERED {
            self.similar.retain(|_, similar| now.duration_since(similar.last) <= SIMILAR_WITHIN);
            if self.similar.len() >= MAX_REMEMBERED {
                self.similar.clear();
            }
        }
        let like = Identity { message: String::new(), ..note.identity() };
        let similar = self.similar.entry(like).or_insert_with(|| Similar { messages: VecDeque::new(), last: now });
        if now.duration_since(similar.last) > SIMILAR_WITHIN {
            similar.messages.clear();
        }
        similar.last = now;
        let mut hash = DefaultHasher::new();
        note.message.hash(&mut hash);
        let hash = hash.finish();
        if similar.messages.contains(&hash) {
            return;
        }
        similar.messages.push_back(hash);
        if similar.messages.len() >= MANY_SIMILAR {
            similar.messages.pop_front();
            note.message.insert_str(0, COMBINED);
            note.combined = true;
        }
    }

    fn judge(&mut self, note: &Note, now: Instant) -> Verdict {
        let identity = note.identity();
        if self.budgets.len() >= MAX_REMEMBERED {
            self.budgets.retain(|_, (_, since)| now.duration_since(*since) < REFILL);
            if self.budgets.len() >= MAX_REMEMBERED {
                self.budgets.clear();
            }
        }
        let (spent, since) = self.budgets.entry(identity.involved.clone()).or_insert((0, now));
        let refills = u32::try_from(now.duration_since(*since).as_secs() / REFILL.as_secs()).unwrap_or(u32::MAX);
        if refills > 0 {
            *spent = spent.saturating_sub(refills);
            *since += REFILL * refills;
        }
        if *spent >= BURST_PER_OBJECT {
            return Verdict::Drop;
        }
        *spent += 1;
        match self.known.get_mut(&identity) {
            Some((name, count)) => {
                *count = count.saturating_add(1);
                Verdict::Repeat { name: name.clone(), count: *count }
            }
            None => Verdict::New,
        }
    }

    fn remember(&mut self, note: &Note, name: String) {
        let identity = note.identity();
        if self.known.insert(identity.clone(), (name, 1)).is_none() {
            self.order.push_back(identity);
        }
        while self.order.len() > MAX_REMEMBERED {
            if let Some(oldest) = self.order.pop_front() {
                self.known.remove(&oldest);
            }
        }
    }

    fn forget(&mut self, note: &Note) {
        let identity = note.identity();
        self.known.remove(&identity);
        self.order.retain(|known| *known != identity);
    }
}

impl Note {
    fn identity(&self) -> Identity {
        let r = &self.involved;
        let part = |p: &Option<String>| p.clone().unwrap_or_default();
        Identity {
            involved: [part(&r.kind), part(&r.namespace), part(&r.name), part(&r.uid), part(&r.field_path)].join("\n"),
            severity: self.severity,
            reason: self.reason.clone(),
            message: if self.combined { COMBINED.into() } else { self.message.clone() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &str, message: &str) -> Note {
        let involved = ObjectReference { kind: Some("Pod".into()), name: Some(name.into()), ..Default::default() };
        Note {
            involved,
            severity: Severity::Warning,
            reason: "BackOff".into(),
            message: message.into(),
            combined: false,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn many_that_differ_in_their_messages_alone_become_one() {
        let mut memory = Memory::default();
        let mut tell = |object: &str, message: &str| {
            let mut note = note(object, message);
            memory.combine(&mut note, Instant::now());
            let verdict = memory.judge(&note, Instant::now());
            if verdict == Verdict::New {
                memory.remember(&note, format!("{object}.{message}"));
            }
            (note.message, verdict)
        };
        for n in 1..MANY_SIMILAR {
            assert_eq!(tell("a", &n.to_string()), (n.to_string(), Verdict::New), "the first are told each");
        }
        assert_eq!(tell("a", "ten"), (format!("{COMBINED}ten"), Verdict::New));
        let again = Verdict::Repeat { name: "a.ten".into(), count: 2 };
        assert_eq!(tell("a", "eleven"), (format!("{COMBINED}eleven"), again), "the newest message, counted");
        assert_eq!(tell("b", "other"), ("other".into(), Verdict::New), "other objects are told");
        let known = Verdict::Repeat { name: "a.9".into(), count: 2 };
        assert_eq!(tell("a", "9"), ("9".into(), known), "what was told before is counted there");
        tokio::time::advance(SIMILAR_WITHIN + Duration::from_secs(1)).await;
        assert_eq!(tell("a", "late"), ("late".into(), Verdict::New));
    }

    #[tokio::test(start_paused = true)]
    async fn repeats_are_counted_and_floods_held_back() {
        let mut memory = Memory::default();
        assert_eq!(memory.judge(&note("a", "x"), Instant::now()), Verdict::New);
        memory.remember(&note("a", "x"), "a.1".into());
        assert_eq!(memory.judge(&note("a", "x"), Instant::now()), Verdict::Repeat { name: "a.1".into(), count: 2 });
        assert_eq!(memory.judge(&note("a", "other"), Instant::now()), Verdict::New);
        for _ in 3..BURST_PER_OBJECT {
            assert_ne!(memory.judge(&note("a", "x"), Instant::now()), Verdict::Drop);
        }
        assert_eq!(memory.judge(&note("a", "x"), Instant::now()), Verdict::Drop);
        assert_eq!(memory.judge(&note("b", "x"), Instant::now()), Verdict::New, "other objects are free");
        tokio::time::advance(REFILL).await;
        assert_ne!(memory.judge(&note("a", "x"), Instant::now()), Verdict::Drop);
        assert_eq!(memory.judge(&note("a", "x"), Instant::now()), Verdict::Drop);
    }

    #[test]
    fn memory_is_bounded() {
        let mut memory = Memory::default();
        for n in 0..MAX_REMEMBERED + 10 {
            memory.remember(&note(&n.to_string(), "x"), n.to_string());
            memory.combine(&mut note(&n.to_string(), "x"), Instant::now());
        }
        assert_eq!((memory.known.len(), memory.order.len()), (MAX_REMEMBERED, MAX_REMEMBERED));
        assert!(memory.similar.len() <= MAX_REMEMBERED);
    }
}
