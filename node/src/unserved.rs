//! PURE: what the API takes and this node does not do, told in the pod's status: ephemeral containers, and other
//! resources for containers that run.

use k8s_openapi::api::core::v1::{
    Container, ContainerState, ContainerStateWaiting, ContainerStatus, PodSpec, ResourceRequirements,
};

use crate::observed::{Containers, Stage};

/// Why an ephemeral container does not start.
const NO_EPHEMERAL: &str = "this node does not run ephemeral containers: remove the pod to get rid of it";

/// The statuses of a pod's ephemeral containers; `None` if it has none.
pub fn ephemeral(spec: &PodSpec) -> Option<Vec<ContainerStatus>> {
    let containers = spec.ephemeral_containers.as_deref().filter(|all| !all.is_empty())?;
    let waiting =
        ContainerStateWaiting { reason: Some("CreateContainerError".into()), message: Some(NO_EPHEMERAL.into()) };
    let status = |name: &String, image: &Option<String>| ContainerStatus {
        name: name.clone(),
        image: image.clone().unwrap_or_default(),
        state: Some(ContainerState { waiting: Some(waiting.clone()), ..ContainerState::default() }),
        last_state: Some(ContainerState::default()),
        started: Some(false),
        ..ContainerStatus::default()
    };
    Some(containers.iter().map(|c| status(&c.name, &c.image)).collect())
}

/// Why a resize waits: containers run with other resources than their spec has now. `None` if none does.
pub fn pending_resize(spec: &PodSpec, seen: &Containers) -> Option<String> {
    let names: Vec<&str> =
        spec.containers.iter().filter(|c| runs_with_others(c, seen)).map(|c| c.name.as_str()).collect();
    (!names.is_empty()).then(|| {
        let names = names.join(" ");
        format!(
            "this node does not resize running containers; these take the new resources when they restart: [{names}]"
        )
    })
}

fn runs_with_others(container: &Container, seen: &Containers) -> bool {
    let amounts = |r: Option<&ResourceRequirements>| {
        let r = r.cloned().unwrap_or_default();
        (r.limits.unwrap_or_default(), r.requests.unwrap_or_default())
    };
    seen.get(&container.name).is_some_and(|seen| {
        matches!(seen.stage, Stage::Running { .. })
            && seen.resources.is_some()
            && amounts(seen.resources.as_ref()) != amounts(container.resources.as_ref())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observed::Observed;
    use serde_json::json;

    fn spec(value: serde_json::Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn ephemeral_containers_say_that_they_do_not_run() {
        assert_eq!(ephemeral(&spec(json!({"containers": []}))), None);
        let pod = spec(json!({"containers": [], "ephemeralContainers": [{"name": "debug", "image": "x:1"}]}));
        let all = ephemeral(&pod).unwrap();
        let waiting = all[0].state.as_ref().unwrap().waiting.as_ref().unwrap();
        assert_eq!((all[0].name.as_str(), waiting.reason.as_deref()), ("debug", Some("CreateContainerError")));
        assert_eq!(waiting.message.as_deref(), Some(NO_EPHEMERAL));
    }

    #[test]
    fn resizes_wait_for_a_restart() {
        let sized = |memory: &str| json!({"containers": [{"name": "a", "resources": {"limits": {"memory": memory}}}]});
        let now = jiff::Timestamp::from_second(0).unwrap();
        let given = |memory: &str| spec(sized(memory)).containers[0].resources.clone();
        let running = Stage::Running { since: now };
        for (what, stage, resources, waits) in [
            ("the same", running.clone(), given("1Mi"), false),
            ("others", running.clone(), given("2Mi"), true),
            ("none", running.clone(), Some(ResourceRequirements::default()), true),
            ("not known", running, None, false),
            ("it does not run", Stage::Created, given("2Mi"), false),
        ] {
            let observed = Observed { stage, resources, ..Observed::default() };
            let why = pending_resize(&spec(sized("1Mi")), &Containers::from([("a".into(), observed)]));
            assert_eq!(why.is_some(), waits, "{what}: {why:?}");
            assert!(why.is_none_or(|why| why.ends_with("[a]")));
        }
    }
}
