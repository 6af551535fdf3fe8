//! CronJob.

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{at, non_negative, one_of};
use super::value::{child, flag, list, set, set_default, set_default_nonzero, text};
use super::workload::{wide_cells, wide_columns};
use super::{in_all, job, job_validation, names, with_status};
use crate::cron::{Schedule, time_zone};
use crate::resource::{Resource, Scope, Strategy};
use crate::table::{self, Column};
use crate::validate::{Check, dns1123_subdomain, report};

/// Longest name in bytes: jobs are named after it with a suffix of 11.
const MAX_NAME_BYTES: usize = 52;

/// CronJobs.
pub fn resource() -> Option<Resource> {
    let names = in_all(names("batch/v1", "cronjobs", "CronJob", &["cj"], Scope::Namespaced));
    super::built_in(names, with_status(), CronJob)
}

struct CronJob;

impl Strategy for CronJob {
    fn default(&self, object: &mut Value) {
        let Some(spec) = child(object, "spec") else { return };
        set_default_nonzero(spec, "concurrencyPolicy", "Allow");
        set_default(spec, "suspend", false);
        set_default(spec, "successfulJobsHistoryLimit", 3);
        set_default(spec, "failedJobsHistoryLimit", 1);
        if let Some(job) = child(spec, "jobTemplate").and_then(|t| child(t, "spec")) {
            job::template_defaults(job);
        }
    }
    fn prepare_create(&self, object: &mut Value) {
        set(object, "status", json!({}));
    }
    fn validate(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let schedule = at(object, "spec.schedule");
        match schedule.as_str().unwrap_or_default() {
            "" => errors.push(FieldError::required("spec.schedule", "")),
            text => report(&mut errors, "spec.schedule", schedule, Schedule::parse(text).map(drop)),
        }
        let spec = at(object, "spec");
        non_negative(&mut errors, spec, "spec", &["startingDeadlineSeconds"]);
        let zone = at(spec, "timeZone");
        if let Some(name) = zone.as_str() {
            report(&mut errors, "spec.timeZone", zone, time_zone(name).map(drop));
        }
        one_of(&mut errors, spec, "spec", "concurrencyPolicy", &["Allow", "Forbid", "Replace"]);
        errors.extend(job_validation::template(at(spec, "jobTemplate"), "spec.jobTemplate"));
        non_negative(&mut errors, spec, "spec", &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"]);
        if text(spec, "/schedule").contains("TZ") {
            let message = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead";
            errors.push(FieldError::invalid("spec.schedule", schedule, message));
        }
        errors
    }
    fn columns(&self) -> Vec<Column> {
        let mut columns = vec![
            Column::name(),
            Column::new("Schedule", "string", "When jobs are made."),
            Column::new("Timezone", "string", "The time zone of the schedule."),
            Column::new("Suspend", "boolean", "Whether no further jobs are made."),
            Column::new("Active", "integer", "Jobs that run now."),
            Column::new("Last Schedule", "string", "Time since a job was last made."),
            Column::age(),
        ];
        columns.extend(wide_columns());
        columns
    }
    fn cells(&self, object: &Value, now: i64) -> Vec<Value> {
        let last = text(object, "/status/lastScheduleTime");
        let mut cells = vec![
            table::name(object),
            json!(text(object, "/spec/schedule")),
            json!(at(object, "spec.timeZone").as_str().unwrap_or("<none>")),
            json!(if flag(object, "/spec/suspend") { "True" } else { "False" }),
            json!(list(object, "/status/active").len()),
            json!(if last.is_empty() { "<none>".into() } else { table::since(last, now) }),
            table::age(object, now),
        ];
        cells.extend(wide_cells(at(object, "spec.jobTemplate.spec")));
        cells
    }
    fn validate_name(&self, name: &str) -> Check {
        dns1123_subdomain(name)?;
        if name.len() > MAX_NAME_BYTES {
            Err(format!("must be no more than {MAX_NAME_BYTES} characters"))
        } else {
            Ok(())
        }
    }
}
