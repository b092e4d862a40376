//! What a state keeps from one plan to the next shows in no plan.
//!
//! Random changes are applied to a state that is planned from after each, and the same plan is expected of one that is
//! built anew from what the first holds. An instance of which too much is remembered shows here. (That the shortcuts of
//! the plan itself come to what the long way comes to is asserted where they are taken, in every build with debug
//! assertions.)

use planner::{
    Backoff, Container, ContainerKey, Delta, Fault, Instance, InstanceId, InstanceState, Millis, OnPreempt,
    Operation, Phase, Placement, Reading, Resources, Service, ServiceId, State, plan, success,
};
use proptest::prelude::*;
use proptest::sample::select;

const NOW: Millis = Millis(1_000_000);
const SERVICES: u32 = 4;
const INSTANCES: u32 = 3;

fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(1_000);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

fn service() -> impl Strategy<Value = Service> {
    let sizes = (prop_oneof![3 => Just(1_u64), 1 => 1_u64..=3], 0_u64..=1);
    let bounds = (prop_oneof![Just(u32::MAX), 1_u32..=30], 0_u32..=2, prop::bool::weighted(0.2));
    let times = (select(vec![0_u64, 500]), select(vec![0_u64, 500]));
    (1_u32..=3, any::<bool>(), any::<bool>(), prop::bool::weighted(0.3), sizes, bounds, times).prop_map(
        |(
            priority,
            fills,
            packs,
            freezes,
            (slots, memory_mib),
            (max, min, standby),
            (young_ms, trial_ms),
        )| {
            let service = if fills { Service::fill("", priority) } else { Service::demand("", priority) };
            Service {
                request: Resources { slots, cpu_millis: 0, memory_mib },
                max,
                min: min.min(max),
                placement: if packs { Placement::BinPack } else { Placement::Spread },
                on_preempt: if freezes { OnPreempt::Freeze } else { OnPreempt::Stop },
                standby_per_instance: u32::from(standby && !fills),
                min_runtime_ms: young_ms,
                proven_after_ms: trial_ms,
                ..service
            }
        },
    )
}

fn instance() -> impl Strategy<Value = Instance> {
    (4_u64..=20, prop_oneof![Just(Resources::UNLIMITED), 2_u64..=20]).prop_map(|(slots, memory_mib)| {
        let capacity = Resources { slots, cpu_millis: Resources::UNLIMITED, memory_mib };
        Instance { frozen_max: 3, ..Instance::ready("", capacity) }
    })
}

fn key() -> impl Strategy<Value = ContainerKey> {
    (0..INSTANCES, 0..SERVICES, 0_u32..10).prop_map(|(instance, service, ordinal)| ContainerKey {
        instance: InstanceId(instance),
        service: ServiceId(service),
        ordinal,
    })
}

/// Most run, and nobody has told them anything; some are anything at all.
fn container() -> impl Strategy<Value = Container> {
    let phase = select(vec![
        Phase::Created,
        Phase::Starting,
        Phase::Running,
        Phase::Frozen,
        Phase::Stopping,
        Phase::Exited,
    ]);
    let phase = prop_oneof![6 => Just(Phase::Running), 1 => phase];
    let fault =
        prop_oneof![8 => Just(None), 1 => Just(Some(Fault::Unhealthy)), 1 => Just(Some(Fault::NotReady))];
    let waits = || prop::collection::vec(key(), 0..4);
    let operation = prop_oneof![
        12 => Just(None),
        1 => waits().prop_map(|after| Some(Operation::Start { after })),
        1 => waits().prop_map(|after| Some(Operation::Thaw { after })),
        1 => waits().prop_map(|after| Some(Operation::Evict { after })),
        1 => select(vec![Operation::Stop, Operation::Freeze, Operation::Kill, Operation::Remove]).prop_map(Some),
    ];
    // Few moments, so that they tie; one that is yet to come.
    let since = select(vec![Millis(100), Millis(200), Millis(999_700), Millis(999_900), NOW, NOW.plus(50)]);
    (key(), phase, fault, operation, since, prop::bool::weighted(0.1)).prop_map(
        |(key, phase, fault, operation, since, outdated)| {
            let fault = fault.filter(|_| matches!(phase, Phase::Starting | Phase::Running));
            Container { key, phase, fault, operation, since, outdated }
        },
    )
}

fn delta() -> impl Strategy<Value = Delta> {
    let service = || (0..SERVICES).prop_map(ServiceId);
    let instance = || (0..INSTANCES).prop_map(InstanceId);
    let reading = prop_oneof![
        8 => (0_u32..40).prop_map(|containers| Reading::Known { containers, confirmed_at: NOW }),
        1 => Just(Reading::Unknown),
    ];
    let states =
        vec![InstanceState::Ready, InstanceState::Cordoned, InstanceState::Draining, InstanceState::Lost];
    prop_oneof![
        4 => (service(), reading).prop_map(|(service, reading)| Delta::Demand { service, reading, at: NOW }),
        1 => (service(), any::<bool>()).prop_map(|(service, paused)| Delta::Paused { service, paused }),
        1 => (instance(), select(states)).prop_map(|(instance, state)| Delta::InstanceState { instance, state }),
        1 => (instance(), 0_u64..25).prop_map(|(instance, slots)| Delta::Capacity {
            instance,
            capacity: Resources::slots_only(slots),
        }),
        4 => container().prop_map(Delta::Container),
        3 => key().prop_map(Delta::ContainerGone),
        1 => (service(), prop::option::of(instance()), 0_u64..900).prop_map(|(service, instance, ms)| {
            Delta::Backoff(Backoff { service, instance, until: NOW.plus(ms) })
        }),
    ]
}

fn start() -> impl Strategy<Value = State> {
    (
        prop::collection::vec(service(), SERVICES as usize),
        prop::collection::vec(instance(), INSTANCES as usize),
        prop::collection::vec(container(), 0..90),
        any::<bool>(),
    )
        .prop_map(|(mut services, mut instances, containers, calm)| {
            for (number, service) in services.iter_mut().enumerate() {
                service.name = format!("s{number}");
            }
            for (number, instance) in instances.iter_mut().enumerate() {
                instance.name = format!("i{number}");
            }
            let mut state = State::new(services, instances, Millis(0));
            for container in containers {
                let left_alone =
                    Container { phase: Phase::Running, fault: None, operation: None, ..container.clone() };
                let container = if calm { left_alone } else { container };
                state.apply(Delta::Container(container));
            }
            state
        })
}

/// The same state, with nothing kept: every demand that was told so far in `told`.
fn built_anew(state: &State, told: &[Delta]) -> State {
    let (services, instances) = (state.services().to_vec(), state.instances().to_vec());
    let mut anew = State::new(services, instances, state.fill_hold_until());
    let backoffs = state.backoffs().iter().copied().map(Delta::Backoff);
    let containers = state.containers().cloned().map(Delta::Container);
    for delta in told.iter().cloned().chain(backoffs).chain(containers) {
        anew.apply(delta);
    }
    anew
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn kept_up_or_built_anew_it_is_the_same_plan(
        mut state in start(),
        deltas in prop::collection::vec(delta(), 1..30),
        wait_ms in 0_u64..400,
    ) {
        let mut told = Vec::new();
        let mut now = NOW;
        for delta in deltas {
            if matches!(delta, Delta::Demand { .. }) {
                told.push(delta.clone());
            }
            state.apply(delta);
            now = now.plus(wait_ms);
            let anew = built_anew(&state, &told);
            let (kept, expected) = (plan(&state, now), plan(&anew, now));
            prop_assert_eq!(&kept, &expected);
            prop_assert_eq!(success(&state, &kept, now), success(&anew, &expected, now));
            prop_assert_eq!(&state, &anew);
        }
    }
}
