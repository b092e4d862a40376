//! Spans of what is asked of the engine, and of what is waited for, within the action that asks.

use tracing::{Span, info_span};

/// One request that changes something: `create container`, `stop container` and so on.
pub(crate) fn request(name: &'static str, engine: &str) -> Span {
    info_span!("engine request", otel.name = name, otel.kind = "client", peer.service = engine)
}

/// A start, or a thaw, waits until its victim has left its room.
pub(crate) fn wait_for_room(victim: &str) -> Span {
    info_span!("wait for room", force12.victim = victim)
}
