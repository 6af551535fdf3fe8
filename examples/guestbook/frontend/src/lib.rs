//! The guestbook's page: `GET /` shows the entries, `POST /` signs the book. The entries live behind the name in
//! `BACKEND`, which the pod resolves to the backend's Service.

use wstd::http::{Body, Client, Method, Request, Response, StatusCode};

#[wstd::http_server]
async fn main(request: Request<Body>) -> Result<Response<Body>, wstd::http::Error> {
    let backend = std::env::var("BACKEND").unwrap_or_else(|_| "http://guestbook-backend:8080/".into());
    let method = request.method().clone();
    if method != Method::GET && method != Method::POST {
        return Ok(Response::builder().status(StatusCode::METHOD_NOT_ALLOWED).body(Body::empty())?);
    }
    let mut entry = request.into_body();
    let entry = entry.contents().await?.to_vec();
    let call = Request::builder()
        .method(method)
        .uri(backend.as_str())
        .header("content-length", entry.len())
        .body(Body::from(entry))?;
    match Client::new().send(call).await {
        Ok(answer) => {
            let mut body = answer.into_body();
            let book = String::from_utf8_lossy(body.contents().await?).into_owned();
            let page = format!("Guestbook\n=========\n{book}");
            Ok(Response::new(page.into()))
        }
        Err(error) => {
            let body = format!("the book at {backend} is out of reach: {error}\n");
            Ok(Response::builder().status(StatusCode::BAD_GATEWAY).body(body.into())?)
        }
    }
}
