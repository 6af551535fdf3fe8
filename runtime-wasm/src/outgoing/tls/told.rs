//! A TLS connection that tells why it ended.

use std::io::{IoSlice, Result};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;

use crate::network::ByteStream;
use crate::outgoing::error::tls_error;

/// In TLS 1.3 a server may refuse its client after the handshake: it sends an alert and closes. A write that fails
/// because of that fails with the alert.
pub(super) struct Told(pub(super) TlsStream<ByteStream>);

impl Told {
    fn told<T>(&mut self, result: Poll<Result<T>>) -> Poll<Result<T>> {
        let Poll::Ready(Err(error)) = result else { return result };
        let space = &mut [0; 1024];
        let read = Pin::new(&mut self.0).poll_read(&mut Context::from_waker(Waker::noop()), &mut ReadBuf::new(space));
        match read {
            Poll::Ready(Err(why)) if tls_error(&why).is_some() => Poll::Ready(Err(why)),
            _ => Poll::Ready(Err(error)),
        }
    }
}

impl AsyncRead for Told {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, space: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, space)
    }
}

impl AsyncWrite for Told {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<Result<usize>> {
        let result = Pin::new(&mut self.0).poll_write(cx, data);
        self.told(result)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        let result = Pin::new(&mut self.0).poll_flush(cx);
        self.told(result)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let result = Pin::new(&mut self.0).poll_write_vectored(cx, slices);
        self.told(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }
}
