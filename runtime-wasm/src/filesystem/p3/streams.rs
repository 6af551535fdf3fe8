//! Files and directories as streams. Memory is always ready.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use wasmtime::StoreContextMut;
use wasmtime::component::{Destination, Source, StreamConsumer, StreamProducer, StreamResult, VecBuffer};

use super::convert;
use super::types::{DirectoryEntry, ErrorCode};
use crate::filesystem::code;
use crate::filesystem::descriptor::EntryStream;
use crate::filesystem::streams::{FileReader, FileWriter};
use crate::transfer::{JOINED_BYTES, MAX_TRANSFER, Outcome, Pace};
use crate::vfs::VfsError;

/// Entries of a directory given by one call at most.
const MAX_ENTRIES: usize = 64;
/// What an entry counts for, beside bytes of files.
const ENTRY_BYTES: usize = 1 << 10;

/// Goes on with a stream's work, or ends it with the reason.
fn failed(outcome: &mut Outcome<ErrorCode>, error: VfsError) -> Poll<wasmtime::Result<StreamResult>> {
    outcome.fail(convert::code(code(error)));
    Poll::Ready(Ok(StreamResult::Dropped))
}

/// A file's bytes.
pub(super) struct Reading {
    pub(super) file: FileReader,
    pub(super) outcome: Outcome<ErrorCode>,
    pub(super) pace: Pace,
}

impl<D> StreamProducer<D> for Reading {
    type Item = u8;
    type Buffer = bytes::BytesMut;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        destination: Destination<'a, u8, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        ready!(self.pace.poll(cx, finish));
        let mut destination = destination.as_direct(store, JOINED_BYTES);
        let space = destination.remaining();
        if space.is_empty() {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let data = match self.file.next(space.len()) {
            Ok(data) if data.is_empty() => return Poll::Ready(Ok(StreamResult::Dropped)),
            Ok(data) => data,
            Err(error) => return failed(&mut self.outcome, error),
        };
        for (to, from) in space.iter_mut().zip(&*data) {
            *to = *from;
        }
        destination.mark_written(data.len());
        self.pace.moved(data.len());
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// Takes a file's new bytes.
pub(super) struct Writing {
    pub(super) file: FileWriter,
    pub(super) outcome: Outcome<ErrorCode>,
    pub(super) pace: Pace,
}

impl<D> StreamConsumer<D> for Writing {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        ready!(self.pace.poll(cx, finish));
        let mut source = source.as_direct(store);
        let data = source.remaining();
        let data = data.get(..MAX_TRANSFER).unwrap_or(data);
        if let Err(error) = self.file.put(data) {
            return failed(&mut self.outcome, error);
        }
        let written = data.len();
        source.mark_read(written);
        self.pace.moved(written);
        Poll::Ready(Ok(StreamResult::Completed))
    }
}

/// A directory's entries.
pub(super) struct Listing {
    pub(super) entries: EntryStream,
    pub(super) outcome: Outcome<ErrorCode>,
    pub(super) pace: Pace,
}

impl<D> StreamProducer<D> for Listing {
    type Item = DirectoryEntry;
    type Buffer = VecBuffer<DirectoryEntry>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, DirectoryEntry, Self::Buffer>,
        finish: bool,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        ready!(self.pace.poll(cx, finish));
        let space = destination.remaining(&mut store).unwrap_or(MAX_ENTRIES).min(MAX_ENTRIES);
        let mut given = Vec::with_capacity(space);
        let mut result = StreamResult::Completed;
        while given.len() < space {
            match self.entries.next() {
                Ok(Some(entry)) => given.push(convert::directory_entry(entry)),
                Ok(None) => {
                    result = StreamResult::Dropped;
                    break;
                }
                Err(error) => {
                    self.outcome.fail(convert::code(code(error)));
                    result = StreamResult::Dropped;
                    break;
                }
            }
        }
        self.pace.moved(given.len() * ENTRY_BYTES);
        destination.set_buffer(given.into());
        Poll::Ready(Ok(result))
    }
}
