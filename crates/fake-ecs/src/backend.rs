//! What runs the containers: a simulation, or a Docker engine.

use std::time::Duration;

use serde_json::Value;

use crate::ecs::FakeEcs;
use crate::tasks::Health;
use crate::{docker, simulated};

/// What an agent is told to run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// The task's id.
    pub(crate) task: String,
    pub(crate) cluster: String,
    /// The EC2 instance's id.
    pub(crate) instance: String,
    pub(crate) family: String,
    pub(crate) network_mode: String,
    /// Whether its containers get the credentials of a role.
    pub(crate) has_role: bool,
    pub(crate) volumes: Value,
    pub(crate) containers: Vec<ContainerPlan>,
}

/// One container of it.
#[derive(Debug)]
pub(crate) struct ContainerPlan {
    pub(crate) name: String,
    pub(crate) image: String,
    pub(crate) essential: bool,
    /// From the stop signal to SIGKILL.
    pub(crate) stop_timeout: Duration,
    /// The container definition, with what was overridden.
    pub(crate) definition: Value,
}

impl ContainerPlan {
    /// One of the image's own is not looked at
    /// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_HealthCheck.html>).
    pub(crate) fn has_health_check(&self) -> bool {
        self.definition["healthCheck"].is_object()
    }
}

/// A task whose containers do not run: which one failed, and why, beginning with an error's name
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html>).
#[derive(Debug)]
pub(crate) struct StartFailure {
    pub(crate) container: usize,
    pub(crate) reason: String,
}

/// A container that runs.
#[derive(Debug, Default)]
pub(crate) struct Up {
    /// What the engine calls it.
    pub(crate) runtime_id: Option<String>,
    pub(crate) network_bindings: Vec<Value>,
}

/// How a container has ended.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ended {
    pub(crate) exit_code: Option<i64>,
    pub(crate) reason: Option<String>,
}

/// Where containers run.
#[derive(Debug)]
pub(crate) enum Backend {
    Simulated,
    Docker(docker::Engine),
}

/// A task whose containers run.
#[derive(Debug)]
pub(crate) enum RunningTask {
    Simulated(simulated::RunningTask),
    Docker(docker::RunningTask),
}

impl Backend {
    /// Pulls, creates and starts a task's containers.
    pub(crate) async fn start(
        &self,
        ecs: &FakeEcs,
        plan: &Plan,
    ) -> Result<(RunningTask, Vec<Up>), StartFailure> {
        match self {
            Self::Simulated => {
                let (running, up) = simulated::start(ecs, plan).await?;
                Ok((RunningTask::Simulated(running), up))
            }
            Self::Docker(engine) => {
                let (running, up) = engine.start(plan).await?;
                Ok((RunningTask::Docker(running), up))
            }
        }
    }

    /// What runs of a task goes with its instance.
    pub(crate) async fn vanish(&self, plan: &Plan) {
        if let Self::Docker(engine) = self {
            engine.vanish(plan).await;
        }
    }

    /// Nothing of these clusters is left.
    pub(crate) async fn sweep(&self, clusters: &[String]) {
        if let Self::Docker(engine) = self {
            engine.sweep(clusters).await;
        }
    }
}

/// How containers are asked for their health, while they run.
#[derive(Debug)]
pub(crate) enum Probe {
    Simulated(Vec<Health>),
    Docker(docker::Probe),
}

impl Probe {
    /// What the health check of each container says now.
    pub(crate) async fn ask(&self) -> Vec<Health> {
        match self {
            Self::Simulated(all) => all.clone(),
            Self::Docker(probe) => probe.ask().await,
        }
    }
}

impl RunningTask {
    /// `None` if no container has a health check.
    pub(crate) fn probe(&self, plan: &Plan) -> Option<Probe> {
        plan.containers.iter().any(ContainerPlan::has_health_check).then(|| match self {
            Self::Simulated(running) => Probe::Simulated(running.health(plan)),
            Self::Docker(running) => Probe::Docker(running.probe()),
        })
    }

    /// Waits until a container has ended that the task cannot do without.
    pub(crate) async fn essential_exit(&self) {
        match self {
            Self::Simulated(running) => running.essential_exit().await,
            Self::Docker(running) => running.essential_exit().await,
        }
    }

    /// Stops what still runs, and tells how each container has ended. With `kill` it is not asked first.
    pub(crate) async fn stop(self, plan: &Plan, kill: bool) -> Vec<Ended> {
        match self {
            Self::Simulated(running) => running.stop(plan, kill).await,
            Self::Docker(running) => running.stop(plan, kill).await,
        }
    }
}
