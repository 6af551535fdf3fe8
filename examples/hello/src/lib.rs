//! A web page that says which replica answered.

use wstd::http::{Body, Request, Response, StatusCode};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, wstd::http::Error> {
    match request.uri().path() {
        "/" => {
            let name = std::env::var("HOSTNAME").unwrap_or_else(|_| "nobody".into());
            let greeting = std::env::var("GREETING").unwrap_or_else(|_| "Hello".into());
            Ok(Response::new(format!("{greeting} from {name}\n").into()))
        }
        other => {
            let body = format!("nothing at {other}\n");
            Ok(Response::builder().status(StatusCode::NOT_FOUND).body(body.into())?)
        }
    }
}
