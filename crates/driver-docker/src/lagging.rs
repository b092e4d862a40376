//! The containers about which the engine's list may be behind.
//!
//! The engine answers a list from a copy of its state that it brings up to date at the end of each operation, after
//! it has told of the event, and after it has cleaned up behind a container that has ended (tens of milliseconds on
//! the host's network, more on others). Whoever lists on an event may thus be told what was so before it, and no
//! further event comes to say that the list is right by now. Inspecting one container waits for the operation to be
//! over, and tells the truth.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use driver::ContainerId;

/// So many at most: they are noted by the events of containers of ours, and an observation settles each.
const NOTED_MAX: usize = 10_000;

/// Shared by the driver and its event streams.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lagging(Arc<Mutex<Noted>>);

#[derive(Debug, Default)]
struct Noted {
    /// Counts what has been heard.
    heard: u64,
    containers: HashMap<ContainerId, Mark>,
}

/// Which news of a container; later news has another mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mark(u64);

impl Lagging {
    /// Something has happened to this container.
    pub(crate) fn note(&self, id: ContainerId) {
        let mut noted = self.lock();
        noted.heard += 1;
        let mark = Mark(noted.heard);
        if noted.containers.len() < NOTED_MAX || noted.containers.contains_key(&id) {
            noted.containers.insert(id, mark);
        }
    }

    /// All that may lag.
    pub(crate) fn all(&self) -> HashMap<ContainerId, Mark> {
        self.lock().containers.clone()
    }

    /// The list has caught up with this news; what has been heard since stays noted.
    pub(crate) fn settle(&self, id: &ContainerId, mark: Mark) {
        let mut noted = self.lock();
        if noted.containers.get(id) == Some(&mark) {
            noted.containers.remove(id);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Noted> {
        self.0.lock().expect("nothing panics while holding it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn later_news_is_not_settled_with_earlier() {
        let lagging = Lagging::default();
        let id = ContainerId::new("a");
        lagging.note(id.clone());
        let first = lagging.all()[&id];
        lagging.note(id.clone());
        lagging.settle(&id, first);
        let second = lagging.all()[&id];
        assert_ne!(first, second);
        lagging.settle(&id, second);
        assert!(lagging.all().is_empty());
    }

    #[test]
    fn it_does_not_grow_without_bound() {
        let lagging = Lagging::default();
        for number in 0..=NOTED_MAX {
            lagging.note(ContainerId::new(number.to_string()));
        }
        assert_eq!(lagging.all().len(), NOTED_MAX);
        let id = ContainerId::new("0");
        let first = lagging.all()[&id];
        lagging.note(id.clone());
        lagging.settle(&id, first);
        assert!(lagging.all().contains_key(&id), "later news of what is noted counts, however full it is");
    }
}
