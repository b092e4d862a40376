//! Acting on containers behind the drivers' backs.

use driver::{ContainerId, Health};
use planner::Phase;

use super::engine::SimEngine;
use super::history::{Actor, Happening};
use super::requests::{check_health, exit_by_itself};
use super::world::SimContainer;

/// The phases in which there is a process.
const ALIVE: &[Phase] = &[Phase::Starting, Phase::Running, Phase::Frozen, Phase::Stopping];

/// Somebody with a shell on the engine's host, or the container itself. Everything takes effect at once.
///
/// Each method panics when the container is not there or not in a phase that allows it: the test would not
/// show what it says.
#[derive(Clone, Copy)]
pub struct Hand<'a> {
    engine: &'a SimEngine,
}

impl<'a> Hand<'a> {
    pub(super) fn new(engine: &'a SimEngine) -> Self {
        Self { engine }
    }

    /// The container ends by itself with this code.
    pub fn exit(self, id: &ContainerId, code: i64) {
        self.does(id, ALIVE, Happening::Exited { code }, Actor::Container);
    }

    /// Suspends it.
    pub fn pause(self, id: &ContainerId) {
        self.does(id, &[Phase::Running], Happening::Frozen, Actor::Hand);
    }

    /// Resumes it, whether or not there is room.
    pub fn unpause(self, id: &ContainerId) {
        self.does(id, &[Phase::Frozen], Happening::Thawed, Actor::Hand);
        check_health(self.engine, id);
    }

    /// Its healthcheck says this from now on, until it says something else by itself.
    pub fn health(self, id: &ContainerId, health: Health) {
        self.engine.act(|world| world.set_health(id, health));
    }

    /// Starts one that was created or has ended, whether or not there is room.
    pub fn start(self, id: &ContainerId) {
        self.does(id, &[Phase::Created, Phase::Exited], Happening::Starting, Actor::Hand);
        self.does(id, &[Phase::Starting], Happening::Running, Actor::Hand);
        exit_by_itself(self.engine, id);
        check_health(self.engine, id);
    }

    /// Kills it if it runs, and removes it.
    pub fn remove(self, id: &ContainerId) {
        if self.engine.world().containers.get(id).is_some_and(SimContainer::is_alive) {
            self.does(id, ALIVE, Happening::Exited { code: 137 }, Actor::Hand);
        }
        self.does(id, &[Phase::Created, Phase::Exited], Happening::Removed, Actor::Hand);
    }

    fn does(self, id: &ContainerId, from: &[Phase], what: Happening, by: Actor) {
        self.engine.act(|world| {
            let phase = world.containers.get(id).map(|container| container.phase);
            let phase = phase.unwrap_or_else(|| panic!("no container {id} to be {what:?} by hand"));
            assert!(from.contains(&phase), "{id} is {phase:?} and cannot be {what:?} by hand");
            world.happen(id, what, by);
        });
    }
}
