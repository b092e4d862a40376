//! How long a plan takes and how much memory a state has, from 10 to 10,000 instances of 100 slots, full of containers.
//!
//! `scripts/bench plan [--json FILE] [INSTANCES...]`. Two in five containers are of a demanded service, the others of
//! one that fills. A full plan is made from a state at hand, whatever of it is kept; a single change is timed from
//! `State::apply` to the plan. Of many runs the fastest and the median are told, and the median of the time that the
//! processor spent on them: a plan waits for nothing, so on a quiet machine it is the same. On one that is not, it tells
//! what the plan costs, apart from the wait for a processor; the goals are held against it.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

use nix::time::ClockId;
use planner::{
    Container, ContainerKey, Delta, Instance, Millis, OnPreempt, Phase, Plan, Reading, Resources, Service,
    State, plan,
};

const NOW: Millis = Millis(1_000_000);
const SLOTS: u32 = 100;
/// Runs of one measurement go on for this long, and are no more than [`RUNS_MAX`], no fewer than [`RUNS_MIN`].
const TIME: Duration = Duration::from_millis(1_500);
const RUNS_MAX: usize = 1_000;
const RUNS_MIN: usize = 5;

/// What a full plan may take, by the number of instances.
const FULL_GOALS: [(u32, Duration); 2] =
    [(1_000, Duration::from_millis(10)), (10_000, Duration::from_millis(150))];
/// What a plan after a single change may take.
const CHANGE_GOALS: [(u32, Duration); 1] = [(1_000, Duration::from_micros(200))];
const BYTES_GOAL: u64 = 300;

/// One line of the table.
struct Line {
    what: &'static str,
    instances: u32,
    times: Times,
    goal: Option<Duration>,
}

/// Of all runs of one measurement.
#[derive(Clone, Copy)]
struct Times {
    runs: usize,
    /// By the clock.
    fastest: Duration,
    /// By the clock.
    median: Duration,
    /// The median of what the processor spent.
    spent: Duration,
}

/// The cluster and what it demands.
struct Cluster {
    state: State,
    demanded: u32,
}

impl Cluster {
    /// Every slot taken.
    fn full(instances: u32, on_preempt: OnPreempt) -> Self {
        let services = vec![Service::demand("web", 1), Service { on_preempt, ..Service::fill("batch", 2) }];
        let capacity = Resources::slots_only(u64::from(SLOTS));
        let hosts = (0..instances).map(|n| Instance::ready(format!("i{n:05}"), capacity)).collect();
        let mut state = State::new(services, hosts, Millis(0));
        let (web, batch) = (state.service_id("web").unwrap(), state.service_id("batch").unwrap());
        for instance in state.instance_ids() {
            for slot in 0..SLOTS {
                let service = if slot % 5 < 2 { web } else { batch };
                state.apply(Delta::Container(Container {
                    key: ContainerKey { instance, service, ordinal: slot },
                    phase: Phase::Running,
                    fault: None,
                    operation: None,
                    since: Millis(u64::from(slot * 7_919 % 1_000)),
                    outdated: false,
                }));
            }
        }
        let mut cluster = Self { state, demanded: instances * SLOTS * 2 / 5 };
        cluster.demand(cluster.demanded);
        cluster
    }

    fn demand(&mut self, containers: u32) {
        let service = self.state.service_id("web").unwrap();
        let reading = Reading::Known { containers, confirmed_at: NOW };
        self.state.apply(Delta::Demand { service, reading, at: NOW });
    }

    fn plan(&self) -> Plan {
        plan(&self.state, NOW)
    }

    fn plan_for(&mut self, demanded: u32) -> Plan {
        self.demand(demanded);
        self.plan()
    }
}

/// What the processor has spent on this thread.
fn spent() -> Duration {
    ClockId::CLOCK_THREAD_CPUTIME_ID.now().expect("Linux has the clock").into()
}

/// Times `run` again and again, each time on what `prepare` makes. What it hands back is dropped outside the time.
fn times<P, T>(mut prepare: impl FnMut() -> P, mut run: impl FnMut(&mut P) -> T) -> Times {
    let began = Instant::now();
    let (mut by_clock, mut by_processor) = (Vec::new(), Vec::new());
    while by_clock.len() < RUNS_MIN || by_clock.len() < RUNS_MAX && began.elapsed() < TIME {
        let mut on = prepare();
        let (spent_before, at) = (spent(), Instant::now());
        let made = black_box(run(&mut on));
        by_clock.push(at.elapsed());
        by_processor.push(spent().saturating_sub(spent_before));
        drop(made);
    }
    by_clock.sort_unstable();
    by_processor.sort_unstable();
    let runs = by_clock.len();
    Times { runs, fastest: by_clock[0], median: by_clock[runs / 2], spent: by_processor[runs / 2] }
}

/// Resident bytes of this process.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has /proc");
    let pages: u64 =
        statm.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("the second is a number");
    pages * 4_096
}

fn measure(instances: u32, lines: &mut Vec<Line>) -> u64 {
    let mut line = |what, goals: &[(u32, Duration)], times| {
        let goal = goals.iter().find(|goal| goal.0 == instances).map(|goal| goal.1);
        let line = Line { what, instances, times, goal };
        println!("{}", words(&line));
        lines.push(line);
    };
    let before = resident();
    let mut cluster = Cluster::full(instances, OnPreempt::Stop);
    let demanded = cluster.demanded;
    cluster.plan();
    let bytes = resident().saturating_sub(before) / u64::from(instances * SLOTS);

    line(
        "the first plan of a state",
        &FULL_GOALS,
        times(|| built_anew(&cluster.state), |state| plan(state, NOW)),
    );
    line("nothing to do", &FULL_GOALS, times(|| (), |()| cluster.plan()));
    line("half as many again", &FULL_GOALS, times(|| (), |()| cluster.plan_for(demanded * 3 / 2)));
    line("half as many", &FULL_GOALS, times(|| (), |()| cluster.plan_for(demanded / 2)));
    line("change: one more", &CHANGE_GOALS, times(|| (), |()| cluster.plan_for(demanded + 1)));
    line("change: one less", &CHANGE_GOALS, times(|| (), |()| cluster.plan_for(demanded - 1)));
    cluster.demand(demanded);
    let last = cluster.state.containers().last().unwrap().clone();
    let ends = |(): &mut ()| {
        cluster.state.apply(Delta::ContainerGone(last.key));
        let ended = cluster.plan();
        cluster.state.apply(Delta::Container(last.clone()));
        ended
    };
    line("change: one has ended", &CHANGE_GOALS, times(|| (), ends));
    drop(cluster);

    let mut cluster = Cluster::full(instances, OnPreempt::Freeze);
    cluster.plan();
    line("freezing: half as many again", &FULL_GOALS, times(|| (), |()| cluster.plan_for(demanded * 3 / 2)));
    line("freezing, change: one more", &CHANGE_GOALS, times(|| (), |()| cluster.plan_for(demanded + 1)));
    bytes
}

/// The same state, of which nothing is kept from any plan.
fn built_anew(state: &State) -> State {
    let mut anew = State::new(state.services().to_vec(), state.instances().to_vec(), state.fill_hold_until());
    for container in state.containers() {
        anew.apply(Delta::Container(container.clone()));
    }
    for service in state.service_ids() {
        if let Some(containers) = state.demand(service, NOW).containers {
            let reading = Reading::Known { containers, confirmed_at: NOW };
            anew.apply(Delta::Demand { service, reading, at: NOW });
        }
    }
    anew
}

fn outcome(line: &Line) -> &'static str {
    match line.goal {
        None => "",
        Some(goal) if line.times.spent <= goal => "met",
        Some(_) => "missed",
    }
}

fn words(line: &Line) -> String {
    let containers = line.instances * SLOTS;
    let goal = line.goal.map_or(String::new(), |goal| format!("{goal:?}"));
    let [fastest, median, spent] =
        [line.times.fastest, line.times.median, line.times.spent].map(|time| format!("{time:.1?}"));
    let (what, outcome, runs) = (line.what, outcome(line), line.times.runs);
    format!(
        "{containers:>9}  {what:<28}  {fastest:>9}  {median:>9}  {spent:>9}  {goal:>6}  {outcome:<6}  {runs:>5}"
    )
}

fn json(lines: &[Line], bytes: &[(u32, u64)]) -> String {
    let mut text = "{\"plans\": [".to_owned();
    for (at, line) in lines.iter().enumerate() {
        let goal = line.goal.map_or("null".to_owned(), |goal| goal.as_nanos().to_string());
        let met = line.goal.map_or("null".to_owned(), |goal| (line.times.spent <= goal).to_string());
        let Times { runs, fastest, median, spent } = line.times;
        write!(
            text,
            "{}\n  {{\"what\": \"{}\", \"containers\": {}, \"runs\": {runs}, \"fastest_ns\": {}, \"median_ns\": {}, \"processor_ns\": {}, \"goal_ns\": {goal}, \"met\": {met}}}",
            if at == 0 { "" } else { "," },
            line.what,
            line.instances * SLOTS,
            fastest.as_nanos(),
            median.as_nanos(),
            spent.as_nanos(),
        )
        .expect("a string takes all");
    }
    text.push_str("\n], \"bytes_a_container\": {");
    let each: Vec<String> = bytes.iter().map(|(n, bytes)| format!("\"{}\": {bytes}", n * SLOTS)).collect();
    text.push_str(&each.join(", "));
    text.push_str("}}\n");
    text
}

fn main() {
    // Cargo adds `--bench`.
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut sizes, mut file) = (Vec::new(), None);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--json" => file = Some(arguments.next().expect("--json takes a file")),
            size => sizes.push(size.parse().expect("a number of instances")),
        }
    }
    if sizes.is_empty() {
        sizes = vec![10, 100, 1_000, 10_000];
    }
    println!(
        "{:>9}  {:<28}  {:>9}  {:>9}  {:>9}  {:>6}  {:<6}  {:>5}",
        "of", "a plan", "fastest", "median", "processor", "goal", "", "runs"
    );
    let mut lines = Vec::new();
    // The largest first: what the allocator keeps of a smaller one would hide what it takes.
    sizes.sort_unstable_by(|a: &u32, b| b.cmp(a));
    let bytes: Vec<(u32, u64)> =
        sizes.iter().map(|&instances| (instances, measure(instances, &mut lines))).collect();
    if let Some(&(instances, bytes)) = bytes.first() {
        let outcome = if bytes <= BYTES_GOAL { "met" } else { "missed" };
        println!(
            "{:>9}  bytes a container, with all that is kept: {bytes}; goal {BYTES_GOAL}, {outcome}",
            instances * SLOTS
        );
    }
    if let Some(file) = file {
        std::fs::write(&file, json(&lines, &bytes)).expect("the file can be written");
    }
}
