//! Metrics and traces to a collector, by OTLP over HTTP, as the `OTEL_*` variables say. Nothing is exported, and no
//! thread is started, unless they name a place.
//!
//! Whatever the collector does costs the service nothing but that: spans wait in a bounded queue, and are dropped when
//! it is full; each request is bounded in time; all of it happens on threads of its own.

mod environment;
mod sender;

use std::env;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, Protocol, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::{Aggregation, Instrument, PeriodicReader, SdkMeterProvider, Stream};
use opentelemetry_sdk::resource::EnvResourceDetector;
use opentelemetry_sdk::trace::{IdGenerator as _, RandomIdGenerator, SdkTracerProvider};

use crate::client::{self, ClientError};
use crate::metrics::SECONDS_BUCKETS;
use environment::{CaFile, Target, VariableError, Wanted};
use sender::Sender;

/// How long the end of the service waits for what is still to be exported.
const FLUSH_MAX: Duration = Duration::from_secs(1);

/// Why nothing can be exported.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    /// A variable cannot be followed.
    #[error(transparent)]
    Variable(#[from] VariableError),
    /// The certificates that a variable names cannot be used.
    #[error("{variable}: {source}")]
    CaFile {
        /// The variable.
        variable: String,
        /// Why not.
        source: ClientError,
    },
    /// The client cannot be built.
    #[error("cannot set up the http client for telemetry: {0}")]
    Client(ClientError),
    /// An exporter cannot be built.
    #[error("cannot set up the export of telemetry: {0}")]
    Exporter(#[from] ExporterBuildError),
}

impl OtlpError {
    /// Why there is no client for `target`.
    fn of_client(target: &Target, source: ClientError) -> Self {
        match &target.ca_file {
            Some(CaFile { variable, .. }) => Self::CaFile { variable: variable.clone(), source },
            None => Self::Client(source),
        }
    }
}

/// Fails if what the environment asks for cannot be exported; exports nothing, and starts no thread.
pub(crate) fn check() -> Result<(), OtlpError> {
    let Wanted { traces, metrics } = environment::read(&|name| env::var_os(name))?;
    for target in [traces, metrics].into_iter().flatten() {
        client::tls(target.ca_path()).map_err(|error| OtlpError::of_client(&target, error))?;
    }
    Ok(())
}

/// What exports, while it is held. Dropped, it exports what is left, for [`FLUSH_MAX`] at most.
#[derive(Debug, Default)]
pub(crate) struct Exporters {
    pub(crate) traces: Option<SdkTracerProvider>,
    pub(crate) metrics: Option<SdkMeterProvider>,
}

impl Exporters {
    /// Those that the environment asks for. `attributes` are added to the service's name and version; what the
    /// environment says of the resource comes first.
    pub(crate) fn of_environment(
        service: &str,
        attributes: &[(&'static str, &str)],
    ) -> Result<Self, OtlpError> {
        let wanted = environment::read(&|name| env::var_os(name))?;
        if wanted.traces.is_none() && wanted.metrics.is_none() {
            return Ok(Self::default());
        }
        let resource = resource(service, attributes);
        let mut exporters = Self::default();
        if let Some(target) = &wanted.traces {
            let exporter = opentelemetry_otlp::SpanExporter::builder()
                .with_http()
                .with_http_client(sender("traces", target)?)
                .with_endpoint(target.endpoint.as_str())
                .with_timeout(target.timeout)
                .with_protocol(Protocol::HttpBinary)
                .build()?;
            let provider =
                SdkTracerProvider::builder().with_resource(resource.clone()).with_batch_exporter(exporter);
            exporters.traces = Some(provider.build());
        }
        if let Some(target) = &wanted.metrics {
            let exporter = opentelemetry_otlp::MetricExporter::builder()
                .with_http()
                .with_http_client(sender("metrics", target)?)
                .with_endpoint(target.endpoint.as_str())
                .with_timeout(target.timeout)
                .with_protocol(Protocol::HttpBinary)
                .build()?;
            let provider = SdkMeterProvider::builder()
                .with_resource(resource)
                .with_reader(PeriodicReader::builder(exporter).build())
                .with_view(buckets);
            exporters.metrics = Some(provider.build());
        }
        Ok(exporters)
    }
}

fn sender(signal: &'static str, target: &Target) -> Result<Sender, OtlpError> {
    Sender::new(signal, target).map_err(|error| OtlpError::of_client(target, error))
}

impl Drop for Exporters {
    fn drop(&mut self) {
        let traces = self.traces.take().map(|provider| move || provider.shutdown());
        let metrics = self.metrics.take().map(|provider| move || provider.shutdown());
        let mut flushing = Vec::new();
        flushing.extend(traces.map(on_its_own));
        flushing.extend(metrics.map(on_its_own));
        // The threads are left behind where the collector does not answer: the process is about to exit.
        let end = Instant::now() + FLUSH_MAX;
        for flushed in flushing {
            if flushed.recv_timeout(end.saturating_duration_since(Instant::now())).is_err() {
                tracing::warn!("the last telemetry is lost: not taken within {} ms", FLUSH_MAX.as_millis());
                return;
            }
        }
    }
}

/// Runs this on a thread of its own; the receiver hears when it has ended.
fn on_its_own(flush: impl FnOnce() -> OTelSdkResult + Send + 'static) -> mpsc::Receiver<()> {
    let (ended, has_ended) = mpsc::channel();
    // Where there is no thread to be had, the receiver hears that nobody sends.
    let _ = thread::Builder::new().spawn(move || {
        // Why it was not taken, the sender has said.
        let _ = flush();
        let _ = ended.send(());
    });
    has_ended
}

/// Who exports: what we know, and over it what the environment says.
fn resource(service: &str, attributes: &[(&'static str, &str)]) -> Resource {
    // Which run of the service it is. The SDK's own generator is the only source of randomness that is needed here.
    let instance = RandomIdGenerator::default().new_trace_id().to_string();
    let resource = Resource::builder()
        .with_service_name(service.to_owned())
        .with_attribute(KeyValue::new("service.namespace", "force12"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("service.instance.id", instance))
        .with_attributes(attributes.iter().map(|&(key, value)| KeyValue::new(key, value.to_owned())))
        .with_detector(Box::new(EnvResourceDetector::new()));
    match env::var("OTEL_SERVICE_NAME").ok().filter(|name| !name.is_empty()) {
        Some(name) => resource.with_service_name(name).build(),
        None => resource.build(),
    }
}

/// Histograms have the same buckets here as on `/metrics`.
fn buckets(instrument: &Instrument) -> Option<Stream> {
    if !instrument.name().ends_with("_seconds") {
        return None;
    }
    let aggregation =
        Aggregation::ExplicitBucketHistogram { boundaries: SECONDS_BUCKETS.to_vec(), record_min_max: true };
    // The boundaries are known to rise.
    Stream::builder().with_aggregation(aggregation).build().ok()
}
