//! Small pure checks of the command line's networks and ranges.

use anyhow::{Context, Result, bail, ensure};
use copepod_api::Cidr;

/// Parses a network of 4 to 16 million addresses; `flag` names the option in errors.
pub fn network(text: &str, flag: &str) -> Result<Cidr> {
    let cidr: Cidr = text.parse().with_context(|| flag.to_string())?;
    ensure!((8..=30).contains(&cidr.bits()), "{flag} {text}: the prefix must be 8 to 30");
    Ok(cidr)
}

/// Parses `30000-32767`.
pub fn port_range(text: &str) -> Result<std::ops::RangeInclusive<u16>> {
    let bad = || format!("--node-port-range {text}: expected FIRST-LAST, such as 30000-32767");
    let (first, last) = text.split_once('-').with_context(bad)?;
    let (first, last): (u16, u16) = (first.trim().parse().with_context(bad)?, last.trim().parse().with_context(bad)?);
    if first == 0 || first > last {
        bail!(bad());
    }
    Ok(first..=last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks() {
        assert_eq!(network("10.64.0.0/10", "").unwrap().to_string(), "10.64.0.0/10");
        for bad in ["", "10.0.0.0/33", "::/8", "10.0.0.0/7", "10.0.0.0/31"] {
            let error = format!("{:#}", network(bad, "--service-cidr").unwrap_err());
            assert!(error.starts_with("--service-cidr") && error.contains(bad), "{error}");
        }
    }

    #[test]
    fn port_ranges() {
        assert_eq!(port_range("30000-32767").unwrap(), 30000..=32767);
        for bad in ["", "1", "5-4", "0-9", "1-70000", "a-b"] {
            assert!(port_range(bad).is_err(), "{bad}");
        }
    }
}
