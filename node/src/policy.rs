//! PURE: who may reach which address. Everything not known to be harmless is denied.

use std::net::{IpAddr, SocketAddr};

use copepod_runtime::network::NetError;

use crate::observed::PodKey;

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Peer {
    /// A guest of this pod.
    Pod(PodKey),
    /// The node itself: probes and node ports.
    Node,
}

/// Decides about a connection or datagram to an address, after a Service's address was replaced by an endpoint's.
pub fn decide(peer: &Peer, to: SocketAddr) -> Result<(), NetError> {
    let Peer::Pod(key) = peer else { return Ok(()) };
    match forbidden(to.ip().to_canonical()) {
        None => Ok(()),
        Some(what) => {
            Err(NetError::AccessDenied(format!("pod {}/{} may not reach {to}: {what}", key.namespace, key.name)))
        }
    }
}

fn forbidden(ip: IpAddr) -> Option<&'static str> {
    const LOOPBACK: &str = "the host's loopback";
    const LINK_LOCAL: &str = "link-local and metadata addresses";
    const MANY: &str = "multicast and broadcast";
    match ip {
        IpAddr::V4(v4) => match v4.octets() {
            // 0.0.0.0/8 leads to the host itself.
            [0 | 127, ..] => Some(LOOPBACK),
            [169, 254, ..] => Some(LINK_LOCAL),
            [224..=255, ..] => Some(MANY),
            _ => None,
        },
        IpAddr::V6(v6) => match v6.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0 | 1] => Some(LOOPBACK),
            // IPv4 addresses in other clothes: compatible, NAT64, 6to4.
            [0, 0, 0, 0, 0, 0, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] | [0x2002, a, b, ..] => {
                let [c, d] = a.to_be_bytes();
                let [e, f] = b.to_be_bytes();
                forbidden(IpAddr::from([c, d, e, f]))
            }
            [0xfe80..=0xfebf, ..] | [0xfd00, 0xec2, ..] => Some(LINK_LOCAL),
            [0xff00..=0xffff, ..] => Some(MANY),
            _ => None,
        },
    }
}

/// A range of addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    network: IpAddr,
    bits: u32,
}

impl Cidr {
    /// Parses `ADDRESS/BITS`; `None` if it is not one.
    pub fn parse(text: &str) -> Option<Self> {
        let (network, bits) = text.trim().split_once('/')?;
        let (network, bits): (IpAddr, u32) = (network.parse().ok()?, bits.parse().ok()?);
        (bits <= if network.is_ipv4() { 32 } else { 128 }).then_some(Self { network, bits })
    }
    /// Whether an address is in the range.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.network, ip.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => (a.to_bits() ^ b.to_bits()).checked_shr(32 - self.bits).unwrap_or(0) == 0,
            (IpAddr::V6(a), IpAddr::V6(b)) => {
                (a.to_bits() ^ b.to_bits()).checked_shr(128 - self.bits).unwrap_or(0) == 0
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        let cases = [
            ("10.64.0.0/10", "10.127.255.255", true),
            ("10.64.0.0/10", "10.128.0.0", false),
            ("10.64.0.0/10", "::ffff:10.64.0.1", true),
            ("0.0.0.0/0", "1.2.3.4", true),
            ("10.0.0.1/32", "10.0.0.2", false),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "10.0.0.1", false),
        ];
        for (range, ip, inside) in cases {
            assert_eq!(Cidr::parse(range).unwrap().contains(ip.parse().unwrap()), inside, "{range} {ip}");
        }
        for bad in ["", "10.0.0.0", "10.0.0.0/33", "x/8"] {
            assert_eq!(Cidr::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_guests_may_reach() {
        let pod = Peer::Pod(PodKey { namespace: "n".into(), name: "p".into(), uid: "u".into() });
        let cases = [
            ("10.64.0.9:80", true),
            ("192.168.1.5:80", true),
            ("1.1.1.1:53", true),
            ("[2606:4700::1]:53", true),
            ("127.0.0.1:6443", false),
            ("0.0.0.0:6443", false),
            ("169.254.169.254:80", false),
            ("224.0.0.1:80", false),
            ("255.255.255.255:80", false),
            ("[::1]:80", false),
            ("[::]:80", false),
            ("[::ffff:127.0.0.1]:80", false),
            ("[::ffff:169.254.169.254]:80", false),
            ("[64:ff9b::a9fe:a9fe]:80", false),
            ("[2002:7f00:1::]:80", false),
            ("[fe80::1]:80", false),
            ("[fd00:ec2::254]:80", false),
            ("[ff02::1]:80", false),
        ];
        for (to, allowed) in cases {
            assert_eq!(decide(&pod, to.parse().unwrap()).is_ok(), allowed, "{to}");
        }
        assert!(decide(&Peer::Node, "127.0.0.1:1".parse().unwrap()).is_ok());
    }
}
