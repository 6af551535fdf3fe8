//! Small pure checks of the command line's networks and ranges.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, bail};

/// An IPv4 network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: u32,
    prefix: u8,
}

impl Cidr {
    /// Parses `a.b.c.d/n`; `flag` names the option in errors.
    pub fn parse(text: &str, flag: &str) -> Result<Self> {
        let (address, prefix) =
            text.split_once('/').with_context(|| format!("{flag} {text}: expected a network such as 10.43.0.0/16"))?;
        let address: Ipv4Addr = address.parse().with_context(|| format!("{flag} {text}: not an IPv4 network"))?;
        let prefix: u8 = prefix
            .parse()
            .ok()
            .filter(|p| (8..=30).contains(p))
            .with_context(|| format!("{flag} {text}: the prefix must be 8 to 30"))?;
        let mask = u32::MAX << (32 - u32::from(prefix));
        Ok(Self { base: u32::from(address) & mask, prefix })
    }

    /// The first sub-network of a prefix length: the first node's part.
    pub fn first_subnet(&self, prefix: u8) -> Result<String> {
        if prefix < self.prefix {
            bail!("--node-cidr-mask-size {prefix} is larger than the whole --cluster-cidr {self}");
        }
        Ok(format!("{}/{prefix}", Ipv4Addr::from(self.base)))
    }

    /// Whether two networks share addresses.
    pub fn overlaps(&self, other: &Self) -> bool {
        let mask = u32::MAX << (32 - u32::from(self.prefix.min(other.prefix)));
        self.base & mask == other.base & mask
    }
}

impl std::fmt::Display for Cidr {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.prefix)
    }
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
        let pods = Cidr::parse("10.64.0.0/10", "--cluster-cidr").unwrap();
        assert_eq!(pods.first_subnet(20).unwrap(), "10.64.0.0/20");
        assert!(pods.first_subnet(9).is_err());
        assert!(!pods.overlaps(&Cidr::parse("10.43.0.0/16", "").unwrap()));
        assert!(pods.overlaps(&Cidr::parse("10.100.0.0/16", "").unwrap()));
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "10.0.0/8", "::/8", "10.0.0.0/x"] {
            let error = Cidr::parse(bad, "--service-cidr").unwrap_err().to_string();
            assert!(error.contains("--service-cidr"), "{error}");
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
