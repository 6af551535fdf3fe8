//! The arguments of plugins in a scheduler's configuration: what is not followed here is refused by name, unless it says
//! what holds anyway, so that nobody relies on a setting that does nothing.
//! Source: <https://kubernetes.io/docs/reference/config-api/kube-scheduler-config.v1/>.

use serde_json::Value;

use super::profile::{PluginConfig, Strategy};

/// Plugins of upstream's that have their place here, but are neither a filter nor a score.
pub(super) const FIXED: [&str; 4] = ["PrioritySort", "SchedulingGates", "DefaultPreemption", "DefaultBinder"];

/// The argument that is followed.
const STRATEGY: (&str, &str) = ("NodeResourcesFit", "scoringStrategy.type");
const CPU_AND_MEMORY: &str = r#"[{"name":"cpu","weight":1},{"name":"memory","weight":1}]"#;
/// Plugin, argument, and the value that holds here: upstream's default.
const HOLDS: [(&str, &str, &str); 10] = [
    ("NodeResourcesFit", "scoringStrategy.resources", CPU_AND_MEMORY),
    ("NodeResourcesBalancedAllocation", "resources", CPU_AND_MEMORY),
    ("InterPodAffinity", "hardPodAffinityWeight", "1"),
    ("InterPodAffinity", "ignorePreferredTermsOfExistingPods", "false"),
    ("PodTopologySpread", "defaultingType", r#""System""#),
    ("PodTopologySpread", "defaultConstraints", "[]"),
    ("DefaultPreemption", "minCandidateNodesPercentage", "10"),
    ("DefaultPreemption", "minCandidateNodesAbsolute", "100"),
    ("VolumeBinding", "bindTimeoutSeconds", "600"),
    ("DynamicResources", "filterTimeout", r#""10s""#),
];

/// The strategy that all plugins' arguments ask for.
///
/// # Errors
/// An argument that is not followed, or a strategy that is not known: told with the argument.
pub(super) fn strategy(configs: &[PluginConfig]) -> Result<Strategy, String> {
    let mut strategy = Strategy::default();
    for (i, config) in configs.iter().enumerate() {
        let mut settings = Vec::new();
        leaves("", &config.args, &mut settings);
        for (name, value) in settings {
            let field = || format!("pluginConfig[{i}].args.{name}");
            match value.as_str() {
                Some("LeastAllocated") if (config.name.as_str(), &*name) == STRATEGY => {}
                Some("MostAllocated") if (config.name.as_str(), &*name) == STRATEGY => {
                    strategy = Strategy::MostAllocated;
                }
                _ if (config.name.as_str(), &*name) == STRATEGY => {
                    return Err(format!(
                        "{}: Unsupported value: {value}: supported values: \"LeastAllocated\", \"MostAllocated\"",
                        field()
                    ));
                }
                _ if name == "apiVersion" || name == "kind" => {}
                _ if HOLDS.iter().any(|(p, n, held)| *p == config.name && *n == name && is(value, held)) => {}
                _ => {
                    return Err(format!("{}: Forbidden: {} does not follow this setting here", field(), config.name));
                }
            }
        }
    }
    Ok(strategy)
}

fn is(value: &Value, json: &str) -> bool {
    serde_json::from_str::<Value>(json).is_ok_and(|held| held == *value)
}

/// All values of an object that are no objects themselves, with the way to them.
fn leaves<'a>(path: &str, value: &'a Value, found: &mut Vec<(String, &'a Value)>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                leaves(&path, value, found);
            }
        }
        Value::Null => {}
        _ => found.push((path.to_string(), value)),
    }
}
