//! A toy cluster that carries plans out, step by step, in any order.
#![allow(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

use std::fmt;

use planner::{
    Action, Container, ContainerKey, Delta, Instance, InstanceState, Millis, Operation, Phase, Plan, Reading,
    Resources, Service, ServiceId, State, invariants, plan,
};

/// A moment that is late enough for every container to have a past.
pub const NOW: Millis = Millis(1_000_000);

/// Builds states by name.
#[derive(Clone)]
pub struct World {
    pub state: State,
    pub now: Millis,
}

/// A line for each service, instance and container: what a failure shows.
impl fmt::Debug for World {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = &self.state;
        let dimension =
            |value: u64| if value == Resources::UNLIMITED { "-".to_owned() } else { value.to_string() };
        let vector = |r: Resources| {
            format!("{}/{}/{}", dimension(r.slots), dimension(r.cpu_millis), dimension(r.memory_mib))
        };
        writeln!(out)?;
        for id in state.service_ids() {
            let s = state.service(id);
            writeln!(
                out,
                "{} p{} {:?} w{} {} min {} max {} {:?} overlap {:?} standby {} {:?} runtime {} proven {}{}{} demand {:?}",
                s.name,
                s.priority,
                s.kind,
                s.weight,
                vector(s.request),
                s.min,
                s.max,
                s.on_preempt,
                s.overlap,
                s.standby_per_instance,
                s.placement,
                s.min_runtime_ms,
                s.proven_after_ms,
                if s.paused { " paused" } else { "" },
                if s.removed { " removed" } else { "" },
                state.demand(id, self.now).containers,
            )?;
        }
        for id in state.instance_ids() {
            let i = state.instance(id);
            writeln!(
                out,
                "{} {:?} {} frozen {} evict {}",
                i.name,
                i.state,
                vector(i.capacity),
                i.frozen_max,
                i.evict_after_ms
            )?;
            for c in state.containers_on(id) {
                let age = self.now.since(c.since);
                let old = if c.outdated { " outdated" } else { "" };
                let fault = c.fault.map_or(String::new(), |fault| format!(" {fault:?}"));
                let name = format!("{}/{}", state.service(c.key.service).name, c.key.ordinal);
                writeln!(out, "    {name} {:?} {:?} age {age}{old}{fault}", c.phase, c.operation)?;
            }
        }
        for backoff in state.backoffs() {
            writeln!(out, "{backoff:?}")?;
        }
        Ok(())
    }
}

impl World {
    pub fn new(services: Vec<Service>, instances: Vec<Instance>) -> Self {
        Self { state: State::new(services, instances, Millis(0)), now: NOW }
    }

    /// `count` instances of `slots` slots, named instance-1 and so on.
    pub fn pool(services: Vec<Service>, count: u32, slots: u64) -> Self {
        let instances = (1..=count)
            .map(|number| Instance::ready(format!("instance-{number}"), Resources::slots_only(slots)))
            .collect();
        Self::new(services, instances)
    }

    pub fn service(&self, name: &str) -> ServiceId {
        self.state.service_id(name).expect("a service of that name")
    }

    pub fn demand(&mut self, name: &str, containers: u32) {
        let service = self.service(name);
        let reading = Reading::Known { containers, confirmed_at: self.now };
        self.state.apply(Delta::Demand { service, reading, at: self.now });
    }

    pub fn unknown(&mut self, name: &str) {
        let service = self.service(name);
        self.state.apply(Delta::Demand { service, reading: Reading::Unknown, at: self.now });
    }

    pub fn instance_state(&mut self, name: &str, state: InstanceState) {
        let instance = self.state.instance_id(name).expect("an instance of that name");
        self.state.apply(Delta::InstanceState { instance, state });
    }

    /// Puts a container there, as if it had run for `age_ms`.
    pub fn put(&mut self, service: &str, instance: &str, ordinal: u32, phase: Phase, age_ms: u64) {
        let key = self.key(service, instance, ordinal);
        let since = Millis(self.now.0 - age_ms);
        self.state.apply(Delta::Container(Container {
            key,
            phase,
            fault: None,
            operation: None,
            since,
            outdated: false,
        }));
    }

    pub fn key(&self, service: &str, instance: &str, ordinal: u32) -> ContainerKey {
        let instance = self.state.instance_id(instance).expect("an instance of that name");
        ContainerKey { instance, service: self.service(service), ordinal }
    }

    pub fn plan(&self) -> Plan {
        let made = plan(&self.state, self.now);
        invariants::plan(&self.state, &made)
            .and_then(|()| invariants::rollout(&self.state, &made, self.now))
            .unwrap_or_else(|fault| panic!("{fault}\n{}", self.show(&made)));
        made
    }

    /// Marks every action of a plan as under way.
    pub fn issue(&mut self, plan: &Plan) {
        self.state.apply(Delta::WaitsToEnd { containers: plan.waits_to_end.clone(), at: self.now });
        for action in &plan.actions {
            let key = action.container();
            let existing = self.state.container(key).cloned();
            let operation = match action {
                Action::Stop { .. } => Operation::Stop,
                Action::Evict { after, .. } => Operation::Evict { after: after.clone() },
                Action::Kill { .. } => Operation::Kill,
                Action::Freeze { .. } => Operation::Freeze,
                Action::Start { after, .. } => Operation::Start { after: after.clone() },
                Action::Thaw { after, .. } => Operation::Thaw { after: after.clone() },
                Action::Remove { .. } => Operation::Remove,
            };
            let mut container = existing.unwrap_or(Container {
                key,
                phase: Phase::Created,
                fault: None,
                operation: None,
                since: self.now,
                outdated: false,
            });
            container.operation = Some(operation);
            self.state.apply(Delta::Container(container));
        }
    }

    /// The containers whose operation can go on now: a start that waits for nothing any more, anything else.
    pub fn movable(&self) -> Vec<ContainerKey> {
        self.state
            .containers()
            .filter(|container| match &container.operation {
                Some(_) if matches!(container.phase, Phase::Stopping | Phase::Exited) => true,
                Some(Operation::Evict { .. }) if container.phase != Phase::Frozen => true,
                None => container.phase == Phase::Starting || container.phase == Phase::Stopping,
                Some(Operation::Start { after } | Operation::Thaw { after } | Operation::Evict { after }) => {
                    after.iter().all(|&key| self.state.container(key).is_none_or(Container::has_left))
                }
                Some(_) => true,
            })
            .filter(|container| self.state.instance(container.key.instance).state != InstanceState::Lost)
            .map(|container| container.key)
            .collect()
    }

    /// One container's operation goes one step on.
    pub fn step(&mut self, key: ContainerKey) {
        self.move_on(key);
        self.forget_left();
    }

    fn move_on(&mut self, key: ContainerKey) {
        let Some(mut container) = self.state.container(key).cloned() else { return };
        match (&container.operation, container.phase) {
            (_, Phase::Stopping | Phase::Exited)
            | (
                Some(Operation::Stop | Operation::Freeze | Operation::Evict { .. } | Operation::Kill),
                Phase::Created,
            ) => {
                self.state.apply(Delta::ContainerGone(key));
                return;
            }
            (Some(Operation::Start { .. }), Phase::Created) => container.phase = Phase::Starting,
            (Some(Operation::Thaw { .. }), _) | (Some(Operation::Start { .. }) | None, Phase::Starting) => {
                container.phase = Phase::Running;
                container.fault = None;
                container.operation = None;
                container.since = self.now;
            }
            (Some(Operation::Freeze), _) => {
                container.phase = Phase::Frozen;
                container.operation = None;
            }
            (
                Some(Operation::Stop | Operation::Evict { .. }),
                Phase::Running | Phase::Starting | Phase::Frozen,
            ) => {
                container.phase = Phase::Stopping;
            }
            _ => {
                self.state.apply(Delta::ContainerGone(key));
                return;
            }
        }
        self.state.apply(Delta::Container(container));
    }

    /// Whoever waited for a container that has left its room now does not wait for it again.
    fn forget_left(&mut self) {
        let waiting: Vec<Container> = self.state.containers().cloned().collect();
        for mut container in waiting {
            if let Some(Operation::Start { after } | Operation::Thaw { after } | Operation::Evict { after }) =
                &mut container.operation
            {
                after.retain(|&key| !self.state.container(key).is_none_or(Container::has_left));
                self.state.apply(Delta::Container(container));
            }
        }
    }

    /// Everything under way comes to its end.
    pub fn finish(&mut self) {
        loop {
            let movable = self.movable();
            if movable.is_empty() {
                break;
            }
            for key in movable {
                self.step(key);
            }
        }
    }

    /// Plans, carries out, and plans again until nothing is left to do; panics after `rounds`.
    pub fn converge(&mut self, rounds: usize) -> Plan {
        for _ in 0..rounds {
            let made = self.plan();
            if made.actions.is_empty() {
                return made;
            }
            self.issue(&made);
            self.finish();
        }
        let made = self.plan();
        assert!(made.actions.is_empty(), "no end after {rounds} rounds:\n{}", self.show(&made));
        made
    }

    /// How many of a service run or are about to.
    pub fn running(&self, name: &str) -> u32 {
        invariants::running(&self.state, self.service(name))
    }

    /// The plan's actions as sentences.
    pub fn words(&self, plan: &Plan) -> Vec<String> {
        plan.actions.iter().map(|action| action.words(&self.state)).collect()
    }

    /// What was not done, as sentences.
    pub fn not_done(&self, plan: &Plan) -> Vec<String> {
        plan.not_done.iter().map(|item| item.words(&self.state, self.now)).collect()
    }

    /// Everything, for a failure's message.
    pub fn show(&self, plan: &Plan) -> String {
        let mut text = format!("{self:?}\n");
        for line in self.words(plan).into_iter().chain(self.not_done(plan)) {
            text.push_str(&line);
            text.push('\n');
        }
        text
    }
}
