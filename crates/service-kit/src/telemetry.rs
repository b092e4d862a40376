//! Logs: to stderr, for people on a terminal and as JSON lines otherwise. Metrics and traces: to a collector, where the
//! environment names one.

use std::io::IsTerminal;

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry::trace::TracerProvider as _;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt as _, filter_fn};
use tracing_subscriber::fmt::format::JsonFields;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, Registry, fmt};

use crate::json_lines::JsonLines;
use crate::metrics::{self, InstallError};
use crate::otlp::{self, Exporters, OtlpError};

/// The variable that holds the log filter, in the syntax of `RUST_LOG`.
pub const FILTER_VARIABLE: &str = "FORCE12_LOG";

/// What is exported is of this scope.
const SCOPE: &str = "force12";

/// Why logging or the export of telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter cannot be read.
    #[error("{FILTER_VARIABLE}={value:?} is not a log filter: {source}; try `info` or `info,hyper=warn`")]
    Filter {
        /// What the variable holds.
        value: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// Something has set up logging already.
    #[error("logging is set up already: {0}")]
    Installed(#[from] tracing_subscriber::util::TryInitError),
    /// What the environment asks to be exported cannot be.
    #[error(transparent)]
    Otlp(#[from] OtlpError),
    /// Metrics cannot be collected.
    #[error(transparent)]
    Metrics(#[from] InstallError),
}

/// To be held as long as the service runs. Dropped, it exports what is left, within a second.
#[must_use = "dropped, it ends the export of telemetry"]
#[derive(Debug)]
pub struct Telemetry {
    _exporters: Exporters,
}

/// Fails where [`init`] would for what the environment says, and does nothing: for a service that touches something
/// before it has telemetry.
pub fn check() -> Result<(), TelemetryError> {
    filter_of_environment()?;
    Ok(otlp::check()?)
}

/// Sends the process's events to stderr, filtered by `FORCE12_LOG` (default `info`), exports metrics and traces if the
/// `OTEL_*` variables name a collector, and notes that `service` starts. `attributes` say more of who exports.
///
/// To be called outside of any asynchronous runtime.
pub fn init(service: &str, attributes: &[(&'static str, &str)]) -> Result<Telemetry, TelemetryError> {
    let filter = filter_of_environment()?;
    let exporters = Exporters::of_environment(service, attributes)?;
    if let Some(provider) = &exporters.metrics {
        metrics::install_with(Some(provider.meter(SCOPE)))?;
    }
    let traces = exporters.traces.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(SCOPE))
            // Where in the code, and on which thread, is of no use to an operator.
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false)
            // What is exported does not depend on what is logged.
            .with_filter(LevelFilter::INFO)
            .boxed()
    });
    let terminal = std::io::stderr().is_terminal();
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = if terminal {
        lines.boxed()
    } else {
        let json = fmt::format().json().flatten_event(true);
        lines.event_format(JsonLines(json)).fmt_fields(JsonFields::new()).boxed()
    };
    // Spans are for traces alone: where they are not exported, nobody is interested in any, and they cost nothing.
    let lines = lines.with_filter(filter_fn(|metadata| !metadata.is_span()).and(filter)).boxed();
    let layers: Vec<Box<dyn tracing_subscriber::Layer<Registry> + Send + Sync>> =
        traces.into_iter().chain([lines]).collect();
    tracing_subscriber::registry().with(layers).try_init()?;
    tracing::info!(service, version = env!("CARGO_PKG_VERSION"), "starting");
    Ok(Telemetry { _exporters: exporters })
}

fn filter_of_environment() -> Result<EnvFilter, TelemetryError> {
    filter(std::env::var(FILTER_VARIABLE).ok().as_deref())
}

fn filter(value: Option<&str>) -> Result<EnvFilter, TelemetryError> {
    let value = value.filter(|value| !value.trim().is_empty()).unwrap_or("info");
    EnvFilter::builder()
        .parse(value)
        .map_err(|source| TelemetryError::Filter { value: value.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_filter_is_the_default_and_a_bad_one_is_named() {
        assert_eq!(filter(Some(" ")).unwrap().to_string(), "info");
        assert_eq!(filter(Some("warn,hyper=off")).unwrap().to_string(), "hyper=off,warn");
        let error = filter(Some("force12=loud")).unwrap_err().to_string();
        assert!(error.starts_with("FORCE12_LOG=\"force12=loud\" is not a log filter"), "{error}");
    }
}
