//! What people and browsers use of Force12: the live page, the newest snapshot and its stream, history, decisions,
//! and the controls, passed on to the services that they belong to.
//!
//! Data flows one way: [`follow`] keeps a connection to the scheduler's stream and reads it with [`sse`]; each
//! snapshot passes [`board`], which decides whether it may be shown, and is published by [`hub`]; [`history`]
//! samples what is published; [`http`] serves it all, with [`page`] embedded and [`upstream`] behind the controls.

pub mod address;
pub mod board;
pub mod clock;
pub mod config;
pub mod follow;
pub mod history;
pub mod http;
pub mod hub;
pub mod metrics;
pub mod page;
pub mod reload;
pub mod sse;
#[cfg(test)]
mod testing;
pub mod upstream;
