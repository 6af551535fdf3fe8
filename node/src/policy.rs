//! PURE: who may reach which address. Everything not known to be harmless is denied.

use std::net::{IpAddr, SocketAddr};

use copepod_runtime::network::NetError;
use copepod_runtime::sockets::policy as guests;

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
    match forbidden(to.ip()) {
        None => Ok(()),
        Some(what) => {
            Err(NetError::AccessDenied(format!("pod {}/{} may not reach {to}: {what}", key.namespace, key.name)))
        }
    }
}

/// What no guest may reach at all, and the loopback, which from here is the host's.
fn forbidden(ip: IpAddr) -> Option<&'static str> {
    if guests::normalise(ip).is_loopback() { Some("the host's loopback") } else { guests::forbidden(ip) }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            ("[fd00:ec3::1]:80", true),
            ("[64:ff9b::7f00:1]:80", false),
            ("[::7f00:1]:80", false),
            ("100.100.100.200:80", false),
            ("168.63.129.16:80", false),
            ("0.1.2.3:80", false),
            ("240.0.0.1:80", false),
        ];
        for (to, allowed) in cases {
            assert_eq!(decide(&pod, to.parse().unwrap()).is_ok(), allowed, "{to}");
        }
        assert!(decide(&Peer::Node, "127.0.0.1:1".parse().unwrap()).is_ok());
    }
}
