//! The promises of workloads' own objects: Deployments' surge, autoscalers' bounds, Jobs' counters, CronJobs' times.

use std::time::Duration;

use copepod_core::controllers::cronjob::SCHEDULED;
use jiff::Timestamp;
use serde_json::Value;

use super::{World, going, is, name, number, owner, scaled, text, uid};

impl World {
    pub(super) fn deployment(&mut self, key: &str, deployment: &Value) {
        let replicas = number(deployment, "/spec/replicas");
        self.note_replicas(key, replicas);
        let now = self.now();
        let rolling = deployment.pointer("/spec/strategy/rollingUpdate");
        let recreate = text(deployment, "/spec/strategy/type") == "Recreate";
        let surge = scaled(rolling.and_then(|r| r.get("maxSurge")), replicas, true, "25%");
        let fewer = scaled(rolling.and_then(|r| r.get("maxUnavailable")), replicas, false, "25%");
        let fewer = if surge == 0 && fewer == 0 { 1 } else { fewer };
        let (floor, ceiling) = if recreate { (0, replicas) } else { (replicas - fewer, replicas + surge) };
        self.memory.floors.entry(key.into()).or_default().set(now, floor);
        self.memory.ceilings.entry(key.into()).or_default().set(now, ceiling);
    }

    /// All sets of a Deployment together stay within its surge.
    pub(super) fn replica_set(&mut self, key: &str, old: Option<&Value>, set: &Value) {
        let replicas = number(set, "/spec/replicas");
        self.note_replicas(key, replicas);
        let before = old.map_or(0, |s| number(s, "/spec/replicas"));
        let Some(deployment) = owner(set).filter(|_| replicas > before) else { return };
        let namespace = text(set, "/metadata/namespace");
        let above = format!("/apps/deployments/{namespace}/{}", text(deployment, "/name"));
        let (now, lag) = (self.now(), self.lag(text(deployment, "/name"), &[&["deployments", "replicasets"]]));
        let Some(most) = self.memory.ceilings.get(&above).and_then(|c| c.within(now, lag).max()) else { return };
        let of = text(deployment, "/uid");
        let siblings = self.all("apps/replicasets").filter(|(_, s)| owner(s).is_some_and(|o| text(o, "/uid") == of));
        let sum: i64 = siblings.map(|(_, s)| number(s, "/spec/replicas")).sum();
        if sum > most {
            self.violate(format!("{key} is scaled from {before} to {replicas}: {sum} in all, {most} may be"));
        }
    }

    /// A Job's counters count each pod once, and never back.
    pub(super) fn job(&mut self, key: &str, old: Option<&Value>, job: &Value) {
        let completions = job.pointer("/spec/completions").and_then(Value::as_i64).unwrap_or(i64::MAX);
        self.note_replicas(key, number(job, "/spec/parallelism").min(completions));
        let old = old.filter(|o| uid(o) == uid(job));
        let seen =
            [&self.memory.succeeded, &self.memory.failed].map(|ended| ended.get(uid(job)).map_or(0, |pods| pods.len()));
        for (counter, seen) in ["succeeded", "failed"].into_iter().zip(seen) {
            let (pointer, seen) = (format!("/status/{counter}"), seen as i64);
            let (before, after) = (old.map_or(0, |o| number(o, &pointer)), number(job, &pointer));
            if after < before || after > seen {
                let what = format!("{key}: {counter} goes from {before} to {after}, and {seen} pods did");
                return self.violate(what);
            }
        }
        if is(job, "Complete") && completions != i64::MAX && number(job, "/status/succeeded") != completions {
            self.violate(format!("{key} is complete with {} of {completions}", number(job, "/status/succeeded")));
        }
    }

    /// The bounds of an autoscaler, which has the name of its workload.
    pub(super) fn autoscaler(&mut self, scaler: &Value) {
        let now = self.now();
        let least = scaler.pointer("/spec/minReplicas").and_then(Value::as_i64).unwrap_or(1);
        let (lower, upper) = self.memory.bounds.entry(name(scaler).into()).or_default();
        lower.set(now, least);
        upper.set(now, number(scaler, "/spec/maxReplicas"));
    }

    /// Nobody but its autoscaler changes the replicas of a workload that has one, and only within its bounds.
    pub(super) fn rescaled(&mut self, key: &str, old: Option<&Value>, workload: &Value) {
        let (before, after) = (old.map(|o| number(o, "/spec/replicas")), number(workload, "/spec/replicas"));
        let scaler = format!("/autoscaling/horizontalpodautoscalers/default/{}", name(workload));
        if before.is_none_or(|before| before == after) || !self.objects.contains_key(&scaler) {
            return;
        }
        let (now, lag) = (self.now(), self.lag(name(workload), &[&["horizontalpodautoscalers"]]));
        let Some((lower, upper)) = self.memory.bounds.get(name(workload)) else { return };
        let least = lower.within(now, lag).min().unwrap_or(0);
        let most = upper.within(now, lag).max().unwrap_or(0);
        if !(least..=most).contains(&after) {
            self.violate(format!("{key} is scaled from {before:?} to {after}, outside of {least} to {most}"));
        }
    }

    pub(super) fn cron_job(&mut self, key: &str, cron: &Value) {
        let (now, suspended) = (self.now(), cron.pointer("/spec/suspend") == Some(&Value::Bool(true)));
        self.memory.suspended.entry(key.into()).or_default().set(now, i64::from(suspended));
    }

    /// A Job that a CronJob makes is due, the only one of its time, and beside no other that may not be.
    pub(super) fn scheduled(&mut self, job: &Value) {
        let Some(owner) = owner(job).filter(|o| o["kind"] == "CronJob") else { return };
        let (of, cron_name) = (text(owner, "/uid").to_string(), text(owner, "/name"));
        let key = format!("/batch/cronjobs/{}/{cron_name}", text(job, "/metadata/namespace"));
        let Some(cron) = self.objects.get(&key).filter(|c| uid(c) == of).cloned() else { return };
        let (now, lag) = (self.now(), self.lag(cron_name, &[&["cronjobs", "jobs"]]));
        let mut broken = Vec::new();
        let at = job["metadata"]["annotations"][SCHEDULED].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let Some(at) = at else { return self.violate(format!("{} is of no time", name(job))) };
        let every =
            text(&cron, "/spec/schedule").trim_start_matches("*/").split(' ').next().and_then(|n| n.parse().ok());
        let every: i64 = every.unwrap_or(1) * 60;
        if at > now || at.as_second() % 3600 % every != 0 {
            broken.push(format!("is for {at}, which is not (yet) a time of {}", text(&cron, "/spec/schedule")));
        }
        if let Some(deadline) = cron.pointer("/spec/startingDeadlineSeconds").and_then(Value::as_u64)
            && at + Duration::from_secs(deadline) + lag < now
        {
            broken.push(format!("is for {at}, and may be late by {deadline} s only"));
        }
        if let Some(last) = self.memory.kept.get(&of).filter(|last| **last >= at) {
            broken.push(format!("is for {at}, and one for {last} was there before"));
        }
        let policy = text(&cron, "/spec/concurrencyPolicy");
        let runs = |j: &Value| !is(j, "Complete") && !is(j, "Failed") && !going(j) && uid(j) != uid(job);
        let own = self.all("batch/jobs").filter(|(_, j)| super::owner(j).is_some_and(|o| text(o, "/uid") == of));
        let beside = own.filter(|(_, j)| runs(j)).count();
        if ["Forbid", "Replace"].contains(&policy) && beside > 0 {
            broken.push(format!("is made while {beside} others run, and the policy is {policy}"));
        }
        let asked = self.memory.suspended.get(&key).is_none_or(|s| s.within(now, lag).any(|suspended| suspended == 0));
        if !asked {
            broken.push("is made while all is suspended".into());
        }
        self.memory.kept.insert(of, at);
        broken.into_iter().for_each(|what| self.violate(format!("{} {what}", name(job))));
    }
}
