//! tokio on WASI, one thread: a server and many clients as tasks over the pod's loopback, and a time-out. Prints "ok".

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                write.shutdown().await.unwrap();
            });
        }
    });
    let clients: Vec<_> = (0..20u8)
        .map(|number| {
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                let (mut read, mut write) = stream.split();
                let data = vec![number; 200_000];
                let mut back = Vec::new();
                let (sent, got) = tokio::join!(
                    async {
                        write.write_all(&data).await.unwrap();
                        write.shutdown().await
                    },
                    read.read_to_end(&mut back)
                );
                sent.unwrap();
                got.unwrap();
                assert!(back == data);
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }
    let mut idle = TcpStream::connect(address).await.unwrap();
    let waited = tokio::time::timeout(Duration::from_millis(20), idle.read_u8()).await;
    assert!(waited.is_err(), "nobody sends anything");
    println!("ok");
}
