//! A collector of telemetry: takes what services export by OTLP over HTTP, and decodes it as any other would.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span as WireSpan;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use tokio::net::TcpListener;

/// The kind of what is spoken here.
const PROTOBUF: &str = "application/x-protobuf";

/// Between two looks at what has arrived.
const POLL: Duration = Duration::from_millis(20);

/// How a collector answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manners {
    /// It takes what it is given.
    Takes,
    /// It takes connections and requests, and answers nothing.
    Hangs,
    /// It answers 200, with a web page.
    Page,
    /// It answers 500, with bytes that mean nothing.
    Fails,
}

/// A span, as it arrived.
#[derive(Clone, Debug)]
pub struct Span {
    /// `service.name` of whoever exported it.
    pub service: String,
    /// The trace, in hex.
    pub trace_id: String,
    /// Its own id, in hex.
    pub id: String,
    /// The id of its parent, in hex; empty without one.
    pub parent_id: String,
    /// Its name.
    pub name: String,
    /// `server`, `client` or `internal`.
    pub kind: &'static str,
    /// Its attributes, as text.
    pub attributes: BTreeMap<String, String>,
    /// From when, and until when: nanoseconds of Unix time.
    pub time: (u64, u64),
}

/// Everything that has arrived.
#[derive(Debug, Default)]
pub struct Received {
    /// The spans, in the order of their arrival.
    pub spans: Vec<Span>,
    /// By service, then by name and labels in the Prometheus text format: the newest value.
    pub metrics: BTreeMap<String, BTreeMap<String, f64>>,
    /// By service: the attributes of its resource, as text.
    pub resources: BTreeMap<String, BTreeMap<String, String>>,
    /// The `authorization` of the last request.
    pub authorization: Option<String>,
    /// What could not be decoded, or came to the wrong place.
    pub wrong: Vec<String>,
}

/// A collector on loopback. It ends with the runtime.
pub struct Collector {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
}

#[derive(Clone)]
struct App {
    manners: Manners,
    received: Arc<Mutex<Received>>,
}

impl Collector {
    /// Listens on a port of its own.
    pub async fn start(manners: Manners) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let received = Arc::new(Mutex::new(Received::default()));
        let app = App { manners, received: Arc::clone(&received) };
        let router = Router::new()
            .route("/v1/traces", post(traces))
            .route("/v1/metrics", post(metrics))
            .fallback(elsewhere)
            .with_state(app);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, received })
    }

    /// What `OTEL_EXPORTER_OTLP_ENDPOINT` has to be.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What has arrived so far.
    pub fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until `find` finds what it looks for in what has arrived, at most `bound`; `what` names it.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        bound: Duration,
        find: impl Fn(&Received) -> Option<T>,
    ) -> Result<T> {
        let begun = Instant::now();
        loop {
            if let Some(found) = find(&self.received()) {
                return Ok(found);
            }
            if begun.elapsed() > bound {
                let received = self.received();
                bail!("{what}: not so within {} ms; received: {received:#?}", bound.as_millis());
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

async fn traces(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    app.take(&headers, |received| {
        let request = ExportTraceServiceRequest::decode(body)?;
        for group in request.resource_spans {
            let service = received.resource(group.resource);
            let spans = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
            received.spans.extend(spans.map(|span| self::span(&service, span)));
        }
        Ok(ExportTraceServiceResponse::default().encode_to_vec())
    })
    .await
}

async fn metrics(State(app): State<App>, headers: HeaderMap, body: Bytes) -> Response {
    app.take(&headers, |received| {
        let request = ExportMetricsServiceRequest::decode(body)?;
        for group in request.resource_metrics {
            let service = received.resource(group.resource);
            let values = received.metrics.entry(service).or_default();
            for metric in group.scope_metrics.into_iter().flat_map(|scope| scope.metrics) {
                values.extend(flat(metric));
            }
        }
        Ok(ExportMetricsServiceResponse::default().encode_to_vec())
    })
    .await
}

async fn elsewhere(State(app): State<App>, request: axum::extract::Request) -> Response {
    let mut received = app.received.lock().unwrap_or_else(PoisonError::into_inner);
    received.wrong.push(format!("{} {}", request.method(), request.uri()));
    axum::http::StatusCode::NOT_FOUND.into_response()
}

impl App {
    async fn take(
        &self,
        headers: &HeaderMap,
        decode: impl FnOnce(&mut Received) -> Result<Vec<u8>, prost::DecodeError>,
    ) -> Response {
        match self.manners {
            Manners::Hangs => std::future::pending().await,
            Manners::Page => return ([(CONTENT_TYPE, "text/html")], "<h1>Welcome</h1>").into_response(),
            Manners::Fails => {
                let body = vec![0xff; 1024];
                return (axum::http::StatusCode::INTERNAL_SERVER_ERROR, body).into_response();
            }
            Manners::Takes => {}
        }
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let mut received = self.received.lock().unwrap_or_else(PoisonError::into_inner);
        received.authorization = text(AUTHORIZATION);
        if text(CONTENT_TYPE).as_deref() != Some(PROTOBUF) {
            received.wrong.push(format!("content-type {:?}", text(CONTENT_TYPE)));
        }
        match decode(&mut received) {
            Ok(answer) => ([(CONTENT_TYPE, PROTOBUF)], answer).into_response(),
            Err(error) => {
                received.wrong.push(error.to_string());
                axum::http::StatusCode::BAD_REQUEST.into_response()
            }
        }
    }
}

impl Received {
    /// Notes a resource, and returns the name of its service.
    fn resource(&mut self, resource: Option<Resource>) -> String {
        let attributes = texts(resource.map(|resource| resource.attributes).unwrap_or_default());
        let service = attributes.get("service.name").cloned().unwrap_or_default();
        self.resources.insert(service.clone(), attributes);
        service
    }
}

fn span(service: &str, span: WireSpan) -> Span {
    Span {
        service: service.to_owned(),
        trace_id: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent_id: hex(&span.parent_span_id),
        kind: match span.kind() {
            SpanKind::Server => "server",
            SpanKind::Client => "client",
            SpanKind::Internal => "internal",
            SpanKind::Unspecified | SpanKind::Producer | SpanKind::Consumer => "other",
        },
        name: span.name,
        attributes: texts(span.attributes),
        time: (span.start_time_unix_nano, span.end_time_unix_nano),
    }
}

/// A metric as the lines of the Prometheus text format that say the same.
fn flat(metric: Metric) -> Vec<(String, f64)> {
    let name = metric.name;
    let number = |point: NumberDataPoint| {
        let value = match point.value {
            Some(Number::AsDouble(value)) => value,
            #[expect(clippy::cast_precision_loss, reason = "nothing here counts to 2^52")]
            Some(Number::AsInt(value)) => value as f64,
            None => f64::NAN,
        };
        (line(&name, point.attributes, None), value)
    };
    match metric.data {
        Some(Data::Gauge(gauge)) => gauge.data_points.into_iter().map(number).collect(),
        Some(Data::Sum(sum)) => sum.data_points.into_iter().map(number).collect(),
        Some(Data::Histogram(histogram)) => {
            let mut lines = Vec::new();
            for point in histogram.data_points {
                let mut below = 0;
                let bounds = point.explicit_bounds.iter().map(ToString::to_string);
                for (bound, count) in bounds.chain(["+Inf".to_owned()]).zip(point.bucket_counts) {
                    below += count;
                    let bucket = line(&format!("{name}_bucket"), point.attributes.clone(), Some(bound));
                    #[expect(clippy::cast_precision_loss, reason = "nothing here counts to 2^52")]
                    lines.push((bucket, below as f64));
                }
            }
            lines
        }
        Some(Data::ExponentialHistogram(_) | Data::Summary(_)) | None => Vec::new(),
    }
}

/// `name{key="value"}`, keys in order.
fn line(name: &str, attributes: Vec<KeyValue>, bound: Option<String>) -> String {
    let mut labels = texts(attributes);
    labels.extend(bound.map(|bound| ("le".to_owned(), bound)));
    label(name, &labels)
}

/// `name{key="value"}`, keys in order; the name alone without any.
fn label(name: &str, labels: &BTreeMap<String, String>) -> String {
    let labels: Vec<String> = labels.iter().map(|(key, value)| format!("{key}={value:?}")).collect();
    if labels.is_empty() { name.to_owned() } else { format!("{name}{{{}}}", labels.join(",")) }
}

/// The lines of a Prometheus text that are about these metrics, with their labels in order.
pub fn prometheus(text: &str, names: &[&str]) -> BTreeMap<String, f64> {
    let about = |name: &str| names.contains(&name.strip_suffix("_bucket").unwrap_or(name));
    let parse = |line: &str| {
        let (what, value) = line.rsplit_once(' ')?;
        let (name, labels) = what.split_once('{').unwrap_or((what, "}"));
        let labels = labels.strip_suffix('}')?.split("\",").filter_map(|label| {
            let (key, value) = label.split_once("=\"")?;
            Some((key.to_owned(), value.trim_end_matches('"').to_owned()))
        });
        about(name).then_some(())?;
        Some((label(name, &labels.collect()), value.parse().ok()?))
    };
    text.lines().filter(|line| !line.starts_with('#')).filter_map(parse).collect()
}

fn texts(attributes: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value| match value {
        Value::StringValue(text) => text,
        Value::BoolValue(value) => value.to_string(),
        Value::IntValue(value) => value.to_string(),
        Value::DoubleValue(value) => value.to_string(),
        other => format!("{other:?}"),
    };
    let value = |value: Option<opentelemetry_proto::tonic::common::v1::AnyValue>| {
        value.and_then(|value| value.value).map(text).unwrap_or_default()
    };
    attributes.into_iter().map(|attribute| (attribute.key, value(attribute.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"))
}
