//! Metrics and traces, as a collector receives them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, BufRead as _, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use acceptance::binaries::Binaries;
use acceptance::collector::{Collector, Manners, Span, prometheus};
use acceptance::service::Service;
use acceptance::stack::{FILL, IMPORTANT, Options, Stack};
use api_types::decision::Decisions;
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::BOUND;

/// A trace of somebody else's, and their span in it.
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";
/// Another trace, begun by an operator.
const OPERATORS_TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

/// From SIGTERM to the end of a service that has nothing under way, and a collector that takes nothing: a second for
/// what is left to export, and what a debug build on a busy machine takes for the rest.
const END_BOUND: Duration = Duration::from_secs(4);

/// Where to export to, soon and often.
fn environment(endpoint: String) -> Vec<(&'static str, String)> {
    vec![
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint),
        ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20do-not-tell".to_owned()),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=acceptance".to_owned()),
        ("OTEL_BSP_SCHEDULE_DELAY", "50".to_owned()),
        ("OTEL_METRIC_EXPORT_INTERVAL", "100".to_owned()),
    ]
}

/// The spans of one trace.
struct Tree(Vec<Span>);

impl Tree {
    /// Those below `parent` (an id) with this name, which is told by its service, as `service: name`.
    fn below(&self, parent: &str, name: &str) -> Vec<&Span> {
        let is =
            |span: &&Span| span.parent_id == parent && format!("{}: {}", span.service, span.name) == name;
        self.0.iter().filter(is).collect()
    }

    /// The only one below `parent` with this name.
    fn child(&self, parent: &str, name: &str) -> &Span {
        match self.below(parent, name)[..] {
            [only] => only,
            ref other => panic!("{} of {name} below {parent}, not one, in:\n{}", other.len(), self.picture()),
        }
    }

    fn picture(&self) -> String {
        let mut lines = Vec::new();
        let known: BTreeSet<&str> = self.0.iter().map(|span| span.id.as_str()).collect();
        for root in self.0.iter().filter(|span| !known.contains(span.parent_id.as_str())) {
            self.draw(root, 0, root.time.0, &mut lines);
        }
        lines.join("\n")
    }

    fn draw(&self, span: &Span, depth: usize, zero: u64, lines: &mut Vec<String>) {
        let ms = |at: u64| at.saturating_sub(zero) / 1_000_000;
        let (from, to) = span.time;
        let indent = "  ".repeat(depth);
        lines.push(format!("{indent}{}: {} {}..{} ms", span.service, span.name, ms(from), ms(to)));
        for child in self.0.iter().filter(|child| child.parent_id == span.id) {
            self.draw(child, depth + 1, zero, lines);
        }
    }
}

#[tokio::test]
async fn a_change_of_demand_is_one_trace_from_the_page_to_the_engine() {
    let collector = Collector::start(Manners::Takes).await.unwrap();
    let options = Options {
        interval_ms: 3_600_000,
        environment: environment(collector.endpoint()),
        ..Options::default()
    };
    let mut stack = Stack::start(options).await.unwrap();
    stack.hold(1).await.unwrap();
    stack.runs(1, BOUND).await.unwrap();
    stack.snapshot_until("success", BOUND, |snapshot| snapshot.success == Some(true)).await.unwrap();

    let change = stack
        .status_api
        .request(Method::PUT, "/v1/demand")
        .header("traceparent", format!("00-{TRACE}-{CALLER}-01"))
        .json(&json!({ "demand": { IMPORTANT: 4 } }));
    assert_eq!(change.send().await.unwrap().status(), 200);
    stack.runs(4, BOUND).await.unwrap();
    let tree = collector
        .wait_for("the trace with its decision", BOUND, |received| {
            let of_it = |span: &&Span| span.trace_id == TRACE;
            let spans: Vec<Span> = received.spans.iter().filter(of_it).cloned().collect();
            let arrived = |service: &str| spans.iter().filter(|span| span.service == service).count();
            let ended = spans.iter().any(|span| span.name == "learn demand");
            (ended && arrived("status-api") == 2 && arrived("demand-rng") == 2).then_some(Tree(spans))
        })
        .await
        .unwrap();
    println!("{}", tree.picture());

    let at_page = tree.child(CALLER, "status-api: PUT /v1/demand");
    let passed_on = tree.child(&at_page.id, "status-api: PUT /v1/demand");
    let at_source = tree.child(&passed_on.id, "demand-rng: PUT /v1/demand");
    let changed = tree.child(&at_source.id, "demand-rng: change demand");
    let learnt = tree.child(&changed.id, "force12-scheduler: learn demand");
    let decision = tree.child(&learnt.id, "force12-scheduler: decision");
    assert_eq!([at_page.kind, passed_on.kind, at_source.kind], ["server", "client", "server"]);
    assert_eq!(at_page.attributes["http.response.status_code"], "200");

    let starts = tree.below(&decision.id, &format!("force12-scheduler: start {IMPORTANT}"));
    let stops = tree.below(&decision.id, &format!("force12-scheduler: stop {FILL}"));
    assert_eq!((starts.len(), stops.len()), (3, 3), "{}", tree.picture());
    for start in &starts {
        assert_eq!(start.attributes["force12.outcome"], "done");
        assert!(start.attributes["force12.instance"].starts_with("instance-"));
        tree.child(&start.id, "force12-scheduler: create container");
        let left = tree.child(&start.id, "force12-scheduler: wait for room");
        let started = tree.child(&start.id, "force12-scheduler: start container");
        let peer = format!("docker {}", stack.engine.address());
        assert_eq!((started.kind, &started.attributes["peer.service"]), ("client", &peer));
        assert!(left.time.1 <= started.time.0, "it starts when its victim has left: {}", tree.picture());
    }
    for stop in &stops {
        tree.child(&stop.id, "force12-scheduler: stop container");
    }
    assert!(starts.iter().chain(&stops).all(|action| action.time.1 <= decision.time.1), "{}", tree.picture());

    // The decision names its trace, and so does the log.
    let decisions: Decisions = stack.decisions(IMPORTANT, 20).await.unwrap();
    let of_trace = decisions.decisions.iter().find(|decision| decision.trace_id.as_deref() == Some(TRACE));
    let sequence = of_trace.expect("the decision tells its trace").sequence;
    assert_eq!(decision.attributes["force12.sequence"], sequence.to_string());
    let line = stack.demand_rng.log_lines().into_iter().find(|line| line["trace_id"] == TRACE);
    let line = line.expect("a log line tells its trace");
    assert_eq!((&line["message"], &line["span_id"]), (&json!("holding demand"), &json!(at_source.id)));

    {
        let received = collector.received();
        assert_eq!(received.wrong, Vec::<String>::new());
        assert_eq!(received.authorization.as_deref(), Some("Bearer do-not-tell"));
        let names = received.resources.keys().map(String::as_str);
        assert_eq!(names.collect::<Vec<_>>(), ["demand-rng", "force12-scheduler", "status-api"]);
        let instances: BTreeSet<&str> =
            received.resources.values().map(|resource| resource["service.instance.id"].as_str()).collect();
        assert_eq!(instances.len(), 3);
        for resource in received.resources.values() {
            assert_eq!(resource["deployment.environment.name"], "acceptance");
            assert!(resource.contains_key("service.version"));
        }
        assert_eq!(received.resources["force12-scheduler"]["force12.cluster"], stack.cluster);
        let idle = |span: &&Span| span.name == "decision" && span.attributes["force12.actions"] == "0";
        let idle = received.spans.iter().find(idle);
        assert!(idle.is_none(), "a pass that does nothing makes no span: {idle:#?}");
    }

    // What an operator has done is a trace of its own, down to the decision that it leads to.
    let drain = stack.status_api.request(Method::POST, "/v1/instances/instance-3/drain");
    let drain = drain.header("traceparent", format!("00-{OPERATORS_TRACE}-{CALLER}-01"));
    assert_eq!(drain.send().await.unwrap().status(), 200);
    let tree = collector
        .wait_for("the operator's trace with its decision", BOUND, |received| {
            let of_it = |span: &&Span| span.trace_id == OPERATORS_TRACE;
            let spans: Vec<Span> = received.spans.iter().filter(of_it).cloned().collect();
            let at_page = spans.iter().filter(|span| span.service == "status-api").count();
            let decided = spans.iter().any(|span| span.name == "decision");
            (at_page == 2 && decided).then_some(Tree(spans))
        })
        .await
        .unwrap();
    println!("{}", tree.picture());
    let at_page = tree.child(CALLER, "status-api: POST /v1/instances/{name}/drain");
    let passed_on = tree.child(&at_page.id, "status-api: POST /v1/instances/instance-3/drain");
    let obeyed = tree.child(&passed_on.id, "force12-scheduler: POST /v1/instances/{name}/drain");
    tree.child(&obeyed.id, "force12-scheduler: decision");

    says_the_same(&collector, &stack.demand_rng, "demand-rng", &["demand", "demand_changes_total"]).await;
    let counted = ["force12_engine_calls_total", "force12_engine_call_seconds", "force12_containers"];
    says_the_same(&collector, &stack.scheduler, "force12-scheduler", &counted).await;

    for service in [&mut stack.status_api, &mut stack.scheduler, &mut stack.demand_rng] {
        service.terminate(END_BOUND).await.unwrap();
        assert!(!service.log().contains("do-not-tell"), "secrets are not logged: {}", service.log_tail());
    }
}

/// Waits until these metrics have the same names, labels and values here and there.
async fn says_the_same(collector: &Collector, service: &Service, name: &str, metrics: &[&str]) {
    let begun = Instant::now();
    loop {
        let answer = service.anonymous(Method::GET, "/metrics").send().await.unwrap();
        let pulled = prometheus(&answer.text().await.unwrap(), metrics);
        let pushed: BTreeMap<String, f64> = {
            let received = collector.received();
            let all = received.metrics.get(name).into_iter().flatten();
            all.filter(|(line, _)| pulled.contains_key(*line))
                .map(|(line, value)| (line.clone(), *value))
                .collect()
        };
        for metric in metrics {
            assert!(pulled.keys().any(|line| line.starts_with(metric)), "{metric} in {pulled:#?}");
        }
        if pushed == pulled {
            return;
        }
        assert!(begun.elapsed() < BOUND, "pulled {pulled:#?}\npushed {pushed:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A demand source alone, with these variables.
async fn demand_rng(environment: &[(&'static str, String)]) -> (Service, TempDir) {
    let binaries = Binaries::locate().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    let toml =
        |listen| format!("listen = \"{listen}\"\n[[demand]]\nkey = \"{IMPORTANT}\"\ninterval_ms = 3600000\n");
    let service = Service::new(
        "demand-rng",
        binaries.path("demand-rng"),
        directory.path(),
        "0123456789abcdef0123456789abcdef",
        toml,
    )
    .unwrap()
    .with_environment(environment);
    (service, directory)
}

#[tokio::test]
async fn without_a_collector_nothing_is_exported_and_no_thread_runs_for_it() {
    let exporters = |service: &Service| {
        let threads = service.threads().unwrap();
        threads.into_iter().filter(|name| name.starts_with("OpenTelemetry")).count()
    };
    let collector = Collector::start(Manners::Takes).await.unwrap();
    let mut off = environment(collector.endpoint());
    off.push(("OTEL_SDK_DISABLED", "true".to_owned()));
    for environment in [Vec::new(), off] {
        let (mut service, _directory) = demand_rng(&environment).await;
        service.start().await.unwrap();
        hold(&service, 5).await;
        assert_eq!(exporters(&service), 0);
        service.terminate(END_BOUND).await.unwrap();
    }
    assert!(collector.received().resources.is_empty());

    let (mut service, _directory) = demand_rng(&environment(collector.endpoint())).await;
    service.start().await.unwrap();
    assert_eq!(exporters(&service), 2, "one for traces, one for metrics");
    // What has happened just before the end arrives.
    hold(&service, 5).await;
    service.terminate(END_BOUND).await.unwrap();
    let received = collector.received();
    assert!(received.spans.iter().any(|span| span.name == "PUT /v1/demand"), "{received:#?}");
}

#[tokio::test]
async fn a_collector_that_takes_nothing_costs_a_warning() {
    let gone = "http://127.0.0.1:1".to_owned();
    let mut endpoints = vec![("gone", gone)];
    let mut collectors = Vec::new();
    for manners in [Manners::Hangs, Manners::Page, Manners::Fails] {
        let collector = Collector::start(manners).await.unwrap();
        endpoints.push(("", collector.endpoint()));
        collectors.push((manners, collector));
    }
    for (place, (_, endpoint)) in endpoints.into_iter().enumerate() {
        let manners = place.checked_sub(1).map(|place| collectors[place].0);
        let mut variables = environment(endpoint);
        variables.push(("OTEL_EXPORTER_OTLP_TIMEOUT", "500".to_owned()));
        // A queue that is full at once, and stays so.
        variables.push(("OTEL_BSP_MAX_QUEUE_SIZE", "8".to_owned()));
        let (mut service, _directory) = demand_rng(&variables).await;
        service.start().await.unwrap();
        let warnings = || {
            let lines = service.log_lines().into_iter();
            let warnings = lines.filter(|line| line["level"] == "WARN");
            warnings.map(|line| (line["signal"].clone(), line["error"].clone())).collect::<Vec<_>>()
        };
        let begun = Instant::now();
        for demand in 0..100 {
            hold(&service, demand).await;
        }
        while warnings().len() < 2 {
            assert!(begun.elapsed() < BOUND, "{manners:?}: {}", service.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // Some more failures, none of which is worth another line.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let warnings = warnings();
        println!("{manners:?}: {warnings:?}");
        let signals: BTreeSet<&str> = warnings.iter().filter_map(|(signal, _)| signal.as_str()).collect();
        assert_eq!(signals, BTreeSet::from(["metrics", "traces"]), "{manners:?}");
        assert_eq!(warnings.len(), 2, "each is said once: {warnings:?}");
        let (status, took) = service.terminate(END_BOUND).await.unwrap();
        println!("{manners:?}: ended after {} ms", took.as_millis());
        assert_eq!(status.code(), Some(0));
    }
}

#[tokio::test]
async fn a_collector_that_hangs_holds_up_neither_the_work_nor_the_end() {
    let collector = Collector::start(Manners::Hangs).await.unwrap();
    let mut environment = environment(collector.endpoint());
    // A queue that is full at once, and stays so.
    environment.push(("OTEL_BSP_MAX_QUEUE_SIZE", "1".to_owned()));
    let options = Options { interval_ms: 3_600_000, environment, ..Options::default() };
    let mut stack = Stack::start(options).await.unwrap();
    for containers in [1, 8, 2, 5] {
        stack.hold(containers).await.unwrap();
        stack.runs(containers.into(), BOUND).await.unwrap();
    }
    stack.snapshot_until("success", BOUND, |snapshot| snapshot.success == Some(true)).await.unwrap();
    stack.checked_timeline().await.unwrap();
    for service in [&mut stack.status_api, &mut stack.scheduler, &mut stack.demand_rng] {
        let (status, took) = service.terminate(END_BOUND).await.unwrap();
        println!("{} ended after {} ms", service.url(""), took.as_millis());
        assert_eq!(status.code(), Some(0));
    }
}

#[tokio::test]
async fn a_variable_that_cannot_be_followed_is_refused_with_one_line() {
    for (name, value, says) in [
        (
            "OTEL_EXPORTER_OTLP_PROTOCOL",
            "grpc",
            "OTEL_EXPORTER_OTLP_PROTOCOL is \"grpc\", which is not spoken here",
        ),
        ("OTEL_EXPORTER_OTLP_HEADERS", "hush", "OTEL_EXPORTER_OTLP_HEADERS has no header in its part 1"),
        ("OTEL_BSP_SCHEDULE_DELAY", "soon", "OTEL_BSP_SCHEDULE_DELAY is \"soon\"; it must be a whole number"),
        (
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "/nowhere/ca.pem",
            "OTEL_EXPORTER_OTLP_CERTIFICATE: /nowhere/ca.pem: cannot be read",
        ),
    ] {
        let mut variables = environment("http://127.0.0.1:1".to_owned());
        variables.retain(|(variable, _)| *variable != name);
        variables.push((name, value.to_owned()));
        let (service, _directory) = demand_rng(&variables).await;
        let config = service.config().to_string_lossy().into_owned();
        let ended = service.command(&["run", "--config", &config]).unwrap().status();
        let status = tokio::time::timeout(BOUND, ended).await.expect("it is refused").unwrap();
        assert_eq!(status.code(), Some(2), "{name}");
        let log = service.log();
        assert!(log.starts_with(&format!("error: {says}")) && log.lines().count() == 1, "{log}");
        assert!(!log.contains("hush"));
    }
}

/// A collector over https, with a certificate of its own making: gives its endpoint, the certificate (PEM), and the
/// requests that arrive, each with its head as text.
fn https_collector() -> (String, String, mpsc::Receiver<(String, Vec<u8>)>) {
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
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("https://{}", listener.local_addr().unwrap());
    let (arrived, arrive) = mpsc::channel();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let (mut socket, arrived) = (socket.unwrap(), arrived.clone());
            let mut connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            // Whoever does not trust the certificate goes away before; whoever has gone is no concern.
            std::thread::spawn(move || {
                take_requests(rustls::Stream::new(&mut connection, &mut socket), &arrived)
            });
        }
    });
    (endpoint, made.cert.pem(), arrive)
}

fn take_requests(stream: impl Read + Write, arrived: &mpsc::Sender<(String, Vec<u8>)>) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            if stream.read_line(&mut head)? == 0 {
                return Ok(());
            }
        }
        let head = head.to_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
        let mut body = vec![0; length.unwrap_or_default()];
        stream.read_exact(&mut body)?;
        stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")?;
        stream.get_mut().flush()?;
        let _ = arrived.send((head, body));
    }
}

#[tokio::test]
async fn over_https_a_collector_is_known_by_the_file_that_is_named() {
    let (endpoint, certificate, arrive) = https_collector();
    let (mut service, _directory) = demand_rng(&environment(endpoint.clone())).await;
    service.start().await.unwrap();
    hold(&service, 5).await;
    let begun = Instant::now();
    while !service
        .log_lines()
        .iter()
        .any(|line| line["error"].to_string().contains("invalid peer certificate"))
    {
        assert!(begun.elapsed() < BOUND, "{}", service.log_tail());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    service.terminate(END_BOUND).await.unwrap();
    assert!(arrive.try_recv().is_err(), "nothing goes to who is not known");

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate).unwrap();
    let mut variables = environment(endpoint);
    variables.push(("OTEL_EXPORTER_OTLP_CERTIFICATE", file.path().to_string_lossy().into_owned()));
    variables.push(("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip".to_owned()));
    let (mut service, _directory) = demand_rng(&variables).await;
    service.start().await.unwrap();
    hold(&service, 5).await;
    service.terminate(END_BOUND).await.unwrap();
    let requests: Vec<(String, Vec<u8>)> = arrive.try_iter().collect();
    for signal in ["post /v1/traces", "post /v1/metrics"] {
        let (head, body) = requests.iter().find(|(head, _)| head.starts_with(signal)).expect(signal);
        assert!(head.contains("content-encoding: gzip") && body.starts_with(&[0x1f, 0x8b]), "{head}");
    }
}

async fn hold(service: &Service, demand: u32) {
    let body = json!({ "demand": { IMPORTANT: demand } });
    let answer = service.request(Method::PUT, "/v1/demand").json(&body).send().await.unwrap();
    let status = answer.status();
    let document: Value = answer.json().await.unwrap();
    assert_eq!((status.as_u16(), &document["demand"][IMPORTANT]), (200, &json!(demand)));
}
