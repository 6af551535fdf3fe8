//! A WASI 0.3 HTTP handler: `/echo` streams the request's body back, `/fail` returns an error, `/trap` traps, `/big` sends
//! ten thousand pieces, all else is `hello PATH`.

use wasip3::http::types::{ErrorCode, Fields, Request, Response};
use wasip3::wit_bindgen::{self, StreamReader};
use wasip3::{wit_future, wit_stream};

struct Web;
wasip3::http::service::export!(Web);

impl wasip3::exports::http::handler::Guest for Web {
    async fn handle(request: Request) -> Result<Response, ErrorCode> {
        let path = request.get_path_with_query().unwrap_or_default();
        match path.as_str() {
            "/echo" => {
                let (_, done) = wit_future::new(|| Ok(()));
                let (body, _trailers) = Request::consume_body(request, done);
                Ok(answer(body))
            }
            "/fail" => Err(ErrorCode::InternalError(Some("asked to".into()))),
            "/trap" => panic!("asked to"),
            "/big" => Ok(write(10_000, format!("{:09}\n", 7))),
            path => Ok(write(1, format!("hello {path} of {}\n", request.get_authority().unwrap_or_default()))),
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
