//! Collects objects whose owners are gone: feeds the graph from every resource's metadata, and acts on its steps.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use copepod_api::{GroupResource, Gvr};
use copepod_client::{Change, Outcome, Shared, WorkQueue};
use copepod_core::controllers::garbage::{self, Absent, Graph, Step};
use copepod_core::controllers::{Plan, Target};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Config;
use kube::{Api, Resource};
use parking_lot::Mutex;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::caches::{Caches, Visitor, gvr_of};
use super::context::{Context, Running};
use super::discovery::Discovery;

/// How soon to ask again about an owner whose kind is not served.
const UNKNOWN_KIND: Duration = Duration::from_secs(60);

/// What the collector knows.
#[derive(Default)]
struct Known {
    graph: Graph,
    absent: Absent,
}

/// Runs the collector. `reader` watches all resources that no cache holds yet.
pub(super) fn run(context: Context, reader: kube::Client, discovery: Discovery) -> Running {
    let queue = context.queue::<String>();
    let known: Arc<Mutex<Known>> = Arc::default();
    let caches = context.caches.clone();
    let feed = Feed { known: known.clone(), queue: queue.clone(), caches: caches.clone() };
    let mut cached = Cached { feed: &feed, resources: HashSet::new() };
    caches.visit(&mut cached);
    let cached = cached.resources;
    let watches = watch_rest(feed, cached, reader, discovery.clone(), context.token.clone());
    let collect = context.work(queue, move |context, uid| {
        let (known, discovery) = (known.clone(), discovery.clone());
        async move { collect(&context, &known, &discovery, &uid).await }
    });
    Box::pin(async move {
        tokio::join!(watches, collect);
    })
}

#[derive(Clone)]
struct Feed {
    known: Arc<Mutex<Known>>,
    queue: WorkQueue<String>,
    caches: Arc<Caches>,
}

impl Feed {
    fn follow<K>(&self, cache: &Shared<K>, gvr: Gvr, kind: &str)
    where
        K: Resource + Clone + std::fmt::Debug + Send + Sync + 'static,
    {
        let (feed, kind) = (self.clone(), kind.to_owned());
        cache.on_change(move |change: &Change<K>| {
            let mut known = feed.known.lock();
            let mut look = Vec::new();
            let uid = |object: &K| object.meta().uid.clone().unwrap_or_default();
            let gone = change.old.as_ref().filter(|old| change.new.as_ref().is_none_or(|new| uid(new) != uid(old)));
            if let Some(gone) = gone {
                look.extend(known.graph.forget(&uid(gone)));
            }
            if let Some(new) = &change.new {
                known.absent.forget(&uid(new));
                look.extend(known.graph.observe(&gvr, &kind, new.meta()));
            }
            drop(known);
            if let Some(gone) = gone {
                feed.caches.gone.tell(&gvr, gone.meta());
            }
            look.into_iter().for_each(|uid| feed.queue.add(uid));
        });
    }
}

/// Feeds the graph from the caches that the controllers have anyway.
struct Cached<'a> {
    feed: &'a Feed,
    resources: HashSet<GroupResource>,
}

impl Visitor for Cached<'_> {
    fn cache<K>(&mut self, cache: &Shared<K>)
    where
        K: k8s_openapi::Resource + Resource + Clone + std::fmt::Debug + Send + Sync + 'static,
    {
        let gvr = gvr_of::<K>();
        self.resources.insert(group_resource(&gvr));
        self.feed.follow(cache, gvr, K::KIND);
    }
}

fn group_resource(gvr: &Gvr) -> GroupResource {
    GroupResource { group: gvr.group.clone(), resource: gvr.resource.clone() }
}

/// Watches the metadata of every served resource that no cache feeds, as resources come and go. Events are left out:
/// they have no owners and end by themselves.
async fn watch_rest(
    feed: Feed,
    cached: HashSet<GroupResource>,
    reader: kube::Client,
    discovery: Discovery,
    token: CancellationToken,
) {
    const EVENTS: [&str; 2] = ["", "events.k8s.io"];
    let skip = |gvr: &Gvr| {
        cached.contains(&group_resource(gvr)) || (gvr.resource == "events" && EVENTS.contains(&gvr.group.as_str()))
    };
    let mut rounds = discovery.rounds();
    let mut tasks = JoinSet::new();
    let mut watched: HashMap<Gvr, CancellationToken> = HashMap::new();
    loop {
        let served = discovery.all();
        for served in served.iter().filter(|s| !skip(&s.gvr())) {
            watched.entry(served.gvr()).or_insert_with_key(|gvr| {
                let cache: Shared<PartialObjectMeta<DynamicObject>> = Shared::default();
                feed.follow(&cache, gvr.clone(), &served.api.kind);
                let child = token.child_token();
                let api = Api::all_with(reader.clone(), &served.api);
                tasks.spawn(cache.run(api, Config::default(), child.clone()));
                child
            });
        }
        if !served.is_empty() {
            let present: HashSet<Gvr> = served.iter().map(|s| s.gvr()).collect();
            watched.retain(|gvr, stop| {
                let keep = present.contains(gvr);
                if !keep {
                    stop.cancel();
                }
                keep
            });
        }
        tokio::select! {
            () = token.cancelled() => return,
            changed = rounds.changed() => if changed.is_err() { return },
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
}

async fn collect(context: &Context, known: &Mutex<Known>, discovery: &Discovery, uid: &str) -> Outcome {
    let (step, subject) = {
        let known = known.lock();
        (known.graph.decide(uid, &known.absent), known.graph.subject(uid).unwrap_or_default())
    };
    let plan = match step {
        Step::Nothing => return Outcome::Done,
        Step::Verify { owners, namespace } => match verify(context, known, discovery, &owners, &namespace).await {
            Verified::Owners(outcome) => return outcome,
            Verified::Unresolvable(owner) => unresolvable(&owner),
        },
        Step::Unresolvable(owner) => unresolvable(&owner),
        Step::Act(actions, notes) => Plan { actions, notes, ..Plan::nothing(format!("garbage collection of {uid}")) },
    };
    context.apply(&plan, &subject, "").await.1
}

/// A cluster-scoped object cannot have a namespaced owner: it stays, and people are told.
fn unresolvable(owner: &OwnerReference) -> Plan {
    Plan { notes: vec![garbage::invalid_namespace(owner, "")], ..Plan::nothing("its owner cannot be resolved") }
}

/// What live reads of owners gave.
enum Verified {
    /// What is gone was noted: decide again then.
    Owners(Outcome),
    /// A namespaced owner of a cluster-scoped object.
    Unresolvable(OwnerReference),
}

/// Reads owners that the graph does not know; those that are gone, or of another UID, are noted.
async fn verify(
    context: &Context,
    known: &Mutex<Known>,
    discovery: &Discovery,
    owners: &[OwnerReference],
    namespace: &str,
) -> Verified {
    let mut outcome = Outcome::After(Duration::ZERO);
    for owner in owners {
        let Some(served) = discovery.find(&owner.api_version, &owner.kind) else {
            outcome = Outcome::After(UNKNOWN_KIND);
            continue;
        };
        let scope = if served.namespaced { namespace } else { "" };
        if served.namespaced && namespace.is_empty() {
            return Verified::Unresolvable(owner.clone());
        }
        let gone = match context.executor.look(&Target::new(served.gvr(), scope, &owner.name).path()).await {
            Ok(found) => found.is_none_or(|(uid, _)| uid != owner.uid),
            Err(_) => return Verified::Owners(Outcome::Retry),
        };
        if gone {
            known.lock().absent.insert(owner, namespace);
        } else if outcome == Outcome::After(Duration::ZERO) {
            // It is there, but its watch has not shown it yet.
            outcome = Outcome::Retry;
        }
    }
    Verified::Owners(outcome)
}
