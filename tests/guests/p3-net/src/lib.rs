//! What WASI 0.3 has of sockets, all within one pod: connections with half-close, backpressure and resets, datagrams, names,
//! errors. Prints "ok", or panics where it differs from what the interface promises. With `denied`, also what a pod may
//! not do.

mod tcp;
mod udp;

use wasip3::sockets::ip_name_lookup::resolve_addresses;
use wasip3::sockets::types::{
    ErrorCode, IpAddress, IpAddressFamily, IpSocketAddress, Ipv4SocketAddress, Ipv6SocketAddress,
};

struct Run;
wasip3::cli::command::export!(Run);

impl wasip3::exports::cli::run::Guest for Run {
    async fn run() -> Result<(), ()> {
        let args = wasip3::cli::environment::get_arguments();
        let in_a_pod = args.get(1).is_some_and(|arg| arg == "denied");
        for family in [IpAddressFamily::Ipv4, IpAddressFamily::Ipv6] {
            tcp::echo(family).await;
            tcp::backpressure(family).await;
            tcp::reset(family).await;
            tcp::handles(family).await;
            udp::unconnected(family).await;
            udp::connected(family).await;
        }
        tcp::states().await;
        tcp::errors().await;
        udp::errors().await;
        names().await;
        if in_a_pod {
            tcp::denied().await;
            udp::denied().await;
        }
        println!("ok");
        Ok(())
    }
}

/// This machine's own address, and a port.
fn loopback(family: IpAddressFamily, port: u16) -> IpSocketAddress {
    match family {
        IpAddressFamily::Ipv4 => v4([127, 0, 0, 1], port),
        IpAddressFamily::Ipv6 => v6([0, 0, 0, 0, 0, 0, 0, 1], port),
    }
}

fn v4([a, b, c, d]: [u8; 4], port: u16) -> IpSocketAddress {
    IpSocketAddress::Ipv4(Ipv4SocketAddress { port, address: (a, b, c, d) })
}

fn v6([a, b, c, d, e, f, g, h]: [u16; 8], port: u16) -> IpSocketAddress {
    let address = (a, b, c, d, e, f, g, h);
    IpSocketAddress::Ipv6(Ipv6SocketAddress { port, flow_info: 0, address, scope_id: 0 })
}

/// As text, to compare.
fn text(address: impl std::fmt::Debug) -> String {
    format!("{address:?}")
}

/// The name of the code that an operation failed with.
fn code<T>(result: Result<T, ErrorCode>) -> String {
    match result {
        Ok(_) => "none".into(),
        Err(code) => format!("{code:?}").trim_start_matches("ErrorCode::").into(),
    }
}

async fn names() {
    let answers = resolve_addresses("localhost".into()).await.unwrap();
    let is_own = |ip: &IpAddress| matches!(ip, IpAddress::Ipv4((127, ..)) | IpAddress::Ipv6((.., 1)));
    assert!(!answers.is_empty() && answers.iter().all(is_own), "{answers:?}");
    let literals = [("10.1.2.3", IpAddress::Ipv4((10, 1, 2, 3))), ("::1", IpAddress::Ipv6((0, 0, 0, 0, 0, 0, 0, 1)))];
    for (literal, expected) in literals {
        assert_eq!(text(resolve_addresses(literal.into()).await.unwrap()), format!("[{expected:?}]"));
    }
    for (name, expected) in [("no.such.name.invalid", "NameUnresolvable"), ("", "InvalidArgument")] {
        let answer = text(resolve_addresses(name.into()).await.unwrap_err());
        assert!(answer.ends_with(expected), "{name}: {answer}");
    }
}
