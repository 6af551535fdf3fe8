use super::*;
use crate::identity::Identity;
use axum::body::Body;
use axum::{Extension, Router};
use copepod_api::names::{GROUP_MASTERS, GROUP_NODES, IMAGES_PATH};
use http::{Request, StatusCode};
use tower::ServiceExt;

const LIMIT: u64 = 100_000;

struct Fixture {
    store: Arc<ImageStore>,
    dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    Fixture { store: ImageStore::open(dir.path(), LIMIT).unwrap(), dir }
}

fn module(size: usize) -> Vec<u8> {
    let mut bytes = b"\0asm\x01\0\0\0".to_vec();
    bytes.resize(size.max(8), 7);
    bytes
}
fn digest(content: &[u8]) -> String {
    Digest::from(<[u8; 32]>::from(Sha256::digest(content))).to_string()
}
/// In pieces, as a network brings them.
fn pieces(content: &[u8], size: usize) -> Body {
    let chunks: Vec<_> = content.chunks(size).map(|c| Ok::<_, io::Error>(Bytes::copy_from_slice(c))).collect();
    Body::from_stream(futures::stream::iter(chunks))
}

impl Fixture {
    fn router(&self, group: &str) -> Router {
        self.store.routes().layer(Extension(Identity::new("u", &[group])))
    }
    async fn send(&self, method: &str, path: &str, body: Body) -> (StatusCode, http::HeaderMap, Bytes) {
        let request = Request::builder().method(method).uri(format!("{IMAGES_PATH}{path}")).body(body).unwrap();
        let response = self.router(GROUP_MASTERS).oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        (parts.status, parts.headers, axum::body::to_bytes(body, usize::MAX).await.unwrap())
    }
    /// Code and message of a refusal.
    async fn refused(&self, method: &str, path: &str, body: Body) -> (u16, String) {
        let (code, _, body) = self.send(method, path, body).await;
        let status: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status["kind"], "Status");
        assert_eq!(status["code"], code.as_u16());
        (code.as_u16(), status["message"].as_str().unwrap().to_string())
    }
    fn partial_files(&self) -> usize {
        std::fs::read_dir(self.dir.path().join("partial")).unwrap().count()
    }
}

#[tokio::test]
async fn blobs_come_back_as_they_went_in() {
    let f = fixture();
    for (size, piece) in [(8, 1), (50_000, 3), (LIMIT as usize, 60_000)] {
        let content = module(size);
        let path = format!("/blobs/{}", digest(&content));
        assert_eq!(f.send("GET", &path, Body::empty()).await.0, 404);
        assert_eq!(f.send("HEAD", &path, Body::empty()).await.0, 404);
        assert_eq!(f.send("PUT", &path, pieces(&content, piece)).await.0, 201);
        assert_eq!(f.send("PUT", &path, content.clone().into()).await.0, 201, "again");
        let (code, headers, body) = f.send("GET", &path, Body::empty()).await;
        assert_eq!(
            (code.as_u16(), &headers["content-type"], &*body),
            (200, &"application/wasm".parse().unwrap(), &*content)
        );
        let (code, headers, body) = f.send("HEAD", &path, Body::empty()).await;
        assert_eq!(
            (code.as_u16(), headers["content-length"].to_str().unwrap(), body.len()),
            (200, &*size.to_string(), 0)
        );
        let again = ImageStore::open(f.dir.path(), LIMIT).unwrap();
        assert!(again.blob(&digest(&content).parse().unwrap()).await.unwrap().is_some(), "kept across restarts");
    }
    assert_eq!(f.partial_files(), 0);
}

#[tokio::test]
async fn bad_uploads_leave_nothing() {
    let f = fixture();
    let good = module(100);
    let path = format!("/blobs/{}", digest(&good));
    let (code, message) = f.refused("PUT", &path, module(99).into()).await;
    assert!(
        code == 400 && message.contains("does not match its digest") && message.contains(&digest(&good)),
        "{message}"
    );
    let text = b"#!/bin/sh\n".to_vec();
    for body in [Body::from(text.clone()), pieces(&text, 1)] {
        let (code, message) = f.refused("PUT", &format!("/blobs/{}", digest(&text)), body).await;
        assert!(code == 400 && message.starts_with("not a WebAssembly module: it begins with 23"), "{message}");
    }
    for short in [b"".as_slice(), b"\0as"] {
        let (code, message) = f.refused("PUT", &format!("/blobs/{}", digest(short)), Body::from(short)).await;
        assert!(code == 400 && message.starts_with("not a WebAssembly module"), "{message}");
    }
    let large = module(LIMIT as usize + 1);
    let path_of_large = format!("/blobs/{}", digest(&large));
    let (code, message) = f.refused("PUT", &path_of_large, pieces(&large, 4096)).await;
    assert!(code == 413 && message.contains("at most 100000 bytes"), "{message}");
    let announced = Request::put(format!("{IMAGES_PATH}{path_of_large}")).header("content-length", LIMIT + 1);
    let response = f.router(GROUP_MASTERS).oneshot(announced.body(Body::empty()).unwrap()).await.unwrap();
    assert_eq!(response.status(), 413, "refused before a byte is read");
    let broken = futures::stream::iter([Ok(Bytes::from(module(10))), Err(io::Error::other("connection reset"))]);
    let (code, message) = f.refused("PUT", &path, Body::from_stream(broken)).await;
    assert!(code == 400 && message.contains("broke off: ") && message.contains("connection reset"), "{message}");
    for name in ["sha256:1", "sha512:aa", "../../etc/passwd", &digest(&good).to_uppercase()] {
        let (code, message) =
            f.refused("PUT", &format!("/blobs/{}", name.replace('/', "%2F")), good.clone().into()).await;
        assert!(code == 400 && message.contains("is not a digest"), "{name}: {message}");
    }
    assert_eq!(f.send("GET", &path, Body::empty()).await.0, 404);
    assert_eq!(f.partial_files(), 0);
}

#[tokio::test]
async fn uploads_are_bounded_and_cut_ones_removed() {
    let f = fixture();
    let path = format!("/blobs/{}", digest(&module(10)));
    let mut stuck = Vec::new();
    for _ in 0..MAX_UPLOADS {
        let (sender, body) = tokio::sync::mpsc::channel::<Result<Bytes, io::Error>>(1);
        let body = Body::from_stream(tokio_stream::wrappers::ReceiverStream::new(body));
        let mut upload = Box::pin(f.send("PUT", &path, body));
        let started = async {
            let before = f.partial_files();
            while f.partial_files() == before {
                assert!(futures::poll!(upload.as_mut()).is_pending());
                tokio::task::yield_now().await;
            }
        };
        started.await;
        stuck.push((sender, upload));
    }
    let (code, message) = f.refused("PUT", &path, module(10).into()).await;
    assert!(code == 429 && message.contains("being uploaded already"), "{message}");
    drop(stuck);
    assert_eq!(f.partial_files(), 0);
    assert_eq!(f.send("PUT", &path, module(10).into()).await.0, 201);
    std::fs::write(f.dir.path().join("partial/9"), "left by a crash").unwrap();
    ImageStore::open(f.dir.path(), LIMIT).unwrap();
    assert_eq!(f.partial_files(), 0);
}

#[tokio::test(start_paused = true)]
async fn stalled_uploads_give_up_their_place() {
    let f = fixture();
    let content = module(30);
    let path = format!("/blobs/{}", digest(&content));
    // Each piece just in time: slow in all, but never stalled.
    let pieces = content.chunks(10).map(|c| Ok::<_, io::Error>(Bytes::copy_from_slice(c))).collect::<Vec<_>>();
    let slow = futures::stream::iter(pieces).then(async |piece| {
        tokio::time::sleep(UPLOAD_STALL - Duration::from_secs(1)).await;
        piece
    });
    assert_eq!(f.send("PUT", &path, Body::from_stream(slow)).await.0, 201);
    let stalled = || {
        let first = futures::stream::iter([Ok::<_, io::Error>(Bytes::from(module(10)))]);
        f.refused("PUT", &path, Body::from_stream(first.chain(futures::stream::pending())))
    };
    let began = tokio::time::Instant::now();
    for (code, message) in futures::future::join_all((0..MAX_UPLOADS).map(|_| stalled())).await {
        assert!(code == 408 && message.contains("brought nothing for 30 s"), "{code} {message}");
    }
    assert!(began.elapsed() >= UPLOAD_STALL);
    assert_eq!(f.partial_files(), 0);
    assert_eq!(f.send("PUT", &path, content.into()).await.0, 201, "the places are free again");
}

#[tokio::test]
async fn tags_name_modules() {
    let f = fixture();
    let (one, two) = (module(10), module(20));
    for content in [&one, &two] {
        f.send("PUT", &format!("/blobs/{}", digest(content)), content.clone().into()).await;
    }
    let record =
        |content: &[u8], file: &str| Body::from(format!(r#"{{"digest":"{}","file":"{file}"}}"#, digest(content)));
    let (code, message) = f.refused("GET", "/tags/shop%2Fweb/1", Body::empty()).await;
    assert!(
        code == 404 && message.contains("image shop/web:1 not found") && message.contains("copepod push"),
        "{message}"
    );
    assert_eq!(f.send("PUT", "/tags/shop%2Fweb/1", record(&one, "web.wasm")).await.0, 201);
    assert_eq!(f.send("PUT", "/tags/shop/1", record(&one, "shop.wasm")).await.0, 201, "a name may be another's parent");
    assert_eq!(f.send("PUT", "/tags/shop%2Fweb/1", record(&two, "web2.wasm")).await.0, 201, "tags move");
    let (code, _, body) = f.send("GET", "/tags/shop%2Fweb/1", Body::empty()).await;
    let tag: Tag = serde_json::from_slice(&body).unwrap();
    assert_eq!((code.as_u16(), tag.digest, tag.file.as_str()), (200, digest(&two), "web2.wasm"));
    assert_eq!(f.store.tag("shop", "1").await.unwrap().file, "shop.wasm");

    let cases = [
        ("/tags/web/1", record(&module(11), "web.wasm"), 404, "send it before its name"),
        ("/tags/Web/1", record(&one, "web.wasm"), 400, "is not an image name"),
        ("/tags/..%2Fx/1", record(&one, "web.wasm"), 400, "is not an image name"),
        ("/tags/web%2F/1", record(&one, "web.wasm"), 400, "is not an image name"),
        ("/tags/web/..", record(&one, "web.wasm"), 400, "is not a tag"),
        ("/tags/web/a%2Fb", record(&one, "web.wasm"), 400, "is not a tag"),
        ("/tags/web/1", record(&one, "../web.wasm"), 400, "is not a plain file name"),
        ("/tags/web/1", record(&one, ""), 400, "is not a plain file name"),
        ("/tags/web/1", Body::from("{}"), 400, "the tag is malformed: missing field `digest`"),
        ("/tags/web/1", Body::from(vec![b' '; 5000]), 413, "a tag has at most 4096 bytes"),
    ];
    for (path, body, code, part) in cases {
        let (got, message) = f.refused("PUT", path, body).await;
        assert!(got == code && message.contains(part), "{path}: {got} {message}");
    }
}

#[tokio::test]
async fn nodes_may_read_only() {
    let f = fixture();
    let content = module(10);
    let path = format!("{IMAGES_PATH}/blobs/{}", digest(&content));
    f.send("PUT", &format!("/blobs/{}", digest(&content)), content.clone().into()).await;
    let as_node = async |method: &str, path: &str| {
        let request = Request::builder().method(method).uri(path).body(Body::from(content.clone())).unwrap();
        f.router(GROUP_NODES).oneshot(request).await.unwrap().status().as_u16()
    };
    assert_eq!(as_node("GET", &path).await, 200);
    assert_eq!(as_node("PUT", &path).await, 403);
    assert_eq!(as_node("PUT", &format!("{IMAGES_PATH}/tags/web/1")).await, 403);
}

#[test]
fn a_full_disk_is_told_in_words() {
    let e = disk_error(&io::Error::from(io::ErrorKind::StorageFull), "cannot store x");
    assert_eq!(e.code, 507);
    assert!(e.message.contains("the disk is full; free space"), "{}", e.message);
    assert_eq!(disk_error(&io::Error::other("odd"), "cannot store x").code, 500);
}
