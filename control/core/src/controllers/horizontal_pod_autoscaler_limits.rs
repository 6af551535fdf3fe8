//! How fast an autoscaler may change the count of pods: what it remembers of its proposals and changes, stabilization
//! windows and policies.
//! Source: <https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/#configurable-scaling-behavior>.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingPolicy, HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// Seconds for which a proposal of more pods holds, unless a rule says otherwise.
const DOWN_WINDOW: i32 = 300;
/// The longest window that a rule may have in seconds.
const MAX_WINDOW: Duration = Duration::from_secs(3600);
/// Proposals and changes that are remembered of each autoscaler; one comes every 15 seconds at most, but for changes
/// of its spec.
const MAX_REMEMBERED: usize = 1024;
/// Without rules the count at most doubles...
const UP_FACTOR: i32 = 2;
/// ...or comes to this.
const UP_LEAST: i32 = 4;

/// What is remembered of an autoscaler. It is lost when the controllers start again, as upstream's.
#[derive(Debug, Default)]
pub struct Memory {
    /// Proposed counts.
    proposals: Vec<(Timestamp, i32)>,
    /// Pods added.
    added: Vec<(Timestamp, i32)>,
    /// Pods taken away.
    removed: Vec<(Timestamp, i32)>,
}

/// A count within its limits.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Limited {
    pub replicas: i32,
    /// Reason and message of AbleToScale.
    pub able: (&'static str, &'static str),
    /// Whether a limit was met.
    pub limited: bool,
    /// Reason and message of ScalingLimited.
    pub why: (&'static str, &'static str),
}

const READY: (&str, &str) = ("ReadyForNewScale", "recommended size matches current size");
const UP_STABILIZED: (&str, &str) = (
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const DOWN_STABILIZED: (&str, &str) = (
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const WITHIN: (&str, &str) = ("DesiredWithinRange", "the desired count is within the acceptable range");
const TOO_MANY: (&str, &str) = ("TooManyReplicas", "the desired replica count is more than the maximum replica count");
const TOO_FEW: (&str, &str) = ("TooFewReplicas", "the desired replica count is less than the minimum replica count");
const UP_LIMIT: (&str, &str) =
    ("ScaleUpLimit", "the desired replica count is increasing faster than the maximum scale rate");
const DOWN_LIMIT: (&str, &str) =
    ("ScaleDownLimit", "the desired replica count is decreasing faster than the maximum scale rate");

impl Memory {
    /// Starts with the count that was found.
    pub fn begin(&mut self, current: i32, now: Timestamp) {
        if self.proposals.is_empty() {
            self.proposals.push((now, current));
        }
    }

    /// Remembers a change that was made.
    pub fn rescaled(&mut self, from: i32, to: i32, now: Timestamp) {
        let list = if to > from { &mut self.added } else { &mut self.removed };
        remember(list, (to - from).saturating_abs(), now);
    }

    /// Pods by which the count changed in the last seconds.
    fn change(&self, seconds: i32, now: Timestamp) -> i32 {
        let since = ago(now, seconds);
        let sum = |list: &[(Timestamp, i32)]| -> i32 {
            list.iter().filter(|(at, _)| *at > since).map(|(_, pods)| *pods).fold(0, i32::saturating_add)
        };
        sum(&self.added).saturating_sub(sum(&self.removed))
    }
}

fn remember(list: &mut Vec<(Timestamp, i32)>, value: i32, now: Timestamp) {
    let oldest = now.checked_sub(MAX_WINDOW).unwrap_or(Timestamp::MIN);
    list.retain(|(at, _)| *at >= oldest);
    if list.len() >= MAX_REMEMBERED {
        list.remove(0);
    }
    list.push((now, value));
}

fn ago(now: Timestamp, seconds: i32) -> Timestamp {
    now.checked_sub(SignedDuration::from_secs(i64::from(seconds))).unwrap_or(Timestamp::MIN)
}

/// Brings a proposal within the limits, and remembers it.
pub(super) fn normalize(
    memory: &mut Memory,
    behavior: Option<&HorizontalPodAutoscalerBehavior>,
    current: i32,
    proposal: i32,
    (min, max): (i32, i32),
    now: Timestamp,
) -> Limited {
    let (stable, able) = match behavior {
        None => {
            let since = ago(now, DOWN_WINDOW);
            let recent = memory.proposals.iter().filter(|(at, _)| *at >= since).map(|(_, count)| *count);
            (recent.fold(proposal, i32::max), DOWN_STABILIZED)
        }
        Some(behavior) => stabilized(memory, behavior, current, proposal, now),
    };
    remember(&mut memory.proposals, proposal, now);
    let (replicas, why) = match behavior {
        None => plain_limit(current, stable, min, max),
        Some(behavior) => rule_limit(memory, behavior, current, stable, (min, max), now),
    };
    let able = if stable == proposal { READY } else { able };
    Limited { replicas, able, limited: replicas != stable, why }
}

/// The count nearest to the present one between what was proposed as fewest and as most in the two windows.
fn stabilized(
    memory: &Memory,
    behavior: &HorizontalPodAutoscalerBehavior,
    current: i32,
    proposal: i32,
    now: Timestamp,
) -> (i32, (&'static str, &'static str)) {
    let window = |rules: Option<&HPAScalingRules>, default| {
        let seconds = rules.and_then(|r| r.stabilization_window_seconds).unwrap_or(default);
        ago(now, seconds)
    };
    let (up, down) = (window(behavior.scale_up.as_ref(), 0), window(behavior.scale_down.as_ref(), DOWN_WINDOW));
    let since = |start: Timestamp| memory.proposals.iter().filter(move |(at, _)| *at > start).map(|(_, count)| *count);
    let (least, most) = (since(up).fold(proposal, i32::min), since(down).fold(proposal, i32::max));
    let why = if proposal >= current { UP_STABILIZED } else { DOWN_STABILIZED };
    (current.max(least).min(most), why)
}

/// The limits of an autoscaler without rules.
fn plain_limit(current: i32, desired: i32, min: i32, max: i32) -> (i32, (&'static str, &'static str)) {
    let fastest = current.saturating_mul(UP_FACTOR).max(UP_LEAST);
    let (most, why) = if max > fastest { (fastest, UP_LIMIT) } else { (max, TOO_MANY) };
    if desired < min {
        (min, TOO_FEW)
    } else if desired > most {
        (most, why)
    } else {
        (desired, WITHIN)
    }
}

fn rule_limit(
    memory: &Memory,
    behavior: &HorizontalPodAutoscalerBehavior,
    current: i32,
    desired: i32,
    (min, max): (i32, i32),
    now: Timestamp,
) -> (i32, (&'static str, &'static str)) {
    if desired > current {
        let fastest = allowed(memory, behavior.scale_up.as_ref(), true, current, now).max(current);
        let (most, why) = if max > fastest { (fastest, UP_LIMIT) } else { (max, TOO_MANY) };
        if desired > most {
            return (most, why);
        }
    } else if desired < current {
        let fastest = allowed(memory, behavior.scale_down.as_ref(), false, current, now).min(current);
        let (least, why) = if min < fastest { (fastest, DOWN_LIMIT) } else { (min, TOO_FEW) };
        if desired < least {
            return (least, why);
        }
    }
    (desired, WITHIN)
}

/// The farthest count that the policies of one direction allow now.
fn allowed(memory: &Memory, rules: Option<&HPAScalingRules>, up: bool, current: i32, now: Timestamp) -> i32 {
    let select = rules.and_then(|r| r.select_policy.as_deref()).unwrap_or("Max");
    if select == "Disabled" {
        return current;
    }
    let policy = |type_: &str, value| HPAScalingPolicy { type_: type_.into(), value, period_seconds: 15 };
    let default = if up { vec![policy("Pods", 4), policy("Percent", 100)] } else { vec![policy("Percent", 100)] };
    let given = rules.and_then(|r| r.policies.as_ref()).filter(|p| !p.is_empty());
    let counts = given.unwrap_or(&default).iter().map(|policy| {
        // The count at the start of the policy's period.
        let start = current.saturating_sub(memory.change(policy.period_seconds, now));
        let share = |sign: f64| f64::from(start) * (1.0 + sign * f64::from(policy.value) / 100.0);
        match (policy.type_.as_str(), up) {
            ("Pods", true) => start.saturating_add(policy.value),
            ("Pods", false) => start.saturating_sub(policy.value),
            (_, true) => whole(share(1.0).ceil()),
            (_, false) => whole(share(-1.0)),
        }
    });
    // The greatest change is the most pods when scaling up, and the fewest when scaling down.
    let furthest = if (select == "Min") == up { counts.min() } else { counts.max() };
    furthest.unwrap_or(current)
}

/// A count from a number, cut to its whole part and the type's range.
pub(super) fn whole(number: f64) -> i32 {
    number as i32
}

#[cfg(test)]
#[path = "horizontal_pod_autoscaler_limits_tests.rs"]
mod tests;
