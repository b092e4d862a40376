//! The wire: every document that Force12's services exchange over HTTP, and its schema.
//!
//! Times are RFC 3339 in UTC with milliseconds ([`Timestamp`]); durations end in `_ms`; names are snake_case.
//! Readers ignore fields that they do not know, so that a newer service can be read by an older one.

pub mod decision;
pub mod demand;
pub mod generator;
pub mod health;
pub mod history;
pub mod problem;
pub mod snapshot;
mod timestamp;

pub use timestamp::Timestamp;
