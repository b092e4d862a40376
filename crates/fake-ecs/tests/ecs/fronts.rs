//! The two ways in: over HTTP, and as the transport of the AWS SDK.

use aws_smithy_runtime_api::client::http::HttpConnector;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_types::body::SdkBody;
use fake_ecs::{Config, Fault, FaultKind, InProcess, http};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::Stage;

const LIST: &str = "AmazonEC2ContainerServiceV20141113.ListClusters";

/// What is answered to a request, head and body.
async fn ask(address: std::net::SocketAddr, target: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    let request = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nX-Amz-Target: {target}\r\nContent-Type: application/x-amz-json-1.1\r\n\
         Content-Length: 2\r\nConnection: close\r\n\r\n{{}}"
    );
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut answer = Vec::new();
    // A broken connection is what one of the cases is about.
    let _ = stream.read_to_end(&mut answer).await;
    String::from_utf8(answer).expect("text")
}

#[tokio::test]
async fn over_http() {
    let stage = Stage::new(Config::prompt(1)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback is there");
    let address = listener.local_addr().expect("it has an address");
    tokio::spawn(axum::serve(listener, http::router(stage.ecs.clone())).into_future());
    let answer = ask(address, LIST).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(answer.contains("application/x-amz-json-1.1"), "{answer}");
    assert!(
        answer.ends_with(r#"{"clusterArns":["arn:aws:ecs:eu-west-1:123456789012:cluster/default"]}"#),
        "{answer}"
    );
    let answer = ask(address, "Nobody.Knows").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("UnknownOperationException"), "{answer}");
    stage.ecs.fault(Fault::new(FaultKind::AnswerLost));
    let answer = ask(address, LIST).await;
    assert!(!answer.contains("clusterArns"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn in_process() {
    let stage = Stage::new(Config::prompt(1)).await;
    let client = InProcess::new(stage.ecs.clone());
    let ask = async || {
        let mut request = HttpRequest::new(SdkBody::from("{}"));
        request.headers_mut().insert("x-amz-target", LIST);
        client.call(request).await
    };
    let answer = ask().await.expect("an answer");
    assert_eq!(answer.status().as_u16(), 200);
    let body: Value = serde_json::from_slice(answer.body().bytes().expect("a body")).expect("JSON");
    assert_eq!(body["clusterArns"], json!(["arn:aws:ecs:eu-west-1:123456789012:cluster/default"]));
    stage.ecs.fault(Fault::new(FaultKind::NotSent));
    assert!(ask().await.expect_err("nobody heard").is_io());
}
