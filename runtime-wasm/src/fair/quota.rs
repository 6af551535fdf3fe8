//! CPU quotas: so much time per period, debts carried over.

use std::time::Duration;

use super::queue::Time;

/// A CPU quota is counted over periods of this length, as Linux's CFS bandwidth control does.
pub const CPU_PERIOD: Duration = Duration::from_millis(100);

/// What one account may use in each period. Unused time is lost; what was used beyond it is owed by the next periods.
#[derive(Debug)]
pub(super) struct Quota {
    per_period: Duration,
    period_start: Time,
    used: Duration,
}

impl Quota {
    /// `millicores`: CPU time per second of wall time, in thousandths of a core; at least 1.
    pub(super) fn new(millicores: u64, now: Time) -> Quota {
        let nanos_per_millicore = CPU_PERIOD.as_nanos() as u64 / 1000;
        let per_period = Duration::from_nanos(nanos_per_millicore.saturating_mul(millicores.max(1)));
        Quota { per_period, period_start: now, used: Duration::ZERO }
    }

    /// Charges `spent`; the start of the period in which the account may run again if this one's quota is used up.
    pub(super) fn charge(&mut self, spent: Duration, now: Time) -> Option<Time> {
        let elapsed = now.saturating_sub(self.period_start);
        let periods = u32::try_from(elapsed.as_nanos() / CPU_PERIOD.as_nanos()).unwrap_or(u32::MAX);
        if periods > 0 {
            self.used = self.used.saturating_sub(self.per_period.saturating_mul(periods));
            self.period_start = self.period_start.saturating_add(CPU_PERIOD.saturating_mul(periods));
        }
        self.used = self.used.saturating_add(spent);
        if self.used < self.per_period {
            return None;
        }
        let owed = self.used.as_nanos() / self.per_period.as_nanos().max(1);
        let owed = CPU_PERIOD.saturating_mul(u32::try_from(owed).unwrap_or(u32::MAX));
        Some(self.period_start.saturating_add(owed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debts_are_paid_and_savings_are_not_kept() {
        let ms = Duration::from_millis;
        let start = ms(1000);
        let mut quota = Quota::new(100, start);
        for (spent, at, until) in [
            (4, 5, None),
            (6, 11, Some(100)),
            (25, 100, Some(300)),
            (0, 300, None),
            (4, 350, None),
            // Nine periods without use give no more than one period's worth.
            (9, 1200, None),
            (1, 1201, Some(1300)),
        ] {
            assert_eq!(
                quota.charge(ms(spent), start + ms(at)),
                until.map(|until| start + ms(until)),
                "{spent} at {at}"
            );
        }
    }

    #[test]
    fn more_than_one_core_and_nearly_none() {
        let ms = Duration::from_millis;
        assert_eq!(Quota::new(2500, ms(0)).charge(ms(249), ms(99)), None);
        assert_eq!(Quota::new(2500, ms(0)).charge(ms(250), ms(99)), Some(ms(100)));
        assert_eq!(Quota::new(0, ms(0)).charge(ms(1), ms(1)), Some(ms(1000)), "0 counts as a thousandth of a core");
        assert_eq!(Quota::new(u64::MAX, ms(0)).charge(ms(1000), ms(1)), None);
    }
}
