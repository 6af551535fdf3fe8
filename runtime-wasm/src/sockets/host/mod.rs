//! The wasi:sockets 0.2 host over [`PodNet`]: all seven interfaces, none of wasmtime's. That of 0.3 is [`p3`].

mod address;
mod lookup;
pub mod p3;
mod stream;
mod task;
mod tcp;
mod tcp_socket;
mod udp;
mod udp_socket;

pub(crate) use lookup::Lookup;

use std::sync::Arc;

use wasmtime::component::{HasData, Linker, Resource, ResourceTable};

use super::podnet::PodNet;
use crate::network::NetError;
use generated::wasi::sockets::{
    instance_network, ip_name_lookup, network, tcp as wasi_tcp, tcp_create_socket, udp as wasi_udp, udp_create_socket,
};
use network::ErrorCode;

mod generated {
    #![allow(missing_docs, unused_qualifications, clippy::all, reason = "generated")]
    wasmtime::component::bindgen!({
        path: "wit",
        world: "copepod:runtime/network",
        imports: { default: trappable },
        require_store_data_send: true,
        trappable_error_type: { "wasi:sockets/network.error-code" => super::SocketFailure },
        with: {
            "wasi:io": wasmtime_wasi_io::bindings::wasi::io,
            "wasi:clocks": wasmtime_wasi::p2::bindings::clocks,
            "wasi:sockets/network.network": super::Network,
            "wasi:sockets/tcp.tcp-socket": super::TcpSocket,
            "wasi:sockets/udp.udp-socket": super::UdpSocket,
            "wasi:sockets/udp.incoming-datagram-stream": super::udp::Incoming,
            "wasi:sockets/udp.outgoing-datagram-stream": super::udp::Outgoing,
            "wasi:sockets/ip-name-lookup.resolve-address-stream": super::lookup::Lookup,
        },
    });
}

/// What the host functions work on: parts of a store's data.
pub struct SocketsCtxView<'a> {
    /// The guest's handles.
    pub table: &'a mut ResourceTable,
    /// The pod's network.
    pub net: &'a Arc<PodNet>,
}

/// A store's data that has sockets.
pub trait SocketsView: Send {
    /// Its parts.
    fn sockets(&mut self) -> SocketsCtxView<'_>;
}

struct Sockets;

impl HasData for Sockets {
    type Data<'a> = SocketsCtxView<'a>;
}

/// Links the seven interfaces of wasi:sockets. wasi:io must come from `wasmtime-wasi-io`. Host functions spawn tasks: the
/// guest must run within a tokio runtime.
pub fn add_to_linker<T: SocketsView + 'static>(linker: &mut Linker<T>) -> wasmtime::Result<()> {
    network::add_to_linker::<T, Sockets>(linker, &network::LinkOptions::default(), T::sockets)?;
    instance_network::add_to_linker::<T, Sockets>(linker, T::sockets)?;
    wasi_tcp::add_to_linker::<T, Sockets>(linker, T::sockets)?;
    tcp_create_socket::add_to_linker::<T, Sockets>(linker, T::sockets)?;
    wasi_udp::add_to_linker::<T, Sockets>(linker, T::sockets)?;
    udp_create_socket::add_to_linker::<T, Sockets>(linker, T::sockets)?;
    ip_name_lookup::add_to_linker::<T, Sockets>(linker, T::sockets)
}

/// The handle `instance-network` gives; the pod's network itself is found by the store.
pub struct Network;

pub use tcp_socket::TcpSocket;
pub use udp_socket::UdpSocket;

/// Why a host function failed: an error the guest sees, or a trap.
#[derive(Debug)]
pub enum SocketFailure {
    /// The guest sees its WASI code.
    Code(ErrorCode),
    /// The guest broke the rules of its handles.
    Trap(wasmtime::Error),
}

type SocketResult<T> = Result<T, SocketFailure>;

impl SocketFailure {
    fn trap(message: &'static str) -> Self {
        Self::Trap(wasmtime::Error::msg(message))
    }
}

impl From<ErrorCode> for SocketFailure {
    fn from(code: ErrorCode) -> Self {
        Self::Code(code)
    }
}

impl From<NetError> for SocketFailure {
    fn from(error: NetError) -> Self {
        Self::Code(code(&error))
    }
}

impl From<wasmtime::Error> for SocketFailure {
    fn from(error: wasmtime::Error) -> Self {
        Self::Trap(error)
    }
}

impl From<wasmtime::component::ResourceTableError> for SocketFailure {
    fn from(error: wasmtime::component::ResourceTableError) -> Self {
        match error {
            wasmtime::component::ResourceTableError::Full => Self::Code(ErrorCode::NewSocketLimit),
            other => Self::Trap(other.into()),
        }
    }
}

fn code(error: &NetError) -> ErrorCode {
    match error {
        NetError::AccessDenied(_) => ErrorCode::AccessDenied,
        NetError::AddressInUse => ErrorCode::AddressInUse,
        NetError::AddressNotBindable => ErrorCode::AddressNotBindable,
        NetError::ConnectionRefused => ErrorCode::ConnectionRefused,
        NetError::ConnectionReset => ErrorCode::ConnectionReset,
        NetError::Unreachable => ErrorCode::RemoteUnreachable,
        NetError::Timeout => ErrorCode::Timeout,
        NetError::NameUnresolvable => ErrorCode::NameUnresolvable,
        NetError::TemporaryResolverFailure => ErrorCode::TemporaryResolverFailure,
        NetError::LimitReached("datagram size") => ErrorCode::DatagramTooLarge,
        NetError::LimitReached(_) => ErrorCode::NewSocketLimit,
        NetError::NotSupported => ErrorCode::NotSupported,
    }
}

impl network::Host for SocketsCtxView<'_> {
    fn convert_error_code(&mut self, error: SocketFailure) -> wasmtime::Result<ErrorCode> {
        match error {
            SocketFailure::Code(code) => Ok(code),
            SocketFailure::Trap(error) => Err(error),
        }
    }

    fn network_error_code(
        &mut self,
        error: Resource<wasmtime_wasi_io::streams::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        Ok(self.table.get(&error)?.downcast_ref::<NetError>().map(code))
    }
}

impl network::HostNetwork for SocketsCtxView<'_> {
    fn drop(&mut self, network: Resource<Network>) -> wasmtime::Result<()> {
        self.table.delete(network)?;
        Ok(())
    }
}

impl instance_network::Host for SocketsCtxView<'_> {
    fn instance_network(&mut self) -> wasmtime::Result<Resource<Network>> {
        Ok(self.table.push(Network)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

    struct Data {
        table: ResourceTable,
        wasi: WasiCtx,
        net: Arc<PodNet>,
    }

    impl WasiView for Data {
        fn ctx(&mut self) -> WasiCtxView<'_> {
            WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
        }
    }

    impl SocketsView for Data {
        fn sockets(&mut self) -> SocketsCtxView<'_> {
            SocketsCtxView { table: &mut self.table, net: &self.net }
        }
    }

    #[test]
    fn sockets_wit_is_the_version_wasmtime_links() {
        let mut linker = Linker::<Data>::new(&wasmtime::Engine::default());
        wasmtime_wasi::p2::add_to_linker_async(&mut linker).unwrap();
        let error = add_to_linker(&mut linker).expect_err("the same names are taken already");
        assert!(format!("{error:?}").contains("defined twice"), "{error:?}");
    }
}
