//! The wire: AWS JSON 1.1, as every client of ECS speaks it.
//!
//! A request is a POST with `X-Amz-Target: AmazonEC2ContainerServiceV20141113.<Operation>` and a JSON body; an error is
//! a JSON object whose `__type` names it (<https://smithy.io/2.0/aws/protocols/aws-json-1_1-protocol.html>). Signatures
//! are not checked.

use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What an operation comes to.
pub(crate) type Reply = Result<Value, ApiError>;

/// An error as the service tells it. The codes are those of
/// <https://docs.aws.amazon.com/AmazonECS/latest/APIReference/CommonErrors.html> and of each operation's page.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub(crate) struct ApiError {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl ApiError {
    /// The client has asked for something that cannot be done.
    pub(crate) fn client(message: impl Into<String>) -> Self {
        Self { status: 400, code: "ClientException", message: message.into() }
    }

    /// A parameter has a value that it cannot have.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { status: 400, code: "InvalidParameterException", message: message.into() }
    }

    /// There is no such cluster.
    pub(crate) fn cluster_not_found() -> Self {
        Self { status: 400, code: "ClusterNotFoundException", message: "Cluster not found.".to_owned() }
    }

    /// There is no such service.
    pub(crate) fn service_not_found() -> Self {
        Self { status: 400, code: "ServiceNotFoundException", message: "Service not found.".to_owned() }
    }

    /// More calls than the account may make.
    pub(crate) fn throttled() -> Self {
        Self { status: 400, code: "ThrottlingException", message: "Rate exceeded".to_owned() }
    }

    /// The service itself has failed.
    pub(crate) fn server() -> Self {
        Self {
            status: 500,
            code: "ServerException",
            message: "Service Unavailable. Please try again later.".to_owned(),
        }
    }

    /// Something in front of the service has failed.
    pub(crate) fn unavailable() -> Self {
        Self {
            status: 503,
            code: "ServiceUnavailable",
            message: "The request has failed due to a temporary failure of the server.".to_owned(),
        }
    }

    /// There is no such operation here.
    pub(crate) fn unknown_operation(target: &str) -> Self {
        Self {
            status: 400,
            code: "UnknownOperationException",
            message: format!("{target}: not an operation of this fake"),
        }
    }
}

/// The service's answer to a request that has reached it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// A JSON document.
    pub body: String,
}

impl Answer {
    pub(crate) fn of(reply: Reply) -> Self {
        match reply {
            Ok(body) => Self { status: 200, body: body.to_string() },
            Err(error) => Self {
                status: error.status,
                body: json!({"__type": error.code, "message": error.message}).to_string(),
            },
        }
    }

    /// The document; null if it is none.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_default()
    }
}

/// What a caller gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer.
    Answered(Answer),
    /// A connection that breaks. Whether the request has taken effect cannot be told from this.
    Broken,
}

/// What a request asks for.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    // A client may send nothing where there is nothing to say.
    let body = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(body).map_err(|error| ApiError {
        status: 400,
        code: "SerializationException",
        message: error.to_string(),
    })
}
