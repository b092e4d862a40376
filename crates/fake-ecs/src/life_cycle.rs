//! What becomes of a task, and when.
//!
//! A task goes through PROVISIONING (where it has a network interface of its own), PENDING, ACTIVATING, RUNNING,
//! STOPPING, DEPROVISIONING (as before) and STOPPED, and never back
//! (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html>). DEACTIVATING is for
//! tasks behind a load balancer, which there are none of here. `desiredStatus` is RUNNING until it is told to stop or
//! has ended, and STOPPED from then on.
//!
//! What happens on an instance happens whether or not its agent is connected; what ECS knows of it waits for that, and
//! so does what the agent is told.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::sleep;

use crate::backend::{Ended, Plan, Probe, RunningTask};
use crate::dice;
use crate::ecs::FakeEcs;
use crate::tasks::{ContainerView, Desired, Health, Signals, Status, TaskView, Truth};
use crate::world::World;

/// How often an agent looks at the health of what runs.
const HEALTH_AGAIN: Duration = Duration::from_secs(1);

/// One task's life.
struct Life {
    ecs: FakeEcs,
    id: String,
    plan: Arc<Plan>,
    signals: watch::Receiver<Signals>,
    connected: watch::Receiver<bool>,
    network_interface: bool,
}

/// Lives a task's life. It ends early with its instance.
pub(crate) async fn live(ecs: FakeEcs, id: String) {
    let Some(life) = Life::of(ecs, id) else { return };
    let lost = tokio::select! {
        biased;
        signals = life.until(|signals| signals.lost) => signals.lost,
        () = life.course() => false,
    };
    if lost {
        life.ecs.backend().vanish(&life.plan).await;
    }
}

impl Life {
    fn of(ecs: FakeEcs, id: String) -> Option<Self> {
        let mut world = ecs.world();
        let plan = world.plans.remove(&id)?;
        let task = world.tasks.get(&id)?;
        let (signals, network_interface) =
            (task.signals.subscribe(), task.view.now().fixed.network_interface);
        let connected = world.instances.get(&task.instance)?.connected.subscribe();
        drop(world);
        Some(Self { ecs, id, plan, signals, connected, network_interface })
    }

    async fn course(&self) {
        if self.network_interface {
            sleep(self.draw("provisioning", |delays| &delays.provisioning)).await;
            self.change(|view| reach(view, Status::Pending));
        }
        sleep(self.draw("deliver", |delays| &delays.deliver)).await;
        self.until_connected().await;
        self.ecs.world().hand_over(&self.id);
        let heard = self.until(|signals| signals.started || signals.stop).await;
        if !heard.started {
            return self.never_ran(None).await;
        }
        let now = self.ecs.world().stamp();
        self.change(|view| {
            reach(view, Status::Activating);
            view.pull_started_at = Some(now);
        });
        if self.ecs.world().closed {
            return;
        }
        let (running, up) = match self.ecs.backend().start(&self.ecs, &self.plan).await {
            Ok(started) => started,
            Err(failure) => return self.never_ran(Some((failure.container, failure.reason))).await,
        };
        self.truth(Truth::Running);
        let reported = async {
            self.report_delay("report-running").await;
            let now = self.ecs.world().stamp();
            self.change(|view| {
                reach(view, Status::Running);
                view.pull_stopped_at = Some(now);
                view.started_at = Some(now);
                for (container, up) in view.containers.iter_mut().zip(up) {
                    container.last_status = Status::Running;
                    container.runtime_id = up.runtime_id;
                    container.network_bindings = up.network_bindings;
                }
            });
        };
        let probe = running.probe(&self.plan);
        let over = Notify::new();
        let reported = async {
            reported.await;
            if let Some(probe) = probe {
                tokio::select! {
                    () = over.notified() => {}
                    () = self.follow_health(&probe) => {}
                }
            }
        };
        let ended = async {
            let ended = self.run_to_the_end(running).await;
            over.notify_one();
            ended
        };
        let ((), ended) = tokio::join!(reported, ended);
        self.stopped(|view| {
            for (container, ended) in view.containers.iter_mut().zip(ended) {
                end(container, ended);
            }
        })
        .await;
    }

    /// What ECS says of its containers' health is what their health checks said lately. It is no event
    /// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_task_events.html>), so the version stays.
    async fn follow_health(&self, probe: &Probe) {
        loop {
            let all = probe.ask().await;
            self.until_connected().await;
            if let Some(task) = self.ecs.world().tasks.get_mut(&self.id) {
                let essential = self.plan.containers.iter().map(|container| container.essential);
                let worst = worst(essential.zip(all.iter().copied()));
                let known = task.view.now().containers.iter().map(|container| container.health_status);
                if !known.eq(all.iter().copied()) {
                    task.view.change(|view| {
                        view.health_status = worst;
                        for (container, health) in view.containers.iter_mut().zip(all) {
                            container.health_status = health;
                        }
                    });
                }
            }
            self.ecs.changed();
            sleep(HEALTH_AGAIN).await;
        }
    }

    /// Waits until the containers are to end or one has ended, and ends the others.
    async fn run_to_the_end(&self, running: RunningTask) -> Vec<Ended> {
        let killed = tokio::select! {
            biased;
            signals = self.until(|signals| signals.stop || signals.killed) => signals.killed,
            () = running.essential_exit() => false,
        };
        if self.signals.borrow().stop && *self.connected.borrow() {
            self.change(|view| reach(view, Status::Stopping));
        }
        let ended = running.stop(&self.plan, killed).await;
        self.truth(Truth::Ended);
        self.ecs.world().let_go(&self.id);
        // An end that nobody asked for is told to ECS with the report of it.
        ended
    }

    /// The task is over before any of its containers has run.
    async fn never_ran(&self, failure: Option<(usize, String)>) {
        self.truth(Truth::Ended);
        self.ecs.world().let_go(&self.id);
        self.stopped(|view| {
            for container in &mut view.containers {
                container.last_status = Status::Stopped;
            }
            let Some((position, reason)) = failure else { return };
            // What went wrong is said of the container; of the task, that it did
            // (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/stopped-task-error-codes.html>).
            view.containers[position].reason = Some(reason);
            set_stopping(view, "TaskFailedToStart", "Task failed to start");
        })
        .await;
    }

    /// ECS learns that the task has stopped.
    async fn stopped(&self, how: impl FnOnce(&mut TaskView)) {
        self.report_delay("report-stopped").await;
        let now = self.ecs.world().stamp();
        let interface = self.network_interface;
        self.change(|view| {
            how(view);
            set_stopping(view, "EssentialContainerExited", "Essential container in task exited");
            view.stopping_at.get_or_insert(now);
            view.execution_stopped_at = Some(now);
            reach(view, if interface { Status::Deprovisioning } else { Status::Stopped });
            if !interface {
                view.stopped_at = Some(now);
            }
        });
        self.say_how_it_ended();
        self.ecs.world().free(&self.id);
        if interface {
            sleep(self.draw("deprovisioning", |delays| &delays.deprovisioning)).await;
            let now = self.ecs.world().stamp();
            self.change(|view| {
                reach(view, Status::Stopped);
                view.stopped_at = Some(now);
            });
        }
        self.ecs.world().note_stopped(self.id.clone());
        self.ecs.changed();
    }

    fn say_how_it_ended(&self) {
        let world = self.ecs.world();
        let Some(view) = world.tasks.get(&self.id).map(|task| task.view.now()) else { return };
        let first = view.containers.first();
        tracing::info!(
            task = self.id,
            family = self.plan.family,
            instance = self.plan.instance,
            code = view.stop_code,
            reason = view.stopped_reason,
            exit_code = first.and_then(|container| container.exit_code),
            error = first.and_then(|container| container.reason.as_deref()),
            "stopped"
        );
    }

    fn draw(
        &self,
        what: &str,
        range: impl FnOnce(&crate::Delays) -> &std::ops::RangeInclusive<u64>,
    ) -> Duration {
        let world = self.ecs.world();
        dice::millis(&mut world.dice(what, &self.id, 0), range(&world.config.delays))
    }

    async fn report_delay(&self, what: &str) {
        sleep(self.draw(what, |delays| &delays.report)).await;
        self.until_connected().await;
    }

    async fn until_connected(&self) {
        let mut connected = self.connected.clone();
        // The instance's end is seen by whoever waits for this.
        let _ = connected.wait_for(|connected| *connected).await;
    }

    async fn until(&self, condition: impl FnMut(&Signals) -> bool) -> Signals {
        let mut signals = self.signals.clone();
        match signals.wait_for(condition).await {
            Ok(signals) => *signals,
            // The task was forgotten: it is over.
            Err(_closed) => Signals { stop: true, lost: true, ..Signals::default() },
        }
    }

    fn change(&self, change: impl FnOnce(&mut TaskView)) {
        self.ecs.world().change_task(&self.id, change);
        self.ecs.changed();
    }

    fn truth(&self, truth: Truth) {
        if let Some(task) = self.ecs.world().tasks.get_mut(&self.id) {
            task.truth = truth;
        }
        self.ecs.changed();
    }
}

/// "If all essential containers in the task are reporting as `HEALTHY`, the task status also reports as `HEALTHY`", and
/// otherwise as what is worst of them
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_Task.html>).
fn worst(containers: impl Iterator<Item = (bool, Health)>) -> Health {
    let essential: Vec<Health> =
        containers.filter(|(essential, _)| *essential).map(|(_, health)| health).collect();
    [Health::Unhealthy, Health::Unknown]
        .into_iter()
        .find(|bad| essential.contains(bad))
        .unwrap_or(Health::Healthy)
}

/// No status is followed by one before it.
fn reach(view: &mut TaskView, status: Status) {
    view.last_status = view.last_status.max(status);
}

fn end(container: &mut ContainerView, ended: Ended) {
    container.last_status = Status::Stopped;
    container.exit_code = ended.exit_code;
    container.reason = ended.reason;
}

/// The first reason for its end is the one that is told.
fn set_stopping(view: &mut TaskView, code: &'static str, reason: &str) {
    view.desired_status = Desired::Stopped;
    view.stop_code.get_or_insert(code);
    view.stopped_reason.get_or_insert_with(|| reason.to_owned());
}

/// ECS wants a task to stop from now on; false if it did before. Who calls this has it delivered.
pub(crate) fn tell_to_stop(world: &mut World, id: &str, code: &'static str, reason: &str) -> bool {
    let Some(task) = world.tasks.get(id) else { return false };
    if task.view.now().desired_status == Desired::Stopped {
        return false;
    }
    let instance = task.instance.clone();
    let has_ended = task.truth == Truth::Ended;
    let (sequence, now) = (world.next_sequence(), world.stamp());
    if let Some(instance) = world.instances.get_mut(&instance).filter(|_| !has_ended) {
        instance.agent.note_stopping(id, sequence);
    }
    world.change_task(id, |view| {
        set_stopping(view, code, reason);
        view.stopping_at = Some(now);
        // "Any tags associated with the task will be deleted."
        view.tags.clear();
    });
    world.free(id);
    true
}

/// The agent hears that a task is to stop.
pub(crate) async fn deliver_stop(ecs: FakeEcs, id: String) {
    let (delay, connected) = {
        let world = ecs.world();
        let delay = dice::millis(&mut world.dice("deliver-stop", &id, 0), &world.config.delays.deliver);
        let Some(task) = world.tasks.get(&id) else { return };
        let Some(instance) = world.instances.get(&task.instance) else { return };
        (delay, instance.connected.subscribe())
    };
    let mut connected = connected;
    sleep(delay).await;
    if connected.wait_for(|connected| *connected).await.is_ok()
        && let Some(task) = ecs.world().tasks.get(&id)
    {
        task.signals.send_modify(|signals| signals.stop = true);
    }
}

/// An instance and all that is on it is gone: its tasks are STOPPED
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_task_events.html>: "when you stop or terminate a
/// container instance, the tasks that are running on it are transitioned to the `STOPPED` status").
pub(crate) fn lose_instance(world: &mut World, id: &str, reason: &str) {
    let on_it =
        |task: &crate::tasks::Task| task.instance == id && task.view.now().last_status != Status::Stopped;
    let tasks: Vec<String> =
        world.tasks.iter().filter(|(_, task)| on_it(task)).map(|(id, _)| id.clone()).collect();
    for task in tasks {
        let now = world.stamp();
        if let Some(task) = world.tasks.get_mut(&task) {
            task.truth = Truth::Ended;
            task.signals.send_modify(|signals| signals.lost = true);
        }
        world.let_go(&task);
        world.change_task(&task, |view| {
            set_stopping(view, "TerminationNotice", reason);
            reach(view, Status::Stopped);
            view.stopping_at.get_or_insert(now);
            view.stopped_at = Some(now);
            for container in &mut view.containers {
                container.last_status = Status::Stopped;
            }
        });
        world.free(&task);
        world.note_stopped(task);
    }
    world.change_instance(id, |view| {
        view.status = "INACTIVE";
        view.agent_connected = false;
    });
}
