//! How fast pods that end where they should go on are replaced: at once for the first time, then ever more slowly.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

/// The wait after the first replacement; it doubles with each further one.
pub const FIRST: Duration = Duration::from_secs(1);
/// The longest wait. What was not replaced for twice this time starts anew.
pub const LONGEST: Duration = Duration::from_secs(900);

/// What was replaced lately, of one workload, by place: a node's name or an ordinal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backoff {
    places: BTreeMap<String, Replaced>,
    generation: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Replaced {
    last: Timestamp,
    delay: Duration,
}

impl Backoff {
    /// Forgets everything when the workload's spec is another, since what failed may work now.
    pub fn observe(&mut self, generation: Option<i64>) {
        if self.generation != generation {
            *self = Self { places: BTreeMap::new(), generation };
        }
    }

    /// Notes a replacement at a place.
    ///
    /// # Errors
    /// How long it must wait, if it comes too soon after the last one there.
    pub fn replace(&mut self, place: &str, now: Timestamp) -> Result<(), Duration> {
        let since = |r: &Replaced| Duration::try_from(now.duration_since(r.last)).unwrap_or_default();
        self.places.retain(|_, r| since(r) < LONGEST * 2);
        let delay = match self.places.get(place) {
            None => FIRST,
            Some(r) if since(r) < r.delay => return Err(r.delay.saturating_sub(since(r))),
            Some(r) => (r.delay * 2).min(LONGEST),
        };
        self.places.insert(place.into(), Replaced { last: now, delay });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::at;
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_end() {
        let mut backoff = Backoff::default();
        let mut when = 0;
        let mut waits = Vec::new();
        for _ in 0..13 {
            assert_eq!(backoff.replace("n1", at(when)), Ok(()));
            let wait = backoff.replace("n1", at(when)).unwrap_err().as_secs();
            waits.push(wait);
            when += i64::try_from(wait).unwrap();
        }
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900, 900, 900]);
        assert_eq!(backoff.replace("n2", at(when)), Ok(()), "places are apart");
        assert_eq!(backoff.replace("n1", at(when + 1800)), Ok(()));
        assert_eq!(backoff.replace("n1", at(when + 1800)), Err(FIRST), "forgotten");
        backoff.observe(Some(2));
        assert_eq!(backoff.replace("n1", at(when + 1800)), Ok(()), "another spec");
    }
}
