//! One decision for every address a guest names.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::network::NetError;

/// What a guest wants to do with an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Bind a socket to it.
    Bind,
    /// Open a TCP connection to it.
    Connect,
    /// Send a datagram to it.
    Send,
    /// Be told it as the address of a name.
    Lookup,
}

/// IPv4 addresses of cloud metadata services outside the link-local range.
const METADATA: [Ipv4Addr; 2] = [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16)];

/// Decides whether any pod may do `op` with `address`, before the pod's own tables and the uplink's policy are asked.
/// Loopback passes: it is the pod's own and never leaves it. What is not clearly an address to talk to is denied.
pub fn decide(op: Op, address: SocketAddr) -> Result<(), NetError> {
    let ip = normalise(address.ip());
    if ip.is_unspecified() && op == Op::Bind {
        return Ok(());
    }
    if let Some(reason) = forbidden(ip) {
        return Err(NetError::AccessDenied(format!("{ip}: {reason}")));
    }
    if matches!(op, Op::Connect | Op::Send) && address.port() == 0 {
        return Err(NetError::AccessDenied(format!("{ip}: port 0")));
    }
    Ok(())
}

/// The address that is meant: an IPv4 address written as IPv6 (mapped, NAT64, 6to4) becomes IPv4.
pub fn normalise(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let embedded = match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, a, b] | [0x64, 0xff9b, 0, 0, 0, 0, a, b] => Some((a, b)),
        [0x2002, a, b, ..] => Some((a, b)),
        _ => None,
    };
    match embedded {
        Some((a, b)) => Ipv4Addr::from((u32::from(a) << 16) | u32::from(b)).into(),
        None => ip,
    }
}

/// Why no guest may reach this address, wherever it is asked from; `None` if nothing is known against it. Loopback is
/// not judged: within a pod it is the pod's own.
pub fn forbidden(ip: IpAddr) -> Option<&'static str> {
    const NO_PEER: &str = "not an address to talk to";
    const METADATA_SERVICE: &str = "a metadata service";
    let ip = normalise(ip);
    if ip.is_multicast() {
        return Some("multicast");
    }
    match ip {
        IpAddr::V4(v4) if METADATA.contains(&v4) => Some(METADATA_SERVICE),
        IpAddr::V4(v4) if v4.is_link_local() => Some("link-local"),
        IpAddr::V4(v4) => match v4.octets() {
            [0, ..] => Some(NO_PEER),
            [240..=255, ..] => Some("broadcast or reserved"),
            _ => None,
        },
        IpAddr::V6(v6) if v6.is_loopback() => None,
        IpAddr::V6(v6) => match v6.segments() {
            // Unspecified, and the deprecated form of IPv4 addresses, which some hosts still take for IPv4.
            [0, 0, 0, 0, 0, 0, ..] => Some(NO_PEER),
            [0xfd00, 0xec2, ..] => Some(METADATA_SERVICE),
            [0xfe80..=0xfebf, ..] => Some("link-local"),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decides_by_operation_and_address() {
        let cases = [
            (Op::Connect, "127.0.0.1:80", true),
            (Op::Connect, "[::1]:80", true),
            (Op::Connect, "10.64.0.7:80", true),
            (Op::Send, "8.8.8.8:53", true),
            (Op::Bind, "0.0.0.0:80", true),
            (Op::Bind, "[::]:0", true),
            (Op::Lookup, "1.1.1.1:0", true),
            (Op::Connect, "10.64.0.7:0", false),
            (Op::Connect, "0.0.0.0:80", false),
            (Op::Connect, "[::]:80", false),
            (Op::Connect, "0.1.2.3:80", false),
            (Op::Connect, "169.254.169.254:80", false),
            (Op::Lookup, "169.254.169.254:0", false),
            (Op::Bind, "169.254.0.1:80", false),
            (Op::Connect, "[::ffff:169.254.169.254]:80", false),
            (Op::Connect, "[64:ff9b::a9fe:a9fe]:80", false),
            (Op::Connect, "[2002:a9fe:a9fe::1]:80", false),
            (Op::Connect, "[::ffff:0.0.0.0]:80", false),
            (Op::Connect, "[fd00:ec2::254]:80", false),
            (Op::Connect, "[fd00:ec2::23]:80", false),
            (Op::Connect, "[fd00:ec3::1]:80", true),
            (Op::Connect, "[::a9fe:a9fe]:80", false),
            (Op::Connect, "100.100.100.200:80", false),
            (Op::Connect, "168.63.129.16:80", false),
            (Op::Connect, "[2002:a83f:8110::1]:80", false),
            (Op::Connect, "[fe80::1]:80", false),
            (Op::Send, "224.0.0.251:5353", false),
            (Op::Send, "[ff02::fb]:5353", false),
            (Op::Bind, "224.0.0.251:5353", false),
            (Op::Send, "255.255.255.255:67", false),
            (Op::Connect, "240.0.0.1:80", false),
        ];
        for (op, address, allowed) in cases {
            assert_eq!(decide(op, address.parse().unwrap()).is_ok(), allowed, "{op:?} {address}");
        }
    }
}
