//! The handle by which a test or the service builds the fake, disturbs it and looks at it.

use std::collections::BTreeMap;
use std::fmt;
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use crate::backend::Backend;
use crate::clusters::Cluster;
use crate::config::Config;
use crate::dice;
use crate::docker::{self, DockerOptions};
use crate::faults::{Fault, FaultKind, FaultRates};
use crate::instances::{self, InstanceSpec};
use crate::life_cycle;
use crate::operations;
use crate::simulated::Behaviour;
use crate::tasks::{Desired, Truth};
use crate::wire::{Answer, ApiError, Outcome};
use crate::world::World;

/// ECS, in one account and region, with its container instances. Clones share it.
///
/// It lives on tokio's clock. What was asked is done by tasks of its own: it is done also when whoever asked is gone by
/// then.
#[derive(Clone)]
pub struct FakeEcs {
    shared: Arc<Shared>,
}

struct Shared {
    world: Mutex<World>,
    backend: Backend,
    /// Ticks with every change, for whoever waits for one.
    changes: watch::Sender<()>,
}

/// What is so of a task on its instance, whether or not ECS knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskTruth {
    /// Its id.
    pub id: String,
    /// The EC2 instance's id.
    pub instance: String,
    /// The family of its task definition.
    pub family: String,
    /// Its `startedBy`.
    pub started_by: Option<String>,
    /// Whether it was told to stop, or has ended.
    pub told_to_stop: bool,
    /// Whether its containers run.
    pub runs: bool,
    /// Whether they have ended, or never will run.
    pub ended: bool,
    /// CPU units and MiB that it takes.
    pub takes: (u64, u64),
}

impl FakeEcs {
    /// ECS with simulated containers and the cluster `default`, and nothing in it. Its clock starts now, on the time of
    /// the tokio runtime in which this is called.
    pub fn new(config: Config) -> Self {
        Self::with_backend(config, Backend::Simulated)
    }

    /// As [`Self::new`], with containers of a Docker engine: the one that `DOCKER_HOST` names, or the local one.
    ///
    /// # Errors
    ///
    /// If that is no address of an engine. Nothing is connected to yet.
    pub fn with_docker(config: Config, options: DockerOptions) -> Result<Self, bollard::errors::Error> {
        Ok(Self::with_backend(config, Backend::Docker(docker::Engine::new(options)?)))
    }

    fn with_backend(config: Config, backend: Backend) -> Self {
        let mut world = World::new(config);
        world.clusters.insert("default".to_owned(), Cluster { active: true, ..Cluster::default() });
        let shared = Shared { world: Mutex::new(world), backend, changes: watch::Sender::default() };
        Self { shared: Arc::new(shared) }
    }

    /// With one more cluster.
    #[must_use]
    pub fn with_cluster(self, name: impl Into<String>) -> Self {
        let cluster = Cluster { active: true, ..Cluster::default() };
        self.world().clusters.insert(name.into(), cluster);
        self
    }

    /// Nothing is started any more, and real containers of its clusters are removed, whoever started them.
    pub async fn close(&self) {
        let clusters: Vec<String> = {
            let mut world = self.world();
            world.closed = true;
            world.clusters.keys().cloned().collect()
        };
        self.backend().sweep(&clusters).await;
    }

    /// Removes real containers that an earlier fake has left in its clusters.
    pub async fn sweep(&self) {
        let clusters: Vec<String> = self.world().clusters.keys().cloned().collect();
        self.backend().sweep(&clusters).await;
    }

    // Asking it.

    /// Does what a request asks for. `target` is its `X-Amz-Target`.
    pub async fn call(&self, target: &str, body: impl AsRef<[u8]>) -> Outcome {
        let (ecs, target, body) = (self.clone(), target.to_owned(), body.as_ref().to_vec());
        // A caller that goes away takes nothing back.
        let doing = tokio::spawn(async move { ecs.serve(&target, &body).await });
        doing.await.unwrap_or(Outcome::Broken)
    }

    async fn serve(&self, target: &str, body: &[u8]) -> Outcome {
        let operation = match operations::name(target) {
            Ok(operation) => operation,
            Err(error) => return Outcome::Answered(Answer::of(Err(error))),
        };
        let (latency, fault, refused) = {
            let mut world = self.world();
            world.forget_stopped();
            let calls = world.calls.entry(operation.to_owned()).or_default();
            *calls += 1;
            let nth = *calls;
            let mut dice = world.dice("call", operation, nth);
            let latency = dice::millis(&mut dice, &world.config.latency_ms);
            let fault = world.faults.strike(operation, dice::per_mille(&mut dice));
            let refused =
                fault != Some(FaultKind::NotSent) && world.config.throttle && !world.buckets.take(operation);
            world.throttled += u64::from(refused);
            (latency, fault, refused)
        };
        sleep(latency / 2).await;
        let answered = |error| Outcome::Answered(Answer::of(Err(error)));
        match fault {
            Some(FaultKind::NotSent) => return Outcome::Broken,
            Some(FaultKind::Throttled) => return answered(ApiError::throttled()),
            Some(FaultKind::ServerError) => return answered(ApiError::server()),
            Some(FaultKind::Unavailable) => return answered(ApiError::unavailable()),
            Some(FaultKind::Slow { extra_ms }) => sleep(Duration::from_millis(extra_ms)).await,
            Some(FaultKind::AnswerLost | FaultKind::Hang) | None => {}
        }
        let reply =
            if refused { Err(ApiError::throttled()) } else { operations::answer(self, target, body).await };
        if let Err(error) = &reply {
            tracing::debug!(operation, %error, "refused");
        }
        sleep(latency / 2).await;
        match fault {
            Some(FaultKind::AnswerLost) => Outcome::Broken,
            Some(FaultKind::Hang) => pending().await,
            _ => Outcome::Answered(Answer::of(reply)),
        }
    }

    // Disturbing it.

    /// Registers a host with a cluster, as its agent would, and returns the id of the container instance.
    ///
    /// # Panics
    ///
    /// If there is no such cluster.
    pub fn add_instance(&self, cluster: &str, spec: InstanceSpec) -> String {
        let mut world = self.world();
        assert!(world.clusters.contains_key(cluster), "no cluster {cluster}");
        let id = instances::register(&mut world, cluster, spec);
        drop(world);
        self.changed();
        id
    }

    /// Sets how simulated containers of an image behave. Those that run keep theirs.
    pub fn set_image(&self, image: impl Into<String>, behaviour: Behaviour) {
        self.world().images.insert(image.into(), behaviour);
    }

    /// The agent of an instance loses its connection; ECS knows it `noticed_after` later. What runs, runs on, and what
    /// happens there is told when the agent is back.
    pub fn disconnect(&self, ec2_instance_id: &str, noticed_after: Duration) {
        let id = self.instance_by_ec2_id(ec2_instance_id);
        self.world().instances[&id].connected.send_replace(false);
        let ecs = self.clone();
        tokio::spawn(async move {
            sleep(noticed_after).await;
            let mut world = ecs.world();
            let is_back = world.instances.get(&id).is_none_or(|instance| *instance.connected.borrow());
            if !is_back {
                world.change_instance(&id, |view| view.agent_connected = false);
            }
            drop(world);
            ecs.changed();
        });
    }

    /// It is connected again.
    pub fn reconnect(&self, ec2_instance_id: &str) {
        let id = self.instance_by_ec2_id(ec2_instance_id);
        let mut world = self.world();
        world.instances[&id].connected.send_replace(true);
        if !world.instances[&id].view.now().agent_connected {
            world.change_instance(&id, |view| view.agent_connected = true);
        }
        drop(world);
        self.changed();
    }

    /// The host is terminated, with all that runs on it.
    pub fn terminate(&self, ec2_instance_id: &str) {
        let id = self.instance_by_ec2_id(ec2_instance_id);
        let mut world = self.world();
        world.instances[&id].connected.send_replace(false);
        let reason = format!("Host EC2 (instance {ec2_instance_id}) terminated.");
        life_cycle::lose_instance(&mut world, &id, &reason);
        drop(world);
        self.changed();
    }

    /// Kills a task's containers on its instance, behind ECS's back.
    pub fn kill(&self, task: &str) {
        if let Some(task) = self.world().tasks.get(task) {
            task.signals.send_modify(|signals| signals.killed = true);
        }
    }

    /// Something goes wrong with the next calls that match.
    pub fn fault(&self, fault: Fault) {
        self.world().faults.scripted.push(fault);
    }

    /// From now on calls go wrong by themselves at these rates.
    pub fn set_fault_rates(&self, rates: FaultRates) {
        self.world().faults.rates = rates;
    }

    /// The next start on an instance is refused for this reason, as `RESOURCE:ENI`.
    pub fn refuse_start(&self, ec2_instance_id: &str, reason: impl Into<String>) {
        self.world().faults.refusals.push((ec2_instance_id.to_owned(), reason.into()));
    }

    /// Takes back every scripted fault that has not struck yet, and the rates.
    pub fn clear_faults(&self) {
        self.world().faults = crate::faults::Faults::default();
    }

    /// Changes how it behaves from now on. The seed, the epoch and names are those it was made with.
    pub fn configure(&self, change: impl FnOnce(&mut Config)) {
        change(&mut self.world().config);
    }

    // Looking at it.

    /// Every task that is remembered, by id.
    pub fn tasks(&self) -> Vec<TaskTruth> {
        let world = self.world();
        let truth = |(id, task): (&String, &crate::tasks::Task)| {
            let view = task.view.now();
            TaskTruth {
                id: id.clone(),
                instance: world.instances[&task.instance].spec.ec2_instance_id.clone(),
                family: view.fixed.family.clone(),
                started_by: view.fixed.started_by.clone(),
                told_to_stop: view.desired_status == Desired::Stopped,
                runs: task.truth == Truth::Running,
                ended: task.truth == Truth::Ended,
                takes: (task.needs.cpu, task.needs.memory),
            }
        };
        world.tasks.iter().map(truth).collect()
    }

    /// How often each operation has been called, also where it was refused.
    pub fn calls(&self) -> BTreeMap<String, u64> {
        self.world().calls.clone()
    }

    /// How many calls were refused because they were beyond a quota.
    pub fn throttled(&self) -> u64 {
        self.world().throttled
    }

    /// Waits until `condition` holds; looks after every change. There is no limit of its own.
    pub async fn until(&self, mut condition: impl FnMut(&Self) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        while !condition(self) {
            changes.changed().await.expect("the sender lives as long as the fake");
        }
    }

    // For the other files.

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        // A test that panics while it looks must not hide its own message behind a poisoned lock.
        self.shared.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn backend(&self) -> &Backend {
        &self.shared.backend
    }

    /// Ticks with every change.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.shared.changes.subscribe()
    }

    /// Tells whoever waits for changes.
    pub(crate) fn changed(&self) {
        self.shared.changes.send_replace(());
    }

    /// Has tasks live that were placed.
    pub(crate) fn bring_to_life(&self, tasks: Vec<String>) {
        for id in tasks {
            tokio::spawn(life_cycle::live(self.clone(), id));
        }
        self.changed();
    }

    /// Has an agent hear that a task is to stop.
    pub(crate) fn deliver_stop(&self, task: String) {
        tokio::spawn(life_cycle::deliver_stop(self.clone(), task));
        self.changed();
    }

    fn instance_by_ec2_id(&self, ec2_instance_id: &str) -> String {
        let world = self.world();
        let found = world
            .instances
            .values()
            .find(|instance| instance.spec.ec2_instance_id == ec2_instance_id && instance.is_registered());
        found.unwrap_or_else(|| panic!("no instance {ec2_instance_id}")).id.clone()
    }
}

impl fmt::Debug for FakeEcs {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("FakeEcs").finish_non_exhaustive()
    }
}
