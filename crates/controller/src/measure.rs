//! The controller's metrics: what each means, and those that are read off a view.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use planner::{Freshness, InstanceState, Phase};

use crate::cluster::Work;
use crate::turns::Places;
use crate::view::{ServiceView, View};

/// Tells the recorder what each metric of the controller means. Call it once, when the recorder is installed.
pub fn describe_metrics() {
    use metrics::{describe_counter, describe_gauge, describe_histogram};

    describe_gauge!("force12_success", "1 while everything that is wanted runs, otherwise 0.");
    describe_counter!("force12_success_seconds_total", "Seconds with and without success, by `success`.");
    describe_gauge!("force12_containers", "Containers by service and phase, those of lost instances aside.");
    describe_gauge!("force12_containers_unmet", "Containers of a service's target that cannot be run.");
    describe_gauge!("force12_demand", "The demand of a service, in containers; NaN while it is unknown.");
    describe_gauge!(
        "force12_demand_freshness",
        "1 at the freshness that a service's demand has, otherwise 0."
    );
    describe_gauge!("force12_instances", "Instances by state.");
    describe_counter!("force12_demand_polls_total", "Questions to a demand source, by their outcome.");
    describe_histogram!(
        "force12_reaction_seconds",
        "From learning of a rise in demand to the report that its last container runs; `preempting` if other work \
         had to make room."
    );
    describe_histogram!("force12_loop_lag_seconds", "From whatever wakes the control loop to its pass.");
    describe_histogram!("force12_plan_seconds", "What one planning takes.");
    describe_counter!("force12_engine_calls_total", "Calls to an engine that have ended, by their outcome.");
    describe_histogram!(
        "force12_engine_call_seconds",
        "What calls to an engine take, with the wait for the room that a start needs."
    );
    describe_counter!(
        "force12_work_lost_seconds_total",
        "Seconds that fill containers had worked when they were stopped or killed."
    );
    describe_counter!(
        "force12_work_kept_seconds_total",
        "Seconds that fill containers had worked when they were frozen to make room: what a stop would have lost."
    );
    describe_gauge!("force12_engine_calls_under_way", "Calls that change something and keep an engine busy.");
    describe_gauge!("force12_engine_calls_waiting", "Actions that wait for their turn at an engine.");
    describe_gauge!(
        "force12_engine_calls_limit",
        "How many calls an engine is given at once, as learnt from what starts take there."
    );
}

/// A call to an engine has ended.
pub(crate) fn engine_call(engine: &str, call: &'static str, outcome: &'static str, took: Duration) {
    metrics::counter!("force12_engine_calls_total",
        "engine" => engine.to_owned(), "call" => call, "outcome" => outcome)
    .increment(1);
    metrics::histogram!("force12_engine_call_seconds", "engine" => engine.to_owned(), "call" => call)
        .record(took.as_secs_f64());
}

/// So much work of a service has been lost or kept since the controller's start.
pub(crate) fn work(service: &str, work: Work, total_ms: u64) {
    let name = match work {
        Work::Lost => "force12_work_lost_seconds_total",
        Work::Kept => "force12_work_kept_seconds_total",
    };
    // A counter counts whole seconds; the rest is not lost.
    metrics::counter!(name, "service" => service.to_owned()).absolute(total_ms / 1_000);
}

/// Sets an engine's gauges, where they are not as before.
pub(crate) fn engine_places(engine: &str, before: Places, now: Places) {
    let set = |name: &'static str, before: u32, now: u32| {
        if before != now {
            metrics::gauge!(name, "engine" => engine.to_owned()).set(now);
        }
    };
    set("force12_engine_calls_under_way", before.taken, now.taken);
    set("force12_engine_calls_waiting", before.waiting, now.waiting);
    set("force12_engine_calls_limit", before.limit, now.limit);
}

/// Sets the gauges to what a view says. What only the view before it had is set to nothing: a metric that has once
/// been set cannot be taken back.
pub(crate) fn measure(view: &View, before: &View) {
    metrics::gauge!("force12_success").set(if view.success { 1.0 } else { 0.0 });
    let mut phases: BTreeMap<&str, BTreeMap<&str, u32>> = BTreeMap::new();
    for instance in view.instances.iter().filter(|instance| instance.state != InstanceState::Lost) {
        for container in &instance.containers {
            let service = phases.entry(&*container.service).or_default();
            *service.entry(phase_word(container.phase)).or_default() += 1;
        }
    }
    let services: BTreeMap<&str, &ServiceView> =
        view.services.iter().map(|service| (&*service.name, service)).collect();
    let names: BTreeSet<&str> =
        before.services.iter().chain(&view.services).map(|service| &*service.name).collect();
    for name in names {
        let service = services.get(name).copied();
        for phase in
            [Phase::Created, Phase::Starting, Phase::Running, Phase::Frozen, Phase::Stopping, Phase::Exited]
        {
            let word = phase_word(phase);
            let count = phases.get(name).and_then(|phases| phases.get(word)).copied().unwrap_or_default();
            metrics::gauge!("force12_containers", "service" => name.to_owned(), "phase" => word).set(count);
        }
        let unmet = service.map_or(0, |service| service.unmet);
        metrics::gauge!("force12_containers_unmet", "service" => name.to_owned()).set(unmet);
        let freshness = service.and_then(|service| service.freshness);
        let had_demand =
            before.services.iter().any(|service| &*service.name == name && service.freshness.is_some());
        if freshness.is_none() && !had_demand {
            continue;
        }
        let demand = service.and_then(|service| service.demand).map_or(f64::NAN, f64::from);
        metrics::gauge!("force12_demand", "service" => name.to_owned()).set(demand);
        for (word, is) in
            [("fresh", Freshness::Fresh), ("stale", Freshness::Stale), ("unknown", Freshness::Unknown)]
        {
            let value = if Some(is) == freshness { 1.0 } else { 0.0 };
            metrics::gauge!("force12_demand_freshness", "service" => name.to_owned(), "freshness" => word)
                .set(value);
        }
    }
    for state in [InstanceState::Ready, InstanceState::Cordoned, InstanceState::Draining, InstanceState::Lost]
    {
        let count = view.instances.iter().filter(|instance| instance.state == state).count();
        let word = match state {
            InstanceState::Ready => "ready",
            InstanceState::Cordoned => "cordoned",
            InstanceState::Draining => "draining",
            InstanceState::Lost => "lost",
        };
        metrics::gauge!("force12_instances", "state" => word).set(u32::try_from(count).unwrap_or(u32::MAX));
    }
}

const fn phase_word(phase: Phase) -> &'static str {
    match phase {
        Phase::Created => "created",
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Frozen => "frozen",
        Phase::Stopping => "stopping",
        Phase::Exited => "exited",
    }
}
