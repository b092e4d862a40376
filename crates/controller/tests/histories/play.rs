//! Plays a script on simulated engines, with one controller at a time, and judges what comes of it.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use controller::{Clock, Controller, DemandSource, Engines, Handle, Parts, ServiceSettings, Settings};
use driver::{ContainerSpec, Driver, Event, InstanceAvailability};
use driver_testkit::sim::{
    Actor, Behaviour, Fault, FaultRates, Happening, Outage, SimConfig, SimContainerView, SimEngine,
};
use planner::{Instance, InstanceState, Overlap, Phase};
use tokio::task::JoinHandle;

use crate::judge::{self, Slots, Wanted};
use crate::script::{Deed, SOURCES, Says, Script, Step, What, source_name};
use crate::support::{Board, CLUSTER, pass_ms};

/// From the moment at which all is well again: the longest that a start is held back (30 s) twice, and that a call
/// takes (70 s).
const SETTLES_WITHIN_MS: u64 = 150_000;

/// For so long nothing more is done then: longer than any period or delay of the controller's own.
const QUIET_MS: u64 = 35_000;

/// What faults have begun goes on for so long: slow calls take up to 9 s more than others.
const LINGERS_MS: u64 = 10_000;

/// How often it is looked.
const LOOK_EVERY_MS: u64 = 500;

/// What was seen of a history.
#[derive(Clone, Copy, Debug, Default)]
pub struct Figures {
    /// What our drivers did to containers.
    pub actions: u64,
    /// What happened to containers, whoever did it.
    pub happenings: u64,
    pub virtual_ms: u64,
    /// From the moment at which all was well again.
    pub settled_after_ms: u64,
}

impl Figures {
    /// Adds up, and keeps the longest.
    pub fn add(&mut self, other: Self) {
        self.actions += other.actions;
        self.happenings += other.happenings;
        self.virtual_ms += other.virtual_ms;
        self.settled_after_ms = self.settled_after_ms.max(other.settled_after_ms);
    }
}

/// A service as it is configured at the moment.
struct ServiceNow {
    settings: ServiceSettings,
    generation: u32,
    present: bool,
    demand: u32,
}

struct Play<'a> {
    script: &'a Script,
    engines: Vec<SimEngine>,
    /// Of each instance: its engine.
    homes: Vec<usize>,
    boards: Vec<Board>,
    services: Vec<ServiceNow>,
    instances: Vec<Instance>,
    wiring: Engines,
    running: Option<(Handle, JoinHandle<()>)>,
    starts: u64,
    clock_by_ms: i64,
    foreign: u64,
    /// When controllers were killed.
    kills: Vec<u64>,
    /// By instance: when somebody else may have taken of its room.
    excused: BTreeMap<String, Vec<u64>>,
}

/// Plays the script to its end, with these of its steps. What is wrong and what happened, if anything is.
pub async fn play(script: &Script, steps: &[Step]) -> Result<Figures, String> {
    let mut play = Play::new(script);
    play.run(steps).await.map_err(|fault| format!("{fault}\n{}", play.story()))
}

/// Some instances have bounds for what is frozen there, by their slots.
fn bounded(instance: Instance) -> Instance {
    match instance.capacity.slots {
        2 => Instance { frozen_max: 1, evict_after_ms: 2_000, ..instance },
        4 => Instance { frozen_max: 2, evict_after_ms: 0, ..instance },
        _ => instance,
    }
}

impl<'a> Play<'a> {
    fn new(script: &'a Script) -> Self {
        let mut engines = Vec::new();
        let mut homes = Vec::new();
        let mut instances = Vec::new();
        for (at, draw) in script.engines.iter().enumerate() {
            let mut config = SimConfig::seeded(script.seed.wrapping_mul(31).wrapping_add(at as u64));
            config.capabilities.idempotent_start = draw.idempotent;
            config.capabilities.freeze = draw.freeze;
            config.reports_transitions = !draw.idempotent;
            config.latencies.observe = 1..=draw.observe_most_ms;
            config.event_delay_ms = 0..=draw.event_delay_most_ms;
            config.lists_late_ms = 0..=draw.lists_late_most_ms;
            let mut engine = SimEngine::new(format!("engine-{at}"), config);
            for (name, slots) in &draw.instances {
                let capacity = script.capacity(*slots);
                engine = engine.with_instance(name, capacity);
                let frozen_memory_mib = script.frozen_memory_mib();
                instances.push(bounded(Instance { frozen_memory_mib, ..Instance::ready(name, capacity) }));
                homes.push(at);
            }
            engines.push(engine);
        }
        let services: Vec<ServiceNow> = script
            .services
            .iter()
            .map(|draw| ServiceNow {
                settings: draw.settings(),
                generation: 0,
                present: true,
                demand: draw.demand,
            })
            .collect();
        let boards: Vec<Board> = (0..SOURCES).map(|_| Board::new(&[])).collect();
        let mut play = Self {
            script,
            engines,
            homes,
            boards,
            services,
            instances,
            wiring: Engines::default(),
            running: None,
            starts: 0,
            clock_by_ms: 0,
            foreign: 0,
            kills: Vec::new(),
            excused: BTreeMap::new(),
        };
        for at in 0..play.services.len() {
            play.generation_is(at, 1);
            play.says(at, &Says::Value(play.services[at].demand));
        }
        play
    }

    async fn run(&mut self, steps: &[Step]) -> Result<Figures, String> {
        // Each step begins, and some end: in the order of time, and of the script.
        let mut moments: Vec<(u64, usize, bool)> = Vec::new();
        for (at, step) in steps.iter().enumerate() {
            moments.push((step.at_ms, at, false));
            moments.extend(step.what.for_ms().map(|for_ms| (step.at_ms + for_ms, at, true)));
        }
        moments.sort_unstable();
        self.start()?;
        if self.script.begins_settled && self.script.engines.iter().any(|engine| !engine.idempotent) {
            pass_ms(self.settings().settle_ms).await;
        }
        let began_ms = self.now_ms();
        for (at_ms, step, ends) in moments {
            pass_ms((began_ms + at_ms).saturating_sub(self.now_ms())).await;
            self.step(&steps[step].what, !ends).await?;
        }
        self.heal().await?;
        let settled_after_ms = self.settle().await?;
        Ok(Figures { settled_after_ms, ..self.judge()? })
    }

    fn now_ms(&self) -> u64 {
        self.engines[0].now_ms()
    }

    fn settings(&self) -> Settings {
        let services = self.services.iter().filter(|service| service.present);
        Settings {
            services: services.map(|service| service.settings.clone()).collect(),
            instances: self.instances.clone(),
            ..Settings::new(CLUSTER)
        }
    }

    /// A new process: new drivers, a clock that is read anew, and nothing remembered.
    fn start(&mut self) -> Result<(), String> {
        self.starts += 1;
        let drivers =
            self.engines.iter().map(|engine| Arc::new(engine.driver(CLUSTER)) as Arc<dyn Driver>).collect();
        let sources: Vec<DemandSource> = self
            .boards
            .iter()
            .enumerate()
            .map(|(source, board)| board.source_named(&source_name(source)))
            .collect();
        self.wiring = Engines { drivers, sources };
        let unix_ms = self.engines[0].clock_ms().saturating_add_signed(self.clock_by_ms);
        let parts = Parts {
            settings: self.settings(),
            engines: self.wiring.clone(),
            clock: Clock::starting_at(unix_ms),
            seed: self.script.seed.wrapping_add(self.starts),
            epoch: self.starts.to_string(),
        };
        let (controller, handle) = Controller::new(parts).map_err(|error| error.to_string())?;
        self.running = Some((handle, tokio::spawn(controller.run())));
        Ok(())
    }

    /// As SIGKILL does: no task of it goes on, what has reached the engines does.
    async fn kill(&mut self) -> Result<(), String> {
        let Some((_, task)) = self.running.take() else { return Ok(()) };
        self.kills.push(self.now_ms());
        task.abort();
        match task.await {
            Err(error) if error.is_cancelled() => Ok(()),
            ended => Err(format!("the controller had ended by itself: {ended:?}")),
        }
    }

    fn is_alive(&self) -> Result<(), String> {
        match &self.running {
            Some((_, task)) if task.is_finished() => Err("the controller has ended by itself".to_owned()),
            _ => Ok(()),
        }
    }

    /// Gives a service containers of another spec, from now on.
    fn generation_is(&mut self, at: usize, generation: u32) {
        let service = &mut self.services[at];
        service.generation = generation;
        let image = format!("{}:{generation}", service.settings.service.name);
        let spec = ContainerSpec { image, stop_grace_ms: 1_000, ..ContainerSpec::default() };
        service.settings.spec = Arc::new(spec);
        self.image_is(at, Some(&Behaviour::runs()));
    }

    /// What becomes of containers of the service's present image.
    fn image_is(&self, at: usize, behaviour: Option<&Behaviour>) {
        for engine in &self.engines {
            engine.set_image(&self.services[at].settings.spec.image, behaviour.cloned());
        }
    }

    /// Those that are created from now on do this, or (no more) what they should.
    fn containers_do(&self, at: usize, begins: bool, behaviour: &Behaviour) {
        let usual = Behaviour::runs();
        self.image_is(at, Some(if begins { behaviour } else { &usual }));
    }

    fn says(&mut self, at: usize, says: &Says) {
        let service = &self.services[at];
        let value = match says {
            Says::Value(containers) => Ok(Some(*containers)),
            Says::Unknown => Ok(None),
            Says::Wrong => Err("not a count".to_owned()),
        };
        let board = &self.boards[self.script.services[at].source];
        board.write(&service.settings.service.name, value);
        if let Says::Value(containers) = says {
            self.services[at].demand = *containers;
        }
    }

    fn excuse(&mut self, instance: usize) {
        let now_ms = self.now_ms();
        self.excused.entry(self.instances[instance].name.clone()).or_default().push(now_ms);
    }

    fn instances_of(&self, engine: usize) -> Vec<usize> {
        (0..self.homes.len()).filter(|&at| self.homes[at] == engine).collect()
    }

    /// Has the running controller, if there is one, take the settings as they are now.
    async fn update(&self) -> Result<(), String> {
        let Some((handle, _)) = &self.running else { return Ok(()) };
        handle
            .update(self.settings(), self.wiring.clone())
            .await
            .map_err(|error| format!("an update: {error}"))
    }

    async fn operator(&self, instance: usize, state: InstanceState) -> Result<(), String> {
        let Some((handle, _)) = &self.running else { return Ok(()) };
        let name = &self.instances[instance].name;
        match state {
            InstanceState::Ready => handle.uncordon(name).await,
            InstanceState::Cordoned => handle.cordon(name).await,
            InstanceState::Draining | InstanceState::Lost => handle.drain(name).await,
        }
        .map_err(|error| format!("a command: {error}"))
    }

    async fn step(&mut self, what: &What, begins: bool) -> Result<(), String> {
        self.is_alive()?;
        match *what {
            What::Demand { service, ref says } => self.says(service, says),
            What::SourceDown { source, .. } => {
                self.boards[source].set_down(begins.then_some("connection refused"));
            }
            What::SourceHangs { source, .. } => self.boards[source].set_hangs(begins),
            What::SourceRestarts { source } => self.boards[source].restart(),
            What::Outage { engine, how, .. } => {
                // What a stopped engine was asked is done late, on whatever is there by then.
                if how == Outage::Stopped && !begins {
                    self.instances_of(engine).into_iter().for_each(|at| self.excuse(at));
                }
                self.engines[engine].set_outage(begins.then_some(how));
            }
            What::EventsCut { engine, .. } => self.engines[engine].set_events_cut(begins),
            What::EventsLost { engine, per_mille, .. } => {
                self.engines[engine].set_event_loss_per_mille(if begins { per_mille } else { 0 });
            }
            What::EventsLate { engine, most_ms, .. } => {
                let usual_ms = self.script.engines[engine].event_delay_most_ms;
                self.engines[engine].set_event_delay_ms(0..=if begins { most_ms } else { usual_ms });
            }
            What::EventsBreak { engine, every_ms, .. } => {
                self.engines[engine].set_events_break_every_ms(begins.then_some(every_ms));
            }
            What::EventsRepeated { engine, times } => {
                for time in 0..times {
                    let event = if time % 2 == 0 { Event::Changed } else { Event::Gap };
                    self.engines[engine].repeat_event(event);
                }
            }
            What::Call { engine, call, ref kind, times } => {
                self.engines[engine].fault(Fault::new(kind.clone()).on(call).times(times));
            }
            What::Rates { engine, rates, .. } => {
                self.engines[engine].set_fault_rates(if begins { rates } else { FaultRates::default() });
            }
            What::Crashes { service, after_ms, .. } => {
                self.containers_do(service, begins, &Behaviour::exits(3, after_ms));
            }
            What::CannotStart { service, .. } => {
                self.containers_do(service, begins, &Behaviour::fails_to_start());
            }
            What::ImageGone { service, .. } => {
                self.image_is(service, (!begins).then_some(&Behaviour::runs()));
            }
            What::IgnoresStop { service, .. } => {
                self.containers_do(service, begins, &Behaviour::ignores_stop_signal());
            }
            What::ByHand { deed, nth } => self.by_hand(deed, nth),
            What::Foreign { engine } => {
                self.foreign += 1;
                self.engines[engine].place_foreign(format!("somebody-elses-{}", self.foreign));
            }
            What::EngineCapacity { instance, slots, .. } => {
                let slots = if begins { slots } else { self.drawn_slots(instance) };
                self.excuse(instance);
                let name = &self.instances[instance].name;
                self.engines[self.homes[instance]].set_capacity(name, self.script.capacity(slots));
            }
            What::ConfigCapacity { instance, slots } => {
                self.instances[instance].capacity = self.script.capacity(slots);
                self.update().await?;
            }
            What::EngineDrains { instance, .. } => {
                let availability =
                    if begins { InstanceAvailability::Draining } else { InstanceAvailability::Ready };
                self.availability(instance, availability);
            }
            What::EngineLoses { instance, .. } => {
                let lost = InstanceAvailability::Lost("its agent is gone".to_owned());
                self.availability(instance, if begins { lost } else { InstanceAvailability::Ready });
            }
            What::Operator { instance, state, .. } => {
                self.operator(instance, if begins { state } else { InstanceState::Ready }).await?;
            }
            What::Paused { service, .. } => {
                self.services[service].settings.service.paused = begins;
                self.update().await?;
            }
            What::Removed { service, .. } => {
                self.services[service].present = !begins;
                self.update().await?;
            }
            What::Rollout { service } => {
                self.generation_is(service, self.services[service].generation + 1);
                self.update().await?;
            }
            What::Priority { service, priority } => {
                self.services[service].settings.service.priority = priority;
                self.update().await?;
            }
            What::Bounds { service, min, max } => {
                let of = &mut self.services[service].settings.service;
                (of.min, of.max) = (min, max);
                self.update().await?;
            }
            What::Killed { clock_by_ms, .. } => {
                if begins {
                    self.kill().await?;
                } else if self.running.is_none() {
                    self.clock_by_ms += clock_by_ms;
                    self.start()?;
                }
            }
            What::EngineClock { engine, by_ms } => self.engines[engine].jump_clock_ms(by_ms),
        }
        Ok(())
    }

    fn drawn_slots(&self, instance: usize) -> u64 {
        let name = &self.instances[instance].name;
        let of_engine = &self.script.engines[self.homes[instance]].instances;
        of_engine.iter().find(|(drawn, _)| drawn == name).map_or(0, |&(_, slots)| slots)
    }

    fn availability(&self, instance: usize, availability: InstanceAvailability) {
        self.engines[self.homes[instance]].set_availability(&self.instances[instance].name, availability);
    }

    /// Does it to the `nth` of those to which it can be done, if there is one.
    fn by_hand(&self, deed: Deed, nth: usize) {
        let fits = |engine: usize, container: &SimContainerView| {
            container.subject.labels.is_some()
                // Where the engine can suspend nothing, nobody can.
                && (!matches!(deed, Deed::Pause) || self.script.engines[engine].freeze)
                && match deed {
                    Deed::Exit { .. } | Deed::Pause => container.phase == Phase::Running,
                    Deed::Remove => true,
                    Deed::Unpause => container.phase == Phase::Frozen,
                    Deed::Start => matches!(container.phase, Phase::Created | Phase::Exited),
                }
        };
        let all: Vec<(usize, SimContainerView)> = self
            .engines
            .iter()
            .enumerate()
            .flat_map(|(at, engine)| engine.containers().into_iter().map(move |container| (at, container)))
            .filter(|(at, container)| fits(*at, container))
            .collect();
        if all.is_empty() {
            return;
        }
        let (engine, container) = &all[nth % all.len()];
        let hand = self.engines[*engine].hand();
        match deed {
            Deed::Exit { code } => hand.exit(&container.id, code),
            Deed::Remove => hand.remove(&container.id),
            Deed::Pause => hand.pause(&container.id),
            Deed::Unpause => hand.unpause(&container.id),
            Deed::Start => hand.start(&container.id),
        }
    }

    /// Ends every fault; what was configured and demanded last holds.
    async fn heal(&mut self) -> Result<(), String> {
        self.is_alive()?;
        for board in &self.boards {
            board.set_down(None);
            board.set_hangs(false);
        }
        for at in 0..self.services.len() {
            self.says(at, &Says::Value(self.services[at].demand));
        }
        for engine in &self.engines {
            engine.clear_faults();
        }
        pass_ms(LINGERS_MS).await;
        Ok(())
    }

    fn wanted(&self) -> Vec<Wanted> {
        let services = self.services.iter().filter(|service| service.present);
        services
            .map(|service| Wanted {
                service: service.settings.service.clone(),
                demand: service.demand,
                generation: service.settings.spec.generation(),
            })
            .collect()
    }

    /// How many slots there are for us, by the engine or by configuration, whichever is less.
    fn slots(&self) -> Slots {
        let slots = |at: usize| {
            let Instance { name, capacity, .. } = &self.instances[at];
            (name.clone(), capacity.slots.min(self.drawn_slots(at)))
        };
        (0..self.instances.len()).map(slots).collect()
    }

    /// What is not as it should be in the end.
    fn fault(&self) -> Result<(), String> {
        self.is_alive()?;
        let wanted = self.wanted();
        judge::settled(&self.engines, &wanted, &self.slots())?;
        let (handle, _) = self.running.as_ref().ok_or("no controller runs")?;
        judge::view_agrees(&handle.view(), &wanted, &self.slots())
    }

    /// Waits until all is as it should be and nothing more is done. Says after how many milliseconds it was so.
    async fn settle(&self) -> Result<u64, String> {
        let began_ms = self.now_ms();
        let (mut quiet_since_ms, mut happenings) = (began_ms, self.happenings());
        loop {
            let (fault, now_ms) = (self.fault(), self.now_ms());
            if fault.is_err() || self.happenings() != happenings {
                (quiet_since_ms, happenings) = (now_ms, self.happenings());
            } else if now_ms - quiet_since_ms >= QUIET_MS {
                return Ok(quiet_since_ms - began_ms);
            }
            if quiet_since_ms - began_ms > SETTLES_WITHIN_MS {
                let fault = fault.err().unwrap_or_else(|| "more and more is done".to_owned());
                return Err(format!("not settled within {SETTLES_WITHIN_MS} ms: {fault}"));
            }
            pass_ms(LOOK_EVERY_MS).await;
        }
    }

    fn happenings(&self) -> usize {
        self.engines.iter().map(SimEngine::happenings).sum()
    }

    fn judge(&self) -> Result<Figures, String> {
        let mut actions = 0;
        for (engine, draw) in self.engines.iter().zip(&self.script.engines) {
            let history = engine.history();
            actions += history.entries().iter().filter(|entry| entry.by == Actor::Driver).count() as u64;
            let overlapping: Vec<&str> = self
                .script
                .services
                .iter()
                .filter(|draw| draw.service.overlap == Overlap::Swap)
                .map(|draw| draw.service.name.as_str())
                .collect();
            judge::history_is_sound(&history, &overlapping, &self.excused, &self.kills, draw.idempotent)?;
        }
        Ok(Figures {
            actions,
            happenings: self.happenings() as u64,
            virtual_ms: self.now_ms(),
            settled_after_ms: 0,
        })
    }

    /// What happened, line by line, and what the controller shows in the end.
    fn story(&self) -> String {
        let mut lines: Vec<(u64, String)> = Vec::new();
        for engine in &self.engines {
            for entry in engine.history().entries().iter().filter(|entry| entry.what != Happening::Created) {
                let words = format!(
                    "{:?} {} ({}) by {:?}",
                    entry.what, entry.subject.name, entry.container, entry.by
                );
                lines.push((entry.at_ms, words));
            }
        }
        lines.sort_by_key(|&(at_ms, _)| at_ms);
        let mut story = String::new();
        for (at_ms, words) in lines {
            let _ = writeln!(story, "{at_ms:>8} ms  {words}");
        }
        if let Some((handle, _)) = &self.running {
            story.push_str(&judge::in_words(&handle.view()));
            let all = controller::DecisionQuery { limit: 1_000, ..controller::DecisionQuery::default() };
            for decision in handle.decisions(&all).iter().rev() {
                let _ = writeln!(
                    story,
                    "decided {} {:?}",
                    decision.decided_at.0 % 1_000_000,
                    decision.woken_by.names()
                );
                for action in &decision.actions {
                    let _ =
                        writeln!(story, "    {} -> {:?} {:?}", action.words, action.outcome, action.took_ms);
                }
            }
        }
        story
    }
}
