//! What lies between clients and the API server: faults, counts of what was asked, who ended which pod, and how old what
//! controllers see is.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use copepod_api::names::USER_CONTROLLER_MANAGER;
use copepod_server::identity::Identity;
use futures::{FutureExt, StreamExt};
use http::{Method, Request, Response};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service, ServiceExt};

use crate::views::{Views, Watching};

/// How bad it is. Chances are per request, or per piece of a watch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Faults {
    /// A change is refused as in conflict with another.
    pub conflict: f64,
    /// A request is answered 429 or 500.
    pub refuse: f64,
    /// A change is made, and its answer lost.
    pub lose: f64,
    /// A watch is cut.
    pub cut: f64,
    /// A watch stands still for up to `stall_for`.
    pub stall: f64,
    /// See `stall`.
    pub stall_for: Duration,
    /// A request takes up to this long.
    pub delay: Duration,
}

/// Why a pod's deletion was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// By whom.
    pub user: String,
    /// By an eviction.
    pub eviction: bool,
}

#[derive(Default)]
struct State {
    router: Option<Router>,
    faults: Faults,
    /// What the controllers of the running control plane see.
    views: Arc<Mutex<Views>>,
    /// Writes asked for since last taken: by who, verb and path.
    writes: BTreeMap<String, u32>,
    /// By the pod's path below the API's root: who asked last for its deletion.
    causes: BTreeMap<String, Cause>,
}

/// The way to the API server, shared by all.
pub struct Wire {
    state: Mutex<State>,
    random: Mutex<StdRng>,
    start: Instant,
    /// Whether requests are printed.
    trace: bool,
}

/// How long watches stand still at most. Controllers wait for what they wrote however long that takes.
pub const LONGEST_STALL: Duration = Duration::from_secs(30);

enum Fate {
    Pass,
    Answer(u16),
    Lose,
}

impl Wire {
    /// A way to nowhere yet.
    pub fn new(seed: u64) -> Arc<Self> {
        let random = Mutex::new(StdRng::seed_from_u64(seed ^ 0x77_1e));
        let trace = std::env::var_os("COPEPOD_SIM_TRACE").is_some();
        Arc::new(Self { state: Mutex::default(), random, start: Instant::now(), trace })
    }
    /// Leads to this server from now on.
    pub fn connect(&self, router: Option<Router>) {
        let mut state = self.state.lock();
        let views = state.views.lock().anew();
        state.views = Arc::new(Mutex::new(views));
        state.router = router;
    }
    /// The server, if it runs.
    pub fn router(&self) -> Option<Router> {
        self.state.lock().router.clone()
    }
    /// Sets how bad it is.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.state.lock();
        state.faults = faults;
        state.views.lock().set_delay(faults.delay);
    }
    /// How old the state may be on which a write of now rests that is about a workload of this name. It was decided on
    /// by `steps`, the last first, each of which sees some resources.
    pub fn lag(&self, name: &str, steps: &[&[&str]]) -> Duration {
        self.state.lock().views.lock().oldest(name, steps).elapsed()
    }
    /// Writes asked for since last asked, by user, verb and path.
    pub fn take_writes(&self) -> BTreeMap<String, u32> {
        std::mem::take(&mut self.state.lock().writes)
    }
    /// Who asked for a pod's deletion.
    pub fn cause(&self, namespace: &str, pod: &str) -> Option<Cause> {
        self.state.lock().causes.get(&format!("{namespace}/{pod}")).cloned()
    }

    /// Notes who asks for a pod's deletion beside the wire.
    pub fn note_cause(&self, namespace: &str, pod: &str, user: &str, eviction: bool) {
        self.state.lock().causes.insert(format!("{namespace}/{pod}"), Cause { user: user.into(), eviction });
    }

    fn chance(&self, chance: f64) -> bool {
        chance > 0.0 && self.random.lock().random_bool(chance)
    }
    fn up_to(&self, most: Duration) -> Duration {
        if most.is_zero() { most } else { self.random.lock().random_range(Duration::ZERO..=most) }
    }

    fn fate(&self, method: &Method) -> (Fate, Duration) {
        let faults = self.state.lock().faults;
        let delay = self.up_to(faults.delay);
        let writes = method != Method::GET;
        let fate = if self.chance(faults.refuse) {
            Fate::Answer(if self.chance(0.5) { 429 } else { 500 })
        } else if writes && method != Method::POST && self.chance(faults.conflict) {
            Fate::Answer(409)
        } else if writes && self.chance(faults.lose) {
            Fate::Lose
        } else {
            Fate::Pass
        };
        (fate, delay)
    }

    fn note(&self, request: &Request<kube::client::Body>) {
        if request.method() == Method::GET {
            return;
        }
        let user = request.extensions().get::<Identity>().map(|i| i.user.clone()).unwrap_or_default();
        let path = request.uri().path();
        let mut state = self.state.lock();
        let parts: Vec<&str> = path.split('/').collect();
        if let ["", "api", "v1", "namespaces", namespace, "pods", pod, rest @ ..] = parts.as_slice() {
            let eviction = *rest == ["eviction"];
            if eviction || (rest.is_empty() && request.method() == Method::DELETE) {
                state.causes.insert(format!("{namespace}/{pod}"), Cause { user: user.clone(), eviction });
            }
        }
        *state.writes.entry(format!("{user} {} {path}", request.method())).or_default() += 1;
    }
}

impl Wire {
    /// Notes how a request ended.
    fn note_end(&self, asked: &Asked, passed: bool) {
        let state = self.state.lock();
        let mut views = state.views.lock();
        if asked.method != Method::GET {
            views.wrote(&asked.user, &asked.path, passed);
        } else if passed && asked.list && asked.reads() {
            views.listed(collection(&asked.path));
        }
    }
}

/// A cable of one client; it may be cut.
#[derive(Default)]
pub struct Link(Mutex<(bool, CancellationToken)>);

impl Link {
    /// Cuts it, or mends it.
    pub fn set_cut(&self, cut: bool) {
        let mut state = self.0.lock();
        if cut {
            state.1.cancel();
        } else if state.0 {
            state.1 = CancellationToken::new();
        }
        state.0 = cut;
    }
    /// Whether it is cut.
    pub fn is_cut(&self) -> bool {
        self.0.lock().0
    }
    fn token(&self) -> Option<CancellationToken> {
        let state = self.0.lock();
        (!state.0).then(|| state.1.clone())
    }
}

/// One client's end of the wire.
#[derive(Clone)]
pub struct End {
    pub wire: Arc<Wire>,
    pub link: Arc<Link>,
}

impl Service<Request<kube::client::Body>> for End {
    type Response = Response<Body>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let end = self.clone();
        Box::pin(async move { end.send(request).await })
    }
}

impl End {
    async fn send(&self, request: Request<kube::client::Body>) -> Result<Response<Body>, BoxError> {
        let (fate, delay) = self.wire.fate(request.method());
        if self.wire.trace {
            println!("{:?} {} {}", Instant::now() - self.wire.start, request.method(), request.uri());
        }
        if !delay.is_zero() {
            tokio::time::sleep(delay).await;
        }
        let (Some(link), Some(router)) = (self.link.token(), self.wire.router()) else {
            return Err("connection refused".into());
        };
        self.wire.note(&request);
        let mut asked = Asked::of(&request);
        if asked.reads() && asked.watch {
            let views = self.wire.state.lock().views.clone();
            asked.watching = Some(Watching::new(views, collection(&asked.path)));
        }
        if let Fate::Answer(code) = fate {
            self.wire.note_end(&asked, false);
            return Ok(refusal(code));
        }
        let response = router.oneshot(request).await.map_err(|never: Infallible| match never {})?;
        // What is gone already is as it was to be.
        let passed = response.status().is_success() || response.status() == 404;
        self.wire.note_end(&asked, passed);
        if matches!(fate, Fate::Lose) {
            return Err("connection reset".into());
        }
        Ok(if asked.watch { response.map(|body| self.watched(body, link, asked.watching)) } else { response })
    }

    /// A watch's stream, with what may befall it.
    fn watched(&self, body: Body, link: CancellationToken, watching: Option<Watching>) -> Body {
        let start = (body.into_data_stream(), self.wire.clone(), link, Instant::now(), watching);
        let stream = futures::stream::unfold(Some(start), |state| async move {
            let (mut body, wire, link, mut moves_until, mut watching) = state?;
            let mut waits = |waits| {
                if let Some(watching) = &mut watching {
                    watching.set(waits);
                }
            };
            let mut next = body.next();
            let news = std::future::poll_fn(|cx| {
                let polled = next.poll_unpin(cx);
                waits(polled.is_pending());
                polled
            });
            let piece = tokio::select! {
                piece = news => piece?,
                () = link.cancelled() => Err(axum::Error::new("cut")),
            };
            let faults = wire.state.lock().faults;
            if piece.is_err() || wire.chance(faults.cut) {
                return Some((Err(axum::Error::new("connection reset")), None));
            }
            if Instant::now() >= moves_until && wire.chance(faults.stall) {
                tokio::time::sleep(wire.up_to(faults.stall_for)).await;
                moves_until = Instant::now() + faults.stall_for;
            }
            Some((piece, Some((body, wire, link, moves_until, watching))))
        });
        Body::from_stream(stream)
    }
}

/// What is to be remembered of a request.
struct Asked {
    user: String,
    method: Method,
    path: String,
    watch: bool,
    /// Of the whole collection, not of a further page.
    list: bool,
    watching: Option<Watching>,
}

impl Asked {
    fn of(request: &Request<kube::client::Body>) -> Self {
        let user = request.extensions().get::<Identity>().map(|i| i.user.clone()).unwrap_or_default();
        let query = request.uri().query().unwrap_or_default();
        let watch = request.method() == Method::GET && query.contains("watch=true");
        let (method, path) = (request.method().clone(), request.uri().path().to_string());
        Self { user, watch, list: !watch && !query.contains("continue="), method, path, watching: None }
    }
    /// Whether it is of those who read for all controllers.
    fn reads(&self) -> bool {
        self.user == USER_CONTROLLER_MANAGER && self.method == Method::GET
    }
}

/// The resource of a collection's path.
fn collection(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

fn refusal(code: u16) -> Response<Body> {
    let reason = match code {
        409 => "Conflict",
        429 => "TooManyRequests",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": "as the simulation wants it"});
    let mut response = Response::builder().status(code).header("content-type", "application/json");
    if code == 429 {
        response = response.header("retry-after", "1");
    }
    response.body(Body::from(status.to_string())).unwrap()
}
