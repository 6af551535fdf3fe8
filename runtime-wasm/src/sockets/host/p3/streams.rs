//! A socket's streams: connections to be accepted, bytes received and bytes to be sent.

use std::io::{Error, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::BytesMut;
use tokio_util::sync::PollSemaphore;
use wasmtime::StoreContextMut;
use wasmtime::component::{Destination, Resource, Source, StreamConsumer, StreamProducer, StreamResult};

use super::types::ErrorCode;
use crate::sockets::SocketsCtxView;
use crate::sockets::host::TcpSocket;
use crate::sockets::host::generated::wasi::sockets::network::IpAddressFamily;
use crate::sockets::host::stream::Duplex;
use crate::sockets::host::tcp_socket::{Acceptor, Options};
use crate::transfer::{JOINED_BYTES, MAX_TRANSFER, Outcome, Pace};

type Polled = Poll<wasmtime::Result<StreamResult>>;

/// What a stream does when it cannot go on now: who cancels gets an answer.
fn or_cancelled(polled: Poll<StreamResult>, finish: bool) -> Polled {
    match polled {
        Poll::Pending if finish => Poll::Ready(Ok(StreamResult::Cancelled)),
        polled => polled.map(Ok),
    }
}

/// The connections of a listening socket. Without a permit for one more socket they stay in the backlog.
pub(super) struct Accepting<D: 'static> {
    pub(super) acceptor: Acceptor,
    pub(super) permits: PollSemaphore,
    pub(super) family: IpAddressFamily,
    pub(super) options: Options,
    pub(super) sockets: for<'a> fn(&'a mut D) -> SocketsCtxView<'a>,
}

impl<D> Accepting<D> {
    fn poll(
        &mut self,
        cx: &mut Context<'_>,
        mut store: StoreContextMut<'_, D>,
        destination: &mut Destination<'_, Resource<TcpSocket>, Option<Resource<TcpSocket>>>,
    ) -> Poll<wasmtime::Result<StreamResult>> {
        loop {
            ready!(self.acceptor.poll_ready(cx));
            if destination.remaining(&mut store) == Some(0) {
                return Poll::Ready(Ok(StreamResult::Completed));
            }
            let permit = ready!(self.permits.poll_acquire(cx));
            let (Some(permit), Some(Ok(accepted))) = (permit, self.acceptor.take()) else {
                // The pod's network is closed.
                return Poll::Ready(Ok(StreamResult::Dropped));
            };
            let ctx = (self.sockets)(store.data_mut());
            // With the pod's buffers full the connection is reset.
            let Ok(permit) = ctx.net.socket_of(permit) else { continue };
            let socket = TcpSocket::of_connection(accepted, permit, ctx.net, self.family, self.options.clone());
            destination.set_buffer(Some(ctx.table.push(socket)?));
            return Poll::Ready(Ok(StreamResult::Completed));
        }
    }
}

impl<D: 'static> StreamProducer<D> for Accepting<D> {
    type Item = Resource<TcpSocket>;
    type Buffer = Option<Resource<TcpSocket>>;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        mut destination: Destination<'a, Self::Item, Self::Buffer>,
        finish: bool,
    ) -> Polled {
        let polled = self.poll(cx, store, &mut destination);
        if polled.is_pending() && finish {
            // No permit is kept for who does not wait.
            self.permits = PollSemaphore::new(self.permits.clone_inner());
            return Poll::Ready(Ok(StreamResult::Cancelled));
        }
        polled
    }
}

/// What a connection brings. Dropping it ends the receiving side.
pub(super) struct Receiving {
    pub(super) duplex: Duplex,
    pub(super) outcome: Outcome<ErrorCode>,
    pub(super) pace: Pace,
}

impl<D> StreamProducer<D> for Receiving {
    type Item = u8;
    type Buffer = BytesMut;

    fn poll_produce<'a>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'a, D>,
        destination: Destination<'a, u8, BytesMut>,
        finish: bool,
    ) -> Polled {
        ready!(self.pace.poll(cx, finish));
        let mut destination = destination.as_direct(store, JOINED_BYTES);
        let space = destination.remaining();
        if space.is_empty() {
            return or_cancelled(self.duplex.poll_readable(cx).map(|()| StreamResult::Completed), finish);
        }
        let polled = self.duplex.poll_receive(cx, space).map(|received| match received {
            Ok(0) => StreamResult::Dropped,
            Ok(received) => {
                destination.mark_written(received);
                self.pace.moved(received);
                StreamResult::Completed
            }
            Err(error) => {
                self.outcome.fail(code(&error));
                StreamResult::Dropped
            }
        });
        or_cancelled(polled, finish)
    }
}

impl Drop for Receiving {
    fn drop(&mut self) {
        self.duplex.shutdown_receive();
    }
}

/// What goes out over a connection. Dropping it ends the sending side.
pub(super) struct Sending {
    pub(super) duplex: Duplex,
    pub(super) outcome: Outcome<ErrorCode>,
    pub(super) pace: Pace,
}

impl<D> StreamConsumer<D> for Sending {
    type Item = u8;

    fn poll_consume(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        store: StoreContextMut<'_, D>,
        source: Source<'_, u8>,
        finish: bool,
    ) -> Polled {
        ready!(self.pace.poll(cx, finish));
        let mut source = source.as_direct(store);
        let data = source.remaining();
        let data = data.get(..MAX_TRANSFER).unwrap_or(data);
        if data.is_empty() {
            return Poll::Ready(Ok(StreamResult::Completed));
        }
        let polled = self.duplex.poll_send(cx, data).map(|sent| match sent.and_then(some) {
            Ok(sent) => {
                source.mark_read(sent);
                self.pace.moved(sent);
                StreamResult::Completed
            }
            Err(error) => {
                self.outcome.fail(code(&error));
                StreamResult::Dropped
            }
        });
        or_cancelled(polled, finish)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.duplex.shutdown_send();
    }
}

/// A connection that takes nothing takes nothing any more.
fn some(sent: usize) -> Result<usize, Error> {
    if sent > 0 { Ok(sent) } else { Err(ErrorKind::BrokenPipe.into()) }
}

fn code(error: &Error) -> ErrorCode {
    match error.kind() {
        ErrorKind::BrokenPipe | ErrorKind::WriteZero | ErrorKind::UnexpectedEof => ErrorCode::ConnectionBroken,
        ErrorKind::TimedOut => ErrorCode::Timeout,
        ErrorKind::ConnectionAborted => ErrorCode::ConnectionAborted,
        _ => ErrorCode::ConnectionReset,
    }
}
