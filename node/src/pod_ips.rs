//! Pod addresses from the node's PodCIDR.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr};

use copepod_api::Cidr;

/// Hands out the addresses of an IPv4 range; the first two (network and node) and the last are never used. A freed
/// address is reused as late as possible.
#[derive(Debug)]
pub struct PodIps {
    first: u32,
    last: u32,
    next: u32,
    used: HashMap<IpAddr, String>,
}

/// Why there is no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PodIpError {
    /// Not `ADDRESS/BITS` with at most 30 bits.
    #[error("pod CIDR {0:?} must be an IPv4 range such as 10.64.0.0/20")]
    BadCidr(String),
    /// All are in use.
    #[error("no address is free: the node's pod CIDR has {0} and all are in use")]
    Exhausted(usize),
}

impl PodIps {
    /// An allocator for `ADDRESS/BITS`.
    pub fn new(cidr: &str) -> Result<Self, PodIpError> {
        let bad = || PodIpError::BadCidr(cidr.into());
        let range: Cidr = cidr.parse().ok().filter(|c: &Cidr| (8..=30).contains(&c.bits())).ok_or_else(bad)?;
        let at = |offset| range.at(offset).map(u32::from).ok_or_else(bad);
        let (first, last) = (at(2)?, at(range.size() - 2)?);
        Ok(Self { first, last, next: first, used: HashMap::new() })
    }

    /// An address for a pod, `wanted` if it is free or the pod's own already.
    pub fn allocate(&mut self, uid: &str, wanted: Option<IpAddr>) -> Result<IpAddr, PodIpError> {
        if let Some(ip) = wanted
            && self.contains(ip)
            && self.used.get(&ip).is_none_or(|owner| owner == uid)
        {
            self.used.insert(ip, uid.into());
            return Ok(ip);
        }
        let size = self.last - self.first + 1;
        for _ in 0..size {
            let ip = IpAddr::from(Ipv4Addr::from(self.next));
            self.next = if self.next == self.last { self.first } else { self.next + 1 };
            if let Entry::Vacant(free) = self.used.entry(ip) {
                free.insert(uid.into());
                return Ok(ip);
            }
        }
        Err(PodIpError::Exhausted(size as usize))
    }

    /// Frees an address if it is this pod's.
    pub fn release(&mut self, uid: &str, ip: IpAddr) {
        if self.used.get(&ip).is_some_and(|owner| owner == uid) {
            self.used.remove(&ip);
        }
    }

    /// Whether the address is one of the range's.
    pub fn contains(&self, ip: IpAddr) -> bool {
        matches!(ip, IpAddr::V4(v4) if (self.first..=self.last).contains(&u32::from(v4)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(s: &str) -> IpAddr {
        s.parse().unwrap()
    }

    #[test]
    fn addresses_are_reused_last_and_run_out_with_a_clear_error() {
        let mut ips = PodIps::new("10.64.0.0/29").unwrap();
        let got: Vec<_> = (0..5).map(|n| ips.allocate(&format!("u{n}"), None).unwrap().to_string()).collect();
        assert_eq!(got, ["10.64.0.2", "10.64.0.3", "10.64.0.4", "10.64.0.5", "10.64.0.6"]);
        assert_eq!(ips.allocate("x", None), Err(PodIpError::Exhausted(5)));
        ips.release("someone else", ip("10.64.0.3"));
        assert!(ips.allocate("x", None).is_err());
        ips.release("u1", ip("10.64.0.3"));
        assert_eq!(ips.allocate("x", None), Ok(ip("10.64.0.3")));
    }

    #[test]
    fn a_wanted_address_is_kept_if_free() {
        let mut ips = PodIps::new("10.64.0.0/20").unwrap();
        assert_eq!(ips.allocate("a", Some(ip("10.64.3.9"))), Ok(ip("10.64.3.9")));
        assert_eq!(ips.allocate("a", Some(ip("10.64.3.9"))), Ok(ip("10.64.3.9")));
        assert_ne!(ips.allocate("b", Some(ip("10.64.3.9"))), Ok(ip("10.64.3.9")));
        assert_eq!(ips.allocate("c", Some(ip("10.99.0.9"))), Ok(ip("10.64.0.3")), "out of range");
    }

    #[test]
    fn bad_ranges() {
        for cidr in ["", "10.64.0.0/31", "10.0.0.0/4"] {
            assert!(PodIps::new(cidr).is_err(), "{cidr}");
        }
    }
}
