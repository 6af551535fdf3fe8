//! Rules of a change of a job's status, by whichever controller: counters do not go back, an end is an end.
//! What did not change is not judged, so that a status that is wrong already, or became so by a change of the spec, can
//! still be put right step by step.

use std::collections::HashSet;

use copepod_api::FieldError;
use serde_json::{Value, json};

use super::fields::{at, non_negative, same};
use super::job_validation::count_indexes;
use super::value::{flag, has, int, list, strings, text};
use crate::controllers::job_indexes::Indexes;
use crate::table::epoch_seconds;

const COUNTS: [&str; 5] = ["active", "succeeded", "failed", "ready", "terminating"];
/// Conditions that hold for ever once they do, with what a message calls them.
const LASTING: [&str; 3] = ["Failed", "Complete", "FailureTarget"];
/// Conditions that exclude each other.
const EXCLUSIVE: [(&str, &str, &str); 4] = [
    ("Complete", "Failed", "cannot set Complete=True and Failed=true conditions"),
    ("Complete", "FailureTarget", "cannot set Complete=True and FailureTarget=true conditions"),
    ("SuccessCriteriaMet", "Failed", "cannot set SuccessCriteriaMet=True and Failed=true conditions"),
    ("SuccessCriteriaMet", "FailureTarget", "cannot set SuccessCriteriaMet=True and FailureTarget=true conditions"),
];
/// Conditions that need another first.
const ANNOUNCED: [(&str, &str, &str); 2] = [
    ("Failed", "FailureTarget", "cannot set Failed=True condition without the FailureTarget=true condition"),
    (
        "Complete",
        "SuccessCriteriaMet",
        "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
    ),
];

/// What is wrong with the change of a job's status.
pub(crate) fn change(new: &Value, old: &Value) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if same(at(new, "status"), at(old, "status")) {
        return errors;
    }
    let change = Change { new, old };
    non_negative(&mut errors, at(new, "status"), "status", &COUNTS);
    uncounted(&mut errors, new);
    change.conditions(&mut errors);
    change.counters(&mut errors);
    change.times(&mut errors);
    change.indexes(&mut errors);
    errors
}

struct Change<'a> {
    new: &'a Value,
    old: &'a Value,
}

impl Change<'_> {
    fn changed(&self, field: &str) -> bool {
        !same(self.status(field), at(self.old, &format!("status.{field}")))
    }
    fn status(&self, field: &str) -> &Value {
        at(self.new, &format!("status.{field}"))
    }
    fn count(&self, field: &str) -> i64 {
        self.status(field).as_i64().unwrap_or(0)
    }
    /// Whether a condition began or ceased to hold.
    fn turned(&self, type_: &str) -> bool {
        holds(self.new, type_) != holds(self.old, type_)
    }
    fn invalid(&self, errors: &mut Vec<FieldError>, field: &str, message: &str) {
        errors.push(FieldError::invalid(format!("status.{field}"), self.status(field), message));
    }

    fn conditions(&self, errors: &mut Vec<FieldError>) {
        for (one, other, message) in EXCLUSIVE {
            if holds(self.new, one) && holds(self.new, other) && (self.turned(one) || self.turned(other)) {
                errors.push(of_conditions(message));
            }
        }
        for (last, first, message) in ANNOUNCED {
            if holds(self.new, last) && !holds(self.new, first) && (self.turned(last) || self.turned(first)) {
                errors.push(of_conditions(message));
            }
        }
        for type_ in LASTING.iter().filter(|t| holds(self.old, t) && !holds(self.new, t)) {
            errors.push(of_conditions(&format!("cannot disable the terminal {type_}=True condition")));
        }
        let met = "SuccessCriteriaMet";
        if holds(self.old, met) && !holds(self.new, met) {
            errors.push(of_conditions("cannot disable the SuccessCriteriaMet=True condition"));
        }
        if holds(self.old, "Complete") && !holds(self.old, met) && holds(self.new, met) {
            let message = "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions";
            errors.push(of_conditions(message));
        }
    }

    fn counters(&self, errors: &mut Vec<FieldError>) {
        let indexed = text(self.new, "/spec/completionMode") == "Indexed";
        // The indexes of a job that became smaller are no longer counted.
        let elastic = indexed && at(self.new, "spec.completions") == at(self.new, "spec.parallelism");
        for (field, grows) in [("failed", true), ("succeeded", !elastic)] {
            let before = int(self.old, &format!("/status/{field}")).unwrap_or(0);
            if grows && self.count(field) < before {
                self.invalid(errors, field, &format!("cannot decrease the {field} counter"));
            }
        }
        if self.count("ready") > self.count("active") && (self.changed("ready") || self.changed("active")) {
            self.invalid(errors, "ready", "cannot set more ready pods than active");
        }
        let ends = finished(self.new) != finished(self.old);
        for field in ["active", "terminating"] {
            if finished(self.new) && self.count(field) > 0 && (ends || self.changed(field)) {
                self.invalid(errors, field, &format!("{field}>0 is invalid for finished job"));
            }
        }
        let field = "uncountedTerminatedPods";
        let named = ["succeeded", "failed"].map(|kind| list(self.new, &format!("/status/{field}/{kind}")).len());
        if finished(self.new) && named != [0, 0] && (ends || self.changed(field)) {
            self.invalid(errors, field, "uncountedTerminatedPods needs to be empty for finished job");
        }
    }

    fn times(&self, errors: &mut Vec<FieldError>) {
        let (start, end) = ("startTime", "completionTime");
        let [starts, ends] = [start, end].map(|field| self.changed(field));
        let [started, ended] = [start, end].map(|field| epoch_seconds(self.status(field).as_str().unwrap_or_default()));
        if finished(self.new) && started.is_none() && (starts || finished(self.old) != finished(self.new)) {
            errors.push(FieldError::required("status.startTime", "startTime is required for finished job"));
        }
        if starts && has(self.old, "/status/startTime") && !flag(self.new, "/spec/suspend") {
            errors.push(FieldError::required("status.startTime", "startTime cannot be removed for unsuspended job"));
        }
        let complete = holds(self.new, "Complete");
        if ends || self.turned("Complete") {
            if ended.is_some() && !complete {
                self.invalid(errors, end, "cannot set completionTime when there is no Complete=True condition");
            } else if ended.is_none() && complete {
                let message = "completionTime is required for Complete jobs";
                errors.push(FieldError::required("status.completionTime", message));
            }
        }
        if (starts || ends) && started.zip(ended).is_some_and(|(started, ended)| ended < started) {
            self.invalid(errors, end, "completionTime cannot be set before startTime");
        }
        if ends && ended.is_some() && has(self.old, "/status/completionTime") {
            self.invalid(errors, end, "completionTime cannot be mutated");
        }
    }

    fn indexes(&self, errors: &mut Vec<FieldError>) {
        let (done, lost) = ("completedIndexes", "failedIndexes");
        let completions = int(self.new, "/spec/completions");
        let per_index = has(self.new, "/spec/backoffLimitPerIndex");
        let given = |field: &str| self.status(field).as_str().unwrap_or_default();
        for (field, counted) in [(done, true), (lost, per_index)] {
            if let (true, true, Some(completions)) = (counted, self.changed(field), completions)
                && let Err(why) = count_indexes(given(field), completions)
            {
                self.invalid(errors, field, &format!("error parsing {field}: {why}"));
            }
        }
        if self.changed(done) && !given(done).is_empty() && text(self.new, "/spec/completionMode") != "Indexed" {
            self.invalid(errors, done, "cannot set non-empty completedIndexes when non-indexed completion mode");
        }
        if self.changed(lost) && !per_index && self.status(lost).is_string() {
            self.invalid(errors, lost, "cannot set non-null failedIndexes when backoffLimitPerIndex is null");
        }
        if (self.changed(done) || self.changed(lost))
            && let Some(completions) = completions.and_then(|n| i32::try_from(n).ok())
        {
            let [one, other] = [done, lost].map(|field| Indexes::parse(given(field), completions));
            if let Some(index) = one.first_common(&other) {
                self.invalid(errors, lost, &format!("failedIndexes and completedIndexes overlap at index: {index}"));
            }
        }
    }
}

/// No pod stands twice among those that are still to be counted.
fn uncounted(errors: &mut Vec<FieldError>, new: &Value) {
    let mut seen = HashSet::new();
    for kind in ["succeeded", "failed"] {
        for (i, uid) in strings(new, &format!("/status/uncountedTerminatedPods/{kind}")).enumerate() {
            let field = format!("status.uncountedTerminatedPods.{kind}[{i}]");
            if uid.is_empty() {
                errors.push(FieldError::invalid(field, &json!(uid), "must not be empty"));
            } else if !seen.insert(uid) {
                errors.push(FieldError::duplicate(field, &json!(uid)));
            }
        }
    }
}

/// A message about the conditions as a whole: it does not repeat them.
fn of_conditions(message: &str) -> FieldError {
    let message = format!("Invalid value: {message}");
    FieldError { field: "status.conditions".into(), reason: "FieldValueInvalid", message }
}

fn finished(job: &Value) -> bool {
    holds(job, "Complete") || holds(job, "Failed")
}

/// Whether a condition is True.
pub(super) fn holds(job: &Value, type_: &str) -> bool {
    list(job, "/status/conditions").iter().any(|c| text(c, "/type") == type_ && text(c, "/status") == "True")
}

#[cfg(test)]
#[path = "job_status_tests.rs"]
mod tests;
