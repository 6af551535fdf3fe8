//! The wasi:sockets 0.3 host: the sockets of 0.2 under the names, types and streams of 0.3.

mod address;
mod streams;
mod tcp;
mod udp;

use std::net::IpAddr;

use wasmtime::component::{Accessor, Linker};

use super::generated::wasi::sockets::network::ErrorCode as P2Code;
use super::{SocketFailure, SocketResult, Sockets, SocketsCtxView, SocketsView, lookup};
use crate::network::NetError;
use generated::wasi::sockets::{ip_name_lookup, types};
use types::ErrorCode;

mod generated {
    #![allow(missing_docs, unused_qualifications, clippy::all, reason = "generated")]
    wasmtime::component::bindgen!({
        path: "wit/p3",
        world: "copepod:runtime/network",
        imports: {
            "wasi:sockets/types.[method]tcp-socket.listen": store | trappable,
            "wasi:sockets/types.[method]tcp-socket.send": store | trappable,
            "wasi:sockets/types.[method]tcp-socket.receive": store | trappable,
            default: trappable,
        },
        require_store_data_send: true,
        trappable_error_type: { "wasi:sockets/types.error-code" => crate::sockets::host::SocketFailure },
        with: {
            "wasi:clocks": wasmtime_wasi::p3::bindings::clocks,
            "wasi:sockets/types.tcp-socket": crate::sockets::host::TcpSocket,
            "wasi:sockets/types.udp-socket": crate::sockets::host::UdpSocket,
        },
    });
}

/// Links wasi:sockets/types and wasi:sockets/ip-name-lookup of WASI 0.3. The engine must support concurrency. Host
/// functions spawn tasks: the guest must run within a tokio runtime.
pub fn add_to_linker<T: SocketsView + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    types::add_to_linker::<T, Sockets>(linker, T::sockets)?;
    ip_name_lookup::add_to_linker::<T, Sockets>(linker, T::sockets)
}

impl types::Host for SocketsCtxView<'_> {
    fn convert_error_code(&mut self, error: SocketFailure) -> wasmtime::Result<ErrorCode> {
        match error {
            SocketFailure::Code(p2) => Ok(code(p2)),
            SocketFailure::Trap(error) => Err(error),
        }
    }
}

/// What goes into a stream's future; a trap goes on.
fn told<T>(result: SocketResult<T>) -> wasmtime::Result<Result<T, ErrorCode>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(SocketFailure::Code(p2)) => Ok(Err(code(p2))),
        Err(SocketFailure::Trap(error)) => Err(error),
    }
}

fn code(code: P2Code) -> ErrorCode {
    match code {
        P2Code::AccessDenied => ErrorCode::AccessDenied,
        P2Code::NotSupported => ErrorCode::NotSupported,
        P2Code::InvalidArgument => ErrorCode::InvalidArgument,
        P2Code::OutOfMemory => ErrorCode::OutOfMemory,
        P2Code::Timeout => ErrorCode::Timeout,
        P2Code::ConcurrencyConflict | P2Code::NotInProgress | P2Code::InvalidState => ErrorCode::InvalidState,
        P2Code::NewSocketLimit => ErrorCode::Other(Some("limit of sockets reached".into())),
        P2Code::AddressNotBindable => ErrorCode::AddressNotBindable,
        P2Code::AddressInUse => ErrorCode::AddressInUse,
        P2Code::RemoteUnreachable => ErrorCode::RemoteUnreachable,
        P2Code::ConnectionRefused => ErrorCode::ConnectionRefused,
        P2Code::ConnectionReset => ErrorCode::ConnectionReset,
        P2Code::ConnectionAborted => ErrorCode::ConnectionAborted,
        P2Code::DatagramTooLarge => ErrorCode::DatagramTooLarge,
        P2Code::Unknown
        | P2Code::WouldBlock
        | P2Code::NameUnresolvable
        | P2Code::TemporaryResolverFailure
        | P2Code::PermanentResolverFailure => ErrorCode::Other(None),
    }
}

impl ip_name_lookup::Host for SocketsCtxView<'_> {}

impl<T: Send + 'static> ip_name_lookup::HostWithStore<T> for Sockets {
    async fn resolve_addresses(
        store: &Accessor<T, Self>,
        name: String,
    ) -> wasmtime::Result<Result<Vec<types::IpAddress>, ip_name_lookup::ErrorCode>> {
        let Ok(task) = store.with(|mut store| lookup::resolve(store.get().net, name)) else {
            return Ok(Err(ip_name_lookup::ErrorCode::InvalidArgument));
        };
        let answers = task.result().await.flatten();
        Ok(answers.map(in_order).map_err(|error| lookup_code(&error)))
    }
}

fn in_order(answers: Vec<IpAddr>) -> Vec<types::IpAddress> {
    answers.into_iter().map(address::ip).collect()
}

fn lookup_code(error: &NetError) -> ip_name_lookup::ErrorCode {
    use ip_name_lookup::ErrorCode as Code;
    match error {
        NetError::AccessDenied(_) => Code::AccessDenied,
        NetError::NameUnresolvable => Code::NameUnresolvable,
        NetError::TemporaryResolverFailure | NetError::Timeout | NetError::Unreachable => {
            Code::TemporaryResolverFailure
        }
        _ => Code::PermanentResolverFailure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_wit_is_the_version_wasmtime_links() {
        let linker = &mut Linker::<crate::ctx::GuestCtx>::new(&wasmtime::Engine::default());
        wasmtime_wasi::p3::add_to_linker(linker).unwrap();
        let error = add_to_linker(linker).expect_err("the same names are taken already");
        assert!(format!("{error:?}").contains("defined twice"), "{error:?}");
    }
}
