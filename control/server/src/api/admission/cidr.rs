//! IPv4 address ranges.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// An IPv4 range such as `10.43.0.0/16`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    base: u32,
    bits: u8,
}

/// A text that is no IPv4 range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an IPv4 address range such as 10.43.0.0/16")]
pub struct CidrError(pub String);

impl Cidr {
    /// How many addresses it has.
    pub fn size(&self) -> u64 {
        1 << (32 - u64::from(self.bits))
    }
    /// Whether an address lies in it.
    pub fn contains(&self, address: Ipv4Addr) -> bool {
        u64::from(u32::from(address).wrapping_sub(self.base)) < self.size()
    }
    /// The address at an offset, if it lies in the range.
    pub fn at(&self, offset: u64) -> Option<Ipv4Addr> {
        let offset = u32::try_from(offset).ok().filter(|o| u64::from(*o) < self.size())?;
        self.base.checked_add(offset).map(Ipv4Addr::from)
    }
}

impl FromStr for Cidr {
    type Err = CidrError;
    fn from_str(text: &str) -> Result<Self, CidrError> {
        let bad = || CidrError(text.to_string());
        let (address, bits) = text.split_once('/').ok_or_else(bad)?;
        let address: Ipv4Addr = address.parse().map_err(|_| bad())?;
        let bits: u8 = bits.parse().ok().filter(|b| *b <= 32).ok_or_else(bad)?;
        let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
        Ok(Self { base: u32::from(address) & mask, bits })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.base), self.bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let c: Cidr = "10.43.7.9/16".parse().unwrap();
        assert_eq!((c.to_string().as_str(), c.size()), ("10.43.0.0/16", 65536));
        assert!(c.contains(Ipv4Addr::new(10, 43, 255, 255)) && !c.contains(Ipv4Addr::new(10, 44, 0, 0)));
        assert_eq!((c.at(1), c.at(65536)), (Some(Ipv4Addr::new(10, 43, 0, 1)), None));
        for bad in ["", "10.0.0.0", "10.0.0/8", "10.0.0.0/33", "::/8"] {
            assert!(bad.parse::<Cidr>().is_err(), "{bad}");
        }
    }
}
