//! The `OTEL_*` variables: what is exported, and where to. Checked here, all of them, before anything is exported;
//! those that the SDK reads by itself ([`SDK_READS`]) it then reads again.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use axum::http::{HeaderName, HeaderValue};
use reqwest::Url;

/// Of the specification.
const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The longest time that makes sense in any of the variables: a day.
const MS_MAX: u64 = 86_400_000;
/// The most spans that may wait to be exported. The SDK takes their room at the start: some 500 bytes each.
const SPANS_MAX: u64 = 65_536;

/// Whole numbers that the SDK reads: the variable, and the largest value.
const SDK_READS: [(&str, u64); 4] = [
    ("OTEL_METRIC_EXPORT_INTERVAL", MS_MAX),
    ("OTEL_BSP_SCHEDULE_DELAY", MS_MAX),
    ("OTEL_BSP_MAX_QUEUE_SIZE", SPANS_MAX),
    ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", SPANS_MAX),
];

/// What is exported.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) traces: Option<Target>,
    pub(crate) metrics: Option<Target>,
}

/// Where one signal goes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Target {
    pub(crate) endpoint: Url,
    /// For one request and its retries together.
    pub(crate) timeout: Duration,
    /// Certificates (PEM) that are trusted beside the public authorities.
    pub(crate) ca_file: Option<CaFile>,
}

impl Target {
    pub(crate) fn ca_path(&self) -> Option<&Path> {
        self.ca_file.as_ref().map(|file| file.path.as_path())
    }
}

/// A file of certificates.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct CaFile {
    /// Which one names it.
    pub(crate) variable: String,
    pub(crate) path: PathBuf,
}

/// A variable that cannot be followed. Its text never holds the value of headers, or of a URL: they may hold secrets.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{variable} {problem}")]
pub struct VariableError {
    variable: String,
    problem: String,
}

/// Looks variables up; an empty one counts as not set, as the specification has it.
struct Variables<'a>(&'a dyn Fn(&str) -> Option<OsString>);

impl Variables<'_> {
    fn get(&self, name: &str) -> Result<Option<String>, VariableError> {
        let Some(value) = (self.0)(name) else { return Ok(None) };
        let value = value.into_string().map_err(|_| wrong(name, "is not UTF-8"))?;
        Ok(Some(value.trim().to_owned()).filter(|value| !value.is_empty()))
    }

    /// The variable of one signal, or else the one of all signals: its name and its value.
    fn of_signal(&self, signal: &str, what: &str) -> Result<Option<(String, String)>, VariableError> {
        for name in [format!("OTEL_EXPORTER_OTLP_{signal}_{what}"), format!("OTEL_EXPORTER_OTLP_{what}")] {
            if let Some(value) = self.get(&name)? {
                return Ok(Some((name, value)));
            }
        }
        Ok(None)
    }

    fn number(&self, name: &str, max: u64) -> Result<Option<u64>, VariableError> {
        self.get(name)?.map(|value| number(name, &value, max)).transpose()
    }
}

/// Reads what is to be exported: nothing, unless a place to export to is named.
pub(crate) fn read(lookup: &dyn Fn(&str) -> Option<OsString>) -> Result<Wanted, VariableError> {
    let variables = Variables(lookup);
    let off = match variables.get("OTEL_SDK_DISABLED")? {
        Some(value) => boolean("OTEL_SDK_DISABLED", &value)?,
        None => false,
    };
    if off {
        return Ok(Wanted { traces: None, metrics: None });
    }
    let mut wanted =
        Wanted { traces: target(&variables, "TRACES")?, metrics: target(&variables, "METRICS")? };
    if let Some(traces) = &mut wanted.traces
        && let Some(ms) = variables.number("OTEL_BSP_EXPORT_TIMEOUT", MS_MAX)?
    {
        // The SDK's processor, which is to keep it, does not.
        traces.timeout = traces.timeout.min(Duration::from_millis(ms));
    }
    if wanted.traces.is_some() || wanted.metrics.is_some() {
        resource(&variables)?;
        sampler(&variables)?;
        temporality(&variables)?;
        for (name, max) in SDK_READS {
            variables.number(name, max)?;
        }
    }
    Ok(wanted)
}

fn target(variables: &Variables<'_>, signal: &str) -> Result<Option<Target>, VariableError> {
    let exporter = format!("OTEL_{signal}_EXPORTER");
    match variables.get(&exporter)?.as_deref() {
        None | Some("otlp") => {}
        Some("none") => return Ok(None),
        Some(other) => return Err(wrong(&exporter, format!("is {other:?}; it must be `otlp` or `none`"))),
    }
    let Some((name, value)) = variables.of_signal(signal, "ENDPOINT")? else { return Ok(None) };
    let mut endpoint = endpoint(&name, &value)?;
    if name == "OTEL_EXPORTER_OTLP_ENDPOINT" {
        // The one for all signals is a base; that of one signal is used as it is.
        let mut path = endpoint.path_segments_mut().map_err(|()| wrong(&name, "has no room for a path"))?;
        path.pop_if_empty().extend(["v1", &signal.to_lowercase()]);
    }
    if let Some((name, value)) = variables.of_signal(signal, "PROTOCOL")?
        && value != "http/protobuf"
    {
        return Err(wrong(
            &name,
            format!(
                "is {value:?}, which is not spoken here; use http/protobuf, which collectors take on port 4318"
            ),
        ));
    }
    if let Some((name, value)) = variables.of_signal(signal, "COMPRESSION")?
        && !["none", "gzip"].contains(&value.as_str())
    {
        return Err(wrong(&name, format!("is {value:?}; it must be `gzip` or `none`")));
    }
    for what in ["CLIENT_CERTIFICATE", "CLIENT_KEY"] {
        if let Some((name, _)) = variables.of_signal(signal, what)? {
            return Err(wrong(
                &name,
                "is not followed here: no certificate is shown to a collector; unset it, and set \
                 OTEL_EXPORTER_OTLP_HEADERS where the collector asks who is there",
            ));
        }
    }
    if let Some((name, value)) = variables.of_signal(signal, "HEADERS")? {
        headers(&name, &value)?;
    }
    let timeout = match variables.of_signal(signal, "TIMEOUT")? {
        Some((name, value)) => Duration::from_millis(number(&name, &value, MS_MAX)?),
        None => TIMEOUT_DEFAULT,
    };
    let ca_file = variables
        .of_signal(signal, "CERTIFICATE")?
        .map(|(variable, path)| CaFile { variable, path: path.into() });
    Ok(Some(Target { endpoint, timeout, ca_file }))
}

fn endpoint(name: &str, value: &str) -> Result<Url, VariableError> {
    let say = |what: &str| wrong(name, format!("{what}; give a URL like http://collector:4318"));
    let url = Url::parse(value).map_err(|error| say(&format!("is not a URL ({error})")))?;
    if !["http", "https"].contains(&url.scheme()) || !url.has_host() {
        return Err(say("is not an http or https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong(
            name,
            "holds a user or a password; take them out, and set OTEL_EXPORTER_OTLP_HEADERS",
        ));
    }
    Ok(url)
}

/// `key=value,key=value`, values percent-encoded. What is wrong is told by its place alone.
fn headers(name: &str, value: &str) -> Result<(), VariableError> {
    for (place, header) in value.split(',').enumerate().filter(|(_, header)| !header.trim().is_empty()) {
        let good = header.split_once('=').is_some_and(|(key, value)| {
            HeaderName::from_str(key.trim()).is_ok() && HeaderValue::from_str(value.trim()).is_ok()
        });
        if !good {
            return Err(wrong(
                name,
                format!(
                    "has no header in its part {} (its value is not shown); write key=value,key=value",
                    place + 1
                ),
            ));
        }
    }
    Ok(())
}

fn resource(variables: &Variables<'_>) -> Result<(), VariableError> {
    const NAME: &str = "OTEL_RESOURCE_ATTRIBUTES";
    for part in variables.get(NAME)?.iter().flat_map(|value| value.split(',')) {
        let named = part.split_once('=').is_some_and(|(key, _)| !key.trim().is_empty());
        if !named && !part.trim().is_empty() {
            return Err(wrong(
                NAME,
                format!("has {part:?}, which is not key=value; write key=value,key=value"),
            ));
        }
    }
    Ok(())
}

fn sampler(variables: &Variables<'_>) -> Result<(), VariableError> {
    const NAME: &str = "OTEL_TRACES_SAMPLER";
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    match variables.get(NAME)?.as_deref() {
        None | Some("always_on" | "always_off" | "parentbased_always_on" | "parentbased_always_off") => {
            Ok(())
        }
        Some("traceidratio" | "parentbased_traceidratio") => {
            let value = variables.get(ARGUMENT)?;
            let ratio = value.as_deref().map_or(Some(1.0), |value| value.parse::<f64>().ok());
            if ratio.is_some_and(|ratio| (0.0..=1.0).contains(&ratio)) {
                return Ok(());
            }
            Err(wrong(
                ARGUMENT,
                format!("is {:?}; it must be a ratio from 0 to 1", value.unwrap_or_default()),
            ))
        }
        Some(other) => Err(wrong(
            NAME,
            format!(
                "is {other:?}; it must be one of always_on, always_off, traceidratio, parentbased_always_on, \
                 parentbased_always_off, parentbased_traceidratio"
            ),
        )),
    }
}

fn temporality(variables: &Variables<'_>) -> Result<(), VariableError> {
    const NAME: &str = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE";
    match variables.get(NAME)? {
        Some(value) if !["cumulative", "delta", "lowmemory"].contains(&&*value.to_ascii_lowercase()) => {
            Err(wrong(NAME, format!("is {value:?}; it must be `cumulative`, `delta` or `lowmemory`")))
        }
        _ => Ok(()),
    }
}

fn boolean(name: &str, value: &str) -> Result<bool, VariableError> {
    match value.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(wrong(name, format!("is {value:?}; it must be `true` or `false`"))),
    }
}

fn number(name: &str, value: &str, max: u64) -> Result<u64, VariableError> {
    value
        .parse()
        .ok()
        .filter(|number| (1..=max).contains(number))
        .ok_or_else(|| wrong(name, format!("is {value:?}; it must be a whole number from 1 to {max}")))
}

fn wrong(variable: &str, problem: impl Into<String>) -> VariableError {
    VariableError { variable: variable.to_owned(), problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/base/");

    fn reads(set: &[(&str, &str)]) -> Result<Wanted, String> {
        let lookup = |name: &str| {
            set.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
        };
        read(&lookup).map_err(|error| error.to_string())
    }

    fn endpoints(set: &[(&str, &str)]) -> [Option<String>; 2] {
        let wanted = reads(set).unwrap();
        [wanted.traces, wanted.metrics].map(|target| target.map(|target| target.endpoint.to_string()))
    }

    #[test]
    fn nothing_is_exported_unless_a_place_is_named() {
        assert_eq!(endpoints(&[]), [None, None]);
        assert_eq!(endpoints(&[("OTEL_EXPORTER_OTLP_ENDPOINT", " ")]), [None, None]);
        // What would be wrong does not matter while nothing is exported.
        assert_eq!(endpoints(&[("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]), [None, None]);
        assert_eq!(endpoints(&[BASE, ("OTEL_SDK_DISABLED", "True")]), [None, None]);
    }

    #[test]
    fn the_endpoint_of_all_signals_is_a_base_and_that_of_one_is_used_as_it_is() {
        let base = |signal: &str| Some(format!("http://collector:4318/base/v1/{signal}"));
        assert_eq!(endpoints(&[BASE]), [base("traces"), base("metrics")]);
        assert_eq!(endpoints(&[BASE, ("OTEL_METRICS_EXPORTER", "none")]), [base("traces"), None]);
        let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://other/as/it/is");
        assert_eq!(endpoints(&[own]), [None, Some(own.1.to_owned())]);
        assert_eq!(endpoints(&[BASE, own]), [base("traces"), Some(own.1.to_owned())]);
    }

    #[test]
    fn the_timeout_of_one_signal_comes_first() {
        let wanted = reads(&[
            BASE,
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "2000"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "500"),
        ])
        .unwrap();
        assert_eq!(wanted.traces.unwrap().timeout, Duration::from_millis(500));
        assert_eq!(wanted.metrics.unwrap().timeout, Duration::from_secs(2));
        assert_eq!(reads(&[BASE]).unwrap().traces.unwrap().timeout, TIMEOUT_DEFAULT);
    }

    #[test]
    fn what_cannot_be_followed_is_named_with_what_would_be_right() {
        for (name, value, says) in [
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "collector:4318",
                "is not an http or https URL; give a URL like http://collector:4318",
            ),
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "nonsense",
                "is not a URL (relative URL without a base); give a URL like http://collector:4318",
            ),
            (
                "OTEL_EXPORTER_OTLP_ENDPOINT",
                "http://me:secret@collector",
                "holds a user or a password; take them out, and set OTEL_EXPORTER_OTLP_HEADERS",
            ),
            (
                "OTEL_EXPORTER_OTLP_PROTOCOL",
                "grpc",
                "is \"grpc\", which is not spoken here; use http/protobuf, which collectors take on port 4318",
            ),
            (
                "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
                "http/json",
                "is \"http/json\", which is not spoken here; use http/protobuf, which collectors take on port 4318",
            ),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd", "is \"zstd\"; it must be `gzip` or `none`"),
            (
                "OTEL_EXPORTER_OTLP_HEADERS",
                "a=b,secret",
                "has no header in its part 2 (its value is not shown); write key=value,key=value",
            ),
            (
                "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
                "10s",
                "is \"10s\"; it must be a whole number from 1 to 86400000",
            ),
            (
                "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE",
                "both",
                "is \"both\"; it must be `cumulative`, `delta` or `lowmemory`",
            ),
            ("OTEL_TRACES_EXPORTER", "jaeger", "is \"jaeger\"; it must be `otlp` or `none`"),
            ("OTEL_SDK_DISABLED", "yes", "is \"yes\"; it must be `true` or `false`"),
            (
                "OTEL_TRACES_SAMPLER",
                "xray",
                "is \"xray\"; it must be one of always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off, parentbased_traceidratio",
            ),
            (
                "OTEL_RESOURCE_ATTRIBUTES",
                "team=a,b",
                "has \"b\", which is not key=value; write key=value,key=value",
            ),
            (
                "OTEL_BSP_MAX_QUEUE_SIZE",
                "1000000000000",
                "is \"1000000000000\"; it must be a whole number from 1 to 65536",
            ),
            ("OTEL_METRIC_EXPORT_INTERVAL", "0", "is \"0\"; it must be a whole number from 1 to 86400000"),
        ] {
            let error = reads(&[(name, value), BASE]).unwrap_err();
            assert_eq!(error, format!("{name} {says}"));
        }
        let ratio = [BASE, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
        assert_eq!(
            reads(&ratio).unwrap_err(),
            "OTEL_TRACES_SAMPLER_ARG is \"2\"; it must be a ratio from 0 to 1"
        );
        let key = [BASE, ("OTEL_EXPORTER_OTLP_CLIENT_KEY", "/key.pem")];
        assert!(reads(&key).unwrap_err().starts_with("OTEL_EXPORTER_OTLP_CLIENT_KEY is not followed here"));
    }

    #[test]
    fn an_export_of_spans_takes_no_longer_than_the_shorter_of_two_bounds() {
        let timeouts = |ms| {
            let wanted = reads(&[BASE, ("OTEL_BSP_EXPORT_TIMEOUT", ms)]).unwrap();
            [wanted.traces, wanted.metrics].map(|target| target.unwrap().timeout)
        };
        assert_eq!(timeouts("2500"), [Duration::from_millis(2_500), TIMEOUT_DEFAULT]);
        assert_eq!(timeouts("60000"), [TIMEOUT_DEFAULT; 2]);
    }

    #[test]
    fn what_can_be_followed_is() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/ca.pem"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20abc, x-team=a"),
            ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment=test,team=a="),
            ("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
        ] {
            assert!(reads(&[BASE, (name, value)]).unwrap().traces.is_some(), "{name}");
        }
    }
}
