//! The byte streams of a TCP connection.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead as _, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf, ReadHalf, WriteHalf};
use tokio_util::sync::CancellationToken;
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{InputStream, OutputStream, StreamError, StreamResult};

use super::task::Task;
use crate::buffers::{Buffers, Room};
use crate::network::{ByteStream, NetError};
use crate::sockets::bindings::TcpBinding;
use crate::sockets::podnet::SocketPermit;
use crate::transfer::MAX_TRANSFER;

/// Bytes read ahead while the guest waits for the stream to become ready.
const READ_AHEAD: usize = 16 << 10;
/// Bytes read ahead, and taken from the guest at once, when the pod's buffers are full: part of what a socket costs.
const LEAST: usize = crate::sockets::SOCKET_BYTES as usize / 2;

/// How long what was written may take to be taken once the guest has dropped the connection.
const LINGER: Duration = Duration::from_secs(60);

/// Both directions of a connection, shared by the socket (for shutdown) and its streams.
#[derive(Clone)]
pub(super) struct Duplex {
    reader: Arc<Mutex<Reader>>,
    writer: Arc<Mutex<Writer>>,
}

impl Duplex {
    /// `closed` ends writes that outlive the guest's handles; `held` is dropped with the last of them.
    pub(super) fn new(stream: ByteStream, closed: CancellationToken, buffers: Arc<Buffers>, held: Held) -> Self {
        let (read, write) = tokio::io::split(stream);
        let held = Arc::new(held);
        let reader = Reader {
            half: Some(read),
            ahead: Bytes::new(),
            room: None,
            buffers: buffers.clone(),
            failure: None,
            _held: held.clone(),
        };
        let writer = Writer { state: State::Idle(write), closed, permit: None, buffers, held };
        Self { reader: Arc::new(Mutex::new(reader)), writer: Arc::new(Mutex::new(writer)) }
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
        self.reader.lock().shutdown();
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
    /// What is read ahead beyond the least.
    room: Option<Room>,
    buffers: Arc<Buffers>,
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
            if self.ahead.is_empty() {
                self.room = None;
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
            let data = self.ahead.split_to(size.min(self.ahead.len()));
            if self.ahead.is_empty() {
                self.room = None;
            }
            return Poll::Ready(Ok(data));
        }
        Poll::Ready(match ready!(self.poll_take(cx, size.min(MAX_TRANSFER))) {
            Ok(data) if data.is_empty() => Err(StreamError::Closed),
            Ok(data) => Ok(data),
            Err(error) => Err(failed(&error)),
        })
    }

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.ahead.is_empty() {
            let room = self.buffers.borrow(READ_AHEAD as u64);
            match ready!(self.poll_take(cx, if room.is_some() { READ_AHEAD } else { LEAST })) {
                Ok(data) => (self.ahead, self.room) = (data, room),
                Err(error) => self.failure = Some(error.kind()),
            }
        }
        Poll::Ready(())
    }

    /// What comes next from the connection, `most` bytes at most; nothing at the end. The space for it is not filled
    /// with zeros first, as it is for [`Reader::poll_receive`].
    fn poll_take(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<std::io::Result<Bytes>> {
        let Some(half) = &mut self.half else {
            return Poll::Ready(self.failure.take().map_or(Ok(Bytes::new()), |kind| Err(kind.into())));
        };
        let mut space = BytesMut::with_capacity(most).limit(most);
        let result = ready!(std::pin::pin!(half.read_buf(&mut space)).poll(cx));
        if !matches!(result, Ok(1..)) {
            self.half = None;
        }
        Poll::Ready(result.map(|_| space.into_inner().freeze()))
    }

    fn shutdown(&mut self) {
        (self.half, self.ahead, self.room, self.failure) = (None, Bytes::new(), None, None);
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
    /// What the guest may write next, beyond the least.
    permit: Option<Room>,
    buffers: Arc<Buffers>,
    held: Arc<Held>,
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
    /// How much the guest may write next.
    fn permit(&mut self) -> usize {
        if self.permit.is_none() {
            self.permit = self.buffers.borrow(MAX_TRANSFER as u64);
        }
        if self.permit.is_some() { MAX_TRANSFER } else { LEAST }
    }

    fn write(&mut self, mut data: Bytes) -> StreamResult<()> {
        if data.is_empty() {
            return Ok(());
        }
        if data.len() > LEAST && data.len() > self.permit() {
            return Err(StreamError::trap("write exceeds what check-write allowed"));
        }
        let room = self.permit.take();
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
                        drop(room);
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
            // Meanwhile the connection is still one of the pod's.
            let (closed, held) = (self.closed.clone(), self.held.clone());
            tokio::spawn(async move {
                let _ = closed.run_until_cancelled(tokio::time::timeout(LINGER, task.result())).await;
                drop(held);
            });
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

    /// For the calls that write and wait: they take the least, so nothing is held for them in between.
    async fn write_ready(&mut self) -> StreamResult<usize> {
        std::future::poll_fn(|cx| self.0.lock().poll_ready(cx)).await.map(|()| LEAST)
    }

    fn flush(&mut self) -> StreamResult<()> {
        match self.0.lock().state {
            State::Closed => Err(StreamError::Closed),
            _ => Ok(()),
        }
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        let mut writer = self.0.lock();
        match writer.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Pending => Ok(0),
            Poll::Ready(Ok(())) => Ok(writer.permit()),
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::buffers::BUFFER_BYTES;
    use crate::network::{Endpoint, Uplink};
    use crate::sockets::PodNet;
    use std::net::{IpAddr, SocketAddr};

    struct Nowhere;

    #[async_trait::async_trait]
    impl Uplink for Nowhere {
        async fn connect(&self, _: SocketAddr, _: SocketAddr) -> Result<Endpoint, NetError> {
            Err(NetError::Unreachable)
        }
        async fn resolve(&self, _: &str) -> Result<Vec<IpAddr>, NetError> {
            Err(NetError::NameUnresolvable)
        }
        async fn send_datagram(&self, _: SocketAddr, _: SocketAddr, _: Bytes) -> Result<(), NetError> {
            Err(NetError::Unreachable)
        }
    }

    fn stream(buffers: &Arc<Buffers>) -> (Duplex, tokio::io::DuplexStream) {
        let (_, duplex, far) = connection(buffers);
        (duplex, far)
    }

    fn connection(buffers: &Arc<Buffers>) -> (Arc<PodNet>, Duplex, tokio::io::DuplexStream) {
        let (near, far) = tokio::io::duplex(64);
        let net = PodNet::new(Vec::new(), Arc::new(Nowhere), Default::default());
        let held = Held { _permit: Arc::new(net.socket_permit().unwrap()), _binding: None };
        let duplex = Duplex::new(Box::new(near), net.closed(), buffers.clone(), held);
        (net, duplex, far)
    }

    #[tokio::test(start_paused = true)]
    async fn a_dropped_connection_counts_until_its_last_write_is_done_or_too_late() {
        let buffers = Buffers::new(BUFFER_BYTES);
        for (is_shut_down, is_read) in [(false, true), (false, false), (true, true), (true, false)] {
            let (net, duplex, mut far) = connection(&buffers);
            let mut out = duplex.output();
            out.check_write().unwrap();
            out.write(Bytes::from(vec![7; 1000])).unwrap();
            if is_shut_down {
                duplex.shutdown_send();
            }
            drop((duplex, out));
            tokio::time::sleep(LINGER / 2).await;
            assert_eq!(net.socket_count(), 1, "its write is pending");
            if is_read {
                let mut got = Vec::new();
                tokio::io::AsyncReadExt::read_to_end(&mut far, &mut got).await.unwrap();
                assert_eq!(got, vec![7; 1000]);
                tokio::time::sleep(Duration::from_millis(1)).await;
            } else {
                tokio::time::sleep(LINGER / 2 + Duration::from_millis(10)).await;
            }
            assert_eq!((net.socket_count(), buffers.used()), (0, 0), "shut down: {is_shut_down}, read: {is_read}");
        }
    }

    #[tokio::test]
    async fn a_guest_writes_what_it_was_allowed() {
        let buffers = Buffers::new(BUFFER_BYTES);
        let (duplex, _far) = stream(&buffers);
        let mut out = duplex.output();
        assert!(matches!(out.write(Bytes::from(vec![0; MAX_TRANSFER + 1])), Err(StreamError::Trap(_))));
        assert_eq!(out.check_write().unwrap(), MAX_TRANSFER);
        out.write(Bytes::from(vec![0; MAX_TRANSFER])).unwrap();
        assert_eq!(out.check_write().unwrap(), 0);
        assert_eq!(buffers.used(), MAX_TRANSFER as u64, "what is left to be written is paid for");
        drop((duplex, out, _far));
        tokio::time::timeout(Duration::from_secs(20), async {
            while buffers.used() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .unwrap();

        // Without room it is the least, and works.
        let full = Buffers::new(0);
        let (duplex, mut far) = stream(&full);
        let mut out = duplex.output();
        assert_eq!(out.check_write().unwrap(), LEAST);
        assert!(matches!(out.write(Bytes::from(vec![0; LEAST + 1])), Err(StreamError::Trap(_))));
        out.write(Bytes::from(vec![1; LEAST])).unwrap();
        let mut got = vec![0; LEAST];
        tokio::io::AsyncReadExt::read_exact(&mut far, &mut got).await.unwrap();
        out.ready().await;
        assert_eq!(out.write_ready().await.unwrap(), LEAST);
        tokio::io::AsyncWriteExt::write_all(&mut far, &[7; 64]).await.unwrap();
        let mut input = duplex.input();
        input.ready().await;
        assert_eq!(input.read(100).unwrap(), vec![7; 64]);
    }
}
