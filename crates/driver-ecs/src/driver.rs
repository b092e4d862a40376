//! The driver itself.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use driver::{
    Capabilities, ContainerId, ContainerSpec, Driver, DriverError, Event, Observation, Outcome, Start,
    Started, StopOptions,
};
use futures_util::StreamExt as _;
use futures_util::stream::{self, BoxStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use crate::api::{Api, Kind};
use crate::book::{Progress, Source};
use crate::config::{EcsConfig, Wanted};
use crate::connection::Connection;
use crate::core::Core;
use crate::discovery::{self, Discovered};
use crate::error::CallError;
use crate::names::{Identity, id_of};
use crate::quota::Turn;
use crate::task::{Arn, Facts};
use crate::{look, queue};

/// Calls of ours that are under way at once, as far as the controller is told. ECS works on all of them at once: what
/// bounds them is the quota, and this only what is remembered of them.
const CALLS: usize = 1_000;
/// How long an observation waits for everything to be seen for the first time, beyond the time that this takes at least.
const FIRST_LOOK: Duration = Duration::from_secs(20);
/// For so long a stop waits for the start that it is made for, to know whose it is; the two are issued together.
const WITH_ITS_START: Duration = Duration::from_millis(2);

/// The driver for one ECS cluster.
///
/// Making one connects to nothing, and needs no runtime: a cluster that cannot be reached is an error of the calls.
pub struct EcsDriver {
    core: Arc<Core>,
    following: OnceLock<Vec<AbortHandle>>,
}

impl EcsDriver {
    /// With region and credentials as the SDK finds them: environment, profile, task role, instance metadata.
    pub fn new(config: EcsConfig) -> Arc<Self> {
        Self::made(config, None, rand::random())
    }

    /// Over another transport, with credentials that nobody checks; for tests. The seed is that of the jitter.
    pub fn with_http_client(config: EcsConfig, transport: SharedHttpClient, seed: u64) -> Arc<Self> {
        Self::made(config, Some(transport), seed)
    }

    fn made(config: EcsConfig, transport: Option<SharedHttpClient>, seed: u64) -> Arc<Self> {
        let connection = Connection::new(config.clone(), transport);
        let api = Api::new(&config, connection, seed);
        Arc::new(Self { core: Arc::new(Core::new(config, api)), following: OnceLock::new() })
    }

    /// What the configuration wants looked up; in place of what it wanted before.
    pub fn want(&self, wanted: Wanted) {
        self.core.want(wanted);
    }

    /// What there is, followed for as long as the driver lives. `None` until instances, and all wanted task definitions, have
    /// been looked up. Within a runtime.
    pub fn discovered(&self) -> watch::Receiver<Option<Arc<Discovered>>> {
        self.follow();
        self.core.discovered.subscribe()
    }

    /// Why the cluster cannot be looked at, if it cannot.
    pub fn problem(&self) -> Option<String> {
        self.core.problem(0).map(|error| error.to_string())
    }

    /// One look at everything that is wanted, now.
    pub async fn look(&self) -> Result<Arc<Discovered>, DriverError> {
        let seen = self.core.discover().await.map_err(|error| self.core.errors.call("observe", &error))?;
        Ok(Arc::new(seen))
    }

    /// Begins to look and to listen, once.
    fn follow(&self) {
        self.following.get_or_init(|| {
            let core = &self.core;
            let mut following = vec![
                tokio::spawn(discovery::follow_instances(Arc::clone(core))).abort_handle(),
                tokio::spawn(discovery::follow_definitions(Arc::clone(core))).abort_handle(),
                tokio::spawn(look::follow_list(Arc::clone(core))).abort_handle(),
                tokio::spawn(look::follow_tasks(Arc::clone(core))).abort_handle(),
                tokio::spawn(look::follow_suspects(Arc::clone(core))).abort_handle(),
            ];
            if let Some(url) = &core.config.events_queue_url {
                following.extend(
                    (0..queue::LISTENERS)
                        .map(|_| tokio::spawn(queue::listen(Arc::clone(core), url.clone())).abort_handle()),
                );
            }
            following
        });
    }

    /// Ends when everything has been seen for the first time, or cannot be.
    async fn first_look(&self) -> Result<(), DriverError> {
        let core = &self.core;
        let mut progress = core.book.progress();
        if progress.borrow().ready {
            return Ok(());
        }
        let limit = Duration::from_millis(core.config.limits.settle_ms) + FIRST_LOOK;
        let seen = timeout(limit, progress.wait_for(|progress| progress.ready)).await.is_ok();
        match core.problem(0) {
            _ if seen => Ok(()),
            Some(problem) => Err(problem),
            None => Err(core.errors.unreachable(format!(
                "what runs in the cluster has not been seen within {} ms",
                limit.as_millis()
            ))),
        }
    }

    /// Waits until a start's victim has left, or its agent holds back whatever is sent while it stops: then its name is the
    /// answer.
    async fn wait_for_room(
        &self,
        victim: &Arn,
        revision: &str,
        service: &str,
    ) -> Result<Option<Arn>, DriverError> {
        let core = &self.core;
        let _awaits = core.book.awaits(victim, service, core.turn_of(service) == Turn::First);
        let told_to_stop = core.book.until(victim, |facts| match facts {
            None => Some(None),
            Some(facts) if facts.has_left() => Some(None),
            Some(facts) if facts.to_stop => Some(Some(facts.clone())),
            Some(_) => None,
        });
        let waited_ms = core.config.limits.after_ms;
        let room = async {
            let stopping = told_to_stop.await;
            let takes = core.revisions.reserved(revision);
            match (stopping, takes) {
                (Some(victim), Some(takes))
                    if !core.config.stop_before_start && core.book.holds_back(&victim, takes) =>
                {
                    Some(victim.arn)
                }
                (Some(victim), _) => {
                    self.until_left(&victim.arn).await;
                    None
                }
                (None, _) => None,
            }
        };
        timeout(Duration::from_millis(waited_ms), room).await.map_err(|_| DriverError::Timeout {
            engine: core.errors.engine.clone(),
            container: id_of(victim).to_owned(),
            waited_ms,
        })
    }

    async fn until_left(&self, arn: &Arn) {
        self.core.book.until(arn, |facts| facts.is_none_or(Facts::has_left).then_some(())).await;
    }
}

impl Drop for EcsDriver {
    fn drop(&mut self) {
        for task in self.following.get().into_iter().flatten() {
            task.abort();
        }
    }
}

/// Whether ECS has refused a start for want of room.
fn lacks_room(error: &DriverError) -> bool {
    matches!(error.code(), "no_cpu" | "no_memory" | "no_ports" | "no_gpu" | "no_room")
}

#[async_trait]
impl Driver for EcsDriver {
    fn name(&self) -> &str {
        &self.core.errors.engine
    }

    fn instances(&self) -> Vec<String> {
        self.core.book.host_names()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { freeze: false, idempotent_start: false }
    }

    fn parallel_calls(&self) -> usize {
        CALLS
    }

    fn works_in_turn(&self) -> bool {
        false
    }

    async fn observe(&self) -> Result<Observation, DriverError> {
        self.follow();
        self.first_look().await?;
        if let Some(problem) = self.core.problem(self.core.config.limits.silent_ms) {
            return Err(problem);
        }
        Ok(self.core.book.observation(self.core.config.slots_per_instance, self.core.config.reserve))
    }

    fn events(&self) -> BoxStream<'static, Event> {
        self.follow();
        let heard = self.core.book.progress();
        stream::unfold((heard, Progress::default()), |(mut heard, mut told)| async move {
            loop {
                let now = *heard.borrow_and_update();
                if now.ready && now.gaps != told.gaps {
                    // It covers all that was heard by then.
                    told = now;
                    return Some((Event::Gap, (heard, told)));
                }
                if told.ready && now.changes != told.changes {
                    told = now;
                    return Some((Event::Changed, (heard, told)));
                }
                // The driver is gone.
                heard.changed().await.ok()?;
            }
        })
        .boxed()
    }

    async fn prepare(&self, spec: &ContainerSpec) -> Result<(), DriverError> {
        const CALL: &str = "prepare";
        let errors = &self.core.errors;
        let name = spec
            .task_definition
            .as_deref()
            .ok_or_else(|| errors.rejected(CALL, "bad_spec", "it names no task definition"))?;
        match self.core.look_up(name).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(problem)) if problem.contains("compatible") || problem.contains("network mode") => {
                Err(errors.rejected(CALL, "bad_spec", problem))
            }
            Ok(Err(problem)) => Err(errors.rejected(CALL, "image_missing", problem)),
            Err(error) => Err(errors.call(CALL, &error)),
        }
    }

    async fn start(&self, start: &Start, after: Option<&ContainerId>) -> Result<Started, DriverError> {
        const CALL: &str = "start";
        self.follow();
        let core = &self.core;
        let revision = start.spec.task_definition.as_deref().ok_or_else(|| {
            core.errors.rejected(
                CALL,
                "bad_spec",
                format!("service {} names no task definition", start.service),
            )
        })?;
        let Some(instance) = core.book.host_arn(&start.instance) else {
            core.look_at_instances.notify_one();
            let message = format!("{} is not among the cluster's container instances", start.instance);
            return Err(core.errors.rejected(CALL, "instance_missing", message));
        };
        let victim = after.map(|id| Arn::from(id.as_str()));
        let behind = match &victim {
            Some(victim) => self.wait_for_room(victim, revision, &start.service).await?,
            None => None,
        };
        let identity = Identity { service: start.service.clone(), generation: start.generation.clone() };
        let kind = Kind { revision: revision.into(), identity };
        let turn = core.turn_of(&start.service);
        let asked_at = Instant::now();
        let begun = match core.begin(kind.clone(), instance.clone(), behind.clone(), turn).await {
            // ECS does not count what stops as free this time: once more, when it has stopped.
            Err(error)
                if lacks_room(&error)
                    && let Some(victim) = &behind =>
            {
                tracing::debug!(%error, "a start waits for its victim's end after all");
                let limit = Duration::from_millis(core.config.limits.after_ms);
                let _ = timeout(limit, self.until_left(victim)).await;
                core.begin(kind, instance, None, turn).await?
            }
            begun => begun?,
        };
        let held_back_ms = behind.as_ref().map_or(0, |_| core.config.limits.after_ms);
        let limit_ms = core.config.limits.start_ms + held_back_ms;
        let runs = core.book.until(&begun.arn, |facts| match facts {
            Some(facts) if facts.ran() => Some(Ok(())),
            Some(facts) if facts.has_left() => Some(Err(facts.end.clone())),
            Some(_) => None,
            None => Some(Ok(())),
        });
        match timeout(Duration::from_millis(limit_ms), runs).await {
            Ok(Ok(())) => {
                let id = ContainerId::new(&begun.arn);
                Ok(Started { id, already: false, took: asked_at.elapsed() })
            }
            Ok(Err(end)) => {
                // It never ran: there is nothing to be seen of it.
                core.book.remove(&begun.arn);
                Err(core.errors.not_started(&end))
            }
            Err(_) => Err(core.errors.outcome_unknown(
                CALL,
                format!("task {} does not run within {limit_ms} ms", id_of(&begun.arn)),
            )),
        }
    }

    async fn stop(&self, id: &ContainerId, options: StopOptions) -> Result<Outcome, DriverError> {
        const CALL: &str = "stop";
        self.follow();
        let core = &self.core;
        if core.book.facts(id.as_str()).is_none_or(|facts| facts.has_left()) {
            return Ok(Outcome::Already);
        }
        tokio::time::sleep(WITH_ITS_START).await;
        let (reason, turn) = match core.book.awaited(id.as_str()) {
            Some((service, urgent)) => (
                format!("force12: makes room for {service}"),
                if urgent { Turn::First } else { Turn::Second },
            ),
            None => ("force12: no longer wanted here".to_owned(), Turn::Second),
        };
        match core.api.stop_task(id.as_str(), &reason, turn).await {
            Ok(task) => {
                if let Some(facts) = task.and_then(|task| Facts::of_answer(&task, &core.config.cluster)) {
                    core.book.heard(&facts, Source::Answer);
                }
                core.book.told_to_stop(id.as_str());
                core.describe.notify_one();
            }
            Err(error @ CallError::Refused { .. }) => {
                let error = core.errors.call(CALL, &error);
                if error.code() == "not_found" && core.book.may_not_be_known_yet(id.as_str()) {
                    // It runs, for all we know: to take it for gone would give its room away twice.
                    return Err(core
                        .errors
                        .outcome_unknown(CALL, "ECS does not know the task yet".to_owned()));
                }
                if error.code() == "not_found" {
                    core.book.forget(id.as_str());
                    return Ok(Outcome::Already);
                }
                return Err(error);
            }
            Err(error) => return Err(core.errors.call(CALL, &error)),
        }
        let limit_ms = options.grace_ms.saturating_add(core.config.limits.stop_ms);
        let arn = Arn::from(id.as_str());
        match timeout(Duration::from_millis(limit_ms), self.until_left(&arn)).await {
            Ok(()) => Ok(Outcome::Done),
            Err(_) => Err(core
                .errors
                .outcome_unknown(CALL, format!("task {} has not stopped within {limit_ms} ms", id_of(&arn)))),
        }
    }

    async fn freeze(&self, _id: &ContainerId) -> Result<Outcome, DriverError> {
        Err(DriverError::Unsupported { engine: self.core.errors.engine.clone(), call: "freeze" })
    }

    async fn thaw(&self, _id: &ContainerId, _after: Option<&ContainerId>) -> Result<Outcome, DriverError> {
        Err(DriverError::Unsupported { engine: self.core.errors.engine.clone(), call: "thaw" })
    }

    async fn remove(&self, id: &ContainerId) -> Result<Outcome, DriverError> {
        match self.core.book.remove(id.as_str()) {
            None => Ok(Outcome::Already),
            Some(true) => Ok(Outcome::Done),
            Some(false) => {
                Err(self.core.errors.rejected("remove", "conflict", format!("task {id} has not stopped")))
            }
        }
    }
}
