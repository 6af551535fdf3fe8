//! `wasi:http` components as in-process HTTP servers: an instance per request, none while idle.

mod answer;
mod guest;
mod lingering;

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::FutureExt;
use http::{Request, Response};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use wasmtime::{PoolConcurrencyLimitError, Store};
use wasmtime_wasi_http::handler::{Proxy, ProxyPre};

use answer::{Answer, CutOnDrop, Failure, Listened};
use guest::Fault;
pub(crate) use lingering::Lingering;

use crate::buffers::Room;
use crate::ctx::GuestCtx;
use crate::engine::Place;
use crate::exit::{Ending, Exit};
use crate::fair::CpuAccount;
use crate::instance::{Outputs, Template};
use crate::limits::OutOfMemory;
use crate::network::{ByteStream, HttpBody, HttpHandler, NetError};
use crate::sockets::{EXCHANGE_BYTES, HttpPermit};

/// How long after a response was sent, or its client went away, the guest may go on.
pub const LINGER: Duration = Duration::from_secs(30);
/// How long an instance that may serve more requests is kept without any.
pub const IDLE_INSTANCE: Duration = Duration::from_secs(10);
/// Most bytes of a request's head, and most bytes that a connection has read or not yet written.
pub(crate) const MAX_BUFFERED: usize = 32 << 10;
/// HTTP/2 requests that a connection has in progress at once.
const MAX_STREAMS: u32 = 100;
/// How long a connection may take to send a request's headers.
const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(30);

/// Bounds of an HTTP container.
#[derive(Debug, Clone)]
pub struct HttpLimits {
    /// Requests one instance serves, one after another, before it is replaced. 1: nothing is ever shared between
    /// requests.
    pub requests_per_instance: u32,
    /// Requests served at once; more wait.
    pub max_concurrency: usize,
    /// Requests that wait; more are answered with 503.
    pub max_queued: usize,
    /// How long a request may wait for its turn (then 503), and how long the guest may take to send response
    /// headers (then 504).
    pub timeout: Duration,
}

impl Default for HttpLimits {
    fn default() -> HttpLimits {
        let timeout = Duration::from_secs(60);
        HttpLimits { requests_per_instance: 1, max_concurrency: 256, max_queued: 1024, timeout }
    }
}

/// Serves HTTP/1.1 and HTTP/2 (prior knowledge) on a byte pipe by calling `handler`, until the peer closes.
///
/// Fails when the peer does not speak HTTP or goes away in the middle.
pub async fn serve_stream(handler: Arc<dyn HttpHandler>, stream: ByteStream) -> anyhow::Result<()> {
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let handler = handler.clone();
        async move {
            let request = request.map(|body| body.map_err(anyhow::Error::from).boxed_unsync());
            Ok::<_, std::convert::Infallible>(handler.handle(request).await)
        }
    });
    let mut server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_READ_TIMEOUT).max_buf_size(MAX_BUFFERED);
    let http2 = &mut server.http2();
    http2.timer(TokioTimer::new()).max_concurrent_streams(MAX_STREAMS).max_header_list_size(MAX_BUFFERED as u32);
    http2.initial_connection_window_size(MAX_BUFFERED as u32).initial_stream_window_size(MAX_BUFFERED as u32);
    http2.max_send_buf_size(crate::outgoing::BODY_CHUNK);
    server.serve_connection(TokioIo::new(stream), service).await.map_err(|error| anyhow::anyhow!("{error}"))
}

/// The handler of one HTTP container.
#[derive(Clone)]
pub(crate) struct HttpServer(Arc<Shared>);

struct Shared {
    pre: Arc<ProxyPre<GuestCtx>>,
    template: Template,
    cpu: Arc<CpuAccount>,
    limits: HttpLimits,
    permits: Arc<Semaphore>,
    queued: AtomicUsize,
    idle: Mutex<Vec<(Instant, Instance)>>,
    reaping: AtomicBool,
    cancel: CancellationToken,
    ending: Ending,
}

struct Instance {
    store: Store<GuestCtx>,
    proxy: Proxy,
    outputs: Outputs,
    served: u32,
    _place: Place,
}

impl HttpServer {
    pub(crate) fn new(
        pre: Arc<ProxyPre<GuestCtx>>,
        template: Template,
        cpu: Arc<CpuAccount>,
        limits: HttpLimits,
        cancel: CancellationToken,
        ending: Ending,
    ) -> HttpServer {
        let permits = Arc::new(Semaphore::new(limits.max_concurrency.clamp(1, Semaphore::MAX_PERMITS)));
        let shared = Arc::new(Shared {
            pre,
            template,
            cpu,
            limits,
            permits,
            queued: AtomicUsize::new(0),
            idle: Mutex::default(),
            reaping: AtomicBool::new(false),
            cancel,
            ending,
        });
        let weak = Arc::downgrade(&shared);
        shared.template.budget.on_pressure(move || {
            if let Some(shared) = weak.upgrade() {
                shared.drop_idle(Duration::ZERO);
            }
        });
        HttpServer(shared)
    }

    /// Waits until no request is being served or waits.
    pub(crate) async fn quiet(&self) {
        let all = u32::try_from(self.0.limits.max_concurrency.clamp(1, Semaphore::MAX_PERMITS)).unwrap_or(u32::MAX);
        let _ = self.0.permits.acquire_many(all).await;
    }

    /// Drops instances that wait for work.
    pub(crate) fn drop_idle(&self) {
        self.0.drop_idle(Duration::ZERO);
    }
}

#[async_trait]
impl HttpHandler for HttpServer {
    async fn handle(&self, request: Request<HttpBody>) -> Response<HttpBody> {
        self.0.serve(request).await.unwrap_or_else(Failure::into_response)
    }

    fn admit(&self) -> Result<Option<HttpPermit>, NetError> {
        self.0.template.net.http_permit().map(Some)
    }
}

impl Shared {
    async fn serve(self: &Arc<Self>, request: Request<HttpBody>) -> Result<Response<HttpBody>, Failure> {
        let buffers = self.template.net.buffers();
        let full = |_| Failure::Unavailable("pod's buffers are full");
        let _head = buffers.reserve(head_bytes(&request)).map_err(full)?;
        let permit = self.permit().await?;
        let exchange = Arc::new(buffers.reserve(EXCHANGE_BYTES).map_err(full)?);
        let (answer, answered) = oneshot::channel();
        // The response's body holds the sender: the task learns from its end that nobody listens any more.
        let (listener, listening) = oneshot::channel::<()>();
        let answer = Answer { sender: Arc::new(Mutex::new(Some(answer))), cut: Arc::default() };
        let cut = answer.cut.clone();
        let task = self.clone().run(request, answer, listening, (permit, exchange.clone()));
        let task = self.cpu.spawn(task).ok_or(Failure::Unavailable("node is stopping"))?.abort_on_drop();
        match tokio::time::timeout(self.limits.timeout, answered).await {
            Ok(Ok(answer)) => {
                task.release();
                let listened = |body| Listened { body, cut, _listener: listener, _exchange: exchange }.boxed_unsync();
                Ok(answer?.map(listened))
            }
            Ok(Err(_)) if self.cancel.is_cancelled() => Err(Failure::Unavailable("container was stopped")),
            Ok(Err(_)) => Err(Failure::Guest),
            Err(_) => {
                let text = format!("no response within {} s, request abandoned", self.limits.timeout.as_secs());
                self.complain(&text).await;
                Err(Failure::Timeout)
            }
        }
    }

    async fn permit(&self) -> Result<OwnedSemaphorePermit, Failure> {
        if self.cancel.is_cancelled() {
            return Err(Failure::Unavailable("container was stopped"));
        }
        if let Ok(permit) = self.permits.clone().try_acquire_owned() {
            return Ok(permit);
        }
        let _queued = Queued::enter(&self.queued, self.limits.max_queued)
            .ok_or(Failure::Unavailable("too many requests are waiting"))?;
        match tokio::time::timeout(self.limits.timeout, self.permits.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => Err(Failure::Unavailable("waited too long for its turn")),
        }
    }

    /// One request, on the guests' threads, to the end of the guest's work for it.
    async fn run(
        self: Arc<Self>,
        request: Request<HttpBody>,
        answer: Answer,
        listening: oneshot::Receiver<()>,
        _held: (OwnedSemaphorePermit, Arc<Room>),
    ) {
        let line = format!("{} {}", request.method(), request.uri().path());
        let call = AssertUnwindSafe(self.call(request, answer.clone())).catch_unwind();
        let nobody_listens = async {
            let _ = listening.await;
            tokio::time::sleep(LINGER).await;
        };
        let result = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return,
            result = call => result,
            () = nobody_listens => return,
        };
        let (failure, reason) = match result {
            Ok(Ok(())) => (Failure::Guest, None),
            Ok(Err((failure, reason))) => (failure, Some(reason)),
            Err(_) => (Failure::Guest, Some("node fault".to_owned())),
        };
        let unanswered = answer.send(Err(failure));
        let reason = reason.or_else(|| unanswered.then(|| "no response was set".to_owned()));
        if let Some(reason) = reason {
            self.complain(&format!("{line}: {reason}")).await;
        }
    }

    async fn call(self: &Arc<Self>, request: Request<HttpBody>, answer: Answer) -> Result<(), (Failure, String)> {
        let mut instance = match self.idle_instance() {
            Some(instance) => instance,
            None => self.instantiate().await?,
        };
        // Declared after the instance, so that the client's side is told before the body's writer goes.
        let cut = CutOnDrop(Some(answer.cut.clone()));
        let called = guest::call(&instance.proxy, &mut instance.store, request, answer).await;
        instance.outputs.drain().await;
        match called {
            Ok(()) => {
                cut.disarm();
                instance.served = instance.served.saturating_add(1);
                if instance.served < self.limits.requests_per_instance {
                    self.keep(instance);
                }
                Ok(())
            }
            Err(Fault::Request(error)) => Err((Failure::BadRequest, format!("{error:#}"))),
            Err(Fault::Guest(error)) => {
                let exit = Exit::of_error(&error);
                if error.downcast_ref::<OutOfMemory>().is_some() {
                    self.end(exit.clone());
                }
                Err((Failure::Guest, exit.message.unwrap_or_else(|| format!("exited with code {}", exit.code))))
            }
        }
    }

    async fn instantiate(&self) -> Result<Instance, (Failure, String)> {
        let at_capacity = Failure::Unavailable("node is at its capacity of instances");
        let place = match self.template.instances.admit() {
            Ok(place) => place,
            Err(error) => return Err((at_capacity, error.to_string())),
        };
        let (mut store, outputs) = self.template.store();
        let instantiated = async {
            self.template.charge(&mut store)?;
            self.pre.instantiate_async(&mut store).await
        };
        match instantiated.await {
            Ok(proxy) => {
                store.data_mut().started();
                Ok(Instance { store, proxy, outputs, served: 0, _place: place })
            }
            Err(error) => {
                drop(store);
                outputs.drain().await;
                if error.downcast_ref::<PoolConcurrencyLimitError>().is_some() {
                    return Err((at_capacity, format!("{error:#}")));
                }
                let exit = Exit::of_error(&error);
                let reason = exit.message.clone().unwrap_or_default();
                if let Some(memory) = error.downcast_ref::<OutOfMemory>() {
                    // Others hold the memory: this request may come back. Too much by itself: it will never fit.
                    if memory.own <= memory.limit {
                        return Err((Failure::Unavailable("container's memory is in use"), reason));
                    }
                    self.end(exit);
                }
                Err((Failure::Guest, reason))
            }
        }
    }

    fn end(&self, exit: Exit) {
        self.ending.end(exit);
        self.cancel.cancel();
        self.cpu.expedite();
    }

    fn idle_instance(&self) -> Option<Instance> {
        self.idle.lock().pop().map(|(_, instance)| instance)
    }

    fn keep(self: &Arc<Self>, instance: Instance) {
        if self.cancel.is_cancelled() {
            return;
        }
        self.idle.lock().push((Instant::now(), instance));
        if !self.reaping.swap(true, Ordering::AcqRel) {
            let reaper = reap(Arc::downgrade(self));
            self.cpu.spawn(reaper);
        }
    }

    /// Drops instances idle for `age` or longer; the longest idle come first in the list.
    fn drop_idle(&self, age: Duration) -> bool {
        let mut idle = self.idle.lock();
        let old = idle.iter().take_while(|(since, _)| since.elapsed() >= age).count();
        let gone: Vec<_> = idle.drain(..old).collect();
        let left = !idle.is_empty();
        drop(idle);
        drop(gone);
        left
    }

    async fn complain(&self, text: &str) {
        self.template.stderr.write(Bytes::from(format!("copepod: {text}\n"))).await;
    }
}

/// What a request's head takes in memory while it waits, in bytes.
fn head_bytes<B>(request: &Request<B>) -> u64 {
    /// Of each header, and of the request itself.
    const COST: usize = 128;
    let uri = request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let header = |(name, value): (&http::HeaderName, &http::HeaderValue)| name.as_str().len() + value.len() + COST;
    (request.headers().iter().map(header).sum::<usize>() + uri + COST) as u64
}

/// Drops idle instances as they grow old, until there are none.
async fn reap(server: Weak<Shared>) {
    loop {
        tokio::time::sleep(IDLE_INSTANCE / 2).await;
        let Some(server) = server.upgrade() else { return };
        if !server.drop_idle(IDLE_INSTANCE) {
            server.reaping.store(false, Ordering::Release);
            // One may have come back just now, seen the flag, and relied on this task.
            if server.idle.lock().is_empty() || server.reaping.swap(true, Ordering::AcqRel) {
                return;
            }
        }
    }
}

/// A place in the queue.
struct Queued<'a>(&'a AtomicUsize);

impl Queued<'_> {
    fn enter(queued: &AtomicUsize, max: usize) -> Option<Queued<'_>> {
        let place = Queued(queued);
        (queued.fetch_add(1, Ordering::Relaxed) < max).then_some(place)
    }
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A task of tokio that ends with its owner.
pub(crate) struct AbortOnDrop<T>(pub(crate) tokio::task::JoinHandle<T>);

impl<T> AbortOnDrop<T> {
    /// Waits for the task; `None` if it panicked or was aborted.
    pub(crate) async fn join(&mut self) -> Option<T> {
        (&mut self.0).await.ok()
    }
}

impl<T> Drop for AbortOnDrop<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}
