//! The edges of the services, as a client sees them: documents, problems, tokens, hosts.

use acceptance::service::Service;
use acceptance::stack::{IMPORTANT, Options, Stack};
use api_types::problem::{PROBLEM_JSON, ProblemDocument};
use reqwest::header::{CONTENT_TYPE, HOST, ORIGIN};
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use crate::BOUND;

/// Everything that is wrong, so that one look shows it all.
struct Findings(Vec<String>);

impl Findings {
    /// Sends it, and expects a problem document with `status`.
    async fn problem(&mut self, what: &str, request: RequestBuilder, status: u16) {
        if let Err(error) = problem(request, status).await {
            self.0.push(format!("{what}: {error}"));
        }
    }

    fn expect(&mut self, what: &str, holds: bool) {
        if !holds {
            self.0.push(what.to_owned());
        }
    }
}

async fn problem(request: RequestBuilder, status: u16) -> Result<(), String> {
    let answer = request.send().await.map_err(|error| error.to_string())?;
    let got = answer.status().as_u16();
    let kind =
        answer.headers().get(CONTENT_TYPE).map(|kind| String::from_utf8_lossy(kind.as_bytes()).into_owned());
    let body = answer.text().await.map_err(|error| error.to_string())?;
    if got != status {
        return Err(format!("answered {got} instead of {status}: {body}"));
    }
    if kind.as_deref() != Some(PROBLEM_JSON) {
        return Err(format!("{got} of type {kind:?}: {body}"));
    }
    let document: ProblemDocument =
        serde_json::from_str(&body).map_err(|error| format!("{error} in {body}"))?;
    if document.status != status || document.title.is_empty() || document.kind.is_empty() {
        return Err(format!("an incomplete problem: {body}"));
    }
    Ok(())
}

/// Each service, with its paths, and something that changes it.
fn services(stack: &Stack) -> [(&'static str, &Service, &'static [&'static str], Method, &'static str); 3] {
    [
        ("demand-rng", &stack.demand_rng, &["/v1/demand", "/v1/generator"], Method::PUT, "/v1/demand"),
        (
            "force12-scheduler",
            &stack.scheduler,
            &[
                "/v1/snapshot",
                "/v1/stream",
                "/v1/decisions",
                "/v1/instances/{name}/cordon",
                "/v1/instances/{name}/uncordon",
                "/v1/instances/{name}/drain",
                "/v1/services/{name}/pause",
                "/v1/services/{name}/resume",
            ],
            Method::POST,
            "/v1/services/priority2/pause",
        ),
        (
            "status-api",
            &stack.status_api,
            &["/v1/snapshot", "/v1/stream", "/v1/history", "/v1/decisions"],
            Method::PUT,
            "/v1/demand",
        ),
    ]
}

#[tokio::test]
async fn the_edges_are_as_the_contract_says() {
    let stack = Stack::start(Options::default()).await.unwrap();
    stack.hold(4).await.unwrap();
    stack.runs(4, BOUND).await.unwrap();
    stack.snapshot_until("success", BOUND, |snapshot| snapshot.success == Some(true)).await.unwrap();
    let before = stack.checked_timeline().await.unwrap().events().len();
    let mut found = Findings(Vec::new());

    for (name, service, paths, method, change) in services(&stack) {
        for path in ["/healthz", "/readyz"] {
            let answer = service.get::<Value>(path).await;
            found.expect(
                &format!("{name} {path}: {answer:?}"),
                answer.is_ok_and(|body| body["status"].is_string()),
            );
        }
        let metrics = service.anonymous(Method::GET, "/metrics").send().await.unwrap();
        let text = metrics.text().await.unwrap();
        found.expect(&format!("{name} /metrics has no types: {text}"), text.contains("# TYPE"));
        let openapi = service.get::<Value>("/openapi.json").await.unwrap_or_default();
        let version = openapi["openapi"].as_str().unwrap_or_default();
        found.expect(&format!("{name} /openapi.json is of version {version:?}"), version.starts_with("3."));
        for path in paths {
            found.expect(&format!("{name} /openapi.json lacks {path}"), openapi["paths"][path].is_object());
        }

        let body = json!({ "demand": { IMPORTANT: 9 } });
        let with = |request: RequestBuilder| request.json(&body);
        let plain = || with(service.anonymous(method.clone(), change));
        let trusted = || with(service.request(method.clone(), change));
        let at = |what: &str| format!("{name} {method} {change} {what}");
        found.problem(&at("without a token"), plain(), 401).await;
        found.problem(&at("with a wrong token"), plain().bearer_auth("wrong"), 401).await;
        found.problem(&at("with another scheme"), plain().basic_auth("operator", Some("x")), 401).await;
        found.problem(&at("at a foreign host"), trusted().header(HOST, "evil.example"), 403).await;
        found
            .problem(&at("from a foreign origin"), trusted().header(ORIGIN, "http://evil.example"), 403)
            .await;
        let nothing = service.anonymous(Method::GET, "/v1/nothing");
        found.problem(&format!("{name} GET /v1/nothing"), nothing, 404).await;
        let patch = service.request(Method::PATCH, paths[0]);
        found.problem(&format!("{name} PATCH {}", paths[0]), patch, 405).await;
    }

    let put = || stack.demand_rng.request(Method::PUT, "/v1/demand").header(CONTENT_TYPE, "application/json");
    found.problem("demand that is no JSON", put().body("{"), 400).await;
    found.problem("demand of the wrong shape", put().body(r#"{"demand": 4}"#), 400).await;
    found.problem("demand with an unknown key", put().body(r#"{"demand": {}, "wish": 1}"#), 400).await;
    let vast = format!(r#"{{"demand": {{"{IMPORTANT}": 1000001}}}}"#);
    found.problem("demand beyond a million", put().body(vast), 400).await;
    found.problem("a body beyond the limit", put().body("x".repeat(200_000)), 413).await;
    let limit = stack.scheduler.anonymous(Method::GET, "/v1/decisions?limit=none");
    found.problem("a limit that is no number", limit, 400).await;
    let nobody = stack.scheduler.request(Method::POST, "/v1/services/nobody/pause");
    found.problem("a service that is not there", nobody, 404).await;
    let nowhere = stack.scheduler.request(Method::POST, "/v1/instances/nowhere/cordon");
    found.problem("an instance that is not there", nowhere, 404).await;
    assert!(found.0.is_empty(), "{} findings:\n{}", found.0.len(), found.0.join("\n"));
    let after = stack.checked_timeline().await.unwrap();
    assert_eq!(after.events().len(), before, "something was changed: {:#?}", &after.events()[before..]);

    // What is refused without the token is passed on with it.
    let body = json!({ "demand": { IMPORTANT: 6 } });
    let answer = stack.status_api.request(Method::PUT, "/v1/demand").json(&body).send().await.unwrap();
    assert!(answer.status().is_success(), "status-api passes demand on: {}", answer.status());
    stack.runs(6, BOUND).await.unwrap();
    stack.checked_timeline().await.unwrap();
}

#[tokio::test]
async fn a_bad_configuration_is_refused_before_anything_is_touched() {
    let stack = Stack::start(Options::default()).await.unwrap();
    for service in [&stack.demand_rng, &stack.scheduler, &stack.status_api] {
        let good = std::fs::read_to_string(service.config()).unwrap();
        let bad = service.config().with_extension("bad.toml");
        std::fs::write(&bad, format!("no_such_key = 1\n{good}")).unwrap();
        let path = bad.to_string_lossy().into_owned();
        let output = service.command(&["run", "--config", &path]).unwrap().output();
        let output = tokio::time::timeout(BOUND, output).await.expect("it ends at once").unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{}: {said}", bad.display());
        assert!(said.contains("no_such_key"), "{}: does not name the key: {said}", bad.display());
    }
    let config = stack.scheduler.config().to_string_lossy().into_owned();
    let status = stack.scheduler.command(&["check", &config]).unwrap().status().await.unwrap();
    assert_eq!(status.code(), Some(0), "check of a good configuration: {status}");
    stack.checked_timeline().await.unwrap();
}
