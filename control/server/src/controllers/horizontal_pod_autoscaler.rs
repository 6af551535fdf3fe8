//! Drives the HorizontalPodAutoscaler decision: reads the target's scale and what its pods use.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use copepod_api::image::encode_segment;
use copepod_api::{Gvr, LabelSelector, Quantity};
use copepod_client::{Key, Outcome};
use copepod_core::controllers::horizontal_pod_autoscaler::{self as decide, Decision, Observed};
use copepod_core::controllers::horizontal_pod_autoscaler_limits::Memory;
use copepod_core::controllers::horizontal_pod_autoscaler_metrics::Sampled;
use copepod_core::controllers::{Plan, Target, meta};
use k8s_openapi::api::autoscaling::v1::Scale;
use k8s_openapi::api::autoscaling::v2::{CrossVersionObjectReference, HorizontalPodAutoscaler};
use k8s_openapi::api::core::v1::Pod;
use parking_lot::Mutex;
use serde::Deserialize;

use super::context::{Context, Running, about, add_all};
use super::discovery::Discovery;
use super::executor::{Failure, explain};

/// What is remembered of each autoscaler.
#[derive(Clone, Default)]
struct Remembered(Arc<Mutex<HashMap<Key, Entry>>>);

#[derive(Default)]
struct Entry {
    memory: Memory,
    /// Of its target's pods, as last seen.
    selector: Option<LabelSelector>,
}

#[derive(Deserialize)]
struct PodMetricsList {
    items: Vec<PodMetrics>,
}

#[derive(Deserialize)]
struct PodMetrics {
    metadata: Named,
    timestamp: jiff::Timestamp,
    window: jiff::SignedDuration,
    containers: Vec<ContainerMetrics>,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Deserialize)]
struct ContainerMetrics {
    name: String,
    usage: BTreeMap<String, String>,
}

/// Runs the controller.
pub(super) fn run(context: Context, discovery: Discovery) -> Running {
    let queue = context.queue::<Key>();
    let q = queue.clone();
    context.caches.autoscalers.on_change(move |change| {
        // Its own status is not to make it look again.
        let same = match (&change.old, &change.new) {
            (Some(old), Some(new)) => old.spec == new.spec && old.metadata.uid == new.metadata.uid,
            _ => false,
        };
        add_all(&q, change.last().filter(|_| !same).map(|s| Key::of(&**s)));
    });
    let remembered = Remembered::default();
    context.work(queue, move |context, key| {
        let (remembered, discovery) = (remembered.clone(), discovery.clone());
        async move { reconcile(&context, &discovery, &remembered, &key).await }
    })
}

async fn reconcile(context: &Context, discovery: &Discovery, remembered: &Remembered, key: &Key) -> Outcome {
    let scaler = context.caches.autoscalers.get(key).filter(|s| s.metadata.deletion_timestamp.is_none());
    let Some(scaler) = &scaler else {
        remembered.0.lock().remove(key);
        return Outcome::Done;
    };
    let (resource, scale) = match scale_of(context, discovery, &key.namespace, &scaler.spec.scale_target_ref).await {
        Ok(found) => found,
        Err(error) => {
            let plan = decide::unreachable(scaler, &error, context.now());
            return apply(context, scaler, &plan).await.0;
        }
    };
    let selector = decide::selector_of(&scale).ok();
    let pods = selector.as_ref().map(|s| context.caches.pods_selected(&key.namespace, s)).unwrap_or_default();
    let observed = Observed {
        resource: resource.clone(),
        scale: &scale,
        scalers: remembered.scalers(key, selector.as_ref(), &pods),
        usage: usage(context, &key.namespace, selector.as_ref()).await,
        pods: &pods,
    };
    let now = context.now();
    let Decision { plan, rescale } = remembered.with(key, |memory| decide::reconcile(scaler, &observed, memory, now));
    let (outcome, written, failure) = apply(context, scaler, &plan).await;
    let Some(rescale) = rescale else { return outcome };
    if written.iter().any(|(target, _)| target.gvr == resource) {
        remembered.with(key, |memory| memory.rescaled(rescale.from, rescale.to, now));
        return outcome;
    }
    let Some(Failure::Refused(refusal)) = failure else { return outcome };
    let plan = decide::refused(scaler, &rescale, &explain(&refusal.error), now);
    apply(context, scaler, &plan).await.0
}

/// Writes; returns also the revisions that were written.
async fn apply(
    context: &Context,
    scaler: &HorizontalPodAutoscaler,
    plan: &Plan,
) -> (Outcome, Vec<(Target, u64)>, Option<Failure>) {
    let subject = about("autoscaling/v2", "HorizontalPodAutoscaler", &scaler.metadata);
    let (writes, outcome, failure) = context.apply(plan, &subject, "").await;
    (outcome, writes.revisions, failure)
}

impl Remembered {
    fn with<T>(&self, key: &Key, decide: impl FnOnce(&mut Memory) -> T) -> T {
        decide(&mut self.0.lock().entry(key.clone()).or_default().memory)
    }

    /// Notes an autoscaler's selector. Returns the names of all in its namespace that select some of the pods.
    fn scalers(&self, key: &Key, selector: Option<&LabelSelector>, pods: &[Arc<Pod>]) -> Vec<String> {
        let mut all = self.0.lock();
        all.entry(key.clone()).or_default().selector = selector.cloned();
        let selects = |selector: &LabelSelector| pods.iter().any(|pod| meta::selects(selector, &pod.metadata));
        let own = all.iter().filter(|(other, _)| other.namespace == key.namespace);
        let mut names: Vec<String> = own
            .filter(|(other, entry)| *other == key || entry.selector.as_ref().is_some_and(selects))
            .map(|(other, _)| format!("{}/{}", other.namespace, other.name))
            .collect();
        names.sort();
        names
    }
}

/// The scale of an autoscaler's target, with the resource that it is of.
async fn scale_of(
    context: &Context,
    discovery: &Discovery,
    namespace: &str,
    target: &CrossVersionObjectReference,
) -> Result<(Gvr, Scale), String> {
    let api_version = target.api_version.as_deref().unwrap_or_default();
    let served = || discovery.find(api_version, &target.kind).filter(|s| s.namespaced).map(|s| s.gvr());
    let resource = decide::scaled_resource(api_version, &target.kind).or_else(served);
    let resource = resource.ok_or_else(|| decide::no_such_kind(api_version, &target.kind))?;
    let scale = context.executor.scale(resource.clone(), namespace, &target.name).await.map_err(|e| explain(&e))?;
    Ok((resource, scale))
}

/// What the selected pods use, by name.
async fn usage(
    context: &Context,
    namespace: &str,
    selector: Option<&LabelSelector>,
) -> Result<BTreeMap<String, Sampled>, String> {
    let Some(selector) = selector else { return Ok(BTreeMap::new()) };
    let pods = Gvr { group: "metrics.k8s.io".into(), version: "v1beta1".into(), resource: "pods".into() };
    let path = Target::new(pods, namespace, "").collection_path();
    let selector = encode_segment(&selector.to_string());
    let path = format!("{path}?labelSelector={selector}");
    let list: PodMetricsList = context.executor.get(&path).await.map_err(|e| explain(&e))?;
    let container = |c: ContainerMetrics| {
        let usage = c.usage.into_iter().filter_map(|(name, amount)| Some((name, Quantity::parse(&amount).ok()?)));
        (c.name, usage.collect())
    };
    let sampled = |pod: PodMetrics| {
        let window = Duration::try_from(pod.window).unwrap_or_default();
        let containers = pod.containers.into_iter().map(container).collect();
        (pod.metadata.name, Sampled { at: pod.timestamp, window, containers })
    };
    Ok(list.items.into_iter().map(sampled).collect())
}
