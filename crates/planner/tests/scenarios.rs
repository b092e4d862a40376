//! Scenarios with the arithmetic visible.
//!
//! In comments, `4 + 5 = 9` counts running containers of each service, in the order of priority.

mod common;

use common::World;
use planner::{
    Action, Backoff, Delta, Fault, Instance, InstanceState, Millis, NotDone, OnPreempt, OnStale, Operation,
    Overlap, Phase, Placement, Reading, Resources, Service, StopReason, success,
};

/// The demonstration: three instances of three slots, priority 1 by demand, priority 2 fills.
fn demo() -> World {
    World::pool(vec![Service::demand("web", 1), Service::fill("batch", 2)], 3, 3)
}

/// What the demonstration runs, after everything is carried out: web and batch.
fn settled(world: &mut World) -> (u32, u32) {
    world.converge(4);
    (world.running("web"), world.running("batch"))
}

#[test]
fn the_demonstration() {
    let mut world = demo();
    // Demand, and what comes of it on nine slots.
    for (demand, web, batch, success) in [
        (4, 4, 5, true),   // 4 + 5 = 9
        (5, 5, 4, true),   // 5 + 4 = 9
        (2, 2, 7, true),   // 2 + 7 = 9
        (9, 9, 0, true),   // 9 + 0 = 9
        (12, 9, 0, false), // 9 + 0 = 9, and 12 - 9 = 3 are unmet
        (0, 0, 9, true),   // 0 + 9 = 9
    ] {
        world.demand("web", demand);
        assert_eq!(settled(&mut world), (web, batch), "demand {demand}");
        let plan = world.plan();
        let outcome = planner::success(&world.state, &plan, world.now);
        assert_eq!(outcome.success, success, "demand {demand}: {:?}", outcome.blocked_by);
        assert_eq!(plan.service(world.service("web")).unmet, demand - web);
        if !success {
            assert_eq!(outcome.blocked_by, ["capacity"]);
            assert_eq!(world.not_done(&plan), ["web: 3 more wanted, and no room that could be taken"]);
        }
    }
}

#[test]
fn room_that_fill_has_not_taken_yet_is_no_success() {
    let mut world = demo();
    world.demand("web", 4);
    settled(&mut world);
    let outcome = |world: &World| {
        let plan = world.plan();
        let outcome = success(&world.state, &plan, world.now);
        (outcome.success, outcome.blocked_by)
    };
    assert_eq!(outcome(&world), (true, vec![]));
    let batch = world.state.containers().find(|it| it.key.service == world.service("batch")).unwrap().key;
    world.state.apply(Delta::ContainerGone(batch));
    // 4 + 4 = 8: the start of one more of batch is planned, then under way, then over.
    assert_eq!(outcome(&world), (false, vec!["in_progress"]));
    let plan = world.plan();
    world.issue(&plan);
    assert_eq!(outcome(&world), (false, vec!["in_progress"]));
    world.finish();
    assert_eq!(outcome(&world), (true, vec![]));
}

#[test]
fn a_rise_by_one_is_one_swap() {
    let mut world = demo();
    world.demand("web", 4);
    settled(&mut world);
    world.demand("web", 5);
    let plan = world.plan();
    // 4 + 5 = 9: one of five goes, and the fifth of web takes its room.
    let [
        Action::Stop { container: victim, reason: StopReason::Preempted { .. } },
        Action::Start { after, .. },
    ] = plan.actions.as_slice()
    else {
        panic!("{}", world.show(&plan));
    };
    assert_eq!(after, &[*victim]);
    assert!(world.words(&plan)[0].ends_with("to make room for web (priority 1)"), "{:?}", world.words(&plan));
    assert!(
        world.words(&plan)[1].contains("because 4 of 5 run, in the room of batch/"),
        "{:?}",
        world.words(&plan)
    );
    let outcome = success(&world.state, &plan, world.now);
    assert_eq!((outcome.success, outcome.blocked_by), (false, vec!["in_progress"]));
}

#[test]
fn a_fall_by_one_is_one_swap_too() {
    let mut world = demo();
    world.demand("web", 5);
    settled(&mut world);
    world.demand("web", 4);
    let plan = world.plan();
    let [
        Action::Stop { container, reason: StopReason::Surplus { have: 5, target: 4 } },
        Action::Start { after, .. },
    ] = plan.actions.as_slice()
    else {
        panic!("{}", world.show(&plan));
    };
    assert_eq!(after, &[*container], "batch takes the room that web leaves");
}

#[test]
fn a_rise_while_the_fall_is_under_way_waits_for_what_leaves_already() {
    let mut world = demo();
    world.demand("web", 9);
    settled(&mut world);
    world.demand("web", 8);
    let fall = world.plan();
    world.issue(&fall);
    // 8 kept + 1 leaving, its room promised to a batch container that waits for it.
    world.demand("web", 9);
    let rise = world.plan();
    assert!(rise.actions.is_empty(), "nothing can be told to go: {}", world.show(&rise));
    assert!(
        matches!(rise.not_done.as_slice(), [NotDone::UnderWay { count: 1, .. }]),
        "{}",
        world.show(&rise)
    );
    assert_eq!(settled_after(&mut world), (9, 0));
}

fn settled_after(world: &mut World) -> (u32, u32) {
    world.finish();
    settled(world)
}

#[test]
fn spread_and_binpack() {
    for (placement, on_each) in [(Placement::Spread, [1, 1, 1]), (Placement::BinPack, [3, 0, 0])] {
        let mut web = Service::demand("web", 1);
        web.placement = placement;
        let mut world = World::pool(vec![web], 3, 3);
        world.demand("web", 3);
        world.converge(2);
        let counts: Vec<usize> =
            world.state.instance_ids().map(|instance| world.state.containers_on(instance).len()).collect();
        assert_eq!(counts, on_each, "{placement:?}");
    }
}

#[test]
fn three_priorities() {
    let services = vec![Service::demand("a", 1), Service::demand("b", 2), Service::fill("c", 3)];
    let mut world = World::pool(services, 2, 4);
    // Eight slots: 3 + 3 + 2 = 8.
    world.demand("a", 3);
    world.demand("b", 3);
    world.converge(2);
    assert_eq!((world.running("a"), world.running("b"), world.running("c")), (3, 3, 2));
    // a wants 4 more: the two of c go first, then two of b: 7 + 1 + 0 = 8, and 3 - 1 = 2 of b are unmet.
    world.demand("a", 7);
    let plan = world.converge(2);
    assert_eq!((world.running("a"), world.running("b"), world.running("c")), (7, 1, 0));
    assert_eq!(world.not_done(&plan), ["b: 2 more wanted, and no room that could be taken"]);
}

#[test]
fn the_surplus_of_one_is_the_room_of_another() {
    let services = vec![Service::demand("a", 1), Service::demand("b", 2), Service::fill("c", 3)];
    let mut world = World::pool(services, 3, 3);
    world.demand("a", 3);
    world.demand("b", 3);
    world.converge(2);
    // a rises by one while b falls by one: b's surplus goes for it, and c loses nothing.
    world.demand("a", 4);
    world.demand("b", 2);
    let plan = world.plan();
    let words = world.words(&plan);
    assert_eq!(plan.actions.len(), 2, "{words:?}");
    assert!(
        words[0].starts_with("stop b/") && words[0].ends_with("because 3 run and 2 are wanted"),
        "{words:?}"
    );
    assert!(words[1].starts_with("start a/"), "{words:?}");
}

#[test]
fn unequal_requests() {
    let big = Service { request: Resources::slots(3), ..Service::demand("big", 1) };
    let mut world = World::pool(vec![big, Service::fill("small", 2)], 2, 4);
    world.demand("big", 0);
    world.converge(2);
    assert_eq!(world.running("small"), 8);
    // 3 of 4 slots on each: 2 × 3 + 2 × 1 = 8. A third does not fit: 1 + 1 slots are left, on two instances.
    world.demand("big", 3);
    let plan = world.converge(2);
    assert_eq!((world.running("big"), world.running("small")), (2, 2));
    assert_eq!(world.not_done(&plan), ["big: 1 more wanted, and no room that could be taken"]);
}

#[test]
fn memory_is_a_dimension_of_its_own() {
    let request = Resources { slots: 1, cpu_millis: 0, memory_mib: 400 };
    let web = Service { request, ..Service::demand("web", 1) };
    let small = Service {
        request: Resources { slots: 1, cpu_millis: 0, memory_mib: 100 },
        ..Service::fill("small", 2)
    };
    let capacity = Resources { slots: 10, cpu_millis: Resources::UNLIMITED, memory_mib: 1000 };
    let mut world = World::new(vec![web, small], vec![Instance::ready("i", capacity)]);
    // 2 × 400 + 2 × 100 = 1000 MiB, in four of ten slots.
    world.demand("web", 3);
    world.converge(2);
    assert_eq!((world.running("web"), world.running("small")), (2, 2));
}

#[test]
fn weights_among_equals() {
    let light = Service::fill("light", 2);
    let heavy = Service { weight: 2, ..Service::fill("heavy", 2) };
    let mut world = World::pool(vec![Service::demand("web", 1), light, heavy], 3, 3);
    world.demand("web", 0);
    world.converge(2);
    // 9 by 2:1 is 6 and 3.
    assert_eq!((world.running("heavy"), world.running("light")), (6, 3));
    // 8 by 2:1 is 5.33 and 2.67: the larger remainder is light's, so heavy gives the one: 1 + 5 + 3 = 9.
    world.demand("web", 1);
    let plan = world.plan();
    assert!(world.words(&plan)[0].starts_with("stop heavy/"), "{:?}", world.words(&plan));
    world.converge(2);
    assert_eq!((world.running("web"), world.running("heavy"), world.running("light")), (1, 5, 3));
}

#[test]
fn a_new_equal_gets_its_share_once_the_others_have_run_their_time() {
    let first = Service { min_runtime_ms: 10_000, ..Service::fill("first", 2) };
    let mut second = Service::fill("second", 2);
    second.paused = true;
    let mut world = World::pool(vec![first, second], 1, 4);
    world.converge(2);
    assert_eq!((world.running("first"), world.running("second")), (4, 0));
    let service = world.service("second");
    world.state.apply(Delta::Paused { service, paused: false });
    let plan = world.converge(2);
    assert_eq!(plan.next_wake_at, Some(world.now.plus(10_000)));
    assert_eq!(
        world.not_done(&plan)[0],
        "second: waits 10000 ms for its share, until an equal has run its time"
    );
    world.now = world.now.plus(10_000);
    let plan = world.plan();
    assert!(
        world.words(&plan)[0].ends_with("because second has less than its share"),
        "{:?}",
        world.words(&plan)
    );
    world.converge(2);
    assert_eq!((world.running("first"), world.running("second")), (2, 2));
}

#[test]
fn min_runtime_never_delays_more_important_work() {
    let batch = Service { min_runtime_ms: 3_600_000, ..Service::fill("batch", 2) };
    let mut world = World::pool(vec![Service::demand("web", 1), batch], 1, 2);
    world.demand("web", 0);
    world.converge(2);
    world.demand("web", 2);
    world.converge(2);
    assert_eq!((world.running("web"), world.running("batch")), (2, 0));
}

#[test]
fn of_a_surplus_those_go_that_have_run_their_time_and_then_the_youngest() {
    let web = Service { min_runtime_ms: 50_000, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web], 1, 4);
    for (ordinal, age_ms) in [(0, 90_000), (1, 1_000), (2, 60_000), (3, 2_000)] {
        world.put("web", "instance-1", ordinal, Phase::Running, age_ms);
    }
    for (demand, gone) in [(3, vec![2]), (2, vec![2, 0]), (1, vec![2, 0, 1])] {
        world.demand("web", demand);
        let gone: Vec<_> = gone.into_iter().map(|ordinal| world.key("web", "instance-1", ordinal)).collect();
        let stopped: Vec<_> = world.plan().actions.iter().map(Action::container).collect();
        assert!(gone.iter().all(|key| stopped.contains(key)) && stopped.len() == gone.len(), "{stopped:?}");
    }
}

#[test]
fn the_youngest_victim_loses_the_least_work() {
    let mut world = World::pool(vec![Service::demand("web", 1), Service::fill("batch", 2)], 1, 3);
    for (ordinal, age_ms) in [(0, 60_000), (1, 1_000), (2, 30_000)] {
        world.put("batch", "instance-1", ordinal, Phase::Running, age_ms);
    }
    world.demand("web", 1);
    let plan = world.plan();
    assert_eq!(plan.actions[0].container(), world.key("batch", "instance-1", 1));
}

#[test]
fn a_lost_instance_and_its_return() {
    let mut world = demo();
    world.demand("web", 4);
    settled(&mut world);
    // Spread put two of web on the first instance, one on each of the others.
    world.instance_state("instance-1", InstanceState::Lost);
    let plan = world.plan();
    let replaced =
        world.words(&plan).iter().filter(|words| words.contains("in place of one on instance-1")).count();
    assert_eq!(replaced, 2, "{}", world.show(&plan));
    world.converge(2);
    // Six slots are left: 4 + 2 = 6.
    assert_eq!((world.running("web"), world.running("batch")), (4, 2));
    world.instance_state("instance-1", InstanceState::Ready);
    // What ran there is adopted: 6 of web, 4 wanted; 2 + 1 of batch; then 4 + 5 = 9 again.
    assert_eq!((world.running("web"), world.running("batch")), (6, 3));
    let plan = world.plan();
    let stops = plan.actions.iter().filter(|action| matches!(action, Action::Stop { .. })).count();
    assert_eq!(stops, 2, "only the surplus goes: {}", world.show(&plan));
    assert_eq!(settled(&mut world), (4, 5));
}

#[test]
fn a_drained_instance_is_left_without_a_gap() {
    let mut world = demo();
    world.demand("web", 4);
    settled(&mut world);
    world.instance_state("instance-1", InstanceState::Draining);
    let plan = world.plan();
    world.issue(&plan);
    let early = plan.actions.iter().any(|action| {
        matches!(action, Action::Stop { container, .. }
            if container.service == world.service("web"))
    });
    assert!(!early, "none of web stops before its successor runs: {}", world.show(&plan));
    let replaced =
        world.words(&plan).iter().filter(|it| it.contains("in place of one on instance-1")).count();
    assert_eq!(replaced, 2, "{}", world.show(&plan));
    world.finish();
    world.converge(4);
    assert!(world.state.containers_on(world.state.instance_id("instance-1").unwrap()).is_empty());
    assert_eq!((world.running("web"), world.running("batch")), (4, 2));
    // 7 wanted on 6 slots: what is on the drained instance stays, for want of room.
    let mut world = demo();
    world.demand("web", 9);
    settled(&mut world);
    world.instance_state("instance-1", InstanceState::Draining);
    let plan = world.converge(2);
    assert_eq!(world.running("web"), 9);
    assert_eq!(
        world.not_done(&plan),
        ["web: 3 stay on instance-1, which is being drained, for want of room elsewhere"]
    );
}

#[test]
fn nothing_new_starts_on_a_cordoned_instance() {
    let mut world = demo();
    world.demand("web", 2);
    settled(&mut world);
    world.instance_state("instance-3", InstanceState::Cordoned);
    world.demand("web", 9);
    let plan = world.converge(2);
    // Six slots on the two others, and whatever of web runs on the third.
    let third = world.state.instance_id("instance-3").unwrap();
    let there =
        world.state.containers_on(third).iter().filter(|c| c.key.service == world.service("web")).count();
    assert_eq!(world.running("web"), 6 + u32::try_from(there).unwrap());
    assert!(!plan.not_done.is_empty());
}

#[test]
fn an_unknown_demand_changes_nothing() {
    let mut world = demo();
    world.demand("web", 4);
    settled(&mut world);
    world.unknown("web");
    let plan = world.converge(1);
    assert_eq!((world.running("web"), world.running("batch")), (4, 5));
    assert_eq!(world.not_done(&plan), ["web: demand unknown, so what runs stays as it is"]);
    let outcome = success(&world.state, &plan, world.now);
    assert_eq!((outcome.success, outcome.blocked_by), (false, vec!["unknown_demand"]));
}

#[test]
fn a_stale_source_holds_then_falls_back() {
    let web = Service {
        on_stale: OnStale::Fallback { containers: 2, after_ms: 60_000 },
        ..Service::demand("web", 1)
    };
    let mut world = World::pool(vec![web, Service::fill("batch", 2)], 3, 3);
    world.demand("web", 4);
    settled(&mut world);
    let heard = world.now;
    // Stale after 15 s: the last value holds, 4 + 5 = 9.
    world.now = heard.plus(15_000);
    assert_eq!(settled(&mut world), (4, 5));
    let plan = world.plan();
    assert_eq!(plan.next_wake_at, Some(heard.plus(75_000)));
    // After 60 s more, the fallback: 2 + 7 = 9.
    world.now = heard.plus(75_000);
    assert_eq!(settled(&mut world), (2, 7));
    // Heard again, the demand counts again.
    world.demand("web", 4);
    assert_eq!(settled(&mut world), (4, 5));
}

#[test]
fn fill_waits_until_demand_is_known() {
    let services = vec![Service::demand("web", 1), Service::fill("batch", 2)];
    let instances = vec![Instance::ready("i", Resources::slots_only(3))];
    let hold = Millis(common::NOW.0 + 2_000);
    let mut world = World { state: planner::State::new(services, instances, hold), now: common::NOW };
    let plan = world.converge(1);
    assert_eq!(plan.next_wake_at, Some(hold));
    assert!(plan.not_done.iter().any(|item| matches!(item, NotDone::FillHeld { .. })));
    let mut answered = World { state: world.state.clone(), now: world.now };
    answered.demand("web", 1);
    answered.converge(2);
    assert_eq!(
        (answered.running("web"), answered.running("batch")),
        (1, 2),
        "the first answer ends the wait"
    );
    world.now = hold;
    world.converge(2);
    assert_eq!((world.running("web"), world.running("batch")), (0, 3), "the time ends the wait");
}

#[test]
fn a_fall_takes_effect_after_scale_down_after_ms() {
    let web = Service { scale_down_after_ms: 30_000, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web, Service::fill("batch", 2)], 3, 3);
    world.demand("web", 6);
    settled(&mut world);
    world.demand("web", 2);
    let plan = world.converge(1);
    assert_eq!(world.not_done(&plan), ["web: 4 no longer wanted are kept for 30000 ms more"]);
    world.now = world.now.plus(10_000);
    world.demand("web", 5);
    world.demand("web", 3);
    // After 30 s the 6 is forgotten, and the 5 of ten seconds later still counts: 5 + 4 = 9.
    world.now = world.now.plus(20_000);
    assert_eq!(settled(&mut world), (5, 4));
    world.now = world.now.plus(10_000);
    assert_eq!(settled(&mut world), (3, 6));
}

#[test]
fn a_service_that_backs_off_leaves_its_room_and_takes_it_back() {
    let mut world = demo();
    let (service, until) = (world.service("web"), world.now.plus(5_000));
    world.state.apply(Delta::Backoff(Backoff { service, instance: None, until }));
    world.demand("web", 4);
    let plan = world.converge(2);
    assert_eq!((world.running("web"), world.running("batch")), (0, 9));
    assert_eq!(plan.next_wake_at, Some(until));
    assert_eq!(world.not_done(&plan), ["web: 4 more wanted; held back after failures for 5000 ms"]);
    world.now = until;
    assert_eq!(settled(&mut world), (4, 5));
}

#[test]
fn capacity_lowered_sends_the_least_important_away() {
    let mut world = demo();
    world.demand("web", 4);
    settled(&mut world);
    let instance = world.state.instance_id("instance-1").unwrap();
    world.state.apply(Delta::Capacity { instance, capacity: Resources::slots_only(2) });
    let plan = world.plan();
    let [Action::Stop { container, reason: StopReason::OverCapacity }] = plan.actions.as_slice() else {
        panic!("{}", world.show(&plan));
    };
    assert_eq!(container.service, world.service("batch"));
    // 4 + 4 = 8.
    assert_eq!(settled(&mut world), (4, 4));
}

#[test]
fn a_removed_service_is_surplus() {
    let gone = Service { removed: true, ..Service::demand("gone", u32::MAX) };
    let mut world = World::pool(vec![Service::demand("web", 1), Service::fill("batch", 2), gone], 1, 3);
    world.demand("web", 1);
    world.put("gone", "instance-1", 0, Phase::Running, 1_000);
    world.put("gone", "instance-1", 1, Phase::Frozen, 1_000);
    world.put("gone", "instance-1", 2, Phase::Exited, 1_000);
    world.converge(4);
    assert_eq!((world.running("web"), world.running("batch"), world.running("gone")), (1, 2, 0));
    assert_eq!(world.state.containers().count(), 3);
}

#[test]
fn outdated_containers_are_replaced_one_at_a_time_the_new_one_first() {
    let mut world = demo();
    world.demand("web", 2);
    settled(&mut world);
    let web = world.service("web");
    let old: Vec<_> = world.state.containers().filter(|c| c.key.service == web).cloned().collect();
    for container in old {
        world.state.apply(Delta::Container(planner::Container { outdated: true, ..container }));
    }
    let mut fewest = u32::MAX;
    let mut most = 0;
    for _ in 0..12 {
        let plan = world.plan();
        world.issue(&plan);
        while let Some(&key) = world.movable().first() {
            world.step(key);
            let run = world
                .state
                .containers()
                .filter(|c| c.key.service == web && c.phase == Phase::Running && c.operation.is_none())
                .count();
            fewest = fewest.min(u32::try_from(run).unwrap());
            most = most.max(world.running("web"));
        }
    }
    assert!(world.state.containers().all(|container| !container.outdated));
    assert_eq!((fewest, most), (2, 3), "never below its target of 2, one more while a successor comes up");
    assert_eq!(settled(&mut world), (2, 7));
}

/// Every container of a service is of an older generation from now on.
fn outdate(world: &mut World, service: &str) {
    let id = world.service(service);
    let old: Vec<_> = world.state.containers().filter(|c| c.key.service == id).cloned().collect();
    for container in old {
        world.state.apply(Delta::Container(planner::Container { outdated: true, ..container }));
    }
}

fn outdated(world: &World, service: &str) -> usize {
    let id = world.service(service);
    world.state.containers().filter(|container| container.key.service == id && container.outdated).count()
}

#[test]
fn a_new_generation_is_on_trial_until_its_first_has_run_for_long_enough() {
    let web = Service { proven_after_ms: 10_000, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web, Service::fill("batch", 2)], 3, 3);
    world.demand("web", 4);
    settled(&mut world);
    world.now = world.now.plus(60_000);
    outdate(&mut world, "web");
    // 4 old and 1 new, in the room of one of batch: 5 + 4 = 9. The old ones stay.
    assert_eq!(settled(&mut world), (5, 4));
    assert_eq!(outdated(&world, "web"), 4);
    let plan = world.plan();
    assert_eq!(world.not_done(&plan), ["web: 4 of an older generation wait to be replaced"]);
    assert_eq!(plan.next_wake_at, Some(world.now.plus(10_000)));
    // It has run: from here on one goes whenever another runs.
    world.now = world.now.plus(10_000);
    world.converge(12);
    assert_eq!(outdated(&world, "web"), 0);
    assert_eq!(settled(&mut world), (4, 5));
}

#[test]
fn on_trial_a_fall_in_demand_is_met_and_the_trial_goes_on() {
    let web = Service { proven_after_ms: 10_000, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web, Service::fill("batch", 2)], 3, 3);
    world.demand("web", 3);
    settled(&mut world);
    world.now = world.now.plus(60_000);
    outdate(&mut world, "web");
    settled(&mut world);
    world.demand("web", 6);
    // 3 old and 3 new, none of them trusted.
    assert_eq!(settled(&mut world), (6, 3));
    world.demand("web", 2);
    // Of the old ones as many as are wanted, and one of the new ones beside them.
    assert_eq!(settled(&mut world), (3, 6));
    assert_eq!(outdated(&world, "web"), 2);
}

#[test]
fn a_trial_is_over_when_the_first_has_run_for_long_enough() {
    let web = Service { proven_after_ms: 10_000, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web], 1, 4);
    world.demand("web", 3);
    world.put("web", "instance-1", 0, Phase::Running, 60_000);
    outdate(&mut world, "web");
    world.put("web", "instance-1", 1, Phase::Running, 1_000);
    world.put("web", "instance-1", 2, Phase::Running, 4_000);
    let plan = world.plan();
    assert_eq!((plan.actions.len(), plan.next_wake_at), (0, Some(world.now.plus(6_000))));
    world.now = world.now.plus(6_000);
    assert!(world.words(&world.plan())[0].starts_with("start web/"), "{:?}", world.words(&world.plan()));
}

#[test]
fn the_next_one_is_replaced_when_the_last_one_has_gone() {
    let mut world = World::pool(vec![Service::demand("web", 1)], 2, 3);
    world.demand("web", 2);
    world.put("web", "instance-1", 0, Phase::Stopping, 60_000);
    world.put("web", "instance-1", 1, Phase::Running, 60_000);
    outdate(&mut world, "web");
    world.put("web", "instance-1", 2, Phase::Running, 10);
    assert_eq!(world.plan().actions, []);
    world.state.apply(Delta::ContainerGone(world.key("web", "instance-1", 0)));
    assert_eq!(world.plan().actions.len(), 1);
    // So it is while one that is too many can't be told to go yet.
    world.put("web", "instance-2", 0, Phase::Running, 10);
    let mut busy = world.state.container(world.key("web", "instance-2", 0)).unwrap().clone();
    busy.operation = Some(Operation::Start { after: vec![] });
    world.state.apply(Delta::Container(busy));
    world.instance_state("instance-2", InstanceState::Draining);
    assert_eq!(world.plan().actions, [], "{}", world.show(&world.plan()));
}

#[test]
fn a_generation_that_fails_to_start_stops_its_rollout_and_goes_back_without_churn() {
    let mut world = demo();
    world.demand("web", 4);
    settled(&mut world);
    outdate(&mut world, "web");
    // Starts have failed on two instances; on the other none is tried either.
    let (service, until) = (world.service("web"), world.now.plus(4_000));
    let sooner = world.now.plus(1_000);
    for (instance, until) in [("instance-2", until), ("instance-3", sooner)] {
        let instance = world.state.instance_id(instance);
        world.state.apply(Delta::Backoff(Backoff { service, instance, until }));
    }
    let plan = world.plan();
    assert_eq!(plan.actions, []);
    assert_eq!(plan.not_done, [NotDone::RolloutFailing { service, count: 4, until }]);
    assert_eq!(plan.not_done[0].code(), "rollout_failing");
    assert_eq!(plan.next_wake_at, Some(sooner));
    assert!(success(&world.state, &plan, world.now).success, "all that is wanted runs");
    // The old spec is the spec again.
    let all: Vec<_> = world.state.containers().cloned().collect();
    for container in all {
        world.state.apply(Delta::Container(planner::Container { outdated: false, ..container }));
    }
    let plan = world.plan();
    assert_eq!((plan.actions.len(), plan.not_done.len()), (0, 0));
}

#[test]
fn a_rollout_without_room_for_a_successor_says_so() {
    let mut world = demo();
    world.demand("web", 9);
    settled(&mut world);
    outdate(&mut world, "web");
    let plan = world.plan();
    assert_eq!(plan.actions, []);
    assert_eq!(
        world.not_done(&plan),
        ["web: 9 of an older generation stay, for want of room that could be taken for a successor"]
    );
    world.demand("web", 8);
    world.converge(20);
    assert_eq!(outdated(&world, "web"), 0);
}

fn spoil(world: &mut World, service: &str, ordinal: u32, fault: Fault) {
    let container = world.state.container(world.key(service, "instance-1", ordinal)).unwrap().clone();
    world.state.apply(Delta::Container(planner::Container { fault: Some(fault), ..container }));
}

#[test]
fn an_unhealthy_one_does_not_count_and_is_replaced_the_new_one_first() {
    let mut world = demo();
    world.demand("web", 4);
    settled(&mut world);
    spoil(&mut world, "web", 0, Fault::Unhealthy);
    let plan = world.plan();
    let outcome = success(&world.state, &plan, world.now);
    assert_eq!((outcome.success, outcome.blocked_by), (false, vec!["in_progress", "unhealthy"]));
    let words = world.words(&plan);
    assert_eq!(words.len(), 2, "{words:?}");
    assert!(words[0].starts_with("stop batch/") && words[0].ends_with("to make room for web (priority 1)"));
    assert!(words[1].contains("in place of web/0 on instance-1, which is unhealthy"), "{words:?}");
    // While the successor is on its way the other stays.
    world.issue(&plan);
    assert_eq!(world.plan().actions, []);
    world.finish();
    let plan = world.plan();
    assert_eq!(world.words(&plan)[0], "stop web/0 on instance-1 because it is unhealthy");
    assert_eq!(settled(&mut world), (4, 5));
}

#[test]
fn an_unhealthy_one_without_room_beside_it_is_replaced_in_its_own() {
    let mut world = demo();
    world.demand("web", 9);
    settled(&mut world);
    spoil(&mut world, "web", 0, Fault::Unhealthy);
    spoil(&mut world, "web", 1, Fault::Unhealthy);
    let plan = world.plan();
    // One after the other.
    let [Action::Stop { container, reason: StopReason::Unhealthy }, Action::Start { after, .. }] =
        plan.actions.as_slice()
    else {
        panic!("{}", world.show(&plan));
    };
    assert_eq!(after, &[*container]);
    world.converge(4);
    assert_eq!(world.running("web"), 9);
    assert!(world.state.containers().all(|container| container.fault.is_none()));
    // Starts that fail stop that as well: a dependency that is gone tears nothing down.
    spoil(&mut world, "web", 2, Fault::Unhealthy);
    let (service, until) = (world.service("web"), world.now.plus(1_000));
    let instance = world.state.instance_id("instance-3");
    world.state.apply(Delta::Backoff(Backoff { service, instance, until }));
    let plan = world.plan();
    assert_eq!(plan.actions, []);
    assert_eq!(plan.not_done, [NotDone::Unhealthy { service, count: 1 }]);
}

#[test]
fn an_unhealthy_one_is_the_first_to_go() {
    // As a surplus, however it stands otherwise.
    let mut world = demo();
    world.demand("web", 4);
    settled(&mut world);
    spoil(&mut world, "web", 1, Fault::Unhealthy);
    world.demand("web", 3);
    let plan = world.plan();
    assert_eq!(plan.actions[0].container(), world.key("web", "instance-1", 1), "{}", world.show(&plan));
    // As a victim: it does no work that would be lost.
    let mut world = World::pool(vec![Service::demand("web", 1), Service::fill("batch", 2)], 1, 3);
    for (ordinal, age_ms) in [(0, 60_000), (1, 1_000), (2, 30_000)] {
        world.put("batch", "instance-1", ordinal, Phase::Running, age_ms);
    }
    spoil(&mut world, "batch", 0, Fault::Unhealthy);
    world.demand("web", 1);
    let plan = world.plan();
    assert_eq!(plan.actions[0].container(), world.key("batch", "instance-1", 0), "{}", world.show(&plan));
}

#[test]
fn an_unhealthy_one_is_replaced_before_an_outdated_one() {
    let mut world = demo();
    world.demand("web", 4);
    settled(&mut world);
    outdate(&mut world, "web");
    spoil(&mut world, "web", 1, Fault::Unhealthy);
    let words = world.words(&world.plan());
    assert!(words[1].contains("in place of web/1 on instance-1, which is unhealthy"), "{words:?}");
}

#[test]
fn an_unhealthy_one_of_a_fill_is_in_the_way_of_success_and_is_not_frozen() {
    let mut world = freezing();
    world.demand("web", 0);
    settled(&mut world);
    spoil(&mut world, "batch", 0, Fault::Unhealthy);
    let (service, until) = (world.service("batch"), world.now.plus(1_000));
    let instance = world.state.instance_id("instance-1");
    world.state.apply(Delta::Backoff(Backoff { service, instance, until }));
    let plan = world.plan();
    let outcome = success(&world.state, &plan, world.now);
    assert_eq!((outcome.success, outcome.blocked_by), (false, vec!["unhealthy"]));
    // There is no work in it that could be kept.
    for name in ["instance-2", "instance-3"] {
        world.instance_state(name, InstanceState::Cordoned);
    }
    world.demand("web", 1);
    let plan = world.plan();
    let key = world.key("batch", "instance-1", 0);
    assert!(
        plan.actions.iter().any(|it| matches!(it, Action::Stop { container, .. } if *container == key)),
        "{}",
        world.show(&plan)
    );
}

#[test]
fn one_that_is_not_ready_in_time_goes_and_the_fill_has_its_room_meanwhile() {
    let mut world = World::pool(vec![Service::demand("web", 1), Service::fill("batch", 2)], 1, 3);
    world.put("web", "instance-1", 0, Phase::Starting, 60_000);
    world.demand("web", 1);
    world.converge(2);
    assert_eq!((world.running("web"), world.running("batch")), (1, 2));
    world.put("web", "instance-1", 0, Phase::Starting, 60_000);
    spoil(&mut world, "web", 0, Fault::NotReady);
    let (service, until) = (world.service("web"), world.now.plus(5_000));
    let instance = world.state.instance_id("instance-1");
    world.state.apply(Delta::Backoff(Backoff { service, instance, until }));
    let plan = world.plan();
    let words = world.words(&plan);
    assert_eq!(words[0], "stop web/0 on instance-1 because it has not become ready in time");
    assert!(words[1].starts_with("start batch/"), "{words:?}");
    world.converge(2);
    assert_eq!((world.running("web"), world.running("batch")), (0, 3));
    world.now = until;
    world.converge(2);
    assert_eq!((world.running("web"), world.running("batch")), (1, 2));
}

#[test]
fn what_somebody_has_frozen_is_replaced_where_its_service_does_not_freeze_and_thawed_where_it_does() {
    for (on_preempt, expected) in [
        (OnPreempt::Stop, "stop web/0 on instance-1 because it is frozen, and its service does not freeze"),
        (OnPreempt::Freeze, "thaw web/0 on instance-1 because 0 of 1 run"),
    ] {
        let web = Service { on_preempt, ..Service::demand("web", 1) };
        let mut world = World::pool(vec![web, Service::fill("batch", 2)], 1, 2);
        world.put("web", "instance-1", 0, Phase::Frozen, 60_000);
        world.put("batch", "instance-1", 0, Phase::Running, 60_000);
        world.demand("web", 1);
        let plan = world.plan();
        assert!(world.words(&plan).contains(&expected.to_owned()), "{}", world.show(&plan));
        assert_eq!(settled(&mut world), (1, 1));
    }
}

/// The demonstration in freeze mode, with two containers of batch frozen at most on each instance.
fn freezing() -> World {
    let batch = Service { on_preempt: OnPreempt::Freeze, ..Service::fill("batch", 2) };
    let instances = (1..=3)
        .map(|number| {
            let capacity = Resources { slots: 3, cpu_millis: Resources::UNLIMITED, memory_mib: 1_000 };
            Instance { frozen_max: 2, ..Instance::ready(format!("instance-{number}"), capacity) }
        })
        .collect();
    World::new(vec![Service::demand("web", 1), batch], instances)
}

#[test]
fn freeze_and_thaw_keep_the_work() {
    let mut world = freezing();
    world.demand("web", 4);
    settled(&mut world);
    world.demand("web", 5);
    let plan = world.plan();
    assert!(
        matches!(plan.actions.as_slice(), [Action::Freeze { .. }, Action::Start { .. }]),
        "{}",
        world.show(&plan)
    );
    assert_eq!(settled(&mut world), (5, 4));
    assert_eq!(world.state.containers().filter(|c| c.phase == Phase::Frozen).count(), 1);
    world.demand("web", 4);
    let plan = world.plan();
    assert!(
        matches!(plan.actions.as_slice(), [Action::Stop { .. }, Action::Thaw { after, .. }] if after.len() == 1),
        "{}",
        world.show(&plan)
    );
    assert_eq!(settled(&mut world), (4, 5));
    assert_eq!(world.state.containers().filter(|c| c.phase == Phase::Frozen).count(), 0);
}

#[test]
fn side_by_side_only_what_is_frozen_is_not_waited_for() {
    let mut world = freezing();
    let web = Service { overlap: Overlap::Swap, ..Service::demand("web", 1) };
    world.state = planner::State::new(
        vec![web, world.state.service(world.service("batch")).clone()],
        world.state.instances().to_vec(),
        Millis(0),
    );
    world.demand("web", 4);
    settled(&mut world);
    world.demand("web", 5);
    let plan = world.plan();
    let [Action::Freeze { container, .. }, Action::Start { after, beside, .. }] = plan.actions.as_slice()
    else {
        panic!("{}", world.show(&plan));
    };
    assert_eq!((after.as_slice(), beside), (&[][..], &vec![*container]));
    let at_once = format!(", at once in the room of {}", world.state.describe(*container));
    assert!(world.words(&plan)[1].ends_with(&at_once), "{}", world.show(&plan));
    // The successor runs first: for that moment the instance holds both, which no check minds, and nothing is done.
    world.issue(&plan);
    world.step(plan.actions[1].container());
    world.step(plan.actions[1].container());
    let taken = planner::invariants::taken(&world.state, container.instance);
    assert_eq!(taken.slots, 4);
    assert_eq!(planner::invariants::capacity(&world.state), Ok(()));
    assert_eq!(world.plan().actions, []);
    // A further one waits for none but its own victim, and what is stopped is waited for.
    world.demand("web", 9);
    let plan = world.plan();
    let waits = |instance| {
        let there = plan.actions.iter().filter(move |it| it.container().instance == instance);
        there.flat_map(|it| it.after().iter().chain(it.beside())).filter(|&key| key == container).count()
    };
    assert_eq!(waits(container.instance), 0, "{}", world.show(&plan));
    assert!(plan.actions.iter().all(|action| {
        let stops = |key| {
            plan.actions.iter().any(|it| matches!(it, Action::Stop { container, .. } if container == key))
        };
        !action.beside().iter().any(stops) && action.after().iter().all(stops)
    }));
    assert_eq!(settled(&mut world), (9, 0));
}

#[test]
fn a_freeze_that_fails_beside_its_successor_is_made_up_for() {
    let web = Service { overlap: Overlap::Swap, ..Service::demand("web", 1) };
    let batch = Service { on_preempt: OnPreempt::Freeze, ..Service::fill("batch", 2) };
    let mut world = World::pool(vec![web, batch], 1, 2);
    world.demand("web", 1);
    settled(&mut world);
    world.demand("web", 2);
    let plan = world.plan();
    world.issue(&plan);
    let victim = plan.actions[0].container();
    world.step(plan.actions[1].container());
    // The engine has not frozen it: it runs, and nothing is under way any more.
    world.put("batch", "instance-1", victim.ordinal, Phase::Running, 1_000);
    assert!(planner::invariants::capacity(&world.state).is_err());
    let plan = world.plan();
    assert_eq!(
        world.words(&plan),
        ["freeze batch/0 on instance-1 because the instance holds more than its capacity"]
    );
    assert_eq!(settled(&mut world), (2, 0));
}

/// One instance of three slots, full of batch, with as many frozen as there are ages; batch freezes, two at most.
fn crowded(frozen_ages_ms: &[u64]) -> World {
    let batch = Service { on_preempt: OnPreempt::Freeze, ..Service::fill("batch", 2) };
    let instance = Instance { frozen_max: 2, ..Instance::ready("instance-1", Resources::slots_only(3)) };
    let mut world = World::new(vec![Service::demand("web", 1), batch], vec![instance]);
    world.demand("web", 0);
    for (ordinal, age_ms) in [(0, 9_000), (1, 1_000), (2, 5_000)] {
        world.put("batch", "instance-1", ordinal, Phase::Running, age_ms);
    }
    for (ordinal, &age_ms) in (3..).zip(frozen_ages_ms) {
        world.put("batch", "instance-1", ordinal, Phase::Frozen, age_ms);
    }
    world
}

#[test]
fn beyond_the_bound_the_youngest_running_one_lends_its_room_for_a_graceful_end() {
    let mut world = crowded(&[20_000, 4_000, 30_000]);
    let plan = world.plan();
    assert_eq!(
        world.words(&plan),
        [
            "freeze batch/1 on instance-1 for a moment, to lend its room to batch/4 on instance-1, which ends",
            "stop batch/4 on instance-1 because more is frozen there than the instance allows, in the room of batch/1 on \
             instance-1",
        ]
    );
    world.issue(&plan);
    assert_eq!(world.plan().actions, []);
    assert_eq!(world.running("batch"), 2);
    // As soon as the other one has ended, one is thawed: the one with the most work in it. Nobody has the room in between.
    let (ends, lends) = (world.key("batch", "instance-1", 4), world.key("batch", "instance-1", 1));
    world.step(lends);
    let plan = world.plan();
    assert_eq!(
        world.words(&plan),
        ["thaw batch/5 on instance-1 because there is room left, in the room of batch/4 on instance-1"]
    );
    world.issue(&plan);
    world.step(ends);
    assert_eq!(planner::invariants::capacity(&world.state), Ok(()));
    world.finish();
    world.converge(2);
    assert_eq!(world.running("batch"), 3);
    assert_eq!(world.state.containers().filter(|it| it.phase == Phase::Frozen).count(), 2);
}

#[test]
fn the_lenders_room_goes_to_what_is_more_important_if_that_comes() {
    let mut world = crowded(&[20_000, 4_000, 30_000]);
    let plan = world.plan();
    world.issue(&plan);
    world.demand("web", 3);
    let plan = world.plan();
    assert!(
        plan.actions.iter().any(|it| it.container().service == world.service("web")),
        "{}",
        world.show(&plan)
    );
    assert_eq!(settled(&mut world), (3, 0));
    // Nobody runs that could lend its room: what is frozen waits for some, and is killed when it has waited for long.
    let waits = world.plan().waits_to_end;
    assert!(!waits.is_empty());
    let frozen = |world: &World| world.state.containers().filter(|it| it.phase == Phase::Frozen).count();
    assert!(frozen(&world) > 2);
    world.now = world.plan().next_wake_at.unwrap();
    let plan = world.plan();
    assert!(plan.actions.iter().all(|it| it.kind() == "kill"), "{}", world.show(&plan));
    world.converge(2);
    assert_eq!(frozen(&world), 2);
}

#[test]
fn where_nobody_can_lend_room_it_is_killed_when_it_has_waited_for_long() {
    // What somebody has frozen of a service that does not freeze: its siblings are not frozen either.
    let instance =
        Instance { evict_after_ms: 3_000, ..Instance::ready("instance-1", Resources::slots_only(2)) };
    let mut world = World::new(vec![Service::demand("web", 1), Service::fill("batch", 2)], vec![instance]);
    world.demand("web", 0);
    world.put("batch", "instance-1", 0, Phase::Running, 10);
    world.put("batch", "instance-1", 1, Phase::Running, 10);
    world.put("batch", "instance-1", 2, Phase::Frozen, 10);
    let plan = world.plan();
    assert_eq!(plan.actions, []);
    assert_eq!(plan.waits_to_end, [world.key("batch", "instance-1", 2)]);
    let due = world.now.plus(3_000);
    assert_eq!(plan.next_wake_at, Some(due));
    // It has waited since then, however often it is planned.
    world.issue(&plan);
    world.now = Millis(due.0 - 1);
    let plan = world.plan();
    assert_eq!((plan.actions.len(), plan.next_wake_at), (0, Some(due)));
    world.issue(&plan);
    world.now = due;
    let plan = world.plan();
    assert_eq!(
        world.words(&plan),
        ["kill batch/2 on instance-1 because it is frozen, and its service does not freeze"]
    );
    world.issue(&plan);
    assert_eq!(world.plan().actions, []);
    // It takes no slot while it ends: nothing gives way.
    assert_eq!(planner::invariants::capacity(&world.state), Ok(()));
    assert_eq!(settled(&mut world), (0, 2));
    // With room it ends by itself, whenever there is some.
    world.put("batch", "instance-1", 2, Phase::Frozen, 10);
    world.issue(&world.plan());
    world.state.apply(Delta::ContainerGone(world.key("batch", "instance-1", 0)));
    let plan = world.plan();
    assert_eq!(plan.actions[0].kind(), "stop", "{}", world.show(&plan));
    assert_eq!(plan.waits_to_end, []);
}

#[test]
fn frozen_with_room_elsewhere_starts_there() {
    let mut world = freezing();
    // One of batch is frozen on the first instance, which is full of web; the others have room.
    for ordinal in 0..3 {
        world.put("web", "instance-1", ordinal, Phase::Running, 1_000);
    }
    world.put("batch", "instance-1", 0, Phase::Frozen, 5_000);
    world.demand("web", 3);
    let plan = world.plan();
    let starts = plan.actions.iter().filter(|action| matches!(action, Action::Start { .. })).count();
    assert_eq!((plan.actions.len(), starts), (6, 6), "started where there is room, and nothing is moved");
    assert_eq!(settled(&mut world), (3, 6));
    assert_eq!(
        world.state.containers().filter(|c| c.phase == Phase::Frozen).count(),
        1,
        "kept for its return"
    );
}

#[test]
fn beyond_the_bound_of_frozen_containers_they_are_stopped() {
    let mut world = freezing();
    world.demand("web", 0);
    settled(&mut world);
    world.demand("web", 9);
    let plan = world.plan();
    let frozen = plan.actions.iter().filter(|action| matches!(action, Action::Freeze { .. })).count();
    let stopped = plan.actions.iter().filter(|action| matches!(action, Action::Stop { .. })).count();
    assert_eq!((frozen, stopped), (6, 3), "two of three on each instance");
}

#[test]
fn what_a_fall_leaves_over_of_a_service_that_freezes_spares_the_next_rise_a_warm_up() {
    let web = Service { standby_per_instance: 1, on_preempt: OnPreempt::Freeze, ..Service::demand("web", 1) };
    let batch = Service { on_preempt: OnPreempt::Freeze, ..Service::fill("batch", 2) };
    let mut world = World::pool(vec![web, batch], 1, 3);
    world.demand("web", 1);
    world.converge(8);
    world.demand("web", 2);
    // The rise thaws the standby, and another is warmed in its place.
    world.converge(8);
    let all = |world: &World| {
        let web = world.service("web");
        world.state.containers().filter(|it| it.key.service == web).count()
    };
    assert_eq!((world.running("web"), all(&world)), (2, 3));
    // Down and up again nothing of it starts, and nothing ends.
    for demand in [1, 2, 0, 2, 1] {
        world.demand("web", demand);
        let plan = world.plan();
        let kinds = plan.actions.iter().map(Action::kind).collect::<std::collections::BTreeSet<_>>();
        assert!(kinds.iter().all(|kind| ["freeze", "thaw", "start"].contains(kind)), "{}", world.show(&plan));
        world.converge(8);
        assert_eq!((world.running("web"), all(&world)), (demand, 3));
        assert_eq!(world.running("batch"), 3 - demand);
    }
    // The instance's own bounds hold.
    let bounded = Instance { frozen_max: 1, ..Instance::ready("instance-1", Resources::slots_only(3)) };
    let web = Service { standby_per_instance: 1, on_preempt: OnPreempt::Freeze, ..Service::demand("web", 1) };
    let mut world = World::new(vec![web], vec![bounded]);
    world.demand("web", 3);
    world.converge(8);
    world.demand("web", 0);
    world.converge(8);
    assert_eq!((world.running("web"), all(&world)), (0, 1));
}

#[test]
fn standbys_are_warmed_in_a_borrowed_slot_and_thawed_on_a_rise() {
    let web = Service { standby_per_instance: 1, ..Service::demand("web", 1) };
    let mut world = World::pool(vec![web, Service::fill("batch", 2)], 3, 3);
    world.demand("web", 3);
    // One on each instance is warmed in a slot of batch, frozen, and the slot given back: 3 + 6 = 9.
    world.converge(6);
    let frozen = world.state.containers().filter(|c| c.phase == Phase::Frozen).count();
    assert_eq!((frozen, world.running("web"), world.running("batch")), (3, 3, 6));
    world.demand("web", 4);
    let plan = world.plan();
    assert!(
        matches!(plan.actions.as_slice(), [Action::Stop { .. }, Action::Thaw { .. }]),
        "{}",
        world.show(&plan)
    );
    // A fall turns the surplus into a standby again, rather than away.
    world.issue(&plan);
    world.finish();
    world.demand("web", 3);
    let plan = world.plan();
    let reason = plan.actions.iter().find_map(|action| match action {
        Action::Freeze { reason, .. } => Some(*reason),
        _ => None,
    });
    assert_eq!(reason, Some(StopReason::Standby), "{}", world.show(&plan));
    world.converge(6);
    let frozen = world.state.containers().filter(|c| c.phase == Phase::Frozen).count();
    assert_eq!((frozen, world.running("web"), world.running("batch")), (3, 3, 6));
}

#[test]
fn a_container_created_and_never_started_is_used_or_removed() {
    let mut world = World::pool(vec![Service::demand("web", 1)], 1, 3);
    world.put("web", "instance-1", 4, Phase::Created, 0);
    world.put("web", "instance-1", 7, Phase::Created, 0);
    world.demand("web", 1);
    let plan = world.plan();
    assert!(
        matches!(plan.actions.as_slice(), [Action::Start { container, .. }, Action::Remove { container: other, .. }]
            if container.ordinal == 4 && other.ordinal == 7),
        "{}",
        world.show(&plan)
    );
}

#[test]
fn an_explicit_zero_is_a_demand() {
    let mut world = World::pool(vec![Service::demand("web", 1)], 1, 3);
    world.demand("web", 3);
    world.converge(2);
    let service = world.service("web");
    let reading = Reading::Known { containers: 0, confirmed_at: world.now };
    world.state.apply(Delta::Demand { service, reading, at: world.now });
    world.converge(2);
    assert_eq!(world.running("web"), 0);
}

#[test]
fn what_has_ended_is_removed_once_its_successor_runs() {
    let mut world = demo();
    world.demand("web", 4);
    settled(&mut world);
    world.demand("web", 5);
    let swap = world.plan();
    let (victim, successor) = (swap.actions[0].container(), swap.actions[1].container());
    world.issue(&swap);
    let mut ended = world.state.container(victim).unwrap().clone();
    ended.phase = Phase::Exited;
    ended.operation = None;
    world.state.apply(Delta::Container(ended));
    // The engine does one thing at a time, and the start matters more.
    assert_eq!(world.plan().actions, []);
    world.step(successor);
    world.step(successor);
    let plan = world.plan();
    assert!(
        matches!(plan.actions.as_slice(), [Action::Remove { container, .. }] if *container == victim),
        "{}",
        world.show(&plan)
    );
}
