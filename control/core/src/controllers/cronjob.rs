//! CronJob: Jobs on a schedule.
//! Source: <https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/>.
//!
//! A Job's name says which time of the schedule it is of, so that no time has two. Schedules without a time zone are in
//! UTC.

use std::sync::Arc;
use std::time::Duration;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::batch::v1::{CronJob, CronJobSpec, CronJobStatus, Job};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use serde_json::{Value, json};

use super::job;
use super::job_status::demand_revision;
use super::meta::{self, text};
use super::{Action, Plan, Propagation, Target};
use crate::cron::{Schedule, time_zone};

/// Annotation of a Job: the time of the schedule that it is of.
pub const SCHEDULED: &str = "batch.kubernetes.io/cronjob-scheduled-timestamp";
/// Above this many missed times an event says so.
const MANY_MISSED: i64 = 100;
/// How long after a time of the schedule to look, so that it has surely passed.
const AFTER_SCHEDULE: Duration = Duration::from_millis(100);

/// Decides for one CronJob. `jobs` are those that it may claim and those that have names which it needs.
pub fn reconcile(cron: &CronJob, jobs: &[Arc<Job>], now: Timestamp) -> Plan {
    let uid = text(&cron.metadata.uid);
    let owned = jobs.iter().filter(|j| meta::controlled_by(&j.metadata, uid)).cloned().collect();
    let mut pass = Pass {
        cron,
        spec: &cron.spec,
        jobs,
        owned,
        now,
        status: cron.status.clone().unwrap_or_default(),
        plan: Plan::nothing("nothing to do now"),
    };
    pass.clean_up();
    pass.follow_jobs();
    if cron.metadata.deletion_timestamp.is_none() {
        pass.keep_schedule();
    }
    pass.finish()
}

struct Pass<'a> {
    cron: &'a CronJob,
    spec: &'a CronJobSpec,
    /// All Jobs of the namespace.
    jobs: &'a [Arc<Job>],
    /// The CronJob's.
    owned: Vec<Arc<Job>>,
    now: Timestamp,
    status: CronJobStatus,
    plan: Plan,
}

impl Pass<'_> {
    fn finish(mut self) -> Plan {
        if self.status.active.as_ref().is_some_and(Vec::is_empty) {
            self.status.active = None;
        }
        let meta = &self.cron.metadata;
        let mut write =
            meta::status_patch(meta::v1("batch", "cronjobs"), meta, self.cron.status.as_ref(), &self.status);
        demand_revision(write.as_mut(), text(&meta.resource_version));
        self.plan.status = write;
        self.plan
    }

    fn active(&mut self) -> &mut Vec<ObjectReference> {
        self.status.active.get_or_insert_default()
    }

    fn delete(&mut self, job: &Job) {
        let meta = &job.metadata;
        self.plan.actions.push(Action::Delete {
            target: Target::new(meta::v1("batch", "jobs"), text(&meta.namespace), text(&meta.name)),
            propagation: Propagation::Background,
            uid: meta.uid.clone(),
            grace: None,
        });
        self.active().retain(|active| active.uid != meta.uid);
        self.plan.note("SuccessfulDelete", format!("Deleted job {}", text(&meta.name)));
    }

    /// Deletes the oldest ended Jobs above the limits.
    fn clean_up(&mut self) {
        let limits =
            [("Complete", self.spec.successful_jobs_history_limit), ("Failed", self.spec.failed_jobs_history_limit)];
        for (type_, limit) in limits {
            let Some(limit) = limit.and_then(|limit| usize::try_from(limit).ok()) else { continue };
            let mut ended: Vec<Arc<Job>> = self
                .owned
                .iter()
                .filter(|j| {
                    job::finished(j).is_some_and(|c| c.type_ == type_) && j.metadata.deletion_timestamp.is_none()
                })
                .cloned()
                .collect();
            // Those that never started come last.
            ended.sort_by_key(|j| {
                let start = j.status.as_ref().and_then(|s| s.start_time.as_ref()).map(|t| t.0);
                (start.is_none(), start, j.metadata.name.clone())
            });
            let surplus = ended.len().saturating_sub(limit);
            for job in ended.iter().take(surplus) {
                self.delete(job);
            }
        }
    }

    /// Keeps the list of active Jobs and the time of the last success.
    fn follow_jobs(&mut self) {
        for job in self.owned.clone() {
            let (name, uid) = (text(&job.metadata.name), &job.metadata.uid);
            let listed = self.active().iter().any(|active| active.uid == *uid);
            let ended = job::finished(&job);
            match ended {
                Some(condition) if listed => {
                    self.active().retain(|active| active.uid != *uid);
                    self.plan
                        .note("SawCompletedJob", format!("Saw completed job: {name}, condition: {}", condition.type_));
                }
                None if !listed && job.metadata.deletion_timestamp.is_none() => {
                    if job.metadata.annotations.as_ref().is_some_and(|a| a.contains_key(SCHEDULED)) {
                        self.active().push(reference(&job));
                    } else {
                        let message = format!("Saw a job that the controller did not create or forgot: {name}");
                        self.plan.warn("UnexpectedJob", message);
                    }
                }
                _ => {}
            }
            let completed = job.status.as_ref().and_then(|s| s.completion_time.clone());
            if ended.is_some_and(|c| c.type_ == "Complete")
                && let Some(completed) = completed
                && self.status.last_successful_time.as_ref().is_none_or(|last| completed.0 > last.0)
            {
                self.status.last_successful_time = Some(completed);
            }
        }
        let known: Vec<&str> = self.owned.iter().map(|j| text(&j.metadata.uid)).collect();
        let (stays, missing) =
            self.status.active.take().unwrap_or_default().into_iter().partition(|a| known.contains(&text(&a.uid)));
        self.status.active = Some(stays);
        let missing: Vec<ObjectReference> = missing;
        for gone in missing {
            self.plan.note("MissingJob", format!("Active job went missing: {}", text(&gone.name)));
        }
    }

    /// Makes the Job of the latest time that has passed, if it is due.
    fn keep_schedule(&mut self) {
        let zone = match self.spec.time_zone.as_deref().map(time_zone).transpose() {
            Ok(zone) => zone.unwrap_or(TimeZone::UTC),
            Err(why) => {
                let zone = self.spec.time_zone.as_deref().unwrap_or_default();
                return self.plan.warn("UnknownTimeZone", format!("invalid timeZone: {zone:?}: {why}"));
            }
        };
        if self.spec.suspend == Some(true) {
            self.plan.why = "suspended".into();
            return;
        }
        let schedule = match Schedule::parse(&self.spec.schedule) {
            Ok(schedule) => schedule,
            Err(why) => {
                let message = format!("unparseable schedule: {:?} : {why}", self.spec.schedule);
                return self.plan.warn("UnparseableSchedule", message);
            }
        };
        let deadline = self.spec.starting_deadline_seconds.map(SignedDuration::from_secs);
        let last = self.last_known();
        let earliest = deadline.and_then(|d| self.now.checked_sub(d).ok()).map_or(last, |open| last.max(open));
        match Passed::between(&schedule, &zone, last, earliest, self.now) {
            Err(why) => {
                let message = format!("invalid schedule: {} : {why}", self.spec.schedule);
                return self.plan.warn("InvalidSchedule", message);
            }
            Ok(None) => {}
            Ok(Some(passed)) => {
                if passed.count > MANY_MISSED {
                    let message = "too many missed start times. Set or decrease .spec.startingDeadlineSeconds or check clock skew";
                    self.plan.warn("TooManyMissedTimes", message.into());
                }
                self.start(passed.latest, &zone, deadline);
            }
        }
        let last = self.last_known();
        if let Some(next) = next(&schedule, &zone, last, last.max(self.now)) {
            let wait = Duration::try_from(next.duration_since(self.now)).unwrap_or_default();
            self.plan.requeue(wait.saturating_add(AFTER_SCHEDULE));
        }
    }

    /// The last time that was kept, or when there was none the CronJob's creation.
    fn last_known(&self) -> Timestamp {
        let created = self.cron.metadata.creation_timestamp.as_ref().map_or(self.now, |t| t.0);
        self.status.last_schedule_time.as_ref().map_or(created, |t| t.0)
    }

    fn start(&mut self, time: Timestamp, zone: &TimeZone, deadline: Option<SignedDuration>) {
        if deadline.and_then(|d| time.checked_add(d).ok()).is_some_and(|end| end < self.now) {
            let at = time.strftime("%a, %d %b %Y %H:%M:%S +0000");
            return self.plan.warn("MissSchedule", format!("Missed scheduled time to start a job: {at}"));
        }
        let name = format!("{}-{}", text(&self.cron.metadata.name), time.as_second().div_euclid(60));
        if self.status.last_schedule_time.as_ref().is_some_and(|last| last.0 == time) {
            return;
        }
        if let Some(there) = self.jobs.iter().find(|j| j.metadata.name.as_deref() == Some(&name)) {
            if meta::controlled_by(&there.metadata, text(&self.cron.metadata.uid)) {
                // Made before, and then we were stopped before we could say so.
                self.status.last_schedule_time = Some(Time(time));
            } else {
                let message = format!("Error creating job: jobs.batch \"{name}\" already exists");
                self.plan.warn("FailedCreate", message);
            }
            return;
        }
        let policy = self.spec.concurrency_policy.as_deref().unwrap_or("Allow");
        let running = self.status.active.clone().unwrap_or_default();
        if policy == "Forbid" && !running.is_empty() {
            let message = "Not starting job because prior execution is running and concurrency policy is Forbid";
            return self.plan.note("JobAlreadyActive", message.into());
        }
        if policy == "Replace" {
            for job in self.owned.clone() {
                if running.iter().any(|active| active.uid == job.metadata.uid) {
                    self.delete(&job);
                }
            }
        }
        self.plan.why = format!("making {name}");
        self.plan.actions.push(self.new_job(&name, time, zone));
        self.status.last_schedule_time = Some(Time(time));
    }

    fn new_job(&self, name: &str, time: Timestamp, zone: &TimeZone) -> Action {
        let template = self.spec.job_template.metadata.as_ref();
        let local = time.to_zoned(zone.clone());
        let local = if local.offset().is_zero() {
            time.to_string()
        } else {
            local.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string()
        };
        let mut annotations = template.and_then(|m| m.annotations.clone()).unwrap_or_default();
        annotations.insert(SCHEDULED.into(), local);
        let mut metadata = json!({
            "name": name, "annotations": annotations,
            "ownerReferences": [meta::controller_ref("batch/v1", "CronJob", &self.cron.metadata)],
        });
        if let (Some(labels), Some(metadata)) = (template.and_then(|m| m.labels.as_ref()), metadata.as_object_mut()) {
            metadata.insert("labels".into(), json!(labels));
        }
        let spec = self.spec.job_template.spec.as_ref().map(meta::value).unwrap_or(Value::Null);
        Action::Create {
            target: Target::new(meta::v1("batch", "jobs"), text(&self.cron.metadata.namespace), name),
            object: json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata, "spec": spec}),
        }
    }
}

/// A Job as the list of active ones names it.
fn reference(job: &Job) -> ObjectReference {
    let meta = &job.metadata;
    ObjectReference {
        api_version: Some("batch/v1".into()),
        kind: Some("Job".into()),
        namespace: meta.namespace.clone(),
        name: meta.name.clone(),
        uid: meta.uid.clone(),
        resource_version: meta.resource_version.clone(),
        field_path: None,
    }
}

/// The first time after `after` of a schedule that was last kept at `last`, which must not be later than `after`.
fn next(schedule: &Schedule, zone: &TimeZone, last: Timestamp, after: Timestamp) -> Option<Timestamp> {
    let Schedule::Every(delay) = schedule else { return schedule.next(after, zone) };
    let delay = delay.as_secs().max(1);
    let passed = (after.as_second() - last.as_second()).div_euclid(delay);
    Timestamp::from_second(last.as_second().checked_add(delay.checked_mul(passed.checked_add(1)?)?)?).ok()
}

/// Times of a schedule that have passed.
#[derive(Debug, PartialEq, Eq)]
struct Passed {
    latest: Timestamp,
    /// How many there were, by the distance of the first two.
    count: i64,
}

impl Passed {
    /// The times after `earliest` up to `now`, of a schedule that was last kept at `last`; `None` if there are none.
    fn between(
        schedule: &Schedule,
        zone: &TimeZone,
        last: Timestamp,
        earliest: Timestamp,
        now: Timestamp,
    ) -> Result<Option<Self>, &'static str> {
        let Some(first) = next(schedule, zone, last, earliest) else {
            return Err("time difference between two schedules is less than 1 second");
        };
        if now < first {
            return Ok(None);
        }
        let Some(second) = next(schedule, zone, first, first).filter(|second| *second <= now) else {
            return Ok(Some(Self { latest: first, count: 1 }));
        };
        let apart = (second.as_second() - first.as_second()).max(1);
        let count = (now.as_second() - first.as_second()) / apart + 1;
        let latest = match schedule {
            Schedule::Every(_) => Timestamp::from_second(first.as_second() + (count - 1) * apart).unwrap_or(first),
            Schedule::Fields(_) => {
                // There is a time after `before`, and none after `after`.
                let (mut before, mut after) = (first.as_second(), now.as_second());
                let next =
                    |second: i64| schedule.next(Timestamp::from_second(second).ok()?, zone).filter(|t| *t <= now);
                while after - before > 1 {
                    let middle = before + (after - before) / 2;
                    if next(middle).is_some() {
                        before = middle;
                    } else {
                        after = middle;
                    }
                }
                next(before).unwrap_or(second)
            }
        };
        Ok(Some(Self { latest, count }))
    }
}

#[cfg(test)]
#[path = "cronjob_tests.rs"]
mod tests;
