//! Sockets as C has them: the functions of wasi-libc themselves.

use std::ffi::{c_int, c_short, c_void};
use std::io::Error;
use std::mem::{size_of, zeroed};
use std::ptr::{from_mut, from_ref, null, null_mut};

use libc::{
    AF_INET, POLLIN, POLLOUT, SO_ACCEPTCONN, SO_ERROR, SO_KEEPALIVE, SO_RCVBUF, SO_REUSEADDR, SO_SNDBUF, SOCK_DGRAM,
    SOCK_STREAM, SOL_SOCKET, TCP_KEEPIDLE, addrinfo, pollfd, sockaddr_in,
};

const IPPROTO_TCP: c_int = 6;
const SHUT_WR: c_int = 2;

unsafe extern "C" {
    fn send(socket: c_int, data: *const c_void, len: usize, flags: c_int) -> isize;
    fn recv(socket: c_int, data: *mut c_void, len: usize, flags: c_int) -> isize;
    fn shutdown(socket: c_int, how: c_int) -> c_int;
}

#[track_caller]
fn ok(result: c_int) -> c_int {
    assert!(result >= 0, "{}", Error::last_os_error());
    result
}

fn loopback(port: u16) -> sockaddr_in {
    let mut address: sockaddr_in = unsafe { zeroed() };
    address.sin_family = AF_INET as _;
    address.sin_port = port.to_be();
    address.sin_addr.s_addr = u32::from_ne_bytes([127, 0, 0, 1]);
    address
}

#[track_caller]
unsafe fn bound(kind: c_int) -> (c_int, u16) {
    unsafe {
        let socket = ok(libc::socket(AF_INET, kind, 0));
        let mut address = loopback(0);
        let mut len = size_of::<sockaddr_in>() as u32;
        ok(libc::bind(socket, from_ref(&address).cast(), len));
        ok(libc::getsockname(socket, from_mut(&mut address).cast(), &mut len));
        (socket, u16::from_be(address.sin_port))
    }
}

#[track_caller]
unsafe fn set(socket: c_int, level: c_int, name: c_int, value: c_int) {
    ok(unsafe { libc::setsockopt(socket, level, name, from_ref(&value).cast(), 4) });
}

#[track_caller]
unsafe fn get(socket: c_int, level: c_int, name: c_int) -> c_int {
    let (mut value, mut len) = (0, 4);
    ok(unsafe { libc::getsockopt(socket, level, name, from_mut(&mut value).cast(), &mut len) });
    value
}

#[track_caller]
unsafe fn wait(socket: c_int, events: c_short) -> c_short {
    let mut poll = pollfd { fd: socket, events, revents: 0 };
    assert_eq!(unsafe { libc::poll(&mut poll, 1, 10_000) }, 1, "nothing in ten seconds");
    poll.revents
}

pub fn exercise() {
    unsafe {
        stream();
        datagrams();
        names();
    }
}

unsafe fn stream() {
    unsafe {
        let (listener, port) = bound(SOCK_STREAM);
        set(listener, SOL_SOCKET, SO_REUSEADDR, 1);
        ok(libc::listen(listener, 2));
        assert_eq!(get(listener, SOL_SOCKET, SO_ACCEPTCONN), 1);
        let connect = || {
            let client = ok(libc::socket(AF_INET, SOCK_STREAM, 0));
            let mut on: c_int = 1;
            ok(libc::ioctl(client, libc::FIONBIO, from_mut(&mut on)));
            let to = loopback(port);
            if libc::connect(client, from_ref(&to).cast(), size_of::<sockaddr_in>() as u32) < 0 {
                // Some versions of the library say at once how it ended.
                match Error::last_os_error().raw_os_error() {
                    Some(libc::EINPROGRESS) => drop(wait(client, POLLOUT)),
                    error => return (client, error.unwrap()),
                }
            }
            (client, get(client, SOL_SOCKET, SO_ERROR))
        };
        let (client, error) = connect();
        assert_eq!(error, 0);
        let (second, error) = connect();
        assert_eq!(error, 0);
        let (third, error) = connect();
        assert_eq!(error, libc::ECONNREFUSED, "the backlog is full");
        wait(listener, POLLIN);
        let server = ok(libc::accept(listener, null_mut(), null_mut()));
        for socket in [client, server] {
            set(socket, SOL_SOCKET, SO_KEEPALIVE, 1);
            assert_eq!(get(socket, SOL_SOCKET, SO_KEEPALIVE), 1);
            set(socket, IPPROTO_TCP, TCP_KEEPIDLE, 30);
            assert_eq!(get(socket, IPPROTO_TCP, TCP_KEEPIDLE), 30);
            for buffer in [SO_RCVBUF, SO_SNDBUF] {
                set(socket, SOL_SOCKET, buffer, 32 << 10);
                assert!(get(socket, SOL_SOCKET, buffer) >= 32 << 10);
            }
        }
        let mut buffer = [0u8; 64];
        assert_eq!(recv(client, buffer.as_mut_ptr().cast(), 64, 0), -1, "nothing yet, and it does not wait");
        assert_eq!(send(server, b"hello".as_ptr().cast(), 5, 0), 5);
        wait(client, POLLIN);
        assert_eq!(recv(client, buffer.as_mut_ptr().cast(), 64, 0), 5);
        ok(shutdown(client, SHUT_WR));
        assert_eq!(recv(server, buffer.as_mut_ptr().cast(), 64, 0), 0, "the other side is closed");
        assert_eq!(send(server, b"still".as_ptr().cast(), 5, 0), 5);
        wait(client, POLLIN);
        assert_eq!(recv(client, buffer.as_mut_ptr().cast(), 64, 0), 5);
        for socket in [client, second, third, server, listener] {
            ok(libc::close(socket));
        }
    }
}

unsafe fn datagrams() {
    unsafe {
        let ((one, from), (two, to)) = (bound(SOCK_DGRAM), bound(SOCK_DGRAM));
        let len = size_of::<sockaddr_in>() as u32;
        for text in [b"truncated", b"following"] {
            assert_eq!(libc::sendto(one, text.as_ptr().cast(), 9, 0, from_ref(&loopback(to)).cast(), len), 9);
        }
        let (mut buffer, mut peer, mut peer_len) = ([0u8; 64], loopback(0), len);
        let mut take =
            |size| libc::recvfrom(two, buffer.as_mut_ptr().cast(), size, 0, from_mut(&mut peer).cast(), &mut peer_len);
        assert_eq!(take(4), 4);
        assert_eq!(take(64), 9, "what did not fit is gone");
        assert_eq!(&buffer[..9], b"following");
        assert_eq!(u16::from_be(peer.sin_port), from);
        ok(libc::close(one));
        ok(libc::close(two));
    }
}

unsafe fn names() {
    unsafe {
        let mut found: *mut addrinfo = null_mut();
        assert_eq!(libc::getaddrinfo(c"localhost".as_ptr(), null(), null(), &mut found), 0);
        assert!(!found.is_null());
        libc::freeaddrinfo(found);
        assert_ne!(libc::getaddrinfo(c"no.such.name".as_ptr(), null(), null(), &mut found), 0);
    }
}
