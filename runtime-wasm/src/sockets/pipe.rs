//! Byte pipes between two ends in this process.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::{Buf as _, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::bindings::Accepted;
use crate::buffers::{BUFFER_BYTES, Buffers, Room};
use crate::http::serve_stream;
use crate::network::{ByteStream, HttpHandler, NetError};

/// Bytes that wait in each direction of a connection before its writer must wait.
pub const PIPE_BYTES: usize = 64 << 10;
/// Bytes of that which a connection has for certain; it gets the rest while its pod's buffers have room.
pub const PIPE_MIN_BYTES: usize = 4 << 10;

/// Puts a new connection into a listener's backlog and returns the connecting side's end. Both directions wait in the
/// listener's pod's `buffers`.
pub(super) fn offer(
    queue: &mpsc::Sender<Accepted>,
    local: SocketAddr,
    peer: SocketAddr,
    buffers: &Arc<Buffers>,
) -> std::result::Result<ByteStream, NetError> {
    let slot = queue.try_reserve().map_err(|_| NetError::ConnectionRefused)?;
    let (near, far) = connection(buffers)?;
    slot.send(Accepted { stream: Box::new(far), local, peer });
    Ok(Box::new(near))
}

/// A byte pipe to an in-process HTTP server, which speaks HTTP/1.1 and, with prior knowledge, HTTP/2 on it. The
/// connection ends when either side closes it or `closed` is cancelled; it is reset at once if the server's pod has no
/// room for it.
pub fn http(handler: Arc<dyn HttpHandler>, closed: CancellationToken) -> ByteStream {
    let admitted = handler.admit();
    let buffers = match &admitted {
        Ok(Some(admitted)) => admitted.buffers().clone(),
        _ => Buffers::new(BUFFER_BYTES),
    };
    match admitted.and_then(|admitted| Ok((admitted, connection(&buffers)?))) {
        Ok((admitted, (near, far))) => {
            tokio::spawn(async move {
                if let Some(Err(error)) = closed.run_until_cancelled(serve_stream(handler, Box::new(far))).await {
                    tracing::debug!(%error, "in-process HTTP connection ended");
                }
                drop(admitted);
            });
            Box::new(near)
        }
        Err(error) => {
            tracing::debug!(%error, "in-process HTTP connection refused");
            Box::new(ResetAtOnce)
        }
    }
}

/// A connection that was reset before its first byte.
struct ResetAtOnce;

impl AsyncRead for ResetAtOnce {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, _: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Poll::Ready(Err(ErrorKind::ConnectionReset.into()))
    }
}

impl AsyncWrite for ResetAtOnce {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<Result<usize>> {
        Poll::Ready(Err(ErrorKind::ConnectionReset.into()))
    }
    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Both ends of a connection that ends as TCP's do: an end that is dropped with bytes it did not read resets it, any
/// other end is a close.
fn connection(buffers: &Arc<Buffers>) -> std::result::Result<(End, End), NetError> {
    let way = || Ok(Arc::new(Mutex::new(Way::new(buffers.reserve(PIPE_MIN_BYTES as u64)?))));
    let (there, back) = (way()?, way()?);
    Ok((End { incoming: back.clone(), outgoing: there.clone() }, End { incoming: there, outgoing: back }))
}

struct End {
    incoming: Arc<Mutex<Way>>,
    outgoing: Arc<Mutex<Way>>,
}

/// One direction.
struct Way {
    buffer: BytesMut,
    /// What the buffer may hold.
    room: Room,
    /// How it ended, if it did.
    end: Option<Ending>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

#[derive(Clone, Copy, PartialEq)]
enum Ending {
    /// The writer is done; what is in the buffer can still be read.
    Closed,
    /// The reader is gone.
    Unread,
    /// As closed for the reader and as unread for the writer, but as an error.
    Reset,
}

impl Way {
    fn new(room: Room) -> Way {
        Way { buffer: BytesMut::new(), room, end: None, reader: None, writer: None }
    }

    /// Takes as much of `data` as there is room for.
    fn put(&mut self, data: &[u8]) -> usize {
        let wanted = self.buffer.len().saturating_add(data.len()).min(PIPE_BYTES);
        if wanted > self.room.bytes() {
            self.room.grow(wanted.next_power_of_two());
        }
        let size = data.len().min(self.room.bytes().saturating_sub(self.buffer.len()));
        if self.buffer.capacity().saturating_sub(self.buffer.len()) < size {
            let mut larger = BytesMut::with_capacity(self.room.bytes());
            larger.extend_from_slice(&self.buffer);
            self.buffer = larger;
        }
        self.buffer.extend_from_slice(data.get(..size).unwrap_or_default());
        size
    }

    /// Forgets the first bytes. An empty buffer holds no more than the least.
    fn advance(&mut self, size: usize) {
        self.buffer.advance(size);
        if self.buffer.is_empty() && self.room.bytes() > PIPE_MIN_BYTES {
            self.clear();
        }
    }

    fn clear(&mut self) {
        self.buffer = BytesMut::new();
        self.room.shrink(PIPE_MIN_BYTES);
    }

    fn end(&mut self, how: Ending) {
        if self.end != Some(Ending::Reset) {
            self.end = Some(how);
        }
        for waker in [self.reader.take(), self.writer.take()].into_iter().flatten() {
            waker.wake();
        }
    }
}

impl AsyncRead for End {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let mut way = self.incoming.lock();
        let size = way.buffer.len().min(space.remaining());
        if size > 0 {
            space.put_slice(way.buffer.get(..size).unwrap_or_default());
            way.advance(size);
            if let Some(writer) = way.writer.take() {
                writer.wake();
            }
            return Poll::Ready(Ok(()));
        }
        match way.end {
            Some(Ending::Reset) => Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
            Some(_) => Poll::Ready(Ok(())),
            None if space.remaining() == 0 => Poll::Ready(Ok(())),
            None => {
                way.reader = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl AsyncWrite for End {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize>> {
        let mut way = self.outgoing.lock();
        match way.end {
            Some(Ending::Reset) => return Poll::Ready(Err(ErrorKind::ConnectionReset.into())),
            Some(_) => return Poll::Ready(Err(Error::from(ErrorKind::BrokenPipe))),
            None => {}
        }
        let size = way.put(data);
        if size == 0 && !data.is_empty() {
            way.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if let Some(reader) = way.reader.take() {
            reader.wake();
        }
        Poll::Ready(Ok(size))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Result<()>> {
        let mut way = self.outgoing.lock();
        if way.end.is_none() {
            way.end(Ending::Closed);
        }
        Poll::Ready(Ok(()))
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let mut incoming = self.incoming.lock();
        let reset = !incoming.buffer.is_empty();
        incoming.clear();
        incoming.end(if reset { Ending::Reset } else { Ending::Unread });
        drop(incoming);
        let mut outgoing = self.outgoing.lock();
        match outgoing.end {
            // The other end is gone as well.
            Some(Ending::Unread | Ending::Reset) => outgoing.clear(),
            _ => outgoing.end(if reset { Ending::Reset } else { Ending::Closed }),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    fn connection() -> (End, End) {
        super::connection(&Buffers::new(BUFFER_BYTES)).unwrap()
    }

    #[tokio::test]
    async fn buffers_are_their_pods() {
        const LEAST: u64 = 2 * PIPE_MIN_BYTES as u64;
        let buffers = Buffers::new(3 * PIPE_BYTES as u64);
        let (mut one, mut two) = super::connection(&buffers).unwrap();
        assert_eq!(buffers.used(), LEAST);
        let data = vec![7; 2 * PIPE_BYTES];
        assert_eq!(one.write(&data).await.unwrap(), PIPE_BYTES);
        assert_eq!(buffers.used(), PIPE_BYTES as u64 + PIPE_MIN_BYTES as u64);
        // The half for more than the least is used up: the next connection has the least, and works.
        let (mut three, mut four) = super::connection(&buffers).unwrap();
        assert_eq!(three.write(&data).await.unwrap(), PIPE_MIN_BYTES);
        assert!(futures::poll!(Box::pin(three.write(&data))).is_pending());
        let mut got = vec![0; PIPE_BYTES];
        four.read_exact(&mut got[..PIPE_MIN_BYTES]).await.unwrap();
        assert_eq!(three.write(&data).await.unwrap(), PIPE_MIN_BYTES);
        // What is read is free again.
        two.read_exact(&mut got).await.unwrap();
        assert_eq!(buffers.used(), 2 * LEAST);
        let all: Vec<_> = std::iter::from_fn(|| super::connection(&buffers).ok()).collect();
        assert_eq!(all.len() as u64, 3 * PIPE_BYTES as u64 / LEAST - 2);
        drop((all, one, two, three, four));
        assert_eq!(buffers.used(), 0);
    }

    #[tokio::test]
    async fn ends_as_tcp_does() {
        // Everything read: a close.
        let (mut one, mut two) = connection();
        one.write_all(b"hello").await.unwrap();
        assert_eq!(two.read(&mut [0; 10]).await.unwrap(), 5);
        two.write_all(b"bye").await.unwrap();
        drop(two);
        let mut text = String::new();
        one.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "bye");
        assert_eq!(one.write(b"x").await.unwrap_err().kind(), ErrorKind::BrokenPipe);

        // Something unread: a reset, once what was sent before it is read.
        let (mut one, mut two) = connection();
        one.write_all(b"hello").await.unwrap();
        two.write_all(b"bye").await.unwrap();
        drop(two);
        assert_eq!(one.read(&mut [0; 10]).await.unwrap(), 3);
        assert_eq!(one.read(&mut [0; 10]).await.unwrap_err().kind(), ErrorKind::ConnectionReset);
        assert_eq!(one.write(b"x").await.unwrap_err().kind(), ErrorKind::ConnectionReset);

        // Half-closed: the other direction goes on.
        let (mut one, mut two) = connection();
        one.shutdown().await.unwrap();
        assert_eq!(two.read(&mut [0; 10]).await.unwrap(), 0);
        two.write_all(b"still").await.unwrap();
        assert_eq!(one.read(&mut [0; 10]).await.unwrap(), 5);
        assert!(one.write(b"x").await.is_err());
    }

    #[tokio::test]
    async fn waiting_ends_are_woken() {
        let (mut one, mut two) = connection();
        let data = vec![7; 10 * PIPE_BYTES];
        let writer = tokio::spawn(async move {
            one.write_all(&data).await.unwrap();
            one
        });
        let mut got = vec![0; 10 * PIPE_BYTES];
        two.read_exact(&mut got).await.unwrap();
        let mut one = writer.await.unwrap();
        let reader = tokio::spawn(async move { one.read(&mut [0; 1]).await });
        tokio::task::yield_now().await;
        drop(two);
        assert_eq!(reader.await.unwrap().unwrap(), 0);
    }
}
