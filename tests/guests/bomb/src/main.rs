//! Allocates and touches memory, a megabyte at a time, up to the number of megabytes given (or for ever).

fn main() {
    let megabytes = std::env::args().nth(1).and_then(|arg| arg.parse().ok()).unwrap_or(usize::MAX);
    let mut hoard = Vec::new();
    while hoard.len() < megabytes {
        hoard.push(vec![hoard.len() as u8; 1 << 20]);
    }
    println!("held {} MiB", hoard.len());
}
