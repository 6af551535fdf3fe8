//! Resource quantities (`500m`, `1.5Gi`, `1e3`), exact to a nano-unit.
//! Grammar and canonical form: <https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/quantity/>.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Neg, Sub, SubAssign};
use std::str::FromStr;

/// Nano-units in a unit.
const NANO: i128 = 1_000_000_000;
/// The largest magnitude, 2^63 - 1 units; what is larger is capped, as upstream does.
const MAX: i128 = (i64::MAX as i128) * NANO;
/// Decimal digits before the point beyond which every number exceeds [`MAX`].
const MAX_INTEGER_DIGITS: usize = 19;
/// The longest text that is looked at.
const MAX_LEN: usize = 1024;

const WRONG_FORMAT: &str =
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
const WRONG_SUFFIX: &str = "unable to parse quantity's suffix";

/// How a quantity is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `m`, `k`, `M`: powers of 1000.
    #[default]
    DecimalSi,
    /// `Ki`, `Mi`: powers of 1024.
    BinarySi,
    /// `e3`, `E6`.
    DecimalExponent,
}

/// An exact amount of a resource. Compares by amount alone (`1024` equals `1Ki`); prints in the canonical form of the
/// format it was written in. Arithmetic saturates at 2^63 - 1 units; fractions below a nano-unit round away from zero.
#[derive(Debug, Clone, Copy, Default)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    /// Parses a quantity. The error is worded as upstream's.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LEN {
            return Err(WRONG_FORMAT.into());
        }
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, text.get(1..).unwrap_or_default()),
            Some(b'+') => (false, text.get(1..).unwrap_or_default()),
            _ => (false, text),
        };
        let number_end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(number_end);
        let (integer, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (integer.is_empty() && fraction.is_empty()) {
            return Err(WRONG_FORMAT.into());
        }
        let suffix = Suffix::parse(suffix)?;
        let nanos = scale(integer, fraction, suffix);
        let mut format = suffix.format();
        if format == Format::BinarySi && nanos > 0 && nanos < NANO {
            format = Format::DecimalSi;
        }
        Ok(Self { nanos: if negative { -nanos } else { nanos }, format })
    }

    /// Whole units, printed in decimal form.
    pub fn from_units(units: i64) -> Self {
        Self::capped(i128::from(units) * NANO, Format::DecimalSi)
    }
    /// Thousandths of a unit (millicores), printed in decimal form.
    pub fn from_milli(milli: i64) -> Self {
        Self::capped(i128::from(milli) * (NANO / 1000), Format::DecimalSi)
    }
    /// Thousand-millionths of a unit (nanocores), printed in decimal form.
    pub fn from_nano(nano: i64) -> Self {
        Self::capped(i128::from(nano), Format::DecimalSi)
    }
    /// Bytes, printed in binary form (`Ki`, `Mi`).
    pub fn from_bytes(bytes: u64) -> Self {
        Self::capped(i128::from(bytes) * NANO, Format::BinarySi)
    }

    /// Whole units, rounded away from zero.
    pub fn value(&self) -> i64 {
        round(self.nanos, NANO)
    }
    /// Thousandths, rounded away from zero; saturates.
    pub fn milli(&self) -> i64 {
        round(self.nanos, NANO / 1000)
    }
    /// Whole units rounded up; 0 if negative.
    pub fn as_bytes(&self) -> u64 {
        u64::try_from(self.value()).unwrap_or(0)
    }
    /// Whether the amount is zero.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }
    /// Whether the amount is below zero.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }
    /// How it is written.
    pub fn format(&self) -> Format {
        self.format
    }

    fn capped(nanos: i128, format: Format) -> Self {
        Self { nanos: nanos.clamp(-MAX, MAX), format }
    }
    /// The format of a sum: zero has none of its own.
    fn joint_format(&self, other: &Self) -> Format {
        if self.is_zero() { other.format } else { self.format }
    }
}

/// The factor after the number.
#[derive(Debug, Clone, Copy)]
enum Suffix {
    Si(i64),
    Binary(u32),
    Exponent(i64),
}

impl Suffix {
    fn parse(text: &str) -> Result<Self, &'static str> {
        Ok(match text {
            "n" => Self::Si(-9),
            "u" => Self::Si(-6),
            "m" => Self::Si(-3),
            "" => Self::Si(0),
            "k" => Self::Si(3),
            "M" => Self::Si(6),
            "G" => Self::Si(9),
            "T" => Self::Si(12),
            "P" => Self::Si(15),
            "E" => Self::Si(18),
            "Ki" => Self::Binary(10),
            "Mi" => Self::Binary(20),
            "Gi" => Self::Binary(30),
            "Ti" => Self::Binary(40),
            "Pi" => Self::Binary(50),
            "Ei" => Self::Binary(60),
            _ => return Self::exponent(text),
        })
    }

    /// `e3`, `E-6`; anything else is told apart as upstream's scanner does: a text that the expression does not match,
    /// or one that matches and means nothing.
    fn exponent(text: &str) -> Result<Self, &'static str> {
        if let Some(digits) = text.strip_prefix(['e', 'E']) {
            let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
            if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
                return digits.parse().map(Self::Exponent).map_err(|_| WRONG_SUFFIX);
            }
        }
        let rest = text.trim_start_matches(|c| "eEinumkKMGTP".contains(c));
        let rest = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        Err(if rest.bytes().all(|b| b.is_ascii_digit()) { WRONG_SUFFIX } else { WRONG_FORMAT })
    }

    fn format(self) -> Format {
        match self {
            Self::Si(_) => Format::DecimalSi,
            Self::Binary(_) => Format::BinarySi,
            Self::Exponent(_) => Format::DecimalExponent,
        }
    }
}

/// The magnitude in nano-units, exact, rounded up, capped at [`MAX`].
fn scale(integer: &str, fraction: &str, suffix: Suffix) -> i128 {
    let digits: Vec<u8> = integer.bytes().chain(fraction.bytes()).map(|b| b.wrapping_sub(b'0')).collect();
    let Some(first) = digits.iter().position(|d| *d != 0) else { return 0 };
    let digits = digits.get(first..).unwrap_or_default();
    // Where the decimal point stands in `digits`; decimal suffixes only move it.
    let mut point = i64::try_from(integer.len()).unwrap_or(i64::MAX) - i64::try_from(first).unwrap_or(i64::MAX);
    let unit = match suffix {
        Suffix::Si(e) | Suffix::Exponent(e) => {
            point = point.saturating_add(e);
            NANO
        }
        Suffix::Binary(bits) => NANO << bits,
    };
    if point > MAX_INTEGER_DIGITS as i64 {
        return MAX;
    }
    if point < -64 {
        return 1;
    }
    let lead = usize::try_from(-point).unwrap_or(0);
    let split = usize::try_from(point).unwrap_or(0);
    let mut whole: i128 = 0;
    for i in 0..split {
        whole = whole * 10 + i128::from(digits.get(i).copied().unwrap_or(0));
    }
    // The fraction from its last digit to its first: nested floors are exact, any remainder rounds up once at the end.
    let (mut part, mut inexact) = (0i128, false);
    let tail = digits.get(split.min(digits.len())..).unwrap_or_default();
    for digit in tail.iter().rev().chain(std::iter::repeat_n(&0, lead)) {
        let sum = part + i128::from(*digit) * unit;
        inexact |= sum % 10 != 0;
        part = sum / 10;
    }
    match whole.checked_mul(unit) {
        Some(n) => (n.saturating_add(part) + i128::from(inexact)).min(MAX),
        None => MAX,
    }
}

/// Divides, rounding away from zero.
fn round(nanos: i128, unit: i128) -> i64 {
    let up = if nanos % unit == 0 { 0 } else { nanos.signum() };
    let value = nanos / unit + up;
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const BINARY: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
        const DECIMAL: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        if self.is_zero() {
            return f.write_str("0");
        }
        if self.format == Format::BinarySi && self.nanos % NANO == 0 && self.nanos.abs() >= 1024 * NANO {
            let mut number = self.nanos / NANO;
            let mut step = 0;
            while number % 1024 == 0 && step + 1 < BINARY.len() {
                number /= 1024;
                step += 1;
            }
            return write!(f, "{number}{}", BINARY.get(step).unwrap_or(&""));
        }
        let mut number = self.nanos;
        let mut step = 0;
        while number % 1000 == 0 && step + 1 < DECIMAL.len() {
            number /= 1000;
            step += 1;
        }
        match (self.format, step as i64 * 3 - 9) {
            (Format::DecimalExponent, 0) => write!(f, "{number}"),
            (Format::DecimalExponent, exponent) => write!(f, "{number}e{exponent}"),
            _ => write!(f, "{number}{}", DECIMAL.get(step).unwrap_or(&"")),
        }
    }
}

impl FromStr for Quantity {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl TryFrom<&k8s_openapi::apimachinery::pkg::api::resource::Quantity> for Quantity {
    type Error = String;
    fn try_from(q: &k8s_openapi::apimachinery::pkg::api::resource::Quantity) -> Result<Self, String> {
        Self::parse(&q.0)
    }
}

impl From<Quantity> for k8s_openapi::apimachinery::pkg::api::resource::Quantity {
    fn from(q: Quantity) -> Self {
        Self(q.to_string())
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}
impl Eq for Quantity {}
impl Hash for Quantity {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.nanos.hash(state);
    }
}
impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl Add for Quantity {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self::capped(self.nanos + other.nanos, self.joint_format(&other))
    }
}
impl Sub for Quantity {
    type Output = Self;
    fn sub(self, other: Self) -> Self {
        Self::capped(self.nanos - other.nanos, self.joint_format(&other))
    }
}
impl Neg for Quantity {
    type Output = Self;
    fn neg(self) -> Self {
        Self { nanos: -self.nanos, format: self.format }
    }
}
impl AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}
impl SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        *self = *self - other;
    }
}
impl Sum for Quantity {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn q(text: &str) -> Quantity {
        Quantity::parse(text).unwrap()
    }

    #[test]
    fn parses_prints_and_rounds() {
        // text, canonical form, value, milli
        let table: &[(&str, &str, i64, i64)] = &[
            ("0", "0", 0, 0),
            ("0n", "0", 0, 0),
            ("0Ki", "0", 0, 0),
            ("-0", "0", 0, 0),
            ("1", "1", 1, 1000),
            ("+1", "1", 1, 1000),
            ("007", "7", 7, 7000),
            ("100m", "100m", 1, 100),
            ("0.1", "100m", 1, 100),
            (".5", "500m", 1, 500),
            ("5.", "5", 5, 5000),
            ("1500m", "1500m", 2, 1500),
            ("2000m", "2", 2, 2000),
            ("1n", "1n", 1, 1),
            ("0.1n", "1n", 1, 1),
            ("1.0000000001", "1000000001n", 2, 1001),
            ("1u", "1u", 1, 1),
            ("-1.5", "-1500m", -2, -1500),
            ("-0.1n", "-1n", -1, -1),
            ("1k", "1k", 1000, 1_000_000),
            ("1000", "1k", 1000, 1_000_000),
            ("1500", "1500", 1500, 1_500_000),
            ("1E", "1E", 1_000_000_000_000_000_000, i64::MAX),
            ("1e3", "1e3", 1000, 1_000_000),
            ("1E3", "1e3", 1000, 1_000_000),
            ("10e2", "1e3", 1000, 1_000_000),
            ("12e-1", "1200e-3", 2, 1200),
            ("5e0", "5", 5, 5000),
            ("1e-40", "1e-9", 1, 1),
            ("1e-9999999", "1e-9", 1, 1),
            ("1e99999", "9223372036854775807", i64::MAX, i64::MAX),
            ("0e99999", "0", 0, 0),
            ("1Ki", "1Ki", 1024, 1_024_000),
            ("1024Ki", "1Mi", 1 << 20, (1 << 20) * 1000),
            ("1536Mi", "1536Mi", 1536 << 20, (1536 << 20) * 1000),
            ("1.5Gi", "1536Mi", 1536 << 20, (1536 << 20) * 1000),
            ("0.5Ki", "512", 512, 512_000),
            ("1000Ki", "1000Ki", 1_024_000, 1_024_000_000),
            ("0.0005Ki", "512m", 1, 512),
            ("1.1Ki", "1126400m", 1127, 1_126_400),
            ("7Ei", "7Ei", 7 << 60, i64::MAX),
            ("8Ei", "9223372036854775807", i64::MAX, i64::MAX),
            ("99999999999999999999999999999999999999999999999", "9223372036854775807", i64::MAX, i64::MAX),
            ("-99999999999999999999Ei", "-9223372036854775807", -i64::MAX, i64::MIN),
            ("0.00000000000000000000000000000000000000000000001Ei", "1n", 1, 1),
        ];
        for (text, canonical, value, milli) in table {
            let q = q(text);
            assert_eq!(q.to_string(), *canonical, "{text}");
            assert_eq!(q.value(), *value, "value of {text}");
            assert_eq!(q.milli(), *milli, "milli of {text}");
        }
    }

    #[test]
    fn refuses() {
        for text in [
            "",
            "-",
            ".",
            "k",
            "1.1.M",
            "1+1.0M",
            "0.1mi",
            "1am",
            "aoeu",
            "1i",
            "-3.01e-",
            " 1",
            "1 ",
            "1e",
            "1K",
            "1KiB",
            "--1",
            "+-1",
            "1e3.5",
            "1e99999999999999999999",
            "1\u{e9}",
            "\u{e9}",
            "1mM",
        ] {
            assert!(Quantity::parse(text).is_err(), "{text:?}");
        }
        assert_eq!(Quantity::parse("1K").unwrap_err(), WRONG_SUFFIX);
        assert_eq!(Quantity::parse("1 ").unwrap_err(), WRONG_FORMAT);
        assert!(Quantity::parse(&"9".repeat(MAX_LEN + 1)).is_err());
    }

    #[test]
    fn calculates() {
        assert_eq!(q("1Gi") + q("512Mi"), q("1536Mi"));
        assert_eq!((q("1Gi") + q("512Mi")).to_string(), "1536Mi");
        assert_eq!((Quantity::ZERO + q("1Gi")).to_string(), "1Gi");
        assert_eq!((q("2") - q("500m")).to_string(), "1500m");
        assert_eq!(q("1024"), q("1Ki"));
        assert!(q("999m") < q("1"));
        assert!((q("1") - q("2")).is_negative());
        assert_eq!((q("1") - q("2")).as_bytes(), 0);
        assert_eq!([q("100m"), q("200m")].into_iter().sum::<Quantity>(), q("300m"));
        assert_eq!(q("9223372036854775807") + q("7E"), q("9223372036854775807"));
        assert_eq!(Quantity::from_bytes(64 << 20).to_string(), "64Mi");
        assert_eq!(Quantity::from_milli(250).to_string(), "250m");
    }

    proptest! {
        #[test]
        fn never_panics(text in "[-+]?[0-9.]{0,60}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,25}") {
            if let Ok(q) = Quantity::parse(&text) {
                let again = Quantity::parse(&q.to_string()).unwrap();
                prop_assert_eq!(again, q);
                prop_assert_eq!(again.to_string(), q.to_string());
            }
        }

        #[test]
        fn decimals_are_exact(whole in 0u32.., nanos in 0u32..1_000_000_000, exponent in 0u32..7) {
            let q = q(&format!("{whole}.{nanos:09}e{exponent}"));
            let expected = (i128::from(whole) * NANO + i128::from(nanos)) * 10i128.pow(exponent);
            prop_assert_eq!(q.nanos, expected);
        }

        #[test]
        fn sums_commute_and_cancel(a in any::<i32>(), b in any::<i32>()) {
            let (x, y) = (Quantity::from_milli(a.into()), Quantity::from_milli(b.into()));
            prop_assert_eq!(x + y, y + x);
            prop_assert_eq!(x + y - y, x);
            prop_assert_eq!(x.cmp(&y), a.cmp(&b));
        }
    }
}
