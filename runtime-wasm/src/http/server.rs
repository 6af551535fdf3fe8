//! The in-process server of one HTTP container: takes requests, makes and keeps instances.

use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use futures::FutureExt;
use http::{Method, Request, Response, StatusCode};
use hyper::body::Body;
use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio_util::sync::CancellationToken;
use wasmtime::{PoolConcurrencyLimitError, Store};
use wasmtime_wasi_http::handler::{Proxy, ProxyPre};

use super::answer::{Answer, CutOnDrop, Failure, Job, Listened, given_up, unfit, without_body};
use super::bounded::Bounded;
use super::complaints::{Complaints, name_of};
use super::crowd::{self, CloseOnDrop, Crowd};
use super::guest::{self, Fault};
use super::limits::{HttpLimits, check_headers};
use super::lingering::Lingering;
use crate::ctx::GuestCtx;
use crate::engine::Place;
use crate::exit::{Ending, Exit};
use crate::fair::{AbortOnDrop, CpuAccount};
use crate::instance::{Outputs, Template};
use crate::limits::OutOfMemory;
use crate::network::{HttpBody, HttpHandler, NetError};
use crate::sockets::{EXCHANGE_BYTES, HttpPermit};

/// How long after a response was sent, or its client went away, the guest may go on.
pub const LINGER: Duration = Duration::from_secs(30);
/// How long an instance that may serve more requests is kept without any.
pub const IDLE_INSTANCE: Duration = Duration::from_secs(10);

/// The handler of one HTTP container.
#[derive(Clone)]
pub(crate) struct HttpServer(Arc<Shared>);

pub(super) struct Shared {
    pre: Arc<ProxyPre<GuestCtx>>,
    template: Template,
    cpu: Arc<CpuAccount>,
    pub(super) limits: HttpLimits,
    permits: Arc<Semaphore>,
    queued: AtomicUsize,
    idle: Mutex<Vec<(Instant, Instance)>>,
    reaping: AtomicBool,
    pub(super) crowd: Crowd,
    complaints: Complaints,
    pub(super) cancel: CancellationToken,
    ending: Ending,
}

pub(super) struct Instance {
    pub(super) store: Store<GuestCtx>,
    pub(super) proxy: Proxy,
    pub(super) outputs: Outputs,
    /// Requests it has served.
    pub(super) served: u32,
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
            complaints: Complaints::new(template.stderr.clone()),
            template,
            cpu,
            crowd: Crowd::new(limits.requests_at_once),
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
        let is_head = request.method() == Method::HEAD;
        let served = match self.0.admit(request) {
            Ok(request) => self.0.serve(request).await,
            Err(failure) => Err(failure),
        };
        let response = served.unwrap_or_else(Failure::into_response);
        match response.status() {
            StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => without_body(response, is_head),
            _ if is_head => without_body(response, is_head),
            _ => response,
        }
    }

    fn admit(&self) -> Result<Option<HttpPermit>, NetError> {
        self.0.template.net.http_permit().map(Some)
    }
}

impl Shared {
    fn admit(&self, request: Request<HttpBody>) -> Result<Request<HttpBody>, Failure> {
        check_headers(request.headers()).map_err(|_| Failure::HeadersTooLarge)?;
        let HttpLimits { max_body, idle, .. } = self.limits;
        if request.body().is_end_stream() {
            return Ok(request);
        }
        if request.body().size_hint().lower() > max_body {
            return Err(Failure::BodyTooLarge);
        }
        // A guest that answers without reading the body must not look to its writer like a broken connection.
        let bounded = |body| HttpBody::new(Bounded::new(Lingering::new(body), max_body, idle));
        Ok(request.map(bounded))
    }

    async fn serve(self: &Arc<Self>, request: Request<HttpBody>) -> Result<Response<HttpBody>, Failure> {
        let buffers = self.template.net.buffers();
        let full = |_| Failure::Unavailable("pod's buffers are full");
        let _head = buffers.reserve(head_bytes(&request)).map_err(full)?;
        let permit = self.permit().await?;
        let exchange = Arc::new(buffers.reserve(EXCHANGE_BYTES).map_err(full)?);
        let permit = (permit, exchange.clone());
        let name = name_of(&request);
        let (sender, answered) = oneshot::channel();
        let answer = Answer::new(sender);
        let (cut, reading) = (answer.cut.clone(), answer.reading.clone());
        // The response's body holds the sender: the guest's task learns from its end that nobody listens any more.
        let (listener, listening) = oneshot::channel();
        let job = Job { request, answer, listening, permit };
        let stopping = Failure::Unavailable("node is stopping");
        // Held until there is an answer.
        let work = match self.pre.as_ref() {
            ProxyPre::P2(_) => Work::Alone(self.cpu.spawn(self.clone().run(job)).ok_or(stopping)?.abort_on_drop()),
            ProxyPre::P3(_) => {
                let (place, work) = crowd::take_in(self, job);
                if let Some(work) = work {
                    self.cpu.spawn(work).ok_or(stopping)?;
                }
                Work::Shared(place)
            }
        };
        match tokio::time::timeout(self.limits.timeout, answered).await {
            Ok(Ok(response)) => {
                let response = response?;
                work.release();
                if let Some(why) = unfit(&response) {
                    self.complain(&format!("{name}: {why}")).await;
                    return Err(Failure::Guest);
                }
                Ok(response.map(|body| HttpBody::new(Listened::new(body, cut, reading, listener, exchange))))
            }
            Ok(Err(_)) if self.cancel.is_cancelled() => Err(Failure::Unavailable("container was stopped")),
            Ok(Err(_)) => Err(Failure::Guest),
            Err(_) => {
                let text = format!("{name}: no response within {} s, given up", self.limits.timeout.as_secs());
                drop(listener);
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

    /// One request of a WASI 0.2 guest, on the guests' threads, to the end of the guest's work for it.
    async fn run(self: Arc<Self>, job: Job) {
        let name = job.name();
        let Job { request, answer, mut listening, permit: _permit } = job;
        let call = AssertUnwindSafe(self.call(request, answer.clone())).catch_unwind();
        let result = tokio::select! {
            biased;
            () = self.cancel.cancelled() => return,
            result = call => result,
            why = given_up(&answer, &mut listening, self.limits.idle) => Ok(match why {
                Some(why) => Err((Failure::Guest, why)),
                None => return,
            }),
        };
        let (failure, reason) = match result {
            Ok(Ok(())) => (Failure::Guest, None),
            Ok(Err((failure, reason))) => (failure, Some(reason)),
            Err(_) => (Failure::Guest, Some("node fault".to_owned())),
        };
        let unanswered = answer.send(Err(failure));
        let reason = reason.or_else(|| unanswered.then(|| "no response was set".to_owned()));
        if let Some(reason) = reason {
            self.complain(&format!("{name}: {reason}")).await;
        }
    }

    async fn call(self: &Arc<Self>, request: Request<HttpBody>, answer: Answer) -> Result<(), (Failure, String)> {
        let mut instance = match self.idle_instance() {
            Some(instance) => instance,
            None => self.instantiate().await?,
        };
        // Declared after the instance, so that the client's side is told before the body's writer goes.
        let cut = CutOnDrop(Some(answer.cut.clone()));
        let called = match &instance.proxy {
            Proxy::P2(guest) => guest::call_p2(guest, &mut instance.store, request, answer).await,
            Proxy::P3(_) => Err(Fault::Guest(wasmtime::Error::msg("not a WASI 0.2 handler"))),
        };
        instance.outputs.drain().await;
        match called {
            Ok(()) => {
                cut.disarm();
                instance.served = instance.served.saturating_add(1);
                self.keep(instance);
                Ok(())
            }
            Err(Fault::Request(error)) => Err((Failure::BadRequest, format!("{error:#}"))),
            Err(Fault::Guest(error)) => Err(self.failed(&error)),
        }
    }

    pub(super) fn idle_instance(&self) -> Option<Instance> {
        self.idle.lock().pop().map(|(_, instance)| instance)
    }

    pub(super) async fn instantiate(&self) -> Result<Instance, (Failure, String)> {
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

    /// What a guest's trap, exit or interruption means for its requests; the container ends with its memory.
    pub(super) fn failed(&self, error: &wasmtime::Error) -> (Failure, String) {
        let exit = Exit::of_error(error);
        if error.downcast_ref::<OutOfMemory>().is_some() {
            self.end(exit.clone());
        }
        (Failure::Guest, exit.message.unwrap_or_else(|| format!("exited with code {}", exit.code)))
    }

    fn end(&self, exit: Exit) {
        self.ending.end(exit);
        self.cancel.cancel();
        self.cpu.expedite();
    }

    /// Keeps an instance for later requests, if it may serve more.
    pub(super) fn keep(self: &Arc<Self>, instance: Instance) {
        if self.cancel.is_cancelled() || instance.served >= self.limits.requests_per_instance {
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

    /// Tells the container's log in passing.
    pub(super) fn tell(&self, text: &str) {
        if let Some(complaint) = self.complaints.write(text) {
            self.cpu.spawn(complaint);
        }
    }

    /// Tells the container's log.
    pub(super) async fn complain(&self, text: &str) {
        if let Some(complaint) = self.complaints.write(text) {
            complaint.await;
        }
    }
}

/// The guest's work for a request: without anybody who waits for its answer, it ends.
enum Work<'a> {
    Alone(AbortOnDrop),
    Shared(CloseOnDrop<'a>),
}

impl Work<'_> {
    fn release(self) {
        match self {
            Work::Alone(task) => task.release(),
            Work::Shared(place) => place.disarm(),
        }
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
