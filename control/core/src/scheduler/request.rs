//! What a pod asks of a node, and what a node can give.
//! Source: <https://kubernetes.io/docs/concepts/configuration/manage-resources-containers/>.

use std::collections::BTreeMap;

use copepod_api::Quantity;
use k8s_openapi::api::core::v1::{Container, Pod, ResourceRequirements};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity as WireQuantity;

/// What a container that asks for none counts as when nodes are scored, as upstream has it: 0.1 CPU...
const LEAST_CPU_MILLI: i64 = 100;
/// ...and 200 MB.
const LEAST_MEMORY: i64 = 200 * 1024 * 1024;

/// Amounts of resources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// CPU in thousandths of a core.
    pub cpu_milli: i64,
    /// Memory in bytes.
    pub memory: i64,
    /// Other resources by name, in units.
    pub other: BTreeMap<String, i64>,
}

impl Request {
    /// A pod's effective request: the sum of its containers and sidecars, or an init container's if that is more; CPU
    /// and memory of the pod as a whole instead, where it says them; and the overhead.
    pub fn of(pod: &Pod) -> Self {
        Self::sum(pod, Self::of_container)
    }

    /// The effective request with a least amount of CPU and memory for containers that ask for none.
    pub fn counted(pod: &Pod) -> Self {
        Self::sum(pod, |container| {
            let mut request = Self::of_container(container);
            let asks = |name: &str| {
                let r = container.resources.as_ref();
                let has = |l: Option<&BTreeMap<String, WireQuantity>>| l.is_some_and(|l| l.contains_key(name));
                has(r.and_then(|r| r.requests.as_ref())) || has(r.and_then(|r| r.limits.as_ref()))
            };
            if !asks("cpu") {
                request.cpu_milli = LEAST_CPU_MILLI;
            }
            if !asks("memory") {
                request.memory = LEAST_MEMORY;
            }
            request
        })
    }

    fn sum(pod: &Pod, of_container: impl Fn(&Container) -> Self) -> Self {
        let Some(spec) = &pod.spec else { return Self::default() };
        let mut total = Self::default();
        for container in &spec.containers {
            total.add(&of_container(container));
        }
        let mut sidecars = Self::default();
        let mut peak = Self::default();
        for container in spec.init_containers.iter().flatten() {
            let request = of_container(container);
            if container.restart_policy.as_deref() == Some("Always") {
                sidecars.add(&request);
                peak.raise(&sidecars);
            } else {
                let mut with = sidecars.clone();
                with.add(&request);
                peak.raise(&with);
            }
        }
        total.add(&sidecars);
        total.raise(&peak);
        if let Some(whole) = &spec.resources {
            let list = merged(whole);
            let of_pod = Self::of_list(Some(&list));
            if list.contains_key("cpu") {
                total.cpu_milli = of_pod.cpu_milli;
            }
            if list.contains_key("memory") {
                total.memory = of_pod.memory;
            }
            total.other.extend(of_pod.other);
        }
        total.add(&Self::of_list(spec.overhead.as_ref()));
        total
    }

    fn of_container(container: &Container) -> Self {
        container.resources.as_ref().map(|r| Self::of_list(Some(&merged(r)))).unwrap_or_default()
    }

    /// The amounts of a resource list.
    pub fn of_list(list: Option<&BTreeMap<String, WireQuantity>>) -> Self {
        let mut request = Self::default();
        for (name, quantity) in list.into_iter().flatten() {
            // The API server refuses malformed quantities; should one come, it asks for nothing.
            let Ok(quantity) = Quantity::parse(&quantity.0) else { continue };
            match name.as_str() {
                "cpu" => request.cpu_milli = quantity.milli(),
                "memory" => request.memory = quantity.value(),
                _ => {
                    request.other.insert(name.clone(), quantity.value());
                }
            }
        }
        request
    }

    /// Whether it asks for nothing at all.
    pub fn is_nothing(&self) -> bool {
        self.cpu_milli <= 0 && self.memory <= 0 && self.other.values().all(|v| *v <= 0)
    }

    /// The amount of a resource that is neither CPU nor memory.
    pub fn other(&self, name: &str) -> i64 {
        self.other.get(name).copied().unwrap_or(0)
    }

    pub(super) fn add(&mut self, more: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_add(more.cpu_milli);
        self.memory = self.memory.saturating_add(more.memory);
        for (name, amount) in &more.other {
            let have = self.other.entry(name.clone()).or_default();
            *have = have.saturating_add(*amount);
        }
    }

    pub(super) fn subtract(&mut self, less: &Self) {
        self.cpu_milli = self.cpu_milli.saturating_sub(less.cpu_milli);
        self.memory = self.memory.saturating_sub(less.memory);
        for (name, amount) in &less.other {
            if let Some(have) = self.other.get_mut(name) {
                *have = have.saturating_sub(*amount);
                if *have == 0 {
                    self.other.remove(name);
                }
            }
        }
    }

    fn raise(&mut self, floor: &Self) {
        self.cpu_milli = self.cpu_milli.max(floor.cpu_milli);
        self.memory = self.memory.max(floor.memory);
        for (name, amount) in &floor.other {
            let have = self.other.entry(name.clone()).or_default();
            *have = (*have).max(*amount);
        }
    }
}

/// The requests; a limit without a request is the request too.
fn merged(resources: &ResourceRequirements) -> BTreeMap<String, WireQuantity> {
    let mut list = resources.limits.clone().unwrap_or_default();
    list.extend(resources.requests.clone().unwrap_or_default());
    list
}
