//! Each fault does what it says, and nothing else.

use std::time::Duration;

use driver::{Driver, DriverError, Event, InstanceAvailability, Outcome};
use driver_testkit::sim::{Behaviour, Call, Fault, FaultKind, FaultRates, Latencies, Outage, SimConfig};
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};
use planner::{Phase, Resources};
use tokio::time::{Instant, sleep, timeout};

use crate::{GRACE, engine, run, start};

/// Longer than any call or event takes.
const QUIET: Duration = Duration::from_secs(20);

/// The next event; `None` if there is none for long.
async fn told(events: &mut BoxStream<'static, Event>) -> Option<Event> {
    timeout(QUIET, events.next()).await.ok().map(|event| event.expect("the stream ends only with the driver"))
}

#[tokio::test(start_paused = true)]
async fn a_refused_call_has_done_nothing() {
    let engine = engine(SimConfig::default());
    let driver = engine.driver("demo");
    engine.fault(Fault::new(FaultKind::Refused).on(Call::Create));
    let refused = driver.start(&start("web", 0), None).await;
    assert!(matches!(refused, Err(DriverError::Unreachable { .. })), "{refused:?}");
    assert!(engine.containers().is_empty());
    assert_eq!(engine.now_ms(), 1, "a refusal is quick");
    run(&driver, "web", 0).await;
}

#[tokio::test(start_paused = true)]
async fn a_rejected_call_has_done_nothing_and_says_why() {
    let engine = engine(SimConfig::default());
    let driver = engine.driver("demo");
    engine.fault(Fault::new(FaultKind::Rejected { code: "engine" }).on(Call::Start));
    match driver.start(&start("web", 0), None).await {
        Err(DriverError::Rejected { code: "engine", call: "start", .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(engine.count("web", Phase::Created), 1, "created, and its start refused");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_leaves_a_doubt_and_the_effect() {
    let engine = engine(SimConfig::default());
    let driver = engine.driver("demo");
    engine.fault(Fault::new(FaultKind::AnswerLost).on(Call::Start));
    match driver.start(&start("web", 0), None).await {
        Err(DriverError::OutcomeUnknown { call: "start", .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(engine.count("web", Phase::Running), 1);
    let again = driver.start(&start("web", 0), None).await.expect("it runs");
    assert!(again.already);

    engine.fault(Fault::new(FaultKind::AnswerLost).on(Call::Observe));
    let observed = driver.observe().await;
    assert!(matches!(observed, Err(DriverError::Unreachable { .. })), "nothing is in doubt: {observed:?}");
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_a_create_is_one_to_the_start() {
    let engine = engine(SimConfig::default());
    let driver = engine.driver("demo");
    engine.fault(Fault::new(FaultKind::AnswerLost).on(Call::Create));
    match driver.start(&start("web", 0), None).await {
        Err(DriverError::OutcomeUnknown { call: "start", .. }) => {}
        other => panic!("{other:?}"),
    }
    assert_eq!(engine.count("web", Phase::Created), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_call_ends_by_the_drivers_limit_and_is_never_done() {
    let engine = engine(SimConfig { call_timeout_ms: 2_000, ..SimConfig::default() });
    let driver = engine.driver("demo");
    let id = run(&driver, "web", 0).await;
    engine.fault(Fault::new(FaultKind::Hang).on(Call::Stop));
    let begun = Instant::now();
    let stopped = driver.stop(&id, GRACE).await;
    assert!(matches!(stopped, Err(DriverError::OutcomeUnknown { call: "stop", .. })), "{stopped:?}");
    assert_eq!(begun.elapsed().as_millis(), 2_000 + u128::from(GRACE.grace_ms), "the limit, and the grace");
    tokio::time::advance(QUIET).await;
    assert_eq!(engine.count("web", Phase::Running), 1);
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_beyond_the_limit_takes_effect_late() {
    let engine = engine(SimConfig { call_timeout_ms: 2_000, ..SimConfig::default() });
    let driver = engine.driver("demo");
    engine.fault(Fault::new(FaultKind::Slow { extra_ms: 3_000 }).on(Call::Start));
    let started = driver.start(&start("web", 0), None).await;
    assert!(matches!(started, Err(DriverError::OutcomeUnknown { .. })), "{started:?}");
    assert_eq!(engine.count("web", Phase::Starting), 1, "the engine is still at it");
    timeout(QUIET, engine.until(|engine| engine.count("web", Phase::Running) == 1))
        .await
        .expect("it runs at last");
    assert!(engine.now_ms() >= 3_000);
}

#[tokio::test(start_paused = true)]
async fn a_fault_strikes_only_what_it_is_for_and_so_often() {
    let engine = engine(SimConfig::default()).with_instance("instance-2", Resources::slots_only(3));
    let driver = engine.driver("demo");
    let fault = Fault::new(FaultKind::Refused).on(Call::Start).service("web").instance("instance-1");
    engine.fault(fault.times(2));
    run(&driver, "batch", 0).await;
    let mut elsewhere = start("web", 0);
    elsewhere.instance = "instance-2".to_owned();
    driver.start(&elsewhere, None).await.expect("another instance");
    for _ in 0..2 {
        driver.start(&start("web", 0), None).await.expect_err("the fault strikes");
    }
    run(&driver, "web", 0).await;
    engine.fault(Fault::new(FaultKind::Hang).times(3));
    assert_eq!(engine.clear_faults(), 3);
    driver.observe().await.expect("no fault is left");
}

#[tokio::test(start_paused = true)]
async fn seeded_faults_strike_at_their_rate() {
    let rates = FaultRates { refused_per_mille: 100, answer_lost_per_mille: 200, ..FaultRates::default() };
    let engine = engine(SimConfig { fault_rates: rates, ..SimConfig::seeded(3) });
    let driver = engine.driver("demo");
    let mut failed = 0;
    for _ in 0..1_000 {
        failed += usize::from(driver.observe().await.is_err());
    }
    assert!((250..350).contains(&failed), "300 of 1,000 were to fail, {failed} did");
    engine.set_fault_rates(FaultRates::default());
    for _ in 0..100 {
        driver.observe().await.expect("calm again");
    }
}

#[tokio::test(start_paused = true)]
async fn containers_run_on_while_the_engine_refuses() {
    let engine = engine(SimConfig::default());
    let driver = engine.driver("demo");
    let mut events = driver.events();
    assert_eq!(told(&mut events).await, Some(Event::Gap));
    let id = run(&driver, "web", 0).await;
    while events.next().now_or_never().is_some() {}

    engine.outage_for(Outage::Refusing, 30_000);
    let begun = Instant::now();
    let (observed, stopped) = (driver.observe().await, driver.stop(&id, GRACE).await);
    assert!(matches!(observed, Err(DriverError::Unreachable { .. })), "{observed:?}");
    assert!(matches!(stopped, Err(DriverError::Unreachable { .. })), "{stopped:?}");
    assert!(begun.elapsed() <= Duration::from_millis(2), "refused at once");
    engine.hand().pause(&id);
    assert_eq!(told(&mut events).await, None, "no event meanwhile");

    assert_eq!(told(&mut events).await, Some(Event::Gap), "a gap when it is back");
    assert_eq!(engine.now_ms() / 1_000, 30);
    assert_eq!(driver.observe().await.expect("it is back").containers[0].phase, Phase::Frozen);
}

#[tokio::test(start_paused = true)]
async fn a_silent_engine_costs_every_call_its_limit() {
    let engine = engine(SimConfig { call_timeout_ms: 2_000, ..SimConfig::default() });
    let driver = engine.driver("demo");
    let id = run(&driver, "web", 0).await;
    engine.set_outage(Some(Outage::Silent));
    let begun = Instant::now();
    let observed = driver.observe().await;
    assert!(matches!(observed, Err(DriverError::Unreachable { .. })), "{observed:?}");
    let frozen = driver.freeze(&id).await;
    assert!(matches!(frozen, Err(DriverError::OutcomeUnknown { .. })), "{frozen:?}");
    assert_eq!(begun.elapsed().as_millis(), 4_000);
    engine.set_outage(None);
    assert_eq!(driver.freeze(&id).await.expect("it is back"), Outcome::Done);
}

#[tokio::test(start_paused = true)]
async fn what_reached_the_engine_before_an_outage_is_done() {
    for outage in [Outage::Refusing, Outage::Silent] {
        let engine = engine(SimConfig { call_timeout_ms: 2_000, ..SimConfig::default() });
        let driver = engine.driver("demo");
        let begin = start("web", 0);
        let begun = Instant::now();
        let cut = async {
            engine.until(|engine| engine.count("web", Phase::Starting) == 1).await;
            engine.set_outage(Some(outage));
        };
        let (started, ()) = tokio::join!(driver.start(&begin, None), cut);
        assert!(matches!(started, Err(DriverError::OutcomeUnknown { .. })), "{started:?}");
        assert!(begun.elapsed() < Duration::from_millis(2_100), "bounded by the driver's limit");
        assert_eq!(engine.count("web", Phase::Running), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_stopped_engine_is_asked_is_done_when_it_goes_on() {
    let engine = engine(SimConfig { call_timeout_ms: 2_000, ..SimConfig::default() });
    let driver = engine.driver("demo");
    let (kept, ended) = (run(&driver, "web", 0).await, run(&driver, "web", 1).await);
    engine.outage_for(Outage::Stopped, 10_000);
    let observed = driver.observe().await;
    assert!(matches!(observed, Err(DriverError::Unreachable { .. })), "{observed:?}");
    let stopped = driver.stop(&ended, GRACE).await;
    assert!(matches!(stopped, Err(DriverError::OutcomeUnknown { .. })), "{stopped:?}");
    tokio::time::sleep(QUIET).await;
    assert_eq!(engine.container(&ended).expect("it is there").phase, Phase::Exited, "late, and all the same");
    engine.outage_for(Outage::Stopped, 1_000);
    assert_eq!(driver.freeze(&kept).await.expect("it goes on within the limit"), Outcome::Done);
}

#[tokio::test(start_paused = true)]
async fn events_may_be_lost_without_a_gap_and_repeated() {
    let engine = engine(SimConfig::default());
    let driver = engine.driver("demo");
    let mut events = driver.events();
    assert_eq!(told(&mut events).await, Some(Event::Gap));
    engine.set_event_loss_per_mille(1_000);
    run(&driver, "web", 0).await;
    engine.set_event_loss_per_mille(0);
    assert_eq!(told(&mut events).await, None);
    engine.repeat_event(Event::Changed);
    assert_eq!(told(&mut events).await, Some(Event::Changed));
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_again_and_again_tells_of_gaps_alone() {
    let engine = engine(SimConfig::default());
    let driver = engine.driver("demo");
    let mut events = driver.events();
    assert_eq!(told(&mut events).await, Some(Event::Gap));
    engine.set_events_break_every_ms(Some(250));
    let begun = Instant::now();
    run(&driver, "web", 0).await;
    for _ in 0..8 {
        assert_eq!(told(&mut events).await, Some(Event::Gap));
    }
    assert_eq!(begun.elapsed().as_millis(), 2_000);
    engine.set_events_break_every_ms(None);
    assert_eq!(told(&mut events).await, Some(Event::Gap));
    run(&driver, "web", 1).await;
    assert_eq!(told(&mut events).await, Some(Event::Changed));
}

#[tokio::test(start_paused = true)]
async fn the_engines_time_of_day_may_jump() {
    let engine = engine(SimConfig::default());
    let before_ms = engine.clock_ms();
    engine.jump_clock_ms(-3_600_000);
    assert_eq!((before_ms - engine.clock_ms(), engine.now_ms()), (3_600_000, 0));
}

#[tokio::test(start_paused = true)]
async fn lost_events_are_a_gap_when_they_flow_again() {
    let engine = engine(SimConfig::default());
    let driver = engine.driver("demo");
    let mut events = driver.events();
    assert_eq!(told(&mut events).await, Some(Event::Gap));
    engine.set_events_cut(true);
    run(&driver, "web", 0).await;
    assert_eq!(told(&mut events).await, None, "lost");
    let mut late = driver.events();
    assert_eq!(told(&mut late).await, None, "a new stream is not established either");
    engine.set_events_cut(false);
    assert_eq!(told(&mut events).await, Some(Event::Gap));
    assert_eq!(told(&mut late).await, Some(Event::Gap));
    assert_eq!(told(&mut events).await, None, "what was lost stays lost");
}

#[tokio::test(start_paused = true)]
async fn late_events_come_when_they_should() {
    let engine = engine(SimConfig { event_delay_ms: 5_000..=5_000, ..SimConfig::default() });
    let driver = engine.driver("demo");
    let mut events = driver.events();
    assert_eq!(told(&mut events).await, Some(Event::Gap));
    let id = engine.place(crate::labels("demo", "web"), 0, Resources::ONE_SLOT, Phase::Running);
    assert_eq!(told(&mut events).await, Some(Event::Changed));
    assert_eq!(engine.now_ms(), 5_000);
    engine.set_event_delay_ms(0..=0);
    engine.hand().exit(&id, 1);
    assert_eq!(told(&mut events).await, Some(Event::Changed));
    assert_eq!(engine.now_ms(), 5_000);
}

#[tokio::test(start_paused = true)]
async fn events_of_another_cluster_are_not_told() {
    let engine = engine(SimConfig::default());
    let mut events = engine.driver("demo").events();
    assert_eq!(told(&mut events).await, Some(Event::Gap));
    run(&engine.driver("other"), "web", 0).await;
    engine.place_foreign("postgres");
    assert_eq!(told(&mut events).await, None);
}

#[tokio::test(start_paused = true)]
async fn an_image_that_is_taken_away_is_missed() {
    let engine = engine(SimConfig::default());
    let driver = engine.driver("demo");
    driver.prepare(&crate::spec("runs")).await.expect("it is there");
    engine.set_image("runs", None);
    for result in [
        driver.prepare(&crate::spec("runs")).await,
        driver.start(&start("web", 0), None).await.map(|_started| ()),
    ] {
        assert_eq!(result.map_err(|error| error.code()), Err("image_missing"));
    }
    engine.set_image("runs", Some(Behaviour::fails_to_start()));
    assert_eq!(driver.start(&start("web", 0), None).await.map_err(|error| error.code()), Err("bad_spec"));
}

#[tokio::test(start_paused = true)]
async fn an_exit_by_itself_strikes_only_the_life_that_it_was_for() {
    let engine = engine(SimConfig { latencies: Latencies::all(0..=0), ..SimConfig::default() });
    engine.set_image("runs", Some(Behaviour::exits(3, 1_000)));
    let driver = engine.driver("demo");
    let id = run(&driver, "web", 0).await;
    tokio::time::advance(Duration::from_millis(500)).await;
    engine.hand().exit(&id, 1);
    engine.hand().start(&id);
    tokio::time::sleep(Duration::from_millis(750)).await;
    assert_eq!(engine.count("web", Phase::Running), 1, "the first life's end is not the second's");
    tokio::time::sleep(Duration::from_millis(500)).await;
    let exit = engine.container(&id).expect("it is there").exit.expect("it has ended");
    assert_eq!(exit.code, 3);
}

#[tokio::test(start_paused = true)]
async fn capacity_and_availability_are_observed_as_they_are_set() {
    let engine = engine(SimConfig::default());
    let driver = engine.driver("demo");
    let mut events = driver.events();
    assert_eq!(told(&mut events).await, Some(Event::Gap));
    engine.set_capacity("instance-1", Resources::slots_only(1));
    assert_eq!(told(&mut events).await, Some(Event::Changed));
    engine.set_availability("instance-1", InstanceAvailability::Draining);
    let instance = driver.observe().await.expect("it can be observed").instances.remove(0);
    assert_eq!(instance.capacity, Resources::slots_only(1));
    assert_eq!(instance.availability, InstanceAvailability::Draining);
}

#[tokio::test(start_paused = true)]
async fn several_instances_of_one_engine_and_several_engines_are_apart() {
    let [one, two] = ["engine-1", "engine-2"].map(|_| engine(SimConfig::default()));
    let one = one.with_instance("instance-2", Resources::slots_only(3));
    assert_eq!(one.driver("demo").instances(), ["instance-1", "instance-2"]);
    one.set_outage(Some(Outage::Silent));
    let begun = Instant::now();
    run(&two.driver("demo"), "web", 0).await;
    assert!(begun.elapsed() < Duration::from_millis(200), "one engine's silence costs the other nothing");
    assert!(one.containers().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_lists_late_shows_a_while_later_what_has_happened() {
    let config = SimConfig { lists_late_ms: 500..=500, ..SimConfig::default() };
    let engine = engine(config);
    let driver = engine.driver("demo");
    let phase = async |id| {
        let observed = driver.observe().await.expect("it can be observed");
        observed.containers.iter().find(|it| it.id == id).map(|it| it.phase)
    };
    let id = run(&driver, "web", 0).await;
    assert_eq!(phase(id.clone()).await, None, "started, and not listed yet");
    sleep(Duration::from_millis(500)).await;
    assert_eq!(phase(id.clone()).await, Some(Phase::Running));
    driver.stop(&id, GRACE).await.expect("it stops");
    driver.remove(&id).await.expect("it is removed");
    assert_eq!(phase(id.clone()).await, Some(Phase::Running), "gone, and listed as running still");
    sleep(Duration::from_millis(500)).await;
    assert_eq!(phase(id.clone()).await, None);
}

#[tokio::test(start_paused = true)]
async fn nothing_that_was_listed_is_taken_back() {
    let engine = engine(SimConfig { lists_late_ms: 0..=500, ..SimConfig::seeded(3) });
    let driver = engine.driver("demo");
    run(&driver, "web", 0).await;
    let mut listed = false;
    for _ in 0..100 {
        let observed = driver.observe().await.expect("it can be observed");
        assert!(!listed || observed.containers.len() == 1, "it was listed before");
        listed = !observed.containers.is_empty();
    }
    assert!(listed);
}

#[tokio::test(start_paused = true)]
async fn what_goes_wrong_is_noted() {
    let engine = engine(SimConfig::default());
    let driver = engine.driver("demo");
    let id = run(&driver, "web", 0).await;
    assert_eq!(engine.history().mishaps(), []);
    let asked_at_ms = engine.now_ms();
    engine.fault(Fault::new(FaultKind::Hang).on(Call::Freeze));
    engine.fault(Fault::new(FaultKind::Slow { extra_ms: 2_000 }).on(Call::Freeze));
    driver.freeze(&id).await.expect_err("it hangs");
    driver.freeze(&id).await.expect("it takes its time");
    let history = engine.history();
    let [hung, slow] = history.mishaps() else { panic!("two of them: {:?}", history.mishaps()) };
    assert_eq!((hung.call, hung.from_ms, hung.until_ms), (Call::Freeze, asked_at_ms, asked_at_ms + 10_000));
    assert_eq!((slow.call, slow.from_ms, slow.until_ms), (Call::Freeze, hung.until_ms, engine.now_ms()));
}
