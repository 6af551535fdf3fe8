//! Cron schedules: five fields (minute, hour, day of month, month, day of week) or a descriptor such as `@daily` or
//! `@every 1h30m`. Messages are those that upstream's clients know.
//!
//! A schedule of fields fires at each minute whose local time matches: a time that a change of the clocks leaves out
//! does not fire, one that comes twice fires twice.

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// Descriptors and the fields that they stand for.
const DESCRIPTORS: [(&str, &str); 7] = [
    ("@yearly", "0 0 1 1 *"),
    ("@annually", "0 0 1 1 *"),
    ("@monthly", "0 0 1 * *"),
    ("@weekly", "0 0 * * 0"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@hourly", "0 * * * *"),
];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Units of a duration and their nanoseconds, longest first where one starts like another.
const UNITS: [(&str, f64); 8] =
    [("ns", 1.0), ("us", 1e3), ("µs", 1e3), ("μs", 1e3), ("ms", 1e6), ("s", 1e9), ("m", 60e9), ("h", 3600e9)];
/// A schedule that does not fire within this many calendar years never does.
const HORIZON_YEARS: i16 = 5;

/// When something happens again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Schedule {
    /// At matching local times.
    Fields(Fields),
    /// Whole seconds apart, at least one.
    Every(SignedDuration),
}

/// The values of each field, a bit each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fields {
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    weekdays: u64,
    /// A day must match both its fields, as one of them is `*`; else one is enough.
    both_days: bool,
}

/// One of the five fields.
struct Field {
    min: u32,
    max: u32,
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field { min: 0, max: 59, names: &[] },
    Field { min: 0, max: 23, names: &[] },
    Field { min: 1, max: 31, names: &[] },
    Field { min: 1, max: 12, names: &MONTHS },
    Field { min: 0, max: 6, names: &DAYS },
];

impl Schedule {
    /// Reads a schedule. A leading `TZ=` or `CRON_TZ=` is skipped: zones are given beside the schedule.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn parse(schedule: &str) -> Result<Self, String> {
        let mut schedule = schedule;
        if schedule.starts_with("TZ=") || schedule.starts_with("CRON_TZ=") {
            let (_, rest) = schedule.split_once(' ').ok_or_else(|| expected_fields(""))?;
            schedule = rest.trim();
        }
        if schedule.is_empty() {
            return Err("empty spec string".into());
        }
        if schedule.starts_with('@') {
            return descriptor(schedule);
        }
        fields(schedule).map(Self::Fields)
    }

    /// The first time after `after`, in local time of `zone`; `None` if there is none in the next five years.
    pub fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let second = Timestamp::from_second(after.as_second()).ok()?;
        match self {
            Self::Every(delay) => second.checked_add(*delay).ok(),
            Self::Fields(fields) => fields.next(second, zone),
        }
    }
}

impl Fields {
    fn next(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let minute = after.as_second().div_euclid(60).checked_add(1)?;
        let mut at = Timestamp::from_second(minute.checked_mul(60)?).ok()?;
        let last_year = at.to_zoned(zone.clone()).year().saturating_add(HORIZON_YEARS);
        loop {
            let local = at.to_zoned(zone.clone());
            if local.year() > last_year {
                return None;
            }
            let has = |bits: u64, value: i8| bits & (1 << value.clamp(0, 63)) != 0;
            let (day, weekday) =
                (has(self.days, local.day()), has(self.weekdays, local.weekday().to_sunday_zero_offset()));
            let day_matches = if self.both_days { day && weekday } else { day || weekday };
            // The start of the next span of local time that may match.
            let next = if !has(self.months, local.month()) {
                local.first_of_month().ok()?.checked_add(1.month()).ok()?.start_of_day().ok()?.timestamp()
            } else if !day_matches {
                local.tomorrow().ok()?.start_of_day().ok()?.timestamp()
            } else if !has(self.hours, local.hour()) {
                at.checked_add(SignedDuration::from_mins(60 - i64::from(local.minute()))).ok()?
            } else if !has(self.minutes, local.minute()) {
                at.checked_add(SignedDuration::from_mins(1)).ok()?
            } else {
                return Some(at);
            };
            // Where the clocks change in between, local time must be looked at again.
            let change = zone.following(at).next().map(|change| change.timestamp());
            let next = change.filter(|change| *change > at).map_or(next, |change| next.min(change));
            at = next.max(at.checked_add(SignedDuration::from_mins(1)).ok()?);
        }
    }
}

fn expected_fields(schedule: &str) -> String {
    let given: Vec<&str> = schedule.split_whitespace().collect();
    format!("expected exactly 5 fields, found {}: [{}]", given.len(), given.join(" "))
}

fn fields(schedule: &str) -> Result<Fields, String> {
    let given: Vec<&str> = schedule.split_whitespace().collect();
    let mut read = [(0_u64, false); 5];
    if given.len() != read.len() {
        return Err(expected_fields(schedule));
    }
    for ((text, field), (bits, star)) in given.iter().zip(&FIELDS).zip(&mut read) {
        for part in text.split(',') {
            let (more, any) = range(part, field)?;
            *bits |= more;
            *star |= any;
        }
    }
    let [(minutes, _), (hours, _), (days, any_day), (months, _), (weekdays, any_weekday)] = read;
    Ok(Fields { minutes, hours, days, months, weekdays, both_days: any_day || any_weekday })
}

fn descriptor(schedule: &str) -> Result<Schedule, String> {
    if let Some((_, stands_for)) = DESCRIPTORS.iter().find(|(name, _)| *name == schedule) {
        return fields(stands_for).map(Schedule::Fields);
    }
    match schedule.strip_prefix("@every ") {
        Some(text) => match duration(text) {
            Some(seconds) => Ok(Schedule::Every(SignedDuration::from_secs(seconds.max(1)))),
            None => Err(format!("failed to parse duration {schedule}: time: invalid duration {text:?}")),
        },
        None => Err(format!("unrecognized descriptor: {schedule}")),
    }
}

/// The whole seconds of a Go duration: `1h30m`, `-2.5s`, `0`.
fn duration(text: &str) -> Option<i64> {
    let (negative, mut rest) = (text.starts_with('-'), text.strip_prefix(['+', '-']).unwrap_or(text));
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanoseconds = 0.0_f64;
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (digits, tail) = rest.split_at(number);
        let well_formed = digits.bytes().any(|b| b.is_ascii_digit()) && digits.matches('.').count() <= 1;
        let unit = UNITS.iter().find_map(|(unit, size)| Some((tail.strip_prefix(unit)?, *size)));
        let (tail, size) = unit.filter(|_| well_formed)?;
        nanoseconds += digits.parse::<f64>().ok()? * size;
        rest = tail;
    }
    // Durations are counted in 63 bits of nanoseconds.
    if nanoseconds >= 9_223_372_036_854_775_807.0 {
        return None;
    }
    #[allow(clippy::cast_possible_truncation, reason = "in range as just checked; the fraction is to go")]
    let seconds = (nanoseconds / 1e9 + 1e-9) as i64;
    Some(if negative { -seconds } else { seconds })
}

/// One part of a field's list: `*`, `5`, `1-5`, `*/15`, `1-30/2`, `mon`. Returns its values, and whether it is every one.
fn range(part: &str, field: &Field) -> Result<(u64, bool), String> {
    let (span, step) = match part.split('/').collect::<Vec<_>>().as_slice() {
        [span] => (*span, None),
        [span, step] => (*span, Some(*step)),
        _ => return Err(format!("too many slashes: {part}")),
    };
    let (mut from, mut to, mut any) = (field.min, field.max, false);
    match span.split('-').collect::<Vec<_>>().as_slice() {
        ["*" | "?"] | ["*" | "?", _] => any = true,
        [one] => {
            from = number(one, field.names)?;
            to = if step.is_some() { field.max } else { from };
        }
        [first, last] => (from, to) = (number(first, field.names)?, number(last, field.names)?),
        _ => return Err(format!("too many hyphens: {part}")),
    }
    let step = step.map_or(Ok(1), |step| number(step, &[]))?;
    let (min, max) = (field.min, field.max);
    if from < min {
        return Err(format!("beginning of range ({from}) below minimum ({min}): {part}"));
    }
    if to > max {
        return Err(format!("end of range ({to}) above maximum ({max}): {part}"));
    }
    if from > to {
        return Err(format!("beginning of range ({from}) beyond end of range ({to}): {part}"));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    let step_by = usize::try_from(step).unwrap_or(usize::MAX);
    let bits = (from..=to).step_by(step_by).fold(0, |bits, value| bits | 1 << value.min(63));
    Ok((bits, any && step == 1))
}

/// A number, or its place among `names` (months from 1, days from 0).
fn number(text: &str, names: &[&str]) -> Result<u32, String> {
    let lower = text.to_lowercase();
    if let Some(place) = names.iter().position(|name| *name == lower) {
        let place = u32::try_from(place).unwrap_or(0);
        return Ok(if names.len() == MONTHS.len() { place + 1 } else { place });
    }
    match text.parse::<i64>() {
        Ok(n) if n < 0 => Err(format!("negative number ({n}) not allowed: {text}")),
        // What is beyond u32 is beyond every field.
        Ok(n) => Ok(u32::try_from(n).unwrap_or(u32::MAX)),
        Err(_) => Err(format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")),
    }
}

/// A time zone of the IANA database, by the copy that is built in.
///
/// # Errors
/// The rule that the name breaks.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    if name.is_empty() {
        return Err("timeZone must be nil or non-empty string".into());
    }
    if name.eq_ignore_ascii_case("local") {
        return Err("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".into());
    }
    jiff::tz::TimeZoneDatabase::bundled().get(name).map_err(|_| format!("unknown time zone {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for (schedule, expected) in [
            ("* * * * *", ""),
            ("*/15 0-6/2 1,15 jan-mar MON-fri", ""),
            ("5/10 ? 31 12 0", ""),
            ("@daily", ""),
            ("@every 1h30m", ""),
            ("@every 1.5s", ""),
            ("TZ=UTC 0 0 * * *", ""),
            ("", "empty spec string"),
            ("* * * *", "expected exactly 5 fields, found 4: [* * * *]"),
            ("hello", "expected exactly 5 fields, found 1: [hello]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("99999999999 * * * *", "end of range (4294967295) above maximum (59): 99999999999"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("5-1 * * * *", "beginning of range (5) beyond end of range (1): 5-1"),
            ("*/0 * * * *", "step of range should be a positive number: */0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            ("1/2/3 * * * *", "too many slashes: 1/2/3"),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax"),
            ("*,x * * * *", "failed to parse int from x"),
            ("@often", "unrecognized descriptor: @often"),
            ("@every 1", "failed to parse duration @every 1: time: invalid duration \"1\""),
            ("@every .s", "failed to parse duration"),
            ("@every 99999999999h", "failed to parse duration"),
        ] {
            match Schedule::parse(schedule) {
                Ok(_) => assert_eq!(expected, "", "{schedule:?} passed"),
                Err(e) => assert!(!expected.is_empty() && e.starts_with(expected), "{schedule:?}: {e}"),
            }
        }
    }

    #[test]
    fn time_zones() {
        for zone in ["UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "Etc/GMT+5"] {
            assert!(time_zone(zone).is_ok(), "{zone}");
        }
        for (zone, expected) in [
            ("", "timeZone must be nil or non-empty string"),
            ("local", "timeZone must be an explicit time zone"),
            ("../etc", "unknown time zone ../etc"),
            ("Europe//Berlin", "unknown time zone"),
            ("Narnia/Lion", "unknown time zone Narnia/Lion"),
            ("-x", "unknown time zone"),
            ("Europe/Berlin and more", "unknown time zone"),
        ] {
            assert!(time_zone(zone).unwrap_err().starts_with(expected), "{zone}");
        }
    }

    /// The times of a schedule after a time.
    fn times(schedule: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let (schedule, zone) = (Schedule::parse(schedule).unwrap(), time_zone(zone).unwrap());
        let mut at: Timestamp = after.parse().unwrap();
        let mut times = Vec::new();
        while times.len() < count {
            let Some(next) = schedule.next(at, &zone) else { break };
            times.push(next.to_string());
            at = next;
        }
        times
    }

    #[test]
    fn the_next_times() {
        let cases: [(&str, &str, &str, &[&str]); 19] = [
            ("* * * * *", "UTC", "2026-01-01T00:00:00Z", &["2026-01-01T00:01:00Z", "2026-01-01T00:02:00Z"]),
            ("* * * * *", "UTC", "2026-01-01T00:00:59.9Z", &["2026-01-01T00:01:00Z"]),
            ("*/20 9-17/4 * * *", "UTC", "2026-01-01T13:30:00Z", &["2026-01-01T13:40:00Z", "2026-01-01T17:00:00Z"]),
            ("59 23 31 12 *", "UTC", "2026-12-31T23:59:00Z", &["2027-12-31T23:59:00Z"]),
            ("0 0 29 2 *", "UTC", "2026-03-01T00:00:00Z", &["2028-02-29T00:00:00Z"]),
            ("0 0 31 2 *", "UTC", "2026-03-01T00:00:00Z", &[]),
            // Either day field is enough, unless one of them is every day.
            ("0 0 13 * fri", "UTC", "2026-11-12T12:00:00Z", &["2026-11-13T00:00:00Z", "2026-11-20T00:00:00Z"]),
            ("0 0 * * fri", "UTC", "2026-11-14T00:00:00Z", &["2026-11-20T00:00:00Z"]),
            ("0 0 */1 * fri", "UTC", "2026-11-14T00:00:00Z", &["2026-11-20T00:00:00Z"]),
            ("0 0 */2 * fri", "UTC", "2026-11-14T00:00:00Z", &["2026-11-15T00:00:00Z", "2026-11-17T00:00:00Z"]),
            ("@weekly", "UTC", "2026-11-21T00:00:00Z", &["2026-11-22T00:00:00Z"]),
            ("@every 1h30m", "UTC", "2026-11-21T00:10:00.5Z", &["2026-11-21T01:40:00Z", "2026-11-21T03:10:00Z"]),
            ("@every 1.5s", "UTC", "2026-11-21T00:10:00Z", &["2026-11-21T00:10:01Z"]),
            // A time that the clocks leave out does not come.
            ("30 2 * * *", "America/New_York", "2026-03-07T12:00:00Z", &["2026-03-09T06:30:00Z"]),
            (
                "0 * * * *",
                "America/New_York",
                "2026-03-08T06:30:00Z",
                &["2026-03-08T07:00:00Z", "2026-03-08T08:00:00Z"],
            ),
            // A time that they repeat comes twice.
            (
                "30 1 * * *",
                "America/New_York",
                "2026-11-01T00:00:00Z",
                &["2026-11-01T05:30:00Z", "2026-11-01T06:30:00Z", "2026-11-02T06:30:00Z"],
            ),
            // There is no midnight on this day: hours of it that exist do come.
            ("0 0 * * *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", &["2018-11-05T02:00:00Z"]),
            ("0 12 4 11 *", "America/Sao_Paulo", "2018-11-03T12:00:00Z", &["2018-11-04T14:00:00Z"]),
            // Clocks that change by half an hour.
            ("0 2 * * *", "Australia/Lord_Howe", "2026-10-02T16:00:00Z", &["2026-10-04T15:00:00Z"]),
        ];
        for (schedule, zone, after, expected) in cases {
            assert_eq!(times(schedule, zone, after, expected.len().max(1)), expected, "{schedule} {zone} {after}");
        }
    }
}
