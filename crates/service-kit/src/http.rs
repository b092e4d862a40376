//! Serves a router over HTTP/1.1 with a named bound on everything that a peer can hold on to: see [`Limits`].
//!
//! [`app`] is the part that works on requests, for tests without sockets; [`serve`] puts connections in front of it.
//! What cannot be read as HTTP at all (a malformed or oversized head) is answered by the HTTP library itself, with a
//! bare status: there is no request yet that a document could be about.

mod app;
mod prefer;
mod serve;
#[cfg(test)]
mod testing;
mod write_bound;

use std::time::Duration;

pub use app::app;
pub use prefer::{LONG_POLL_MAX, PREFER, PREFERENCE_APPLIED, prefer_wait};
pub use serve::serve;

/// What peers may hold on to.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most connections at a time. One more takes the place of the one that has waited longest for a request;
    /// where all have one under way, it is answered 503 and closed. Peers on this machine have a few places more.
    pub connections_max: usize,
    /// From the opening of a connection, or the end of an answer, to the whole head of the next request: bounds both
    /// a peer that dribbles its head and a connection that idles.
    pub head_timeout: Duration,
    /// The most bytes of a request's head.
    pub head_max_bytes: usize,
    /// The most headers of a request.
    pub headers_max: usize,
    /// The most bytes of a request's body.
    pub body_max_bytes: usize,
    /// From a request's head to the head of its answer. With `Prefer: wait` the wait is added, up to
    /// [`LONG_POLL_MAX`]; what streams afterwards is not bounded by it.
    pub request_timeout: Duration,
    /// The longest that a peer may take for [`Self::write_min_bytes`] of what waits for it, or for all of that where it
    /// is less. One that is slower is cut off: it would keep its place for as long as it likes.
    pub write_timeout: Duration,
    /// See [`Self::write_timeout`].
    pub write_min_bytes: usize,
    /// The longest from the shutdown to the end of the last connection.
    pub drain_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            // Four times the readers that a stream allows; each connection costs some 20 KiB.
            connections_max: 1024,
            // Longer than a container engine's healthcheck interval or a scraper's, shorter than a person's patience.
            head_timeout: Duration::from_secs(20),
            // Room for a browser's cookies of other services on the same host.
            head_max_bytes: 16 * 1024,
            headers_max: 64,
            // The largest document that is sent to us is a trace: 10,000 values of up to five digits fit.
            body_max_bytes: 64 * 1024,
            request_timeout: Duration::from_secs(10),
            // 3 KiB a second: slower than any line that a person looks at the page by.
            write_timeout: Duration::from_secs(10),
            write_min_bytes: 32 * 1024,
            // Under the 10 s that container engines allow by default before they kill.
            drain_timeout: Duration::from_secs(5),
        }
    }
}
