//! What happens in one history, drawn from its seed: a cluster, and the steps that are played on it.
//!
//! A script is plain data, so that it can be printed, played again, and played with steps left out.

use controller::ServiceSettings;
use driver_testkit::sim::{Call, FaultKind, FaultRates, Outage};
use planner::{InstanceState, OnPreempt, OnStale, Overlap, Placement, Resources, Service};
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use crate::support::demanded;

/// Steps are played within this many milliseconds from the start.
const PLAYED_WITHIN_MS: u64 = 40_000;

/// What each container takes where memory is tight.
const MEMORY_MIB: u64 = 100;

/// Demand sources; each service follows one of them.
pub const SOURCES: usize = 2;

/// A whole history before it is played.
#[derive(Clone, Debug)]
pub struct Script {
    pub seed: u64,
    /// Instances have memory for few more than run there.
    pub tight_memory: bool,
    /// It begins when engines without idempotent starts have settled.
    pub begins_settled: bool,
    pub engines: Vec<EngineDraw>,
    pub services: Vec<ServiceDraw>,
    /// In the order of time.
    pub steps: Vec<Step>,
}

#[derive(Clone, Debug)]
pub struct EngineDraw {
    /// Names and slots.
    pub instances: Vec<(String, u64)>,
    /// Starting twice is "already so" (Docker), or makes two (ECS).
    pub idempotent: bool,
    pub freeze: bool,
    pub observe_most_ms: u64,
    pub event_delay_most_ms: u64,
    /// What happens shows so much later at most in what is observed (ECS).
    pub lists_late_most_ms: u64,
}

#[derive(Clone, Debug)]
pub struct ServiceDraw {
    pub service: Service,
    /// Which source it follows.
    pub source: usize,
    /// What the source says of it at first.
    pub demand: u32,
}

/// Something that happens at a moment.
#[derive(Clone, Debug)]
pub struct Step {
    /// Milliseconds from the first start of the controller.
    pub at_ms: u64,
    /// What happens. Where it has a `for_ms`, it is undone after so many milliseconds.
    pub what: What,
}

/// What a source says of one key.
#[derive(Clone, Debug)]
pub enum Says {
    Value(u32),
    Unknown,
    Wrong,
}

/// What somebody does to a container behind the controller's back.
#[derive(Clone, Copy, Debug)]
pub enum Deed {
    Exit { code: i64 },
    Remove,
    Pause,
    Unpause,
    Start,
}

#[derive(Clone, Debug)]
pub enum What {
    Demand {
        service: usize,
        says: Says,
    },
    SourceDown {
        source: usize,
        for_ms: u64,
    },
    SourceHangs {
        source: usize,
        for_ms: u64,
    },
    SourceRestarts {
        source: usize,
    },
    Outage {
        engine: usize,
        how: Outage,
        for_ms: u64,
    },
    EventsCut {
        engine: usize,
        for_ms: u64,
    },
    EventsLost {
        engine: usize,
        per_mille: u32,
        for_ms: u64,
    },
    EventsLate {
        engine: usize,
        most_ms: u64,
        for_ms: u64,
    },
    EventsRepeated {
        engine: usize,
        times: u32,
    },
    /// The stream ends again and again, soon after it is established.
    EventsBreak {
        engine: usize,
        every_ms: u64,
        for_ms: u64,
    },
    Call {
        engine: usize,
        call: Call,
        kind: FaultKind,
        times: u32,
    },
    Rates {
        engine: usize,
        rates: FaultRates,
        for_ms: u64,
    },
    Crashes {
        service: usize,
        after_ms: u64,
        for_ms: u64,
    },
    CannotStart {
        service: usize,
        for_ms: u64,
    },
    ImageGone {
        service: usize,
        for_ms: u64,
    },
    IgnoresStop {
        service: usize,
        for_ms: u64,
    },
    ByHand {
        deed: Deed,
        nth: usize,
    },
    Foreign {
        engine: usize,
    },
    EngineCapacity {
        instance: usize,
        slots: u64,
        for_ms: u64,
    },
    ConfigCapacity {
        instance: usize,
        slots: u64,
    },
    EngineDrains {
        instance: usize,
        for_ms: u64,
    },
    EngineLoses {
        instance: usize,
        for_ms: u64,
    },
    Operator {
        instance: usize,
        state: InstanceState,
        for_ms: u64,
    },
    Paused {
        service: usize,
        for_ms: u64,
    },
    Removed {
        service: usize,
        for_ms: u64,
    },
    Rollout {
        service: usize,
    },
    Priority {
        service: usize,
        priority: u32,
    },
    Bounds {
        service: usize,
        min: u32,
        max: u32,
    },
    /// The controller is killed, and started again after a while; the time of day has jumped meanwhile.
    Killed {
        down_ms: u64,
        clock_by_ms: i64,
    },
    EngineClock {
        engine: usize,
        by_ms: i64,
    },
}

impl What {
    /// For the figures.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Demand { says: Says::Value(_), .. } => "demand changes",
            Self::Demand { says: Says::Unknown, .. } => "demand unknown",
            Self::Demand { says: Says::Wrong, .. } => "demand wrong",
            Self::SourceDown { .. } => "source down",
            Self::SourceHangs { .. } => "source hangs",
            Self::SourceRestarts { .. } => "source restarts",
            Self::Outage { how: Outage::Refusing, .. } => "engine refuses",
            Self::Outage { how: Outage::Silent, .. } => "engine unreachable",
            Self::Outage { how: Outage::Stopped, .. } => "engine stopped",
            Self::EventsCut { .. } => "events cut",
            Self::EventsLost { per_mille: 1_000, .. } => "events silent",
            Self::EventsLost { .. } => "events lost",
            Self::EventsLate { .. } => "events late, out of order",
            Self::EventsRepeated { .. } => "events repeated",
            Self::EventsBreak { .. } => "events break again and again",
            Self::Call { kind: FaultKind::Refused, .. } => "call refused",
            Self::Call { kind: FaultKind::Rejected { .. }, .. } => "call rejected",
            Self::Call { kind: FaultKind::AnswerLost, .. } => "call done, answer lost",
            Self::Call { kind: FaultKind::Hang, .. } => "call never done",
            Self::Call { kind: FaultKind::Slow { .. }, .. } => "call slow",
            Self::Rates { .. } => "calls fail at random",
            Self::Crashes { .. } => "crash loop",
            Self::CannotStart { .. } => "cannot start",
            Self::ImageGone { .. } => "image gone",
            Self::IgnoresStop { .. } => "stop signal ignored",
            Self::ByHand { deed: Deed::Exit { .. }, .. } => "container exits",
            Self::ByHand { deed: Deed::Remove, .. } => "removed by hand",
            Self::ByHand { deed: Deed::Pause, .. } => "paused by hand",
            Self::ByHand { deed: Deed::Unpause, .. } => "resumed by hand",
            Self::ByHand { deed: Deed::Start, .. } => "started by hand",
            Self::Foreign { .. } => "foreign container",
            Self::EngineCapacity { .. } => "capacity, by the engine",
            Self::ConfigCapacity { .. } => "capacity, by configuration",
            Self::EngineDrains { .. } => "drained by the engine",
            Self::EngineLoses { .. } => "lost, says the engine",
            Self::Operator { state: InstanceState::Draining, .. } => "drained by the operator",
            Self::Operator { .. } => "cordoned by the operator",
            Self::Paused { .. } => "service paused",
            Self::Removed { .. } => "service removed, added",
            Self::Rollout { .. } => "rollout",
            Self::Priority { .. } => "priority changed",
            Self::Bounds { .. } => "min, max changed",
            Self::Killed { .. } => "controller killed",
            Self::EngineClock { .. } => "engine's clock jumps",
        }
    }

    /// After how many milliseconds it is undone, if it is.
    pub const fn for_ms(&self) -> Option<u64> {
        match *self {
            Self::SourceDown { for_ms, .. }
            | Self::SourceHangs { for_ms, .. }
            | Self::Outage { for_ms, .. }
            | Self::EventsCut { for_ms, .. }
            | Self::EventsLost { for_ms, .. }
            | Self::EventsLate { for_ms, .. }
            | Self::EventsBreak { for_ms, .. }
            | Self::Rates { for_ms, .. }
            | Self::Crashes { for_ms, .. }
            | Self::CannotStart { for_ms, .. }
            | Self::ImageGone { for_ms, .. }
            | Self::IgnoresStop { for_ms, .. }
            | Self::EngineCapacity { for_ms, .. }
            | Self::EngineDrains { for_ms, .. }
            | Self::EngineLoses { for_ms, .. }
            | Self::Operator { for_ms, .. }
            | Self::Paused { for_ms, .. }
            | Self::Removed { for_ms, .. } => Some(for_ms),
            Self::Killed { down_ms, .. } => Some(down_ms),
            _ => None,
        }
    }
}

impl Script {
    pub fn draw(seed: u64) -> Self {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        let engines = engines(&mut dice);
        let slots: u64 = engines.iter().flat_map(|engine| &engine.instances).map(|(_, slots)| slots).sum();
        let mut services = services(&mut dice, u32::try_from(slots).expect("a few"));
        let tight_memory = seed % 3 == 1;
        if tight_memory {
            for draw in &mut services {
                draw.service.request.memory_mib = MEMORY_MIB;
            }
        }
        let begins_settled = seed.is_multiple_of(2);
        let mut script = Self { seed, tight_memory, begins_settled, engines, services, steps: Vec::new() };
        let within_ms = PLAYED_WITHIN_MS / dice.random_range(1..=4);
        let count = dice.random_range(3..=24);
        let mut moments: Vec<u64> = Vec::with_capacity(count);
        for _ in 0..count {
            // Often close upon one another: that is where things meet.
            let near = moments
                .last()
                .filter(|_| dice.random_bool(0.4))
                .map(|&last| last + dice.random_range(0..=150));
            moments.push(near.unwrap_or_else(|| dice.random_range(0..=within_ms)));
        }
        moments.sort_unstable();
        script.steps =
            moments.into_iter().map(|at_ms| Step { at_ms, what: script.what(&mut dice) }).collect();
        script
    }

    /// How much memory may be in frozen containers on each instance.
    pub fn frozen_memory_mib(&self) -> u64 {
        let standbys =
            self.services.iter().filter(|draw| draw.service.standby_per_instance > 0).count() as u64;
        if self.tight_memory { (standbys + 1) * MEMORY_MIB } else { Resources::UNLIMITED }
    }

    /// What an instance of so many slots has: memory for as many containers, and for those that are frozen.
    pub fn capacity(&self, slots: u64) -> Resources {
        let memory_mib = self.frozen_memory_mib().saturating_add(slots * MEMORY_MIB);
        Resources { memory_mib, ..Resources::slots_only(slots) }
    }

    pub fn instances(&self) -> usize {
        self.engines.iter().map(|engine| engine.instances.len()).sum()
    }

    fn what(&self, dice: &mut ChaCha8Rng) -> What {
        let engine = dice.random_range(0..self.engines.len());
        let instance = dice.random_range(0..self.instances());
        let service = dice.random_range(0..self.services.len());
        let source = dice.random_range(0..SOURCES);
        let for_ms = lasting(dice);
        match dice.random_range(0..100) {
            0..25 => What::Demand { service, says: Says::Value(dice.random_range(0..=12)) },
            25..27 => What::Demand { service, says: Says::Unknown },
            27..28 => What::Demand { service, says: Says::Wrong },
            28..30 => What::SourceDown { source, for_ms: lasting(dice) },
            30..31 => What::SourceHangs { source, for_ms },
            31..33 => What::SourceRestarts { source },
            33..38 => {
                let how = *[Outage::Refusing, Outage::Silent, Outage::Stopped].choose(dice).expect("three");
                What::Outage { engine, how, for_ms }
            }
            38..40 => What::EventsCut { engine, for_ms },
            40..42 => {
                // One draw for both, here and below: the histories of known seeds stay what they are.
                let drawn = dice.random_range(100..=1_000);
                What::EventsLost { engine, per_mille: if drawn < 500 { 1_000 } else { drawn }, for_ms }
            }
            42..43 => What::EventsLate { engine, most_ms: dice.random_range(10..=3_000), for_ms },
            43..44 => match dice.random_range(1..=20) {
                times @ 1..=10 => What::EventsRepeated { engine, times },
                drawn => What::EventsBreak { engine, every_ms: u64::from(drawn - 10).pow(3) * 2, for_ms },
            },
            44..56 => {
                let calls = [
                    Call::Observe,
                    Call::Prepare,
                    Call::Create,
                    Call::Start,
                    Call::Stop,
                    Call::Freeze,
                    Call::Thaw,
                    Call::Remove,
                ];
                let call = *calls.choose(dice).expect("eight");
                let kind = match dice.random_range(0..5) {
                    0 => FaultKind::Refused,
                    1 => FaultKind::Rejected {
                        code: if dice.random_bool(0.5) { "engine" } else { "conflict" },
                    },
                    2 => FaultKind::AnswerLost,
                    3 => FaultKind::Hang,
                    _ => FaultKind::Slow { extra_ms: dice.random_range(10..=9_000) },
                };
                What::Call { engine, call, kind, times: dice.random_range(1..=4) }
            }
            56..58 => {
                let rates = FaultRates {
                    refused_per_mille: dice.random_range(0..=100),
                    answer_lost_per_mille: dice.random_range(0..=100),
                    hang_per_mille: dice.random_range(0..=30),
                    slow_per_mille: dice.random_range(0..=100),
                    slow_extra_ms: dice.random_range(100..=5_000),
                };
                What::Rates { engine, rates, for_ms }
            }
            58..60 => What::Crashes { service, after_ms: dice.random_range(0..=2_000), for_ms },
            60..61 => What::CannotStart { service, for_ms },
            61..62 => What::ImageGone { service, for_ms },
            62..63 => What::IgnoresStop { service, for_ms },
            63..69 => {
                let deed = match dice.random_range(0..8) {
                    0..2 => Deed::Exit { code: *[0, 1, 137].choose(dice).expect("three") },
                    2..4 => Deed::Remove,
                    4..6 => Deed::Pause,
                    6 => Deed::Unpause,
                    _ => Deed::Start,
                };
                What::ByHand { deed, nth: dice.random_range(0..100) }
            }
            69..70 => What::Foreign { engine },
            70..72 => What::EngineCapacity { instance, slots: dice.random_range(0..=6), for_ms },
            72..74 => What::ConfigCapacity { instance, slots: dice.random_range(1..=5) },
            74..75 => What::EngineDrains { instance, for_ms },
            75..76 => What::EngineLoses { instance, for_ms },
            76..79 => {
                let state =
                    if dice.random_bool(0.5) { InstanceState::Cordoned } else { InstanceState::Draining };
                What::Operator { instance, state, for_ms }
            }
            79..81 => What::Paused { service, for_ms },
            81..83 => What::Removed { service, for_ms },
            83..87 => What::Rollout { service },
            87..89 => What::Priority { service, priority: dice.random_range(1..=4) },
            89..91 => {
                let min = dice.random_range(0..=2);
                What::Bounds { service, min, max: min + dice.random_range(0..=8) }
            }
            91..99 => What::Killed { down_ms: dice.random_range(0..=3_000), clock_by_ms: jump(dice) },
            _ => What::EngineClock { engine, by_ms: jump(dice) },
        }
    }
}

/// Milliseconds for which something lasts: mostly short, sometimes longer than every limit.
fn lasting(dice: &mut ChaCha8Rng) -> u64 {
    match dice.random_range(0..4) {
        0 => dice.random_range(1..=300),
        1..3 => dice.random_range(300..=5_000),
        _ => dice.random_range(5_000..=30_000),
    }
}

/// By how many milliseconds a time of day jumps; mostly by none.
fn jump(dice: &mut ChaCha8Rng) -> i64 {
    match dice.random_range(0..4) {
        0 => dice.random_range(-86_400_000..=86_400_000),
        1 => dice.random_range(-2_000..=2_000),
        _ => 0,
    }
}

fn engines(dice: &mut ChaCha8Rng) -> Vec<EngineDraw> {
    let count: u64 = dice.random_range(1..=4);
    let instances = dice.random_range(count..=6);
    let mut engines: Vec<EngineDraw> = (0..count)
        .map(|_| {
            let slow = dice.random_bool(0.3);
            EngineDraw {
                instances: Vec::new(),
                idempotent: dice.random_bool(0.7),
                freeze: dice.random_bool(0.7),
                observe_most_ms: if slow { 200 } else { 6 },
                event_delay_most_ms: if slow { 200 } else { 1 },
                lists_late_most_ms: 0,
            }
        })
        .collect();
    for number in 0..instances {
        let engine = if number < count { number } else { dice.random_range(0..count) };
        let slots = dice.random_range(1..=5);
        engines[usize::try_from(engine).expect("a few")]
            .instances
            .push((format!("instance-{number}"), slots));
    }
    for engine in engines.iter_mut().filter(|engine| !engine.idempotent) {
        // Not drawn, so that scripts are what they were.
        engine.lists_late_most_ms = [0, 300, 800][engine.instances.len() % 3];
    }
    engines
}

fn services(dice: &mut ChaCha8Rng, slots: u32) -> Vec<ServiceDraw> {
    let count = dice.random_range(1..=5);
    (0..count)
        .map(|number| {
            let name = format!("service-{number}");
            let priority = dice.random_range(1..=4);
            let fill = dice.random_bool(if number == 0 { 0.1 } else { 0.4 });
            let mut service =
                if fill { Service::fill(name, priority) } else { Service::demand(name, priority) };
            service.weight = *[1, 1, 1, 2, 5].choose(dice).expect("five");
            // Drawn with the weight, so that scripts are what they were.
            service.overlap = if service.weight == 1 { Overlap::Never } else { Overlap::Swap };
            if dice.random_bool(0.2) {
                service.max = dice.random_range(1..=slots.max(1));
            }
            if !fill && dice.random_bool(0.2) {
                service.min = dice.random_range(0..=2.min(service.max));
            }
            if dice.random_bool(0.3) {
                service.min_runtime_ms = dice.random_range(0..=5_000);
            }
            if dice.random_bool(0.3) {
                service.on_preempt = OnPreempt::Freeze;
            }
            if !fill && dice.random_bool(0.15) {
                service.standby_per_instance = 1;
            }
            if dice.random_bool(0.3) {
                service.placement = Placement::BinPack;
            }
            if !fill && dice.random_bool(0.2) {
                service.scale_down_after_ms = dice.random_range(0..=3_000);
            }
            if !fill && dice.random_bool(0.3) {
                service.stale_after_ms = 5_000;
                service.on_stale = OnStale::Fallback {
                    containers: dice.random_range(0..=3),
                    after_ms: dice.random_range(0..=5_000),
                };
            }
            ServiceDraw {
                service,
                source: dice.random_range(0..SOURCES),
                demand: dice.random_range(0..=slots),
            }
        })
        .collect()
}

impl ServiceDraw {
    /// As it is configured, before anything has changed.
    pub fn settings(&self) -> ServiceSettings {
        let mut settings = ServiceSettings { freeze_or_stop: true, ..demanded(self.service.clone()) };
        match &mut settings.demand {
            _ if self.service.kind == planner::ServiceKind::Fill => settings.demand = None,
            Some(demand) => demand.source = source_name(self.source),
            None => {}
        }
        settings
    }
}

pub fn source_name(source: usize) -> String {
    format!("source-{source}")
}
