//! Profiles: schedulers by name, each with its rules, weights and way of filling nodes; read from upstream's
//! configuration file format, as far as its settings mean something here.
//! Source: <https://kubernetes.io/docs/reference/config-api/kube-scheduler-config.v1/>.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::plugin_args::{self, FIXED};
use super::{filters, scores};

/// The scheduler of pods that name none.
pub const DEFAULT_NAME: &str = "default-scheduler";
/// Clusters of no more nodes have all of them looked at; in larger ones at least as many feasible nodes are found.
const LEAST_NODES: usize = 100;
/// The least share of nodes to find, in percent.
const LEAST_PERCENT: usize = 5;
/// Profiles that a configuration may have.
const MAX_PROFILES: usize = 64;

/// Which nodes are filled first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Strategy {
    /// Those with the most room.
    #[default]
    LeastAllocated,
    /// Those with the least room that suffices.
    MostAllocated,
}

/// One scheduler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Profile {
    /// The name that pods ask for.
    pub name: String,
    /// Which nodes are filled first.
    pub strategy: Strategy,
    /// Of all nodes, how many feasible ones are found before the best of them is taken; `None` goes by the number of
    /// nodes.
    pub percentage_of_nodes_to_score: Option<usize>,
    weights: BTreeMap<String, i64>,
    no_filters: Vec<String>,
    /// Whether pods may preempt.
    pub preempts: bool,
}

impl Default for Profile {
    fn default() -> Self {
        Self::named(DEFAULT_NAME)
    }
}

impl Profile {
    /// The default profile under a name.
    pub fn named(name: &str) -> Self {
        Self {
            name: name.into(),
            strategy: Strategy::default(),
            percentage_of_nodes_to_score: None,
            weights: BTreeMap::new(),
            no_filters: Vec::new(),
            preempts: true,
        }
    }

    /// How many feasible nodes are enough among so many.
    pub fn enough(&self, nodes: usize) -> usize {
        if nodes <= LEAST_NODES {
            return nodes;
        }
        let percent = match self.percentage_of_nodes_to_score {
            Some(percent) if percent > 0 => percent.min(100),
            _ => 50_usize.saturating_sub(nodes / 125).max(LEAST_PERCENT),
        };
        (nodes.saturating_mul(percent) / 100).max(LEAST_NODES)
    }

    pub(super) fn weight(&self, scorer: &str, default: i64) -> i64 {
        if self.weights.is_empty() { default } else { self.weights.get(scorer).copied().unwrap_or(default) }
    }

    pub(super) fn filters(&self, filter: &str) -> bool {
        !self.no_filters.iter().any(|f| f == filter)
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Config {
    api_version: String,
    kind: String,
    #[serde(default)]
    percentage_of_nodes_to_score: Option<usize>,
    #[serde(default)]
    profiles: Vec<ConfigProfile>,
    #[serde(default)]
    extenders: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ConfigProfile {
    #[serde(default)]
    scheduler_name: Option<String>,
    #[serde(default)]
    percentage_of_nodes_to_score: Option<usize>,
    #[serde(default)]
    plugins: BTreeMap<String, Set>,
    #[serde(default)]
    plugin_config: Vec<PluginConfig>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Set {
    #[serde(default)]
    enabled: Vec<Plugin>,
    #[serde(default)]
    disabled: Vec<Plugin>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Plugin {
    name: String,
    #[serde(default)]
    weight: Option<i64>,
}

/// A plugin's arguments.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PluginConfig {
    pub name: String,
    #[serde(default)]
    pub args: serde_json::Value,
}

/// Reads a `KubeSchedulerConfiguration` (`kubescheduler.config.k8s.io/v1`) in YAML. Of each profile it takes the name,
/// `percentageOfNodesToScore`, the plugins of `filter`, `score`, `postFilter` and `multiPoint`, and the type of
/// `scoringStrategy` of NodeResourcesFit; other arguments of plugins only if they say what holds anyway.
///
/// # Errors
/// Not such a document, an extender, a plugin, argument or strategy that is not known, a weight or percentage out of
/// bounds, or two profiles of one name: told with the field.
pub fn read(text: &str) -> Result<Vec<Profile>, String> {
    let config: Config = serde_saphyr::from_str(text).map_err(|e| e.to_string())?;
    if config.api_version != "kubescheduler.config.k8s.io/v1" || config.kind != "KubeSchedulerConfiguration" {
        return Err(format!(
            "{}, {}: want kubescheduler.config.k8s.io/v1, KubeSchedulerConfiguration",
            config.api_version, config.kind
        ));
    }
    if config.profiles.len() > MAX_PROFILES {
        return Err(format!("profiles: at most {MAX_PROFILES}"));
    }
    if !config.extenders.is_empty() {
        return Err("extenders: Forbidden: schedulers have none here".into());
    }
    let mut profiles: Vec<Profile> = Vec::new();
    for (i, given) in config.profiles.iter().enumerate() {
        let profile =
            given.compile(config.percentage_of_nodes_to_score).map_err(|why| format!("profiles[{i}].{why}"))?;
        if profiles.iter().any(|p| p.name == profile.name) {
            return Err(format!("profiles[{i}].schedulerName: Duplicate value: {:?}", profile.name));
        }
        profiles.push(profile);
    }
    if profiles.is_empty() {
        profiles
            .push(Profile { percentage_of_nodes_to_score: config.percentage_of_nodes_to_score, ..Profile::default() });
    }
    Ok(profiles)
}

impl ConfigProfile {
    fn compile(&self, percentage: Option<usize>) -> Result<Profile, String> {
        let mut profile = Profile::named(self.scheduler_name.as_deref().unwrap_or(DEFAULT_NAME));
        profile.percentage_of_nodes_to_score = self.percentage_of_nodes_to_score.or(percentage);
        if profile.percentage_of_nodes_to_score.is_some_and(|p| p > 100) {
            return Err("percentageOfNodesToScore: not in the range 0-100".into());
        }
        for (point, set) in &self.plugins {
            let (filter, score, post) = match point.as_str() {
                "filter" => (true, false, false),
                "score" => (false, true, false),
                "postFilter" => (false, false, true),
                "multiPoint" => (true, true, true),
                // Other points have plugins here that stand as they are.
                _ => continue,
            };
            for plugin in &set.disabled {
                let named = |name: &str| plugin.name == "*" || plugin.name == name;
                if filter {
                    let names = filters::ALL.iter().map(|f| f.name).filter(|n| named(n));
                    profile.no_filters.extend(names.map(Into::into));
                }
                if score {
                    let names = scores::ALL.iter().map(|s| s.name).filter(|n| named(n));
                    profile.weights.extend(names.map(|n| (n.to_string(), 0)));
                }
                if post && named("DefaultPreemption") {
                    profile.preempts = false;
                }
            }
            for plugin in &set.enabled {
                let scorer = scores::ALL.iter().find(|s| s.name == plugin.name);
                let known = filters::ALL.iter().any(|f| f.name == plugin.name)
                    || scorer.is_some()
                    || FIXED.contains(&plugin.name.as_str());
                if !known {
                    return Err(format!("plugins.{point}.enabled: {:?} does not exist", plugin.name));
                }
                if filter {
                    profile.no_filters.retain(|f| *f != plugin.name);
                }
                if let (true, Some(scorer)) = (score, scorer) {
                    let weight = plugin.weight.filter(|w| *w != 0).unwrap_or(scorer.weight);
                    if !(1..=scores::MAX).contains(&weight) {
                        return Err(format!(
                            "plugins.{point}.enabled: {:?}: weight {weight} not in 1-100",
                            plugin.name
                        ));
                    }
                    profile.weights.insert(plugin.name.clone(), weight);
                }
                if post && plugin.name == "DefaultPreemption" {
                    profile.preempts = true;
                }
            }
        }
        profile.strategy = plugin_args::strategy(&self.plugin_config)?;
        Ok(profile)
    }
}
