//! Byte streams over files. Memory is always ready.

use bytes::Bytes;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{InputStream, OutputStream, StreamError, StreamResult};

pub(super) use crate::transfer::MAX_TRANSFER;
use crate::vfs::{Location, VfsError};

/// A file being read from a position on.
pub(super) struct FileReader {
    pub(super) at: Location,
    pub(super) position: u64,
}

impl FileReader {
    /// The next bytes, at most `size` and [`MAX_TRANSFER`]; none at the end.
    pub(super) fn next(&mut self, size: usize) -> Result<Bytes, VfsError> {
        let data = self.at.node.read_at(self.position, size.min(MAX_TRANSFER))?;
        self.position += data.len() as u64;
        Ok(data)
    }
}

#[async_trait::async_trait]
impl Pollable for FileReader {
    async fn ready(&mut self) {}
}

#[async_trait::async_trait]
impl InputStream for FileReader {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        match self.next(size).map_err(failed)? {
            data if data.is_empty() => Err(StreamError::Closed),
            data => Ok(data),
        }
    }
}

/// A file being written.
pub(super) struct FileWriter {
    pub(super) at: Location,
    /// `None` appends.
    pub(super) position: Option<u64>,
}

impl FileWriter {
    /// Writes all of it or nothing.
    pub(super) fn put(&mut self, data: &[u8]) -> Result<(), VfsError> {
        match &mut self.position {
            None => self.at.node.append(data),
            Some(position) => {
                self.at.node.write_at(*position, data)?;
                *position += data.len() as u64;
                Ok(())
            }
        }
    }
}

#[async_trait::async_trait]
impl Pollable for FileWriter {
    async fn ready(&mut self) {}
}

#[async_trait::async_trait]
impl OutputStream for FileWriter {
    fn write(&mut self, data: Bytes) -> StreamResult<()> {
        self.put(&data).map_err(failed)
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(MAX_TRANSFER)
    }
}

/// The guest gets the code back by `filesystem-error-code`.
fn failed(error: VfsError) -> StreamError {
    StreamError::LastOperationFailed(error.into())
}
