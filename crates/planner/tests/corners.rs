//! Corners: states that are rare, and what must not happen in them.

mod common;

use common::World;
use planner::{
    Action, Backoff, Container, Delta, Fault, Instance, InstanceState, NotDone, OnPreempt, Operation, Phase,
    Placement, Resources, Service, StopReason, plan,
};

fn change(world: &mut World, service: &str, instance: &str, ordinal: u32, with: impl FnOnce(&mut Container)) {
    let mut container = world.state.container(world.key(service, instance, ordinal)).unwrap().clone();
    with(&mut container);
    world.state.apply(Delta::Container(container));
}

fn kinds(world: &World) -> Vec<String> {
    let name = |action: &Action| format!("{} {}", action.kind(), world.state.describe(action.container()));
    world.plan().actions.iter().map(name).collect()
}

#[test]
fn what_a_removed_service_has_on_a_lost_instance_is_left_alone() {
    let gone = Service { removed: true, ..Service::demand("gone", 1) };
    let mut world = World::pool(vec![gone], 2, 2);
    world.put("gone", "instance-1", 0, Phase::Running, 0);
    world.put("gone", "instance-2", 0, Phase::Running, 0);
    world.instance_state("instance-1", InstanceState::Lost);
    assert_eq!(kinds(&world), ["stop gone/0 on instance-2"]);
}

#[test]
fn the_room_of_a_removed_service_goes_first_however_important_it_was() {
    let gone = Service { removed: true, ..Service::demand("gone", 1) };
    let mut world = World::pool(vec![gone, Service::demand("web", 2), Service::fill("batch", 3)], 1, 2);
    world.put("gone", "instance-1", 0, Phase::Running, 90_000);
    world.put("batch", "instance-1", 0, Phase::Running, 0);
    world.demand("web", 1);
    assert_eq!(kinds(&world), ["stop gone/0 on instance-1", "start web/0 on instance-1"]);
}

#[test]
fn slots_are_always_limited_and_always_taken() {
    let nothing = Service { request: Resources::ZERO, ..Service::demand("web", 1) };
    let unlimited = Resources::slots_only(Resources::UNLIMITED);
    let mut world = World::new(vec![nothing], vec![Instance::ready("instance-1", unlimited)]);
    let instance = world.state.instance_id("instance-1").unwrap();
    world.state.apply(Delta::Capacity { instance, capacity: unlimited });
    assert_eq!(world.state.instance(instance).capacity.slots, Resources::SLOTS_MAX);
    assert_eq!(world.state.service(world.service("web")).request, Resources::ONE_SLOT);
}

#[test]
fn nobody_waits_for_one_that_is_to_end_in_the_room_of_one_that_stays() {
    let mut world = World::pool(vec![Service::demand("web", 1), Service::demand("old", 2)], 1, 2);
    world.demand("web", 2);
    world.demand("old", 0);
    world.put("web", "instance-1", 0, Phase::Running, 10);
    world.put("old", "instance-1", 0, Phase::Frozen, 10);
    let after = vec![world.key("web", "instance-1", 0)];
    change(&mut world, "old", "instance-1", 0, |it| it.operation = Some(Operation::Evict { after }));
    assert!(kinds(&world).is_empty(), "{:?}", kinds(&world));
    change(&mut world, "old", "instance-1", 0, |it| it.operation = None);
    world.converge(4);
    assert_eq!(world.running("web"), 2);
}

#[test]
fn nobody_lends_room_in_the_plan_that_gives_up_an_old_one_for_it() {
    let web = Service { on_preempt: OnPreempt::Freeze, ..Service::demand("web", 1) };
    let crowded = Instance { frozen_max: 1, ..Instance::ready("instance-1", Resources::slots_only(1)) };
    let other = Instance::ready("instance-2", Resources::slots_only(2));
    let mut world = World::new(vec![web], vec![crowded, other]);
    world.demand("web", 2);
    world.put("web", "instance-1", 0, Phase::Running, 10);
    world.put("web", "instance-1", 1, Phase::Frozen, 10);
    world.put("web", "instance-1", 2, Phase::Frozen, 10);
    world.put("web", "instance-2", 0, Phase::Running, 10);
    world.put("web", "instance-2", 1, Phase::Running, 10);
    change(&mut world, "web", "instance-2", 1, |it| it.outdated = true);
    let plan = world.plan();
    assert_eq!(kinds(&world), ["stop web/1 on instance-2"]);
    world.issue(&plan);
    assert_eq!(kinds(&world).len(), 2, "one lends its room, and one ends in it: {:?}", kinds(&world));
    world.converge(4);
    assert_eq!(world.running("web"), 2);
    assert_eq!(world.state.containers().filter(|it| it.phase == Phase::Frozen).count(), 1);
}

#[test]
fn nobody_lends_room_where_it_could_not_be_resumed() {
    type Trouble = fn(&mut World);
    let troubles: [(&str, Trouble); 4] = [
        ("drained", |world| world.instance_state("instance-1", InstanceState::Draining)),
        ("cordoned", |world| world.instance_state("instance-1", InstanceState::Cordoned)),
        ("paused", |world| {
            let service = world.service("web");
            world.state.apply(Delta::Paused { service, paused: true });
        }),
        ("of unknown demand", |world| world.unknown("web")),
    ];
    for (what, trouble) in troubles {
        let web = Service { on_preempt: OnPreempt::Freeze, ..Service::demand("web", 1) };
        let crowded = Instance { frozen_max: 1, ..Instance::ready("instance-1", Resources::slots_only(3)) };
        let mut world = World::new(vec![web], vec![crowded]);
        world.demand("web", 3);
        for ordinal in 0..3 {
            world.put("web", "instance-1", ordinal, Phase::Running, 10);
        }
        world.put("web", "instance-1", 3, Phase::Frozen, 10);
        world.put("web", "instance-1", 4, Phase::Frozen, 10);
        trouble(&mut world);
        world.converge(4);
        assert_eq!(world.running("web"), 3, "{what}");
    }
}

#[test]
fn what_has_lent_its_room_is_resumed_there_though_others_have_room() {
    let low = Service { on_preempt: OnPreempt::Freeze, ..Service::demand("low", 2) };
    let instances = ["instance-1", "instance-2"].map(|name| Instance::ready(name, Resources::slots_only(2)));
    let mut world = World::new(vec![Service::demand("high", 1), low], instances.to_vec());
    world.demand("high", 1);
    world.demand("low", 1);
    world.put("high", "instance-1", 0, Phase::Running, 10);
    world.put("low", "instance-1", 0, Phase::Running, 10);
    world.put("low", "instance-1", 1, Phase::Frozen, 10);
    change(&mut world, "low", "instance-1", 1, |it| it.outdated = true);
    let plan = world.plan();
    assert_eq!(kinds(&world), ["freeze low/0 on instance-1", "stop low/1 on instance-1"]);
    world.issue(&plan);
    assert!(kinds(&world).is_empty(), "{:?}", kinds(&world));
    // The other one ends now, in its room.
    let lends = world.key("low", "instance-1", 0);
    world.step(lends);
    assert_eq!(kinds(&world), ["thaw low/0 on instance-1"]);
    world.converge(2);
    assert_eq!(world.state.container(lends).map(|it| it.phase), Some(Phase::Running));
}

#[test]
fn what_lends_its_room_counts_as_running_there() {
    let low = Service { on_preempt: OnPreempt::Freeze, ..Service::demand("low", 1) };
    let mut world = World::pool(vec![low], 2, 3);
    world.demand("low", 2);
    world.put("low", "instance-1", 0, Phase::Running, 10);
    world.put("low", "instance-1", 1, Phase::Frozen, 10);
    change(&mut world, "low", "instance-1", 0, |it| it.operation = Some(Operation::Freeze));
    let after = vec![world.key("low", "instance-1", 0)];
    change(&mut world, "low", "instance-1", 1, |it| it.operation = Some(Operation::Evict { after }));
    assert_eq!(kinds(&world), ["start low/0 on instance-2"], "spread over both");
}

#[test]
fn the_largest_numbers_are_no_trouble() {
    let all = Resources { slots: u64::MAX, cpu_millis: u64::MAX, memory_mib: u64::MAX };
    let small = Resources { memory_mib: u64::MAX, ..Resources::ONE_SLOT };
    let huge = Service { min: u32::MAX, weight: u32::MAX, request: all, ..Service::demand("huge", 2) };
    let equal =
        Service { max: 2, on_preempt: OnPreempt::Freeze, request: small, ..Service::fill("equal", 2) };
    let hosts = (1..=2).map(|n| Instance::ready(format!("instance-{n}"), all)).collect();
    let mut world = World::new(vec![huge, equal, Service::demand("web", 1)], hosts);
    world.demand("web", 3);
    for ordinal in 0..3 {
        world.put("equal", "instance-1", ordinal, Phase::Frozen, 10);
        world.put("huge", "instance-1", ordinal, Phase::Running, 10);
    }
    world.converge(4);
    assert_eq!((world.running("web"), world.running("huge")), (3, 0));
}

#[test]
fn nobody_starts_in_the_room_that_one_ends_in_which_is_larger_than_what_it_waits_for() {
    let large = Service { request: Resources::slots(2), ..Service::demand("large", 1) };
    let mut world = World::pool(vec![large, Service::demand("small", 1), Service::demand("web", 1)], 1, 5);
    world.demand("large", 0);
    world.demand("small", 2);
    world.demand("web", 3);
    world.put("small", "instance-1", 0, Phase::Running, 10);
    world.put("small", "instance-1", 1, Phase::Running, 10);
    world.put("large", "instance-1", 0, Phase::Frozen, 10);
    world.put("large", "instance-1", 1, Phase::Frozen, 10);
    change(&mut world, "small", "instance-1", 1, |it| it.operation = Some(Operation::Freeze));
    for ordinal in [0, 1] {
        let after = vec![world.key("small", "instance-1", 1)];
        change(&mut world, "large", "instance-1", ordinal, |it| {
            it.operation = Some(Operation::Evict { after });
        });
    }
    for _ in 0..30 {
        let plan = world.plan();
        world.issue(&plan);
        let Some(&first) = world.movable().first() else { break };
        world.step(first);
        planner::invariants::capacity(&world.state).unwrap();
    }
    assert_eq!((world.running("small"), world.running("web")), (2, 3));
}

#[test]
fn what_is_being_frozen_is_told_nothing_else_before_that_has_ended() {
    let batch = Service { on_preempt: OnPreempt::Freeze, ..Service::fill("batch", 2) };
    let mut world = World::pool(vec![Service::demand("web", 1), batch], 1, 2);
    world.put("batch", "instance-1", 0, Phase::Frozen, 10);
    change(&mut world, "batch", "instance-1", 0, |it| it.operation = Some(Operation::Freeze));
    let instance = world.state.instance_id("instance-1").unwrap();
    let capacity = Resources { slots: 0, ..Resources::ZERO };
    world.state.apply(Delta::Capacity { instance, capacity });
    world.demand("web", 2);
    assert!(kinds(&world).is_empty());
}

/// One instance of two slots and 4 MiB; batch is frozen for more important work and takes 2 MiB.
fn memory() -> World {
    let request = Resources { memory_mib: 2, ..Resources::ONE_SLOT };
    let batch = Service { on_preempt: OnPreempt::Freeze, request, ..Service::fill("batch", 2) };
    let capacity = Resources { memory_mib: 4, ..Resources::slots_only(2) };
    World::new(vec![Service::demand("web", 1), batch], vec![Instance::ready("instance-1", capacity)])
}

fn lower_memory(world: &mut World, memory_mib: u64) {
    let instance = world.state.instance_id("instance-1").unwrap();
    let capacity = Resources { memory_mib, ..world.state.instance(instance).capacity };
    world.state.apply(Delta::Capacity { instance, capacity });
}

#[test]
fn memory_is_not_relieved_by_freezing() {
    let mut world = memory();
    world.demand("web", 0);
    world.put("batch", "instance-1", 0, Phase::Running, 10);
    lower_memory(&mut world, 1);
    assert_eq!(kinds(&world), ["stop batch/0 on instance-1"]);
}

#[test]
fn too_much_frozen_memory_ends_where_every_slot_is_taken() {
    let mut world = memory();
    world.demand("web", 2);
    world.put("web", "instance-1", 0, Phase::Running, 10);
    world.put("web", "instance-1", 1, Phase::Running, 10);
    world.put("batch", "instance-1", 0, Phase::Frozen, 10);
    lower_memory(&mut world, 1);
    assert_eq!(kinds(&world), ["kill batch/0 on instance-1"], "no slot comes, and web is worth more");
    // A slot comes: the frozen one ends in it.
    change(&mut world, "web", "instance-1", 1, |it| it.operation = Some(Operation::Stop));
    world.demand("web", 1);
    assert!(kinds(&world).is_empty());
    world.finish();
    assert_eq!(kinds(&world), ["stop batch/0 on instance-1"]);
}

/// Two equals, one of them (four wanted of weight 2) over and over given what the other one (ten wanted) had taken from
/// it: what is on a draining instance does not count as more than its service's share.
#[test]
fn equals_take_nothing_in_turns_for_what_is_being_drained() {
    let a = Service { weight: 2, on_preempt: OnPreempt::Freeze, ..Service::demand("a", 1) };
    let b = Service { on_preempt: OnPreempt::Freeze, ..Service::demand("b", 1) };
    let instances = (1..=5)
        .zip([3, 4, 5, 2, 3])
        .map(|(number, slots)| Instance::ready(format!("instance-{number}"), Resources::slots_only(slots)));
    let mut empty = World::new(vec![a, b], instances.collect());
    empty.demand("a", 4);
    empty.demand("b", 10);
    for drained_at in 0..40 {
        let mut world = World { state: empty.state.clone(), now: empty.now };
        for step in 0.. {
            assert!(step < 400, "no end: {}", world.show(&world.plan()));
            if step == drained_at {
                world.instance_state("instance-2", InstanceState::Draining);
            }
            let plan = world.plan();
            world.issue(&plan);
            let movable = world.movable();
            if movable.is_empty() && step > drained_at {
                break;
            }
            if let Some(&key) = movable.get(step * 7 % movable.len().max(1)) {
                world.step(key);
            }
        }
    }
}

#[test]
fn the_memory_of_a_victim_is_not_given_back_for_a_thaw_in_its_slot() {
    let sized = |memory_mib| Resources { memory_mib, ..Resources::ONE_SLOT };
    let standby = Service { standby_per_instance: 1, request: sized(1), ..Service::demand("batch", 2) };
    let web = Service { request: sized(2), ..Service::demand("web", 1) };
    let capacity = Resources { memory_mib: 5, ..Resources::slots_only(3) };
    let mut world = World::new(vec![web, standby], vec![Instance::ready("instance-1", capacity)]);
    world.put("web", "instance-1", 0, Phase::Running, 10);
    world.put("batch", "instance-1", 0, Phase::Frozen, 10);
    world.put("batch", "instance-1", 1, Phase::Running, 10);
    world.demand("web", 2);
    world.demand("batch", 2);
    let plan = world.plan();
    assert!(
        plan.actions.iter().any(|it| it.container() == world.key("web", "instance-1", 1)),
        "{}",
        world.show(&plan)
    );
    world.converge(4);
    assert_eq!((world.running("web"), world.running("batch")), (2, 1));
}

#[test]
fn a_frozen_one_that_has_no_room_to_end_in_does_not_hold_up_others() {
    // Its two slots are more than the one that is free: there is no room in memory for web, but for batch.
    let request = Resources { slots: 2, memory_mib: 2, cpu_millis: 0 };
    let frozen = Service { on_preempt: OnPreempt::Freeze, request, ..Service::demand("frozen", 2) };
    let web =
        Service { request: Resources { memory_mib: 1, ..Resources::ONE_SLOT }, ..Service::demand("web", 1) };
    let capacity = Resources { memory_mib: 4, ..Resources::slots_only(3) };
    let services = vec![web, frozen, Service::fill("batch", 3)];
    let mut world = World::new(services, vec![Instance::ready("instance-1", capacity)]);
    world.demand("web", 3);
    world.demand("frozen", 0);
    world.put("web", "instance-1", 0, Phase::Running, 10);
    world.put("web", "instance-1", 1, Phase::Running, 10);
    world.put("frozen", "instance-1", 0, Phase::Frozen, 10);
    assert_eq!(kinds(&world), ["start batch/0 on instance-1"]);
    assert!(matches!(world.plan().not_done[0], NotDone::NoRoom { count: 1, .. }));
}

#[test]
fn standbys_borrow_one_slot_of_an_instance_at_a_time() {
    let standby = |name, priority| Service { standby_per_instance: 1, ..Service::demand(name, priority) };
    let mut world = World::pool(vec![standby("a", 1), standby("b", 2), Service::fill("batch", 3)], 1, 4);
    world.demand("a", 0);
    world.demand("b", 0);
    for ordinal in 0..4 {
        world.put("batch", "instance-1", ordinal, Phase::Running, 10);
    }
    assert_eq!(world.plan().actions.len(), 2, "{:?}", kinds(&world));
    let plan = world.plan();
    world.issue(&plan);
    let key = world.key("a", "instance-1", 0);
    world.finish();
    assert_eq!(world.state.container(key).unwrap().phase, Phase::Running);
    world.converge(6);
    let frozen = world.state.containers().filter(|it| it.phase == Phase::Frozen).count();
    assert_eq!((frozen, world.running("batch")), (2, 4));
}

#[test]
fn standbys_are_warmed_after_all_else() {
    let web = Service { standby_per_instance: 1, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web, Service::fill("batch", 2)], 2, 2);
    world.demand("web", 0);
    world.put("batch", "instance-1", 0, Phase::Running, 10);
    world.put("batch", "instance-1", 1, Phase::Running, 10);
    world.put("batch", "instance-2", 0, Phase::Running, 10);
    world.put("batch", "instance-2", 1, Phase::Exited, 10);
    world.put("web", "instance-2", 0, Phase::Frozen, 10);
    // Its priority is the highest, and nobody waits for it.
    assert_eq!(
        kinds(&world),
        [
            "start batch/2 on instance-2",
            "remove batch/1 on instance-2",
            "stop batch/0 on instance-1",
            "start web/0 on instance-1",
        ]
    );
}

#[test]
fn a_standby_borrows_nothing_that_demanded_work_would_have_to_make_up_for() {
    let a = Service { standby_per_instance: 1, ..Service::demand("a", 1) };
    let services = vec![a, Service { max: 1, ..Service::fill("middle", 2) }, Service::demand("z", 3)];
    let mut world = World::pool(services, 1, 2);
    world.demand("a", 0);
    world.demand("z", 1);
    world.put("middle", "instance-1", 0, Phase::Running, 10);
    world.put("z", "instance-1", 0, Phase::Running, 10);
    assert!(kinds(&world).is_empty());
}

#[test]
fn the_place_of_a_standby_among_the_frozen_is_kept_free_from_what_is_less_important() {
    // 2 of web + 3 of big + 1 of small = 6. The standby borrows from big; middle then fits if small goes. Frozen,
    // small would take the one place that there is, the standby could only end, and all would begin again.
    let sized = |service, slots| Service { request: Resources::slots(slots), ..service };
    for (standbys, frozen_max, goes) in
        [(1, 1, "stop small/0"), (1, 2, "freeze small/0"), (2, 2, "stop small/0")]
    {
        let services = vec![
            Service { standby_per_instance: standbys, ..sized(Service::demand("web", 1), 2) },
            Service { max: 1, ..sized(Service::fill("big", 2), 3) },
            sized(Service::fill("middle", 3), 2),
            Service { on_preempt: OnPreempt::Freeze, ..Service::fill("small", 4) },
        ];
        let instance = Instance { frozen_max, ..Instance::ready("instance-1", Resources::slots_only(6)) };
        let mut world = World::new(services, vec![instance]);
        world.demand("web", 1);
        for service in ["web", "big", "small"] {
            world.put(service, "instance-1", 0, Phase::Running, 10);
        }
        assert!(kinds(&world).contains(&format!("{goes} on instance-1")), "{:?}", kinds(&world));
        world.converge(12);
        assert_eq!((world.running("web"), world.running("big"), world.running("small")), (1, 1, 1));
        let frozen = world.state.containers().filter(|it| it.phase == Phase::Frozen);
        let frozen: Vec<_> = frozen.map(|it| it.key.service).collect();
        assert_eq!(frozen, vec![world.service("web"); standbys as usize], "{world:?}");
    }
}

#[test]
fn what_a_fall_leaves_over_does_not_take_the_place_of_a_more_important_standby() {
    for (frozen_max, goes, frozen) in [(1, "stop", vec!["web"]), (2, "freeze", vec!["web", "api"])] {
        let web = Service { standby_per_instance: 1, ..Service::demand("web", 1) };
        let api = Service { on_preempt: OnPreempt::Freeze, ..Service::demand("api", 2) };
        let services = vec![web, Service { standby_per_instance: 1, ..api }];
        let instance = Instance { frozen_max, ..Instance::ready("instance-1", Resources::slots_only(4)) };
        let mut world = World::new(services, vec![instance]);
        world.demand("web", 1);
        world.demand("api", 1);
        world.put("web", "instance-1", 0, Phase::Running, 10);
        world.put("api", "instance-1", 0, Phase::Running, 90);
        world.put("api", "instance-1", 1, Phase::Running, 10);
        assert!(kinds(&world).contains(&format!("{goes} api/1 on instance-1")), "{:?}", kinds(&world));
        world.converge(8);
        let is_frozen = |name: &&str| {
            let service = world.service(name);
            world.state.containers().any(|it| it.key.service == service && it.phase == Phase::Frozen)
        };
        assert_eq!(["web", "api"].into_iter().filter(|name| is_frozen(name)).collect::<Vec<_>>(), frozen);
    }
}

#[test]
fn over_the_bound_the_least_important_frozen_one_with_the_least_work_ends_first() {
    let freezes =
        |name, priority| Service { on_preempt: OnPreempt::Freeze, ..Service::demand(name, priority) };
    for (frozen_max, ended) in [(2, vec!["stop b/1"]), (1, vec!["stop b/0", "stop b/1"])] {
        let instance = Instance { frozen_max, ..Instance::ready("instance-1", Resources::slots_only(3)) };
        let mut world = World::new(vec![freezes("a", 1), freezes("b", 2)], vec![instance]);
        world.demand("a", 0);
        world.demand("b", 0);
        for (service, ordinal, age_ms) in [("a", 0, 10), ("b", 0, 900), ("b", 1, 100)] {
            world.put(service, "instance-1", ordinal, Phase::Frozen, age_ms);
        }
        let ended: Vec<_> = ended.iter().map(|what| format!("{what} on instance-1")).collect();
        assert_eq!(kinds(&world), ended, "{frozen_max}");
    }
}

#[test]
fn no_standby_is_warmed_of_a_generation_whose_rollout_is_held_back() {
    let web = Service { standby_per_instance: 1, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web], 2, 3);
    world.demand("web", 1);
    world.put("web", "instance-1", 0, Phase::Running, 10);
    let (service, until) = (world.service("web"), world.now.plus(1_000));
    let instance = world.state.instance_id("instance-2");
    world.state.apply(Delta::Backoff(Backoff { service, instance, until }));
    assert_eq!(kinds(&world), ["start web/1 on instance-1"]);
    change(&mut world, "web", "instance-1", 0, |it| it.outdated = true);
    assert!(kinds(&world).is_empty(), "{:?}", kinds(&world));
}

#[test]
fn of_a_service_that_does_not_freeze_only_its_standbys_stay_frozen() {
    let web = Service { standby_per_instance: 1, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web], 1, 3);
    world.demand("web", 0);
    world.put("web", "instance-1", 0, Phase::Frozen, 10);
    world.put("web", "instance-1", 1, Phase::Frozen, 10);
    assert_eq!(kinds(&world), ["stop web/1 on instance-1"]);
}

#[test]
fn what_is_frozen_of_a_service_is_a_standby_of_its_own() {
    let web = Service { standby_per_instance: 1, on_preempt: OnPreempt::Freeze, ..Service::demand("web", 2) };
    let instance = Instance { frozen_max: 1, ..Instance::ready("instance-1", Resources::slots_only(1)) };
    let mut world = World::new(vec![Service::demand("first", 1), web], vec![instance]);
    world.demand("first", 1);
    world.demand("web", 1);
    world.put("web", "instance-1", 0, Phase::Running, 10);
    assert_eq!(kinds(&world), ["freeze web/0 on instance-1", "start first/0 on instance-1"]);
}

#[test]
fn a_successor_is_not_stopped_in_place_of_one_that_cannot_be_told_to_go_yet() {
    let mut world = World::pool(vec![Service::demand("web", 1)], 2, 2);
    world.demand("web", 1);
    world.put("web", "instance-1", 0, Phase::Running, 90_000);
    change(&mut world, "web", "instance-1", 0, |it| it.operation = Some(Operation::Start { after: vec![] }));
    world.put("web", "instance-2", 0, Phase::Running, 10);
    world.instance_state("instance-1", InstanceState::Draining);
    assert!(kinds(&world).is_empty());
}

#[test]
fn the_last_that_is_trusted_goes_with_those_that_it_stays_for() {
    let web = Service { proven_after_ms: 10_000, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web], 3, 1);
    world.demand("web", 0);
    world.put("web", "instance-1", 0, Phase::Running, 60_000);
    world.put("web", "instance-2", 0, Phase::Running, 0);
    world.put("web", "instance-3", 0, Phase::Running, 0);
    world.instance_state("instance-1", InstanceState::Draining);
    // The old one can't be told to go yet. Without the new one, what is trusted of them has nothing to stay for.
    change(&mut world, "web", "instance-3", 0, |it| {
        it.outdated = true;
        it.operation = Some(Operation::Start { after: vec![] });
    });
    assert_eq!(kinds(&world), ["stop web/0 on instance-1", "stop web/0 on instance-2"]);
    let plan = world.plan();
    world.issue(&plan);
    assert!(kinds(&world).is_empty(), "{:?}", kinds(&world));
}

#[test]
fn one_that_is_trusted_and_about_to_go_stands_in_for_no_other() {
    let web = Service { proven_after_ms: 10_000, min_runtime_ms: 50_000, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web], 3, 3);
    world.demand("web", 1);
    world.put("web", "instance-1", 0, Phase::Running, 60_000);
    world.put("web", "instance-2", 0, Phase::Running, 0);
    world.put("web", "instance-2", 1, Phase::Running, 0);
    world.put("web", "instance-3", 0, Phase::Running, 10_000);
    world.instance_state("instance-3", InstanceState::Draining);
    let under_way = |it: &mut Container| it.operation = Some(Operation::Start { after: vec![] });
    change(&mut world, "web", "instance-2", 0, |it| it.outdated = true);
    change(&mut world, "web", "instance-2", 0, under_way);
    change(&mut world, "web", "instance-3", 0, under_way);
    assert_eq!(
        kinds(&world),
        ["stop web/1 on instance-2"],
        "the last that is trusted and stays is the first's"
    );
    let plan = world.plan();
    world.issue(&plan);
    assert!(kinds(&world).is_empty(), "{:?}", kinds(&world));
}

#[test]
fn one_that_runs_is_not_given_up_for_one_that_is_frozen_beside_it() {
    // big needs two slots and the memory of one of web's two: the frozen one ends, and the other goes on.
    let sized = |service, slots, memory_mib| Service {
        request: Resources { slots, cpu_millis: 0, memory_mib },
        ..service
    };
    let web = Service { on_preempt: OnPreempt::Freeze, ..sized(Service::demand("web", 2), 1, 1) };
    // A slot without memory makes it seem as if there was room for two of big, and web had more than its share: then
    // that which runs would go for big, and the frozen one be thawed, for which there is no memory.
    let instances = [("instance-1", 3, 3), ("instance-2", 1, 0)].map(|(name, slots, memory_mib)| {
        let capacity = Resources { memory_mib, ..Resources::slots_only(slots) };
        Instance { frozen_max: 1, ..Instance::ready(name, capacity) }
    });
    let services = vec![sized(Service::fill("big", 1), 2, 2), web];
    let mut world = World::new(services, instances.to_vec());
    world.demand("web", 2);
    world.put("web", "instance-1", 0, Phase::Frozen, 10);
    world.put("web", "instance-1", 1, Phase::Running, 10);
    assert_eq!(kinds(&world), ["stop web/0 on instance-1", "start big/0 on instance-1"]);
    world.converge(2);
    assert_eq!((world.running("big"), world.running("web")), (1, 1));
}

#[test]
fn of_a_new_generation_nothing_goes_for_old_ones_that_are_about_to() {
    // The two old ones have not become ready, and can't be told to go yet: of the new ones one is too many then.
    let web = Service { proven_after_ms: 10_000, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web], 3, 2);
    world.demand("web", 1);
    for instance in ["instance-1", "instance-2"] {
        world.put("web", instance, 0, Phase::Running, 0);
        change(&mut world, "web", instance, 0, |it| {
            it.outdated = true;
            it.fault = Some(Fault::NotReady);
            it.operation = Some(Operation::Start { after: vec![] });
        });
    }
    world.put("web", "instance-1", 1, Phase::Running, 0);
    world.put("web", "instance-3", 0, Phase::Running, 0);
    assert!(kinds(&world).is_empty(), "{:?}", kinds(&world));
    world.finish();
    world.converge(4);
    assert_eq!(world.running("web"), 1);
}

#[test]
fn the_successor_of_one_that_is_drained_does_not_go_while_that_one_stays() {
    // What is trusted stays for the sake of the rollout; stopped for it, the new one would be started again.
    let web = Service { proven_after_ms: 10_000, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web], 2, 2);
    world.demand("web", 1);
    world.put("web", "instance-1", 0, Phase::Running, 60_000);
    world.put("web", "instance-1", 1, Phase::Running, 0);
    world.put("web", "instance-2", 0, Phase::Running, 0);
    world.instance_state("instance-1", InstanceState::Draining);
    change(&mut world, "web", "instance-1", 1, |it| {
        it.outdated = true;
        it.operation = Some(Operation::Start { after: vec![] });
    });
    assert!(kinds(&world).is_empty(), "{:?}", kinds(&world));
    change(&mut world, "web", "instance-1", 1, |it| it.operation = None);
    assert_eq!(kinds(&world), ["stop web/0 on instance-1", "stop web/1 on instance-1"]);
}

#[test]
fn an_unhealthy_one_goes_in_the_same_plan_as_the_old_one_beside_it() {
    let web = Service { min: 2, proven_after_ms: 100_000, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web], 2, 3);
    world.demand("web", 0);
    world.put("web", "instance-1", 0, Phase::Running, 0);
    change(&mut world, "web", "instance-1", 0, |it| {
        it.operation = Some(Operation::Start { after: Vec::new() });
    });
    world.put("web", "instance-1", 1, Phase::Starting, 0);
    change(&mut world, "web", "instance-1", 1, |it| it.outdated = true);
    world.put("web", "instance-2", 0, Phase::Running, 0);
    change(&mut world, "web", "instance-2", 0, |it| it.fault = Some(Fault::Unhealthy));
    world.put("web", "instance-2", 1, Phase::Running, 0);
    change(&mut world, "web", "instance-2", 1, |it| {
        it.operation = Some(Operation::Start { after: Vec::new() });
    });
    let plan = world.plan();
    assert_eq!(kinds(&world), ["stop web/1 on instance-1", "stop web/0 on instance-2"]);
    world.issue(&plan);
    assert!(kinds(&world).is_empty(), "{:?}", kinds(&world));
}

#[test]
fn one_that_is_drained_and_stays_until_another_is_trusted_goes_when_that_is_due() {
    let web = Service { proven_after_ms: 100_000, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web], 2, 3);
    world.demand("web", 2);
    world.put("web", "instance-1", 0, Phase::Running, 90_000);
    world.put("web", "instance-1", 1, Phase::Running, 0);
    change(&mut world, "web", "instance-1", 1, |it| it.outdated = true);
    world.put("web", "instance-2", 0, Phase::Running, 100_000);
    world.instance_state("instance-1", InstanceState::Cordoned);
    world.instance_state("instance-2", InstanceState::Draining);
    let plan = world.plan();
    assert!(plan.actions.is_empty(), "{}", world.show(&plan));
    assert_eq!(plan.next_wake_at, Some(world.now.plus(10_000)));
    world.now = world.now.plus(10_000);
    assert_eq!(kinds(&world), ["stop web/0 on instance-2"]);
}

#[test]
fn what_stays_for_the_sake_of_a_trial_goes_with_the_last_old_one() {
    // The unhealthy one serves for want of a successor that is trusted; without the old one there is no trial.
    let web = Service { proven_after_ms: 10_000, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web], 1, 4);
    world.demand("web", 1);
    world.put("web", "instance-1", 0, Phase::Starting, 0);
    world.put("web", "instance-1", 1, Phase::Running, 0);
    world.put("web", "instance-1", 2, Phase::Running, 0);
    change(&mut world, "web", "instance-1", 0, |it| it.outdated = true);
    change(&mut world, "web", "instance-1", 1, |it| it.operation = Some(Operation::Start { after: vec![] }));
    change(&mut world, "web", "instance-1", 2, |it| it.fault = Some(Fault::Unhealthy));
    assert_eq!(kinds(&world), ["stop web/0 on instance-1", "stop web/2 on instance-1"]);
    let plan = world.plan();
    world.issue(&plan);
    assert!(kinds(&world).is_empty(), "{:?}", kinds(&world));
}

#[test]
fn while_its_successor_is_on_its_way_an_old_one_is_no_surplus_for_others() {
    // b's old one is to go once the new one runs: until then it is as important as b is, and batch goes.
    let services = vec![Service::demand("a", 1), Service::demand("b", 2), Service::fill("batch", 3)];
    let mut world = World::pool(services, 1, 3);
    world.demand("a", 1);
    world.demand("b", 1);
    world.put("b", "instance-1", 0, Phase::Running, 10);
    world.put("b", "instance-1", 1, Phase::Starting, 0);
    world.put("batch", "instance-1", 0, Phase::Running, 90_000);
    change(&mut world, "b", "instance-1", 0, |it| it.outdated = true);
    change(&mut world, "b", "instance-1", 1, |it| it.operation = Some(Operation::Start { after: vec![] }));
    assert_eq!(kinds(&world), ["stop batch/0 on instance-1", "start a/0 on instance-1"]);
}

#[test]
fn a_moment_of_unknown_demand_does_not_cut_scale_down_short() {
    let web = Service { scale_down_after_ms: 30_000, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web], 1, 6);
    world.demand("web", 6);
    world.converge(2);
    world.unknown("web");
    world.now = world.now.plus(10_000);
    world.demand("web", 2);
    assert!(kinds(&world).is_empty());
    assert_eq!(world.plan().next_wake_at, Some(common::NOW.plus(25_000)), "stale, at first");
    world.now = common::NOW.plus(29_999);
    assert!(kinds(&world).is_empty());
    world.now = common::NOW.plus(30_000);
    assert_eq!(world.plan().actions.len(), 4);
}

#[test]
fn an_outdated_fill_stays_where_its_successor_would_have_no_room() {
    let mut world = World::pool(vec![Service::fill("batch", 1), Service::demand("web", 2)], 1, 1);
    world.demand("web", 1);
    world.put("batch", "instance-1", 0, Phase::Running, 10);
    world.put("web", "instance-1", 0, Phase::Running, 10);
    change(&mut world, "batch", "instance-1", 0, |it| it.outdated = true);
    change(&mut world, "web", "instance-1", 0, |it| it.operation = Some(Operation::Start { after: vec![] }));
    assert!(kinds(&world).is_empty(), "{:?}", kinds(&world));
}

#[test]
fn nothing_outdated_is_replaced_while_starts_are_held_back() {
    for service in [Service::demand("web", 1), Service::fill("web", 1)] {
        let mut world = World::pool(vec![service], 1, 1);
        world.demand("web", 1);
        world.put("web", "instance-1", 0, Phase::Running, 10);
        change(&mut world, "web", "instance-1", 0, |it| it.outdated = true);
        let (service, until) = (world.service("web"), world.now.plus(1_000));
        for instance in [None, world.state.instance_id("instance-1")] {
            let mut world = world.clone();
            world.state.apply(Delta::Backoff(Backoff { service, instance, until }));
            let made = world.plan();
            assert!(made.actions.is_empty(), "{}", world.show(&made));
            assert!(made.not_done.contains(&NotDone::RolloutFailing { service, count: 1, until }));
            assert_eq!(made.next_wake_at.unwrap(), until);
        }
    }
}

#[test]
fn an_unknown_demand_with_a_min_moves_nothing_off_a_drained_instance() {
    let web = Service { min: 3, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web], 2, 4);
    world.put("web", "instance-1", 0, Phase::Running, 10);
    world.put("web", "instance-1", 1, Phase::Running, 10);
    world.instance_state("instance-1", InstanceState::Draining);
    // min is 3 and two run: one more starts, and the two stay until it is known how many are wanted.
    let plan = world.converge(2);
    assert_eq!(world.running("web"), 3);
    assert!(plan.not_done.iter().any(|it| matches!(it, NotDone::DrainWaits { count: 2, .. })));
    world.demand("web", 1);
    world.converge(4);
    assert_eq!(world.running("web"), 3, "min still holds");
    assert!(world.state.containers_on(world.key("web", "instance-1", 0).instance).is_empty());
}

#[test]
fn one_that_was_created_and_is_being_stopped_is_removed_after_that() {
    let mut world = World::pool(vec![Service::demand("web", 1)], 1, 1);
    world.demand("web", 0);
    world.put("web", "instance-1", 0, Phase::Created, 0);
    change(&mut world, "web", "instance-1", 0, |it| it.operation = Some(Operation::Stop));
    assert!(kinds(&world).is_empty());
    change(&mut world, "web", "instance-1", 0, |it| it.operation = None);
    assert_eq!(kinds(&world), ["remove web/0 on instance-1"]);
}

#[test]
fn a_number_that_is_waited_for_is_not_given_again() {
    // batch/0 waits for web/0, of which nothing is known any more: a new web/0 would never leave.
    let mut world = World::pool(vec![Service::demand("web", 1), Service::fill("batch", 2)], 1, 3);
    let gone = world.key("web", "instance-1", 0);
    world.put("batch", "instance-1", 0, Phase::Created, 0);
    change(&mut world, "batch", "instance-1", 0, |it| {
        it.operation = Some(Operation::Start { after: vec![gone] });
    });
    world.demand("web", 2);
    assert_eq!(kinds(&world), ["start web/1 on instance-1", "start web/2 on instance-1"]);
}

#[test]
fn over_capacity_the_more_important_stays_while_the_less_important_cannot_be_told_to_go() {
    let mut world = World::pool(vec![Service::demand("web", 1), Service::fill("batch", 2)], 1, 1);
    world.demand("web", 1);
    world.put("web", "instance-1", 0, Phase::Running, 10);
    world.put("batch", "instance-1", 0, Phase::Running, 10);
    change(&mut world, "batch", "instance-1", 0, |it| {
        it.operation = Some(Operation::Start { after: vec![] });
    });
    assert!(kinds(&world).is_empty());
    change(&mut world, "batch", "instance-1", 0, |it| it.operation = None);
    let made = plan(&world.state, world.now);
    assert!(matches!(made.actions[..], [Action::Stop { reason: StopReason::OverCapacity, .. }]));
}

#[test]
fn the_small_one_is_spared_when_the_large_one_is_enough() {
    let sized = |service, slots| Service { request: Resources::slots(slots), ..service };
    let services = vec![
        sized(Service::demand("big", 1), 3),
        sized(Service::demand("middle", 2), 3),
        sized(Service::fill("small", 3), 1),
    ];
    let mut world = World::pool(services, 1, 4);
    world.demand("middle", 1);
    world.put("middle", "instance-1", 0, Phase::Running, 10);
    world.put("small", "instance-1", 0, Phase::Running, 10);
    world.demand("big", 1);
    // Of 4 slots 3 are wanted. small goes first, with it 1 is free; then middle, and with it 4: small may stay.
    assert_eq!(kinds(&world), ["stop middle/0 on instance-1", "start big/0 on instance-1"]);
}

#[test]
fn of_those_that_are_too_many_the_most_important_stays_and_nothing_is_lost_for_a_surplus() {
    // 4 slots of 6 are wanted. In the order of importance a has 1, b 2, and c 3: with c either a or b is enough.
    for (demanded, expected) in [
        (
            1,
            [
                "start a/0 on instance-2",
                "start web/0 on instance-1",
                "stop a/0 on instance-1",
                "stop c/0 on instance-1",
            ]
            .as_slice(),
        ),
        (0, ["start web/0 on instance-1", "stop b/0 on instance-1", "stop c/0 on instance-1"].as_slice()),
    ] {
        let sized = |name, priority, slots| Service {
            request: Resources::slots(slots),
            ..Service::demand(name, priority)
        };
        let services = vec![sized("a", 4, 1), sized("b", 3, 2), sized("c", 2, 3), sized("web", 1, 4)];
        // Room for one that has gone for nothing, to start again.
        let slots = [("instance-1", 6), ("instance-2", 1)];
        let instances = slots.map(|(name, slots)| Instance::ready(name, Resources::slots_only(slots)));
        let mut world = World::new(services, instances.to_vec());
        for name in ["a", "b", "c"] {
            world.demand(name, 1);
            world.put(name, "instance-1", 0, Phase::Running, 10);
        }
        world.demand("b", demanded);
        world.demand("web", 1);
        let mut kinds = kinds(&world);
        kinds.sort();
        assert_eq!(kinds, expected);
    }
}

#[test]
fn what_a_larger_equal_gives_back_keeps_all_that_it_is_enough_for() {
    // For big two of small go on the third instance. small takes the room of middle there, which has too many: then
    // both may stay, and one of them less is started elsewhere.
    let sized = |service, slots| Service { request: Resources::slots(slots), ..service };
    let services = vec![
        sized(Service::demand("big", 1), 3),
        sized(Service::demand("bigger", 1), 3),
        sized(Service::demand("middle", 2), 2),
        sized(Service { max: 3, ..Service::fill("small", 2) }, 1),
        sized(Service::demand("least", 3), 1),
    ];
    let mut world = World::pool(services, 3, 5);
    world.demand("big", 4);
    world.demand("bigger", 1);
    world.demand("middle", 2);
    world.put("middle", "instance-1", 0, Phase::Running, 500_000);
    world.put("middle", "instance-3", 0, Phase::Running, 1);
    world.put("small", "instance-3", 0, Phase::Running, 0);
    world.put("small", "instance-3", 1, Phase::Running, 0);
    let expected = [
        "start big/0 on instance-1",
        "start big/0 on instance-2",
        "stop middle/0 on instance-3",
        "start big/0 on instance-3",
        "start small/0 on instance-2",
    ];
    assert_eq!(kinds(&world), expected);
    // Nor does anybody go for the one that is not started.
    world.put("least", "instance-2", 0, Phase::Running, 0);
    world.demand("least", 1);
    assert_eq!(kinds(&world), expected);
}

#[test]
fn where_freezing_makes_no_room_the_one_with_the_least_work_is_stopped() {
    // Frozen, the younger one would keep the memory that is wanted, and the older one would be stopped for that.
    let memory = |service, memory_mib| Service {
        request: Resources { slots: 1, cpu_millis: 0, memory_mib },
        ..service
    };
    let batch = Service { on_preempt: OnPreempt::Freeze, ..Service::fill("batch", 3) };
    // One that has no room anywhere: no share is left for batch, so that both of it are above theirs.
    let services = vec![
        memory(Service::demand("web", 1), 2),
        memory(Service::demand("large", 2), 100),
        memory(batch, 2),
    ];
    let capacity = Resources { slots: 2, cpu_millis: Resources::UNLIMITED, memory_mib: 4 };
    let instance = Instance { frozen_max: 1, ..Instance::ready("instance-1", capacity) };
    let mut world = World::new(services, vec![instance]);
    world.put("batch", "instance-1", 0, Phase::Running, 100_000);
    world.put("batch", "instance-1", 1, Phase::Running, 1_000);
    world.demand("web", 1);
    world.demand("large", 1);
    assert_eq!(kinds(&world), ["stop batch/1 on instance-1", "start web/0 on instance-1"]);
}

#[test]
fn on_an_instance_above_capacity_a_start_waits_for_everything_that_leaves() {
    let mut world = World::pool(vec![Service::demand("web", 1), Service::fill("batch", 2)], 1, 3);
    for ordinal in 0..3 {
        world.put("batch", "instance-1", ordinal, Phase::Running, 10);
    }
    let instance = world.state.instance_id("instance-1").unwrap();
    world.state.apply(Delta::Capacity { instance, capacity: Resources::slots_only(2) });
    world.demand("web", 1);
    let plan = world.plan();
    let Some(Action::Start { after, .. }) = plan.actions.last() else { panic!("{}", world.show(&plan)) };
    assert_eq!((plan.actions.len(), after.len()), (3, 2), "{}", world.show(&plan));
}

#[test]
fn of_an_equal_no_more_is_stopped_than_it_has_above_its_share() {
    // 4 slots for equals: c wants one, 3 are left for a and b; b's one takes 2 of them, a has 1 too many. The only
    // place for b holds two of a.
    let b = Service { request: Resources::slots(2), ..Service::demand("b", 1) };
    let hosts = [("i1", 2), ("i2", 1), ("i3", 1)];
    let hosts = hosts.map(|(name, slots)| Instance::ready(name, Resources::slots_only(slots)));
    let a = Service { max: 2, ..Service::fill("a", 1) };
    let mut world = World::new(vec![a, b, Service::demand("c", 1)], hosts.to_vec());
    world.demand("b", 1);
    world.demand("c", 1);
    world.put("a", "i1", 0, Phase::Running, 10);
    world.put("a", "i1", 1, Phase::Running, 10);
    world.put("c", "i2", 0, Phase::Running, 10);
    assert!(kinds(&world).is_empty());
}

#[test]
fn a_surplus_leaves_by_the_placement_rule() {
    // By age alone one would go from each instance, or the one of the second.
    for (placement, ages, gone) in [
        (Placement::Spread, [vec![900, 800, 700], vec![10]], ["web/1 on instance-1", "web/2 on instance-1"]),
        (Placement::BinPack, [vec![900, 10], vec![30, 20]], ["web/0 on instance-1", "web/1 on instance-1"]),
        (Placement::BinPack, [vec![900, 800], vec![3, 2, 1]], ["web/0 on instance-1", "web/1 on instance-1"]),
    ] {
        let mut world = World::pool(vec![Service { placement, ..Service::demand("web", 1) }], 2, 4);
        for (instance, ages) in ["instance-1", "instance-2"].into_iter().zip(&ages) {
            for (ordinal, &age) in (0..).zip(ages) {
                world.put("web", instance, ordinal, Phase::Running, age);
            }
        }
        world.demand("web", u32::try_from(ages.concat().len()).unwrap() - 2);
        assert_eq!(kinds(&world), gone.map(|name| format!("stop {name}")), "{placement:?}");
    }
}

#[test]
fn among_places_that_cost_nobody_anything_free_room_comes_first_then_a_thaw_then_the_placement_rule() {
    let web = Service { on_preempt: OnPreempt::Freeze, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web, Service::demand("other", 2)], 3, 3);
    world.demand("other", 3);
    // The first instance is empty but for what is leaving, the second has free room and one of web more.
    for ordinal in 0..3 {
        world.put("other", "instance-1", ordinal, Phase::Stopping, 10);
        world.put("other", "instance-3", ordinal, Phase::Running, 10);
    }
    world.put("web", "instance-2", 0, Phase::Running, 10);
    world.demand("web", 2);
    assert_eq!(kinds(&world), ["start web/1 on instance-2"]);
    // All free: the frozen ones of the second are thawed, the one with the most work in it first.
    for ordinal in 0..3 {
        world.state.apply(Delta::ContainerGone(world.key("other", "instance-1", ordinal)));
    }
    assert_eq!(kinds(&world), ["start web/0 on instance-1"]);
    world.put("web", "instance-2", 1, Phase::Frozen, 100);
    world.put("web", "instance-2", 2, Phase::Frozen, 900);
    assert_eq!(kinds(&world), ["thaw web/2 on instance-2"]);
}

#[test]
fn a_removed_service_is_the_least_important_also_where_it_cannot_be_told_to_go() {
    // What is frozen of it holds the memory that web needs, and every slot is taken: batch goes first, so that it
    // has a slot to end in, which is web's afterwards.
    let request = Resources { memory_mib: 2, ..Resources::ONE_SLOT };
    let gone = Service { removed: true, request, ..Service::demand("gone", 1) };
    let services = vec![gone, Service { request, ..Service::demand("web", 2) }, Service::fill("batch", 3)];
    let capacity = Resources { memory_mib: 2, ..Resources::slots_only(1) };
    let mut world = World::new(services, vec![Instance::ready("instance-1", capacity)]);
    world.demand("web", 1);
    world.put("gone", "instance-1", 0, Phase::Frozen, 10);
    world.put("batch", "instance-1", 0, Phase::Running, 10);
    assert_eq!(kinds(&world), ["stop batch/0 on instance-1"]);
    world.converge(4);
    assert_eq!((world.running("web"), world.state.containers().count()), (1, 1));
}
