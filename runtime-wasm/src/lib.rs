//! Pod sandboxes in wasmtime: engine, compile cache, limits, virtual filesystem, loopback and sockets, HTTP, stdio.
//! Knows wasm and WASI; knows nothing of Kubernetes (invariant 4).

pub mod buffers;
pub mod compile;
mod container;
pub mod ctx;
mod disk;
pub mod engine;
mod exit;
pub mod fair;
pub mod filesystem;
pub mod handles;
mod http;
mod imports;
pub mod instance;
pub mod limits;
mod link;
mod logging;
pub mod network;
pub mod outgoing;
pub mod program;
pub mod rate;
pub mod sandbox;
pub mod sockets;
pub mod stdio;
mod ticker;
mod transfer;
pub mod vfs;
mod wakers;
mod wrap;

pub use crate::http::{HEADER_TIMEOUT, HttpLimits, MAX_HEADER_BYTES, MAX_HEADERS, serve_stream, serve_with};
pub use crate::outgoing::tls::CA_FILE;
pub use compile::LoadError;
pub use container::{Container, ContainerSpec, ExecSpec};
pub use disk::filesystem_bytes;
pub use engine::{AtCapacity, Capacity, Compiler, Runtime, RuntimeConfig, RuntimeError};
pub use exit::{Exit, ExitReason, KILLED, NODE_FAULT, TRAPPED};
pub use fair::{CpuAccount, CpuUsage};
pub use network::{ByteStream, Endpoint, HttpBody, HttpHandler, NetError, Uplink};
pub use program::{Kind, Program};
pub use sandbox::{DEFAULT_HTTP_PORT, Sandbox, SandboxSpec, StartError};
pub use stdio::{InputSource, OutputSink};
pub use ticker::TICK;

#[cfg(test)]
mod tests;
