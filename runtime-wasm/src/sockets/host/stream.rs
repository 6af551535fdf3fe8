//! The byte streams of a TCP connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf as _, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf};
use tokio_util::sync::CancellationToken;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{InputStream, OutputStream, StreamError, StreamResult};

use super::task::Task;
use crate::network::{ByteStream, NetError};
use crate::sockets::bindings::TcpBinding;
use crate::sockets::podnet::SocketPermit;
use crate::transfer::MAX_TRANSFER;

/// Bytes read ahead while the guest waits for the stream to become ready.
const READ_AHEAD: usize = 16 << 10;

/// Both directions of a connection, shared by the socket (for shutdown) and its streams.
#[derive(Clone)]
pub(super) struct Duplex {
    reader: Arc<Mutex<Reader>>,
    writer: Arc<Mutex<Writer>>,
}

impl Duplex {
    /// `closed` ends writes that outlive the guest's handles; `held` is dropped with the last of them.
    pub(super) fn new(stream: ByteStream, closed: CancellationToken, held: Held) -> Self {
        let (read, write) = tokio::io::split(stream);
        let held = Arc::new(held);
        Self {
            reader: Arc::new(Mutex::new(Reader {
                half: Some(read),
                ahead: Bytes::new(),
                failure: None,
                _held: held.clone(),
            })),
            writer: Arc::new(Mutex::new(Writer { state: State::Idle(write), closed, _held: held })),
        }
    }

    /// Whether there is something to receive, be it the end.
    pub(super) fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.reader.lock().poll_ready(cx)
    }

    /// Receives into `space`, which is not empty; nothing at the end.
    pub(super) fn poll_receive(&self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<std::io::Result<usize>> {
        self.reader.lock().poll_receive(cx, space)
    }

    /// Whether there is room to send, or a reason that there will be none. Not to be mixed with [`Self::output`].
    pub(super) fn poll_send(&self, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        match &mut self.writer.lock().state {
            State::Idle(half) => Pin::new(half).poll_write(cx, data),
            _ => Poll::Ready(Err(std::io::ErrorKind::BrokenPipe.into())),
        }
    }

    pub(super) fn input(&self) -> Input {
        Input(self.reader.clone())
    }

    pub(super) fn output(&self) -> Output {
        Output(self.writer.clone())
    }

    pub(super) fn shutdown_receive(&self) {
        let mut reader = self.reader.lock();
        reader.half = None;
        reader.ahead = Bytes::new();
        reader.failure = None;
    }

    pub(super) fn shutdown_send(&self) {
        self.writer.lock().shutdown();
    }
}

/// What a connection holds for as long as it is open.
pub(super) struct Held {
    pub(super) _permit: Arc<SocketPermit>,
    pub(super) _binding: Option<TcpBinding>,
}

struct Reader {
    /// `None` after the end or a shutdown.
    half: Option<ReadHalf<ByteStream>>,
    ahead: Bytes,
    /// Why it ended, until that is told.
    failure: Option<std::io::ErrorKind>,
    _held: Arc<Held>,
}

impl Reader {
    /// Fills a part of `space`, which is not empty; nothing at the end.
    fn poll_receive(&mut self, cx: &mut Context<'_>, space: &mut [u8]) -> Poll<std::io::Result<usize>> {
        if !self.ahead.is_empty() {
            let data = self.ahead.split_to(space.len().min(self.ahead.len()));
            for (to, from) in space.iter_mut().zip(&*data) {
                *to = *from;
            }
            return Poll::Ready(Ok(data.len()));
        }
        let Some(half) = &mut self.half else {
            return Poll::Ready(self.failure.take().map_or(Ok(0), |kind| Err(kind.into())));
        };
        let mut buffer = ReadBuf::new(space);
        let result = ready!(Pin::new(half).poll_read(cx, &mut buffer));
        let filled = buffer.filled().len();
        if result.is_err() || filled == 0 {
            self.half = None;
        }
        Poll::Ready(result.map(|()| filled))
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, size: usize) -> Poll<StreamResult<Bytes>> {
        if !self.ahead.is_empty() {
            return Poll::Ready(Ok(self.ahead.split_to(size.min(self.ahead.len()))));
        }
        let mut space = BytesMut::zeroed(size.min(MAX_TRANSFER));
        Poll::Ready(match ready!(self.poll_receive(cx, &mut space)) {
            Ok(0) => Err(StreamError::Closed),
            Ok(filled) => {
                space.truncate(filled);
                Ok(space.freeze())
            }
            Err(error) => Err(failed(&error)),
        })
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ahead.is_empty() {
            let mut space = BytesMut::zeroed(READ_AHEAD);
            match ready!(self.poll_receive(cx, &mut space)) {
                Ok(filled) => {
                    space.truncate(filled);
                    self.ahead = space.freeze();
                }
                Err(error) => self.failure = Some(error.kind()),
            }
        }
        Poll::Ready(())
    }
}

pub(super) struct Input(Arc<Mutex<Reader>>);

#[async_trait::async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.0.lock().poll_ready(cx)).await;
    }
}

#[async_trait::async_trait]
impl InputStream for Input {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        if size == 0 {
            return Ok(Bytes::new());
        }
        match self.0.lock().poll_read(&mut Context::from_waker(Waker::noop()), size) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(Bytes::new()),
        }
    }
}

type Half = WriteHalf<ByteStream>;

struct Writer {
    state: State,
    closed: CancellationToken,
    _held: Arc<Held>,
}

enum State {
    Idle(Half),
    /// What did not fit is being written in the background, so that a guest that only reads from now on is no deadlock.
    Writing(Task<std::io::Result<Half>>),
    /// The last write, then the shutdown.
    Closing(Task<std::io::Result<Half>>),
    Closed,
}

impl Writer {
    fn write(&mut self, mut data: Bytes) -> StreamResult<()> {
        if data.is_empty() {
            return Ok(());
        }
        let mut half = match std::mem::replace(&mut self.state, State::Closed) {
            State::Idle(half) => half,
            State::Closed => return Err(StreamError::Closed),
            busy => {
                self.state = busy;
                return Err(StreamError::trap("write without a permit of check-write"));
            }
        };
        let cx = &mut Context::from_waker(Waker::noop());
        while !data.is_empty() {
            match Pin::new(&mut half).poll_write(cx, &data) {
                Poll::Ready(Ok(0)) => return Err(StreamError::Closed),
                Poll::Ready(Ok(written)) => data.advance(written),
                Poll::Ready(Err(error)) => return Err(failed(&error)),
                Poll::Pending => {
                    self.state = State::Writing(Task::spawn(async move {
                        half.write_all_buf(&mut data).await?;
                        Ok(half)
                    }));
                    return Ok(());
                }
            }
        }
        self.state = State::Idle(half);
        Ok(())
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<StreamResult<()>> {
        let (State::Writing(task) | State::Closing(task)) = &mut self.state else {
            return Poll::Ready(match self.state {
                State::Closed => Err(StreamError::Closed),
                _ => Ok(()),
            });
        };
        let result = ready!(task.poll_take(cx));
        let was_closing = matches!(self.state, State::Closing(_));
        self.state = State::Closed;
        Poll::Ready(match result {
            Ok(Ok(half)) if !was_closing => {
                self.state = State::Idle(half);
                Ok(())
            }
            Ok(Ok(_)) => Err(StreamError::Closed),
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(StreamError::LastOperationFailed(error.into())),
        })
    }

    /// Ends the sending side once what was accepted is written. Goes on when the guest has dropped its handles.
    fn shutdown(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Closed) {
            State::Idle(mut half) => {
                let cx = &mut Context::from_waker(Waker::noop());
                match Pin::new(&mut half).poll_shutdown(cx) {
                    Poll::Ready(_) => State::Closed,
                    Poll::Pending => State::Closing(Task::spawn(async move {
                        half.shutdown().await?;
                        Ok(half)
                    })),
                }
            }
            State::Writing(task) => State::Closing(Task::spawn(async move {
                let mut half = task.result().await.map_err(std::io::Error::other)??;
                half.shutdown().await?;
                Ok(half)
            })),
            other => other,
        };
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // What the guest was told is written gets written, as a kernel would do after a close.
        if let State::Writing(task) | State::Closing(task) = std::mem::replace(&mut self.state, State::Closed) {
            let closed = self.closed.clone();
            tokio::spawn(async move { closed.run_until_cancelled(task.result()).await.map(drop) });
        }
    }
}

pub(super) struct Output(Arc<Mutex<Writer>>);

#[async_trait::async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| {
            let mut writer = self.0.lock();
            match &mut writer.state {
                // The result stays for `check_write` to report.
                State::Writing(task) | State::Closing(task) => task.poll_ready(cx),
                _ => Poll::Ready(()),
            }
        })
        .await;
    }
}

#[async_trait::async_trait]
impl OutputStream for Output {
    fn write(&mut self, data: Bytes) -> StreamResult<()> {
        self.0.lock().write(data)
    }

    fn flush(&mut self) -> StreamResult<()> {
        match self.0.lock().state {
            State::Closed => Err(StreamError::Closed),
            _ => Ok(()),
        }
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match self.0.lock().poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Ok(0),
            Poll::Ready(Ok(())) => Ok(MAX_TRANSFER),
            Poll::Ready(Err(error)) => Err(error),
        }
    }
}

/// A peer that is gone is a closed stream, as after a reset; other failures keep their code.
fn failed(error: &std::io::Error) -> StreamError {
    use std::io::ErrorKind;
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof => StreamError::Closed,
        ErrorKind::TimedOut => StreamError::LastOperationFailed(NetError::Timeout.into()),
        _ => StreamError::LastOperationFailed(NetError::ConnectionReset.into()),
    }
}
