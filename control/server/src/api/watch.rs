//! Watch: a stream of events in JSON lines. Events come from the store's fan-out; the common encoding is made once and
//! shared by all watchers of the event.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::{Bytes, BytesMut};
use copepod_api::{ApiError, FieldError};
use copepod_store::{Event, EventKind, ListOptions, Record, StoreError, Watch};
use http::{HeaderValue, header};
use rand::Rng;
use serde_json::json;
use tokio::time::Instant;

use super::accept::Shape;
use super::error::{self, invalid_options};
use super::frames::Frames;
use super::metrics::WatcherGuard;
use super::object::{self, meta_mut, metadata_only};
use super::present::Table;
use super::request::Request;
use super::selector::Selector;

/// How often a watch with bookmarks says how far it is.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);
/// A watch without `timeoutSeconds` ends after a random time between this and twice this.
const MIN_TIMEOUT: Duration = Duration::from_secs(30 * 60);
/// Events are gathered into one write up to about this many bytes.
const CHUNK_BYTES: usize = 64 * 1024;
/// What an event in JSON has besides the stored object: its frame and the resourceVersion.
const FRAME_BYTES: usize = 96;
/// The annotation of the bookmark that ends the initial events.
const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// GET of a collection with `watch=true`.
pub(crate) fn watch(request: Request) -> Result<Response, ApiError> {
    let frames = Frames::of(&request.accept)?;
    let selector = Selector::of(&request.resource, &request.query)?;
    let start = Start::of(&request)?;
    let guard = request.state.metrics.watcher(&request.resource)?;
    let timeout = match request.query.integer("timeoutSeconds")? {
        Some(s) if s > 0 => Duration::from_secs(s.unsigned_abs()),
        _ => MIN_TIMEOUT.mul_f64(rand::rng().random_range(1.0..2.0)),
    };
    let namespace = request.namespace().or_else(|| selector.namespace()).map(str::to_string);
    let prefix = object::prefix(&request.resource, namespace.as_deref());
    let stream = Stream::open(request, frames, selector, &prefix, start, timeout, guard)?;
    let body = futures::stream::unfold(stream, |mut s| async move {
        let chunk = s.next_chunk().await?;
        Some((Ok::<_, std::convert::Infallible>(chunk), s))
    });
    let mut response = Response::new(Body::from_stream(body));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(frames.media_type()));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(response)
}

/// Where a watch starts.
struct Start {
    /// Send the present state first.
    initial: bool,
    /// Mark the end of the present state by a bookmark.
    mark_end: bool,
    /// Else send what came after this revision; `None`: what comes from now on.
    after: Option<u64>,
}

impl Start {
    fn of(request: &Request) -> Result<Self, ApiError> {
        let query = &request.query;
        let asked = query.revision("resourceVersion")?;
        let matching = query.get("resourceVersionMatch");
        let invalid = |field: &str, why: &str| Err(invalid_options("ListOptions", FieldError::forbidden(field, why)));
        let Some(initial) = query.get("sendInitialEvents").map(|v| v != "false" && v != "0") else {
            if matching.is_some() {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                return invalid("resourceVersionMatch", why);
            }
            let after = asked.filter(|rv| *rv > 0);
            return Ok(Self { initial: after.is_none(), mark_end: false, after });
        };
        if matching != Some("NotOlderThan") {
            let why = "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan";
            return invalid("resourceVersionMatch", why);
        }
        let current = request.state.store.current_revision();
        match asked {
            Some(rv) if initial && rv > current => Err(error::too_large(rv, current)),
            _ if initial => Ok(Self { initial: true, mark_end: true, after: None }),
            asked => Ok(Self { initial: false, mark_end: false, after: asked.filter(|rv| *rv > 0) }),
        }
    }
}

/// A running watch of one client.
struct Stream {
    request: Request,
    frames: Frames,
    selector: Selector,
    /// `None` once the stream must end after what is pending.
    watch: Option<Watch>,
    /// The present state still to be sent.
    initial: VecDeque<Record>,
    /// The revision of the bookmark that ends the initial events, if one is owed.
    mark_end: Option<u64>,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    /// The last revision that the client knows of.
    sent: u64,
    /// Table columns were sent.
    columns_sent: bool,
    out: BytesMut,
    _guard: WatcherGuard,
}

impl Stream {
    fn open(
        request: Request,
        frames: Frames,
        selector: Selector,
        prefix: &str,
        start: Start,
        timeout: Duration,
        guard: WatcherGuard,
    ) -> Result<Self, ApiError> {
        let store = request.state.store.clone();
        let failed = |e| error::from_store(e, &request.group_resource(), "");
        let (mut initial, mut out) = (VecDeque::new(), BytesMut::new());
        let after = if start.initial {
            let page = store.list(prefix, &ListOptions::default()).map_err(failed)?;
            initial = page.records.into_iter().filter(|r| selector.takes(&request, r)).collect();
            page.revision
        } else {
            start.after.unwrap_or_else(|| store.current_revision())
        };
        let watch = match store.watch(prefix, after) {
            Ok(watch) => Some(watch),
            // As upstream: the stream opens and says that it is over.
            Err(StoreError::Compacted { asked, oldest }) => {
                frames.object(&mut out, "ERROR", &error::too_old(asked, oldest).status())?;
                None
            }
            Err(e) => return Err(failed(e)),
        };
        let bookmarks = request.query.flag("allowWatchBookmarks");
        let now = Instant::now();
        Ok(Self {
            mark_end: (start.mark_end && bookmarks).then_some(after),
            next_bookmark: now + BOOKMARK_EVERY,
            deadline: now + timeout,
            sent: after,
            columns_sent: false,
            _guard: guard,
            request,
            frames,
            selector,
            watch,
            initial,
            bookmarks,
            out,
        })
    }

    /// The next bytes; `None` when the watch is over.
    async fn next_chunk(&mut self) -> Option<Bytes> {
        loop {
            if let Err(e) = self.fill().await {
                self.fail(&e);
            }
            if !self.out.is_empty() {
                return Some(self.out.split().freeze());
            }
            self.watch.as_ref()?;
        }
    }

    /// An error in mid-stream is the last event.
    fn fail(&mut self, e: &ApiError) {
        self.watch = None;
        self.initial.clear();
        // A Status always encodes.
        let _ = self.frames.object(&mut self.out, "ERROR", &e.status());
    }

    async fn fill(&mut self) -> Result<(), ApiError> {
        while self.out.len() < CHUNK_BYTES {
            let Some(record) = self.initial.pop_front() else { break };
            self.write("ADDED", &record)?;
        }
        if !self.initial.is_empty() {
            return Ok(());
        }
        if let Some(revision) = self.mark_end.take() {
            self.bookmark(revision, true)?;
        }
        if !self.out.is_empty() {
            return Ok(());
        }
        let Some(watch) = self.watch.as_mut() else { return Ok(()) };
        let wake = if self.bookmarks { self.next_bookmark.min(self.deadline) } else { self.deadline };
        tokio::select! {
            biased;
            () = self.request.state.shutdown.cancelled() => self.watch = None,
            event = watch.next() => match event {
                Ok(event) => self.take(event)?,
                // Cut off by the store: the client resumes from what it saw.
                Err(_) => self.watch = None,
            },
            () = tokio::time::sleep_until(wake) => self.tick()?,
        }
        Ok(())
    }

    /// Takes an event and all that are queued behind it.
    fn take(&mut self, first: Arc<Event>) -> Result<(), ApiError> {
        self.event(&first)?;
        while self.out.len() < CHUNK_BYTES {
            let Some(event) = self.watch.as_mut().and_then(Watch::try_next) else { break };
            self.event(&event)?;
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), ApiError> {
        let now = Instant::now();
        let over = now >= self.deadline;
        if self.bookmarks {
            self.next_bookmark = now + BOOKMARK_EVERY;
            let Some(watch) = self.watch.as_mut() else { return Ok(()) };
            // Read first, then drain: all events up to it are in the queue.
            let progress = watch.progress();
            while let Some(event) = self.watch.as_mut().and_then(Watch::try_next) {
                self.event(&event)?;
            }
            // 0 once the store cut this watch off; what was sent stays true.
            let revision = progress.max(self.sent);
            self.bookmark(revision, false)?;
        }
        if over {
            self.watch = None;
        }
        Ok(())
    }

    fn event(&mut self, event: &Event) -> Result<(), ApiError> {
        self.sent = event.record.revision;
        if self.selector.is_empty()
            && self.frames == Frames::Json
            && self.request.accept.shape == Shape::Full
            && self.request.resource.storage.is_none()
        {
            let bytes = match event.encoded.get() {
                Some(bytes) => bytes,
                None => {
                    // It stays with the event for as long as that: no more room than it needs.
                    let mut out = BytesMut::with_capacity(event.record.value.len() + FRAME_BYTES);
                    self.frames.record(&mut out, natural(event.kind), &self.request, &event.record)?;
                    event.encoded.get_or_init(|| out.freeze())
                }
            };
            self.out.extend_from_slice(bytes);
            return Ok(());
        }
        let had = match event.kind {
            EventKind::Created => false,
            _ => event.previous.as_ref().is_none_or(|p| self.selector.takes(&self.request, p)),
        };
        let has = event.kind != EventKind::Deleted && self.selector.takes(&self.request, &event.record);
        match (had, has) {
            (false, true) => self.write("ADDED", &event.record),
            (true, true) => self.write("MODIFIED", &event.record),
            (true, false) => {
                // The object as the client knew it, under the revision at which it left.
                let mut last = event.previous.clone().unwrap_or_else(|| event.record.clone());
                last.revision = event.record.revision;
                self.write("DELETED", &last)
            }
            (false, false) => Ok(()),
        }
    }

    fn write(&mut self, kind: &str, record: &Record) -> Result<(), ApiError> {
        match self.request.accept.shape.clone() {
            Shape::Full | Shape::Discovery(_) => self.frames.record(&mut self.out, kind, &self.request, record),
            Shape::Metadata(version) => self.frames.metadata(&mut self.out, kind, &version, &self.request, record),
            Shape::Table(version) => {
                let object = object::decode(&self.request, record)?;
                let meta = json!({"resourceVersion": record.revision.to_string()});
                let table = Table::of(&self.request, &version);
                let first = !std::mem::replace(&mut self.columns_sent, true);
                let objects = std::slice::from_ref(&object);
                let value = if first { table.whole(objects, &meta) } else { table.rows_only(objects, &meta) };
                self.frames.object(&mut self.out, kind, &value)
            }
        }
    }

    fn bookmark(&mut self, revision: u64, initial_end: bool) -> Result<(), ApiError> {
        let gvk = self.request.resource.gvk();
        let mut object = json!({
            "kind": gvk.kind, "apiVersion": gvk.api_version(),
            "metadata": {"resourceVersion": revision.to_string(), "creationTimestamp": null},
        });
        if initial_end {
            meta_mut(&mut object).insert("annotations".into(), json!({ INITIAL_EVENTS_END: "true" }));
        }
        let object = match &self.request.accept.shape {
            Shape::Full | Shape::Discovery(_) => object,
            Shape::Metadata(version) => metadata_only(&object, version),
            Shape::Table(version) => {
                let meta = json!({"resourceVersion": revision.to_string()});
                let row = json!({"cells": [], "object": metadata_only(&object, version)});
                let rows = if initial_end { json!([row]) } else { json!([]) };
                json!({"kind": "Table", "apiVersion": format!("meta.k8s.io/{version}"), "metadata": meta,
                    "columnDefinitions": null, "rows": rows})
            }
        };
        self.frames.object(&mut self.out, "BOOKMARK", &object)
    }
}

fn natural(kind: EventKind) -> &'static str {
    match kind {
        EventKind::Created => "ADDED",
        EventKind::Updated => "MODIFIED",
        EventKind::Deleted => "DELETED",
    }
}
