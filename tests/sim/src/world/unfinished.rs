//! What is not as asked for yet.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{World, active, amount, available, going, is, name, number, over, owner, text, uid};
use crate::workloads::LOAD;

impl World {
    /// What is left to do until all is as asked for, for people.
    pub fn unfinished(&self) -> Vec<String> {
        let mut left = Vec::new();
        let there: BTreeSet<&str> = self.objects.values().map(uid).collect();
        for (key, object) in &self.objects {
            if going(object) {
                left.push(format!("{key} is still going"));
            }
            if let Some(owner) = owner(object).filter(|o| !over(object) && !there.contains(text(o, "/uid"))) {
                left.push(format!("{key} has lost its {}", text(owner, "/kind")));
            }
        }
        for (key, object) in &self.objects {
            let resource = key.splitn(4, '/').take(3).collect::<Vec<_>>().join("/");
            let why = match resource.as_str() {
                "/core/nodes" => self.node_left(object),
                "/core/pods" => self.pod_left(object),
                "/apps/deployments" => self.deployment_left(object),
                "/apps/replicasets" => self.set_left(object),
                "/apps/statefulsets" => self.stateful_left(object),
                "/apps/daemonsets" => self.daemon_left(object),
                "/batch/jobs" => self.job_left(object),
                "/policy/poddisruptionbudgets" => self.budget_left(object),
                "/core/services" => self.service_left(object),
                "/batch/cronjobs" => self.cron_left(object),
                "/autoscaling/horizontalpodautoscalers" => self.autoscaler_left(object),
                "/core/persistentvolumeclaims" => self.claim_left(object),
                "/core/persistentvolumes" => self.volume_left(object),
                _ => None,
            };
            left.extend(why.map(|why| format!("{key}: {why}")));
        }
        left
    }

    fn node_left(&self, node: &Value) -> Option<String> {
        let clean = node.pointer("/spec/taints").is_none_or(|t| t == &serde_json::json!([]));
        (!is(node, "Ready") || !clean).then(|| format!("{}", node["spec"]))
    }

    fn pod_left(&self, pod: &Value) -> Option<String> {
        let idle = !over(pod) && owner(pod).is_some_and(|o| o["kind"] != "Job") && !is(pod, "Ready");
        idle.then(|| format!("on {:?}: {}", text(pod, "/spec/nodeName"), pod["status"]))
    }

    fn deployment_left(&self, d: &Value) -> Option<String> {
        let replicas = number(d, "/spec/replicas");
        let says = ["replicas", "updatedReplicas", "readyReplicas", "availableReplicas"];
        let counts = says.map(|field| number(d, &format!("/status/{field}")));
        let sets = self.all("apps/replicasets").filter(|(_, s)| owner(s).is_some_and(|o| text(o, "/uid") == uid(d)));
        let pods: usize = sets.map(|(_, s)| self.pods_of(uid(s)).filter(|p| available(p)).count()).sum();
        let seen = number(d, "/status/observedGeneration") == number(d, "/metadata/generation");
        let right = counts == [replicas; 4] && number(d, "/status/unavailableReplicas") == 0 && seen;
        (!right || pods as i64 != replicas).then(|| format!("{replicas} asked, {pods} available, says {}", d["status"]))
    }

    fn set_left(&self, set: &Value) -> Option<String> {
        let replicas = number(set, "/spec/replicas");
        let there = self.pods_of(uid(set)).filter(|p| active(p)).count() as i64;
        let says = ["replicas", "readyReplicas", "availableReplicas"].map(|f| number(set, &format!("/status/{f}")));
        (there != replicas || says != [replicas; 3])
            .then(|| format!("{replicas} asked, {there} there, says {}", set["status"]))
    }

    fn stateful_left(&self, set: &Value) -> Option<String> {
        let replicas = number(set, "/spec/replicas");
        let mut names: Vec<&str> = self.pods_of(uid(set)).filter(|p| available(p)).map(name).collect();
        names.sort_unstable();
        let wanted: Vec<String> = (0..replicas).map(|n| format!("{}-{n}", name(set))).collect();
        let says = ["replicas", "readyReplicas", "availableReplicas", "currentReplicas", "updatedReplicas"];
        let counts = says.map(|field| number(set, &format!("/status/{field}")));
        let one = text(set, "/status/currentRevision") == text(set, "/status/updateRevision");
        let right = names == wanted && counts == [replicas; 5] && one;
        (!right).then(|| format!("{replicas} asked, there are {names:?}, says {}", set["status"]))
    }

    fn daemon_left(&self, set: &Value) -> Option<String> {
        let selector = set.pointer("/spec/template/spec/nodeSelector").and_then(Value::as_object);
        let fits =
            |node: &Value| selector.into_iter().flatten().all(|(k, v)| node["metadata"]["labels"].get(k) == Some(v));
        let wanted = self.all("core/nodes").filter(|(_, node)| fits(node)).count() as i64;
        let there = self.pods_of(uid(set)).filter(|p| available(p)).count() as i64;
        let says = [
            "desiredNumberScheduled",
            "currentNumberScheduled",
            "numberReady",
            "numberAvailable",
            "updatedNumberScheduled",
        ];
        let counts = says.map(|field| number(set, &format!("/status/{field}")));
        let right = there == wanted && counts == [wanted; 5] && number(set, "/status/numberMisscheduled") == 0;
        (!right).then(|| format!("{wanted} wanted, {there} there, says {}", set["status"]))
    }

    fn job_left(&self, job: &Value) -> Option<String> {
        let done = is(job, "Complete") || is(job, "Failed");
        let tracked = self.pods_of(uid(job)).any(|p| p.pointer("/metadata/finalizers").is_some());
        let says = ["active", "terminating"].map(|field| number(job, &format!("/status/{field}")));
        (!done || tracked || says != [0; 2]).then(|| format!("says {}", job["status"]))
    }

    fn budget_left(&self, budget: &Value) -> Option<String> {
        let (namespace, app) = (text(budget, "/metadata/namespace"), text(budget, "/spec/selector/matchLabels/app"));
        let of = |p: &&Value| text(p, "/metadata/namespace") == namespace && text(p, "/metadata/labels/app") == app;
        let healthy = self.pods().filter(of).filter(|p| available(p)).count() as i64;
        let says = number(budget, "/status/currentHealthy");
        (says != healthy).then(|| format!("{healthy} healthy, says {}", budget["status"]))
    }

    fn service_left(&self, service: &Value) -> Option<String> {
        let app = service.pointer("/spec/selector/app")?.as_str()?;
        let namespace = text(service, "/metadata/namespace");
        let of = |p: &&Value| text(p, "/metadata/namespace") == namespace && text(p, "/metadata/labels/app") == app;
        let ready = self.pods().filter(of).filter(|p| available(p)).count();
        let slices = self.all("discovery.k8s.io/endpointslices");
        let slices = slices.filter(|(_, s)| text(s, "/metadata/labels/kubernetes.io~1service-name") == name(service));
        let endpoints = slices.flat_map(|(_, s)| s["endpoints"].as_array().into_iter().flatten());
        let says = endpoints.filter(|e| e["conditions"]["ready"] == true).count();
        (says != ready).then(|| format!("{ready} ready, its slices say {says}"))
    }

    fn cron_left(&self, cron: &Value) -> Option<String> {
        let listed = cron.pointer("/status/active").and_then(Value::as_array).map_or(0, Vec::len);
        let own = || self.all("batch/jobs").filter(|(_, j)| owner(j).is_some_and(|o| text(o, "/uid") == uid(cron)));
        let [complete, failed] = ["Complete", "Failed"].map(|how| own().filter(|(_, j)| is(j, how)).count() as i64);
        let most = ["successful", "failed"].map(|how| number(cron, &format!("/spec/{how}JobsHistoryLimit")));
        let suspended = cron.pointer("/spec/suspend") == Some(&Value::Bool(true));
        let right = listed == 0 && (!suspended || complete + failed == own().count() as i64);
        (!right || complete > most[0] || failed > most[1])
            .then(|| format!("{complete} complete, {failed} failed, of {most:?}, says {}", cron["status"]))
    }

    /// The replicas are within the bounds, and about as many as the load needs.
    fn autoscaler_left(&self, scaler: &Value) -> Option<String> {
        let target = &scaler["spec"]["scaleTargetRef"];
        let plural = format!("{}s", text(target, "/kind").to_lowercase());
        let workload = self.objects.get(&format!("/apps/{plural}/default/{}", text(target, "/name")))?;
        let replicas = number(workload, "/spec/replicas");
        if replicas == 0 {
            // It was turned off.
            return None;
        }
        let each = amount(text(workload, "/spec/template/spec/containers/0/resources/requests/cpu"));
        let wanted = number(scaler, "/spec/metrics/0/resource/target/averageUtilization");
        let load: f64 = scaler["metadata"]["annotations"][LOAD].as_str()?.parse().ok()?;
        let (least, most) = (number(scaler, "/spec/minReplicas"), number(scaler, "/spec/maxReplicas"));
        let needed = load * 100.0 / (each * wanted) as f64;
        let off = (needed.clamp(least as f64, most as f64) - replicas as f64).abs();
        let says = ["currentReplicas", "desiredReplicas"].map(|f| number(scaler, &format!("/status/{f}")));
        let right = (least..=most).contains(&replicas) && off <= (replicas as f64 * 0.15).max(1.0);
        (!right || says != [replicas; 2])
            .then(|| format!("{replicas} of {least} to {most}, {needed} needed, says {}", scaler["status"]))
    }

    fn claim_left(&self, claim: &Value) -> Option<String> {
        if text(claim, "/status/phase") == "Bound" {
            return None;
        }
        let used = self.pods().any(|p| super::storage::claims_of(p).any(|c| c == name(claim)));
        let class = text(claim, "/spec/storageClassName");
        let size = amount(text(claim, "/spec/resources/requests/storage"));
        let fits = |v: &Value| {
            let free = text(v, "/status/phase") == "Available" && text(v, "/spec/storageClassName") == class;
            free && amount(text(v, "/spec/capacity/storage")) >= size
        };
        let free = self.all("core/persistentvolumes").find(|(_, v)| fits(v)).map(|(key, _)| key);
        (used || free.is_some()).then(|| format!("used: {used}, {free:?} is free, says {}", claim["status"]))
    }

    fn volume_left(&self, volume: &Value) -> Option<String> {
        let (phase, of) = (text(volume, "/status/phase"), text(volume, "/spec/claimRef/uid"));
        let there = self.all("core/persistentvolumeclaims").any(|(_, c)| uid(c) == of);
        let right = match phase {
            "Bound" => there,
            "Available" => of.is_empty(),
            "Released" => !there && text(volume, "/spec/persistentVolumeReclaimPolicy") == "Retain",
            _ => false,
        };
        (!right).then(|| format!("is {phase:?}, its claim {of} is there: {there}"))
    }
}
