//! Bodies that are malformed, too large, too slow or say things twice.

use copepod_core::codec::{MAX_BODY, PROTOBUF, YAML};

use super::bad_input::{JSON, refusal};
use super::*;

/// Anchors that name each other: a billion strings.
fn billion_laughs() -> String {
    let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x]\n");
    for i in 1..9 {
        let refs = vec![format!("*a{}", i - 1); 9].join(", ");
        bomb.push_str(&format!("a{i}: &a{i} [{refs}]\n"));
    }
    bomb
}

#[tokio::test]
async fn bodies() {
    let s = Server::start().await;
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    std::io::Write::write_all(&mut zipped, &vec![b' '; 64 << 20]).unwrap();
    let unrecognized = "400 BadRequest: the object provided is unrecognized (must be of type ConfigMap): ";
    let opened = |text: &str| format!("{{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"data\":{text}");
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        (JSON, b"".into(), "(<empty>)"),
        (JSON, b"{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",".into(), "({\"apiVersion\":\"v1\",\"kind\":\"Con ...)"),
        (JSON, opened(&"[".repeat(100_000)).into(), "recursion limit exceeded"),
        (JSON, opened(&"{\"a\":".repeat(100_000)).into(), "recursion limit exceeded"),
        (JSON, b"{\"kind\":\"ConfigMap\",\"data\":{\"a\":\"\xff\xfe\"}}".into(), "invalid unicode code point"),
        (JSON, b"\0\x01\x02".into(), "(000102)"),
        (JSON, opened("{\"a\":1e999999}}").into(), "number out of range"),
        // Never unpacked: what is packed is no JSON, however large it would be.
        (JSON, zipped.finish().unwrap(), "(1f8b08"),
        (YAML, billion_laughs().into(), "invalid YAML"),
        (YAML, "[".repeat(100_000).into(), "invalid YAML"),
        (YAML, "a: ".repeat(100_000).into(), "invalid YAML"),
        (YAML, b"a: \xff\xfe".into(), "invalid YAML"),
        (YAML, b"a: *nobody".into(), "invalid YAML"),
        (PROTOBUF, b"{}".into(), "expected prefix 6b 38 73 00"),
        (PROTOBUF, b"k8s\0\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff".into(), "invalid protobuf"),
        // A string that says to be longer than everything.
        (PROTOBUF, b"k8s\0\x0a\xff\xff\xff\xff\x0f".into(), "invalid protobuf"),
        (PROTOBUF, b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x04\x0a\x02\x0a\xff".into(), "invalid protobuf"),
    ];
    for (media, body, words) in cases {
        let shown = String::from_utf8_lossy(&body[..body.len().min(60)]).into_owned();
        let got =
            refusal(&s.send("POST", CONFIG_MAPS, &[("content-type", media), ("content-encoding", "gzip")], body).await);
        assert!(got.starts_with(unrecognized) && got.contains(words), "{media} {shown:?}: {got}");
    }
    for (body, want) in [
        ("[]", "400 BadRequest: the object provided is not a JSON map"),
        (
            "{\"kind\":\"Secret\",\"apiVersion\":\"v1\"}",
            "400 BadRequest: Secret in version \"v1\" cannot be handled as a ConfigMap: converting (v1.Secret) to (v1.ConfigMap): unknown conversion",
        ),
        (
            "{\"data\":[]}",
            "400 BadRequest: ConfigMap in version \"v1\" cannot be handled as a ConfigMap: json: cannot unmarshal array into Go struct field ConfigMap.data of type map[string]string",
        ),
        (
            "{\"metadata\":{\"name\":\"a\",\"resourceVersion\":\"5\"}}",
            "400 BadRequest: resourceVersion should not be set on objects to be created",
        ),
    ] {
        assert_eq!(refusal(&s.send("POST", CONFIG_MAPS, &[("content-type", JSON)], body).await), want);
    }
    let odd = s.send("POST", CONFIG_MAPS, &[("content-type", "text/plain")], "x").await;
    assert_eq!(
        refusal(&odd),
        "415 UnsupportedMediaType: the body of the request was in an unknown format - accepted media types include: \
         application/json, application/yaml, application/vnd.kubernetes.protobuf"
    );
}

#[tokio::test]
async fn bodies_over_the_limit() {
    let s = Server::start().await;
    let want = "413 RequestEntityTooLarge: Request entity too large: limit is 3145728";
    let media = ("content-type", JSON);
    assert_eq!(
        refusal(&s.send("POST", CONFIG_MAPS, &[media, ("content-length", "3145729")], Body::empty()).await),
        want
    );
    // One that does not say its length is cut at the limit, however much would follow.
    let endless = || Body::from_stream(futures::stream::repeat_with(|| Ok::<_, std::io::Error>(vec![b' '; 100_000])));
    for (method, path) in
        [("POST", CONFIG_MAPS.to_owned()), ("PUT", format!("{CONFIG_MAPS}/a")), ("DELETE", format!("{CONFIG_MAPS}/a"))]
    {
        assert_eq!(refusal(&s.send(method, &path, &[media], endless()).await), want, "{method}");
    }
    let patch = [("content-type", "application/merge-patch+json")];
    assert_eq!(refusal(&s.send("PATCH", &format!("{CONFIG_MAPS}/a"), &patch, endless()).await), want);
    // The largest that is taken; upstream's validation has another limit for what is in it.
    let mut body = config_map("a", json!({"k": ""})).to_string().into_bytes();
    body.resize(MAX_BODY, b' ');
    assert_eq!(s.send("POST", CONFIG_MAPS, &[media], body).await.code, 201);
}

#[tokio::test]
async fn slow_bodies_are_cut_and_hold_no_room() {
    tokio::time::pause();
    let s = Arc::new(Server::start().await);
    // More of them than there is room for bodies of the length they say.
    let slow = (0..200).map(|_| {
        let s = s.clone();
        tokio::spawn(async move {
            let first = futures::stream::iter([Ok::<_, std::io::Error>("{")]);
            let body = Body::from_stream(first.chain(futures::stream::pending()));
            let length = MAX_BODY.to_string();
            s.send("POST", CONFIG_MAPS, &[("content-type", JSON), ("content-length", &length)], body).await
        })
    });
    let slow: Vec<_> = slow.collect();
    tokio::task::yield_now().await;
    s.post(CONFIG_MAPS, &config_map("quick", json!({}))).await.ok();
    assert!(slow.iter().all(|task| !task.is_finished()));
    for task in slow {
        let answer = task.await.unwrap();
        assert_eq!(refusal(&answer), "504 Timeout: Timeout: request did not complete within the allotted timeout");
    }
}

#[tokio::test]
async fn fields_given_twice() {
    let s = Server::start().await;
    let json = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"NAME"},"data":{"a":"1","a":"2"},"odd":1}"#;
    let yaml = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: NAME}\ndata:\n  a: '1'\n  a: '2'\nodd: 1\n";
    for (i, (media, body, twice)) in
        [(JSON, json, "duplicate field \"data.a\""), (YAML, yaml, "line 6: key \"a\" already set in map")]
            .into_iter()
            .enumerate()
    {
        let send = async |validation: &str| {
            let body = body.replace("NAME", &format!("{}-{i}", validation.to_lowercase()));
            let path = format!("{CONFIG_MAPS}?fieldValidation={validation}");
            s.send("POST", &path, &[("content-type", media)], body).await
        };
        let strict = refusal(&send("Strict").await);
        let want = format!(
            "400 BadRequest: ConfigMap in version \"v1\" cannot be handled as a ConfigMap: strict decoding error: {twice}, \
             unknown field \"odd\""
        );
        assert_eq!(strict, want);
        let warned = send("Warn").await;
        let lines: Vec<&str> = warned.headers.get_all("warning").iter().map(|v| v.to_str().unwrap()).collect();
        let want = [twice, "unknown field \"odd\""].map(|l| format!("299 - \"{}\"", l.replace('"', "\\\"")));
        assert_eq!(lines, want);
        assert_eq!(warned.ok()["data"], json!({"a": "2"}), "the last one holds");
        let ignored = send("Ignore").await;
        assert!(!ignored.headers.contains_key("warning"));
        assert_eq!(ignored.ok()["data"], json!({"a": "2"}));
    }
}
