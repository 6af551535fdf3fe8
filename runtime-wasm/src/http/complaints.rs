//! What the node has to say in a container's log about its requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::Request;
use tokio::sync::Semaphore;

use crate::stdio::OutputSink;

/// Most complaints that wait for the log; more are only counted.
const MAX_PENDING: usize = 16;
/// Most bytes of a complaint; what is above is cut off.
const MAX_TEXT: usize = 2048;
/// Most bytes of a request's path in a complaint.
const MAX_NAME: usize = 256;

/// The complaints of one container.
pub(super) struct Complaints {
    log: Arc<dyn OutputSink>,
    places: Arc<Semaphore>,
    dropped: AtomicU64,
}

impl Complaints {
    pub(super) fn new(log: Arc<dyn OutputSink>) -> Complaints {
        Complaints { log, places: Arc::new(Semaphore::new(MAX_PENDING)), dropped: AtomicU64::new(0) }
    }

    /// The writing of a complaint, unless too many wait already. Says how many of those before it were dropped.
    pub(super) fn write(&self, text: &str) -> Option<impl Future<Output = ()> + Send + use<>> {
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            self.dropped.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let text = text.get(..text.floor_char_boundary(MAX_TEXT)).unwrap_or_default();
        let line = match self.dropped.swap(0, Ordering::Relaxed) {
            0 => format!("copepod: {text}\n"),
            dropped => format!("copepod: {dropped} complaints were dropped\ncopepod: {text}\n"),
        };
        let log = self.log.clone();
        Some(async move {
            log.write(Bytes::from(line)).await;
            drop(place);
        })
    }
}

/// A request as complaints name it.
pub(super) fn name_of<B>(request: &Request<B>) -> String {
    let path = request.uri().path();
    let cut = path.get(..path.floor_char_boundary(MAX_NAME)).unwrap_or_default();
    let dots = if cut.len() < path.len() { "..." } else { "" };
    let method = request.method().as_str();
    let method = method.get(..method.floor_char_boundary(MAX_NAME)).unwrap_or_default();
    format!("{method} {cut}{dots}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    /// Takes as many writes as it has permits.
    struct Slow(Semaphore, Mutex<String>);

    #[async_trait::async_trait]
    impl OutputSink for Slow {
        async fn write(&self, data: Bytes) {
            self.0.acquire().await.unwrap().forget();
            self.1.lock().push_str(std::str::from_utf8(&data).unwrap());
        }
    }

    #[tokio::test]
    async fn too_many_are_counted() {
        let log = Arc::new(Slow(Semaphore::new(0), Mutex::default()));
        let complaints = Complaints::new(log.clone());
        let waiting: Vec<_> = (0..MAX_PENDING).map(|_| complaints.write("early").unwrap()).collect();
        assert!(complaints.write("late").is_none() && complaints.write("later").is_none());
        log.0.add_permits(MAX_PENDING + 3);
        futures::future::join_all(waiting).await;
        for text in ["next", "last"] {
            complaints.write(text).unwrap().await;
        }
        let text = log.1.lock().clone();
        let expected = "copepod: early\ncopepod: 2 complaints were dropped\ncopepod: next\ncopepod: last\n";
        assert!(text.ends_with(expected), "{text}");
        assert_eq!(text.matches("early").count(), MAX_PENDING);
        complaints.write(&"é".repeat(MAX_TEXT)).unwrap().await;
        assert!(log.1.lock().ends_with(&format!("last\ncopepod: {}\n", "é".repeat(MAX_TEXT / 2))));
        drop(complaints.write("not written"));
        assert_eq!(complaints.places.available_permits(), MAX_PENDING);
    }

    #[test]
    fn names_are_cut() {
        let name = |path: &str| name_of(&Request::get(path).body(()).unwrap());
        assert_eq!(name("/hello?x=y"), "GET /hello");
        assert_eq!(name(&format!("/{}", "a".repeat(1000))), format!("GET /{}...", "a".repeat(MAX_NAME - 1)));
        // A character of two bytes across the cut.
        assert_eq!(name(&format!("/{}", "é".repeat(500))), format!("GET /{}...", "é".repeat(MAX_NAME / 2 - 1)));
    }
}
