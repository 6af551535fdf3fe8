//! The grammar of a CronJob's schedule: five fields (minute, hour, day of month, month, day of week) or a descriptor
//! such as `@daily` or `@every 1h30m`. Messages are those that upstream's clients know.

const DESCRIPTORS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
const MONTHS: [&str; 12] = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// Units of a duration, longest first where one starts like another.
const UNITS: [&str; 8] = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];

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

/// Checks a schedule.
///
/// # Errors
/// The first rule that it breaks.
pub(super) fn check(schedule: &str) -> Result<(), String> {
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
    let given: Vec<&str> = schedule.split_whitespace().collect();
    if given.len() != FIELDS.len() {
        return Err(expected_fields(schedule));
    }
    given.iter().zip(&FIELDS).try_for_each(|(text, field)| text.split(',').try_for_each(|part| range(part, field)))
}

fn expected_fields(schedule: &str) -> String {
    let given: Vec<&str> = schedule.split_whitespace().collect();
    format!("expected exactly 5 fields, found {}: [{}]", given.len(), given.join(" "))
}

fn descriptor(schedule: &str) -> Result<(), String> {
    if DESCRIPTORS.contains(&schedule) {
        return Ok(());
    }
    match schedule.strip_prefix("@every ") {
        Some(duration) if is_duration(duration) => Ok(()),
        Some(duration) => Err(format!("failed to parse duration {schedule}: time: invalid duration {duration:?}")),
        None => Err(format!("unrecognized descriptor: {schedule}")),
    }
}

/// A Go duration: `1h30m`, `-2.5s`, `0`.
fn is_duration(text: &str) -> bool {
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return true;
    }
    let complete = !rest.is_empty();
    while !rest.is_empty() {
        let number = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.').len();
        let (digits, tail) = rest.split_at(number);
        let well_formed = digits.bytes().any(|b| b.is_ascii_digit()) && digits.matches('.').count() <= 1;
        let Some(tail) = UNITS.iter().find_map(|unit| tail.strip_prefix(unit)).filter(|_| well_formed) else {
            return false;
        };
        rest = tail;
    }
    complete
}

/// One part of a field's list: `*`, `5`, `1-5`, `*/15`, `1-30/2`, `mon`.
fn range(part: &str, field: &Field) -> Result<(), String> {
    let (span, step) = match part.split('/').collect::<Vec<_>>().as_slice() {
        [span] => (*span, None),
        [span, step] => (*span, Some(*step)),
        _ => return Err(format!("too many slashes: {part}")),
    };
    let (mut from, mut to) = (field.min, field.max);
    match span.split('-').collect::<Vec<_>>().as_slice() {
        ["*" | "?"] | ["*" | "?", _] => {}
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
        Err(format!("beginning of range ({from}) below minimum ({min}): {part}"))
    } else if to > max {
        Err(format!("end of range ({to}) above maximum ({max}): {part}"))
    } else if from > to {
        Err(format!("beginning of range ({from}) beyond end of range ({to}): {part}"))
    } else if step == 0 {
        Err(format!("step of range should be a positive number: {part}"))
    } else {
        Ok(())
    }
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

/// Checks that a time zone is one of the IANA database's, by the copy that is built in.
///
/// # Errors
/// The rule that it breaks.
pub(super) fn check_time_zone(zone: &str) -> Result<(), String> {
    if zone.is_empty() {
        return Err("timeZone must be nil or non-empty string".into());
    }
    if zone.eq_ignore_ascii_case("local") {
        return Err("timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones".into());
    }
    match jiff::tz::TimeZoneDatabase::bundled().get(zone) {
        Ok(_) => Ok(()),
        Err(_) => Err(format!("unknown time zone {zone}")),
    }
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
        ] {
            match check(schedule) {
                Ok(()) => assert_eq!(expected, "", "{schedule:?} passed"),
                Err(e) => assert!(!expected.is_empty() && e.starts_with(expected), "{schedule:?}: {e}"),
            }
        }
    }

    #[test]
    fn time_zones() {
        for zone in ["UTC", "Europe/Berlin", "America/Argentina/Ushuaia", "Etc/GMT+5"] {
            assert_eq!(check_time_zone(zone), Ok(()), "{zone}");
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
            assert!(check_time_zone(zone).unwrap_err().starts_with(expected), "{zone}");
        }
    }
}
