//! Simulated containers: they take the time that they are told to take, and do nothing.

use std::future::pending;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::backend::{ContainerPlan, Ended, Plan, StartFailure, Up};
use crate::dice;
use crate::ecs::FakeEcs;
use crate::tasks::Health;

/// The exit code of what SIGKILL has ended: 128 and the signal's number.
const KILLED: i64 = 137;

/// How containers of an image behave.
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Behaviour {
    /// Whether the image can be pulled.
    pub pulls: bool,
    /// Whether the container can be started.
    pub starts: bool,
    /// When it ends by itself after its start, and with which code; `None`: it does not.
    pub ends: Option<(Duration, u8)>,
    /// Whether it ends on its stop signal, with code 0; otherwise only SIGKILL ends it.
    pub heeds_stop: bool,
    /// What its health check says, if its definition has one.
    pub healthy: bool,
}

impl Default for Behaviour {
    /// Runs until it is told to stop.
    fn default() -> Self {
        Self { pulls: true, starts: true, ends: None, heeds_stop: true, healthy: true }
    }
}

impl Behaviour {
    /// Ends by itself.
    pub fn ends(after: Duration, code: u8) -> Self {
        Self { ends: Some((after, code)), ..Self::default() }
    }

    /// Only SIGKILL ends it.
    pub fn deaf() -> Self {
        Self { heeds_stop: false, ..Self::default() }
    }

    /// It runs, and its health check fails.
    pub fn sick() -> Self {
        Self { healthy: false, ..Self::default() }
    }

    /// It can be pulled and not started.
    pub fn broken() -> Self {
        Self { starts: false, ..Self::default() }
    }

    /// It cannot be pulled.
    pub fn missing() -> Self {
        Self { pulls: false, ..Self::default() }
    }
}

/// A task's containers.
#[derive(Debug)]
pub(crate) struct RunningTask {
    since: Instant,
    behaviours: Vec<Behaviour>,
    /// Of a container that heeds its stop signal, from that to its end.
    stop_takes: Duration,
    /// When the first essential container ends by itself.
    essential_ends_at: Option<Instant>,
}

pub(crate) async fn start(ecs: &FakeEcs, plan: &Plan) -> Result<(RunningTask, Vec<Up>), StartFailure> {
    let (behaviours, activating, starting, stop_takes) = {
        let world = ecs.world();
        let draw = |what: &str, range| dice::millis(&mut world.dice(what, &plan.task, 0), range);
        let delays = &world.config.delays;
        let of_image = |image: &String| world.images.get(image).cloned().unwrap_or_default();
        let behaviours: Vec<Behaviour> = plan.containers.iter().map(|one| of_image(&one.image)).collect();
        let activating = draw("activating", &delays.activating);
        (behaviours, activating, draw("start", &delays.start), draw("stop", &delays.stop))
    };
    let failure = |container: usize, reason: String| StartFailure { container, reason };
    sleep(activating).await;
    if let Some(container) = behaviours.iter().position(|behaviour| !behaviour.pulls) {
        let image = &plan.containers[container].image;
        return Err(failure(
            container,
            format!(
                "CannotPullContainerError: Error response from daemon: pull access denied for {image}, repository \
                 does not exist or may require 'docker login'"
            ),
        ));
    }
    sleep(starting).await;
    if let Some(container) = behaviours.iter().position(|behaviour| !behaviour.starts) {
        return Err(failure(
            container,
            "CannotStartContainerError: Error response from daemon: failed to create task for container: exec: \
             executable file not found in $PATH"
                .to_owned(),
        ));
    }
    let since = Instant::now();
    let ends = |(plan, behaviour): (&ContainerPlan, &Behaviour)| {
        behaviour.ends.filter(|_| plan.essential).map(|(after, _)| since + after)
    };
    let essential_ends_at = plan.containers.iter().zip(&behaviours).filter_map(ends).min();
    let up = plan.containers.iter().map(|_| Up::default()).collect();
    Ok((RunningTask { since, behaviours, stop_takes, essential_ends_at }, up))
}

impl RunningTask {
    pub(crate) fn health(&self, plan: &Plan) -> Vec<Health> {
        let of = |(plan, behaviour): (&ContainerPlan, &Behaviour)| match (
            plan.has_health_check(),
            behaviour.healthy,
        ) {
            (false, _) => Health::Unknown,
            (true, true) => Health::Healthy,
            (true, false) => Health::Unhealthy,
        };
        plan.containers.iter().zip(&self.behaviours).map(of).collect()
    }

    pub(crate) async fn essential_exit(&self) {
        match self.essential_ends_at {
            Some(at) => sleep_until(at).await,
            None => pending().await,
        }
    }

    pub(crate) async fn stop(self, plan: &Plan, kill: bool) -> Vec<Ended> {
        let told_at = Instant::now();
        let mut over_at = told_at;
        let mut all = Vec::new();
        for (plan, behaviour) in plan.containers.iter().zip(&self.behaviours) {
            let by_itself = behaviour.ends.map(|(after, code)| (self.since + after, i64::from(code)));
            let stopped = match (kill, behaviour.heeds_stop && self.stop_takes <= plan.stop_timeout) {
                (true, _) => (told_at, KILLED),
                (false, true) => (told_at + self.stop_takes, 0),
                (false, false) => (told_at + plan.stop_timeout, KILLED),
            };
            let (at, code) = by_itself.filter(|(at, _)| *at <= stopped.0).unwrap_or(stopped);
            over_at = over_at.max(at);
            all.push(Ended { exit_code: Some(code), reason: None });
        }
        sleep_until(over_at).await;
        all
    }
}
