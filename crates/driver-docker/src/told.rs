//! An event of the engine's. Whatever is not understood breaks the stream: it is asked for anew then, and all that may have
//! been missed is observed; an event that is left out instead would be missed without anybody's knowing.

use serde::Deserialize;

/// One event, as far as anybody here asks.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Told {
    #[serde(rename = "Action")]
    pub(crate) action: String,
    #[serde(rename = "Actor")]
    pub(crate) actor: Actor,
    /// When, by the engine's clock, in nanoseconds since 1970; 0 where it does not say.
    #[serde(rename = "timeNano", default)]
    pub(crate) at_ns: u64,
}

/// What an event is about.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Actor {
    #[serde(rename = "ID")]
    pub(crate) id: String,
}
