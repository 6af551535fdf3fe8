//! An HTTP handler for tests: `/hello`, `/headers`, `/echo`, `/count`, `/big?BYTES`, `/spin`, `/trap`, `/grow`,
//! `/silent`, `/flood`, `/break`, `/fetch?URL`.

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
            "/fetch" => match fetch(query) {
                Ok((status, body)) => answer(out, status, &body),
                Err(error) => answer(out, 502, error.as_bytes()),
            },
            _ => answer(out, 404, b"no such page\n"),
        }
    }
}

fn start(out: ResponseOutparam, status: u16) -> (OutgoingBody, wasip2::io::streams::OutputStream) {
    let response = OutgoingResponse::new(Fields::new());
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
    });
    drop(stream);
    OutgoingBody::finish(body, None).expect("finish");
}

fn read(stream: &InputStream, mut each: impl FnMut(&[u8])) {
    loop {
        match stream.blocking_read(CHUNK as u64) {
            Ok(chunk) => each(&chunk),
            Err(StreamError::Closed) => return,
            Err(error) => panic!("{error:?}"),
        }
    }
}

/// GETs `http://AUTHORITY/PATH` or whatever scheme is there.
fn fetch(url: &str) -> Result<(u16, Vec<u8>), String> {
    let (scheme, rest) = url.split_once("://").ok_or("not a URL")?;
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let request = OutgoingRequest::new(Fields::new());
    request.set_method(&Method::Get).map_err(|()| "method")?;
    request.set_scheme(Some(&if scheme == "https" { Scheme::Https } else { Scheme::Http })).map_err(|()| "scheme")?;
    request.set_authority(Some(authority)).map_err(|()| "authority")?;
    request.set_path_with_query(Some(path)).map_err(|()| "path")?;
    let future = outgoing_handler::handle(request, None).map_err(|error| format!("{error:?}"))?;
    future.subscribe().block();
    let response = future.get().ok_or("not ready")?.map_err(|()| "taken")?.map_err(|error| format!("{error:?}"))?;
    let mut bytes = Vec::new();
    let body: IncomingBody = response.consume().map_err(|()| "body")?;
    read(&body.stream().map_err(|()| "stream")?, |chunk| bytes.extend_from_slice(chunk));
    Ok((response.status(), bytes))
}
