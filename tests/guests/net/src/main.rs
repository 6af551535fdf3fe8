//! What std::net reaches of wasi:sockets beyond a simple connection, all within one pod: backpressure, half-close,
//! non-blocking calls, time-outs, port conflicts, UDP, denied addresses. Prints "ok", or panics where it differs from
//! what a kernel would do.

mod bsd;

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

fn main() {
    for host in ["127.0.0.1", "[::1]"] {
        transfer(host);
        half_close(host);
        datagrams(host);
    }
    binding();
    denied();
    closing();
    reset();
    bsd::exercise();
    println!("ok");
}

fn pair(host: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(format!("{host}:0")).unwrap();
    let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let (server, peer) = listener.accept().unwrap();
    assert_eq!(peer, client.local_addr().unwrap());
    assert_eq!(server.local_addr().unwrap(), client.peer_addr().unwrap());
    (client, server)
}

/// One side writes until the other must read: nothing is lost, and what waits is bounded.
fn transfer(host: &str) {
    let (mut client, mut server) = pair(host);
    client.set_nonblocking(true).unwrap();
    server.set_nonblocking(true).unwrap();
    let mut buffer = vec![0; 100_000];
    assert_eq!(server.read(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    let data: Vec<u8> = (0..3_000_000u32).map(|i| (i % 253) as u8).collect();
    let (mut sent, mut got) = (0, Vec::new());
    let mut blocked = 0;
    while got.len() < data.len() {
        while sent < data.len() {
            match client.write(&data[sent..]) {
                Ok(n) => sent += n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    blocked += 1;
                    break;
                }
                Err(error) => panic!("write: {error}"),
            }
        }
        assert!(sent - got.len() < 1_000_000, "unbounded buffer");
        match server.read(&mut buffer) {
            Ok(n) => got.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(Duration::from_millis(1)),
            Err(error) => panic!("read: {error}"),
        }
    }
    assert!(blocked > 0 && got == data);
}

fn half_close(host: &str) {
    let (mut client, mut server) = pair(host);
    client.set_nodelay(true).ok();
    client.write_all(b"question").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert!(client.write(b"more").is_err());
    let mut text = String::new();
    server.read_to_string(&mut text).unwrap();
    server.write_all(b"answer").unwrap();
    drop(server);
    client.read_to_string(&mut text).unwrap();
    assert_eq!(text, "questionanswer");
}

fn binding() {
    let first = TcpListener::bind("0.0.0.0:7777").unwrap();
    assert_eq!(TcpListener::bind("127.0.0.1:7777").unwrap_err().kind(), ErrorKind::AddrInUse);
    drop(first);
    let _again = TcpListener::bind("127.0.0.1:7777").unwrap();
    assert_eq!(TcpListener::bind("192.0.2.1:80").unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    assert_eq!(TcpStream::connect("127.0.0.1:9").unwrap_err().kind(), ErrorKind::ConnectionRefused);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    assert_eq!(listener.accept().unwrap_err().kind(), ErrorKind::WouldBlock);
    let names: Vec<SocketAddr> = ("localhost", 80).to_socket_addrs().unwrap().collect();
    assert!(names.iter().all(|name| name.ip().is_loopback()) && !names.is_empty());
}

fn datagrams(host: &str) {
    let (one, two) = (UdpSocket::bind(format!("{host}:0")).unwrap(), UdpSocket::bind(format!("{host}:0")).unwrap());
    let (to_one, to_two) = (one.local_addr().unwrap(), two.local_addr().unwrap());
    assert_eq!(one.send_to(b"hello", to_two).unwrap(), 5);
    let mut buffer = [0; 2048];
    assert_eq!(two.recv_from(&mut buffer).unwrap(), (5, to_one));
    two.connect(to_one).unwrap();
    two.send(b"back").unwrap();
    assert_eq!(one.recv_from(&mut buffer).unwrap(), (4, to_two));
    assert_eq!(&buffer[..4], b"back");
    // What does not fit into the buffer is gone; an empty datagram is one.
    one.send_to(b"longer than the buffer", to_two).unwrap();
    one.send_to(b"", to_two).unwrap();
    one.send_to(b"next", to_two).unwrap();
    let mut small = [0; 6];
    assert_eq!((two.recv(&mut small).unwrap(), &small), (6, b"longer"));
    assert_eq!(two.recv(&mut small).unwrap(), 0);
    assert_eq!(two.recv(&mut small).unwrap(), 4);
    // A connected socket hears its peer only.
    let stranger = UdpSocket::bind(format!("{host}:0")).unwrap();
    stranger.send_to(b"psst", to_two).unwrap();
    one.send_to(b"peer", to_two).unwrap();
    assert_eq!(two.recv(&mut buffer).unwrap(), 4);
    assert_eq!(&buffer[..4], b"peer");
    one.set_nonblocking(true).unwrap();
    assert_eq!(one.recv(&mut buffer).unwrap_err().kind(), ErrorKind::WouldBlock);
    let start = Instant::now();
    assert!(stranger.set_read_timeout(Some(Duration::from_millis(20))).is_err() || stranger.recv(&mut buffer).is_err());
    assert!(start.elapsed() < Duration::from_secs(10));
}

fn denied() {
    for address in ["169.254.169.254:80", "[fe80::1]:80", "[fd00:ec2::254]:80"] {
        assert_eq!(TcpStream::connect(address).unwrap_err().kind(), ErrorKind::PermissionDenied, "{address}");
    }
    assert!(TcpStream::connect("0.0.0.0:80").is_err());
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    assert_eq!(socket.send_to(b"x", "169.254.169.254:53").unwrap_err().kind(), ErrorKind::PermissionDenied);
}

/// The peer's end is an end or an error, never a hang.
fn closing() {
    let (mut client, server) = pair("127.0.0.1");
    drop(server);
    assert_eq!(client.read(&mut [0; 10]).unwrap(), 0);
    let mut failed = false;
    for _ in 0..100 {
        failed |= client.write_all(&[0; 10_000]).is_err();
    }
    assert!(failed, "nobody reads this");
}

/// Who closes without having read what was sent resets the connection.
fn reset() {
    let (mut client, server) = pair("127.0.0.1");
    client.write_all(b"never read").unwrap();
    drop(server);
    // The standard library has no kind for it.
    assert!(client.read(&mut [0; 10]).is_err(), "an error, not the end");
    assert!(client.write(b"x").is_err());
}
