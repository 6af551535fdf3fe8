//! IPv4 networks.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

/// An IPv4 network such as `10.43.0.0/16`. Bits of the address beyond the prefix are dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: u32,
    bits: u8,
}

/// A text that is no IPv4 network.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 network such as 10.43.0.0/16")]
pub struct CidrError(String);

impl Cidr {
    /// The prefix's length, 0 to 32.
    pub fn bits(&self) -> u8 {
        self.bits
    }
    /// How many addresses it has.
    pub fn size(&self) -> u64 {
        1 << (32 - u64::from(self.bits))
    }
    /// The address at an offset, if it lies in the network.
    pub fn at(&self, offset: u64) -> Option<Ipv4Addr> {
        let offset = u32::try_from(offset).ok().filter(|o| u64::from(*o) < self.size())?;
        self.base.checked_add(offset).map(Ipv4Addr::from)
    }
    /// Whether an address, also as an IPv4-mapped IPv6 one, lies in it.
    pub fn contains(&self, address: impl Into<IpAddr>) -> bool {
        match address.into().to_canonical() {
            IpAddr::V4(v4) => u32::from(v4) & mask(self.bits) == self.base,
            IpAddr::V6(_) => false,
        }
    }
    /// Whether two networks share addresses.
    pub fn overlaps(&self, other: &Self) -> bool {
        let mask = mask(self.bits.min(other.bits));
        self.base & mask == other.base & mask
    }
    /// The first part of it with a prefix of `bits`; `None` if that is larger than the whole, or no prefix.
    pub fn first_subnet(&self, bits: u8) -> Option<Self> {
        (self.bits..=32).contains(&bits).then_some(Self { base: self.base, bits })
    }
}

impl FromStr for Cidr {
    type Err = CidrError;
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let bad = || CidrError(text.chars().take(50).collect());
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().ok().filter(|b| *b <= 32).ok_or_else(bad)?;
        Ok(Self { base: u32::from(address) & mask(bits), bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.bits)
    }
}

fn mask(bits: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cidr(text: &str) -> Cidr {
        text.parse().unwrap()
    }

    #[test]
    fn parses_and_prints() {
        for (text, printed, size) in [
            ("10.43.7.9/16", "10.43.0.0/16", 65536),
            ("0.0.0.0/0", "0.0.0.0/0", 1 << 32),
            ("255.255.255.255/32", "255.255.255.255/32", 1),
        ] {
            assert_eq!((cidr(text).to_string().as_str(), cidr(text).size()), (printed, size), "{text}");
        }
        for bad in ["", "10.0.0.0", "10.0.0/8", "10.0.0.0/33", "10.0.0.0/x", "10.0.0.0/-1", "x/20", "::/8", "fd00::/64"]
        {
            let error = bad.parse::<Cidr>().unwrap_err().to_string();
            assert_eq!(error, format!("{bad:?} is not an IPv4 network such as 10.43.0.0/16"));
        }
    }

    #[test]
    fn contains() {
        for (range, address, inside) in [
            ("10.64.0.0/10", "10.127.255.255", true),
            ("10.64.0.0/10", "10.128.0.0", false),
            ("10.64.0.0/10", "10.63.255.255", false),
            ("10.64.0.0/10", "::ffff:10.64.0.1", true),
            ("0.0.0.0/0", "255.2.3.4", true),
            ("0.0.0.0/0", "::1", false),
            ("10.0.0.1/32", "10.0.0.1", true),
            ("10.0.0.1/32", "10.0.0.2", false),
        ] {
            assert_eq!(cidr(range).contains(address.parse::<IpAddr>().unwrap()), inside, "{range} {address}");
        }
    }

    #[test]
    fn addresses_at_offsets() {
        for (range, offset, address) in [
            ("10.43.0.0/16", 0, Some("10.43.0.0")),
            ("10.43.0.0/16", 65535, Some("10.43.255.255")),
            ("10.43.0.0/16", 65536, None),
            ("0.0.0.0/0", u64::from(u32::MAX), Some("255.255.255.255")),
            ("0.0.0.0/0", 1 << 32, None),
        ] {
            assert_eq!(cidr(range).at(offset).map(|a| a.to_string()).as_deref(), address, "{range} {offset}");
        }
    }

    #[test]
    fn overlaps_and_subnets() {
        for (a, b, shared) in [
            ("10.64.0.0/10", "10.43.0.0/16", false),
            ("10.64.0.0/10", "10.100.0.0/16", true),
            ("0.0.0.0/0", "1.2.3.4/32", true),
        ] {
            assert_eq!((cidr(a).overlaps(&cidr(b)), cidr(b).overlaps(&cidr(a))), (shared, shared), "{a} {b}");
        }
        for (whole, bits, first) in [
            ("10.64.0.0/10", 20, Some("10.64.0.0/20")),
            ("10.64.0.0/10", 10, Some("10.64.0.0/10")),
            ("10.64.0.0/10", 9, None),
            ("10.64.0.0/10", 33, None),
        ] {
            assert_eq!(cidr(whole).first_subnet(bits).map(|c| c.to_string()).as_deref(), first, "{whole} {bits}");
        }
    }
}
