//! A WASI 0.3 HTTP handler: `/echo` streams the request's body back, `/fail` returns an error, `/trap` traps, `/big` sends
//! ten thousand pieces, `/count` counts its instance's requests, `/meet?N` answers when so many requests are in its
//! instance at once, `/wait` for ever, `/spin` never yields, `/trailers` and `/post?URL` are about trailers, all else is
//! `hello PATH`.

use std::sync::atomic::{AtomicU32, Ordering};

use wasip3::clocks::monotonic_clock;
use wasip3::http::client;
use wasip3::http::types::{ErrorCode, Fields, Method, Request, Response, Scheme, Trailers};
use wasip3::wit_bindgen::{self, FutureReader, StreamReader};
use wasip3::{wit_future, wit_stream};

struct Web;
wasip3::http::service::export!(Web);

static COUNT: AtomicU32 = AtomicU32::new(0);
static HERE: AtomicU32 = AtomicU32::new(0);

type LateFields = FutureReader<Result<Option<Trailers>, ErrorCode>>;

impl wasip3::exports::http::handler::Guest for Web {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let target = request.get_path_with_query().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((&target, ""));
        match path {
            "/echo" => {
                let (_, done) = wit_future::new(|| Ok(()));
                let (body, _trailers) = Request::consume_body(request, done);
                Ok(answer(body))
            }
            "/fail" => Err(ErrorCode::InternalError(Some("asked to".into()))),
            "/trap" => panic!("asked to"),
            "/big" => Ok(write(10_000, format!("{:09}\n", 7))),
            "/count" => Ok(write(1, COUNT.fetch_add(1, Ordering::Relaxed).to_string())),
            "/meet" => {
                let enough = query.parse().unwrap_or(1);
                HERE.fetch_add(1, Ordering::Relaxed);
                while HERE.load(Ordering::Relaxed) < enough {
                    monotonic_clock::wait_for(1_000_000).await;
                }
                Ok(write(1, format!("{} are here\n", HERE.load(Ordering::Relaxed))))
            }
            "/wait" => loop {
                monotonic_clock::wait_for(1_000_000_000).await;
            },
            "/spin" => loop {
                std::hint::spin_loop();
            },
            "/trailers" => Ok(trailers(request)),
            "/post" => Ok(write(1, post(query, request).await.unwrap_or_else(|error| format!("{error:?}")))),
            _ => Ok(write(1, format!("hello {target} of {}\n", request.get_authority().unwrap_or_default()))),
        }
    }
}

fn write(times: usize, piece: String) -> Response {
    let (mut body, reader) = wit_stream::new();
    wit_bindgen::spawn_local(async move {
        for _ in 0..times {
            if !body.write_all(piece.clone().into_bytes()).await.is_empty() {
                return;
            }
        }
    });
    answer(reader)
}

fn answer(body: StreamReader<u8>) -> Response {
    let (trailers_sent, trailers) = wit_future::new(|| Ok(None));
    let (response, _sent) = Response::new(Fields::new(), Some(body), trailers);
    drop(trailers_sent);
    response
}

fn fields(list: &[(&str, &str)]) -> Fields {
    let list: Vec<_> = list.iter().map(|(name, value)| ((*name).into(), value.as_bytes().to_vec())).collect();
    Fields::from_list(&list).expect("fields")
}

/// Sends the body back, and behind it its size and what the request's own trailer `x-check` said.
fn trailers(request: Request) -> Response {
    let (_, done) = wit_future::new(|| Ok(()));
    let (mut incoming, incoming_trailers) = Request::consume_body(request, done);
    let (mut body, reader) = wit_stream::new();
    let (late, trailers) = wit_future::new(|| Ok(None));
    let fields_sent = fields(&[("trailer", "x-size, x-checked")]);
    let (response, _sent) = Response::new(fields_sent, Some(reader), trailers);
    wit_bindgen::spawn_local(async move {
        let mut size = 0;
        while let Some(byte) = incoming.next().await {
            size += 1;
            body.write_all(vec![byte]).await;
        }
        drop(body);
        let checked = check(incoming_trailers).await;
        let fields = fields(&[("x-size", &size.to_string()), ("x-checked", &checked)]);
        let _ = late.write(Ok(Some(fields))).await;
    });
    response
}

async fn check(trailers: LateFields) -> String {
    match trailers.await {
        Ok(Some(fields)) => {
            fields.get("x-check").first().map_or("none".into(), |value| String::from_utf8_lossy(value).into_owned())
        }
        Ok(None) => "none".into(),
        Err(error) => format!("{error:?}"),
    }
}

/// POSTs the request's body to a URL, its size as the trailer `x-check`; tells the answer's status, size and trailers.
async fn post(url: &str, request: Request) -> Result<String, ErrorCode> {
    let (_, done) = wit_future::new(|| Ok(()));
    let (mut incoming, _) = Request::consume_body(request, done);
    let (mut body, reader) = wit_stream::new();
    let (late, trailers) = wit_future::new(|| Ok(None));
    let sent = fields(&[("trailer", "x-check"), ("te", "trailers")]);
    let (outgoing, _sent) = Request::new(sent, Some(reader), trailers, None);
    let (scheme, rest) = url.split_once("://").unwrap_or(("http", url));
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let scheme = if scheme == "https" { Scheme::Https } else { Scheme::Http };
    let set = outgoing.set_method(&Method::Post).is_ok()
        && outgoing.set_scheme(Some(&scheme)).is_ok()
        && outgoing.set_authority(Some(authority)).is_ok()
        && outgoing.set_path_with_query(Some(path)).is_ok();
    assert!(set, "{url}");
    wit_bindgen::spawn_local(async move {
        let mut size = 0;
        while let Some(byte) = incoming.next().await {
            size += 1;
            body.write_all(vec![byte]).await;
        }
        drop(body);
        let _ = late.write(Ok(Some(fields(&[("x-check", &size.to_string())])))).await;
    });
    let response = client::send(outgoing).await?;
    let status = response.get_status_code();
    let (_, done) = wit_future::new(|| Ok(()));
    let (mut body, trailers) = Response::consume_body(response, done);
    let mut size = 0;
    while body.next().await.is_some() {
        size += 1;
    }
    let trailers = trailers.await?.map(|fields| fields.copy_all()).unwrap_or_default();
    let trailers: String =
        trailers.iter().map(|(name, value)| format!(" {name}={}", String::from_utf8_lossy(value))).collect();
    Ok(format!("{status} {size}{trailers}"))
}
