//! The promises of claims and volumes.

use serde_json::Value;

use super::{World, amount, name, text, uid};

const HOSTNAME: &str = "kubernetes.io/hostname";

impl World {
    /// A claim has one volume for ever, of which no other claim has any part; it stays while a pod uses it.
    pub(super) fn claim(&mut self, key: &str, old: Option<&Value>, new: Option<&Value>) {
        let Some(claim) = new else {
            return old.into_iter().for_each(|old| self.claim_gone(key, old));
        };
        let old = old.filter(|old| uid(old) == uid(claim));
        let volume = text(claim, "/spec/volumeName");
        let before = old.map_or("", |old| text(old, "/spec/volumeName"));
        let mut broken = Vec::new();
        if !before.is_empty() && before != volume {
            broken.push(format!("{key} had volume {before}, and has {volume} now"));
        }
        if before.is_empty() && !volume.is_empty() {
            let sharers =
                self.all("core/persistentvolumeclaims").filter(|(_, c)| text(c, "/spec/volumeName") == volume);
            let sharers: Vec<&str> = sharers.map(|(key, _)| key).collect();
            if sharers.len() > 1 {
                broken.push(format!("{sharers:?} all have volume {volume}"));
            }
        }
        let binds = |c: &Value| text(c, "/status/phase") == "Bound";
        if binds(claim) && !old.is_some_and(binds) {
            let there = self.objects.get(&format!("/core/persistentvolumes/{volume}"));
            let of = there.map_or("", |v| text(v, "/spec/claimRef/uid"));
            if of != uid(claim) {
                broken.push(format!("{key} is bound to {volume}, which is of claim {of:?}"));
            }
            let [asked, has] = [(Some(claim), "/spec/resources/requests/storage"), (there, "/spec/capacity/storage")]
                .map(|(object, pointer)| amount(object.map_or("", |o| text(o, pointer))));
            if has < asked {
                broken.push(format!("{key} asks for {asked} MiB, and {volume} has {has}"));
            }
        }
        broken.into_iter().for_each(|what| self.violate(what));
    }

    fn claim_gone(&mut self, key: &str, claim: &Value) {
        let lag = self.lag(name(claim), &[&["persistentvolumeclaims", "pods"]]);
        let now = self.now();
        let uses = |pod: &&Value| claims_of(pod).any(|c| c == name(claim));
        let since = |pod: &Value| self.memory.placed.get(uid(pod)).copied();
        let users = self.pods().filter(uses).filter(|p| since(p).is_some_and(|at| at + lag < now));
        let users: Vec<String> = users.map(|p| name(p).to_string()).collect();
        if !users.is_empty() {
            self.violate(format!("{key} is gone while {users:?} use it"));
        }
    }

    /// A volume is of one claim for ever, or of none any more.
    pub(super) fn volume(&mut self, key: &str, old: Option<&Value>, new: Option<&Value>) {
        let Some(volume) = new else { return };
        let [before, after] = [old, new].map(|v| v.map_or("", |v| text(v, "/spec/claimRef/uid")));
        if !before.is_empty() && !after.is_empty() && before != after {
            self.violate(format!("{key} was of claim {before}, and is of {after} now"));
        }
        let bound = |v: &Value| text(v, "/status/phase") == "Bound";
        let others =
            self.all("core/persistentvolumes").filter(|(_, v)| text(v, "/spec/claimRef/uid") == after && bound(v));
        let others = others.count();
        if bound(volume) && others > 1 {
            self.violate(format!("{key} is bound to claim {after}, and so are {} more volumes", others - 1));
        }
    }

    /// A pod that is bound to a node finds the volumes of all its claims there.
    pub(super) fn has_its_volumes(&mut self, pod: &Value, on: &str) {
        let now = self.now();
        self.memory.placed.insert(uid(pod).into(), now);
        let namespace = text(pod, "/metadata/namespace");
        let mut broken = Vec::new();
        for claim in claims_of(pod) {
            let found = self.objects.get(&format!("/core/persistentvolumeclaims/{namespace}/{claim}"));
            let volume = found.map_or("", |c| text(c, "/spec/volumeName"));
            let there = self.objects.get(&format!("/core/persistentvolumes/{volume}"));
            let Some(volume) = there.filter(|_| found.is_some_and(|c| text(c, "/status/phase") == "Bound")) else {
                broken.push(format!("{} is put on {on}, its claim {claim} is not bound", name(pod)));
                continue;
            };
            let terms = "/spec/nodeAffinity/required/nodeSelectorTerms/0/matchExpressions/0";
            let expression = volume.pointer(terms).filter(|e| e["key"] == HOSTNAME);
            if expression.is_some_and(|e| e["values"][0] != on) {
                broken.push(format!("{} is put on {on}, its volume {} is elsewhere", name(pod), name(volume)));
            }
        }
        broken.into_iter().for_each(|what| self.violate(what));
    }
}

/// The names of the claims that a pod mounts.
pub(super) fn claims_of(pod: &Value) -> impl Iterator<Item = &str> {
    let volumes = pod.pointer("/spec/volumes").and_then(Value::as_array);
    volumes.into_iter().flatten().filter_map(|v| v.pointer("/persistentVolumeClaim/claimName")?.as_str())
}
