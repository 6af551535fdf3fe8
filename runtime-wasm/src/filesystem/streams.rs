//! Byte streams over files. Memory is always ready.

use bytes::Bytes;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{InputStream, OutputStream, StreamError, StreamResult};

use crate::vfs::{Location, VfsError};

/// Bytes moved by one call at most.
pub(super) const MAX_TRANSFER: usize = 64 << 10;

pub(super) struct FileReader {
    pub(super) at: Location,
    pub(super) position: u64,
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
        let data = self.at.node.read_at(self.position, size.min(MAX_TRANSFER)).map_err(failed)?;
        if data.is_empty() {
            return Err(StreamError::Closed);
        }
        self.position += data.len() as u64;
        Ok(data)
    }
}

pub(super) struct FileWriter {
    pub(super) at: Location,
    /// `None` appends.
    pub(super) position: Option<u64>,
}

#[async_trait::async_trait]
impl Pollable for FileWriter {
    async fn ready(&mut self) {}
}

#[async_trait::async_trait]
impl OutputStream for FileWriter {
    fn write(&mut self, data: Bytes) -> StreamResult<()> {
        match &mut self.position {
            None => self.at.node.append(&data).map_err(failed),
            Some(position) => {
                self.at.node.write_at(*position, &data).map_err(failed)?;
                *position += data.len() as u64;
                Ok(())
            }
        }
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
