//! Publishes what the board shows: serialised once, for however many readers.

use std::sync::{Arc, Mutex, PoisonError};

use api_types::snapshot::Snapshot;
use bytes::Bytes;
use service_kit::health::Readiness;
use service_kit::sse::Message;
use tokio::sync::watch;

use crate::board::{Board, NotShown};
use crate::clock::Clock;

/// One document, as it is shown.
#[derive(Clone, Debug)]
pub struct Published {
    /// The document.
    pub snapshot: Snapshot,
    /// The same as JSON.
    pub json: Bytes,
}

/// What one scheduler has to say.
#[derive(Clone, Copy, Debug)]
pub struct Line<'a> {
    hub: &'a Hub,
    from: usize,
}

impl Line<'_> {
    /// See [`Board::accept`].
    pub fn accept(&self, snapshot: Snapshot) -> Result<(), NotShown> {
        self.hub.accept(self.from, snapshot)
    }

    /// See [`Board::lose`].
    pub fn lose(&self, reason: String) {
        self.hub.lose(self.from, reason);
    }
}

/// The board and its readers.
#[derive(Debug)]
pub struct Hub {
    clock: Clock,
    readiness: Readiness,
    board: Mutex<Board>,
    newest: watch::Sender<Option<Arc<Published>>>,
    messages: watch::Sender<Option<Arc<Message>>>,
}

impl Hub {
    /// A hub that has nothing to show yet. `readiness` becomes ready with the first snapshot, and stays so: what is
    /// shown afterwards says itself whether it is live.
    pub fn new(clock: Clock, readiness: Readiness) -> Self {
        Self {
            clock,
            readiness,
            board: Mutex::default(),
            newest: watch::Sender::new(None),
            messages: watch::Sender::new(None),
        }
    }

    /// For what is heard of a scheduler, and what is not.
    pub fn line(&self, from: usize) -> Line<'_> {
        Line { hub: self, from }
    }

    /// See [`Board::heard`].
    pub fn heard(&self) -> usize {
        self.board.lock().unwrap_or_else(PoisonError::into_inner).heard()
    }

    fn accept(&self, from: usize, snapshot: Snapshot) -> Result<(), NotShown> {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        let was_live = board.is_live();
        if board.accept(from, snapshot, self.clock.now())? {
            self.publish(&board);
        }
        if !was_live {
            tracing::info!("the scheduler is heard");
            self.readiness.set_ready();
        }
        Ok(())
    }

    fn lose(&self, from: usize, reason: String) {
        let mut board = self.board.lock().unwrap_or_else(PoisonError::into_inner);
        if board.lose(from, reason, self.clock.now()) {
            self.publish(&board);
        }
    }

    /// The newest document, and a notice of each new one.
    pub fn newest(&self) -> watch::Receiver<Option<Arc<Published>>> {
        self.newest.subscribe()
    }

    /// The same as messages of a stream.
    pub fn messages(&self) -> watch::Receiver<Option<Arc<Message>>> {
        self.messages.subscribe()
    }

    /// Called with the board locked, so that documents are published in the order of its states.
    fn publish(&self, board: &Board) {
        let (Some(id), Some(snapshot)) = (board.id(), board.document()) else { return };
        let json = serde_json::to_string(&snapshot).expect("a snapshot has only string keys");
        metrics::gauge!("status_source_live").set(if board.is_live() { 1.0 } else { 0.0 });
        metrics::counter!("status_snapshots_published_total").increment(1);
        self.messages.send_replace(Some(Arc::new(Message::new(&id, &json))));
        self.newest.send_replace(Some(Arc::new(Published { snapshot, json: json.into() })));
    }
}
