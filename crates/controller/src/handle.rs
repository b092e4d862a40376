//! How others speak with a running controller, and what the two share.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::Instant;
use tracing::Span;

use crate::decisions::{Decision, DecisionQuery, Ring, WokenBy};
use crate::executor::Ended;
use crate::settings::{Engines, Settings, SettingsError};
use crate::view::View;

/// The most commands that wait for the loop at once. Each is a person's or a file's doing and takes one pass of
/// the loop, so more than this means that the loop hangs.
const COMMANDS_MAX: usize = 64;

/// Speaks with a running controller. Cheap to clone; when the controller has ended, every call says so.
#[derive(Clone)]
pub struct Handle {
    pub(crate) shared: Arc<Shared>,
    pub(crate) views: watch::Receiver<Arc<View>>,
}

/// Why a command was not carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// No such service is configured.
    #[error("no service is named {0:?}")]
    UnknownService(String),
    /// No such instance is configured.
    #[error("no instance is named {0:?}")]
    UnknownInstance(String),
    /// Too many commands wait already.
    #[error("the controller has {COMMANDS_MAX} commands waiting; try again in a moment")]
    Busy,
    /// The controller has ended.
    #[error("the controller has ended")]
    Ended,
}

/// Why settings were not applied. Nothing of them was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UpdateError {
    /// They are wrong in themselves.
    #[error(transparent)]
    Invalid(#[from] SettingsError),
    /// An instance would go that still holds containers.
    #[error(
        "instance {instance:?} still holds {}; drain it first, and remove it when it is empty, or lost for good",
        containers.join(", ")
    )]
    InstanceHoldsContainers {
        /// The instance.
        instance: String,
        /// Its containers, by name.
        containers: Vec<String>,
    },
    /// An instance would be on another engine, and still holds containers on the one where it is.
    #[error(
        "instance {instance:?} cannot move from {from} to {to} while it holds {}; drain it first, and move it when \
         it is empty",
        containers.join(", ")
    )]
    InstanceMoves {
        /// The instance.
        instance: String,
        /// The engine that it is on.
        from: String,
        /// The engine that was asked for.
        to: String,
        /// Its containers, by name.
        containers: Vec<String>,
    },
    /// The cluster's name cannot change while the controller runs: every container carries it.
    #[error(
        "the cluster's name cannot change from {from:?} to {to:?} while it runs; drain it and start anew"
    )]
    ClusterChanged {
        /// The name that holds.
        from: String,
        /// The name that was asked for.
        to: String,
    },
    /// The controller did not take it.
    #[error(transparent)]
    Command(#[from] CommandError),
}

/// How far [`Handle::drain_all`] has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DrainProgress {
    /// Containers that are still there, by name. Those of lost instances are among them.
    pub remaining: Vec<String>,
    /// Instances that are lost, with why: what they hold cannot be stopped before they are back.
    pub lost: Vec<(String, String)>,
}

/// Why [`Handle::drain_all`] gave up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DrainError {
    /// The time was over.
    #[error("{} left after {} ms: {}{}", remaining.remaining.len(), limit.as_millis(), remaining.remaining.join(", "),
        lost_words(&remaining.lost))]
    TimedOut {
        /// What was left.
        remaining: DrainProgress,
        /// After how long.
        limit: Duration,
    },
    /// The controller did not take it, or ended meanwhile.
    #[error(transparent)]
    Command(#[from] CommandError),
}

fn lost_words(lost: &[(String, String)]) -> String {
    let words: Vec<String> =
        lost.iter().map(|(name, reason)| format!("; {name} is lost: {reason}")).collect();
    words.concat()
}

/// What an operator or the configuration asks for.
pub(crate) enum Command {
    Pause {
        service: String,
        paused: bool,
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
    Instance {
        instance: String,
        state: planner::InstanceState,
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
    Update {
        settings: Box<Settings>,
        engines: Engines,
        reply: oneshot::Sender<Result<(), UpdateError>>,
    },
    DrainAll {
        reply: oneshot::Sender<Result<(), CommandError>>,
    },
    Shutdown {
        limit: Duration,
    },
}

/// What the loop, its tasks and the handles share. Wake-ups carry no data: whoever has something new leaves it in
/// its place and wakes the loop, which then reads all places.
#[derive(Default)]
pub(crate) struct Shared {
    wake: Notify,
    /// By what the loop was woken since it last looked, and when first.
    woken: Mutex<(WokenBy, Option<Instant>)>,
    /// Numbers the beginnings of observations and the ends of actions, in the order in which they happen.
    order: AtomicU64,
    /// Each with the span in which it was given.
    commands: Mutex<VecDeque<(Command, Span)>>,
    /// Actions that have ended. No more than there are operations under way, which the loop bounds.
    ended: Mutex<Vec<Ended>>,
    pub(crate) decisions: Mutex<Ring>,
}

/// Locks; what a panicking holder left is whole, because no holder stops half-way.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl Shared {
    /// Wakes the loop.
    pub(crate) fn wake(&self, by: WokenBy) {
        {
            let mut woken = lock(&self.woken);
            *woken = (woken.0.with(by), Some(woken.1.unwrap_or_else(Instant::now)));
        }
        self.wake.notify_one();
    }

    /// Waits until the loop is woken.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// What has woken the loop since this was last asked, and when first.
    pub(crate) fn take_woken(&self) -> (WokenBy, Option<Instant>) {
        std::mem::take(&mut lock(&self.woken))
    }

    /// The next number of the order in which things happen.
    pub(crate) fn next_order(&self) -> u64 {
        self.order.fetch_add(1, Ordering::SeqCst)
    }

    /// An action has ended.
    pub(crate) fn ended(&self, ended: Ended) {
        lock(&self.ended).push(ended);
    }

    /// The actions that have ended since this was last asked.
    pub(crate) fn take_ended(&self) -> Vec<Ended> {
        std::mem::take(&mut lock(&self.ended))
    }

    /// The commands that wait, each with the span in which it was given.
    pub(crate) fn take_commands(&self) -> VecDeque<(Command, Span)> {
        std::mem::take(&mut lock(&self.commands))
    }

    fn push(&self, command: Command, by: WokenBy) -> Result<(), CommandError> {
        {
            let mut commands = lock(&self.commands);
            if commands.len() >= COMMANDS_MAX {
                return Err(CommandError::Busy);
            }
            commands.push_back((command, Span::current()));
        }
        self.wake(by);
        Ok(())
    }
}

impl Handle {
    /// The latest view.
    pub fn view(&self) -> Arc<View> {
        Arc::clone(&self.views.borrow())
    }

    /// The views, as they come. A slow reader misses some, never the latest; the channel closes when the
    /// controller has ended.
    pub fn views(&self) -> watch::Receiver<Arc<View>> {
        self.views.clone()
    }

    /// Decisions, newest first. The last [`crate::DECISIONS_KEPT`] are kept, fewer if they
    /// are large ([`crate::DECISION_ENTRIES_KEPT`]).
    pub fn decisions(&self, query: &DecisionQuery) -> Vec<Arc<Decision>> {
        lock(&self.shared.decisions).query(query)
    }

    /// Starts nothing more for a service, until [`Handle::resume`], a restart, or an update with another
    /// configured value.
    pub async fn pause(&self, service: &str) -> Result<(), CommandError> {
        self.set_paused(service, true).await
    }

    /// Takes back a pause, the configured one too.
    pub async fn resume(&self, service: &str) -> Result<(), CommandError> {
        self.set_paused(service, false).await
    }

    /// Starts nothing more on an instance; what runs there stays.
    pub async fn cordon(&self, instance: &str) -> Result<(), CommandError> {
        self.set_instance(instance, planner::InstanceState::Cordoned).await
    }

    /// Takes back a cordon or a drain, the configured one too.
    pub async fn uncordon(&self, instance: &str) -> Result<(), CommandError> {
        self.set_instance(instance, planner::InstanceState::Ready).await
    }

    /// Starts nothing more on an instance, and moves what runs there.
    pub async fn drain(&self, instance: &str) -> Result<(), CommandError> {
        self.set_instance(instance, planner::InstanceState::Draining).await
    }

    /// Applies other settings, whole or not at all.
    ///
    /// Services and instances change live. Containers of a service that goes are surplus. An instance goes, or moves
    /// to another engine, only when it is empty. An engine is the same as long as its drivers' name is, and what is
    /// known of it and its instances is then kept.
    pub async fn update(&self, settings: Settings, engines: Engines) -> Result<(), UpdateError> {
        settings.validate(&engines)?;
        let (reply, answer) = oneshot::channel();
        self.shared
            .push(Command::Update { settings: Box::new(settings), engines, reply }, WokenBy::CONFIG)?;
        self.answer(answer).await?
    }

    /// Stops and removes every container of the cluster, and returns when none is left or after `limit`.
    ///
    /// From the call on nothing is started any more, also when it gives up. `progress` is told how far it is,
    /// whenever that changes.
    pub async fn drain_all(
        &self,
        limit: Duration,
        mut progress: impl FnMut(&DrainProgress),
    ) -> Result<(), DrainError> {
        let (reply, answer) = oneshot::channel();
        let deadline = tokio::time::Instant::now() + limit;
        self.shared.push(Command::DrainAll { reply }, WokenBy::OPERATOR)?;
        self.answer(answer).await??;
        let mut views = self.views.clone();
        let mut told = None;
        loop {
            let (remaining, finished) = {
                let view = views.borrow_and_update();
                let remaining = drain_progress(&view);
                let finished = view.draining && view.not_ready.is_none() && remaining.remaining.is_empty();
                (remaining, finished)
            };
            if told.as_ref() != Some(&remaining) {
                progress(&remaining);
                told = Some(remaining.clone());
            }
            if finished && remaining.lost.is_empty() {
                return Ok(());
            }
            match tokio::time::timeout_at(deadline, views.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => return Err(CommandError::Ended.into()),
                Err(_) => return Err(DrainError::TimedOut { remaining, limit }),
            }
        }
    }

    /// Ends the controller: nothing more is issued, actions under way are waited for, for `limit` at most, so that
    /// no swap is left half done; what runs is left running. Returns when the loop has ended.
    pub async fn shutdown(&self, limit: Duration) {
        if self.shared.push(Command::Shutdown { limit }, WokenBy::OPERATOR).is_err() {
            tracing::warn!("shutdown was not taken: {COMMANDS_MAX} commands wait already");
            return;
        }
        let mut views = self.views.clone();
        while views.changed().await.is_ok() {}
    }

    async fn set_paused(&self, service: &str, paused: bool) -> Result<(), CommandError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Pause { service: service.to_owned(), paused, reply };
        self.shared.push(command, WokenBy::OPERATOR)?;
        self.answer(answer).await?
    }

    async fn set_instance(&self, instance: &str, state: planner::InstanceState) -> Result<(), CommandError> {
        let (reply, answer) = oneshot::channel();
        let command = Command::Instance { instance: instance.to_owned(), state, reply };
        self.shared.push(command, WokenBy::OPERATOR)?;
        self.answer(answer).await?
    }

    /// The loop's answer, or that it has ended: a command may lie in the queue of a loop that is gone.
    async fn answer<T>(&self, answer: oneshot::Receiver<T>) -> Result<T, CommandError> {
        let mut views = self.views.clone();
        let ended = async move { while views.changed().await.is_ok() {} };
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|_| CommandError::Ended),
            () = ended => Err(CommandError::Ended),
        }
    }
}

fn drain_progress(view: &View) -> DrainProgress {
    let remaining = view
        .instances
        .iter()
        .flat_map(|instance| instance.containers.iter().map(|container| container.name.clone()))
        .collect();
    let lost = view
        .instances
        .iter()
        .filter(|instance| instance.state == planner::InstanceState::Lost)
        .map(|instance| (instance.name.to_string(), instance.reason.clone().unwrap_or_default()))
        .collect();
    DrainProgress { remaining, lost }
}
