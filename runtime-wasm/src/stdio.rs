//! Where guests' standard output and error go, and where their standard input comes from.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use wasmtime_wasi::cli::{IsTerminal, StdinStream, StdoutStream};
use wasmtime_wasi_io::poll::Pollable;
use wasmtime_wasi_io::streams::{InputStream, OutputStream, StreamError, StreamResult};

use crate::transfer::Pace;
use crate::wakers::Wakers;

/// Most bytes a guest hands over in one write; the next write waits until the sink took them.
pub const MAX_WRITE: usize = 64 << 10;
/// Most bytes of standard input that wait in memory for the guest.
pub const READ_AHEAD: usize = 16 << 10;

/// Takes the bytes of one output stream of a container. Bytes come as the guest wrote them: making lines of them is
/// the sink's business. An HTTP container's instances share one sink.
#[async_trait]
pub trait OutputSink: Send + Sync + 'static {
    /// Takes `data`; the guest's next write waits for this to finish, which is the backpressure. Sinks handle their
    /// own failures: a guest is not told that its log is lost.
    async fn write(&self, data: Bytes);
}

/// A sink that drops everything.
pub struct Discard;

#[async_trait]
impl OutputSink for Discard {
    async fn write(&self, _data: Bytes) {}
}

type Write = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One output stream of one instance: at most one write in flight.
#[derive(Clone)]
pub(crate) struct Output {
    sink: Arc<dyn OutputSink>,
    tty: bool,
    pending: Arc<Mutex<Option<Write>>>,
    /// Who waits for it: each of the guest's streams of WASI 0.3 may.
    waiting: Arc<Wakers>,
}

impl Output {
    /// `tty`: the guest is told that it writes to a terminal.
    pub(crate) fn new(sink: Arc<dyn OutputSink>, tty: bool) -> Output {
        Output { sink, tty, pending: Arc::default(), waiting: Arc::default() }
    }

    /// Waits until the sink took everything that was written.
    pub(crate) async fn drain(&self) {
        std::future::poll_fn(|cx| self.poll_idle(cx)).await;
    }

    fn poll_idle(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut pending = self.pending.lock();
        if let Some(write) = pending.as_mut() {
            std::task::ready!(self.waiting.poll(cx, |cx| write.as_mut().poll(cx)));
            *pending = None;
        }
        Poll::Ready(())
    }

    /// Starts a write; a sink that need not wait is done at once.
    fn start(&self, data: Bytes) {
        let sink = self.sink.clone();
        *self.pending.lock() = Some(Box::pin(async move { sink.write(data).await }));
        let _ = self.poll_idle(&mut Context::from_waker(Waker::noop()));
    }

    fn is_idle(&self) -> bool {
        self.pending.lock().is_none()
    }
}

impl IsTerminal for Output {
    fn is_terminal(&self) -> bool {
        self.tty
    }
}

impl StdoutStream for Output {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn OutputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        self.drain().await;
    }
}

impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        if bytes.len() > MAX_WRITE || !self.is_idle() {
            return Err(StreamError::trap("write exceeds what check-write allowed"));
        }
        if !bytes.is_empty() {
            self.start(bytes);
        }
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(if self.is_idle() { MAX_WRITE } else { 0 })
    }
}

impl AsyncWrite for Output {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<std::io::Result<usize>> {
        std::task::ready!(self.poll_idle(cx));
        let taken = buf.get(..MAX_WRITE).unwrap_or(buf);
        self.start(Bytes::copy_from_slice(taken));
        Poll::Ready(Ok(taken.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.poll_idle(cx).map(Ok)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        self.poll_idle(cx).map(Ok)
    }
}

/// Where standard input comes from: read only while the guest waits for it.
pub type InputSource = Box<dyn AsyncRead + Send + Unpin>;

/// Standard input of one instance; all of the guest's handles to it share it.
#[derive(Clone)]
pub(crate) struct Input {
    state: Arc<Mutex<InputState>>,
    tty: bool,
}

struct InputState {
    /// `None` after the end.
    source: Option<InputSource>,
    ahead: Bytes,
    pace: Pace,
    /// Who waits for the source.
    waiting: Arc<Wakers>,
}

impl Input {
    /// `tty`: the guest is told that it reads from a terminal.
    pub(crate) fn new(source: InputSource, tty: bool) -> Input {
        Input {
            state: Arc::new(Mutex::new(InputState {
                source: Some(source),
                ahead: Bytes::new(),
                pace: Pace::default(),
                waiting: Arc::default(),
            })),
            tty,
        }
    }
}

impl InputState {
    /// Waits until there is something to take, or the end.
    fn poll_ahead(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(source) = self.source.as_mut().filter(|_| self.ahead.is_empty()) else { return Poll::Ready(()) };
        let mut space = BytesMut::zeroed(READ_AHEAD);
        let mut buffer = ReadBuf::new(&mut space);
        // A client that went away in the middle is the end of its input.
        let _ = std::task::ready!(self.waiting.poll(cx, |cx| Pin::new(source).poll_read(cx, &mut buffer)));
        let filled = buffer.filled().len();
        if filled == 0 {
            self.source = None;
        }
        space.truncate(filled);
        self.ahead = space.freeze();
        Poll::Ready(())
    }

    fn take(&mut self, size: usize) -> Bytes {
        self.ahead.split_to(size.min(self.ahead.len()))
    }
}

impl IsTerminal for Input {
    fn is_terminal(&self) -> bool {
        self.tty
    }
}

impl StdinStream for Input {
    fn async_stream(&self) -> Box<dyn AsyncRead + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> Box<dyn InputStream> {
        Box::new(self.clone())
    }
}

#[async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {
        std::future::poll_fn(|cx| self.state.lock().poll_ahead(cx)).await;
    }
}

impl InputStream for Input {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        let mut state = self.state.lock();
        let polled = state.poll_ahead(&mut Context::from_waker(Waker::noop()));
        if polled.is_ready() && state.ahead.is_empty() && size > 0 {
            return Err(StreamError::Closed);
        }
        Ok(state.take(size))
    }
}

impl AsyncRead for Input {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<std::io::Result<()>> {
        let mut state = self.state.lock();
        std::task::ready!(state.pace.poll(cx, false));
        std::task::ready!(state.poll_ahead(cx));
        let data = state.take(buf.remaining());
        state.pace.moved(data.len());
        buf.put_slice(&data);
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Slow(tokio::sync::Semaphore, Mutex<Vec<u8>>);

    #[async_trait]
    impl OutputSink for Slow {
        async fn write(&self, data: Bytes) {
            self.0.acquire().await.unwrap().forget();
            self.1.lock().extend_from_slice(&data);
        }
    }

    #[tokio::test]
    async fn one_write_at_a_time_and_nothing_lost() {
        let sink = Arc::new(Slow(tokio::sync::Semaphore::new(1), Mutex::default()));
        let output = Output::new(sink.clone(), false);
        let mut stream = output.p2_stream();
        assert_eq!(stream.check_write().unwrap(), MAX_WRITE);
        stream.write("one ".into()).unwrap();
        assert_eq!(stream.check_write().unwrap(), MAX_WRITE, "a sink with room takes it at once");
        stream.write("two".into()).unwrap();
        assert_eq!(stream.check_write().unwrap(), 0, "the sink is full");
        assert!(matches!(stream.write("three".into()), Err(StreamError::Trap(_))));
        drop(stream);
        let draining = tokio::spawn(async move { output.drain().await });
        sink.0.add_permits(1);
        draining.await.unwrap();
        assert_eq!(sink.1.lock().as_slice(), b"one two");
    }

    #[tokio::test]
    async fn all_who_wait_are_woken() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let sink = Arc::new(Slow(tokio::sync::Semaphore::new(0), Mutex::default()));
        let output = Output::new(sink.clone(), false);
        output.start("first ".into());
        let writers = ["one ", "two ", "three "].map(|text| {
            let mut output = output.clone();
            tokio::spawn(async move { output.write_all(text.as_bytes()).await })
        });
        let draining = tokio::spawn(async move { output.drain().await });
        tokio::task::yield_now().await;
        sink.0.add_permits(4);
        for task in writers {
            tokio::time::timeout(Duration::from_secs(20), task).await.expect("it is woken").unwrap().unwrap();
        }
        tokio::time::timeout(Duration::from_secs(20), draining).await.expect("it is woken").unwrap();

        let (mut near, far) = tokio::io::duplex(64);
        let input = Input::new(Box::new(far), true);
        let readers = [(); 3].map(|()| {
            let mut input = input.clone();
            tokio::spawn(async move { input.read_u8().await })
        });
        tokio::task::yield_now().await;
        near.write_all(b"abc").await.unwrap();
        let mut got = Vec::new();
        for task in readers {
            got.push(tokio::time::timeout(Duration::from_secs(20), task).await.expect("it is woken").unwrap().unwrap());
        }
        got.sort_unstable();
        assert_eq!(got, b"abc");
    }

    #[tokio::test]
    async fn input_is_read_when_asked_for_and_ends_once() {
        use tokio::io::AsyncWriteExt as _;
        let (mut near, far) = tokio::io::duplex(64);
        let input = Input::new(Box::new(far), true);
        let (mut first, mut second) = (input.p2_stream(), input.p2_stream());
        assert_eq!(first.read(10).unwrap(), "", "nothing yet");
        near.write_all(b"one two").await.unwrap();
        first.ready().await;
        assert_eq!(first.read(4).unwrap(), "one ");
        assert_eq!(second.read(10).unwrap(), "two", "handles share one position");
        drop(near);
        second.ready().await;
        assert!(matches!(first.read(10), Err(StreamError::Closed)));
        assert!(matches!(second.read(10), Err(StreamError::Closed)));
    }
}
