//! This machine's names and addresses.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};

/// The addresses of this machine's interfaces, as far as the system tells; loopback and link-local ones left out.
pub fn local_addresses() -> BTreeSet<IpAddr> {
    let file = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let mut found: BTreeSet<IpAddr> = BTreeSet::new();
    found.extend(parse_fib_trie(&file("/proc/net/fib_trie")).into_iter().map(IpAddr::from));
    found.extend(parse_if_inet6(&file("/proc/net/if_inet6")).into_iter().map(IpAddr::from));
    found.extend(outgoing("0.0.0.0:0", "192.0.2.1:9"));
    found.extend(outgoing("[::]:0", "[2001:db8::1]:9"));
    found.retain(|ip| !ip.is_loopback() && !ip.is_unspecified() && !is_link_local(*ip));
    found
}

/// The address under which others reach this machine: the one that packets to the world leave from, else any, else
/// 127.0.0.1.
pub fn advertise_address() -> IpAddr {
    outgoing("0.0.0.0:0", "192.0.2.1:9")
        .filter(|ip| !ip.is_loopback() && !ip.is_unspecified())
        .or_else(|| local_addresses().into_iter().next())
        .unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST))
}

/// The host's name in lower case, if it is a valid DNS name.
pub fn host_name() -> Option<String> {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?.trim().to_ascii_lowercase();
    let part = |p: &str| !p.is_empty() && p.len() <= 63 && p.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (name.len() <= 253 && name.split('.').all(part)).then_some(name)
}

/// The local address that a datagram would leave from; none is sent.
fn outgoing(from: &str, to: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

/// The kernel's routing trie: an address line, then `/32 host LOCAL` for the machine's own.
fn parse_fib_trie(text: &str) -> Vec<Ipv4Addr> {
    let mut last: Option<Ipv4Addr> = None;
    let mut found = Vec::new();
    for line in text.lines() {
        if let Some(address) = line.trim_start().strip_prefix("|-- ") {
            last = address.trim().parse().ok();
        } else if line.trim() == "/32 host LOCAL" {
            found.extend(last);
        }
    }
    found
}

/// One address per line, as 32 hexadecimal digits.
fn parse_if_inet6(text: &str) -> Vec<Ipv6Addr> {
    let address = |line: &str| {
        let digits = line.split_whitespace().next().filter(|d| d.len() == 32)?;
        u128::from_str_radix(digits, 16).ok().map(Ipv6Addr::from)
    };
    text.lines().filter_map(address).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_kernels_tables() {
        let trie = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n     +-- 172.17.0.0/16 2 0 2\n\
                    \x20       |-- 172.17.0.0\n           /16 link UNICAST\n        |-- 172.17.0.2\n           /32 host LOCAL\n\
                    \x20       |-- 172.17.255.255\n           /32 link BROADCAST\n     |-- 127.0.0.1\n        /32 host LOCAL\n";
        assert_eq!(parse_fib_trie(trie), [Ipv4Addr::new(172, 17, 0, 2), Ipv4Addr::LOCALHOST]);
        let v6 = "00000000000000000000000000000001 01 80 10 80       lo\nfd000000000000000000000000000005 02 40 00 80 eth0\nbad\n";
        assert_eq!(parse_if_inet6(v6), [Ipv6Addr::LOCALHOST, "fd00::5".parse::<Ipv6Addr>().unwrap()]);
    }

    #[test]
    fn leaves_out_what_others_cannot_use() {
        assert!(local_addresses().iter().all(|ip| !ip.is_loopback() && !is_link_local(*ip)));
        assert!(!advertise_address().is_unspecified());
    }
}
