//! Drives the scheduler: decides pod by pod, and binds in parallel while the next are decided.

mod follow;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use copepod_client::Key;
use copepod_client::events::Severity;
use copepod_core::controllers::Plan;
use copepod_core::scheduler::volumes::ClaimStep;
use copepod_core::scheduler::writes::{self, SCHEDULER_ERROR, UNSCHEDULABLE};
use copepod_core::scheduler::{Change, Decision, Failure, Next, PodInfo, Profile, State};
use http::Method;
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{Notify, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::context::{Context, Running, about};
use super::executor::{MAX_PARALLEL, explain};

struct Scheduler {
    context: Context,
    profiles: Vec<Profile>,
    state: Mutex<State>,
    /// The queue changed.
    wake: Notify,
    /// From which the queue counts time.
    start: Instant,
}

/// Runs the scheduler under the names of its profiles; pods that ask for another are left alone.
pub(super) fn run(context: Context, profiles: Vec<Profile>) -> Running {
    let scheduler =
        Arc::new(Scheduler { context, profiles, state: Mutex::default(), wake: Notify::new(), start: Instant::now() });
    scheduler.follow();
    Box::pin(async move {
        let token = scheduler.context.token.clone();
        tokio::select! {
            () = token.cancelled() => return,
            () = scheduler.context.caches.ready() => {}
        }
        tokio::select! {
            () = token.cancelled() => {}
            () = scheduler.work() => {}
        }
    })
}

impl Scheduler {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    async fn work(self: &Arc<Self>) {
        let room = Arc::new(Semaphore::new(MAX_PARALLEL));
        let mut tasks = JoinSet::new();
        let mut pods: HashMap<tokio::task::Id, String> = HashMap::new();
        loop {
            while let Some(ended) = tasks.try_join_next_with_id() {
                let id = ended.as_ref().map_or_else(tokio::task::JoinError::id, |(id, ())| *id);
                if let (Some(uid), Err(error)) = (pods.remove(&id), ended) {
                    tracing::error!(%error, "a pod's placing ended abnormally");
                    self.try_again(&uid);
                }
            }
            let Ok(permit) = room.clone().acquire_owned().await else { return };
            let (next, due) = {
                let mut state = self.state.lock();
                (state.queue.pop(self.now()), state.queue.due())
            };
            let Some(next) = next else {
                drop(permit);
                tokio::select! {
                    () = self.wake.notified() => {}
                    Some(()) = sleep_until(due.map(|due| self.start + due)) => {}
                    // What ended is looked at above.
                    () = tasks_end(&mut tasks, &mut pods, self) => {}
                }
                continue;
            };
            let uid = next.pod.uid().to_string();
            let decided = catch_unwind(AssertUnwindSafe(|| self.decide(&next)));
            let Ok(decision) = decided else {
                tracing::error!(pod = next.pod.name(), "a decision ended abnormally");
                self.try_again(&uid);
                continue;
            };
            let scheduler = self.clone();
            let task = tasks.spawn(async move {
                scheduler.carry_out(&next.pod, decision).await;
                drop(permit);
            });
            pods.insert(task.id(), uid);
            tokio::task::yield_now().await;
        }
    }

    fn profile(&self, pod: &PodInfo) -> Option<&Profile> {
        self.profiles.iter().find(|p| p.name == pod.scheduler_name())
    }

    fn decide(&self, next: &Next) -> Option<Decision> {
        let profile = self.profile(&next.pod)?;
        self.state.lock().decide(next, profile, self.now())
    }

    async fn carry_out(&self, pod: &Arc<PodInfo>, decision: Option<Decision>) {
        match decision {
            None => {}
            Some(Decision::Bind(node)) => self.bind(pod, &node).await,
            Some(Decision::BindClaims { node, steps }) => self.bind_claims(pod, &node, &steps).await,
            Some(Decision::Unschedulable(failure)) => self.explain(pod, &failure).await,
        }
    }

    async fn bind(&self, pod: &Arc<PodInfo>, node: &str) {
        let (namespace, name) = (pod.namespace(), pod.name());
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}/binding");
        let binding = json!({
            "apiVersion": "v1", "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": pod.uid()},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let error = match self.context.executor.send::<Value>(Method::POST, &path, &binding).await {
            Ok(_) => {
                self.event(
                    pod,
                    Severity::Normal,
                    "Scheduled",
                    &format!("Successfully assigned {namespace}/{name} to {node}"),
                );
                return;
            }
            Err(error) => error,
        };
        {
            let mut state = self.state.lock();
            let gone = state.snapshot.forget_pod(pod.uid());
            // Someone else may have bound it.
            if let Some(now) = self.context.caches.pods.get(&Key::new(namespace, name))
                && now.metadata.uid.as_deref() == Some(pod.uid())
            {
                state.snapshot.set_pod(&PodInfo::of(now));
            }
            if let Some(node) = gone {
                state.tell(&Change::PodGone { pod: pod.clone(), node }, self.now());
            }
            state.queue.failed(pod.uid(), self.now());
        }
        self.wake.notify_one();
        // A pod that is gone, going or bound already comes back as a change, if at all.
        let expected = matches!(&error, kube::Error::Api(status) if matches!(status.code, 404 | 409));
        if !expected {
            let why = format!("binding rejected: {}", explain(&error));
            self.event(pod, Severity::Warning, "FailedScheduling", &why);
            self.say(pod, SCHEDULER_ERROR, &why, Some("")).await;
        }
    }

    /// Writes what lets the pod's claims be bound; their change wakes the pod.
    async fn bind_claims(&self, pod: &Arc<PodInfo>, node: &str, steps: &[ClaimStep]) {
        let uid_of =
            |claim: &str| self.context.caches.claims.get(&Key::new(pod.namespace(), claim))?.metadata.uid.clone();
        let why = format!("its claims are to be bound for {node}");
        let plan = Plan { actions: writes::claims(pod, uid_of, steps), ..Plan::nothing(why) };
        if self.apply(&plan, pod).await.is_err() {
            self.took(|state| {
                state.queue.failed(pod.uid(), self.now());
                state.snapshot.volumes.release(pod.namespace(), steps);
                Some(Change::Volume)
            });
        }
    }

    /// Says why a pod waits, and ends those that go for it.
    async fn explain(&self, pod: &Arc<PodInfo>, failure: &Failure) {
        self.event(pod, Severity::Warning, "FailedScheduling", &failure.message);
        let Some(preemption) = &failure.preemption else {
            let nominated = if failure.waits_for_room { None } else { Some("") };
            self.say(pod, UNSCHEDULABLE, &failure.message, nominated).await;
            return;
        };
        let mut plan = Plan::nothing(format!("room is made on {}", preemption.node));
        let name = pod.scheduler_name();
        let withdrawn = preemption.withdrawn.iter().filter_map(|other| self.current(other));
        plan.actions.extend(withdrawn.filter_map(|other| writes::not_nominated(&other)));
        let current = self.current(pod);
        plan.status = current.and_then(|pod| {
            writes::unplaced(&pod, UNSCHEDULABLE, &failure.message, Some(&preemption.node), self.context.now())
        });
        let mut failed = self.apply(&plan, pod).await.is_err();
        for victim in &preemption.victims {
            let Some(current) = self.current(victim) else { continue };
            // A victim's status and its deletion follow one another.
            let mut plan = Plan::nothing(format!("it goes for {}", pod.name()));
            plan.actions = writes::end(&current, name, self.context.now());
            failed |= self.apply(&plan, victim).await.is_err();
            let message = format!("Preempted by pod {} on node {}", pod.uid(), preemption.node);
            self.event(victim, Severity::Normal, "Preempted", &message);
        }
        if failed {
            self.try_again(pod.uid());
        }
    }

    async fn say(&self, pod: &PodInfo, reason: &str, why: &str, nominated: Option<&str>) {
        let status =
            self.current(pod).and_then(|pod| writes::unplaced(&pod, reason, why, nominated, self.context.now()));
        let plan = Plan { status, ..Plan::nothing(reason) };
        if self.apply(&plan, pod).await.is_err() {
            // The next try says it.
            self.try_again(pod.uid());
        }
    }

    /// A pod as it is now: the snapshot does not follow its status, which is written anew from what it is.
    fn current(&self, pod: &PodInfo) -> Option<Arc<Pod>> {
        let found = self.context.caches.pods.get(&Key::new(pod.namespace(), pod.name()))?;
        (found.metadata.uid.as_deref() == Some(pod.uid())).then_some(found)
    }

    async fn apply(&self, plan: &Plan, pod: &PodInfo) -> Result<(), ()> {
        match self.context.apply(plan, &about("v1", "Pod", &pod.pod.metadata), "").await {
            (_, _, None) => Ok(()),
            (_, _, Some(_)) => Err(()),
        }
    }

    fn try_again(&self, uid: &str) {
        self.state.lock().queue.failed(uid, self.now());
        self.wake.notify_one();
    }

    fn event(&self, pod: &PodInfo, severity: Severity, reason: &str, message: &str) {
        self.context.recorder.event(about("v1", "Pod", &pod.pod.metadata), severity, reason, message);
    }
}

/// Sleeps until then; for ever, without a moment.
async fn sleep_until(at: Option<Instant>) -> Option<()> {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
    Some(())
}

/// Waits until a task has ended abnormally; those that ended well are forgotten.
async fn tasks_end(tasks: &mut JoinSet<()>, pods: &mut HashMap<tokio::task::Id, String>, scheduler: &Scheduler) {
    while let Some(ended) = tasks.join_next_with_id().await {
        match ended {
            Ok((id, ())) => {
                pods.remove(&id);
            }
            Err(error) => {
                tracing::error!(%error, "a pod's placing ended abnormally");
                if let Some(uid) = pods.remove(&error.id()) {
                    scheduler.try_again(&uid);
                }
                return;
            }
        }
    }
    std::future::pending().await
}
