//! tokio on WASI, one thread: a server and many clients as tasks over the pod's loopback, datagrams, names and a
//! time-out. Prints "ok"; or "ok, std accepts" where tokio's listener cannot work (see build.rs).

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

#[cfg(accepts)]
mod listen {
    use tokio::net::{TcpListener, TcpStream};

    pub const WORDS: &str = "ok";

    pub async fn bind() -> TcpListener {
        TcpListener::bind("127.0.0.1:0").await.unwrap()
    }

    pub async fn accept(listener: &TcpListener) -> TcpStream {
        listener.accept().await.unwrap().0
    }
}

#[cfg(not(accepts))]
mod listen {
    use std::io::ErrorKind;
    use std::net::TcpListener;
    use std::time::Duration;

    use tokio::net::TcpStream;

    pub const WORDS: &str = "ok, std accepts";

    pub async fn bind() -> TcpListener {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        listener
    }

    pub async fn accept(listener: &TcpListener) -> TcpStream {
        loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(true).unwrap();
                    return TcpStream::from_std(stream).unwrap();
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err(error) => panic!("accept: {error}"),
            }
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listener = listen::bind().await;
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let mut stream = listen::accept(&listener).await;
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
    });
    let clients: Vec<_> = (0..20).map(|number| tokio::spawn(echo(address, number))).collect();
    for client in clients {
        client.await.unwrap();
    }
    let mut idle = TcpStream::connect(address).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(20), idle.read_u8()).await;
    assert!(waited.is_err(), "nobody sends anything");
    datagrams().await;
    println!("{}", listen::WORDS);
}

/// Sends more than the buffers hold and gets it back at the same time.
async fn echo(address: SocketAddr, number: u8) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let (mut read, mut write) = stream.split();
    let data = vec![number; 200_000];
    let mut back = Vec::new();
    let send = async {
        write.write_all(&data).await.unwrap();
        write.shutdown().await
    };
    let (sent, got) = tokio::join!(send, read.read_to_end(&mut back));
    sent.unwrap();
    got.unwrap();
    assert!(back == data);
}

async fn datagrams() {
    let one = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let two = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = two.local_addr().unwrap();
    let mut buffer = [0; 16];
    let (sent, got) = tokio::join!(one.send_to(b"ping", address), two.recv_from(&mut buffer));
    assert_eq!((sent.unwrap(), got.unwrap()), (4, (4, one.local_addr().unwrap())));
    assert_eq!(&buffer[..4], b"ping");
}
