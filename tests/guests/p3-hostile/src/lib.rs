//! What no guest of WASI 0.3 should get away with: one attack per argument. Those that end in an error print `stopped:
//! ERROR` or `survived`; the others are ended by the host.

use std::fmt::Debug;
use std::pin::pin;

use futures::future::poll_immediate;
use wasip3::filesystem::preopens::get_directories;
use wasip3::filesystem::types::{Descriptor, DescriptorFlags, OpenFlags, PathFlags};
use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, TcpSocket, UdpSocket};
use wasip3::wit_bindgen::StreamResult;
use wasip3::wit_stream;

/// More than any limit of a count allows.
const MANY: usize = 2_000_000;
/// A file's largest size.
const HUGE: u64 = 1 << 40;

#[link(wasm_import_module = "wasi:cli/stdin@0.3.2")]
unsafe extern "C" {
    #[link_name = "[stream-cancel-read-0]read-via-stream"]
    fn cancel_read(stream: u32) -> u32;
    #[link_name = "[stream-drop-readable-0]read-via-stream"]
    fn drop_readable(stream: u32);
    #[link_name = "[async-lower][stream-read-0]read-via-stream"]
    fn read_into(stream: u32, buffer: u32, length: u32) -> u32;
    #[link_name = "read-via-stream"]
    fn open(result: *mut [u32; 2]);
}

struct Run;
wasip3::cli::command::export!(Run);

impl wasip3::exports::cli::run::Guest for Run {
    async fn run() -> Result<(), ()> {
        let args = wasip3::cli::environment::get_arguments();
        match attack(args.get(1).map(String::as_str).unwrap_or_default()).await {
            Ok(()) => println!("survived"),
            Err(error) => println!("stopped: {error}"),
        }
        Ok(())
    }
}

fn text(error: impl Debug) -> String {
    format!("{error:?}")
}

async fn file() -> Result<Descriptor, String> {
    let (root, _) = get_directories().pop().ok_or("no root")?;
    let flags = DescriptorFlags::READ | DescriptorFlags::WRITE;
    root.open_at(PathFlags::empty(), "tmp/file".into(), OpenFlags::CREATE, flags).await.map_err(text)
}

fn listen() -> Result<(TcpSocket, wasip3::wit_bindgen::StreamReader<TcpSocket>), String> {
    let socket = TcpSocket::create(IpAddressFamily::Ipv4).map_err(text)?;
    let address = Ipv4SocketAddress { port: 0, address: (127, 0, 0, 1) };
    socket.bind(IpSocketAddress::Ipv4(address)).map_err(text)?;
    let connections = socket.listen().map_err(text)?;
    Ok((socket, connections))
}

async fn attack(name: &str) -> Result<(), String> {
    match name {
        // Streams that nobody reads.
        "streams" => {
            let file = file().await?;
            for _ in 0..MANY {
                std::mem::forget(file.read_via_stream(0));
            }
        }
        // Joined streams that never end, without a handle of them.
        "joined" => {
            let file = file().await?;
            for _ in 0..MANY {
                drop(file.append_via_stream(wasip3::cli::stdin::read_via_stream().0));
            }
        }
        "tasks" => {
            let socket = UdpSocket::create(IpAddressFamily::Ipv4).map_err(text)?;
            socket.bind(IpSocketAddress::Ipv4(Ipv4SocketAddress { port: 0, address: (127, 0, 0, 1) })).map_err(text)?;
            for _ in 0..MANY {
                let mut receive = Box::pin(socket.receive());
                assert!(poll_immediate(&mut receive).await.is_none());
                std::mem::forget(receive);
            }
        }
        "descriptors" => {
            for _ in 0..MANY {
                std::mem::forget(file().await?);
            }
        }
        "sockets" => {
            let mut hoard = Vec::new();
            for _ in 0..MANY {
                hoard.push(TcpSocket::create(IpAddressFamily::Ipv4).map_err(text)?);
            }
        }
        "half-open" => {
            let (listener, _connections) = listen()?;
            let to = listener.get_local_address().map_err(text)?;
            let mut hoard = Vec::new();
            for _ in 0..MANY {
                let socket = TcpSocket::create(IpAddressFamily::Ipv4).map_err(text)?;
                socket.connect(to).await.map_err(text)?;
                hoard.push(socket);
            }
        }
        // Accepted beyond the limit of sockets: what does not fit waits, and goes on when there is room.
        "accepts" => {
            let (listener, mut connections) = listen()?;
            let to = listener.get_local_address().map_err(text)?;
            let mut hoard = Vec::new();
            while let Ok(socket) = TcpSocket::create(IpAddressFamily::Ipv4) {
                hoard.push(socket);
            }
            hoard[0].connect(to).await.map_err(text)?;
            let mut accept = pin!(connections.next());
            assert!(poll_immediate(&mut accept).await.is_none(), "one socket more than there may be");
            hoard.pop();
            accept.await.ok_or("not accepted")?;
        }
        "unread" => {
            let (listener, mut connections) = listen()?;
            let to = listener.get_local_address().map_err(text)?;
            let mut hoard = Vec::new();
            for _ in 0..100 {
                let socket = TcpSocket::create(IpAddressFamily::Ipv4).map_err(text)?;
                socket.connect(to).await.map_err(text)?;
                let accepted = connections.next().await;
                let (mut writer, reader) = wit_stream::new();
                let sent = socket.send(reader);
                loop {
                    let mut write = Box::pin(writer.write(vec![0; 64 << 10]));
                    if poll_immediate(&mut write).await.is_none() {
                        break;
                    }
                }
                hoard.push((socket, accepted, writer, sent));
            }
        }
        "cancels" => {
            let (_listener, mut connections) = listen()?;
            for _ in 0..20_000 {
                let mut read = pin!(connections.read(Vec::with_capacity(1)));
                assert!(poll_immediate(&mut read).await.is_none());
                assert!(matches!(read.as_mut().cancel().0, StreamResult::Cancelled));
            }
        }
        // A file that is copied to its own end, by the host alone.
        "endless" => {
            let file = file().await?;
            let (mut writer, reader) = wit_stream::new();
            let written = file.append_via_stream(reader);
            writer.write_all(vec![7; 1 << 20]).await;
            drop(writer);
            written.await.map_err(text)?;
            file.append_via_stream(file.read_via_stream(0).0).await.map_err(text)?;
        }
        // A hole of a terabyte, to the log, by the host alone.
        "hole" => {
            let file = file().await?;
            file.set_size(HUGE).await.map_err(text)?;
            wasip3::cli::stdout::write_via_stream(file.read_via_stream(0).0).await.map_err(text)?;
        }
        "datagrams" => {
            let (one, two) = (UdpSocket::create(IpAddressFamily::Ipv4), UdpSocket::create(IpAddressFamily::Ipv4));
            let (one, two) = (one.map_err(text)?, two.map_err(text)?);
            let any = IpSocketAddress::Ipv4(Ipv4SocketAddress { port: 0, address: (127, 0, 0, 1) });
            two.bind(any).map_err(text)?;
            let to = two.get_local_address().map_err(text)?;
            for _ in 0..20_000 {
                one.send(vec![0; 1400], Some(to)).await.map_err(text)?;
            }
        }
        // What waits for a network that does not answer.
        "connects" => {
            let address = Ipv4SocketAddress { port: 80, address: (10, 9, 9, 9) };
            for _ in 0..MANY {
                let socket = Box::leak(Box::new(TcpSocket::create(IpAddressFamily::Ipv4).map_err(text)?));
                let mut connect = Box::pin(socket.connect(IpSocketAddress::Ipv4(address)));
                assert!(poll_immediate(&mut connect).await.is_none());
                std::mem::forget(connect);
            }
        }
        "lookups" => {
            for i in 0..MANY {
                let mut lookup = Box::pin(resolve_addresses(format!("host-{i}.example")));
                if let Some(answer) = poll_immediate(&mut lookup).await {
                    answer.map_err(text)?;
                }
                std::mem::forget(lookup);
            }
        }
        "given-up" => {
            for i in 0..2000 {
                let mut lookup = Box::pin(resolve_addresses(format!("host-{i}.example")));
                assert!(poll_immediate(&mut lookup).await.is_none_or(|answer| answer.is_err()));
                let socket = TcpSocket::create(IpAddressFamily::Ipv4).map_err(text)?;
                let address = Ipv4SocketAddress { port: 80, address: (10, 9, 9, 9) };
                assert!(poll_immediate(&mut Box::pin(socket.connect(IpSocketAddress::Ipv4(address)))).await.is_none());
            }
        }
        "outgoing" => {
            let socket = Box::leak(Box::new(UdpSocket::create(IpAddressFamily::Ipv4).map_err(text)?));
            let address = Ipv4SocketAddress { port: 53, address: (10, 9, 9, 9) };
            for _ in 0..2000 {
                let mut send = Box::pin(socket.send(vec![0; 60_000], Some(IpSocketAddress::Ipv4(address))));
                if poll_immediate(&mut send).await.is_none() {
                    std::mem::forget(send);
                }
            }
        }
        "forged-cancel" => drop(unsafe { cancel_read(4242) }),
        "forged-drop" => unsafe { drop_readable(4242) },
        "idle-cancel" => {
            let mut ends = [0; 2];
            unsafe { open(&mut ends) };
            unsafe { cancel_read(ends[0]) };
        }
        "bad-buffer" => {
            let mut ends = [0; 2];
            unsafe { open(&mut ends) };
            unsafe { read_into(ends[0], 0xffff_0000, 1 << 20) };
        }
        other => panic!("no attack {other:?}"),
    }
    Ok(())
}
