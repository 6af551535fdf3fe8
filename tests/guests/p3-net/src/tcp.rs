//! Connections.

use std::pin::pin;

use futures::future::{join, poll_immediate};
use wasip3::sockets::types::{IpAddressFamily, TcpSocket};
use wasip3::wit_bindgen::{StreamReader, StreamResult};
use wasip3::wit_stream;

use super::{code, loopback, text, v4, v6};

async fn listener(family: IpAddressFamily) -> (TcpSocket, StreamReader<TcpSocket>) {
    let socket = TcpSocket::create(family).unwrap();
    socket.bind(loopback(family, 0)).unwrap();
    let connections = socket.listen().unwrap();
    (socket, connections)
}

/// The side that connected, and the side that accepted.
async fn pair(family: IpAddressFamily) -> (TcpSocket, TcpSocket) {
    let (listener, mut connections) = listener(family).await;
    assert!(listener.get_is_listening());
    let client = TcpSocket::create(family).unwrap();
    let connected = client.connect(listener.get_local_address().unwrap());
    let (connected, server) = join(connected, connections.next()).await;
    connected.unwrap();
    let server = server.unwrap();
    assert_eq!(text(server.get_remote_address().unwrap()), text(client.get_local_address().unwrap()));
    assert_eq!(text(server.get_local_address().unwrap()), text(client.get_remote_address().unwrap()));
    assert_eq!(text(server.get_local_address().unwrap()), text(listener.get_local_address().unwrap()));
    (client, server)
}

/// The server sends back what it receives, without this program; the end of one side is not the end of the other.
pub async fn echo(family: IpAddressFamily) {
    let (client, server) = pair(family).await;
    let data: Vec<u8> = (0..2_000_000u32).map(|i| (i % 253) as u8).collect();
    let (received, end) = server.receive();
    let echoed = server.send(received);
    let (mut writer, reader) = wit_stream::new();
    let sent = client.send(reader);
    let (answer, answered) = client.receive();
    let send = async {
        assert!(writer.write_all(data.clone()).await.is_empty());
        drop(writer);
        sent.await.unwrap();
    };
    let ((), answer) = join(send, answer.collect()).await;
    assert!(answer == data);
    answered.await.unwrap();
    end.await.unwrap();
    echoed.await.unwrap();
}

/// What nobody reads waits with who writes it; a cancelled write loses nothing.
pub async fn backpressure(family: IpAddressFamily) {
    let (client, server) = pair(family).await;
    let (mut writer, reader) = wit_stream::new();
    let sent = client.send(reader);
    let mut accepted = 0;
    loop {
        let mut write = pin!(writer.write(vec![7; 100_000]));
        let result = match poll_immediate(&mut write).await {
            Some((result, _)) => result,
            None => write.as_mut().cancel().0,
        };
        match result {
            StreamResult::Complete(n) => accepted += n,
            StreamResult::Cancelled => break,
            StreamResult::Dropped => panic!("the connection is open"),
        }
        assert!(accepted < 16 << 20, "unbounded buffer");
    }
    assert!(accepted > 0);
    let (mut received, end) = server.receive();
    // A cancelled read loses nothing either.
    let mut got = 0;
    while got < accepted {
        let (result, data) = received.read(Vec::with_capacity(10_000)).await;
        assert!(matches!(result, StreamResult::Complete(_)));
        got += data.len();
    }
    assert_eq!(got, accepted);
    {
        let mut read = pin!(received.read(Vec::with_capacity(10)));
        assert!(poll_immediate(&mut read).await.is_none());
        assert!(matches!(read.as_mut().cancel().0, StreamResult::Cancelled));
    }
    {
        let more = async {
            assert!(writer.write_all(b"more".to_vec()).await.is_empty());
            drop(writer);
        };
        let ((result, nothing), ()) = join(received.read(Vec::new()), more).await;
        assert!(matches!(result, StreamResult::Complete(0)) && nothing.is_empty());
    }
    assert_eq!(received.collect().await, b"more");
    sent.await.unwrap();
    end.await.unwrap();
}

/// Who closes without having read what was sent resets the connection.
pub async fn reset(family: IpAddressFamily) {
    let (client, server) = pair(family).await;
    let (mut writer, reader) = wit_stream::new();
    let sent = client.send(reader);
    assert!(writer.write_all(b"never read".to_vec()).await.is_empty());
    drop(server);
    let (mut received, end) = client.receive();
    // Asking whether there is something to read does not take the error away.
    assert!(matches!(received.read(Vec::new()).await.0, StreamResult::Complete(0) | StreamResult::Dropped));
    assert_eq!(received.collect().await, b"");
    assert_eq!(code(end.await), "ConnectionReset");
    while writer.write_all(vec![0; 1000]).await.is_empty() {}
    let failed = code(sent.await);
    assert!(failed == "ConnectionReset" || failed == "ConnectionBroken", "{failed}");
}

/// Streams outlive the handles they came from, and a port is taken until the last of them goes.
pub async fn handles(family: IpAddressFamily) {
    let (listening, mut connections) = listener(family).await;
    let address = listening.get_local_address().unwrap();
    drop(listening);
    let client = TcpSocket::create(family).unwrap();
    let (connected, server) = join(client.connect(address), connections.next()).await;
    connected.unwrap();
    drop(connections);
    let again = TcpSocket::create(family).unwrap();
    assert_eq!(code(again.connect(address).await), "ConnectionRefused");
    let ((received, end), (mut writer, reader)) = (client.receive(), wit_stream::new());
    let sent = server.unwrap().send(reader);
    drop(client);
    assert!(writer.write_all(b"still open".to_vec()).await.is_empty());
    drop(writer);
    assert_eq!(received.collect().await, b"still open");
    join(async { sent.await.unwrap() }, async { end.await.unwrap() }).await;
}

/// Each call in states that do not allow it.
pub async fn states() {
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    assert_eq!(code(socket.get_local_address()), "InvalidState");
    assert_eq!(code(socket.get_remote_address()), "InvalidState");
    let (data, end) = socket.receive();
    assert_eq!(data.collect().await.len(), 0);
    assert_eq!(code(end.await), "InvalidState");
    let (mut writer, reader) = wit_stream::new();
    assert_eq!(code(socket.send(reader).await), "InvalidState");
    assert_eq!(writer.write_all(vec![1]).await, [1], "a closed stream takes nothing");
    socket.bind(v4([0; 4], 0)).unwrap();
    assert_eq!(code(socket.bind(v4([0; 4], 0))), "InvalidState");
    let connections = socket.listen().unwrap();
    assert_eq!(code(socket.listen()), "InvalidState");
    assert_eq!(code(socket.connect(v4([127, 0, 0, 1], 1)).await), "InvalidState");
    drop(connections);

    let (client, _server) = pair(IpAddressFamily::Ipv4).await;
    assert_eq!(code(client.connect(v4([127, 0, 0, 1], 1)).await), "InvalidState");
    assert_eq!(code(client.listen()), "InvalidState");
    let _first = client.receive();
    let (data, end) = client.receive();
    assert_eq!((data.collect().await.len(), code(end.await).as_str()), (0, "InvalidState"));

    // Without a bind, listening takes any free port.
    let unbound = TcpSocket::create(IpAddressFamily::Ipv6).unwrap();
    unbound.set_listen_backlog_size(3).unwrap();
    let _connections = unbound.listen().unwrap();
    assert!(text(unbound.get_local_address().unwrap()).contains("Ipv6"));
    unbound.set_keep_alive_enabled(true).unwrap();
    unbound.set_hop_limit(7).unwrap();
    assert!(unbound.get_keep_alive_enabled().unwrap() && unbound.get_hop_limit().unwrap() == 7);
    assert_eq!(code(unbound.set_hop_limit(0)), "InvalidArgument");
    assert_eq!(code(unbound.set_keep_alive_count(0)), "InvalidArgument");
}

pub async fn errors() {
    let taken = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    taken.bind(v4([0; 4], 7777)).unwrap();
    let _connections = taken.listen().unwrap();
    let mapped = v6([0, 0, 0, 0, 0, 0xffff, 0x7f00, 1], 80);
    for (family, address, expected) in [
        (IpAddressFamily::Ipv4, v4([127, 0, 0, 1], 7777), "AddressInUse"),
        (IpAddressFamily::Ipv4, v4([192, 0, 2, 1], 80), "AddressNotBindable"),
        (IpAddressFamily::Ipv4, v6([0; 8], 0), "InvalidArgument"),
        (IpAddressFamily::Ipv6, v4([0; 4], 0), "InvalidArgument"),
        (IpAddressFamily::Ipv6, mapped, "InvalidArgument"),
        (IpAddressFamily::Ipv4, v4([224, 0, 0, 1], 0), "InvalidArgument"),
    ] {
        let bound = TcpSocket::create(family).unwrap().bind(address);
        assert_eq!(code(bound), expected, "bind {address:?}");
    }
    for (family, address, expected) in [
        (IpAddressFamily::Ipv4, v4([127, 0, 0, 1], 9), "ConnectionRefused"),
        (IpAddressFamily::Ipv6, loopback(IpAddressFamily::Ipv6, 9), "ConnectionRefused"),
        (IpAddressFamily::Ipv4, v4([0; 4], 80), "InvalidArgument"),
        (IpAddressFamily::Ipv4, v4([127, 0, 0, 1], 0), "InvalidArgument"),
        (IpAddressFamily::Ipv4, v6([0, 0, 0, 0, 0, 0, 0, 1], 80), "InvalidArgument"),
        (IpAddressFamily::Ipv6, mapped, "InvalidArgument"),
        (IpAddressFamily::Ipv4, v4([255; 4], 80), "InvalidArgument"),
    ] {
        let socket = TcpSocket::create(family).unwrap();
        assert_eq!(code(socket.connect(address).await), expected, "connect {address:?}");
    }
}

pub async fn denied() {
    for (family, address) in [
        (IpAddressFamily::Ipv4, v4([169, 254, 169, 254], 80)),
        (IpAddressFamily::Ipv6, v6([0xfe80, 0, 0, 0, 0, 0, 0, 1], 80)),
        (IpAddressFamily::Ipv6, v6([0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254], 80)),
    ] {
        let socket = TcpSocket::create(family).unwrap();
        assert_eq!(code(socket.connect(address).await), "AccessDenied", "{address:?}");
        assert_eq!(code(socket.connect(loopback(family, 9)).await), "InvalidState", "a socket that failed is closed");
    }
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).unwrap();
    assert_eq!(code(socket.bind(v4([169, 254, 0, 1], 80))), "AccessDenied");
    socket.bind(v4([127, 0, 0, 1], 0)).expect("a bind that failed can be tried again");
    assert_eq!(code(socket.connect(v4([192, 0, 2, 1], 80)).await), "RemoteUnreachable");
}
