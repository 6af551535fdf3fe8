//! How fast nodes that fail may drive their pods out: one after the other in each zone, slowly or not at all where much
//! of a zone fails, and never while every node of the cluster does; then it is rather the network or the control plane
//! that fails, and to move the pods would only do harm.
//! Source: <https://kubernetes.io/docs/concepts/architecture/nodes/#rate-limits-on-eviction>.

use std::collections::HashMap;
use std::time::Duration;

use copepod_api::names::{LABEL_ZONE, TAINT_NOT_READY, TAINT_UNREACHABLE};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;

/// Between two nodes of a zone that may drive their pods out: 0.1 nodes a second.
const INTERVAL: Duration = Duration::from_secs(10);
/// The same in a large zone of which much fails: 0.01 nodes a second.
const SLOW_INTERVAL: Duration = Duration::from_secs(100);
/// The percentage of a zone's nodes that are not ready from which much of it fails.
const UNHEALTHY_PERCENT: usize = 55;
/// Fewer nodes that are not ready are never much of a zone.
const FEWEST_UNHEALTHY: usize = 3;
/// Zones of at most so many nodes do not drive pods out at all when much of them fails.
const SMALL: usize = 50;
const LABEL_REGION: &str = "topology.kubernetes.io/region";

/// How nodes of a zone may drive pods out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pace {
    Every(Duration),
    Never,
}

/// What a node that is not ready may do.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Permission {
    /// Drive its pods out.
    Granted,
    /// Ask again after this time.
    After(Duration),
    /// Not before other nodes of its zone have changed; what it does already, it may go on with.
    Refused,
    /// No node of the cluster is ready: whoever drives pods out ends it.
    Spared,
}

/// The nodes by zone, and whose turn it is.
#[derive(Default, Debug)]
pub struct Zones {
    nodes: HashMap<String, Member>,
    zones: HashMap<(String, String), Zone>,
}

#[derive(Debug)]
struct Member {
    zone: (String, String),
    ready: bool,
    /// Whether it has a taint by which it drives pods out.
    drives: bool,
    /// When its turn is.
    slot: Option<Timestamp>,
}

#[derive(Default, Debug)]
struct Zone {
    ready: usize,
    not_ready: usize,
    /// The last turn that was used, and the last that was given.
    used: Option<Timestamp>,
    given: Option<Timestamp>,
}

impl Zone {
    fn pace(&self) -> Pace {
        let all = self.ready + self.not_ready;
        let much = self.not_ready >= FEWEST_UNHEALTHY && self.not_ready * 100 >= all * UNHEALTHY_PERCENT;
        match (self.ready, much) {
            (0, _) | (_, false) => Pace::Every(INTERVAL),
            _ if all > SMALL => Pace::Every(SLOW_INTERVAL),
            _ => Pace::Never,
        }
    }
}

impl Zones {
    /// Takes note of a node as it is now, `None` if it is gone; tells which nodes must ask again for it.
    pub fn observe(&mut self, name: &str, node: Option<&Node>) -> Vec<String> {
        let before = self.nodes.remove(name);
        let after = node.map(|node| Member::of(node, before.as_ref()));
        let of = |m: &Option<Member>| m.as_ref().map(|m| (m.zone.clone(), m.ready));
        let changed = of(&before) != of(&after);
        let mut again = false;
        if changed {
            let spared = self.spared();
            for (member, comes) in [(&before, false), (&after, true)] {
                again |= member.as_ref().is_some_and(|m| self.count(&m.zone, m.ready, comes));
            }
            again |= spared != self.spared();
        }
        self.nodes.extend(after.map(|member| (name.to_string(), member)));
        let failing = self.nodes.iter().filter(|(_, member)| again && !member.ready);
        failing.map(|(name, _)| name.clone()).collect()
    }

    /// Counts a node of a zone in or out; whether the zone's pace is another now.
    fn count(&mut self, key: &(String, String), ready: bool, comes: bool) -> bool {
        let zone = self.zones.entry(key.clone()).or_default();
        let before = zone.pace();
        let counter = if ready { &mut zone.ready } else { &mut zone.not_ready };
        *counter = if comes { *counter + 1 } else { counter.saturating_sub(1) };
        let changed = zone.pace() != before;
        if changed {
            zone.given = zone.used;
        }
        if zone.ready + zone.not_ready == 0 {
            self.zones.remove(key);
        }
        if changed {
            self.nodes.values_mut().filter(|m| m.zone == *key).for_each(|m| m.slot = None);
        }
        changed
    }

    /// Whether no node is ready.
    fn spared(&self) -> bool {
        self.zones.values().all(|z| z.ready == 0)
    }

    /// Asks for a node that is not ready whether it may drive its pods out, and keeps a turn for it.
    pub fn ask(&mut self, name: &str, now: Timestamp) -> Permission {
        let spared = self.spared();
        let Some(member) = self.nodes.get_mut(name).filter(|m| !m.ready) else { return Permission::Refused };
        if spared {
            return Permission::Spared;
        }
        if member.drives {
            return Permission::Granted;
        }
        let Some(zone) = self.zones.get_mut(&member.zone) else { return Permission::Refused };
        let Pace::Every(interval) = zone.pace() else { return Permission::Refused };
        let slot = *member.slot.get_or_insert_with(|| {
            let next = zone.given.and_then(|given| given.checked_add(interval).ok());
            next.map_or(now, |next| next.max(now))
        });
        zone.given = zone.given.max(Some(slot));
        match Duration::try_from(slot.duration_since(now)) {
            Ok(wait) if !wait.is_zero() => Permission::After(wait),
            _ => {
                zone.used = zone.used.max(Some(slot));
                Permission::Granted
            }
        }
    }
}

impl Member {
    fn of(node: &Node, before: Option<&Member>) -> Self {
        let label = |key: &str| node.metadata.labels.as_ref().and_then(|l| l.get(key)).cloned().unwrap_or_default();
        let zone = (label(LABEL_REGION), label(LABEL_ZONE));
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
        let ready = conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"));
        let taints = node.spec.as_ref().and_then(|s| s.taints.as_ref());
        let ours = |key: &str| [TAINT_NOT_READY, TAINT_UNREACHABLE].contains(&key);
        let drives = taints.is_some_and(|all| all.iter().any(|t| t.effect == "NoExecute" && ours(&t.key)));
        let slot = before.filter(|b| !ready && !drives && b.zone == zone).and_then(|b| b.slot);
        Self { zone, ready, drives, slot }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::*;
    use super::*;

    fn node(zone: &str, ready: bool, drives: bool) -> Node {
        let taints = if drives { "[{key: node.kubernetes.io/unreachable, effect: NoExecute}]" } else { "[]" };
        let ready = if ready { "True" } else { "Unknown" };
        yaml(&format!(
            "metadata: {{name: node, labels: {{topology.kubernetes.io/zone: {zone}}}}}\nspec: {{taints: {taints}}}\n\
             status: {{conditions: [{{type: Ready, status: '{ready}'}}]}}"
        ))
    }

    /// Zones `a` with so many ready and not ready nodes, and `b` with one that is ready or not.
    fn zones(ready: usize, not_ready: usize, b: bool) -> Zones {
        let mut zones = Zones::default();
        for n in 0..ready {
            zones.observe(&format!("up{n}"), Some(&node("a", true, false)));
        }
        for n in 0..not_ready {
            zones.observe(&format!("down{n}"), Some(&node("a", false, false)));
        }
        zones.observe("b", Some(&node("b", b, false)));
        zones
    }

    fn after(seconds: u64) -> Permission {
        Permission::After(Duration::from_secs(seconds))
    }

    #[test]
    fn paces() {
        use Permission::{Granted, Refused, Spared};
        // (zone a: ready, not ready; whether zone b is; what three nodes of a are told at once)
        let cases = [
            (9, 3, true, [Granted, after(10), after(20)]),
            // More than 55 %, but only two.
            (1, 2, true, [Granted, after(10), Refused]),
            (2, 3, true, [Refused, Refused, Refused]),
            (45, 54, true, [Granted, after(10), after(20)]),
            (45, 55, true, [Granted, after(100), after(200)]),
            // The whole zone is gone, others are not.
            (0, 3, true, [Granted, after(10), after(20)]),
            (0, 3, false, [Spared, Spared, Spared]),
        ];
        for (ready, not_ready, b, expected) in cases {
            let mut zones = zones(ready, not_ready, b);
            let told = [0, 1, 2].map(|n| zones.ask(&format!("down{n}"), now()));
            assert_eq!(told, expected, "{ready} ready, {not_ready} not, b {b}");
        }
    }

    #[test]
    fn turns_are_kept_and_given_back() {
        let mut zones = zones(9, 3, true);
        let ask = |zones: &mut Zones, n: usize, t: i64| zones.ask(&format!("down{n}"), at(t));
        assert_eq!(ask(&mut zones, 0, 0), Permission::Granted);
        assert!(zones.observe("down0", Some(&node("a", false, true))).is_empty());
        assert_eq!(ask(&mut zones, 1, 1), after(9));
        assert_eq!(ask(&mut zones, 2, 2), after(18));
        assert_eq!(ask(&mut zones, 1, 4), after(6), "its turn stays");
        assert_eq!(ask(&mut zones, 1, 10), Permission::Granted);
        assert_eq!(ask(&mut zones, 0, 11), Permission::Granted, "goes on");
        // What is ready asks for nothing, and starts anew.
        assert!(zones.observe("down2", Some(&node("a", true, false))).is_empty());
        assert_eq!(ask(&mut zones, 2, 60), Permission::Refused);
        assert!(zones.observe("down2", Some(&node("a", false, false))).is_empty());
        assert_eq!(ask(&mut zones, 2, 60), Permission::Granted);
    }

    #[test]
    fn whoever_waits_asks_again_when_the_pace_changes() {
        let mut zones = zones(3, 3, true);
        assert_eq!(zones.ask("down0", at(0)), Permission::Granted);
        assert_eq!(zones.ask("down1", at(0)), after(10));
        assert_eq!(zones.observe("up0", Some(&node("a", false, false))).len(), 4, "most of the zone fails");
        assert_eq!(zones.ask("down1", at(10)), Permission::Refused);
        assert_eq!(zones.observe("up0", Some(&node("a", true, false))).len(), 3);
        assert_eq!(zones.ask("down1", at(10)), Permission::Granted);
        for n in 0..3 {
            zones.observe(&format!("up{n}"), None);
        }
        assert_eq!(zones.observe("b", None).len(), 3, "no node is left that is ready");
        assert_eq!(zones.ask("down1", at(30)), Permission::Spared);
        assert_eq!(zones.observe("b", Some(&node("b", true, false))).len(), 3);
    }
}
