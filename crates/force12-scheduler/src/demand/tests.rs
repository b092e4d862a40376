//! Against real sockets on loopback: a good source, and those that lie, dribble, overflow or send elsewhere.

use std::io::ErrorKind;

use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use wiremock::matchers::{header, method, path};
use wiremock::{Mock, MockServer, ResponseTemplate};

use super::*;

static SPACES: [u8; 65_536] = [b' '; 65_536];

fn transport(url: &str) -> HttpTransport {
    HttpTransport::new(Arc::new(clients(None).unwrap()), url.parse().unwrap())
}

/// Asks a source that answers this to everything.
async fn ask(answer: ResponseTemplate) -> Result<DemandAnswer, String> {
    let server = MockServer::start().await;
    Mock::given(method("GET")).respond_with(answer).mount(&server).await;
    let request = FetchRequest { etag: Some("\"a-1\"".to_owned()), wait: None };
    transport(&server.uri()).fetch(request).await.map_err(|error| error.0)
}

/// A source that writes `bytes`, again and again with `pause` between, to whoever connects.
async fn raw(bytes: &'static [u8], again: &'static [u8], pause: Duration) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            if stream.write_all(bytes).await.is_err() {
                continue;
            }
            while !again.is_empty() && stream.write_all(again).await.is_ok() {
                tokio::time::sleep(pause).await;
            }
        }
    });
    format!("http://{address}/v1/demand")
}

fn document(demand: &serde_json::Value) -> serde_json::Value {
    json!({"sequence": 17, "changed_at": "2026-11-22T17:00:00.123Z", "demand": demand})
}

#[tokio::test]
async fn a_document_arrives_whole() {
    let server = MockServer::start().await;
    let mut body = document(&json!({"web": 4, "batch": null}));
    body["details"] = json!({"batch": {"freshness": "unknown", "age_ms": 5300, "reason": "redis:\nrefused"}});
    Mock::given(method("GET"))
        .and(path("/v1/demand"))
        .and(header("prefer", "wait=5"))
        .and(header("if-none-match", "\"b3f1-16\""))
        .respond_with(
            ResponseTemplate::new(200)
                .set_body_json(body)
                .insert_header("etag", "\"b3f1-17\"")
                .insert_header("preference-applied", "Wait=5"),
        )
        .expect(1)
        .mount(&server)
        .await;
    let request =
        FetchRequest { etag: Some("\"b3f1-16\"".to_owned()), wait: Some(Duration::from_millis(5_900)) };
    let answer = transport(&format!("{}/v1/demand", server.uri())).fetch(request).await.unwrap();
    let DemandAnswer::Changed { etag, wait_applied, values, details, .. } = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(etag.as_deref(), Some("\"b3f1-17\""));
    assert!(wait_applied);
    assert_eq!(values, [("batch".to_owned(), Ok(None)), ("web".to_owned(), Ok(Some(4)))].into());
    assert_eq!(details["batch"].reason.as_deref(), Some("redis: refused"), "no line break reaches a log");
    assert_eq!(details["batch"].age_ms, Some(5_300));
}

#[tokio::test]
async fn nothing_new_is_nothing_new() {
    let applied = ResponseTemplate::new(304).insert_header("preference-applied", "respond-async, wait");
    assert_eq!(ask(applied).await, Ok(DemandAnswer::NotModified { wait_applied: true }));
    assert_eq!(ask(ResponseTemplate::new(304)).await, Ok(DemandAnswer::NotModified { wait_applied: false }));

    let server = MockServer::start().await;
    Mock::given(method("GET")).respond_with(ResponseTemplate::new(304)).mount(&server).await;
    let unasked = transport(&server.uri()).fetch(FetchRequest::default()).await.unwrap_err();
    assert!(unasked.0.ends_with("answered 304 Not Modified, which was not asked for"), "{unasked}");
    let sent = &server.received_requests().await.unwrap()[0].headers;
    assert!(!sent.contains_key("prefer") && !sent.contains_key("if-none-match"), "{sent:?}");
}

#[tokio::test]
async fn a_bad_value_spoils_only_its_own_key() {
    let body = r#"{"demand": {"good": 4, "text": "7", "negative": -1, "half": 1.5, "huge": 1000001, "beyond": 1e999,
        "twice": 1, "twice": 2}}"#;
    let answer = ask(ResponseTemplate::new(200).set_body_string(body)).await.unwrap();
    let DemandAnswer::Changed { values, etag, wait_applied, .. } = answer else { panic!("{answer:?}") };
    assert_eq!((etag, wait_applied), (None, false));
    assert_eq!(values["good"], Ok(Some(4)));
    assert_eq!(values["twice"], Err("it is given more than once".to_owned()));
    for bad in ["text", "negative", "half", "huge", "beyond"] {
        let words = values[bad].as_ref().unwrap_err();
        assert!(words.contains("is not an integer from 0 to 1000000"), "{words}");
    }
}

#[tokio::test]
async fn what_only_informs_may_be_missing_or_bad() {
    for body in [
        json!({"demand": {"web": 4}}),
        json!({"demand": {"web": 4}, "details": null}),
        json!({"demand": {"web": 4}, "details": {"zz": {"age_ms": "soon"}}, "changed_at": "yesterday"}),
    ] {
        let answer = ask(ResponseTemplate::new(200).set_body_json(&body)).await.unwrap();
        let DemandAnswer::Changed { values, details, .. } = answer else { panic!("{answer:?}") };
        assert_eq!((values["web"].as_ref(), details.len()), (Ok(&Some(4)), 0), "{body}");
    }
}

#[tokio::test]
async fn what_is_not_an_answer_says_so_with_the_url() {
    let cases = [
        (ResponseTemplate::new(500), "answered 500 Internal Server Error"),
        (ResponseTemplate::new(204), "answered 204 No Content"),
        (ResponseTemplate::new(404).set_body_json(document(&json!({"web": 1}))), "answered 404 Not Found"),
        (ResponseTemplate::new(200), "not a demand document"),
        (ResponseTemplate::new(200).set_body_string("<html>hello</html>"), "not a demand document"),
        (ResponseTemplate::new(200).set_body_string("{\"sequence\": 17}"), "`demand` is missing"),
        (ResponseTemplate::new(200).set_body_json(document(&json!([4]))), "`demand` is not an object"),
        (ResponseTemplate::new(200).set_body_bytes([0xff, 0xfe]), "not a demand document"),
        (
            ResponseTemplate::new(302).insert_header("location", "http://elsewhere/"),
            "to http://elsewhere/; redirects are not followed",
        ),
        (
            ResponseTemplate::new(302)
                .insert_header("location", "//user:hunter2@elsewhere/?key=hunter2#hunter2"),
            "to http://elsewhere/?…; redirects are not followed",
        ),
    ];
    for (answer, expected) in cases {
        let words = ask(answer).await.unwrap_err();
        assert!(
            words.starts_with("http://127.0.0.1:") && words.contains(expected),
            "{expected:?} in {words:?}"
        );
        assert!(!words.contains("hunter2"), "{words}");
    }
}

#[tokio::test]
async fn what_a_url_carries_beside_its_place_is_not_shown() {
    let secret = "http://127.0.0.1:1/v1/demand?key=hunter2";
    let error = transport(secret).fetch(FetchRequest::default()).await.unwrap_err();
    assert!(error.0.starts_with("http://127.0.0.1:1/v1/demand?…: cannot connect: "), "{error}");
    for (url, shown) in [
        (secret, "http://127.0.0.1:1/v1/demand?…"),
        ("https://user:hunter2@h/a%20b?#c", "https://h/a%20b?…"),
        ("http://h", "http://h/"),
    ] {
        assert_eq!(url_in_words(&url.parse().unwrap()), shown);
    }
}

#[tokio::test]
async fn a_redirect_to_itself_is_asked_once() {
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(307).insert_header("location", format!("{}/loop", server.uri()));
    Mock::given(method("GET")).respond_with(answer).expect(1).mount(&server).await;
    assert!(transport(&server.uri()).fetch(FetchRequest::default()).await.is_err());
}

#[tokio::test]
async fn a_body_is_read_up_to_its_bound() {
    let announced = ask(ResponseTemplate::new(200).set_body_bytes(vec![b' '; BODY_BYTES_MAX + 1])).await;
    assert!(announced.unwrap_err().ends_with("the answer is larger than 1048576 bytes"));

    // Never ends, and never says how long it is.
    let endless = raw(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{", &SPACES, Duration::ZERO).await;
    let words = transport(&endless).fetch(FetchRequest::default()).await.unwrap_err();
    assert!(words.0.ends_with("the answer is larger than 1048576 bytes"), "{words}");

    let mut padded = document(&json!({"web": 4})).to_string();
    padded.push_str(&" ".repeat(BODY_BYTES_MAX - padded.len()));
    assert!(ask(ResponseTemplate::new(200).set_body_string(padded)).await.is_ok(), "the bound itself is in");
}

#[tokio::test]
async fn a_dribbled_answer_is_given_up() {
    let quick = |url: &str| HttpTransport { answer_timeout: Duration::from_millis(150), ..transport(url) };
    let body = raw(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n", b" ", Duration::from_millis(20)).await;
    let head = raw(b"HTTP/1.1 200 OK\r\nx: ", b"x", Duration::from_millis(20)).await;
    for url in [body, head] {
        let words = quick(&url).fetch(FetchRequest::default()).await.unwrap_err();
        assert!(words.0.ends_with("no complete answer within 150 ms"), "{words}");
    }
}

#[tokio::test]
async fn whoever_is_not_there_is_named() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let words = transport(&format!("http://{address}/")).fetch(FetchRequest::default()).await.unwrap_err();
    assert!(words.0.starts_with(&format!("http://{address}/: cannot connect: ")), "{words}");
    assert!(words.0.contains(&std::io::Error::from(ErrorKind::ConnectionRefused).to_string()), "{words}");

    for (answer, what) in [(&b"SSH-2.0-OpenSSH\r\n"[..], "not http"), (b"", "nothing at all")] {
        let url = raw(answer, b"", Duration::ZERO).await;
        let words = transport(&url).fetch(FetchRequest::default()).await.unwrap_err();
        assert!(words.0.contains("no complete answer: "), "{what}: {words}");
    }
}

#[tokio::test]
async fn a_name_that_leads_nowhere_is_named() {
    let url = "http://demand.invalid:8081/v1/demand";
    let words = transport(url).fetch(FetchRequest::default()).await.unwrap_err();
    // Which of the two depends on how long this machine's resolver takes to know.
    let said = words.0.strip_prefix(&format!("{url}: ")).unwrap_or_default();
    assert!(said.starts_with("cannot connect: ") || said.starts_with("no connection within "), "{words}");
}

#[tokio::test]
async fn old_servers_are_understood() {
    let body = r#"{"demand": {"web": 4}}"#;
    for head in ["HTTP/1.0 200 OK\r\n\r\n", "HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"] {
        let answer: &'static str = format!("{head}{body}").leak();
        let url = raw(answer.as_bytes(), b"", Duration::ZERO).await;
        let answer = transport(&url).fetch(FetchRequest::default()).await.unwrap();
        let DemandAnswer::Changed { values, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(values["web"], Ok(Some(4)));
    }
}

#[tokio::test]
async fn half_an_answer_is_none() {
    for answer in [
        // Shorter than announced, though what came would do.
        &b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{\"demand\": {\"web\": 4}}"[..],
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n16\r\n{\"demand\": {\"web\": 4}}\r\n",
        // Of no announced length: the end of the connection is the end of the body.
        b"HTTP/1.0 200 OK\r\n\r\n{\"demand\": {\"web\": 4}",
        b"HTTP/1.1 200 OK\r\ncontent-le",
    ] {
        let url = raw(answer, b"", Duration::ZERO).await;
        let answered = transport(&url).fetch(FetchRequest::default()).await;
        assert!(answered.is_err(), "{}: {answered:?}", String::from_utf8_lossy(answer));
    }
}

#[tokio::test]
async fn a_head_without_an_end_is_read_up_to_a_bound() {
    let more: &'static str = "x-more: of the same\r\n".repeat(3_000).leak();
    let heads: [(&[u8], &[u8]); 2] =
        [(b"HTTP/1.1 200 OK\r\n", more.as_bytes()), (b"HTTP/1.1 200 OK\r\nx: ", &SPACES)];
    for (begun, again) in heads {
        let url = raw(begun, again, Duration::ZERO).await;
        let words = transport(&url).fetch(FetchRequest::default()).await.unwrap_err();
        assert!(words.0.contains("no complete answer: "), "cut off by size, not by time: {words}");
    }
}

#[tokio::test]
async fn what_is_packed_is_not_unpacked() {
    // Small on the way, and without an end once unpacked; nobody asked for it.
    let packed = ResponseTemplate::new(200)
        .insert_header("content-encoding", "gzip")
        .set_body_bytes([0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 3]);
    let words = ask(packed).await.unwrap_err();
    assert!(words.ends_with("the answer is packed (gzip), which was not asked for"), "{words}");
    let plain = ResponseTemplate::new(200)
        .insert_header("content-encoding", "identity")
        .set_body_json(document(&json!({"web": 4})));
    assert!(ask(plain).await.is_ok());
    let server = MockServer::start().await;
    let answer = ResponseTemplate::new(200).set_body_json(document(&json!({"web": 4})));
    Mock::given(method("GET")).respond_with(answer).mount(&server).await;
    transport(&server.uri()).fetch(FetchRequest::default()).await.unwrap();
    let sent = &server.received_requests().await.unwrap()[0].headers;
    assert!(!sent.contains_key("accept-encoding"), "{sent:?}");
}

#[tokio::test]
async fn what_a_source_says_of_itself_is_not_believed() {
    // Its clock is years off, its sequence begins again after a restart, its tag never changes: what counts is the
    // document.
    for (sequence, changed_at, containers) in
        [(17, "1970-01-01T00:00:00.000Z", 4), (1, "2999-12-31T23:59:59.999Z", 5), (1, "", 6)]
    {
        let body = json!({"sequence": sequence, "changed_at": changed_at, "demand": {"web": containers}});
        let answer = ResponseTemplate::new(200).set_body_json(body).insert_header("etag", "\"a-1\"");
        let answer = ask(answer).await.unwrap();
        let DemandAnswer::Changed { values, .. } = answer else { panic!("{answer:?}") };
        assert_eq!(values["web"], Ok(Some(containers)));
    }
}

/// A source over https that answers everybody the same document, with a certificate for 127.0.0.1 of its own making;
/// gives its URL and the certificate, in PEM form.
fn https_source() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("https://{}/v1/demand", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};

        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::Stream::new(&mut connection, &mut socket);
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 22\r\nconnection: close\r\n\r\n{\"demand\": {\"web\": 4}}";
            // Whoever does not trust the certificate goes away before.
            if stream.read(&mut [0; 4096]).is_ok() && stream.write_all(answer).is_ok() {
                stream.conn.send_close_notify();
                let _ = stream.flush();
            }
        }
    });
    (url, made.cert.pem())
}

#[tokio::test]
async fn https_trusts_the_roots_and_a_file_that_may_change() {
    let (url, certificate) = https_source();
    let unknown = transport(&url).fetch(FetchRequest::default()).await.unwrap_err();
    assert!(unknown.0.contains("cannot connect: ") && unknown.0.contains("certificate"), "{unknown}");
    let plain =
        raw(b"HTTP/1.1 400 Bad Request\r\n\r\n", b"", Duration::ZERO).await.replace("http:", "https:");
    let words = transport(&plain).fetch(FetchRequest::default()).await.unwrap_err();
    assert!(words.0.starts_with(&plain) && words.0.contains("cannot connect: "), "{words}");

    let (_, another) = https_source();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), another).unwrap();
    let clients = Arc::new(clients(Some(file.path().to_owned())).unwrap());
    let transport = HttpTransport::new(clients, url.parse().unwrap());
    assert!(transport.fetch(FetchRequest::default()).await.is_err(), "the file names another");
    // Something that is none is not taken, and what was there holds.
    let until_trusted = async {
        for content in ["no certificate".to_owned(), certificate] {
            std::fs::write(file.path(), &content).unwrap();
            loop {
                let answer = transport.fetch(FetchRequest::default()).await;
                if answer.is_ok() || !content.starts_with("-----") {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), until_trusted)
        .await
        .expect("the changed file is never read");
}

#[test]
fn a_tag_that_is_too_long_is_as_none() {
    let mut headers = HeaderMap::new();
    assert_eq!(etag(&headers), None);
    headers.insert(ETAG, "x".repeat(ETAG_BYTES_MAX).parse().unwrap());
    assert_eq!(etag(&headers).unwrap().len(), ETAG_BYTES_MAX);
    headers.insert(ETAG, "x".repeat(ETAG_BYTES_MAX + 1).parse().unwrap());
    assert_eq!(etag(&headers), None);
}

#[test]
fn only_wait_is_waited_for() {
    for (value, applied) in [
        ("wait", true),
        ("WAIT=5", true),
        ("return=minimal, wait = 3", true),
        ("waiting", false),
        ("", false),
    ] {
        let mut headers = HeaderMap::new();
        headers.insert("preference-applied", value.parse().unwrap());
        assert_eq!(wait_applied(&headers), applied, "{value:?}");
    }
}
