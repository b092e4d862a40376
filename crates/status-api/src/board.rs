//! Decides what may be shown: never an old state as new, never a lost scheduler's state as the present.

use std::collections::VecDeque;

use api_types::Timestamp;
use api_types::snapshot::{Snapshot, Source};

/// As many ended epochs are remembered. A scheduler that restarts more often than this within the life of one of
/// its connections has other troubles.
const RETIRED_EPOCHS_MAX: usize = 16;

/// What the scheduler served is older than what is already known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the scheduler served an old state (sequence {sequence} of epoch {epoch:?}) after a newer one; is another one running?"
)]
pub struct Outdated {
    /// Of the old state.
    pub epoch: String,
    /// Of the old state.
    pub sequence: u64,
}

/// Why a snapshot is not shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotShown {
    /// It is old.
    #[error(transparent)]
    Outdated(#[from] Outdated),
    /// It is another scheduler's than the one that is heard: of a cluster's schedulers only one acts.
    #[error("another scheduler is heard already; do both name the same lock_file?")]
    Another,
}

/// The last state that was heard, and whether it is the present. Pure: times are passed in, and the schedulers that may
/// be heard are numbered.
#[derive(Clone, Debug, Default)]
pub struct Board {
    snapshot: Option<Snapshot>,
    source: Option<Source>,
    /// The scheduler that was heard last.
    heard: usize,
    /// Counts the changes of `source`: the same snapshot is another document while it is not live.
    revision: u64,
    retired_epochs: VecDeque<String>,
}

impl Board {
    /// A snapshot of the scheduler `from` arrived at `now`. `Ok(true)` if there is something new to show.
    pub fn accept(&mut self, from: usize, snapshot: Snapshot, now: Timestamp) -> Result<bool, NotShown> {
        if self.is_live() && from != self.heard {
            return Err(NotShown::Another);
        }
        let known = self.snapshot.as_ref();
        if known.is_some_and(|known| self.is_outdated(&snapshot, known)) {
            return Err(Outdated { epoch: snapshot.epoch, sequence: snapshot.sequence }.into());
        }
        self.heard = from;
        let is_newer =
            known.is_none_or(|known| (&known.epoch, known.sequence) != (&snapshot.epoch, snapshot.sequence));
        if let Some(ended) = known.map(|known| &known.epoch).filter(|&ended| *ended != snapshot.epoch) {
            self.retired_epochs.push_back(ended.clone());
            if self.retired_epochs.len() > RETIRED_EPOCHS_MAX {
                self.retired_epochs.pop_front();
            }
        }
        self.snapshot = Some(snapshot);
        let revived = !self.is_live();
        if revived {
            self.source = Some(Source { live: true, since: now, reason: None });
            self.revision += 1;
        }
        Ok(is_newer || revived)
    }

    /// The scheduler `from` is not heard, for this reason. True if there is something new to show: only if it was the one
    /// that was heard last. `since` stays the moment of the loss, however often the reason changes.
    pub fn lose(&mut self, from: usize, reason: String, now: Timestamp) -> bool {
        let Some(source) = self.source.as_ref().filter(|_| from == self.heard) else { return false };
        let since = if source.live { now } else { source.since };
        let lost = Source { live: false, since, reason: Some(reason) };
        if *source == lost {
            return false;
        }
        self.source = Some(lost);
        self.revision += 1;
        true
    }

    /// The scheduler that was heard last; the first one as long as none was.
    pub fn heard(&self) -> usize {
        self.heard
    }

    /// Whether the scheduler is heard.
    pub fn is_live(&self) -> bool {
        self.source.as_ref().is_some_and(|source| source.live)
    }

    /// The id of what is shown. It differs from every other document's, also while the scheduler is not heard.
    pub fn id(&self) -> Option<String> {
        let snapshot = self.snapshot.as_ref()?;
        Some(format!("{}:{}:{}", snapshot.epoch, snapshot.sequence, self.revision))
    }

    /// The document to show; `None` before the first snapshot.
    pub fn document(&self) -> Option<Snapshot> {
        let mut document = self.snapshot.clone()?;
        let source = self.source.clone()?;
        if !source.live {
            document.success = None;
            document.success_since = source.since;
            document.blocked_by.clear();
            document.summary = format!(
                "not known: the scheduler is not heard since {}; this is its state of {}",
                source.since, document.taken_at
            );
        }
        document.source = Some(source);
        Some(document)
    }

    fn is_outdated(&self, new: &Snapshot, known: &Snapshot) -> bool {
        if new.epoch == known.epoch {
            return new.sequence < known.sequence;
        }
        // Epochs are drawn at random: one that returns with a later time is a namesake, not a ghost.
        self.retired_epochs.contains(&new.epoch) && new.taken_at <= known.taken_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::snapshot;

    fn at(ms: u64) -> Timestamp {
        Timestamp::from_epoch_ms(ms)
    }

    #[test]
    fn a_lost_schedulers_state_has_no_success() {
        let mut board = Board::default();
        assert_eq!(board.document(), None);
        assert!(!board.lose(0, "never heard".to_owned(), at(0)), "there is nothing to show yet");
        assert_eq!(board.accept(0, snapshot("a", 1), at(1_000)), Ok(true));
        let live = board.document().unwrap();
        assert_eq!(live.success, Some(true));
        assert_eq!(live.source, Some(Source { live: true, since: at(1_000), reason: None }));

        assert!(board.lose(0, "connection refused".to_owned(), at(5_000)));
        assert!(!board.lose(0, "connection refused".to_owned(), at(6_000)), "nothing new");
        assert!(board.lose(0, "no such host".to_owned(), at(7_000)));
        let lost = board.document().unwrap();
        assert_eq!((lost.success, lost.success_since), (None, at(5_000)));
        let reason = Some("no such host".to_owned());
        assert_eq!(lost.source, Some(Source { live: false, since: at(5_000), reason }));
        assert_eq!(lost.services, live.services, "the last known state stays");
    }

    #[test]
    fn the_same_snapshot_heard_again_is_live_again() {
        let mut board = Board::default();
        board.accept(0, snapshot("a", 7), at(0)).unwrap();
        assert_eq!(board.accept(0, snapshot("a", 7), at(1)), Ok(false));
        let live = board.id();
        board.lose(0, "cut".to_owned(), at(2));
        let lost = board.id();
        assert_eq!(board.accept(0, snapshot("a", 7), at(3)), Ok(true));
        assert_eq!(board.document().unwrap().source.unwrap().since, at(3));
        let ids = [live, lost, board.id()];
        assert!(ids[0] != ids[1] && ids[1] != ids[2] && ids[0] != ids[2], "{ids:?}");
    }

    #[test]
    fn an_older_sequence_of_the_epoch_is_refused_a_new_epoch_is_not() {
        let mut board = Board::default();
        board.accept(0, snapshot("a", 7), at(0)).unwrap();
        let outdated = Outdated { epoch: "a".to_owned(), sequence: 6 };
        assert_eq!(board.accept(0, snapshot("a", 6), at(1)), Err(NotShown::Outdated(outdated)));
        assert_eq!(board.document().unwrap().sequence, 7);
        assert_eq!(board.accept(0, snapshot("b", 1), at(2)), Ok(true));
        assert_eq!(board.document().unwrap().epoch, "b");
    }

    #[test]
    fn an_ended_epoch_does_not_return_unless_it_is_a_namesake() {
        let mut board = Board::default();
        board.accept(0, snapshot("a", 7), at(0)).unwrap();
        board.accept(0, snapshot("b", 8), at(1)).unwrap();
        assert!(board.accept(0, snapshot("a", 8), at(2)).is_err(), "taken no later than what is shown");
        assert_eq!(board.accept(0, snapshot("a", 9), at(3)), Ok(true));
    }

    #[test]
    fn a_ghost_brings_no_life() {
        let mut board = Board::default();
        board.accept(0, snapshot("a", 7), at(0)).unwrap();
        board.lose(0, "cut".to_owned(), at(1));
        assert!(board.accept(0, snapshot("a", 6), at(2)).is_err());
        assert!(!board.is_live());
    }

    #[test]
    fn of_several_schedulers_the_one_that_is_heard_counts() {
        let mut board = Board::default();
        board.accept(0, snapshot("a", 7), at(0)).unwrap();
        assert!(!board.lose(1, "refused".to_owned(), at(1)), "another's silence is no loss");
        assert_eq!(board.accept(1, snapshot("b", 1), at(2)), Err(NotShown::Another), "one acts at a time");
        assert_eq!((board.heard(), board.is_live()), (0, true));
        assert!(board.lose(0, "killed".to_owned(), at(3)));
        assert!(!board.lose(1, "standing by".to_owned(), at(4)));
        assert_eq!(board.accept(1, snapshot("b", 1), at(5)), Ok(true));
        assert_eq!((board.heard(), board.document().unwrap().epoch.as_str()), (1, "b"));
        assert!(!board.lose(0, "still killed".to_owned(), at(6)));
        assert!(board.is_live());
    }
}
