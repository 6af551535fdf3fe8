//! What the handles of a guest hold in the host's memory.

use std::any::Any;

use wasmtime_wasi_http::p2::{body, types};
use wasmtime_wasi_http::{FieldMap, p3};

use crate::filesystem::{DIRECTORY_STREAM_BYTES, EntryStream};
use crate::limits::HANDLE_BYTES;
use crate::outgoing::BODY_CHUNK;
use crate::sockets::Lookup;

/// Most bytes of the headers or trailers that a guest makes, with what their table takes.
pub const MAX_FIELDS_BYTES: usize = 64 << 10;
/// What a body that a guest writes holds at most: the parts that wait, and the one on its way.
const BODY_BYTES: u64 = 3 * BODY_CHUNK as u64;
/// What a name lookup, or a request without an answer yet, costs: its task, names, addresses.
const TASK_BYTES: u64 = 2 << 10;

/// Bytes that a handle may hold: the most of its kind, since a look inside would cost the guest more than it saves.
pub(crate) fn bytes_of(entry: &dyn Any) -> u64 {
    const FIELDS: u64 = MAX_FIELDS_BYTES as u64;
    let holds = if entry.is::<FieldMap>()
        || entry.is::<types::HostIncomingRequest>()
        || entry.is::<types::HostIncomingResponse>()
        || entry.is::<body::HostFutureTrailers>()
    {
        FIELDS
    } else if entry.is::<types::HostOutgoingRequest>()
        || entry.is::<types::HostOutgoingResponse>()
        || entry.is::<p3::Request>()
        || entry.is::<p3::Response>()
    {
        FIELDS + BODY_BYTES
    } else if let Some(response) = entry.downcast_ref::<types::HostFutureIncomingResponse>() {
        if matches!(response, types::HostFutureIncomingResponse::Ready(Ok(_))) { FIELDS } else { TASK_BYTES }
    } else if entry.is::<body::HostOutgoingBody>() {
        BODY_BYTES
    } else if entry.is::<EntryStream>() {
        DIRECTORY_STREAM_BYTES as u64
    } else if entry.is::<Lookup>() {
        TASK_BYTES
    } else {
        0
    };
    holds + HANDLE_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_hold_much_costs_much() {
        assert_eq!(bytes_of(&7_u32), HANDLE_BYTES);
        assert_eq!(bytes_of(&FieldMap::new_mutable(MAX_FIELDS_BYTES)), HANDLE_BYTES + MAX_FIELDS_BYTES as u64);
        let (body, _) = body::HostOutgoingBody::new(body::StreamContext::Request, None, 1, BODY_CHUNK);
        assert_eq!(bytes_of(&body), HANDLE_BYTES + BODY_BYTES);
    }
}
