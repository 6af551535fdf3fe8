//! `wasi:http` components as in-process HTTP servers: an instance per request, none while idle.

mod answer;
mod bounded;
mod complaints;
mod connection;
mod crowd;
mod guest;
mod limits;
mod lingering;
mod server;

pub(crate) use bounded::Bounded;
pub use connection::{HEADER_TIMEOUT, serve_stream, serve_with};
pub(crate) use limits::check_headers;
pub use limits::{HttpLimits, MAX_HEADER_BYTES, MAX_HEADERS};
pub(crate) use lingering::Lingering;
pub(crate) use server::HttpServer;
use server::LINGER;
