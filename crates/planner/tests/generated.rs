//! The properties of the planner, on generated clusters.
//!
//! `PROPTEST_CASES` sets how many cases each property gets (4,000 unless it is set); failures are kept in
//! generated.proptest-regressions beside this file and tried first.

mod common;

use common::{NOW, World};
use planner::{
    Backoff, Container, ContainerKey, Delta, Fault, Instance, InstanceId, InstanceState, Millis, OnPreempt,
    Operation, Overlap, Phase, Placement, Plan, Reading, Resources, Service, ServiceId, Standing, State,
    invariants, plan,
};
use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;

fn config() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(4_000);
    ProptestConfig {
        cases,
        max_shrink_iters: 20_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::WithSource("proptest-regressions"))),
        ..ProptestConfig::default()
    }
}

/// What kind of cluster is generated.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
struct Kind {
    /// Requests of more than one slot, and of memory.
    sizes: bool,
    /// Several services of one priority.
    shares: bool,
    /// Freezing, standbys and frozen containers.
    freezing: bool,
    /// Cordoned, draining and lost instances; outdated, unhealthy and failed containers; paused services; backoffs.
    trouble: bool,
    /// Actions under way.
    under_way: bool,
    /// One or two services in the middle of a rollout with trials.
    rollout: bool,
    /// Anything at all: more than fits, every phase with every operation, waits for what is gone or stays,
    /// removed services, numbers at the ends of their ranges.
    wild: bool,
}

impl Kind {
    const EVERYTHING: Self = Self {
        sizes: true,
        shares: true,
        freezing: true,
        trouble: true,
        under_way: true,
        rollout: false,
        wild: false,
    };
}

fn services(kind: Kind) -> impl Strategy<Value = Vec<Service>> {
    let one = (
        (1_u32..=4, any::<bool>(), 1_u32..=3, 1_u64..=3, 0_u64..=2),
        (0_u32..=2, prop_oneof![Just(u32::MAX), 1_u32..=6], any::<bool>(), 0_u32..=1, any::<bool>()),
        (
            prop_oneof![Just(0_u64), Just(500_000)],
            prop::bool::weighted(0.15),
            prop_oneof![Just(0_u64), Just(100_000)],
        ),
    );
    prop::collection::vec(one, 1..=if kind.rollout { 2 } else { 5 }).prop_map(move |list| {
        let mut services = Vec::new();
        for (number, (what, bounds, more)) in list.into_iter().enumerate() {
            let (priority, fill, weight, slots, memory_mib) = what;
            let (min, max, freeze, standby, pack) = bounds;
            let (min_runtime_ms, paused, proven_after_ms) = more;
            // Without sharing every service has a priority of its own.
            let priority = if kind.shares { priority } else { u32::try_from(number).unwrap() + 1 };
            let name = format!("s{number}");
            let fill = fill && !kind.rollout;
            let mut service =
                if fill { Service::fill(name, priority) } else { Service::demand(name, priority) };
            service.weight = weight;
            if kind.sizes {
                service.request = Resources { slots, cpu_millis: 0, memory_mib };
            }
            service.max = max;
            service.min = min.min(max);
            service.min_runtime_ms = min_runtime_ms;
            service.proven_after_ms = match kind {
                Kind { rollout: true, .. } => 100_000,
                Kind { trouble: true, .. } => proven_after_ms,
                _ => 0,
            };
            service.placement = if pack { Placement::BinPack } else { Placement::Spread };
            if kind.freezing {
                service.on_preempt = if freeze { OnPreempt::Freeze } else { OnPreempt::Stop };
                service.standby_per_instance = if fill { 0 } else { standby };
                service.overlap = if pack { Overlap::Swap } else { Overlap::Never };
            }
            service.paused = kind.trouble && paused;
            if kind.wild {
                make_wild(number, &mut service);
            }
            services.push(service);
        }
        services
    })
}

/// Removed services and numbers at the ends of their ranges, by what the service happens to be.
fn make_wild(number: usize, service: &mut Service) {
    service.removed = number == 2 && service.weight == 1;
    match (service.weight, service.min, service.max) {
        (2, 2, _) => service.min = u32::MAX,
        (3, 1, u32::MAX) => service.request.slots = 0,
        (3, 2, u32::MAX) => service.request.memory_mib = u64::MAX,
        (3, 0, u32::MAX) => service.weight = u32::MAX,
        _ => {}
    }
}

fn instances(kind: Kind) -> impl Strategy<Value = Vec<Instance>> {
    let state = if kind.trouble {
        prop_oneof![
            6 => Just(InstanceState::Ready),
            1 => Just(InstanceState::Cordoned),
            1 => Just(InstanceState::Draining),
            1 => Just(InstanceState::Lost),
        ]
        .boxed()
    } else {
        Just(InstanceState::Ready).boxed()
    };
    prop::collection::vec((1_u64..=6, 0_u64..=8, state, 0_u32..=3), 1..=4).prop_map(move |list| {
        list.into_iter()
            .enumerate()
            .map(|(number, (slots, memory_mib, state, frozen_max))| {
                let memory_mib = if kind.sizes { memory_mib } else { Resources::UNLIMITED };
                let capacity = Resources { slots, cpu_millis: Resources::UNLIMITED, memory_mib };
                // Some kill at once what has no room to end in.
                let evict_after_ms = if slots % 2 == 0 { 0 } else { 10_000 };
                Instance {
                    state,
                    frozen_max,
                    evict_after_ms,
                    ..Instance::ready(format!("i{number}"), capacity)
                }
            })
            .collect()
    })
}

/// One container to try to put somewhere: service, instance, phase, operation, age, outdated.
type Seed = (usize, usize, u8, u8, u64, bool);

/// A cluster within capacity: containers are put where they fit, demands and backoffs given.
fn world(kind: Kind) -> impl Strategy<Value = World> {
    let seed = (0_usize..5, 0_usize..4, any::<u8>(), any::<u8>(), 0_u64..900_000, prop::bool::weighted(0.2));
    (
        services(kind),
        instances(kind),
        prop::collection::vec(seed, 0..24),
        prop::collection::vec(prop::option::weighted(0.9, 0_u32..=12), 5),
        prop::collection::vec((0_usize..5, prop::option::of(0_usize..4), 0_u64..5_000), 0..=2),
    )
        .prop_map(move |(services, instances, seeds, demands, backoffs)| {
            build(kind, services, instances, &seeds, &demands, &backoffs)
        })
}

fn build(
    kind: Kind,
    services: Vec<Service>,
    instances: Vec<Instance>,
    seeds: &[Seed],
    demands: &[Option<u32>],
    backoffs: &[(usize, Option<usize>, u64)],
) -> World {
    let mut world = World::new(services, instances);
    for seed in seeds {
        put(kind, &mut world, *seed);
    }
    for service in world.state.service_ids() {
        let reading = demands[service.index()]
            .map_or(Reading::Unknown, |containers| Reading::Known { containers, confirmed_at: NOW });
        world.state.apply(Delta::Demand { service, reading, at: NOW });
    }
    if kind.trouble {
        for &(service, instance, ms) in backoffs {
            let service = ServiceId(u32::try_from(service % world.state.services().len()).unwrap());
            let count = world.state.instances().len();
            let instance = instance.map(|number| InstanceId(u32::try_from(number % count).unwrap()));
            world.state.apply(Delta::Backoff(Backoff { service, instance, until: NOW.plus(ms) }));
        }
    }
    world
}

/// Puts a container where the seed says, if the instance stays within capacity with it.
fn put(kind: Kind, world: &mut World, (service, instance, phase, operation, age_ms, outdated): Seed) {
    let state = &world.state;
    let service = ServiceId(u32::try_from(service % state.services().len()).unwrap());
    let instance = InstanceId(u32::try_from(instance % state.instances().len()).unwrap());
    let ordinal = (0..1_000)
        .find(|&ordinal| state.container(ContainerKey { instance, service, ordinal }).is_none())
        .unwrap();
    let key = ContainerKey { instance, service, ordinal };
    let phase = match phase % 10 {
        8 if kind.freezing => Phase::Frozen,
        9 if kind.trouble => Phase::Exited,
        7 if kind.trouble => Phase::Created,
        6 if kind.under_way => Phase::Stopping,
        5 if kind.under_way => Phase::Starting,
        _ => Phase::Running,
    };
    let fault = match (operation / 6 % 8, phase) {
        (0, Phase::Running) if kind.trouble => Some(Fault::Unhealthy),
        (1, Phase::Running | Phase::Starting) if kind.trouble => Some(Fault::NotReady),
        _ => None,
    };
    let operation = match (operation % 6, phase) {
        (0, Phase::Running) if kind.under_way => Some(Operation::Stop),
        (1, Phase::Running) if kind.under_way => Some(Operation::Start { after: Vec::new() }),
        (2, Phase::Running) if kind.under_way && kind.freezing => Some(Operation::Freeze),
        _ => None,
    };
    let operation =
        if kind.wild { wild_operation(state, instance, usize::try_from(age_ms).unwrap()) } else { operation };
    let outdated = outdated && kind.trouble || kind.rollout && age_ms % 3 == 0;
    let age_ms = match age_ms / 3 % 4 {
        _ if !kind.rollout => age_ms,
        0 => 0,
        1 => 50_000,
        2 => 100_000,
        _ => 600_000,
    };
    let since = Millis(NOW.0 - age_ms);
    let container = Container { key, phase, fault, operation, since, outdated };
    let mut with = state.clone();
    with.apply(Delta::Container(container));
    let fits = invariants::taken(&with, instance).fits(state.instance(instance).capacity);
    if kind.wild || fits {
        world.state = with;
    }
}

/// Any operation; what a start waits for may stay, leave, be gone, or be somewhere else.
fn wild_operation(state: &State, instance: InstanceId, seed: usize) -> Option<Operation> {
    let there = state.containers_on(instance);
    let mut after: Vec<ContainerKey> = there.get(seed / 16 % 8).map(|it| it.key).into_iter().collect();
    after.extend(there.get(seed / 128 % 16).map(|it| it.key));
    match seed % 16 {
        0 => Some(Operation::Start { after }),
        1 => Some(Operation::Thaw { after }),
        2 => {
            let gone = ContainerKey { instance, service: ServiceId(0), ordinal: 999 };
            Some(Operation::Start { after: vec![gone, ContainerKey { instance: InstanceId(0), ..gone }] })
        }
        3 => Some(Operation::Thaw { after: Vec::new() }),
        4 => Some(Operation::Stop),
        5 => Some(Operation::Freeze),
        6 => Some(Operation::Remove),
        7 => Some(Operation::Kill),
        8 => Some(Operation::Evict { after }),
        _ => None,
    }
}

/// While everything that was planned is under way, nothing further is.
fn check_nothing_further(world: &World, made: &Plan) -> Result<(), TestCaseError> {
    let again = world.plan();
    prop_assert!(
        again.actions.is_empty(),
        "after {:#?}\nmore is planned:\n{}",
        world.words(made),
        world.show(&again)
    );
    Ok(())
}

/// Everything that must hold of one plan made from a state in which nothing is under way.
fn check_quiet(world: &mut World) -> Result<(), TestCaseError> {
    let made = world.plan();
    invariants::no_superfluous_stop(&world.state, &made)
        .map_err(|fault| TestCaseError::fail(format!("{fault}\n{}", world.show(&made))))?;
    world.issue(&made);
    check_nothing_further(world, &made)?;
    world.finish();
    let faulty = |fault: String| TestCaseError::fail(format!("{fault}\nat the end: {world:?}"));
    invariants::capacity(&world.state).map_err(faulty)?;
    let end = world.plan();
    prop_assert!(end.actions.is_empty(), "carried out, more is planned:\n{}", world.show(&end));
    invariants::demand_met(&world.state, &end, world.now).map_err(faulty)?;
    invariants::no_idle_room(&world.state, world.now).map_err(faulty)?;
    Ok(())
}

/// Steps in an order given by `order`, planning anew after each, and never above capacity on the way.
fn check_any_order(world: &mut World, order: &[u16], rounds: usize) -> Result<(), TestCaseError> {
    let mut order = order.iter().cycle();
    for _ in 0..rounds {
        let made = world.plan();
        world.issue(&made);
        check_nothing_further(world, &made)?;
        let movable = world.movable();
        if movable.is_empty() {
            prop_assert!(made.actions.is_empty());
            let faulty = |fault: String| TestCaseError::fail(format!("{fault}\n{}", world.show(&made)));
            invariants::no_idle_room(&world.state, world.now).map_err(faulty)?;
            invariants::demand_met(&world.state, &made, world.now).map_err(faulty)?;
            invariants::frozen_within_bounds(&world.state, world.now).map_err(faulty)?;
            return Ok(());
        }
        let pick = usize::from(*order.next().unwrap()) % movable.len();
        world.step(movable[pick]);
        invariants::capacity(&world.state)
            .map_err(|fault| TestCaseError::fail(format!("{fault}\n{world:?}")))?;
    }
    let made = world.plan();
    Err(TestCaseError::fail(format!("no end in {rounds} steps:\n{}", world.show(&made))))
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn one_slot_requests(mut world in world(Kind::default())) {
        check_quiet(&mut world)?;
    }

    #[test]
    fn unequal_requests(mut world in world(Kind { sizes: true, ..Kind::default() })) {
        check_quiet(&mut world)?;
    }

    #[test]
    fn shares_of_one_slot(mut world in world(Kind { shares: true, ..Kind::default() })) {
        check_quiet(&mut world)?;
    }

    #[test]
    fn shares_of_unequal_requests(mut world in world(Kind { shares: true, sizes: true, ..Kind::default() })) {
        check_quiet(&mut world)?;
    }

    #[test]
    fn any_order_of_steps(
        mut world in world(Kind { sizes: true, under_way: true, ..Kind::default() }),
        order in prop::collection::vec(any::<u16>(), 24),
    ) {
        check_any_order(&mut world, &order, 600)?;
    }

    #[test]
    fn any_order_of_steps_in_trouble(
        mut world in world(Kind { trouble: true, under_way: true, ..Kind::default() }),
        order in prop::collection::vec(any::<u16>(), 24),
    ) {
        check_any_order(&mut world, &order, 600)?;
    }

    #[test]
    fn any_order_of_steps_in_a_rollout(
        mut world in world(Kind { trouble: true, under_way: true, rollout: true, ..Kind::default() }),
        order in prop::collection::vec(any::<u16>(), 24),
    ) {
        check_any_order(&mut world, &order, 600)?;
    }

    #[test]
    fn any_order_of_steps_with_freezing(
        mut world in world(Kind { freezing: true, under_way: true, ..Kind::default() }),
        order in prop::collection::vec(any::<u16>(), 24),
    ) {
        check_any_order(&mut world, &order, 600)?;
    }

    #[test]
    fn any_order_of_steps_with_shares_and_freezing(
        mut world in world(Kind { shares: true, freezing: true, under_way: true, ..Kind::default() }),
        order in prop::collection::vec(any::<u16>(), 24),
    ) {
        check_any_order(&mut world, &order, 600)?;
    }

    #[test]
    fn any_order_of_steps_with_everything(
        mut world in world(Kind::EVERYTHING),
        order in prop::collection::vec(any::<u16>(), 24),
    ) {
        check_any_order_within_capacity(&mut world, &order)?;
    }

    #[test]
    fn from_any_state_whatever(
        mut world in world(Kind { wild: true, ..Kind::EVERYTHING }),
        order in prop::collection::vec(any::<u16>(), 24),
    ) {
        check_wild(&mut world, &order)?;
    }

    #[test]
    fn the_order_of_inputs_does_not_show(world in world(Kind::EVERYTHING)) {
        let state = &world.state;
        let mut other = State::new(
            state.services().iter().rev().cloned().collect(),
            state.instances().iter().rev().cloned().collect(),
            state.fill_hold_until(),
        );
        for backoff in state.backoffs().iter().rev() {
            other.apply(Delta::Backoff(*backoff));
        }
        let containers: Vec<Container> = state.containers().cloned().collect();
        for container in containers.into_iter().rev() {
            other.apply(Delta::Container(container));
        }
        for service in state.service_ids().rev() {
            let reading = state.demand(service, NOW).containers
                .map_or(Reading::Unknown, |containers| Reading::Known { containers, confirmed_at: NOW });
            other.apply(Delta::Demand { service, reading, at: NOW });
        }
        prop_assert_eq!(plan(state, NOW), plan(&other, NOW));
        prop_assert_eq!(state, &other, "built from scratch, it is the same state");
    }

    #[test]
    fn time_alone_changes_nothing_before_the_wake(
        mut world in world(Kind { shares: true, trouble: true, ..Kind::default() }),
        part in 0.0_f64..1.0,
    ) {
        let made = world.plan();
        world.issue(&made);
        world.finish();
        let made = world.plan();
        if made.actions.is_empty() {
            let wait = made.next_wake_at.map_or(3_600_000, |at| at.since(world.now).saturating_sub(1));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss,
                reason = "a part of a wait is not exact")]
            let later = world.now.plus((wait as f64 * part) as u64);
            let then = plan(&world.state, later);
            prop_assert_eq!(made.actions, then.actions);
        }
    }
}

/// With every kind of trouble at once the plans still act on what they may, keep within capacity, and end.
fn check_any_order_within_capacity(world: &mut World, order: &[u16]) -> Result<(), TestCaseError> {
    let mut order = order.iter().cycle();
    for _ in 0..800 {
        let made = world.plan();
        world.issue(&made);
        let movable = world.movable();
        if movable.is_empty() {
            prop_assert!(made.actions.is_empty());
            let faulty = |fault: String| TestCaseError::fail(format!("{fault}\n{}", world.show(&made)));
            invariants::frozen_within_bounds(&world.state, world.now).map_err(faulty)?;
            return Ok(());
        }
        let pick = usize::from(*order.next().unwrap()) % movable.len();
        world.step(movable[pick]);
        invariants::capacity(&world.state)
            .map_err(|fault| TestCaseError::fail(format!("{fault}\n{world:?}")))?;
    }
    let made = world.plan();
    Err(TestCaseError::fail(format!("no end in 800 steps:\n{}", world.show(&made))))
}

/// From a state that no plan of ours led to: what is within capacity stays within it, what is not comes back,
/// and it ends.
fn check_wild(world: &mut World, order: &[u16]) -> Result<(), TestCaseError> {
    let mut order = order.iter().cycle();
    // More than there is has been promised already: no plan can keep the first moments within capacity.
    let promised = |state: &State, id| {
        let all = state.containers_on(id).iter().map(|it| (it, state.service(it.key.service).request));
        let waits = |it| matches!(invariants::standing(state, it), Standing::Waiting | Standing::Ending);
        let waiting = all.filter(|(it, _)| waits(it));
        waiting.fold(invariants::taken(state, id), |sum, (_, request)| sum.plus(request))
    };
    let within = |state: &State, id| promised(state, id).fits(state.instance(id).capacity);
    let kept: Vec<InstanceId> = world.state.instance_ids().filter(|&id| within(&world.state, id)).collect();
    for _ in 0..2_000 {
        let made = world.plan();
        world.issue(&made);
        let movable = world.movable();
        if movable.is_empty() {
            let shown = world.show(&made);
            // An eviction that waits for what stays keeps others waiting; it is the caller's to give up.
            let evicts = |it: &Container| matches!(it.operation, Some(Operation::Evict { .. }));
            if world.state.containers().any(evicts) {
                return Ok(());
            }
            prop_assert!(made.actions.is_empty(), "{shown}");
            // A start that waits for what stays is the caller's to give up.
            if world.state.containers().any(|container| container.operation.is_some()) {
                return Ok(());
            }
            let faulty = |fault: String| TestCaseError::fail(format!("{fault}\n{shown}"));
            invariants::capacity(&world.state).map_err(faulty)?;
            invariants::no_idle_room(&world.state, world.now).map_err(faulty)?;
            invariants::demand_met(&world.state, &made, world.now).map_err(faulty)?;
            invariants::frozen_within_bounds(&world.state, world.now).map_err(faulty)?;
            return Ok(());
        }
        let pick = usize::from(*order.next().unwrap()) % movable.len();
        let shown = format!("{world:?}");
        world.step(movable[pick]);
        for &id in &kept {
            let fits = invariants::is_within_capacity(&world.state, id);
            prop_assert!(fits, "{id:?} is over its capacity; before:\n{shown}\nafter:\n{world:?}");
        }
    }
    let made = world.plan();
    Err(TestCaseError::fail(format!("no end in 2,000 steps:\n{}", world.show(&made))))
}
