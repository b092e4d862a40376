//! The driver itself: what it asks of the engine, in which order, and how long it waits.

use std::collections::{HashMap, HashSet};
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bollard::errors::Error as EngineError;
use bollard::models::{ContainerStateStatusEnum as Status, ImageInspect};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, InspectNetworkOptions, KillContainerOptions,
    RemoveContainerOptionsBuilder, StartContainerOptions, StopContainerOptionsBuilder,
};
use driver::{
    Capabilities, ContainerId, ContainerSpec, Driver, DriverError, Event, Observation, Outcome, PullPolicy,
    PullProgress, Start, Started, StopOptions,
};
use futures_util::FutureExt as _;
use futures_util::stream::BoxStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::{Instant, sleep, timeout};
use tracing::{Instrument as _, Span, warn};

use crate::config::DockerConfig;
use crate::connection::Connection;
use crate::error::{Errors, Refusal};
use crate::events::{Events, Listener};
use crate::labels::{self, Identity};
use crate::lagging::Lagging;
use crate::observe::AtRest;
use crate::pull::Pulls;
use crate::{spec, trace};

/// A name that is taken by nothing that can be seen is that of a container in the making: a create takes a few
/// milliseconds on a quiet machine, and this many on a very busy one.
const NAME_MS: u64 = 3_000;
/// Milliseconds until such a name is tried again.
const NAME_AGAIN_MS: u64 = 10;
/// How soon a wait looks at its container again if nothing is heard. Events tell of what happens at once, and a new
/// connection for them has every container looked at; this is for as long as there are none.
const LOOK_AGAIN_MIN: Duration = Duration::from_millis(250);
/// At most; the time doubles with each look.
const LOOK_AGAIN_MAX: Duration = Duration::from_secs(4);
/// Questions that starts, stops and the like ask at once, all together; the rest wait their turn. Each takes about a
/// millisecond and a connection of its own.
const QUESTIONS_AT_ONCE: usize = 16;
/// So long at most a start waits until the engine has cleaned up behind its victim.
const CLEAN_UP_WAIT: Duration = Duration::from_secs(1);
/// Networks for which the engine has nothing to set up.
const BARE_NETWORKS: [&str; 2] = ["host", "none"];
/// Networks that every engine has.
const OWN_NETWORKS: [&str; 4] = ["bridge", "default", "host", "none"];

/// The driver for one Docker engine.
///
/// Making one connects to nothing: an engine that is not there yet is an error of the calls, not of the start.
pub struct DockerDriver {
    pub(crate) config: DockerConfig,
    pub(crate) errors: Errors,
    pub(crate) connection: Connection,
    /// Bounds the calls that change something.
    changes: Semaphore,
    /// Bounds the connections of stops, which outlast their permit for a change.
    stops: Semaphore,
    /// Bounds the questions that calls other than an observation ask.
    questions: Semaphore,
    events: Arc<Events>,
    /// Images, as the specs name them, that have been found to carry none of our labels.
    checked_images: Mutex<HashSet<String>>,
    /// By the id of an image: whether it carries any of our labels.
    pub(crate) labelled_images: Mutex<HashMap<String, bool>>,
    pub(crate) lagging: Lagging,
    pulls: Pulls,
    /// What inspections told of the containers that the last observation showed as ended or frozen.
    pub(crate) at_rest: Mutex<HashMap<ContainerId, AtRest>>,
}

/// What holds the name that a container is to be created under.
enum Holder {
    /// Nothing, any more or yet.
    Nobody,
    /// The same container, created and not started.
    Created(ContainerId),
    /// The same container, and it runs.
    Running(ContainerId),
    /// An earlier container of ours, which has ended.
    Ended(ContainerId),
    /// Something that must not make way; in words.
    Other(String),
}

/// A container that is ready to be started, or needs no start.
enum Created {
    Ready(ContainerId),
    Running(ContainerId),
}

impl DockerDriver {
    /// A driver for the engine that `config` names.
    pub fn new(config: DockerConfig) -> Self {
        let errors = Errors::new(&config.engine);
        if let Some(warning) = config.engine.warning().filter(|_| config.tls.is_none()) {
            warn!("{warning}");
        }
        let connection = Connection::new(&errors.engine, &config);
        let lagging = Lagging::default();
        let events = Events::new(connection.clone(), errors.clone(), lagging.clone(), &config.cluster);
        let changes = Semaphore::new(config.limits.parallel_calls.clamp(1, Semaphore::MAX_PERMITS));
        let stops = Semaphore::new(config.limits.parallel_stops.clamp(1, Semaphore::MAX_PERMITS));
        let pulls = Pulls::new(connection.clone(), errors.clone(), config.registries.clone(), config.limits);
        Self {
            pulls,
            config,
            errors,
            connection,
            changes,
            stops,
            questions: Semaphore::new(QUESTIONS_AT_ONCE),
            events: Arc::new(events),
            checked_images: Mutex::default(),
            labelled_images: Mutex::default(),
            lagging,
            at_rest: Mutex::default(),
        }
    }

    /// Asks something that changes nothing. Does not queue behind what changes something.
    pub(crate) async fn ask<T>(
        &self,
        call: &'static str,
        question: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<Result<T, Refusal>, DriverError> {
        self.bounded(call, self.config.limits.observe_ms, question).await
    }

    /// Has something changed, in its turn.
    async fn change<T>(
        &self,
        call: &'static str,
        change: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<Result<T, Refusal>, DriverError> {
        let _permit = self.permit().await;
        self.bounded(call, self.config.limits.change_ms, change).await
    }

    async fn bounded<T>(
        &self,
        call: &'static str,
        limit_ms: u64,
        request: impl Future<Output = Result<T, EngineError>>,
    ) -> Result<Result<T, Refusal>, DriverError> {
        match timeout(Duration::from_millis(limit_ms), request).await {
            Ok(Ok(answer)) => Ok(Ok(answer)),
            Ok(Err(error)) => self.errors.sort(call, error).map(Err),
            Err(_) => Err(self.errors.outcome_unknown(call, format!("no answer within {limit_ms} ms"))),
        }
    }

    /// Waits for as long as the caller does: a queue is no failure of the engine's.
    async fn permit(&self) -> SemaphorePermit<'_> {
        self.changes.acquire().await.expect("the semaphore is never closed")
    }

    /// To ask something about one container or image.
    async fn turn(&self) -> SemaphorePermit<'_> {
        self.questions.acquire().await.expect("the semaphore is never closed")
    }

    /// Refuses an image that would give its containers our labels.
    async fn check_image(&self, call: &'static str, image: &str) -> Result<ImageInspect, DriverError> {
        let found = match self.ask(call, self.connection.docker().inspect_image(image)).await? {
            Ok(found) => found,
            Err(Refusal { status: 404, .. }) => {
                let message = format!(
                    "image {image} is not on the engine: build, load or pull it there, or let it be pulled (pull = \
                     \"missing\")"
                );
                return Err(self.errors.rejected(call, "image_missing", message));
            }
            Err(refusal) => return Err(self.errors.refused(call, refusal)),
        };
        let image_labels = found.config.as_ref().and_then(|config| config.labels.as_ref());
        if let Some(label) = image_labels.and_then(labels::first_of_ours) {
            let message = format!(
                "image {image} carries the label {label}, which belongs to containers only: build it without"
            );
            // It may have been another one under this name that was found fit.
            self.checked_images.lock().expect("nothing panics while holding it").remove(image);
            return Err(self.errors.rejected(call, "bad_spec", message));
        }
        self.checked_images.lock().expect("nothing panics while holding it").insert(image.to_owned());
        Ok(found)
    }

    /// Pulls the image if its policy asks for that, and checks it.
    async fn have_image(
        &self,
        call: &'static str,
        image: &str,
        policy: PullPolicy,
    ) -> Result<ImageInspect, DriverError> {
        let missing = |error: &DriverError| error.code() == "image_missing";
        match policy {
            PullPolicy::Never => self.check_image(call, image).await,
            PullPolicy::Missing => match self.check_image(call, image).await {
                Err(error) if missing(&error) => {
                    self.pulls.pull(image).await?;
                    self.check_image(call, image).await
                }
                checked => checked,
            },
            PullPolicy::Always => {
                self.pulls.pull(image).await?;
                self.check_image(call, image).await
            }
        }
    }

    async fn check_network(&self, call: &'static str, network: &str) -> Result<(), DriverError> {
        let inspect = self.connection.docker().inspect_network(network, None::<InspectNetworkOptions>);
        match self.ask(call, inspect).await? {
            Ok(_) => Ok(()),
            Err(Refusal { status: 404, .. }) => {
                let message = format!("there is no network {network} on the engine: create it there");
                Err(self.errors.rejected(call, "bad_spec", message))
            }
            Err(refusal) => Err(self.errors.refused(call, refusal)),
        }
    }

    /// `took` grows by what the engine takes for it.
    async fn create(
        &self,
        identity: &Identity,
        start: &Start,
        took: &mut Duration,
    ) -> Result<Created, DriverError> {
        const CALL: &str = "start";
        let image = &start.spec.image;
        let checked = self.checked_images.lock().expect("nothing panics while holding it").contains(image);
        if !checked {
            let _turn = self.turn().await;
            self.check_image(CALL, image).await?;
        }
        let name = identity.name(start.ordinal);
        let docker = self.connection.docker();
        let given_up = Instant::now() + Duration::from_millis(NAME_MS);
        while Instant::now() < given_up {
            let options = CreateContainerOptionsBuilder::new().name(&name).build();
            let body = spec::create_body(&start.spec, identity);
            let creating = docker.create_container(Some(options), body);
            let creating = timed(took, creating.instrument(self.request("create container"))).boxed();
            match self.change(CALL, creating).await? {
                Ok(created) => return Ok(Created::Ready(ContainerId::new(created.id))),
                Err(Refusal { status: 409, .. }) => {}
                Err(refusal) => return Err(self.errors.refused(CALL, refusal)),
            }
            match self.holder(&name, identity).await? {
                Holder::Nobody => sleep(Duration::from_millis(NAME_AGAIN_MS)).await,
                Holder::Created(id) => return Ok(Created::Ready(id)),
                Holder::Running(id) => return Ok(Created::Running(id)),
                Holder::Ended(id) => {
                    self.remove(&id).await?;
                }
                Holder::Other(what) => {
                    return Err(self.errors.rejected(
                        CALL,
                        "conflict",
                        format!("the name {name} is taken by {what}"),
                    ));
                }
            }
        }
        let message =
            format!("the name {name} has been taken for {NAME_MS} ms by a container that cannot be seen");
        Err(self.errors.rejected(CALL, "conflict", message))
    }

    async fn holder(&self, name: &str, identity: &Identity) -> Result<Holder, DriverError> {
        const CALL: &str = "start";
        let _turn = self.turn().await;
        let inspect = self.connection.docker().inspect_container(name, None::<InspectContainerOptions>);
        let found = match self.ask(CALL, inspect).await? {
            Ok(found) => found,
            Err(Refusal { status: 404, .. }) => return Ok(Holder::Nobody),
            Err(refusal) => return Err(self.errors.refused(CALL, refusal)),
        };
        let id = ContainerId::new(found.id.unwrap_or_default());
        let its_labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        let its_image = found.image.unwrap_or_default();
        let Some(its_identity) = Identity::from_labels(&its_labels) else {
            return Ok(Holder::Other(format!("container {id}, which is not ours")));
        };
        // The name agrees already, or there would have been no conflict.
        if self.image_is_labelled(CALL, &its_image).await? == Some(true) {
            return Ok(Holder::Other(format!("container {id}, whose image carries our labels")));
        }
        if (&its_identity.cluster, &its_identity.service, &its_identity.instance)
            != (&identity.cluster, &identity.service, &identity.instance)
        {
            return Ok(Holder::Other(format!(
                "container {id} of service {} on instance {} in cluster {}",
                its_identity.service, its_identity.instance, its_identity.cluster
            )));
        }
        Ok(match found.state.and_then(|state| state.status) {
            Some(Status::EXITED | Status::DEAD) => Holder::Ended(id),
            Some(Status::REMOVING) => Holder::Other(format!("container {id}, which is being removed")),
            _ if its_identity.generation != identity.generation => {
                Holder::Other(format!("container {id} of generation {}", its_identity.generation))
            }
            Some(Status::CREATED) => Holder::Created(id),
            Some(Status::RUNNING) => Holder::Running(id),
            Some(Status::PAUSED) => Holder::Other(format!("container {id}, which is suspended")),
            _ => Holder::Other(format!("container {id}, which is on its way")),
        })
    }

    fn request(&self, name: &'static str) -> Span {
        trace::request(name, &self.errors.engine)
    }

    /// Ends when the container has left its room: it has ended, is suspended, or is gone; where it is to be `clean`, not
    /// before the engine has cleaned up behind one that has ended.
    async fn left(&self, id: &ContainerId, clean: bool) -> Result<(), DriverError> {
        const CALL: &str = "start";
        let mut listener = self.events.listen(id);
        let suspension = self.events.listen(id);
        let takes_room = |status| matches!(status, Status::RUNNING | Status::RESTARTING);
        let left = async {
            tokio::select! {
                () = suspension.suspended() => Ok(false),
                left = self.no_longer(CALL, id, &mut listener, takes_room) => left.map(|()| true),
            }
        };
        let left = left.instrument(trace::wait_for_room(id.as_str()));
        let waited_ms = self.config.limits.after_ms;
        let ended = timeout(Duration::from_millis(waited_ms), left).await.unwrap_or_else(|_| {
            Err(DriverError::Timeout {
                engine: self.errors.engine.clone(),
                container: id.to_string(),
                waited_ms,
            })
        })?;
        if clean && ended {
            // A look waits until the engine is done with it. Whatever comes of that, the container has left its room.
            let _ = timeout(CLEAN_UP_WAIT, self.status(CALL, id)).await;
        }
        Ok(())
    }

    /// Ends when the engine tells of the container's end, or a look at it shows that it is no longer `so`.
    ///
    /// Only the end is taken on the event's word here. Anything else may be over by the time that it is heard, and has
    /// the container looked at.
    async fn no_longer(
        &self,
        call: &'static str,
        id: &ContainerId,
        listener: &mut Listener,
        so: impl Fn(Status) -> bool,
    ) -> Result<(), DriverError> {
        let mut look_again = LOOK_AGAIN_MIN;
        loop {
            tokio::select! {
                () = listener.ended() => return Ok(()),
                status = self.status(call, id) => if !status?.is_some_and(&so) {
                    return Ok(());
                },
            }
            // The end is news as well; the look that it leads to is given up at once.
            if timeout(look_again, listener.anything()).await.is_err() {
                look_again = (look_again * 2).min(LOOK_AGAIN_MAX);
            }
        }
    }

    /// `None` for a container that is gone.
    async fn status(&self, call: &'static str, id: &ContainerId) -> Result<Option<Status>, DriverError> {
        let _turn = self.turn().await;
        let inspect =
            self.connection.docker().inspect_container(id.as_str(), None::<InspectContainerOptions>);
        match self.ask(call, inspect).await? {
            Ok(found) => Ok(Some(found.state.and_then(|state| state.status).unwrap_or(Status::EMPTY))),
            Err(Refusal { status: 404, .. }) => Ok(None),
            Err(refusal) => Err(self.errors.refused(call, refusal)),
        }
    }

    /// Sends the stop signal; `None` if the container has not ended when its grace is over.
    async fn ask_to_stop(&self, id: &ContainerId, grace_ms: u64) -> Result<Option<Outcome>, DriverError> {
        const CALL: &str = "stop";
        let _stop = self.stops.acquire().await.expect("the semaphore is never closed");
        let mut permit = Some(self.permit().await);
        // Should we be gone by then, the engine itself ends it soon after its grace.
        let engine_grace_s = i32::try_from(grace_ms.div_ceil(1_000).saturating_add(1)).unwrap_or(i32::MAX);
        let options = StopContainerOptionsBuilder::new().t(engine_grace_s).build();
        let asked = self.connection.docker().stop_container(id.as_str(), Some(options));
        let mut asked = pin!(asked.instrument(self.request("stop container")));
        // The engine tells of the end before it has cleaned up; the answer comes after that.
        let listener = self.events.listen(id);
        let mut ended = pin!(listener.ended());
        let mut signalled = pin!(sleep(Duration::from_millis(StopOptions::SIGNALLED_MS)));
        let mut grace = pin!(sleep(Duration::from_millis(grace_ms)));
        loop {
            tokio::select! {
                () = &mut ended => return Ok(Some(Outcome::Done)),
                answer = &mut asked => return match answer {
                    Ok(()) => Ok(Some(Outcome::Done)),
                    Err(error) => match self.errors.sort(CALL, error)? {
                        Refusal { status: 304 | 404, .. } => Ok(Some(Outcome::Already)),
                        refusal => Err(self.errors.refused(CALL, refusal)),
                    },
                },
                () = &mut signalled, if permit.is_some() => permit = None,
                () = &mut grace => return Ok(None),
            }
        }
    }

    /// SIGKILL, and its effect.
    async fn kill(&self, id: &ContainerId) -> Result<Outcome, DriverError> {
        const CALL: &str = "stop";
        let mut listener = self.events.listen(id);
        let kill = self.connection.docker().kill_container(id.as_str(), None::<KillContainerOptions>);
        let kill = kill.instrument(self.request("kill container"));
        let killed = tokio::select! {
            () = listener.ended() => return Ok(Outcome::Done),
            killed = self.change(CALL, kill) => killed?,
        };
        match killed {
            Ok(()) => {}
            // It does not run, or is gone.
            Err(Refusal { status: 404 | 409, .. }) => return Ok(Outcome::Already),
            Err(refusal) => return Err(self.errors.refused(CALL, refusal)),
        }
        let limit_ms = self.config.limits.change_ms;
        let has_process = |status| !matches!(status, Status::EXITED | Status::DEAD | Status::REMOVING);
        let ended = self.no_longer(CALL, id, &mut listener, has_process);
        let ended = timeout(Duration::from_millis(limit_ms), ended).await.unwrap_or_else(|_| {
            let message = format!("container {id} has not ended within {limit_ms} ms of SIGKILL");
            Err(self.errors.outcome_unknown(CALL, message))
        });
        ended.map(|()| Outcome::Done)
    }
}

/// Whether the engine has to make a network for a container before it runs.
fn sets_up_network(spec: &ContainerSpec) -> bool {
    !spec.network.as_deref().is_some_and(|network| BARE_NETWORKS.contains(&network))
}

/// Adds to `took` for how long it was waited for.
async fn timed<T>(took: &mut Duration, request: impl Future<Output = T>) -> T {
    let asked_at = Instant::now();
    let answer = request.await;
    *took += asked_at.elapsed();
    answer
}

#[async_trait]
impl Driver for DockerDriver {
    fn name(&self) -> &str {
        &self.errors.engine
    }

    fn instances(&self) -> Vec<String> {
        self.config.instances.iter().map(|instance| instance.name.clone()).collect()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { freeze: true, idempotent_start: true }
    }

    fn parallel_calls(&self) -> usize {
        self.config.limits.parallel_calls.max(1)
    }

    async fn observe(&self) -> Result<Observation, DriverError> {
        let limit_ms = self.config.limits.observe_ms;
        timeout(Duration::from_millis(limit_ms), self.observation()).await.unwrap_or_else(|_| {
            Err(self.errors.outcome_unknown("observe", format!("not done within {limit_ms} ms")))
        })
    }

    fn events(&self) -> BoxStream<'static, Event> {
        self.events.changes()
    }

    async fn prepare(&self, spec: &ContainerSpec) -> Result<(), DriverError> {
        const CALL: &str = "prepare";
        let image = self.have_image(CALL, &spec.image, spec.pull).await?;
        let has_words = |words: &Option<Vec<String>>| words.as_ref().is_some_and(|words| !words.is_empty());
        let runs = has_words(&spec.command)
            || image.config.is_some_and(|config| has_words(&config.entrypoint) || has_words(&config.cmd));
        if !runs {
            let message = format!("image {} says nothing about what to run: give a command", spec.image);
            return Err(self.errors.rejected(CALL, "bad_spec", message));
        }
        if let Some(network) = spec.network.as_deref().filter(|network| !OWN_NETWORKS.contains(network)) {
            self.check_network(CALL, network).await?;
        }
        Ok(())
    }

    fn pull_progress(&self, image: &str) -> Option<PullProgress> {
        self.pulls.progress(image)
    }

    async fn start(&self, start: &Start, after: Option<&ContainerId>) -> Result<Started, DriverError> {
        const CALL: &str = "start";
        let identity = Identity::of_start(&self.config.cluster, start);
        let mut left = pin!(async {
            match after {
                // An engine that sets up one network while it takes down another is slower at both, by more than the one
                // takes (docs/performance.md).
                Some(id) => self.left(id, sets_up_network(&start.spec)).await,
                None => Ok(()),
            }
        });
        let mut has_left = false;
        let mut took = Duration::ZERO;
        let created = {
            let mut creating = pin!(self.create(&identity, start, &mut took));
            loop {
                tokio::select! {
                    created = &mut creating => break created?,
                    result = &mut left, if !has_left => {
                        result?;
                        has_left = true;
                    }
                }
            }
        };
        let id = match created {
            Created::Running(id) => return Ok(Started { id, already: true, took }),
            Created::Ready(id) => id,
        };
        if !has_left {
            left.await?;
        }
        let starting = self.connection.docker().start_container(id.as_str(), None::<StartContainerOptions>);
        let starting = timed(&mut took, starting.instrument(self.request("start container")));
        match self.change(CALL, starting).await? {
            Ok(()) => Ok(Started { id, already: false, took }),
            Err(Refusal { status: 304, .. }) => Ok(Started { id, already: true, took }),
            Err(refusal) => Err(self.errors.refused(CALL, refusal)),
        }
    }

    async fn stop(&self, id: &ContainerId, options: StopOptions) -> Result<Outcome, DriverError> {
        let asked = match options.grace_ms {
            0 => None,
            grace_ms => Some(self.ask_to_stop(id, grace_ms).await?),
        };
        let outcome = match asked {
            None => self.kill(id).await?,
            Some(Some(outcome)) => outcome,
            Some(None) => {
                self.kill(id).await?;
                // Whether the signal or the kill ended it, we did.
                Outcome::Done
            }
        };
        self.lagging.note(id.clone());
        Ok(outcome)
    }

    async fn freeze(&self, id: &ContainerId) -> Result<Outcome, DriverError> {
        const CALL: &str = "freeze";
        let freezing = self.connection.docker().pause_container(id.as_str());
        match self.change(CALL, freezing.instrument(self.request("pause container"))).await? {
            Ok(()) => Ok(Outcome::Done),
            Err(refusal) => match self.status(CALL, id).await? {
                None | Some(Status::PAUSED | Status::EXITED | Status::DEAD | Status::REMOVING) => {
                    Ok(Outcome::Already)
                }
                Some(_) => Err(self.errors.refused(CALL, refusal)),
            },
        }
    }

    async fn thaw(&self, id: &ContainerId, after: Option<&ContainerId>) -> Result<Outcome, DriverError> {
        const CALL: &str = "thaw";
        if let Some(after) = after {
            self.left(after, false).await?;
        }
        let thawing = self.connection.docker().unpause_container(id.as_str());
        match self.change(CALL, thawing.instrument(self.request("unpause container"))).await? {
            Ok(()) => Ok(Outcome::Done),
            Err(refusal) => match self.status(CALL, id).await? {
                Some(Status::RUNNING) => Ok(Outcome::Already),
                None | Some(_) => Err(self.errors.refused(CALL, refusal)),
            },
        }
    }

    async fn remove(&self, id: &ContainerId) -> Result<Outcome, DriverError> {
        const CALL: &str = "remove";
        // Its anonymous volumes go with it: nobody else knows of them.
        let options = RemoveContainerOptionsBuilder::new().v(true).force(false).build();
        let removing = self.connection.docker().remove_container(id.as_str(), Some(options));
        match self.change(CALL, removing.instrument(self.request("remove container"))).await? {
            Ok(()) => Ok(Outcome::Done),
            Err(Refusal { status: 404, .. }) => Ok(Outcome::Already),
            Err(refusal) => match self.status(CALL, id).await? {
                // The engine is removing it, for another caller.
                None | Some(Status::REMOVING) => Ok(Outcome::Already),
                Some(_) => Err(self.errors.refused(CALL, refusal)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::config::Limits;
    use crate::registry::Registries;

    #[tokio::test(start_paused = true)]
    async fn a_calls_own_time_begins_when_its_turn_comes() {
        let limits = Limits { parallel_calls: 1, ..Limits::default() };
        let driver = DockerDriver::new(DockerConfig {
            engine: "unix:///nobody/listens".parse().expect("it is an address"),
            tls: None,
            cluster: "demo".to_owned(),
            instances: Vec::new(),
            registries: Registries::default(),
            limits,
        });
        let limit = Duration::from_millis(limits.change_ms);
        let answer_after = |time: Duration| async move {
            sleep(time).await;
            Ok(())
        };
        let turn = driver.permit().await;
        let mut queued = pin!(driver.change("start", answer_after(limit / 2)));
        assert!(queued.as_mut().now_or_never().is_none());
        sleep(limit * 10).await;
        drop(turn);
        assert!(matches!(queued.await, Ok(Ok(()))));

        let error = driver.change("start", answer_after(limit * 2)).await.expect_err("it takes too long");
        assert_eq!(error.code(), "outcome_unknown");
    }
}
