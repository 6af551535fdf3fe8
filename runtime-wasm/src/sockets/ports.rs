//! A pod's port table: who holds which address and port.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;

use crate::network::NetError;

/// Ports given to sockets that ask for port 0, and to outgoing connections.
pub const EPHEMERAL_PORTS: RangeInclusive<u16> = 32768..=60999;

/// Entries of one protocol by port; a port has one entry per address, or one per family for all its addresses.
pub(super) struct Ports<T> {
    entries: HashMap<u16, Vec<(IpAddr, T)>>,
    next: u16,
}

impl<T> Default for Ports<T> {
    fn default() -> Self {
        Self { entries: HashMap::new(), next: *EPHEMERAL_PORTS.start() }
    }
}

impl<T> Ports<T> {
    /// Takes an address; port 0 is replaced by a free ephemeral one.
    pub(super) fn take(&mut self, address: SocketAddr, entry: T) -> Result<SocketAddr, NetError> {
        let ip = address.ip();
        let port = match address.port() {
            0 => self.ephemeral(ip).ok_or(NetError::AddressInUse)?,
            port if self.is_taken(ip, port) => return Err(NetError::AddressInUse),
            port => port,
        };
        self.entries.entry(port).or_default().push((ip, entry));
        Ok(SocketAddr::new(ip, port))
    }

    /// A free ephemeral port for this address; consecutive calls give different ones.
    pub(super) fn ephemeral(&mut self, ip: IpAddr) -> Option<u16> {
        for _ in EPHEMERAL_PORTS {
            let port = self.next;
            self.next = if port == *EPHEMERAL_PORTS.end() { *EPHEMERAL_PORTS.start() } else { port + 1 };
            if !self.is_taken(ip, port) {
                return Some(port);
            }
        }
        None
    }

    pub(super) fn release(&mut self, address: SocketAddr) {
        if let Some(entries) = self.entries.get_mut(&address.port()) {
            entries.retain(|(ip, _)| *ip != address.ip());
            if entries.is_empty() {
                self.entries.remove(&address.port());
            }
        }
    }

    /// The entry held under exactly this address.
    pub(super) fn held(&mut self, address: SocketAddr) -> Option<&mut T> {
        let entries = self.entries.get_mut(&address.port())?;
        entries.iter_mut().find(|(ip, _)| *ip == address.ip()).map(|(_, entry)| entry)
    }

    /// The entry that what is sent to `to` reaches: its own address first, else all addresses of its family.
    pub(super) fn find(&self, to: SocketAddr) -> Option<&T> {
        let entries = self.entries.get(&to.port())?;
        let exact = entries.iter().find(|(ip, _)| *ip == to.ip());
        let any = || entries.iter().find(|(ip, _)| ip.is_unspecified() && ip.is_ipv4() == to.is_ipv4());
        exact.or_else(any).map(|(_, entry)| entry)
    }

    /// How many entries are held.
    pub(super) fn len(&self) -> usize {
        self.entries.values().map(Vec::len).sum()
    }

    pub(super) fn clear(&mut self) {
        self.entries.clear();
    }

    fn is_taken(&self, ip: IpAddr, port: u16) -> bool {
        let overlaps = |held: &IpAddr| {
            held.is_ipv4() == ip.is_ipv4() && (*held == ip || held.is_unspecified() || ip.is_unspecified())
        };
        self.entries.get(&port).is_some_and(|entries| entries.iter().any(|(held, _)| overlaps(held)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conflicts_by_address_and_family() {
        let cases = [
            ("0.0.0.0:80", "0.0.0.0:80", false),
            ("0.0.0.0:80", "127.0.0.1:80", false),
            ("127.0.0.1:80", "0.0.0.0:80", false),
            ("127.0.0.1:80", "127.0.0.1:80", false),
            ("127.0.0.1:80", "127.0.0.2:80", true),
            ("127.0.0.1:80", "10.0.0.1:80", true),
            ("0.0.0.0:80", "0.0.0.0:81", true),
            ("0.0.0.0:80", "[::]:80", true),
            ("[::]:80", "[::1]:80", false),
        ];
        for (first, second, fits) in cases {
            let mut ports = Ports::default();
            let (first, second): (SocketAddr, SocketAddr) = (first.parse().unwrap(), second.parse().unwrap());
            ports.take(first, ()).unwrap();
            assert_eq!(ports.take(second, ()).is_ok(), fits, "{first} then {second}");
            ports.release(first);
            if !fits {
                ports.take(second, ()).unwrap();
            }
        }
    }

    #[test]
    fn ephemeral_ports_run_out_and_come_back() {
        let any: SocketAddr = "0.0.0.0:0".parse().unwrap();
        let mut ports = Ports::default();
        let mut last = any;
        for _ in EPHEMERAL_PORTS {
            last = ports.take(any, ()).unwrap();
            assert!(EPHEMERAL_PORTS.contains(&last.port()));
        }
        assert_eq!(ports.take(any, ()), Err(NetError::AddressInUse));
        ports.release(last);
        assert_eq!(ports.take(any, ()), Ok(last));
    }

    #[test]
    fn the_own_address_wins_over_all_addresses() {
        let mut ports = Ports::default();
        ports.take("[::]:80".parse().unwrap(), "v6").unwrap();
        ports.take("127.0.0.1:80".parse().unwrap(), "own").unwrap();
        assert_eq!(ports.find("127.0.0.1:80".parse().unwrap()), Some(&"own"));
        assert_eq!(ports.find("127.0.0.2:80".parse().unwrap()), None);
        assert_eq!(ports.find("[::1]:80".parse().unwrap()), Some(&"v6"));
    }
}
