//! What `cargo xtask bench runtime` runs in pods, under wasmtime and, built for the machine, natively.

mod work;

fn main() -> std::io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    work::run(&args)
}
