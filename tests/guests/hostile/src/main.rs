//! What no guest should get away with: one attack per argument. Those that end in an error print `stopped: ERROR` or
//! `survived`; the others are ended by the host.

use std::fs;
use std::hint::black_box;
use std::io::Write;
use std::net::{TcpListener, TcpStream, ToSocketAddrs, UdpSocket};
use std::time::{Duration, Instant};

use wasip2::clocks::monotonic_clock::{now, subscribe_duration};
use wasip2::http::outgoing_handler;
use wasip2::http::types::{Fields, OutgoingRequest, Scheme};
use wasip2::io::poll::poll;
use wasip2::random::random::get_random_bytes;
use wasip2::sockets::instance_network::instance_network;
use wasip2::sockets::ip_name_lookup::resolve_addresses;

/// More than any limit of a count allows.
const MANY: usize = 2_000_000;

mod raw {
    #[link(wasm_import_module = "wasi:random/random@0.2.12")]
    unsafe extern "C" {
        #[link_name = "get-random-bytes"]
        pub fn random_into(len: i64, result: u32);
    }
    #[link(wasm_import_module = "wasi:io/poll@0.2.12")]
    unsafe extern "C" {
        #[link_name = "[method]pollable.block"]
        pub fn block(handle: u32);
        #[link_name = "[resource-drop]pollable"]
        pub fn forget(handle: u32);
        #[link_name = "poll"]
        pub fn poll(list: u32, len: u32, result: u32);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let outcome = attack(args.get(1).map(String::as_str).unwrap_or_default(), args.get(2));
    match outcome {
        Ok(()) => println!("survived"),
        Err(error) => println!("stopped: {error}"),
    }
}

type Outcome = Result<(), Box<dyn std::error::Error>>;

fn attack(name: &str, argument: Option<&String>) -> Outcome {
    let argument = || argument.map(String::as_str).unwrap_or_default();
    match name {
        "spin" => loop {
            black_box(0);
        },
        "spin-calls" => loop {
            black_box(now());
        },
        "memory" => {
            let mut hoard = Vec::new();
            loop {
                hoard.push(vec![1u8; 1 << 20]);
            }
        }
        "recursion" => {
            black_box(deeper(0));
        }
        "exit" => std::process::exit(1),
        "log" => loop {
            println!("{}", "x".repeat(4000));
        },
        "bytes" => {
            let mut file = fs::File::create(format!("{}/bytes", argument()))?;
            loop {
                file.write_all(&[7; 64 << 10])?;
            }
        }
        "inodes" => (0..MANY).try_for_each(|i| fs::File::create(format!("{}/{i}", argument())).map(drop))?,
        "names" => {
            let dir = format!("{}/names", argument());
            fs::write(&dir, "")?;
            (0..MANY).try_for_each(|i| fs::hard_link(&dir, format!("{}/{i:0240}", argument())))?;
        }
        "deep" => {
            let mut path = argument().to_owned();
            for _ in 0..MANY {
                path.push_str("/d");
                fs::create_dir(&path)?;
            }
        }
        "sockets" => {
            let mut hoard = Vec::new();
            for _ in 0..MANY {
                hoard.push(UdpSocket::bind("127.0.0.1:0")?);
            }
        }
        "half-open" => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let mut hoard = Vec::new();
            for _ in 0..MANY {
                hoard.push(TcpStream::connect(listener.local_addr()?)?);
            }
        }
        "unread" => {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let mut hoard = Vec::new();
            for _ in 0..100 {
                let mut stream = TcpStream::connect(listener.local_addr()?)?;
                stream.set_nonblocking(true)?;
                while stream.write(&[0; 64 << 10]).is_ok() {}
                hoard.push(stream);
            }
        }
        "udp" => {
            let (one, two) = (UdpSocket::bind("127.0.0.1:0")?, UdpSocket::bind("127.0.0.1:0")?);
            for _ in 0..50_000 {
                one.send_to(&[0; 1400], two.local_addr()?)?;
            }
        }
        "headers" => {
            let fields = Fields::new();
            for i in 0..MANY {
                fields.append(&format!("x-{i}"), b"some value").map_err(|error| format!("{error:?}"))?;
            }
        }
        "fields" => {
            let mut hoard = Vec::new();
            for _ in 0..MANY {
                let fields = Fields::new();
                for _ in 0..50 {
                    fields.append("x", &[b'x'; 1000]).map_err(|error| format!("{error:?}"))?;
                }
                hoard.push(fields);
            }
        }
        "bodies" => {
            let mut hoard = Vec::new();
            for _ in 0..MANY {
                let request = OutgoingRequest::new(Fields::new());
                let body = request.body().map_err(|()| "no body")?;
                let stream = body.write().map_err(|()| "no stream")?;
                let room = stream.check_write()?;
                stream.write(&vec![7; room as usize])?;
                hoard.push((stream, body, request));
            }
        }
        "requests" => {
            let listeners: Vec<_> = (0..16).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
            let mut hoard = Vec::new();
            for i in 0..2000 {
                let request = OutgoingRequest::new(Fields::new());
                let at = listeners[i % listeners.len()].local_addr()?.to_string();
                request.set_scheme(Some(&Scheme::Http)).map_err(|()| "no scheme")?;
                request.set_path_with_query(Some("/")).map_err(|()| "no path")?;
                request.set_authority(Some(&at)).map_err(|()| "no authority")?;
                hoard.push(outgoing_handler::handle(request, None)?);
            }
            let last = hoard.last().ok_or("no request")?;
            last.subscribe().block();
            last.get().ok_or("no answer")?.map_err(|()| "taken")??;
        }
        "open-files" => {
            let path = format!("{}/open", argument());
            let mut hoard = vec![fs::File::create(&path)?];
            for _ in 0..MANY {
                hoard.push(fs::File::open(&path)?);
            }
        }
        "handles" => {
            for _ in 0..MANY {
                std::mem::forget(subscribe_duration(1));
            }
        }
        "pollables" => {
            let wait = subscribe_duration(u64::MAX);
            let ready = subscribe_duration(0);
            let list: Vec<_> = std::iter::repeat_n(&wait, 1_000_000).chain([&ready]).collect();
            black_box(poll(&list));
        }
        "random" => {
            black_box(get_random_bytes(u64::MAX));
        }
        "random-flood" => {
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(500) {
                black_box(get_random_bytes(1 << 20));
            }
        }
        "forged-handle" => unsafe { raw::block(4242) },
        "forged-drop" => unsafe { raw::forget(4242) },
        "bad-result" => unsafe { raw::random_into(16, 0xffff_fff0) },
        "bad-list" => unsafe { raw::poll(0xffff_0000, 0xffff_ffff, 0) },
        "lookups" => {
            let network = instance_network();
            let mut hoard = Vec::new();
            for i in 0..10_000 {
                hoard.push(resolve_addresses(&network, &format!("host-{i}.example"))?);
            }
        }
        "connect" => drop(TcpStream::connect(argument())?),
        "send" => drop(UdpSocket::bind("0.0.0.0:0")?.send_to(b"x", argument())?),
        "bind" => drop(TcpListener::bind(argument())?),
        "lookup" => drop((argument(), 80).to_socket_addrs()?),
        "read" => println!("{}", fs::read_to_string(argument())?),
        "write" => fs::write(argument(), "escaped")?,
        other => panic!("no attack {other:?}"),
    }
    Ok(())
}

#[expect(unconditional_recursion, reason = "the attack")]
fn deeper(depth: u64) -> u64 {
    black_box(deeper(black_box(depth + 1)) + depth)
}
