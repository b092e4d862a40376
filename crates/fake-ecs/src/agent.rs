//! When an agent starts what it was given.
//!
//! ECS counts the resources of a task as free as soon as it has told it to stop: it "optimistically considers instance
//! resources (e.g. cpu, memory, ports) as free for launching new tasks whenever a running task transitions to the
//! stopping state"
//! (<https://www.amazonaws.cn/en/new/2023/amazon-ecs-enables-faster-task-launches-on-container-instances-that-have-tasks-with-prolonged-shutdown/>).
//! So an agent is given tasks that there is no room for yet. Agents before that feature "waited for all stopping tasks to
//! shutdown before starting new tasks" (the same page): for those told to stop before the new one was placed, whatever
//! they take. Later ones keep account themselves: a new task waits "in a queue until enough resources for them become
//! available", first come, first served, and "a running task frees resources on emitting its change of status to
//! `STOPPED`"; what is counted is cpu, memory and ports
//! (<https://github.com/aws/amazon-ecs-agent/pull/3757>, released in
//! <https://github.com/aws/amazon-ecs-agent/releases/tag/v1.73.0>).

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crate::instances::InstanceSpec;
use crate::resources::{Needs, Taken};
use crate::world::World;

/// Whether an agent of this version keeps account of resources. It came with 1.73.0, was taken back in 1.73.1
/// (<https://github.com/aws/amazon-ecs-agent/pull/3781>), and is there for good since 1.74.1
/// (<https://github.com/aws/amazon-ecs-agent/pull/3819>).
fn keeps_account(version: &str) -> bool {
    let mut numbers = version.split('.').map(|part| part.parse::<u64>().unwrap_or_default());
    let mut next = || numbers.next().unwrap_or_default();
    let version = (next(), next(), next());
    version == (1, 73, 0) || version >= (1, 74, 1)
}

/// What an agent knows.
#[derive(Debug)]
pub(crate) struct Agent {
    keeps_account: bool,
    cpu: u64,
    memory: u64,
    /// Tasks that wait to be started, in the order in which it heard of them.
    waiting: VecDeque<String>,
    /// What the tasks take that it has started and not reported as stopped.
    started: BTreeMap<String, Arc<Needs>>,
    taken: Taken,
    /// Tasks that were told to stop and have not, with their place in what ECS has sent.
    stopping: BTreeMap<String, u64>,
}

impl Agent {
    pub(crate) fn new(spec: &InstanceSpec) -> Self {
        Self {
            keeps_account: keeps_account(&spec.agent_version),
            cpu: spec.cpu,
            memory: spec.memory,
            waiting: VecDeque::new(),
            started: BTreeMap::new(),
            taken: Taken::default(),
            stopping: BTreeMap::new(),
        }
    }

    /// A task was told to stop.
    pub(crate) fn note_stopping(&mut self, task: &str, sequence: u64) {
        self.stopping.insert(task.to_owned(), sequence);
    }

    /// Which of the waiting may start now, given where each stands in what ECS has sent.
    fn may_start(&mut self, placed: impl Fn(&str) -> u64, needs: impl Fn(&str) -> Arc<Needs>) -> Vec<String> {
        let mut may = Vec::new();
        if !self.keeps_account {
            let first_stop = self.stopping.values().min().copied().unwrap_or(u64::MAX);
            self.waiting.retain(|task| {
                let waits = placed(task) > first_stop;
                if !waits {
                    may.push(task.clone());
                }
                waits
            });
            return may;
        }
        while let Some(task) = self.waiting.front() {
            let needed = needs(task);
            if self.taken.lacks(&needed, self.cpu, self.memory, u64::MAX).is_some() {
                break;
            }
            self.taken.add(&needed);
            self.started.insert(task.clone(), needed);
            may.extend(self.waiting.pop_front());
        }
        may
    }
}

impl World {
    /// The agent has heard of a task.
    pub(crate) fn hand_over(&mut self, task: &str) {
        let Some(instance) = self.tasks.get(task).map(|task| task.instance.clone()) else { return };
        if let Some(instance) = self.instances.get_mut(&instance) {
            instance.agent.waiting.push_back(task.to_owned());
        }
        self.start_what_may(&instance);
    }

    /// The agent has done with a task: it has ended, or was told to stop before it began.
    pub(crate) fn let_go(&mut self, task: &str) {
        let Some(instance_id) = self.tasks.get(task).map(|task| task.instance.clone()) else { return };
        let Some(instance) = self.instances.get_mut(&instance_id) else { return };
        let agent = &mut instance.agent;
        agent.waiting.retain(|waiting| waiting != task);
        agent.stopping.remove(task);
        if let Some(needs) = agent.started.remove(task) {
            agent.taken.give_back(&needs);
        }
        self.start_what_may(&instance_id);
    }

    fn start_what_may(&mut self, instance: &str) {
        let tasks = &self.tasks;
        let Some(instance) = self.instances.get_mut(instance) else { return };
        let placed = |id: &str| tasks.get(id).map_or(0, |task| task.placed);
        let needs = |id: &str| tasks.get(id).map(|task| Arc::clone(&task.needs)).unwrap_or_default();
        for id in instance.agent.may_start(placed, needs) {
            if let Some(task) = tasks.get(&id) {
                task.signals.send_modify(|signals| signals.started = true);
            }
        }
    }
}
