//! What a pass does to a Job's pods.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;

use super::job::{MAX_BURST, size};
use super::job_pods::{self as pods, NewIndex, index_of, is_tracked};
use super::job_view::View;
use super::pod;

/// What a pass does to pods.
#[derive(Default)]
pub(super) struct Work {
    /// Counted, or not to be counted.
    pub release: Vec<Arc<Pod>>,
    /// To go. Pods that are too many are let go first, and deleted in the next pass, so that they are not failures.
    pub delete: Vec<Arc<Pod>>,
    pub create: Vec<Option<NewIndex>>,
    /// Until more may be created.
    pub wait: Option<Duration>,
}

impl View<'_> {
    /// How the Job ends: no pod is left to run.
    pub fn wind_down(&self) -> Work {
        Work {
            release: self.releasable().take(MAX_BURST).cloned().collect(),
            delete: self.strays().chain(self.active()).take(MAX_BURST).cloned().collect(),
            ..Work::default()
        }
    }

    /// Keeps as many pods running as there shall be.
    pub fn manage(&self, may_create: bool) -> Work {
        let mut work = Work {
            release: self.releasable().take(MAX_BURST).cloned().collect(),
            delete: self.strays().take(MAX_BURST).cloned().collect(),
            ..Work::default()
        };
        let active = self.active().count();
        let wanted = self.wanted(active);
        let surplus = self.surplus(active.saturating_sub(wanted));
        if !surplus.is_empty() {
            work.release.extend(surplus.into_iter().take(MAX_BURST));
            return work;
        }
        let terminating = if self.replaces_failed_only() { self.terminating().count() } else { 0 };
        let missing = wanted.saturating_sub(active + terminating).min(MAX_BURST);
        if !may_create || missing == 0 {
            return work;
        }
        if self.spec.backoff_limit_per_index.is_none() {
            work.wait = self.backoff();
            if work.wait.is_some() {
                return work;
            }
        }
        if self.is_indexed() {
            (work.create, work.wait) = self.new_indexes(missing);
        } else {
            work.create = vec![None; missing];
        }
        work
    }

    /// How many pods shall be active.
    fn wanted(&self, active: usize) -> usize {
        if self.is_suspended() {
            return 0;
        }
        let parallelism = self.spec.parallelism.unwrap_or(1);
        let wanted = match self.spec.completions {
            // Once one has succeeded, the others are left to end.
            None if self.successes() > 0 => return active,
            None => parallelism,
            Some(completions) => completions.saturating_sub(self.successes()).min(parallelism),
        };
        usize::try_from(wanted).unwrap_or(0)
    }

    /// Active pods that are too many: those without a place, those of an index that another has, and then others until
    /// they are `at_least` so many.
    fn surplus(&self, at_least: usize) -> Vec<Arc<Pod>> {
        if at_least == 0 && !self.is_indexed() {
            return Vec::new();
        }
        let mut active: Vec<Arc<Pod>> = self.active().cloned().collect();
        active.sort_by_cached_key(|p| pods::removal_order(p));
        let mut rest = active;
        let mut surplus = Vec::new();
        if self.is_indexed() {
            let mut seen = HashSet::new();
            // The most valuable of an index stays.
            let (kept, doubled): (Vec<_>, Vec<_>) = rest.into_iter().rev().partition(|p| {
                self.has_place(p) && index_of(p).is_some_and(|index| !self.succeeded.has(index) && seen.insert(index))
            });
            surplus = doubled;
            rest = kept.into_iter().rev().collect();
        }
        let more = at_least.saturating_sub(surplus.len());
        surplus.extend(rest.into_iter().take(more));
        surplus
    }

    /// The wait because pods failed one after the other; `None` if it is over.
    fn backoff(&self) -> Option<Duration> {
        let success = self.pods.iter().filter(|p| self.has_succeeded(p)).filter_map(|p| pods::ended_at(p)).max();
        // Pods that were let go and then deleted were too many, and did not fail.
        let failed = self.pods.iter().filter(|p| self.has_failed(p) && (is_tracked(p) || !pod::terminating(p)));
        let ends = failed.filter_map(|p| pods::ended_at(p)).filter(|end| success.is_none_or(|s| *end > s));
        let (count, last) = ends.fold((0_usize, None), |(count, last), end| (count + 1, last.max(Some(end))));
        pods::backoff(size(count), last, self.now)
    }

    /// The next indexes to run, and how long to wait for others that failed lately.
    fn new_indexes(&self, count: usize) -> (Vec<Option<NewIndex>>, Option<Duration>) {
        let mut taken = self.succeeded.clone();
        taken.extend(self.active().filter_map(|p| index_of(p)));
        if self.replaces_failed_only() {
            taken.extend(self.terminating().filter_map(|p| index_of(p)));
        }
        if let Some(failed) = &self.failed {
            taken.merge(failed);
        }
        let (mut new, mut wait): (Vec<Option<NewIndex>>, Option<Duration>) = (Vec::new(), None);
        for index in taken.missing(self.completions()) {
            if new.len() >= count {
                break;
            }
            let held = self.held.get(&index);
            let (counted, ignored) = held.map(|p| pods::index_failures(p)).unwrap_or_default();
            let failures = held.map_or(0, |_| counted.saturating_add(ignored).saturating_add(1));
            let left = pods::backoff(failures, held.and_then(|p| pods::ended_at(p)), self.now);
            if let Some(left) = left {
                wait = Some(wait.map_or(left, |wait: Duration| wait.min(left)));
                continue;
            }
            let failures = self.failed.is_some().then(|| match held {
                None => (0, 0),
                Some(p) if pods::judge(self.spec, p).ignored => (counted, ignored.saturating_add(1)),
                Some(_) => (counted.saturating_add(1), ignored),
            });
            new.push(Some(NewIndex { index, failures }));
        }
        (new, wait)
    }
}
