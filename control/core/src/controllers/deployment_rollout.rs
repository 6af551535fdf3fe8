//! How many replicas each of a Deployment's ReplicaSets gets: rolling update, proportional scaling, history.

use k8s_openapi::api::apps::v1::Deployment;

use super::deployment::{ANNOTATION_MAX, View, desired, revision};
use super::meta;

/// Pods beyond the desired count that a rolling update may add; 0 under Recreate.
pub(super) fn max_surge(deployment: &Deployment) -> i32 {
    bounds(deployment).0
}

/// Pods below the desired count that a rolling update may lack.
pub(super) fn max_unavailable(deployment: &Deployment) -> i32 {
    bounds(deployment).1
}

/// (surge, unavailable): percentages of surge round up, of unavailability down; both 0 would never move, so then one
/// pod may be unavailable.
fn bounds(deployment: &Deployment) -> (i32, i32) {
    let strategy = deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
        return (0, 0);
    }
    let rolling = strategy.and_then(|s| s.rolling_update.as_ref());
    let total = desired(deployment);
    let quarter = k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::String("25%".into());
    let surge = meta::scaled(rolling.and_then(|r| r.max_surge.as_ref()).or(Some(&quarter)), total, true).max(0);
    let lack = meta::scaled(rolling.and_then(|r| r.max_unavailable.as_ref()).or(Some(&quarter)), total, false).max(0);
    if surge == 0 && lack == 0 { (0, 1) } else { (surge, lack.min(total)) }
}

/// How many replicas the new set should have now: as many as surge allows, up to the desired.
pub(super) fn new_replicas(view: &View<'_>) -> i32 {
    let wanted = desired(view.deployment);
    let strategy = view.deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
        return wanted;
    }
    let have = view.new.as_ref().map_or(0, |n| n.replicas);
    let total: i32 = view.all().map(|s| s.replicas).sum();
    let room = wanted.saturating_add(max_surge(view.deployment)) - total;
    if room <= 0 { have } else { have + room.min(wanted - have) }
}

/// One step of a rolling update: the new set up; if it need not move, the old sets down.
pub(super) fn roll(view: &mut View<'_>) {
    let wanted = desired(view.deployment);
    let have = view.new.as_ref().map_or(0, |n| n.replicas);
    let target = if have > wanted { wanted } else { new_replicas(view) };
    if target != have {
        view.resize_new(target);
        return;
    }
    shrink_old(view);
}

fn shrink_old(view: &mut View<'_>) {
    let wanted = desired(view.deployment);
    if view.old.iter().all(|s| s.replicas == 0) {
        return;
    }
    let least = wanted - max_unavailable(view.deployment);
    let total: i32 = view.all().map(|s| s.replicas).sum();
    let new_lacks = view.new.as_ref().map_or(0, |n| (n.replicas - n.available()).max(0));
    let mut budget = total - least - new_lacks;
    if budget <= 0 {
        return;
    }
    // Pods that do not serve go first: they cost no availability.
    let mut sizes: Vec<i32> = view.old.iter().map(|s| s.replicas).collect();
    for (size, old) in sizes.iter_mut().zip(&view.old) {
        let useless = (*size - old.available()).clamp(0, budget);
        *size -= useless;
        budget -= useless;
    }
    let available: i32 = view.all().map(|s| s.available()).sum();
    let mut spare = (available - least).max(0);
    for size in &mut sizes {
        let less = (*size).min(spare);
        *size -= less;
        spare -= less;
    }
    apply(view, &sizes);
}

fn apply(view: &mut View<'_>, sizes: &[i32]) {
    for (at, size) in sizes.iter().enumerate() {
        if view.old.get(at).is_some_and(|s| s.replicas != *size) {
            view.resize_old(at, *size);
        }
    }
}

/// After the Deployment's replicas changed, or while it is paused: the one active set gets them all; in the middle of
/// a rollout each active set gets its share.
pub(super) fn scale(view: &mut View<'_>) {
    let wanted = desired(view.deployment);
    let active: Vec<usize> =
        (0..view.old.len()).filter(|at| view.old.get(*at).is_some_and(|s| s.replicas > 0)).collect();
    let new_active = view.new.as_ref().is_some_and(|n| n.replicas > 0);
    match (new_active, active.as_slice()) {
        (true, []) => return view.resize_new(wanted),
        (false, [only]) => return view.resize_old(*only, wanted),
        (false, []) if view.new.is_some() => return view.resize_new(wanted),
        (false, []) => {
            if let Some(latest) = view.old.len().checked_sub(1) {
                view.resize_old(latest, wanted);
            }
            return;
        }
        _ => {}
    }
    // The new set is complete: what is left of the old ones goes.
    if view.new.as_ref().is_some_and(|n| n.replicas == wanted && n.available() == wanted) {
        for at in active {
            view.resize_old(at, 0);
        }
        view.resize_new(wanted);
        return;
    }
    let strategy = view.deployment.spec.as_ref().and_then(|s| s.strategy.as_ref());
    if strategy.and_then(|s| s.type_.as_deref()) == Some("Recreate") {
        return;
    }
    proportionally(view, &active);
}

/// Shares the change out by the sets' sizes; what rounding leaves goes to the largest.
fn proportionally(view: &mut View<'_>, active: &[usize]) {
    let wanted = desired(view.deployment);
    let allowed = if wanted > 0 { wanted.saturating_add(max_surge(view.deployment)) } else { 0 };
    let fallback = view.deployment.status.as_ref().and_then(|s| s.replicas).unwrap_or(0);
    // (index of an old set, or none for the new one; replicas; noted maximum)
    let mut sets: Vec<(Option<usize>, i32, i32)> = Vec::new();
    let noted = |set: &k8s_openapi::api::apps::v1::ReplicaSet| {
        let annotation = set.metadata.annotations.as_ref().and_then(|a| a.get(ANNOTATION_MAX));
        annotation.and_then(|a| a.parse().ok()).unwrap_or(fallback)
    };
    for at in active {
        if let Some(old) = view.old.get(*at) {
            sets.push((Some(*at), old.replicas, noted(&old.set)));
        }
    }
    if let Some(new) = view.new.as_ref().filter(|n| n.replicas > 0) {
        sets.push((None, new.replicas, noted(&new.set)));
    }
    let total: i32 = sets.iter().map(|(_, replicas, _)| replicas).sum();
    let change = allowed - total;
    // Growing, newer sets go first; shrinking, older ones. Both after size.
    if change > 0 {
        sets.reverse();
    }
    sets.sort_by_key(|(_, replicas, _)| std::cmp::Reverse(*replicas));
    let mut given = 0;
    let mut sizes: Vec<(Option<usize>, i32)> = Vec::new();
    for (at, replicas, noted) in &sets {
        let share = if wanted == 0 {
            -replicas
        } else if *noted <= 0 {
            0
        } else {
            let exact = f64::from(*replicas) * f64::from(allowed) / f64::from(*noted);
            #[expect(clippy::cast_possible_truncation, reason = "rounded, and within twice the replicas")]
            let rounded = exact.round() as i32;
            rounded - replicas
        };
        let rest = change - given;
        let share = match change.signum() {
            1 => share.clamp(0, rest.max(0)),
            -1 => share.clamp(rest.min(0), 0),
            _ => 0,
        };
        given += share;
        sizes.push((*at, replicas + share));
    }
    if let Some((_, first)) = sizes.first_mut() {
        *first = (*first + change - given).max(0);
    }
    for (at, size) in sizes {
        match at {
            Some(at) => view.resize_old(at, size),
            None => view.resize_new(size),
        }
    }
}

/// Deletes the oldest empty old sets beyond `revisionHistoryLimit`.
pub(super) fn cleanup(view: &mut View<'_>) {
    let limit = view.deployment.spec.as_ref().and_then(|s| s.revision_history_limit).unwrap_or(10);
    let Ok(limit) = usize::try_from(limit) else { return };
    let alive = |at: &usize| view.old.get(*at).is_some_and(|s| s.set.metadata.deletion_timestamp.is_none());
    let mut candidates: Vec<usize> = (0..view.old.len()).filter(alive).collect();
    let excess = candidates.len().saturating_sub(limit);
    candidates.sort_by_key(|at| view.old.get(*at).map(|s| revision(&s.set)));
    for at in candidates.into_iter().take(excess) {
        let idle = view.old.get(at).is_some_and(|s| {
            let status = s.set.status.as_ref();
            s.replicas == 0
                && status.map_or(0, |st| st.replicas) == 0
                && status.and_then(|st| st.observed_generation) >= s.set.metadata.generation
        });
        if idle {
            view.delete_old(at);
        }
    }
}
