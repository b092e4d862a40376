//! An oracle by brute force, written from the properties' words: small clusters, requests of one slot, a priority for
//! each service. It tries every way there is and shares no code with the planner.

mod common;

use std::cmp::Reverse;

use common::World;
use planner::{Action, Container, ContainerKey, OnPreempt, Phase, Placement, Service, ServiceKind};
use proptest::prelude::*;

/// One service: demanded or fill, what it wants beside or instead of what it has, placement, `min_runtime_ms`.
type Wish = (bool, u32, bool, bool);

const YOUNG_MS: u64 = 400;

/// Two to four services, one to three instances of one to three slots, each slot empty or taken.
fn cluster() -> impl Strategy<Value = (Vec<Wish>, Vec<Vec<Option<usize>>>, Vec<u64>)> {
    let wish = (prop::bool::weighted(0.7), 0_u32..=6, any::<bool>(), any::<bool>());
    let slot = prop_oneof![1 => Just(None), 4 => (0_usize..4).prop_map(Some)];
    (
        prop::collection::vec(wish, 2..=4),
        prop::collection::vec(prop::collection::vec(slot, 1..=3), 1..=3),
        // Few ages, so that they tie.
        prop::collection::vec((1_u64..8).prop_map(|age| age * 100), 9),
    )
}

fn build(wishes: &[Wish], pool: &[Vec<Option<usize>>], ages: &[u64], wanted: impl Fn(usize) -> u32) -> World {
    let services = wishes.iter().enumerate().map(|(at, &(demanded, _, packs, patient))| {
        let priority = u32::try_from(at).unwrap() + 1;
        let name = format!("s{at}");
        let kind = if demanded { ServiceKind::Demand } else { ServiceKind::Fill };
        Service {
            kind,
            max: if demanded { u32::MAX } else { wanted(at) },
            placement: if packs { Placement::BinPack } else { Placement::Spread },
            min_runtime_ms: if patient { YOUNG_MS } else { 0 },
            on_preempt: OnPreempt::Stop,
            ..Service::demand(name, priority)
        }
    });
    let instances = pool.iter().enumerate().map(|(at, slots)| {
        planner::Instance::ready(format!("i{at}"), planner::Resources::slots_only(slots.len() as u64))
    });
    let mut world = World::new(services.collect(), instances.collect());
    let mut ages = ages.iter();
    for (instance, slots) in pool.iter().enumerate() {
        for (ordinal, service) in slots.iter().enumerate() {
            let age = *ages.next().unwrap();
            if let Some(service) = service.filter(|&service| service < wishes.len()) {
                let ordinal = u32::try_from(ordinal).unwrap();
                world.put(&format!("s{service}"), &format!("i{instance}"), ordinal, Phase::Running, age);
            }
        }
    }
    for at in (0..wishes.len()).filter(|&at| wishes[at].0) {
        world.demand(&format!("s{at}"), wanted(at));
    }
    world
}

/// Containers by service, which is the order of importance.
fn have(world: &World) -> Vec<u32> {
    let mut counts = vec![0; world.state.services().len()];
    for container in world.state.containers() {
        counts[container.key.service.index()] += 1;
    }
    counts
}

fn slots(world: &World) -> u32 {
    world.state.instances().iter().map(|instance| u32::try_from(instance.capacity.slots).unwrap()).sum()
}

/// Every vector of counts, each at most its limit, all together at most `slots`.
fn every_count(limits: &[u32], slots: u32) -> Vec<Vec<u32>> {
    let Some((&first, rest)) = limits.split_first() else { return vec![Vec::new()] };
    (0..=first.min(slots))
        .flat_map(|count| {
            every_count(rest, slots - count).into_iter().map(move |tail| [vec![count], tail].concat())
        })
        .collect()
}

/// How many of each service are left when these are stopped.
fn left(have: &[u32], stopped: &[&Container]) -> Vec<u32> {
    let mut left = have.to_vec();
    for container in stopped {
        left[container.key.service.index()] -= 1;
    }
    left
}

/// Every set of containers that could be stopped.
fn every_choice(containers: &[Container]) -> impl Iterator<Item = Vec<&Container>> {
    (0..1_u32 << containers.len()).map(move |bits| {
        containers
            .iter()
            .enumerate()
            .filter(|(at, _)| bits >> at & 1 == 1)
            .map(|(_, container)| container)
            .collect()
    })
}

fn stops(actions: &[Action]) -> Vec<ContainerKey> {
    let stops = actions.iter().filter(|action| matches!(action, Action::Stop { .. }));
    stops.map(Action::container).collect()
}

fn cases() -> ProptestConfig {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(4_000);
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases())]

    /// Each gets what is left by the more important, with the fewest stops there could be, of the least importance.
    #[test]
    fn whatever_is_wanted((wishes, pool, ages) in cluster()) {
        let mut world = build(&wishes, &pool, &ages, |at| wishes[at].1);
        let before = have(&world);
        let limits: Vec<u32> = wishes.iter().map(|wish| wish.1).collect();
        // The best for the first, then the best for the second with that, and so on.
        let best = every_count(&limits, slots(&world)).into_iter().max().unwrap();
        let containers: Vec<Container> = world.state.containers().cloned().collect();
        // Whatever is stopped beyond what would have to be is started again elsewhere: moved.
        let reaches = |stopped: &Vec<&Container>| {
            left(&before, stopped).iter().zip(&best).all(|(left, best)| left <= best)
        };
        let lost = |stopped: &Vec<&Container>| {
            let by_importance: Vec<u32> = before.iter().zip(left(&before, stopped)).map(|(a, b)| a - b).collect();
            (stopped.len(), by_importance)
        };
        let least = every_choice(&containers).filter(reaches).map(|stopped| lost(&stopped)).min().unwrap();

        let made = world.plan();
        let stopped = stops(&made.actions);
        let stopped = containers.iter().filter(|container| stopped.contains(&container.key)).collect();
        prop_assert_eq!(lost(&stopped), least, "{}", world.show(&made));
        world.issue(&made);
        world.finish();
        prop_assert_eq!(have(&world), best, "{}", world.show(&made));
    }

    /// Of all victims and places for one more: least importance lost, fewest stops, none that is young, the placement
    /// rule, least work lost, then by name.
    #[test]
    fn one_more((wishes, pool, ages) in cluster(), who in 0_usize..4) {
        let who = who % wishes.len();
        let limits = have(&build(&wishes, &pool, &ages, |_| 0));
        let world = build(&wishes, &pool, &ages, |at| limits[at] + u32::from(at == who));
        let made = world.plan();

        let mut ways = Vec::new();
        for instance in world.state.instance_ids() {
            let there = world.state.containers_on(instance);
            let free = world.state.instance(instance).capacity.slots - there.len() as u64;
            let own = there.iter().filter(|container| container.key.service.index() == who).count() as u64;
            let placement = if wishes[who].2 { free } else { own };
            if free > 0 {
                ways.push(((Reverse(u32::MAX), 0, false, placement, 0, instance, None), None));
            }
            for victim in there.iter().filter(|container| container.key.service.index() > who) {
                let work_ms = world.now.since(victim.since);
                let young = wishes[victim.key.service.index()].3 && work_ms < YOUNG_MS;
                let importance = Reverse(victim.key.service.0);
                let cost = (importance, 1, young, placement, work_ms, instance, Some(victim.key));
                ways.push((cost, Some(victim.key)));
            }
        }
        match ways.into_iter().min() {
            None => prop_assert!(made.actions.is_empty(), "{}", world.show(&made)),
            Some((cost, victim)) => {
                let starts: Vec<_> = made.actions.iter().filter(|it| matches!(it, Action::Start { .. })).collect();
                prop_assert_eq!(starts.len(), 1, "{}", world.show(&made));
                prop_assert_eq!(starts[0].container().instance, cost.5, "{}", world.show(&made));
                prop_assert_eq!(stops(&made.actions), Vec::from_iter(victim), "{}", world.show(&made));
                prop_assert_eq!(starts[0].after(), Vec::from_iter(victim), "{}", world.show(&made));
            }
        }
    }
}
