//! What the engine does for each request, in tasks of its own: nobody who goes away takes it with them.

use std::sync::Arc;
use std::time::Duration;

use driver::{ContainerId, Generation, Health, Outcome, PullPolicy};
use planner::Phase;
use tokio::time::{Instant, sleep};

use super::engine::SimEngine;
use super::history::{Actor, Happening, Subject};
use super::pull::End;
use super::world::SimContainer;

/// The engine refuses a request, and says why.
#[derive(Debug)]
pub(super) struct Refused {
    pub(super) code: &'static str,
    pub(super) message: String,
}

/// What a request to create comes to.
pub(super) enum Creation {
    /// It is there now.
    Made(ContainerId),
    /// One of that name was there.
    Taken(Existing),
}

/// A container whose name was asked for.
pub(super) struct Existing {
    pub(super) id: ContainerId,
    pub(super) phase: Phase,
    /// `None` for one of someone else's.
    pub(super) generation: Option<Generation>,
}

fn refused(code: &'static str, message: String) -> Refused {
    Refused { code, message }
}

fn not_found(id: &ContainerId) -> Refused {
    refused("not_found", format!("no container {id}"))
}

/// Pulls an image that is missing and that a registry has. It takes as long as it takes.
pub(super) async fn pull(engine: SimEngine, image: &str, policy: PullPolicy) -> Result<(), Refused> {
    let takes = {
        let mut world = engine.world();
        let asks = match policy {
            PullPolicy::Never => false,
            PullPolicy::Missing => !world.images.contains_key(image),
            PullPolicy::Always => true,
        };
        let Some(pull) = world.pulls.get_mut(image).filter(|_| asks) else { return Ok(()) };
        pull.begun = Some(Instant::now());
        pull.takes
    };
    sleep(takes).await;
    let mut world = engine.world();
    let end = world.pulls.get_mut(image).map(|pull| {
        pull.begun = None;
        pull.end.clone()
    });
    match end {
        Some(End::Comes(behaviour)) => {
            world.pulls.remove(image);
            world.images.insert(image.to_owned(), behaviour);
            Ok(())
        }
        Some(End::Fails(code)) => Err(refused(code, format!("image {image} cannot be pulled"))),
        None => Ok(()),
    }
}

pub(super) async fn prepare(engine: SimEngine, latency: Duration, image: String) -> Result<(), Refused> {
    sleep(latency).await;
    if engine.world().images.contains_key(&image) {
        Ok(())
    } else {
        Err(refused("image_missing", format!("no image {image}")))
    }
}

/// Creates a container; one whose name is taken only where `unique` lets names repeat.
pub(super) async fn create(
    engine: SimEngine,
    latency: Duration,
    subject: Subject,
    image: String,
    unique: bool,
) -> Result<Creation, Refused> {
    engine.works_for(latency).await;
    engine.act(|world| {
        if unique && let Some((id, container)) = world.by_name(&subject.name) {
            let generation = container.subject.labels.as_ref().map(|labels| labels.generation.clone());
            return Ok(Creation::Taken(Existing { id: id.clone(), phase: container.phase, generation }));
        }
        let behaviour = world.images.get(&image).cloned();
        let behaviour = behaviour.ok_or_else(|| refused("image_missing", format!("no image {image}")))?;
        Ok(Creation::Made(world.create(subject, behaviour, Actor::Driver)))
    })
}

/// Starts a container; `Already` if it runs.
pub(super) async fn start(engine: SimEngine, latency: Duration, id: ContainerId) -> Result<Outcome, Refused> {
    let _turn = turn(&engine, &id).await?;
    let fails = engine.act(|world| {
        let container = world.containers.get(&id).ok_or_else(|| not_found(&id))?;
        match container.phase {
            Phase::Running => return Ok(None),
            Phase::Created | Phase::Exited => {}
            phase @ (Phase::Starting | Phase::Frozen | Phase::Stopping) => {
                return Err(refused(
                    "conflict",
                    format!("container {id} is {phase:?} and cannot be started"),
                ));
            }
        }
        let fails = container.behaviour.fails_to_start;
        world.happen(&id, Happening::Starting, Actor::Driver);
        Ok(Some(fails))
    })?;
    let Some(fails) = fails else {
        return Ok(Outcome::Already);
    };
    engine.works_for(latency).await;
    engine.act(|world| {
        let container = world.containers.get(&id).ok_or_else(|| not_found(&id))?;
        if container.phase != Phase::Starting {
            return Err(refused("engine", format!("container {id} ended while it was being started")));
        }
        if fails {
            world.happen(&id, Happening::StartFailed, Actor::Driver);
            return Err(refused("bad_spec", format!("container {id}: no such command")));
        }
        world.happen(&id, Happening::Running, Actor::Driver);
        Ok(())
    })?;
    exit_by_itself(&engine, &id);
    check_health(&engine, &id);
    Ok(Outcome::Done)
}

/// Where its image says so, the container that was just started ends after its time, whoever still watches.
/// The time goes on while it is frozen; it then ends as soon as it is resumed.
pub(super) fn exit_by_itself(engine: &SimEngine, id: &ContainerId) {
    let planned =
        engine.world().containers.get(id).map(|container| (container.life, container.behaviour.exits));
    let Some((life, Some((after_ms, code)))) = planned else {
        return;
    };
    let (engine, id) = (engine.clone(), id.clone());
    tokio::spawn(async move {
        sleep(Duration::from_millis(after_ms)).await;
        engine.until(|engine| phase_in_life(engine, &id, life) != Some(Phase::Frozen)).await;
        end(&engine, &id, life, code, Actor::Container);
    });
}

/// Where its image has a healthcheck, that says in its time what the image says it does.
pub(super) fn check_health(engine: &SimEngine, id: &ContainerId) {
    let planned =
        engine.world().containers.get(id).map(|container| (container.life, container.behaviour.healthcheck));
    let Some((life, Some(checked))) = planned else {
        return;
    };
    for (after_ms, health) in
        [(checked.healthy_after_ms, Health::Healthy), (checked.unhealthy_after_ms, Health::Unhealthy)]
    {
        let Some(after_ms) = after_ms else { continue };
        let (engine, id) = (engine.clone(), id.clone());
        tokio::spawn(async move {
            sleep(Duration::from_millis(after_ms)).await;
            if phase_in_life(&engine, &id, life) == Some(Phase::Running) {
                engine.act(|world| world.set_health(&id, health));
            }
        });
    }
}

/// Stops a container, and returns when it has ended.
pub(super) async fn stop(
    engine: SimEngine,
    latency: Duration,
    id: ContainerId,
    grace: Duration,
) -> Result<Outcome, Refused> {
    // A stop waits for a start that is under way, and for nothing else: not for another stop's grace.
    let Ok(turn) = turn(&engine, &id).await else {
        return Ok(Outcome::Already);
    };
    let stopping = engine.act(|world| {
        let container = world.containers.get(&id)?;
        let (life, alive, stubborn) =
            (container.life, container.is_alive(), container.behaviour.ignores_stop_signal);
        let stopping = container.phase == Phase::Stopping;
        // Killed, it does not run again: it stays in its freezer until it is gone.
        let in_freezer = container.phase == Phase::Frozen && grace.is_zero();
        if alive && !stopping && !in_freezer {
            world.happen(&id, Happening::Stopping, Actor::Driver);
        }
        alive.then_some((life, stubborn, in_freezer))
    });
    drop(turn);
    let Some((life, stubborn, in_freezer)) = stopping else {
        return Ok(Outcome::Already);
    };
    let killed = stubborn || grace.is_zero();
    let ends = async {
        engine.works_for(latency).await;
        sleep(if stubborn { grace } else { Duration::ZERO }).await;
    };
    tokio::select! {
        biased;
        () = ends => end(&engine, &id, life, if killed { 137 } else { 143 }, Actor::Driver),
        // Another stop with less grace may end it first.
        () = engine.until(|engine| match phase_in_life(engine, &id, life) {
            Some(Phase::Stopping) => false,
            Some(Phase::Frozen | Phase::Running) => !in_freezer,
            _ => true,
        }) => {}
    }
    Ok(Outcome::Done)
}

/// Suspends a container; `Already` if there is nothing to suspend.
pub(super) async fn freeze(
    engine: SimEngine,
    latency: Duration,
    id: ContainerId,
) -> Result<Outcome, Refused> {
    let Ok(_turn) = turn(&engine, &id).await else {
        return Ok(Outcome::Already);
    };
    engine.works_for(latency).await;
    engine.act(|world| match world.containers.get(&id).map(|container| container.phase) {
        Some(Phase::Running) => {
            world.happen(&id, Happening::Frozen, Actor::Driver);
            Ok(Outcome::Done)
        }
        Some(Phase::Stopping) => Err(refused("conflict", format!("container {id} is being stopped"))),
        _ => Ok(Outcome::Already),
    })
}

/// Resumes a container; `Already` if it runs.
pub(super) async fn thaw(engine: SimEngine, latency: Duration, id: ContainerId) -> Result<Outcome, Refused> {
    let _turn = turn(&engine, &id).await?;
    engine.works_for(latency).await;
    let thawed = engine.act(|world| match world.containers.get(&id).map(|container| container.phase) {
        Some(Phase::Frozen) => {
            world.happen(&id, Happening::Thawed, Actor::Driver);
            Ok(Outcome::Done)
        }
        Some(Phase::Running) => Ok(Outcome::Already),
        Some(phase) => Err(refused("conflict", format!("container {id} is {phase:?} and cannot be resumed"))),
        None => Err(not_found(&id)),
    })?;
    check_health(&engine, &id);
    Ok(thawed)
}

/// Removes a container that does not run.
pub(super) async fn remove(
    engine: SimEngine,
    latency: Duration,
    id: ContainerId,
) -> Result<Outcome, Refused> {
    engine.works_for(latency).await;
    engine.act(|world| match world.containers.get(&id).map(SimContainer::is_alive) {
        None => Ok(Outcome::Already),
        Some(true) => Err(refused("conflict", format!("container {id} runs; stop it before removing it"))),
        Some(false) => {
            world.happen(&id, Happening::Removed, Actor::Driver);
            Ok(Outcome::Done)
        }
    })
}

/// Returns when the container takes no room: it is frozen, has ended, was never started or is gone.
pub(super) async fn room_left(engine: &SimEngine, id: &ContainerId) {
    let takes_room =
        |engine: &SimEngine| engine.world().containers.get(id).is_some_and(SimContainer::takes_room);
    engine.until(|engine| !takes_room(engine)).await;
}

fn phase_in_life(engine: &SimEngine, id: &ContainerId, life: u64) -> Option<Phase> {
    let world = engine.world();
    world.containers.get(id).filter(|container| container.life == life).map(|container| container.phase)
}

fn end(engine: &SimEngine, id: &ContainerId, life: u64, code: i64, by: Actor) {
    engine.act(|world| {
        if world.containers.get(id).is_some_and(|container| container.life == life && container.is_alive()) {
            world.happen(id, Happening::Exited { code }, by);
        }
    });
}

async fn turn(engine: &SimEngine, id: &ContainerId) -> Result<tokio::sync::OwnedMutexGuard<()>, Refused> {
    let turn = engine.world().containers.get(id).map(|container| Arc::clone(&container.turn));
    Ok(turn.ok_or_else(|| not_found(id))?.lock_owned().await)
}
