//! Requests that share an instance of WASI 0.3.

use std::panic::AssertUnwindSafe;
use std::pin::pin;
use std::sync::Arc;

use futures::FutureExt;
use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use http::Request;
use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};
use wasmtime::component::Accessor;
use wasmtime_wasi_http::handler::Proxy;
use wasmtime_wasi_http::p3::bindings::Service;

use super::answer::{Answer, CutOnDrop, Failure, Job, Permit, given_up};
use super::guest;
use super::server::{Instance, Shared};
use crate::ctx::GuestCtx;
use crate::network::HttpBody;

/// The instances that take requests in beside those that they serve.
pub(super) struct Crowd {
    at_once: u32,
    open: Mutex<Open>,
}

#[derive(Default)]
struct Open {
    rooms: Vec<Room>,
    last: u64,
}

/// An instance. Gone from the list, it takes no more requests and ends its work with the last it has.
struct Room {
    id: u64,
    jobs: mpsc::UnboundedSender<Job>,
    /// Requests in it.
    here: u32,
    /// Requests it may still take.
    left: u32,
}

impl Crowd {
    pub(super) fn new(at_once: u32) -> Crowd {
        Crowd { at_once: at_once.max(1), open: Mutex::default() }
    }

    /// One of its requests is done.
    fn left(&self, id: u64) {
        let mut open = self.open.lock();
        if let Some(room) = open.rooms.iter_mut().find(|room| room.id == id) {
            room.here = room.here.saturating_sub(1);
        }
        open.rooms.retain(|room| room.here > 0);
    }

    fn close(&self, id: u64) {
        self.open.lock().rooms.retain(|room| room.id != id);
    }
}

/// Gives a request to an instance that has room; or else also returns another one's work, to be spawned. If nobody waits
/// for the answer any more, the instance is to take no other requests.
pub(super) fn take_in(server: &Arc<Shared>, mut job: Job) -> (CloseOnDrop<'_>, Option<BoxFuture<'static, ()>>) {
    let close = |id| CloseOnDrop(Some((&server.crowd, id)));
    let Crowd { at_once, open } = &server.crowd;
    let mut open = open.lock();
    for room in open.rooms.iter_mut().filter(|room| room.here < *at_once && room.left > 0) {
        match room.jobs.send(job) {
            Ok(()) => {
                room.here += 1;
                room.left -= 1;
                return (close(room.id), None);
            }
            Err(back) => job = back.0,
        }
    }
    let instance = server.idle_instance();
    let served = instance.as_ref().map_or(0, |instance| instance.served);
    let left = server.limits.requests_per_instance.saturating_sub(served).saturating_sub(1);
    let (jobs, inbox) = mpsc::unbounded_channel();
    open.last += 1;
    let id = open.last;
    if *at_once > 1 {
        open.rooms.push(Room { id, jobs, here: 1, left });
    }
    drop(open);
    (close(id), Some(run(server.clone(), id, instance, job, inbox).boxed()))
}

/// Lets an instance take no more requests.
pub(super) struct CloseOnDrop<'a>(Option<(&'a Crowd, u64)>);

impl CloseOnDrop<'_> {
    pub(super) fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for CloseOnDrop<'_> {
    fn drop(&mut self) {
        if let Some((crowd, id)) = self.0 {
            crowd.close(id);
        }
    }
}

/// One instance's work, on the guests' threads, from its first request to the end of its last.
async fn run(
    server: Arc<Shared>,
    id: u64,
    instance: Option<Instance>,
    first: Job,
    inbox: mpsc::UnboundedReceiver<Job>,
) {
    let _close = CloseOnDrop(Some((&server.crowd, id)));
    let name = first.name();
    let serving = AssertUnwindSafe(serve(&server, id, instance, first, inbox)).catch_unwind();
    let served = tokio::select! {
        biased;
        () = server.cancel.cancelled() => return,
        served = serving => served,
    };
    match served {
        Ok(Ok(())) => {}
        Ok(Err(reason)) => server.complain(&format!("{name}: {reason}")).await,
        Err(_) => server.complain(&format!("{name}: node fault")).await,
    }
}

/// Fails with what ended the instance, and all its requests with it.
async fn serve(
    server: &Arc<Shared>,
    id: u64,
    instance: Option<Instance>,
    first: Job,
    mut inbox: mpsc::UnboundedReceiver<Job>,
) -> Result<(), String> {
    let made = match instance {
        Some(instance) => Ok(instance),
        None => server.instantiate().await,
    };
    let mut instance = match made {
        Ok(instance) => instance,
        Err((failure, reason)) => {
            server.crowd.close(id);
            first.answer.send(Err(failure));
            while let Ok(job) = inbox.try_recv() {
                job.answer.send(Err(failure));
            }
            return Err(reason);
        }
    };
    let Proxy::P3(guest) = &instance.proxy else { return Err("not a WASI 0.3 handler".into()) };
    let (calls, called) = mpsc::unbounded_channel();
    let mut calls = Some(calls);
    let mut watches = FuturesUnordered::new();
    let mut take = |job: Job, calls: &Option<mpsc::UnboundedSender<Call>>, watches: &mut FuturesUnordered<_>| {
        let (call, watch) = Call::new(server, job);
        watches.push(watch);
        instance.served = instance.served.saturating_add(1);
        if let Some(calls) = calls {
            let _ = calls.send(call);
        }
    };
    take(first, &calls, &mut watches);
    let mut any_given_up = false;
    let ended = {
        let working = instance.store.run_concurrent(async |store| work(server, id, store, guest, called).await);
        let mut working = pin!(working);
        loop {
            tokio::select! {
                biased;
                ended = &mut working => break ended.and_then(|ended| ended),
                job = inbox.recv(), if calls.is_some() => match job {
                    Some(job) => take(job, &calls, &mut watches),
                    None => calls = None,
                },
                Some(watched) = watches.next(), if !watches.is_empty() => {
                    let Some(reason) = watched else { continue };
                    // A call of WASI 0.3 cannot be ended alone: the instance goes when the others are done.
                    server.crowd.close(id);
                    any_given_up = true;
                    if let Some(reason) = reason {
                        server.tell(&reason);
                    }
                }
            }
            if any_given_up && watches.is_empty() && inbox.is_empty() {
                return Ok(());
            }
        }
    };
    drop(watches);
    instance.outputs.drain().await;
    match ended {
        Ok(()) => {
            server.keep(instance);
            Ok(())
        }
        Err(error) => Err(server.failed(&error).1),
    }
}

/// A request on its way into the instance.
struct Call {
    name: String,
    request: Request<HttpBody>,
    answer: Answer,
    _permit: Permit,
    /// Dropped when the guest is done with it.
    _done: oneshot::Sender<()>,
}

impl Call {
    /// The call, and what waits for its end (`None`) or until nobody wants it any more (why, if its user may want to
    /// know).
    fn new(server: &Arc<Shared>, job: Job) -> (Call, impl Future<Output = Option<Option<String>>> + Send + use<>) {
        let name = job.name();
        let Job { request, answer, mut listening, permit } = job;
        let (done, is_done) = oneshot::channel();
        let call = Call { name: name.clone(), request, answer: answer.clone(), _permit: permit, _done: done };
        let idle = server.limits.idle;
        let watch = async move {
            tokio::select! {
                biased;
                _ = is_done => None,
                reason = given_up(&answer, &mut listening, idle) => {
                    Some(reason.map(|reason| format!("{name}: {reason}")))
                }
            }
        };
        (call, watch)
    }
}

/// Calls the guest for each request, until no more can come.
async fn work(
    server: &Arc<Shared>,
    id: u64,
    store: &Accessor<GuestCtx>,
    guest: &Service,
    mut called: mpsc::UnboundedReceiver<Call>,
) -> wasmtime::Result<()> {
    let mut running = FuturesUnordered::new();
    let mut open = true;
    while open || !running.is_empty() {
        tokio::select! {
            biased;
            Some(done) = running.next(), if !running.is_empty() => done?,
            call = called.recv(), if open => match call {
                Some(call) => running.push(one(server, id, store, guest, call)),
                None => open = false,
            },
        }
    }
    Ok(())
}

async fn one(
    server: &Arc<Shared>,
    id: u64,
    store: &Accessor<GuestCtx>,
    guest: &Service,
    call: Call,
) -> wasmtime::Result<()> {
    let Call { name, request, answer, _permit, _done } = call;
    let cut = CutOnDrop(Some(answer.cut.clone()));
    let answered = guest::call_p3(guest, store, request, &answer).await?;
    cut.disarm();
    server.crowd.left(id);
    if let Err(reason) = answered {
        answer.send(Err(Failure::Guest));
        server.tell(&format!("{name}: {reason}"));
    }
    Ok(())
}
