//! Metrics in the Prometheus text format, and to a collector where there is one. Services record through the `metrics`
//! facade, once for both.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Unit, describe_counter};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use metrics_opentelemetry::{OpenTelemetryMetrics, OpenTelemetryRecorder};
use metrics_util::layers::FanoutBuilder;
use opentelemetry::metrics::Meter;

/// Upper bounds, in seconds, of the buckets of every histogram whose name ends in `_seconds`: from a plan
/// (well under 1 ms) over a start (tens to hundreds of ms) to a wait for a grace period.
pub const SECONDS_BUCKETS: [f64; 20] = [
    0.000_1, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 0.75, 1.0, 2.5,
    5.0, 10.0, 30.0, 60.0,
];

/// Histograms hold each sample until it is sorted into its bucket; this bounds how many.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

static INSTALLED: Mutex<Option<MetricsHandle>> = Mutex::new(None);

/// Renders what has been recorded. Cheap to clone.
#[derive(Clone, Debug)]
pub struct MetricsHandle(PrometheusHandle);

impl MetricsHandle {
    /// Everything recorded so far, in the Prometheus text format.
    pub fn render(&self) -> String {
        self.0.render()
    }

    /// Keeps the memory that histograms take bounded. Never returns: spawn it once, beside the service.
    pub async fn upkeep(self) {
        let mut interval = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            interval.tick().await;
            self.0.run_upkeep();
        }
    }
}

/// Why metrics cannot be collected.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// The recorder cannot be built.
    #[error("cannot build the recorder of metrics: {0}")]
    Build(#[from] BuildError),
    /// Something else has taken the process's recorder.
    #[error("metrics are recorded by something else already")]
    Taken,
}

/// Makes this process's metrics collectable. Called again, it returns the same handle.
///
/// Fails when something else has taken the process's recorder.
pub fn install() -> Result<MetricsHandle, InstallError> {
    install_with(None)
}

/// [`install`], with everything recorded on `exported` as well: it has to be the first call.
pub(crate) fn install_with(exported: Option<Meter>) -> Result<MetricsHandle, InstallError> {
    // Held throughout: of two callers at once the second would find the recorder taken.
    let mut installed = INSTALLED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(handle) = &*installed {
        return Ok(handle.clone());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?
        .build_recorder();
    let handle = MetricsHandle(recorder.handle());
    let taken = if let Some(meter) = exported {
        let exported = OpenTelemetryRecorder::new(OpenTelemetryMetrics::new(meter));
        let both = FanoutBuilder::default().add_recorder(recorder).add_recorder(exported).build();
        metrics::set_global_recorder(both).is_ok()
    } else {
        metrics::set_global_recorder(recorder).is_ok()
    };
    if !taken {
        return Err(InstallError::Taken);
    }
    describe();
    *installed = Some(handle.clone());
    Ok(handle)
}

/// What [`crate::http`] and the listener record.
fn describe() {
    describe_counter!(
        "http_requests_total",
        Unit::Count,
        "Requests answered, by the route's pattern, method and status."
    );
    describe_counter!(
        "http_connections_refused_total",
        Unit::Count,
        "Connections closed at once because there were as many as are allowed already."
    );
    describe_counter!(
        "http_accepts_failed_total",
        Unit::Count,
        "Attempts to take a connection that the system refused, for want of descriptors or the like."
    );
}
