//! Connections that wait for a request, and the one that gives its place up for a new one.
//!
//! To be kept open after an answer, or to dribble the head of a first request, costs a peer nothing: one alone could
//! hold every place that there is. So a connection that waits has its place until somebody else needs it, and the one
//! that has waited longest goes first. One with a request under way is never ended for another.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Frame, SizeHint};
use tokio_util::sync::CancellationToken;

/// The connections that wait for a request. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub(crate) struct Waiting(Arc<Mutex<Queue>>);

#[derive(Default)]
struct Queue {
    next: u64,
    /// The lowest number has waited longest.
    by_age: BTreeMap<u64, CancellationToken>,
}

impl Waiting {
    /// A new connection, which waits until [`Place::works`]. It has to end when its `given_up` is cancelled.
    pub(crate) fn place(&self, given_up: CancellationToken) -> Arc<Place> {
        let place = Place { waiting: self.clone(), given_up, age: Mutex::new(None) };
        place.waits();
        Arc::new(place)
    }

    /// Ends the connection that has waited longest; `false` if none waits.
    pub(crate) fn end_longest(&self) -> bool {
        let longest = self.queue().by_age.pop_first();
        longest.map(|(_, given_up)| given_up.cancel()).is_some()
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One connection's.
pub(crate) struct Place {
    waiting: Waiting,
    given_up: CancellationToken,
    /// While it waits.
    age: Mutex<Option<u64>>,
}

impl Place {
    /// A request is under way until what is returned is dropped.
    pub(crate) fn works(self: &Arc<Self>) -> Work {
        self.waits_no_more();
        Work(Arc::clone(self))
    }

    fn waits(&self) {
        let mut queue = self.waiting.queue();
        let age = queue.next;
        queue.next += 1;
        queue.by_age.insert(age, self.given_up.clone());
        *self.age() = Some(age);
    }

    fn waits_no_more(&self) {
        if let Some(age) = self.age().take() {
            self.waiting.queue().by_age.remove(&age);
        }
    }

    fn age(&self) -> MutexGuard<'_, Option<u64>> {
        self.age.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.waits_no_more();
    }
}

/// A request that is under way.
pub(crate) struct Work(Arc<Place>);

impl Work {
    /// `body`, until whose end the request is under way.
    pub(crate) fn until_taken(self, body: Body) -> Body {
        Body::new(Answer { body, _work: self })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.waits();
    }
}

struct Answer {
    body: Body,
    _work: Work,
}

impl hyper::body::Body for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_one_that_has_waited_longest_goes_first_and_none_that_works() {
        let waiting = Waiting::default();
        let ends: Vec<_> = (0..4).map(|_| CancellationToken::new()).collect();
        let mut places: Vec<_> = ends.iter().map(|end| waiting.place(end.clone())).collect();
        let ended = || ends.iter().map(CancellationToken::is_cancelled).collect::<Vec<_>>();

        let works = places[0].works();
        let answered = places[1].works();
        drop(answered);
        drop(places.remove(2));
        assert!(waiting.end_longest());
        assert_eq!(ended(), [false, false, false, true], "1 began to wait anew, 2 is gone");
        assert!(waiting.end_longest());
        assert_eq!(ended(), [false, true, false, true]);
        assert!(!waiting.end_longest(), "0 works");
        drop(works);
        assert!(waiting.end_longest());
        assert_eq!(ended(), [true, true, false, true]);
    }
}
