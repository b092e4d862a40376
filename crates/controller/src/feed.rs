//! The demand feed: one task per source keeps asking it, and keeps what it last said.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;

/// One question to a demand source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FetchRequest {
    /// The tag of the document that is known already; sent as `If-None-Match`.
    pub etag: Option<String>,
    /// For how long the source is asked to hold its answer while the document is that one; sent as
    /// `Prefer: wait=SECONDS`, rounded down. `None` asks for an answer at once.
    pub wait: Option<Duration>,
}

/// A complete answer of a demand source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DemandAnswer {
    /// A document (200).
    Changed {
        /// Its tag, if it has one.
        etag: Option<String>,
        /// Whether the answer carried `Preference-Applied: wait`.
        wait_applied: bool,
        /// By key: a count of containers, unknown (`Ok(None)`), or what is wrong with the value.
        values: BTreeMap<String, Result<Option<u32>, String>>,
        /// More about some of the keys.
        details: BTreeMap<String, DemandDetail>,
    },
    /// The document is still the one that was asked about (304).
    NotModified {
        /// Whether the answer carried `Preference-Applied: wait`.
        wait_applied: bool,
    },
}

/// What a source says about one key beside its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DemandDetail {
    /// Why it is unknown or stale.
    pub reason: Option<String>,
    /// How old the value is, in milliseconds.
    pub age_ms: Option<u64>,
}

/// Why a source gave no complete answer, in words: lower case, naming the place.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct FeedError(pub String);

/// The way to one demand source.
///
/// The feed bounds the time of each call and drops its future when that is over; it never makes two calls to one
/// source at once. The transport bounds the body's size.
#[async_trait]
pub trait DemandTransport: Send + Sync + 'static {
    /// Asks once.
    async fn fetch(&self, request: FetchRequest) -> Result<DemandAnswer, FeedError>;
}
