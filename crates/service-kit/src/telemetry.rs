//! Logs: to stderr, for people on a terminal and as JSON lines otherwise.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The variable that holds the log filter, in the syntax of `RUST_LOG`.
pub const FILTER_VARIABLE: &str = "FORCE12_LOG";

/// Why logging could not be set up.
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
}

/// Sends the process's events to stderr, filtered by `FORCE12_LOG` (default `info`), and notes that `service` starts.
pub fn init(service: &str) -> Result<(), TelemetryError> {
    use tracing_subscriber::util::SubscriberInitExt as _;

    let filter = filter(std::env::var(FILTER_VARIABLE).ok().as_deref())?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if std::io::stderr().is_terminal() {
        builder.finish().try_init()?;
    } else {
        builder.json().flatten_event(true).finish().try_init()?;
    }
    tracing::info!(service, version = env!("CARGO_PKG_VERSION"), "starting");
    Ok(())
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
