//! Peers that mean no good, all at once: each service stays within a bound of memory, goes on answering others, and
//! the cluster is scheduled all the while.

use std::net::SocketAddr;
use std::time::Duration;

use acceptance::service::Service;
use acceptance::stack::{Options, Stack};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::BOUND;

/// Peers of each kind; there are five, and with all of them fewer descriptors than a process may have open by
/// default, on either side.
const PEERS: usize = 180;

/// The most that a service's memory may grow under them. Each connection is allowed some 100 KiB of buffers.
const GROWTH_MAX_KIB: u64 = 48 * 1024;

/// What a peer that reads nothing writes at most: more than any buffer on the way should take.
const WRITTEN_AHEAD_BYTES: usize = 8 * 1024 * 1024;

/// Sends this, and keeps the connection; what cannot be sent without waiting is left out.
async fn peer(address: SocketAddr, said: &[u8]) -> TcpStream {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = tokio::time::timeout(Duration::from_millis(200), stream.write_all(said)).await;
    stream
}

/// Peers of every kind, each of which holds what it can get.
async fn abuse(service: &Service, streamed: &str) -> Vec<TcpStream> {
    let (address, token) = (service.address(), service.token());
    // The head dribbles, and is large.
    let slow_head = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\nx-a: {}", "x".repeat(12_000));
    // The body is announced, begun, and never ended.
    let slow_body = format!(
        "PUT /v1/demand HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\ncontent-length: 60000\r\n\r\n{}",
        " ".repeat(30_000)
    );
    // A stream, or a long poll, that is never read.
    let held =
        format!("GET {streamed} HTTP/1.1\r\nhost: {address}\r\nif-none-match: *\r\nprefer: wait=60\r\n\r\n");
    // One request after the other, small as the answer is, and no answer taken.
    let ahead = format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\n\r\n");
    let ahead = ahead.repeat(WRITTEN_AHEAD_BYTES / ahead.len());
    let mut peers = Vec::new();
    for _ in 0..PEERS {
        for said in [slow_head.as_bytes(), slow_body.as_bytes(), held.as_bytes(), b""] {
            peers.push(peer(address, said).await);
        }
    }
    let flood = (0..PEERS).map(|_| peer(address, ahead.as_bytes()));
    peers.extend(futures_util::future::join_all(flood).await);
    peers
}

#[tokio::test]
async fn abuse_is_borne_in_bounded_memory() {
    let stack = Stack::start(Options::default()).await.unwrap();
    stack.hold(4).await.unwrap();
    stack.runs(4, BOUND).await.unwrap();
    let services: [(&str, &Service, &str); 3] = [
        ("demand-rng", &stack.demand_rng, "/v1/demand"),
        ("force12-scheduler", &stack.scheduler, "/v1/stream"),
        ("status-api", &stack.status_api, "/v1/stream"),
    ];
    for (containers, (name, service, streamed)) in (5..).zip(services) {
        let before = service.resident_kib().unwrap();
        let peers = abuse(service, streamed).await;
        for path in ["/healthz", "/readyz", "/metrics"] {
            let answer = service.anonymous(Method::GET, path).send().await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK, "{name} {path} under abuse");
        }
        stack.hold(containers).await.unwrap();
        stack.runs(i64::from(containers), BOUND).await.unwrap();
        let grown = service.resident_kib().unwrap().saturating_sub(before);
        println!("{name}: {grown} KiB more than {before} under {} peers", peers.len());
        assert!(grown <= GROWTH_MAX_KIB, "{name} has grown by {grown} KiB");
        drop(peers);
        service.get::<Value>("/healthz").await.unwrap();
    }
    stack.checked_timeline().await.unwrap();
}

#[tokio::test]
async fn a_flood_of_streams_is_refused_beyond_its_places() {
    let stack = Stack::start(Options::default()).await.unwrap();
    stack.hold(4).await.unwrap();
    stack.runs(4, BOUND).await.unwrap();
    for (name, service) in [("force12-scheduler", &stack.scheduler), ("status-api", &stack.status_api)] {
        let (mut streams, mut refused) = (Vec::new(), 0);
        // The places for readers of a stream, with those that the services have taken among themselves, and some more.
        for _ in 0..300 {
            let mut stream = TcpStream::connect(service.address()).await.unwrap();
            let ask = format!("GET /v1/stream HTTP/1.1\r\nhost: {}\r\n\r\n", service.address());
            stream.write_all(ask.as_bytes()).await.unwrap();
            let mut head = [0; 512];
            let bytes = stream.read(&mut head).await.unwrap();
            let head = String::from_utf8_lossy(&head[..bytes]);
            if head.starts_with("HTTP/1.1 503 ") {
                assert!(head.contains("retry-after: 1"), "{name}: {head}");
                refused += 1;
            } else {
                assert!(head.starts_with("HTTP/1.1 200 "), "{name}: {head}");
                streams.push(stream);
            }
        }
        println!("{name}: {} streams, {refused} refused", streams.len());
        assert!((250..=256).contains(&streams.len()), "{name} opened {} streams", streams.len());
        let snapshot = service.anonymous(Method::GET, "/v1/snapshot").send().await.unwrap();
        assert_eq!(snapshot.status(), StatusCode::OK, "{name}: others are answered");
    }
    stack.checked_timeline().await.unwrap();
}
