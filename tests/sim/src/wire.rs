//! What lies between clients and the API server: faults, counts of what was asked, and who ended which pod.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use copepod_server::identity::Identity;
use futures::StreamExt;
use http::{Method, Request, Response};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::{BoxError, Service, ServiceExt};

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
    /// Until when answers may still suffer from faults.
    faulty_until: Option<Instant>,
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

/// What stands still lets go after this; also for how long after the last fault its effects may show.
pub const AFTERMATH: Duration = Duration::from_secs(90);

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
        state.router = router;
        state.faulty_until = Some(Instant::now() + AFTERMATH);
    }
    /// The server, if it runs.
    pub fn router(&self) -> Option<Router> {
        self.state.lock().router.clone()
    }
    /// Sets how bad it is.
    pub fn set_faults(&self, faults: Faults) {
        let mut state = self.state.lock();
        state.faults = faults;
        state.faulty_until = Some(Instant::now() + AFTERMATH);
    }
    /// Something else happened whose effects take time to be seen by all.
    pub fn disturb(&self) {
        self.state.lock().faulty_until = Some(Instant::now() + AFTERMATH);
    }
    /// How far behind anyone's view of the cluster may be now.
    pub fn lag(&self) -> Duration {
        let state = self.state.lock();
        let f = &state.faults;
        let calm = f.conflict + f.refuse + f.lose + f.cut + f.stall == 0.0 && f.delay.is_zero();
        let over = state.faulty_until.is_none_or(|until| until < Instant::now());
        if calm && over { Duration::from_secs(2) } else { AFTERMATH }
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
        if let Fate::Answer(code) = fate {
            self.wire.note(&request);
            return Ok(refusal(code));
        }
        self.wire.note(&request);
        let watch = request.method() == Method::GET && request.uri().query().is_some_and(|q| q.contains("watch=true"));
        let response = router.oneshot(request).await.map_err(|never: Infallible| match never {})?;
        if matches!(fate, Fate::Lose) {
            return Err("connection reset".into());
        }
        Ok(if watch { response.map(|body| self.watched(body, link)) } else { response })
    }

    /// A watch's stream, with what may befall it.
    fn watched(&self, body: Body, link: CancellationToken) -> Body {
        let start = (body.into_data_stream(), self.wire.clone(), link, Instant::now());
        let stream = futures::stream::unfold(Some(start), |state| async move {
            let (mut body, wire, link, mut moves_until) = state?;
            let piece = tokio::select! {
                piece = body.next() => piece?,
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
            Some((piece, Some((body, wire, link, moves_until))))
        });
        Body::from_stream(stream)
    }
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
