//! The engine's event streams: one flag a kind and subscriber, so that nothing can pile up.

use std::sync::{Arc, Mutex, PoisonError};

use driver::Event;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::Notify;

/// One reader of the engine's events.
#[derive(Debug)]
pub(super) struct Subscriber {
    /// Changes of this cluster's containers are told.
    pub(super) cluster: String,
    pending: Mutex<Pending>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    gap: bool,
    changed: bool,
}

impl Subscriber {
    pub(super) fn new(cluster: &str) -> Arc<Self> {
        Arc::new(Self { cluster: cluster.to_owned(), pending: Mutex::default(), wake: Notify::new() })
    }

    pub(super) fn tell(&self, event: Event) {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Gap => pending.gap = true,
            Event::Changed => pending.changed = true,
        }
        drop(pending);
        self.wake.notify_one();
    }

    /// What is told, a gap before the changes that follow it.
    pub(super) fn stream(self: Arc<Self>) -> BoxStream<'static, Event> {
        stream::unfold(self, |subscriber| async move {
            loop {
                if let Some(event) = subscriber.take() {
                    return Some((event, subscriber));
                }
                subscriber.wake.notified().await;
            }
        })
        .boxed()
    }

    fn take(&self) -> Option<Event> {
        let mut pending = self.pending.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut pending.gap) {
            Some(Event::Gap)
        } else if std::mem::take(&mut pending.changed) {
            Some(Event::Changed)
        } else {
            None
        }
    }
}
