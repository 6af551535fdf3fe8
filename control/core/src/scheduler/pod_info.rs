//! What the scheduler needs to know of a pod, worked out once.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodAffinityTerm, PodSpec, Toleration, WeightedPodAffinityTerm};

use super::node_terms::{NO_LABELS, NodeRequirement, Term};
use super::query::{AffinityTerm, Spread};
use super::request::Request;
use crate::controllers::meta;
use crate::controllers::node_lifecycle::tolerates;
use crate::controllers::pod;

/// The constraints of a controller's pods that have none of their own, as upstream's defaults: by node, and by zone.
const DEFAULT_SPREAD: [(&str, i64); 2] = [("kubernetes.io/hostname", 3), ("topology.kubernetes.io/zone", 5)];

/// A port of the node itself.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HostPort {
    pub port: i32,
    pub protocol: String,
    /// The wildcard address is `0.0.0.0`.
    pub ip: String,
}

impl HostPort {
    /// Whether both cannot be open at once.
    pub fn conflicts(&self, other: &Self) -> bool {
        let wild = |ip: &str| ip == "0.0.0.0";
        self.port == other.port
            && self.protocol == other.protocol
            && (self.ip == other.ip || wild(&self.ip) || wild(&other.ip))
    }
}

/// A pod as the scheduler sees it.
#[derive(Debug)]
pub struct PodInfo {
    /// The pod.
    pub pod: Arc<Pod>,
    /// What it asks for.
    pub request: Request,
    /// What it counts as in scores: containers without requests count a little.
    pub counted: Request,
    /// `spec.priority`.
    pub priority: i32,
    /// Whether it is being deleted.
    pub terminating: bool,
    /// The UID of its controller.
    pub owner: Option<String>,
    pub(super) uid: Arc<str>,
    pub(super) ports: Vec<HostPort>,
    /// Names of claims in its namespace.
    pub(super) claims: Vec<String>,
    pub(super) nodes: NodeRequirement,
    pub(super) preferred_nodes: Vec<(i64, Term)>,
    pub(super) affinity: Vec<AffinityTerm>,
    pub(super) anti_affinity: Vec<AffinityTerm>,
    /// Preferred terms; those of anti-affinity have negative weights.
    pub(super) preferred: Vec<(i64, AffinityTerm)>,
    pub(super) spread: Vec<Spread>,
}

impl PodInfo {
    /// Works a pod out.
    pub fn of(pod: Arc<Pod>) -> Arc<Self> {
        let none = PodSpec::default();
        let spec = pod.spec.as_ref().unwrap_or(&none);
        let labels = pod.metadata.labels.as_ref().unwrap_or(&NO_LABELS);
        let namespace = meta::text(&pod.metadata.namespace);
        let owner = meta::controller_of(&pod.metadata).map(|o| o.uid.clone());
        let affinity = spec.affinity.as_ref();
        let together = affinity.and_then(|a| a.pod_affinity.as_ref());
        let apart = affinity.and_then(|a| a.pod_anti_affinity.as_ref());
        let term = |t: &PodAffinityTerm| AffinityTerm::of(t, namespace, labels);
        let terms =
            |list: Option<&Vec<PodAffinityTerm>>| list.map(|l| l.iter().map(term).collect()).unwrap_or_default();
        let weighted = |list: Option<&Vec<WeightedPodAffinityTerm>>, sign: i64| -> Vec<(i64, AffinityTerm)> {
            let one = |t: &WeightedPodAffinityTerm| (sign * i64::from(t.weight), term(&t.pod_affinity_term));
            list.map(|l| l.iter().map(one).collect()).unwrap_or_default()
        };
        let mut preferred =
            weighted(together.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), 1);
        preferred
            .extend(weighted(apart.and_then(|a| a.preferred_during_scheduling_ignored_during_execution.as_ref()), -1));
        let mut spread: Vec<Spread> =
            spec.topology_spread_constraints.iter().flatten().map(|c| Spread::of(c, namespace, labels)).collect();
        if let (true, Some(owner)) = (spread.is_empty(), &owner) {
            spread = DEFAULT_SPREAD.map(|(key, skew)| Spread::of_owner(owner, key, skew)).into();
        }
        let preferred_nodes = affinity
            .and_then(|a| a.node_affinity.as_ref()?.preferred_during_scheduling_ignored_during_execution.as_ref())
            .map(|l| l.iter().map(|t| (i64::from(t.weight), Term::of(&t.preference))).collect())
            .unwrap_or_default();
        let ports = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten().filter(|c| c.restart_policy.as_deref() == Some("Always")))
            .flat_map(|c| c.ports.iter().flatten())
            .filter_map(|p| {
                let ip = p.host_ip.as_deref().filter(|ip| !ip.is_empty()).unwrap_or("0.0.0.0").to_string();
                let protocol = p.protocol.clone().unwrap_or_else(|| "TCP".into());
                p.host_port.filter(|port| *port > 0).map(|port| HostPort { port, protocol, ip })
            })
            .collect();
        Arc::new(Self {
            request: Request::of(&pod),
            counted: Request::counted(&pod),
            priority: spec.priority.unwrap_or(0),
            terminating: pod::terminating(&pod),
            uid: meta::text(&pod.metadata.uid).into(),
            ports,
            claims: pod::claims(&pod),
            nodes: NodeRequirement::of(spec),
            preferred_nodes,
            affinity: terms(together.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            anti_affinity: terms(apart.and_then(|a| a.required_during_scheduling_ignored_during_execution.as_ref())),
            preferred,
            spread,
            owner,
            pod,
        })
    }

    /// Its UID.
    pub fn uid(&self) -> &str {
        &self.uid
    }
    /// Its namespace.
    pub fn namespace(&self) -> &str {
        meta::text(&self.pod.metadata.namespace)
    }
    /// Its name.
    pub fn name(&self) -> &str {
        meta::text(&self.pod.metadata.name)
    }
    /// Its labels.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        self.pod.metadata.labels.as_ref().unwrap_or(&NO_LABELS)
    }
    /// The scheduler that it asks for.
    pub fn scheduler_name(&self) -> &str {
        let name = self.pod.spec.as_ref().and_then(|s| s.scheduler_name.as_deref()).unwrap_or_default();
        if name.is_empty() { super::profile::DEFAULT_NAME } else { name }
    }
    /// Whether something must happen before it may be placed.
    pub fn gated(&self) -> bool {
        self.pod.spec.as_ref().and_then(|s| s.scheduling_gates.as_ref()).is_some_and(|gates| !gates.is_empty())
    }
    /// Whether it may make room by ending others.
    pub fn may_preempt(&self) -> bool {
        self.pod.spec.as_ref().and_then(|s| s.preemption_policy.as_deref()) != Some("Never")
    }
    /// `status.nominatedNodeName`, empty if none.
    pub fn nominated_node(&self) -> &str {
        self.pod.status.as_ref().and_then(|s| s.nominated_node_name.as_deref()).unwrap_or_default()
    }
    /// When it was started, for preemption: those that ran longer stay. A pod that was never started comes last.
    pub(super) fn started(&self) -> Timestamp {
        self.pod.status.as_ref().and_then(|s| s.start_time.as_ref()).map_or(Timestamp::MAX, |t| t.0)
    }
    /// What rules look at in the pod, as text: pods of one text fit the same nodes. None for a pod with claims, which
    /// are its own.
    pub(super) fn needs(&self) -> Option<Arc<str>> {
        if !self.claims.is_empty() {
            return None;
        }
        let ids = |terms: &[AffinityTerm]| terms.iter().map(|t| t.id.clone()).collect::<Vec<_>>();
        let even: Vec<_> = self.spread.iter().filter(|c| c.required).map(Spread::text).collect();
        let place = (self.scheduler_name(), self.namespace(), pod::node_name(&self.pod), &self.nodes.id);
        let rank = (self.priority, self.may_preempt(), &self.request, &self.ports);
        let others = (self.labels(), self.tolerations(), ids(&self.affinity), ids(&self.anti_affinity), even);
        Some(format!("{place:?}{rank:?}{others:?}").into())
    }
    pub(super) fn tolerations(&self) -> &[Toleration] {
        self.pod.spec.as_ref().and_then(|s| s.tolerations.as_deref()).unwrap_or_default()
    }
    pub(super) fn tolerates(&self, taint: &k8s_openapi::api::core::v1::Taint) -> bool {
        self.tolerations().iter().any(|t| tolerates(t, taint))
    }
    /// Its containers' images.
    pub(super) fn images(&self) -> impl Iterator<Item = &str> {
        let spec = self.pod.spec.as_ref();
        let inits = spec.into_iter().flat_map(|s| s.init_containers.iter().flatten());
        spec.into_iter().flat_map(|s| &s.containers).chain(inits).filter_map(|c| c.image.as_deref())
    }
}
