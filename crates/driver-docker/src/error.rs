//! The engine's errors, by what the caller can do about them.

use std::error::Error as StdError;
use std::io;

use bollard::errors::Error as EngineError;
use driver::DriverError;

use crate::config::EngineAddress;
use crate::tls;

/// An answer of the engine that says no.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// The HTTP status.
    pub(crate) status: u16,
    /// The engine's words.
    pub(crate) message: String,
}

/// Names the driver in its errors and makes them.
#[derive(Clone, Debug)]
pub(crate) struct Errors {
    /// The driver's name.
    pub(crate) engine: String,
}

impl Errors {
    pub(crate) fn new(address: &EngineAddress) -> Self {
        Self { engine: format!("docker {address}") }
    }

    /// A refusal is part of the conversation and goes to the caller as such; everything else is an error.
    pub(crate) fn sort(&self, call: &'static str, error: EngineError) -> Result<Refusal, DriverError> {
        match error {
            EngineError::DockerResponseServerError { status_code, message } => {
                Ok(Refusal { status: status_code, message })
            }
            EngineError::HyperLegacyError { err } if err.is_connect() => Err(self.unreachable(err)),
            // Its kind shows its cause only from within.
            EngineError::IOError { err } if tls::refusal(&err).is_some() => Err(self.unreachable(err)),
            other if tls::refusal(&other).is_some() => Err(self.unreachable(other)),
            other => Err(self.outcome_unknown(call, chain(&other))),
        }
    }

    /// No connection was made, so nothing was asked.
    fn unreachable(&self, error: impl StdError + Send + Sync + 'static) -> DriverError {
        let message = match io_error_in(&error).map(io::Error::kind) {
            _ if let Some(refusal) = tls::refusal(&error) => refusal,
            Some(io::ErrorKind::PermissionDenied) => {
                "permission denied: run as root or as a member of the group that the socket belongs to, usually \
                 docker"
                    .to_owned()
            }
            Some(io::ErrorKind::NotFound) => {
                "there is no such socket: start the engine, or correct its address".to_owned()
            }
            Some(io::ErrorKind::ConnectionRefused) => {
                "connection refused: start the engine, or correct its address".to_owned()
            }
            Some(io::ErrorKind::TimedOut) => "no connection in time: is the host up, and the port open?".to_owned(),
            _ => chain(&error),
        };
        DriverError::Unreachable { engine: self.engine.clone(), message, source: Some(Box::new(error)) }
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

    /// A refusal for which the caller knows no better code.
    pub(crate) fn refused(&self, call: &'static str, refusal: Refusal) -> DriverError {
        let Refusal { status, message } = refusal;
        let code = match status {
            404 if message.starts_with("No such image") => "image_missing",
            404 if message.starts_with("No such container") => "not_found",
            // 404 is also for what a container's spec names and the engine lacks, such as a network.
            400 | 404 => "bad_spec",
            409 => "conflict",
            _ => "engine",
        };
        let message = if message.is_empty() { format!("HTTP status {status}") } else { message };
        self.rejected(call, code, message)
    }
}

fn io_error_in<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a io::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<io::Error>() {
            return Some(found);
        }
        next = error.source();
    }
    None
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

#[cfg(test)]
mod tests {
    use super::*;

    fn errors() -> Errors {
        Errors::new(&EngineAddress::Unix("/run/engine.sock".into()))
    }

    fn refused(status: u16, message: &str) -> DriverError {
        errors().refused("start", Refusal { status, message: message.to_owned() })
    }

    #[test]
    fn refusals_carry_the_code_that_says_what_to_change() {
        for (status, message, code) in [
            (400, "invalid reference format", "bad_spec"),
            (404, "No such image: nope:latest", "image_missing"),
            (404, "No such container: 4711", "not_found"),
            (404, "network nope not found", "bad_spec"),
            (409, "Conflict. The container name is already in use", "conflict"),
            (500, "driver failed programming external connectivity", "engine"),
        ] {
            let error = refused(status, message);
            assert_eq!(error.code(), code);
            assert_eq!(error.to_string(), format!("docker unix:///run/engine.sock refused start: {message}"));
        }
        assert_eq!(
            refused(503, "").to_string(),
            "docker unix:///run/engine.sock refused start: HTTP status 503"
        );
    }

    #[test]
    fn an_engine_that_cannot_be_reached_says_what_to_do() {
        for (kind, what_to_do) in [
            (io::ErrorKind::PermissionDenied, "run as root or as a member of the group"),
            (io::ErrorKind::NotFound, "start the engine, or correct its address"),
            (io::ErrorKind::ConnectionRefused, "start the engine, or correct its address"),
            (io::ErrorKind::TimedOut, "is the host up"),
        ] {
            let error = errors().unreachable(io::Error::from(kind));
            assert_eq!(error.code(), "unreachable");
            let text = error.to_string();
            assert!(text.starts_with("docker unix:///run/engine.sock cannot be reached: "), "{text}");
            assert!(text.contains(what_to_do), "{text}");
        }
        let error = errors().unreachable(io::Error::other("no such host"));
        assert_eq!(error.to_string(), "docker unix:///run/engine.sock cannot be reached: no such host");
    }

    #[test]
    fn a_broken_answer_leaves_the_outcome_open() {
        let broken = EngineError::IOError { err: io::ErrorKind::ConnectionReset.into() };
        let error = errors().sort("stop", broken).expect_err("it is not a refusal");
        assert_eq!(error.code(), "outcome_unknown");
        assert_eq!(
            error.to_string(),
            "docker unix:///run/engine.sock gave no clear answer to stop: connection reset"
        );
    }
}
