//! What goes wrong, by what can be done about it.

use std::error::Error as StdError;

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;
use driver::DriverError;

use crate::config::EcsConfig;
use crate::http::NotConnected;
use crate::task::End;

/// A call that has not gone well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CallError {
    /// It was not done, for now: too many calls.
    Throttled(String),
    /// It was not sent.
    NotSent(String),
    /// Whether it was done is not known: no answer in time, a broken one, or one that says that ECS has failed.
    Unclear(String),
    /// It was refused, and will be again until something changes.
    Refused {
        /// The exception's name.
        code: String,
        message: String,
    },
}

impl CallError {
    /// For metrics.
    pub(crate) const fn outcome(&self) -> &'static str {
        match self {
            Self::Throttled(_) => "throttled",
            Self::NotSent(_) => "unreachable",
            Self::Unclear(_) => "unclear",
            Self::Refused { .. } => "refused",
        }
    }

    /// What the SDK says.
    pub(crate) fn of<E>(error: SdkError<E, HttpResponse>) -> Self
    where
        E: StdError + ProvideErrorMetadata + Send + Sync + 'static,
    {
        match error {
            SdkError::ServiceError(context) => {
                let status = context.raw().status().as_u16();
                let code = context.err().code().unwrap_or("unknown").to_owned();
                let message = context.err().message().unwrap_or_default().to_owned();
                if is_throttling(&code) || status == 429 {
                    return Self::Throttled(format!("{code}: {message}"));
                }
                // Also 503: whoever was overloaded may have begun.
                if status >= 500 {
                    return Self::Unclear(format!("HTTP status {status}, {code}: {message}"));
                }
                Self::Refused { code, message }
            }
            SdkError::ConstructionFailure(failure) => {
                Self::NotSent(chain(&SdkError::<E, HttpResponse>::ConstructionFailure(failure)))
            }
            SdkError::DispatchFailure(failure) => {
                let failure = SdkError::<E, HttpResponse>::DispatchFailure(failure);
                let words = chain(&failure);
                // Without credentials nothing is sent; the SDK calls that a failure to dispatch too.
                let no_credentials = has(&failure, |cause| {
                    cause.is::<aws_credential_types::provider::error::CredentialsError>()
                });
                if no_credentials || has(&failure, <dyn StdError>::is::<NotConnected>) {
                    Self::NotSent(words)
                } else {
                    Self::Unclear(words)
                }
            }
            other => Self::Unclear(chain(&other)),
        }
    }
}

/// As the SDKs tell throttling
/// (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html>).
fn is_throttling(code: &str) -> bool {
    matches!(
        code,
        "Throttling"
            | "ThrottlingException"
            | "ThrottledException"
            | "RequestThrottledException"
            | "RequestThrottled"
            | "RequestLimitExceeded"
            | "TooManyRequestsException"
            | "BandwidthLimitExceeded"
            | "LimitExceededException"
            | "SlowDown"
    )
}

fn has(error: &(dyn StdError + 'static), is: impl Fn(&(dyn StdError + 'static)) -> bool) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if is(error) {
            return true;
        }
        next = error.source();
    }
    false
}

/// The message and those of its causes that it does not repeat.
pub(crate) fn chain(error: &dyn StdError) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

/// Names the driver in its errors and makes them.
#[derive(Clone, Debug)]
pub(crate) struct Errors {
    /// The driver's name.
    pub(crate) engine: String,
}

impl Errors {
    pub(crate) fn new(config: &EcsConfig) -> Self {
        Self { engine: format!("ecs {}", config.ecs_cluster) }
    }

    /// A call that has not gone well, in the driver's words.
    pub(crate) fn call(&self, call: &'static str, error: &CallError) -> DriverError {
        match error {
            CallError::Throttled(message) => self.rejected(
                call,
                "throttled",
                format!("too many calls for the account's quota; others use it too: {message}"),
            ),
            CallError::NotSent(message) => self.unreachable(message.clone()),
            CallError::Unclear(message) => self.outcome_unknown(call, message.clone()),
            CallError::Refused { code, message } => {
                self.rejected(call, exception_code(code, message), format!("{code}: {message}"))
            }
        }
    }

    pub(crate) fn unreachable(&self, message: impl Into<String>) -> DriverError {
        DriverError::Unreachable { engine: self.engine.clone(), message: message.into(), source: None }
    }

    pub(crate) fn outcome_unknown(&self, call: &'static str, message: impl Into<String>) -> DriverError {
        DriverError::OutcomeUnknown { engine: self.engine.clone(), call, message: message.into() }
    }

    pub(crate) fn rejected(
        &self,
        call: &'static str,
        code: &'static str,
        message: impl Into<String>,
    ) -> DriverError {
        DriverError::Rejected { engine: self.engine.clone(), call, code, message: message.into() }
    }

    /// ECS would not place a task: the `reason` of a failure
    /// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/api_failures_messages.html>).
    pub(crate) fn not_placed(&self, instance: &str, reason: &str, detail: Option<&str>) -> DriverError {
        let (code, words) = placement(reason);
        let detail = detail.map(|detail| format!(": {detail}")).unwrap_or_default();
        self.rejected("start", code, format!("{reason} on {instance}: {words}{detail}"))
    }

    /// A task that has ended before it ran.
    pub(crate) fn not_started(&self, end: &End) -> DriverError {
        let words = end.words();
        self.rejected("start", stopped_code(&words), words)
    }
}

/// The code of a failure's reason, and what it means.
fn placement(reason: &str) -> (&'static str, &'static str) {
    match reason {
        "RESOURCE:CPU" => ("no_cpu", "it has not enough cpu left for the task"),
        "RESOURCE:MEMORY" => ("no_memory", "it has not enough memory left for the task"),
        "RESOURCE:PORTS" => ("no_ports", "a host port of the task is in use there"),
        "RESOURCE:ENI" => ("no_eni", "it has no network interface left for the task"),
        "RESOURCE:GPU" => ("no_gpu", "it has not enough GPUs left for the task"),
        "AGENT" => ("agent_disconnected", "its agent is disconnected"),
        "ATTRIBUTE" => ("attribute", "it lacks an attribute that the task definition requires"),
        "MISSING" => ("instance_missing", "it is not in the cluster"),
        "INACTIVE" => ("instance_inactive", "it has been deregistered"),
        "LOCATION" => ("location", "it is not where a volume or subnet of the task is"),
        _ if reason.starts_with("RESOURCE") => ("no_room", "it lacks something that the task requires"),
        _ => ("engine", "ECS gives no other reason"),
    }
}

/// The code of an exception
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StartTask.html#API_StartTask_Errors>).
fn exception_code(code: &str, message: &str) -> &'static str {
    match code {
        "AccessDeniedException"
        | "AccessDenied"
        | "UnauthorizedOperation"
        | "UnrecognizedClientException"
        | "ExpiredTokenException"
        | "InvalidSignatureException"
        | "MissingAuthenticationTokenException" => "denied",
        "ClusterNotFoundException" => "cluster_missing",
        "InvalidParameterException" | "ClientException" => {
            let message = message.to_ascii_lowercase();
            if message.contains("taskdefinition") || message.contains("task definition") {
                if message.contains("not found")
                    || message.contains("inactive")
                    || message.contains("unable to describe")
                {
                    return "image_missing";
                }
                return "bad_spec";
            }
            if message.contains("not found") {
                return "not_found";
            }
            "bad_spec"
        }
        "UnsupportedFeatureException" | "PlatformUnknownException" => "bad_spec",
        _ => "engine",
    }
}

/// The code of what ended a task before it ran: the agent's and ECS's words begin with the kind of error
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html>).
fn stopped_code(words: &str) -> &'static str {
    let lower = words.to_ascii_lowercase();
    let has = |part: &'static str| lower.contains(part);
    if has("cannotpull") {
        let is_denied = [
            "access denied",
            "accessdenied",
            "not authorized",
            "unauthorized",
            "no basic auth",
            "authorization",
        ]
        .into_iter()
        .any(has);
        return if is_denied {
            if has("does not exist") || has("not found") { "image_missing" } else { "registry_denied" }
        } else if has("not found") || has("manifest unknown") || has("does not exist") || has("no such image")
        {
            "image_missing"
        } else if has("no space left") {
            "no_space"
        } else if has("timeout")
            || has("timed out")
            || has("connection")
            || has("no such host")
            || has("dial tcp")
        {
            "registry_unreachable"
        } else {
            "pull_failed"
        };
    }
    if has("no space left") {
        return "no_space";
    }
    if has("cannotstartcontainer")
        || has("cannotcreatecontainer")
        || has("cannotcreatevolume")
        || has("containerruntimeerror")
        || has("invalid reference format")
    {
        if has("port is already allocated") || has("address already in use") {
            return "no_ports";
        }
        return "bad_spec";
    }
    if has("resourceinitializationerror") || has("resourcenotfounderror") {
        return "bad_spec";
    }
    if has("outofmemory") {
        return "no_memory";
    }
    if has("stopped by") || has("force12") || has("userinitiated") {
        return "conflict";
    }
    "engine"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_placement_failure_has_a_code_of_its_own() {
        let reasons = [
            "RESOURCE:CPU",
            "RESOURCE:MEMORY",
            "RESOURCE:PORTS",
            "RESOURCE:ENI",
            "RESOURCE:GPU",
            "AGENT",
            "ATTRIBUTE",
            "MISSING",
            "INACTIVE",
            "LOCATION",
            "RESOURCE:FPGA",
            "something new",
        ];
        let mut codes: Vec<_> = reasons.iter().map(|reason| placement(reason).0).collect();
        assert_eq!(codes[0], "no_cpu");
        assert_eq!(codes[5], "agent_disconnected");
        assert_eq!(*codes.last().expect("there are some"), "engine");
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), reasons.len());
    }

    #[test]
    fn a_refused_start_says_where_and_why() {
        let errors = Errors { engine: "ecs demo".to_owned() };
        let error = errors.not_placed("i-1", "RESOURCE:MEMORY", Some("asked 512"));
        assert_eq!(error.code(), "no_memory");
        assert_eq!(
            error.to_string(),
            "ecs demo refused start: RESOURCE:MEMORY on i-1: it has not enough memory left for the task: asked 512"
        );
    }

    #[test]
    fn what_ended_a_task_before_it_ran_says_what_to_change() {
        for (words, code) in [
            (
                "CannotPullContainerError: pull image manifest has been retried 1 time(s): image:1 not found",
                "image_missing",
            ),
            (
                "CannotPullContainerError: pull access denied for nope, repository does not exist or may require 'docker login'",
                "image_missing",
            ),
            ("CannotPullECRContainerError: AccessDeniedException: not authorized", "registry_denied"),
            ("CannotPullContainerError: no basic auth credentials", "registry_denied"),
            ("CannotPullContainerError: dial tcp 10.0.0.1:443: i/o timeout", "registry_unreachable"),
            ("CannotPullContainerError: write /var/lib/docker: no space left on device", "no_space"),
            ("CannotPullContainerError: something", "pull_failed"),
            ("CannotStartContainerError: exec: \"/nope\": no such file or directory", "bad_spec"),
            ("CannotStartContainerError: Bind for 0.0.0.0:80 failed: port is already allocated", "no_ports"),
            ("CannotCreateContainerError: invalid mount config", "bad_spec"),
            ("ResourceInitializationError: unable to pull secrets", "bad_spec"),
            ("OutOfMemoryError: container killed due to memory usage", "no_memory"),
            ("UserInitiated: somebody", "conflict"),
            ("TaskFailedToStart: whatever", "engine"),
        ] {
            assert_eq!(stopped_code(words), code, "{words}");
        }
    }

    #[test]
    fn exceptions_say_what_to_change() {
        for (code, message, expected) in [
            ("AccessDeniedException", "User is not authorized to perform: ecs:StartTask", "denied"),
            ("ClusterNotFoundException", "Cluster not found.", "cluster_missing"),
            ("ClientException", "TaskDefinition not found.", "image_missing"),
            ("ClientException", "TaskDefinition is inactive", "image_missing"),
            ("InvalidParameterException", "The referenced task was not found.", "not_found"),
            ("InvalidParameterException", "Network Configuration must be provided", "bad_spec"),
            ("SomethingElse", "", "engine"),
        ] {
            assert_eq!(exception_code(code, message), expected, "{code}: {message}");
        }
    }
}
