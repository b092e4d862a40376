//! What all tasks of one driver share.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use driver::DriverError;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::api::Api;
use crate::batch::Batches;
use crate::book::Book;
use crate::config::{EcsConfig, Wanted};
use crate::discovery::{Discovered, Revisions};
use crate::error::{CallError, Errors};
use crate::quota::Turn;

/// Who looks at what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Looks {
    Instances,
    Listing,
    Tasks,
    Definitions,
    Queue,
}

impl Looks {
    const fn at(self) -> &'static str {
        match self {
            Self::Instances => "the container instances",
            Self::Listing => "the list of tasks",
            Self::Tasks => "the tasks",
            Self::Definitions => "the task definitions",
            Self::Queue => "the events' queue",
        }
    }
}

/// What cannot be looked at.
#[derive(Clone, Debug)]
struct Problem {
    since: Instant,
    error: CallError,
}

/// Shared by the driver and its tasks.
pub(crate) struct Core {
    pub(crate) config: EcsConfig,
    pub(crate) errors: Errors,
    pub(crate) api: Api,
    pub(crate) book: Book,
    pub(crate) batches: Batches,
    pub(crate) revisions: Revisions,
    pub(crate) discovered: watch::Sender<Option<Arc<Discovered>>>,
    wanted: Mutex<Wanted>,
    problems: Mutex<BTreeMap<Looks, Problem>>,
    /// Something is to be listed, looked up or looked at before its time.
    pub(crate) list: Notify,
    pub(crate) describe: Notify,
    pub(crate) look_at_instances: Notify,
    pub(crate) look_at_definitions: Notify,
}

impl Core {
    pub(crate) fn new(config: EcsConfig, api: Api) -> Self {
        Self {
            errors: Errors::new(&config),
            book: Book::new(api.started_by.clone()),
            api,
            config,
            batches: Batches::default(),
            revisions: Revisions::default(),
            discovered: watch::Sender::default(),
            wanted: Mutex::default(),
            problems: Mutex::default(),
            list: Notify::new(),
            describe: Notify::new(),
            look_at_instances: Notify::new(),
            look_at_definitions: Notify::new(),
        }
    }

    fn problems(&self) -> MutexGuard<'_, BTreeMap<Looks, Problem>> {
        self.problems.lock().expect("nothing panics while holding it")
    }

    /// Notes how a look went, which was begun then; says each outage once, and when it is over.
    pub(crate) fn noted<T>(&self, looks: Looks, began: Instant, answer: Result<T, CallError>) -> Option<T> {
        let engine = &self.errors.engine;
        match answer {
            Ok(answer) => {
                if self.problems().remove(&looks).is_some() {
                    tracing::info!(engine, "{} can be looked at again", looks.at());
                    self.book.gap();
                }
                Some(answer)
            }
            // ECS is there, and what is known is only a little older for it.
            Err(error @ CallError::Throttled(_)) => {
                tracing::debug!(engine, ?error, "{} cannot be looked at for now", looks.at());
                None
            }
            Err(error) => {
                let mut problems = self.problems();
                if let Some(problem) = problems.get_mut(&looks) {
                    problem.error = error;
                } else {
                    let words = self.errors.call("observe", &error).to_string();
                    tracing::warn!(engine, error = words, "{} cannot be looked at; trying again", looks.at());
                    problems.insert(looks, Problem { since: began, error });
                }
                None
            }
        }
    }

    /// The longest of what goes wrong, if it has for so long.
    pub(crate) fn problem(&self, for_ms: u64) -> Option<DriverError> {
        let now = Instant::now();
        let problems = self.problems();
        // Without the queue, looking goes on.
        let of_ecs = problems.iter().filter(|(looks, _)| !matches!(looks, Looks::Queue | Looks::Definitions));
        let (_, worst) = of_ecs.min_by_key(|(_, problem)| problem.since)?;
        let lasts = now.saturating_duration_since(worst.since) >= Duration::from_millis(for_ms);
        lasts.then(|| match &worst.error {
            CallError::Unclear(message) => self.errors.unreachable(message.clone()),
            error => self.errors.call("observe", error),
        })
    }

    pub(crate) fn wanted(&self) -> Wanted {
        self.wanted.lock().expect("nothing panics while holding it").clone()
    }

    pub(crate) fn want(&self, wanted: Wanted) {
        *self.wanted.lock().expect("nothing panics while holding it") = wanted;
        self.look_at_definitions.notify_one();
    }

    /// Whose turn calls for this service have.
    pub(crate) fn turn_of(&self, service: &str) -> Turn {
        let wanted = self.wanted.lock().expect("nothing panics while holding it");
        if wanted.first.contains(service) { Turn::First } else { Turn::Last }
    }

    pub(crate) fn listens(&self) -> bool {
        self.config.events_queue_url.is_some() && !self.problems().contains_key(&Looks::Queue)
    }
}
