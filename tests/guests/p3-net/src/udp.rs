//! Datagrams.

use std::pin::pin;

use futures::future::{join, poll_immediate};
use wasip3::sockets::types::{IpAddressFamily, UdpSocket};

use super::{code, loopback, text, v4, v6};

fn bound(family: IpAddressFamily) -> UdpSocket {
    let socket = UdpSocket::create(family).unwrap();
    socket.bind(loopback(family, 0)).unwrap();
    socket
}

pub async fn unconnected(family: IpAddressFamily) {
    let (one, two) = (bound(family), bound(family));
    let (to_one, to_two) = (one.get_local_address().unwrap(), two.get_local_address().unwrap());
    one.send(b"hello".to_vec(), Some(to_two)).await.unwrap();
    let (data, from) = two.receive().await.unwrap();
    assert_eq!((data.as_slice(), text(from)), (&b"hello"[..], text(to_one)));
    // Datagrams keep their bounds; an empty one is one, and a large one is whole.
    for data in [vec![], vec![1; 3], vec![2; 60_000]] {
        two.send(data.clone(), Some(to_one)).await.unwrap();
        assert!(one.receive().await.unwrap().0 == data);
    }
    // Who has sent is bound.
    let unbound = UdpSocket::create(family).unwrap();
    assert_eq!(code(unbound.receive().await), "InvalidState");
    unbound.send(b"psst".to_vec(), Some(to_one)).await.unwrap();
    let (data, from) = one.receive().await.unwrap();
    assert_eq!(data, b"psst");
    one.send(b"yes?".to_vec(), Some(from)).await.unwrap();
    assert_eq!(unbound.receive().await.unwrap().0, b"yes?");
    // Of two that receive, each gets one; who gives up takes nothing along.
    {
        let mut given_up = Box::pin(one.receive());
        assert!(poll_immediate(&mut given_up).await.is_none());
        drop(given_up);
    }
    let (mut first, mut second) = (pin!(one.receive()), pin!(one.receive()));
    assert!(poll_immediate(&mut first).await.is_none() && poll_immediate(&mut second).await.is_none());
    two.send(b"x".to_vec(), Some(to_one)).await.unwrap();
    two.send(b"y".to_vec(), Some(to_one)).await.unwrap();
    let (first, second) = join(first, second).await;
    let mut both = [first.unwrap().0, second.unwrap().0];
    both.sort_unstable();
    assert_eq!(both, [b"x", b"y"]);
}

pub async fn connected(family: IpAddressFamily) {
    let (one, two, stranger) = (bound(family), UdpSocket::create(family).unwrap(), bound(family));
    let to_one = one.get_local_address().unwrap();
    assert_eq!(code(two.get_remote_address()), "InvalidState");
    assert_eq!(code(two.disconnect()), "InvalidState");
    two.connect(to_one).unwrap();
    assert_eq!(text(two.get_remote_address().unwrap()), text(to_one));
    two.send(b"to my peer".to_vec(), None).await.unwrap();
    two.send(b"again".to_vec(), Some(to_one)).await.unwrap();
    let (data, to_two) = one.receive().await.unwrap();
    assert_eq!((data, one.receive().await.unwrap().0), (b"to my peer".to_vec(), b"again".to_vec()));
    let to_stranger = stranger.get_local_address().unwrap();
    assert_eq!(code(two.send(b"x".to_vec(), Some(to_stranger)).await), "InvalidArgument");
    stranger.send(b"psst".to_vec(), Some(to_two)).await.unwrap();
    one.send(b"peer".to_vec(), Some(to_two)).await.unwrap();
    assert_eq!(two.receive().await.unwrap().0, b"peer", "a connected socket hears its peer only");
    two.connect(to_stranger).unwrap();
    two.send(b"you?".to_vec(), None).await.unwrap();
    assert_eq!(stranger.receive().await.unwrap().0, b"you?");
    two.disconnect().unwrap();
    assert_eq!(code(two.send(b"x".to_vec(), None).await), "InvalidArgument");
    two.send(b"anyone".to_vec(), Some(to_one)).await.unwrap();
    assert_eq!(one.receive().await.unwrap().0, b"anyone");
}

pub async fn errors() {
    let taken = bound(IpAddressFamily::Ipv4);
    let other = UdpSocket::create(IpAddressFamily::Ipv4).unwrap();
    assert_eq!(code(other.bind(taken.get_local_address().unwrap())), "AddressInUse");
    assert_eq!(code(other.bind(v4([192, 0, 2, 1], 53))), "AddressNotBindable");
    assert_eq!(code(other.bind(v6([0; 8], 0))), "InvalidArgument");
    assert_eq!(code(other.get_local_address()), "InvalidState");
    assert_eq!(code(taken.bind(v4([127, 0, 0, 1], 0))), "InvalidState");
    assert_eq!(code(taken.connect(v4([127, 0, 0, 1], 0))), "InvalidArgument");
    assert_eq!(code(taken.connect(v4([0; 4], 53))), "InvalidArgument");
    assert_eq!(code(taken.send(vec![], Some(v6([0, 0, 0, 0, 0, 0, 0, 1], 53))).await), "InvalidArgument");
    let too_long = taken.send(vec![0; 65_508], Some(loopback(IpAddressFamily::Ipv4, 9))).await;
    assert_eq!(code(too_long), "DatagramTooLarge");
    taken.set_unicast_hop_limit(9).unwrap();
    assert_eq!(taken.get_unicast_hop_limit().unwrap(), 9);
    assert_eq!(code(taken.set_receive_buffer_size(0)), "InvalidArgument");
}

pub async fn denied() {
    let socket = UdpSocket::create(IpAddressFamily::Ipv4).unwrap();
    assert_eq!(code(socket.send(vec![1], Some(v4([169, 254, 169, 254], 53))).await), "AccessDenied");
    assert_eq!(code(socket.send(vec![1], Some(v4([224, 0, 0, 251], 5353))).await), "AccessDenied");
    assert_eq!(code(socket.connect(v4([169, 254, 169, 254], 53))), "AccessDenied");
}
