//! What is told late: a thing as it was some time ago.
//!
//! "The Amazon ECS API follows an eventual consistency model": a task just started may be missing from a listing, one
//! just stopped may be listed as running, and a later answer may be older than an earlier one
//! (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html>). Each request draws one lag, and is
//! answered with everything as it was so long ago.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// For how long earlier states are kept. The documentation has clients wait for up to five minutes (same page).
pub(crate) const KEPT: Duration = Duration::from_mins(5);

/// A thing, and what it was like until recently.
#[derive(Debug)]
pub(crate) struct Lagging<T> {
    /// Oldest first; never empty.
    versions: VecDeque<(Instant, T)>,
}

impl<T: Clone> Lagging<T> {
    /// It is there from now on.
    pub(crate) fn new(value: T) -> Self {
        Self { versions: VecDeque::from([(Instant::now(), value)]) }
    }

    /// The truth.
    pub(crate) fn now(&self) -> &T {
        &self.versions.back().expect("there is always a version").1
    }

    /// As it was then; `None` if it was not there yet.
    pub(crate) fn at(&self, then: Instant) -> Option<&T> {
        self.versions.iter().rev().find(|(since, _)| *since <= then).map(|(_, value)| value)
    }

    /// From now on it is different.
    pub(crate) fn change(&mut self, change: impl FnOnce(&mut T)) {
        let now = Instant::now();
        let mut value = self.now().clone();
        change(&mut value);
        self.versions.push_back((now, value));
        // The oldest that is kept is the one that held at the beginning of the time that is kept.
        while self.versions.get(1).is_some_and(|(since, _)| *since + KEPT <= now) {
            self.versions.pop_front();
        }
    }
}
