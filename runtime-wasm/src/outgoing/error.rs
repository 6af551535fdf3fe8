//! Errors as wasi:http names them.

use std::error::Error as StdError;
use std::io::ErrorKind;

use wasmtime_wasi_http::Error;

use crate::network::NetError;

/// What went wrong before there was a response.
pub(super) fn of_hyper(error: hyper::Error) -> Error {
    // Whatever it made of the request: sent in part, never sent, cancelled.
    if let Some(error) = source::<std::io::Error>(&error).and_then(tls_error) {
        return of_tls(error);
    }
    if error.is_parse_too_large() {
        return Error::HttpResponseHeaderSectionSize(None);
    }
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        return Error::ConnectionTerminated;
    }
    if error.is_timeout() {
        return Error::HttpResponseTimeout;
    }
    if let Some(error) = source::<std::io::Error>(&error) {
        return of_io(error);
    }
    if error.is_user() {
        return Error::InternalError(Some(format!("the request cannot be sent: {error}")));
    }
    Error::HttpProtocolError
}

/// What cut a response's body.
pub(super) fn in_body(error: hyper::Error) -> Error {
    if let Some(error) = source::<std::io::Error>(&error) {
        // The one text by which hyper tells trailers that are too large.
        if error.to_string().contains("trailers") {
            return Error::HttpResponseTrailerSectionSize(None);
        }
        if error.kind() == ErrorKind::UnexpectedEof {
            return Error::HttpResponseIncomplete;
        }
    }
    match of_hyper(error) {
        Error::ConnectionTerminated => Error::HttpResponseIncomplete,
        error => error,
    }
}

/// What ended a connection, TLS or not.
pub(super) fn of_io(error: &std::io::Error) -> Error {
    if let Some(error) = tls_error(error) {
        return of_tls(error);
    }
    match error.kind() {
        ErrorKind::TimedOut => Error::ConnectionReadTimeout,
        ErrorKind::InvalidData | ErrorKind::InvalidInput => Error::HttpProtocolError,
        _ => Error::ConnectionTerminated,
    }
}

/// What TLS has to say about it.
pub(super) fn tls_error(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn of_tls(error: &rustls::Error) -> Error {
    match error {
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented => Error::TlsCertificateError,
        rustls::Error::AlertReceived(alert) => {
            Error::TlsAlertReceived { alert_id: Some(u8::from(*alert)), alert_message: Some(format!("{alert:?}")) }
        }
        _ => Error::TlsProtocolError,
    }
}

/// The first error of this type among what caused it.
fn source<'a, E: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a E> {
    std::iter::successors(error.source(), |&error| error.source()).find_map(|error| error.downcast_ref())
}

pub(super) fn net_error(error: NetError) -> Error {
    match error {
        NetError::AccessDenied(_) => Error::DestinationIpProhibited,
        NetError::ConnectionRefused => Error::ConnectionRefused,
        NetError::ConnectionReset => Error::ConnectionTerminated,
        NetError::Unreachable => Error::DestinationIpUnroutable,
        NetError::Timeout => Error::ConnectionTimeout,
        NetError::NameUnresolvable => Error::DnsError { rcode: Some("NXDOMAIN".into()), info_code: None },
        NetError::TemporaryResolverFailure => Error::DnsError { rcode: Some("SERVFAIL".into()), info_code: None },
        NetError::LimitReached(_) => Error::ConnectionLimitReached,
        NetError::AddressInUse | NetError::AddressNotBindable | NetError::NotSupported => {
            Error::InternalError(Some(error.to_string()))
        }
    }
}

/// A body's error as wasi:http knows it.
pub(crate) fn body_error(error: anyhow::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(error) => error,
        Err(error) => Error::InternalError(Some(error.to_string())),
    }
}
