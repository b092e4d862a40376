//! How long a plan takes, from 10 to 10,000 instances of 100 slots, full of containers.
//!
//! `cargo bench -p planner`. A full plan is made from a state that is at hand; a single change is a rise in
//! demand by one, from `State::apply` to the plan.

use planner::{
    Container, ContainerKey, Delta, Instance, Millis, Phase, Reading, Resources, Service, State, plan,
};

fn main() {
    divan::main();
}

const NOW: Millis = Millis(1_000_000);
const SLOTS: u32 = 100;

/// Every slot taken: two in five by the demanded service, the rest by fill.
fn full(instances: u32) -> State {
    let services = vec![Service::demand("web", 1), Service::fill("batch", 2)];
    let hosts = (0..instances)
        .map(|n| Instance::ready(format!("i{n:05}"), Resources::slots_only(u64::from(SLOTS))))
        .collect();
    let mut state = State::new(services, hosts, Millis(0));
    let (web, batch) = (state.service_id("web").unwrap(), state.service_id("batch").unwrap());
    for instance in state.instance_ids() {
        for slot in 0..SLOTS {
            let service = if slot % 5 < 2 { web } else { batch };
            let key = ContainerKey { instance, service, ordinal: slot };
            let since = Millis(u64::from(slot));
            let container = Container {
                key,
                phase: Phase::Running,
                fault: None,
                operation: None,
                since,
                outdated: false,
            };
            state.apply(Delta::Container(container));
        }
    }
    demand(&mut state, instances * SLOTS * 2 / 5);
    state
}

fn demand(state: &mut State, containers: u32) {
    let service = state.service_id("web").unwrap();
    state.apply(Delta::Demand {
        service,
        reading: Reading::Known { containers, confirmed_at: NOW },
        at: NOW,
    });
}

#[divan::bench(args = [10, 100, 1_000, 10_000], sample_count = 10)]
fn nothing_to_do(bencher: divan::Bencher<'_, '_>, instances: u32) {
    let state = full(instances);
    bencher.bench(|| plan(&state, NOW));
}

#[divan::bench(args = [10, 100, 1_000, 10_000], sample_count = 10)]
fn one_more(bencher: divan::Bencher<'_, '_>, instances: u32) {
    let mut state = full(instances);
    let before = instances * SLOTS * 2 / 5;
    bencher.bench_local(|| {
        demand(&mut state, before + 1);
        plan(&state, NOW)
    });
}

#[divan::bench(args = [10, 100, 1_000, 10_000], sample_count = 3)]
fn half_as_many_again(bencher: divan::Bencher<'_, '_>, instances: u32) {
    let mut state = full(instances);
    demand(&mut state, instances * SLOTS * 3 / 5);
    bencher.bench(|| plan(&state, NOW));
}
