//! An HTTP handler for tests: `/hello`, `/headers`, `/echo`, `/count`, `/big?BYTES`, `/spin`, `/trap`, `/grow`,
//! `/silent`, `/flood`, `/break`, `/fetch?URL`, `/trailers`, `/post?URL`, `/switch`, `/many?HEADERS`,
//! `/heavy?URL`.

use std::sync::atomic::{AtomicU32, Ordering};

use wasip2::exports::http::incoming_handler::Guest;
use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    Fields, IncomingBody, IncomingRequest, Method, OutgoingBody, OutgoingRequest, OutgoingResponse, ResponseOutparam,
    Scheme,
};
use wasip2::io::streams::{InputStream, StreamError};

struct Web;
wasip2::http::proxy::export!(Web);

/// What a stream takes at once without asking.
const CHUNK: usize = 4096;
static COUNT: AtomicU32 = AtomicU32::new(0);

impl Guest for Web {
    fn handle(request: IncomingRequest, out: ResponseOutparam) {
        let target = request.path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/hello" => answer(out, 200, b"hello\n"),
            "/headers" => {
                let headers = request.headers().entries();
                let text: String = headers
                    .iter()
                    .map(|(name, value)| format!("{name}: {}\n", String::from_utf8_lossy(value)))
                    .chain([format!("authority {}\n", request.authority().unwrap_or_default())])
                    .collect();
                answer(out, 200, text.as_bytes());
            }
            "/echo" => echo(request, out),
            "/count" => answer(out, 200, COUNT.fetch_add(1, Ordering::Relaxed).to_string().as_bytes()),
            "/big" => answer(out, 200, &vec![b'x'; query.parse().unwrap_or(0)]),
            "/spin" => loop {
                std::hint::spin_loop();
            },
            "/trap" => panic!("asked to"),
            "/grow" => {
                let mut hoard = Vec::new();
                loop {
                    hoard.push(vec![hoard.len() as u8; 1 << 20]);
                }
            }
            "/silent" => {}
            "/flood" => {
                let (body, stream) = start(out, 200);
                while stream.blocking_write_and_flush(&[b'x'; CHUNK]).is_ok() {}
                drop(stream);
                let _ = OutgoingBody::finish(body, None);
            }
            "/break" => {
                let (body, stream) = start(out, 200);
                stream.blocking_write_and_flush(b"half").expect("write");
                let _ = body;
                panic!("in the middle");
            }
            "/heavy" => {
                let fields = (0..101).map(|at| (format!("x-{at}"), b"y".to_vec())).collect::<Vec<_>>();
                let request = to(query, &Method::Get, Fields::from_list(&fields).expect("fields")).expect("request");
                let answered = outgoing_handler::handle(request, None).map(|future| {
                    future.subscribe().block();
                    future.get().map(|answered| answered.map(|answered| answered.map(|response| response.status())))
                });
                answer(out, 200, format!("{answered:?}").as_bytes());
            }
            "/fetch" => match fetch(query) {
                Ok((status, body)) => answer(out, status, &body),
                Err(error) => answer(out, 502, error.as_bytes()),
            },
            "/trailers" => trailers(request, out),
            "/post" => match post(query, request) {
                Ok(text) => answer(out, 200, text.as_bytes()),
                Err(error) => answer(out, 502, error.as_bytes()),
            },
            "/switch" => drop(start(out, 101)),
            "/many" => {
                let headers = (0..query.parse().unwrap_or(0)).map(|at| (format!("x-{at}"), b"y".to_vec()));
                let fields = Fields::from_list(&headers.collect::<Vec<_>>()).expect("fields");
                let response = OutgoingResponse::new(fields);
                let body = response.body().expect("body");
                ResponseOutparam::set(out, Ok(response));
                OutgoingBody::finish(body, None).expect("finish");
            }
            _ => answer(out, 404, b"no such page\n"),
        }
    }
}

fn start(out: ResponseOutparam, status: u16) -> (OutgoingBody, wasip2::io::streams::OutputStream) {
    start_with(out, status, Fields::new())
}

fn start_with(out: ResponseOutparam, status: u16, fields: Fields) -> (OutgoingBody, wasip2::io::streams::OutputStream) {
    let response = OutgoingResponse::new(fields);
    response.set_status_code(status).expect("status");
    let body = response.body().expect("body");
    ResponseOutparam::set(out, Ok(response));
    let stream = body.write().expect("stream");
    (body, stream)
}

fn answer(out: ResponseOutparam, status: u16, bytes: &[u8]) {
    let (body, stream) = start(out, status);
    for chunk in bytes.chunks(CHUNK) {
        stream.blocking_write_and_flush(chunk).expect("write");
    }
    drop(stream);
    OutgoingBody::finish(body, None).expect("finish");
}

fn echo(request: IncomingRequest, out: ResponseOutparam) {
    let (body, stream) = start(out, 200);
    let incoming = request.consume().expect("request body");
    read(&incoming.stream().expect("request stream"), |chunk| {
        chunk.chunks(CHUNK).for_each(|chunk| stream.blocking_write_and_flush(chunk).expect("write"))
    })
    .expect("the request's body");
    drop(stream);
    OutgoingBody::finish(body, None).expect("finish");
}

fn read(stream: &InputStream, mut each: impl FnMut(&[u8])) -> Result<(), String> {
    loop {
        match stream.blocking_read(CHUNK as u64) {
            Ok(chunk) => each(&chunk),
            Err(StreamError::Closed) => return Ok(()),
            Err(StreamError::LastOperationFailed(error)) => return Err(error.to_debug_string()),
        }
    }
}

/// Sends the body back, and behind it its size and what the request's own trailer `x-check` said.
fn trailers(request: IncomingRequest, out: ResponseOutparam) {
    let fields = Fields::from_list(&[("trailer".into(), b"x-size, x-checked".to_vec())]).expect("fields");
    let (body, stream) = start_with(out, 200, fields);
    let incoming = request.consume().expect("request body");
    let mut size = 0;
    read(&incoming.stream().expect("request stream"), |chunk| {
        size += chunk.len();
        chunk.chunks(CHUNK).for_each(|chunk| stream.blocking_write_and_flush(chunk).expect("write"))
    })
    .expect("the request's body");
    drop(stream);
    let checked = trailer(incoming, "x-check").unwrap_or_else(|error| error);
    let fields = [("x-size".into(), size.to_string().into_bytes()), ("x-checked".into(), checked.into_bytes())];
    OutgoingBody::finish(body, Some(Fields::from_list(&fields).expect("trailers"))).expect("finish");
}

/// A trailer of a body that was read to its end.
fn trailer(body: IncomingBody, name: &str) -> Result<String, String> {
    let future = IncomingBody::finish(body);
    future.subscribe().block();
    let trailers = future.get().ok_or("not ready")?.map_err(|()| "taken")?.map_err(|error| format!("{error:?}"))?;
    let values = trailers.map(|fields| fields.get(name)).unwrap_or_default();
    values.first().map(|value| String::from_utf8_lossy(value).into_owned()).ok_or_else(|| "none".into())
}

/// POSTs the request's body to a URL, its size as the trailer `x-check`; tells the answer's status, size and trailers.
fn post(url: &str, request: IncomingRequest) -> Result<String, String> {
    let fields = [("trailer", "x-check"), ("te", "trailers")].map(|(name, value)| (name.into(), value.into()));
    let outgoing = to(url, &Method::Post, Fields::from_list(&fields).map_err(|error| format!("{error:?}"))?)?;
    let body = outgoing.body().map_err(|()| "body")?;
    let stream = body.write().map_err(|()| "stream")?;
    let future = outgoing_handler::handle(outgoing, None).map_err(|error| format!("{error:?}"))?;
    let mut sent = 0;
    let incoming = request.consume().map_err(|()| "request body")?;
    read(&incoming.stream().map_err(|()| "request stream")?, |chunk| {
        sent += chunk.len();
        chunk.chunks(CHUNK).for_each(|chunk| stream.blocking_write_and_flush(chunk).expect("write"))
    })?;
    drop(stream);
    let check = Fields::from_list(&[("x-check".into(), sent.to_string().into_bytes())]);
    OutgoingBody::finish(body, Some(check.map_err(|error| format!("{error:?}"))?))
        .map_err(|error| format!("finish: {error:?}"))?;
    future.subscribe().block();
    let response = future.get().ok_or("not ready")?.map_err(|()| "taken")?.map_err(|error| format!("{error:?}"))?;
    let (status, body) = (response.status(), response.consume().map_err(|()| "body")?);
    let mut size = 0;
    read(&body.stream().map_err(|()| "stream")?, |chunk| size += chunk.len())?;
    let future = IncomingBody::finish(body);
    future.subscribe().block();
    let trailers = future.get().ok_or("not ready")?.map_err(|()| "taken")?.map_err(|error| format!("{error:?}"))?;
    let trailers = trailers.map(|fields| fields.entries()).unwrap_or_default();
    let trailers: String =
        trailers.iter().map(|(name, value)| format!(" {name}={}", String::from_utf8_lossy(value))).collect();
    Ok(format!("{status} {size}{trailers}"))
}

/// A request to a URL.
fn to(url: &str, method: &Method, fields: Fields) -> Result<OutgoingRequest, String> {
    let (scheme, rest) = url.split_once("://").ok_or("not a URL")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let request = OutgoingRequest::new(fields);
    request.set_method(method).map_err(|()| "method")?;
    request.set_scheme(Some(&if scheme == "https" { Scheme::Https } else { Scheme::Http })).map_err(|()| "scheme")?;
    request.set_authority(Some(authority)).map_err(|()| "authority")?;
    request.set_path_with_query(Some(path)).map_err(|()| "path")?;
    Ok(request)
}

/// GETs `http://AUTHORITY/PATH` or whatever scheme is there; `CONNECT:` before it asks for a tunnel.
fn fetch(url: &str) -> Result<(u16, Vec<u8>), String> {
    let (url, method) = url.strip_prefix("CONNECT:").map_or((url, Method::Get), |url| (url, Method::Connect));
    let request = to(url, &method, Fields::new())?;
    let future = outgoing_handler::handle(request, None).map_err(|error| format!("{error:?}"))?;
    future.subscribe().block();
    let response = future.get().ok_or("not ready")?.map_err(|()| "taken")?.map_err(|error| format!("{error:?}"))?;
    let mut bytes = Vec::new();
    let body: IncomingBody = response.consume().map_err(|()| "body")?;
    read(&body.stream().map_err(|()| "stream")?, |chunk| bytes.extend_from_slice(chunk))?;
    Ok((response.status(), bytes))
}
