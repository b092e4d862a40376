//! The driver of a simulated engine: requests over a connection that can fail.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use driver::{
    Capabilities, ContainerId, ContainerSpec, Driver, DriverError, Event, Observation, ObservedContainer,
    ObservedInstance, Outcome, PullProgress, Start, Started, StopOptions,
};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use planner::Phase;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::container_name;
use super::engine::SimEngine;
use super::events::Subscriber;
use super::fault::{Call, FaultKind, Outage};
use super::history::{Labels, Mishap, Subject};
use super::pull::Pull;
use super::requests::{self, Creation, Refused};
use super::world::{Labelled, Listed, World};

/// Attempts at making a container whose name is taken by one that has ended: one for the name that is taken,
/// one after the removal, one for somebody who was quicker.
const CREATE_ATTEMPTS: u32 = 3;

/// What the controller gets: one client of a [`SimEngine`], for the containers of one cluster.
///
/// Clones are the same client.
#[derive(Clone)]
pub struct SimDriver {
    client: Arc<Client>,
}

struct Client {
    engine: SimEngine,
    cluster: String,
    name: String,
    killed: watch::Sender<bool>,
}

/// What a request is about, for dice and faults.
struct About<'a> {
    call: Call,
    subject: &'a str,
    labelled: Labelled<'a>,
}

/// A request that is under way; also one that nobody waits for any more goes wrong.
struct Asked<'a> {
    engine: &'a SimEngine,
    call: Call,
    from_ms: u64,
    went_well: bool,
}

impl Drop for Asked<'_> {
    fn drop(&mut self) {
        let (call, from_ms, until_ms) = (self.call, self.from_ms, self.engine.now_ms());
        if !self.went_well || until_ms - from_ms > Mishap::LONG_MS {
            self.engine.world().mishaps.push(Mishap { call, from_ms, until_ms });
        }
    }
}

impl SimDriver {
    pub(super) fn new(engine: SimEngine, cluster: String) -> Self {
        let name = format!("sim {}", engine.name());
        Self { client: Arc::new(Client { engine, cluster, name, killed: watch::Sender::new(false) }) }
    }

    /// The client dies as by SIGKILL: none of its calls ever returns, none that has not reached the engine
    /// ever will, and its streams end. What had reached the engine is still done.
    ///
    /// Meant for a controller whose tasks are hard to find and abort; make another driver for the next one.
    pub fn kill(&self) {
        self.client.killed.send_replace(true);
    }
}

impl Client {
    async fn killed(&self) {
        let mut killed = self.killed.subscribe();
        killed.wait_for(|killed| *killed).await.expect("the sender lives as long as the client");
    }

    /// Whatever the call comes to, unless the client is killed before: then it never ends.
    async fn unless_killed<T>(&self, call: impl Future<Output = T>) -> T {
        tokio::select! {
            biased;
            () = self.killed() => std::future::pending().await,
            result = call => result,
        }
    }

    /// Makes a request of the engine and waits for its answer, within `limit`. Notes it if it goes wrong.
    async fn request<T, F>(
        &self,
        about: About<'_>,
        limit: Duration,
        work: impl FnOnce(SimEngine, Duration) -> F,
    ) -> Result<T, DriverError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refused>> + Send + 'static,
    {
        let mut asked =
            Asked { engine: &self.engine, call: about.call, from_ms: self.engine.now_ms(), went_well: false };
        let answer = self.ask(about, limit, work).await;
        asked.went_well = answer.is_ok();
        answer
    }

    async fn ask<T, F>(
        &self,
        about: About<'_>,
        limit: Duration,
        work: impl FnOnce(SimEngine, Duration) -> F,
    ) -> Result<T, DriverError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refused>> + Send + 'static,
    {
        let call = about.call;
        let deadline = Instant::now() + limit;
        let outage = self.engine.world().outage;
        match outage {
            Some(Outage::Refusing) => return Err(self.refuses().await),
            Some(Outage::Silent) => return Err(self.is_silent(call, deadline, limit).await),
            Some(Outage::Stopped) | None => {}
        }
        let (mut latency_ms, fault) = self.engine.world().roll(call, about.subject, about.labelled);
        match fault {
            Some(FaultKind::Refused) => return Err(self.refuses().await),
            Some(FaultKind::Hang) => return Err(self.is_silent(call, deadline, limit).await),
            Some(FaultKind::Rejected { code }) => {
                sleep(Duration::from_millis(latency_ms)).await;
                return Err(self.rejected(call, Refused { code, message: "as the test wants it".to_owned() }));
            }
            Some(FaultKind::Slow { extra_ms }) => latency_ms += extra_ms,
            Some(FaultKind::AnswerLost) | None => {}
        }
        let (answer, answered) = oneshot::channel();
        let work = work(self.engine.clone(), Duration::from_millis(latency_ms));
        let engine = self.engine.clone();
        tokio::spawn(async move {
            engine.goes_on().await;
            // Nobody may be waiting any more; the work is done all the same.
            let _ = answer.send(work.await);
        });
        let Ok(answer) = timeout_at(deadline, answered).await else {
            return Err(self.no_answer(call, limit));
        };
        if timeout_at(deadline, self.engine.goes_on()).await.is_err() {
            return Err(self.no_answer(call, limit));
        }
        let outage = self.engine.world().outage;
        match outage {
            Some(Outage::Refusing) => return Err(self.broke_off(call)),
            Some(Outage::Silent) => return Err(self.is_silent(call, deadline, limit).await),
            _ if fault == Some(FaultKind::AnswerLost) => return Err(self.broke_off(call)),
            Some(Outage::Stopped) | None => {}
        }
        answer
            .expect("the engine's task answers before it ends")
            .map_err(|refused| self.rejected(call, refused))
    }

    async fn refuses(&self) -> DriverError {
        sleep(Duration::from_millis(1)).await;
        self.unreachable("connection refused")
    }

    async fn is_silent(&self, call: Call, deadline: Instant, limit: Duration) -> DriverError {
        sleep_until(deadline).await;
        self.no_answer(call, limit)
    }

    fn no_answer(&self, call: Call, limit: Duration) -> DriverError {
        self.in_doubt(call, &format!("no answer within {} ms", limit.as_millis()))
    }

    fn broke_off(&self, call: Call) -> DriverError {
        self.in_doubt(call, "the connection broke before the answer")
    }

    fn in_doubt(&self, call: Call, message: &str) -> DriverError {
        if call.changes() {
            let (engine, message) = (self.name.clone(), message.to_owned());
            DriverError::OutcomeUnknown { engine, call: call.of_driver(), message }
        } else {
            self.unreachable(message)
        }
    }

    fn unreachable(&self, message: &str) -> DriverError {
        DriverError::Unreachable { engine: self.name.clone(), message: message.to_owned(), source: None }
    }

    fn rejected(&self, call: Call, Refused { code, message }: Refused) -> DriverError {
        DriverError::Rejected { engine: self.name.clone(), call: call.of_driver(), code, message }
    }

    fn limit(&self) -> Duration {
        Duration::from_millis(self.engine.world().config.call_timeout_ms)
    }

    fn capabilities(&self) -> Capabilities {
        self.engine.world().config.capabilities
    }

    fn subject(&self, id: &ContainerId) -> Option<Arc<Subject>> {
        self.engine.world().containers.get(id).map(|container| Arc::clone(&container.subject))
    }

    /// A request about a container that is known by its id.
    async fn request_for<T, F>(
        &self,
        call: Call,
        id: &ContainerId,
        limit: Duration,
        work: impl FnOnce(SimEngine, Duration) -> F,
    ) -> Result<T, DriverError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refused>> + Send + 'static,
    {
        let subject = self.subject(id);
        let labels = subject.as_ref().and_then(|subject| subject.labels.as_ref());
        let about = About {
            call,
            subject: subject.as_ref().map_or(id.as_str(), |subject| &subject.name),
            labelled: Labelled {
                service: labels.map(|labels| labels.service.as_str()),
                instance: labels.map(|labels| labels.instance.as_str()),
            },
        };
        self.request(about, limit, work).await
    }

    /// Makes the container of this start, or finds the one that is there.
    async fn create(&self, start: &Start) -> Result<Made, DriverError> {
        let unique = self.capabilities().idempotent_start;
        let name = container_name(&self.cluster, &start.service, &start.instance, start.ordinal);
        for _ in 0..CREATE_ATTEMPTS {
            let about = About {
                call: Call::Create,
                subject: &name,
                labelled: Labelled { service: Some(&start.service), instance: Some(&start.instance) },
            };
            let subject = Subject {
                name: name.clone(),
                labels: Some(Labels {
                    cluster: self.cluster.clone(),
                    service: start.service.clone(),
                    instance: start.instance.clone(),
                    generation: start.generation.clone(),
                }),
                ordinal: Some(start.ordinal),
                request: start.request,
            };
            let image = start.spec.image.clone();
            let creation = self
                .request(about, self.limit(), |engine, latency| {
                    requests::create(engine, latency, subject, image, unique)
                })
                .await?;
            let existing = match creation {
                Creation::Made(id) => return Ok(Made::Waiting(id)),
                Creation::Taken(existing) => existing,
            };
            let conflict =
                |message: String| self.rejected(Call::Start, Refused { code: "conflict", message });
            match (existing.phase, existing.generation) {
                (_, None) => {
                    return Err(conflict(format!("the name {name} is taken by a container of others")));
                }
                (Phase::Exited, _) => {
                    self.remove(&existing.id).await?;
                }
                (_, Some(generation)) if generation != start.generation => {
                    return Err(conflict(format!(
                        "{name} is of generation {generation}, not {}; remove it first",
                        start.generation
                    )));
                }
                (Phase::Created | Phase::Starting, _) => return Ok(Made::Waiting(existing.id)),
                (Phase::Running, _) => return Ok(Made::Running(existing.id)),
                (phase @ (Phase::Frozen | Phase::Stopping), _) => {
                    return Err(conflict(format!("{name} is {phase:?} and cannot be started")));
                }
            }
        }
        let message = format!("the name {name} was taken again {CREATE_ATTEMPTS} times");
        Err(self.rejected(Call::Start, Refused { code: "conflict", message }))
    }

    async fn start(&self, start: &Start, after: Option<&ContainerId>) -> Result<Started, DriverError> {
        let asked_at = Instant::now();
        let made = self.create(start).await?;
        let creating = asked_at.elapsed();
        let id = match made {
            Made::Running(id) => return Ok(Started { id, already: true, took: creating }),
            Made::Waiting(id) => id,
        };
        self.wait(after).await?;
        let asked_at = Instant::now();
        let work = |engine, latency| requests::start(engine, latency, id.clone());
        let outcome = self.request_for(Call::Start, &id, self.limit(), work).await?;
        Ok(Started { already: outcome == Outcome::Already, id, took: creating + asked_at.elapsed() })
    }

    async fn remove(&self, id: &ContainerId) -> Result<Outcome, DriverError> {
        let work = |engine, latency| requests::remove(engine, latency, id.clone());
        self.request_for(Call::Remove, id, self.limit(), work).await
    }

    /// Waits until `after` has left its room.
    async fn wait(&self, after: Option<&ContainerId>) -> Result<(), DriverError> {
        let Some(after) = after else {
            return Ok(());
        };
        let waited_ms = self.engine.world().config.after_timeout_ms;
        let left = timeout(Duration::from_millis(waited_ms), requests::room_left(&self.engine, after)).await;
        left.map_err(|_elapsed| {
            let container =
                self.subject(after).map_or_else(|| after.to_string(), |subject| subject.name.clone());
            DriverError::Timeout { engine: self.name.clone(), container, waited_ms }
        })
    }

    fn require_freeze(&self, call: Call) -> Result<(), DriverError> {
        if self.capabilities().freeze {
            Ok(())
        } else {
            Err(DriverError::Unsupported { engine: self.name.clone(), call: call.of_driver() })
        }
    }
}

/// The container of a start, before it is started.
enum Made {
    /// It is there and does not run yet.
    Waiting(ContainerId),
    /// It ran already.
    Running(ContainerId),
}

#[async_trait]
impl Driver for SimDriver {
    fn name(&self) -> &str {
        &self.client.name
    }

    fn instances(&self) -> Vec<String> {
        self.client.engine.world().instances.keys().cloned().collect()
    }

    fn capabilities(&self) -> Capabilities {
        self.client.capabilities()
    }

    fn parallel_calls(&self) -> usize {
        self.client.engine.world().config.parallel_calls
    }

    async fn observe(&self) -> Result<Observation, DriverError> {
        let client = &self.client;
        let about = About { call: Call::Observe, subject: &client.cluster, labelled: Labelled::default() };
        let cluster = client.cluster.clone();
        let observe = client.request(about, client.limit(), |engine, latency| async move {
            // The list is made early and arrives late: what changes meanwhile is not in it.
            let observation = observation(&mut engine.world(), &cluster);
            sleep(latency).await;
            Ok(observation)
        });
        client.unless_killed(observe).await
    }

    fn events(&self) -> BoxStream<'static, Event> {
        let subscriber = Subscriber::new(&self.client.cluster);
        self.client.engine.world().subscribe(&subscriber);
        let client = Arc::clone(&self.client);
        subscriber.stream().take_until(async move { client.killed().await }).boxed()
    }

    async fn prepare(&self, spec: &ContainerSpec) -> Result<(), DriverError> {
        let client = &self.client;
        let pull = requests::pull(client.engine.clone(), &spec.image, spec.pull);
        let pulled = client.unless_killed(pull).await;
        pulled.map_err(|refused| client.rejected(Call::Prepare, refused))?;
        let about = About { call: Call::Prepare, subject: &spec.image, labelled: Labelled::default() };
        let work = |engine, latency| requests::prepare(engine, latency, spec.image.clone());
        client.unless_killed(client.request(about, client.limit(), work)).await
    }

    fn pull_progress(&self, image: &str) -> Option<PullProgress> {
        self.client.engine.world().pulls.get(image).and_then(Pull::progress)
    }

    async fn start(&self, start: &Start, after: Option<&ContainerId>) -> Result<Started, DriverError> {
        self.client.unless_killed(self.client.start(start, after)).await
    }

    async fn stop(&self, id: &ContainerId, options: StopOptions) -> Result<Outcome, DriverError> {
        let client = &self.client;
        let grace = Duration::from_millis(options.grace_ms);
        let work = |engine, latency| requests::stop(engine, latency, id.clone(), grace);
        client.unless_killed(client.request_for(Call::Stop, id, client.limit() + grace, work)).await
    }

    async fn freeze(&self, id: &ContainerId) -> Result<Outcome, DriverError> {
        let client = &self.client;
        client.require_freeze(Call::Freeze)?;
        let work = |engine, latency| requests::freeze(engine, latency, id.clone());
        client.unless_killed(client.request_for(Call::Freeze, id, client.limit(), work)).await
    }

    async fn thaw(&self, id: &ContainerId, after: Option<&ContainerId>) -> Result<Outcome, DriverError> {
        let client = &self.client;
        client.require_freeze(Call::Thaw)?;
        let thaw = async {
            client.wait(after).await?;
            let work = |engine, latency| requests::thaw(engine, latency, id.clone());
            client.request_for(Call::Thaw, id, client.limit(), work).await
        };
        client.unless_killed(thaw).await
    }

    async fn remove(&self, id: &ContainerId) -> Result<Outcome, DriverError> {
        self.client.unless_killed(self.client.remove(id)).await
    }
}

fn observation(world: &mut World, cluster: &str) -> Observation {
    let reports_transitions = world.config.reports_transitions;
    let idempotent = world.config.capabilities.idempotent_start;
    let instances = world.instances.iter().map(|(name, instance)| ObservedInstance {
        name: name.clone(),
        capacity: instance.capacity,
        availability: instance.availability.clone(),
    });
    let instances = instances.collect();
    let containers = world.list().into_iter().filter_map(|Listed { id, container, phase, exit }| {
        let labels = container.subject.labels.as_ref().filter(|labels| labels.cluster == cluster)?;
        Some(ObservedContainer {
            id: id.clone(),
            service: labels.service.clone(),
            instance: labels.instance.clone(),
            ordinal: container.subject.ordinal.filter(|_| idempotent),
            generation: labels.generation.clone(),
            phase: match phase {
                Phase::Starting if !reports_transitions => Phase::Created,
                Phase::Stopping if !reports_transitions => Phase::Running,
                phase => phase,
            },
            created_at_ms: container.created_at_ms,
            health: if container.phase == Phase::Frozen { container.last_check } else { container.health },
            exit,
        })
    });
    Observation { instances, containers: containers.collect() }
}
