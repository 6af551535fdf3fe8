//! Counters of the API server in Prometheus' text form. Labels come from the registry, so their number is bounded.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use copepod_api::ApiError;
use copepod_core::resource::Resource;
use parking_lot::Mutex;

use super::ApiState;
use super::object;
use super::request::Verb;

/// Upper bounds of the duration buckets, in seconds.
const BUCKETS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Most watches that run at once; more are told to come back (429).
pub(crate) const MAX_WATCHES: u64 = 50_000;

/// What a request counts under.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RequestKey {
    pub verb: &'static str,
    pub group: String,
    pub version: String,
    pub resource: String,
    pub subresource: &'static str,
}

#[derive(Default)]
struct Histogram {
    /// One more than `BUCKETS`: the last is +Inf. Not cumulative.
    counts: Vec<u64>,
    sum: f64,
}

/// The server's metrics.
#[derive(Default)]
pub(crate) struct Metrics {
    requests: Mutex<BTreeMap<(RequestKey, u16), u64>>,
    durations: Mutex<BTreeMap<RequestKey, Histogram>>,
    watchers: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    all_watchers: Arc<AtomicU64>,
    decoded: Mutex<BTreeMap<&'static str, u64>>,
    pub inflight: AtomicU64,
    pub panics: AtomicU64,
}

/// Counts a watcher while it lives.
pub(crate) struct WatcherGuard(Arc<AtomicU64>, Arc<AtomicU64>);

impl Drop for WatcherGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
        self.1.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Metrics {
    /// Counts a finished request.
    pub fn record(&self, key: RequestKey, code: u16, took: Option<Duration>) {
        if let Some(took) = took {
            let seconds = took.as_secs_f64();
            let mut durations = self.durations.lock();
            let histogram = durations.entry(key.clone()).or_default();
            histogram.counts.resize(BUCKETS.len() + 1, 0);
            let at = BUCKETS.iter().position(|b| seconds <= *b).unwrap_or(BUCKETS.len());
            if let Some(count) = histogram.counts.get_mut(at) {
                *count += 1;
            }
            histogram.sum += seconds;
        }
        *self.requests.lock().entry((key, code)).or_default() += 1;
    }

    /// Counts a stored object whose bytes were decoded for a request of this verb.
    pub fn decoded(&self, verb: Verb) {
        *self.decoded.lock().entry(verb.name()).or_default() += 1;
    }

    /// Counts a watcher in; 429 beyond [`MAX_WATCHES`].
    pub fn watcher(&self, resource: &Resource) -> Result<WatcherGuard, ApiError> {
        if self.all_watchers.fetch_add(1, Ordering::Relaxed) >= MAX_WATCHES {
            self.all_watchers.fetch_sub(1, Ordering::Relaxed);
            return Err(ApiError::too_many_requests(format!("there are {MAX_WATCHES} watches already"), 5));
        }
        let one = self.watchers.lock().entry(resource.group_resource().to_string()).or_default().clone();
        one.fetch_add(1, Ordering::Relaxed);
        Ok(WatcherGuard(one, self.all_watchers.clone()))
    }

    /// The text of `/metrics`.
    pub fn render(&self, state: &ApiState) -> String {
        let mut out = String::new();
        head(&mut out, "apiserver_request_total", "counter", "Requests by verb, resource and HTTP code.");
        for ((key, code), n) in self.requests.lock().iter() {
            let _ = writeln!(out, "apiserver_request_total{{{},code=\"{code}\"}} {n}", labels(key));
        }
        head(&mut out, "apiserver_request_duration_seconds", "histogram", "Time to answer, watches and logs excepted.");
        for (key, histogram) in self.durations.lock().iter() {
            let (labels, mut total) = (labels(key), 0);
            for (i, n) in histogram.counts.iter().enumerate() {
                total += n;
                let le = BUCKETS.get(i).map_or_else(|| "+Inf".to_string(), ToString::to_string);
                let _ = writeln!(out, "apiserver_request_duration_seconds_bucket{{{labels},le=\"{le}\"}} {total}");
            }
            let _ = writeln!(out, "apiserver_request_duration_seconds_sum{{{labels}}} {}", histogram.sum);
            let _ = writeln!(out, "apiserver_request_duration_seconds_count{{{labels}}} {total}");
        }
        head(&mut out, "apiserver_registered_watchers", "gauge", "Running watches by resource.");
        for (resource, n) in self.watchers.lock().iter() {
            let n = n.load(Ordering::Relaxed);
            let _ = writeln!(out, "apiserver_registered_watchers{{resource=\"{resource}\"}} {n}");
        }
        head(&mut out, "apiserver_storage_objects", "gauge", "Stored objects by resource.");
        for resource in state.registry.all().iter().filter(|r| r.storage.is_none() && r.is_stored()) {
            let n = state.store.count(&object::prefix(resource, None));
            let _ = writeln!(out, "apiserver_storage_objects{{resource=\"{}\"}} {n}", resource.group_resource());
        }
        head(
            &mut out,
            "copepod_stored_objects_decoded_total",
            "counter",
            "Stored objects decoded, by the request's verb.",
        );
        for (verb, n) in self.decoded.lock().iter() {
            let _ = writeln!(out, "copepod_stored_objects_decoded_total{{verb=\"{verb}\"}} {n}");
        }
        for (name, kind, help, value) in [
            (
                "apiserver_current_inflight_requests",
                "gauge",
                "Requests being answered, watches and logs excepted.",
                self.inflight.load(Ordering::Relaxed),
            ),
            (
                "apiserver_panics_total",
                "counter",
                "Requests that failed by a bug of the server.",
                self.panics.load(Ordering::Relaxed),
            ),
            ("copepod_store_revision", "gauge", "The store's revision.", state.store.current_revision()),
            (
                "copepod_store_read_only",
                "gauge",
                "1 when the store accepts no writes.",
                u64::from(state.store.read_only().is_some()),
            ),
        ] {
            head(&mut out, name, kind, help);
            let _ = writeln!(out, "{name} {value}");
        }
        out
    }
}

fn head(out: &mut String, name: &str, kind: &str, help: &str) {
    let _ = writeln!(out, "# HELP {name} {help}\n# TYPE {name} {kind}");
}

fn labels(key: &RequestKey) -> String {
    format!(
        "verb=\"{}\",group=\"{}\",version=\"{}\",resource=\"{}\",subresource=\"{}\"",
        key.verb, key.group, key.version, key.resource, key.subresource
    )
}
