//! The work that is measured, with the standard library alone, so that the same source runs in a pod, under wasmtime and
//! natively. Each line of output is a name and a number: nanoseconds per operation, or MiB per second.
//!
//! `now`: when `main` was reached. `park`: sleeps for good. `spin`, `spin-calls`: never end, with and without calls to
//! the host. `tcp-serve ADDR` and `tcp-call ADDR COUNT MIB`, `udp-serve ADDR` and `udp-call ADDR COUNT MIB`: both ends
//! of a connection. `files DIR COUNT`: files below a directory.

use std::fs::{self, File, OpenOptions};
use std::hint::black_box;
use std::io::{Error, Read, Result, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant, SystemTime};

/// Bytes of a message that goes there and back.
const MESSAGE: usize = 64;
/// Bytes of one write of a long stream.
const CHUNK: usize = 64 << 10;
/// Bytes of a datagram.
const DATAGRAM: usize = 1400;
/// Datagrams under way before the next wait for an answer; they fit into any socket's queue.
const WINDOW: usize = 32;
/// Batches that a measurement is cut into.
const BATCHES: usize = 41;
/// First byte of what comes back as it is, and of what is only counted.
const ECHO: u8 = b'e';
const COUNT: u8 = b'c';
/// Bytes of the file that is read and written, and of one read or write of it.
const FILE: usize = 1 << 20;
const BLOCK: usize = 4 << 10;

/// Does what the arguments say.
pub fn run(args: &[&str]) -> Result<()> {
    match *args {
        ["now"] => {
            let since = SystemTime::UNIX_EPOCH.elapsed().map_err(Error::other)?;
            println!("now {}", since.as_nanos());
            Ok(())
        }
        ["park"] => {
            println!("parked 1");
            loop {
                std::thread::sleep(Duration::from_secs(3600));
            }
        }
        ["spin"] => loop {
            black_box(0);
        },
        ["spin-calls"] => loop {
            black_box(Instant::now());
        },
        ["tcp-serve", address] => tcp_serve(address),
        ["tcp-call", address, count, mib] => tcp_call(address, number(count)?, number(mib)?),
        ["udp-serve", address] => udp_serve(address),
        ["udp-call", address, count, mib] => udp_call(address, number(count)?, number(mib)?),
        ["files", dir, count] => files(dir, number(count)?),
        _ => Err(Error::other(format!("no such work: {args:?}"))),
    }
}

fn number(text: &str) -> Result<usize> {
    text.parse().map_err(|_| Error::other(format!("{text} is no number")))
}

/// Prints the time of one operation: the median of batches, since other programs interrupt some; after a tenth as many
/// that do not count.
fn timed(name: &str, count: usize, mut operation: impl FnMut() -> Result<()>) -> Result<()> {
    for _ in 0..count.div_ceil(10) {
        operation()?;
    }
    let batch = count.div_ceil(BATCHES);
    let mut times = Vec::new();
    for _ in 0..BATCHES {
        let start = Instant::now();
        for _ in 0..batch {
            operation()?;
        }
        times.push(start.elapsed().as_nanos() as f64 / batch as f64);
    }
    times.sort_by(f64::total_cmp);
    println!("{name} {}", times.get(BATCHES / 2).copied().unwrap_or_default());
    Ok(())
}

fn rate(name: &str, bytes: usize, start: Instant) {
    println!("{name} {}", bytes as f64 / f64::from(1 << 20) / start.elapsed().as_secs_f64());
}

fn tcp_serve(address: &str) -> Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("listening {}", listener.local_addr()?.port());
    let mut buffer = vec![0; CHUNK];
    loop {
        let (mut stream, _) = listener.accept()?;
        let mut how = [0];
        stream.read_exact(&mut how)?;
        loop {
            let read = stream.read(&mut buffer)?;
            if read == 0 {
                break;
            }
            if how == [ECHO] {
                stream.write_all(buffer.get(..read).unwrap_or_default())?;
            }
        }
        if how == [COUNT] {
            stream.write_all(&how)?;
        }
    }
}

fn tcp_call(address: &str, count: usize, mib: usize) -> Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&[ECHO])?;
    let mut message = [7; MESSAGE];
    timed("tcp-round-trip", count, || {
        stream.write_all(&message)?;
        stream.read_exact(&mut message)
    })?;
    drop(stream);
    timed("tcp-connect", count.div_ceil(10), || {
        let mut stream = TcpStream::connect(address)?;
        stream.write_all(&[ECHO, 1])?;
        stream.read_exact(&mut [0])
    })?;

    let mut stream = TcpStream::connect(address)?;
    stream.write_all(&[COUNT])?;
    let chunk = vec![7; CHUNK];
    let start = Instant::now();
    let mut sent = 0;
    while sent < mib << 20 {
        stream.write_all(&chunk)?;
        sent += CHUNK;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    stream.read_exact(&mut [0])?;
    rate("tcp-stream", sent, start);
    Ok(())
}

fn udp_serve(address: &str) -> Result<()> {
    let socket = UdpSocket::bind(address)?;
    println!("listening {}", socket.local_addr()?.port());
    let mut buffer = [0; DATAGRAM];
    let mut counted = 0;
    loop {
        let (size, from) = socket.recv_from(&mut buffer)?;
        let data = buffer.get(..size).unwrap_or_default();
        counted += usize::from(data.first() == Some(&COUNT));
        if data.first() == Some(&ECHO) {
            socket.send_to(data, from)?;
        } else if counted == WINDOW {
            socket.send_to(&[COUNT], from)?;
            counted = 0;
        }
    }
}

fn udp_call(address: &str, count: usize, mib: usize) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.connect(address)?;
    let mut message = [ECHO; MESSAGE];
    timed("udp-round-trip", count, || {
        socket.send(&message)?;
        socket.recv(&mut message).map(drop)
    })?;
    let start = Instant::now();
    let mut sent = 0;
    while sent < mib << 20 {
        for _ in 0..WINDOW {
            sent += socket.send(&[COUNT; DATAGRAM])?;
        }
        socket.recv(&mut message)?;
    }
    rate("udp-stream", sent, start);
    Ok(())
}

fn files(dir: &str, count: usize) -> Result<()> {
    let dir = format!("{dir}/bench/below");
    fs::create_dir_all(&dir)?;
    let (large, small) = (format!("{dir}/large"), format!("{dir}/small"));
    fs::write(&large, vec![7; FILE])?;
    timed("files-open", count, || File::open(&large).map(drop))?;
    timed("files-stat", count, || fs::metadata(&large).map(drop))?;
    let mut file = OpenOptions::new().read(true).write(true).open(&large)?;
    let mut block = vec![7; BLOCK];
    let mut at = 0;
    timed("files-read", count, || {
        at = rewound(&mut file, at)? + BLOCK;
        file.read_exact(&mut block)
    })?;
    timed("files-write", count, || {
        at = rewound(&mut file, at)? + BLOCK;
        file.write_all(&block)
    })?;
    drop(file);
    timed("files-make", count, || {
        fs::write(&small, &block)?;
        fs::remove_file(&small)
    })?;
    let whole = count.div_ceil(100);
    let start = Instant::now();
    for _ in 0..whole {
        black_box(fs::read(&large)?);
    }
    rate("files-whole", whole * FILE, start);
    for entry in 0..100 {
        fs::write(format!("{dir}/entry-{entry}"), "")?;
    }
    timed("files-list", whole, || fs::read_dir(&dir)?.try_for_each(|entry| entry.map(drop)))?;
    fs::remove_dir_all(dir)
}

/// The file's position, which starts anew at its end.
fn rewound(file: &mut File, at: usize) -> Result<usize> {
    if at + BLOCK <= FILE {
        return Ok(at);
    }
    file.seek(SeekFrom::Start(0))?;
    Ok(0)
}
