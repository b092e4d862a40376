//! What this service says of itself in `/metrics`, beside what every service does.

use metrics::{Unit, describe_counter, describe_gauge};

/// Describes every metric that is recorded in this crate. Call it after [`service_kit::metrics::install`].
pub fn describe() {
    describe_gauge!("status_source_live", "1 while the scheduler is heard, 0 while it is not.");
    describe_counter!(
        "status_snapshots_published_total",
        Unit::Count,
        "Documents published: the scheduler's snapshots, and each change of whether it is heard."
    );
    describe_counter!(
        "status_stream_errors_total",
        Unit::Count,
        "Times that the scheduler's stream was given up or could not be opened, by kind."
    );
}
