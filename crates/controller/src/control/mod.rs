//! The loop.

mod adopt;
mod change;
mod decide;
mod publish;
mod take_in;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use planner::{Delta, InstanceId, Millis, NotDone, Plan, ServiceId};
use rand::SeedableRng as _;
use rand_chacha::ChaCha8Rng;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::Span;

use crate::backoff::{Holds, StartFailures};
use crate::clock::Clock;
use crate::cluster::{Cluster, EngineId, Work};
use crate::decisions::WokenBy;
use crate::demands::Demands;
use crate::engines::{Engine, Standings};
use crate::handle::{Handle, Shared};
use crate::latency::{Latency, Reactions};
use crate::settings::{Engines, Settings, SettingsError};
use crate::trace::Causes;
use crate::turns::Waits;
use crate::view::{self, View};
use adopt::Adoption;

/// The loop looks at least this often, so that what it counts in seconds (success, freshness) is not older than
/// this when it is read.
const LOOK_AT_LEAST_EVERY: Duration = Duration::from_secs(5);

/// Time alone wakes the loop no sooner than this after a pass: moments are told in milliseconds.
const TIMER_SPACING: Duration = Duration::from_millis(1);

/// Everything that a controller touches.
pub struct Parts {
    /// What is wanted.
    pub settings: Settings,
    /// The ways to engines and demand sources.
    pub engines: Engines,
    /// The clock.
    pub clock: Clock,
    /// Of the jitter in backoffs.
    pub seed: u64,
    /// Differs with each start; shown in every view.
    pub epoch: String,
}

/// The control loop. [`Controller::run`] is the whole of it: dropping that future ends every task of it at once,
/// as a crash would.
pub struct Controller {
    settings: Settings,
    clock: Clock,
    shared: Arc<Shared>,
    views: watch::Sender<Arc<View>>,
    random: ChaCha8Rng,
    cluster: Cluster,
    engines: BTreeMap<EngineId, Engine>,
    engines_started: u64,
    /// [`Settings::lost_after_ms`] in force, for the observers.
    lost_after: watch::Sender<Duration>,
    demands: Demands,
    standings: Standings,
    /// What an operator has said about services, over what is configured.
    paused: HashMap<String, bool>,
    failures: StartFailures,
    holds: Holds,
    /// What the planner's state has been told, to tell it only what is new.
    backoffs: HashMap<(ServiceId, InstanceId), Millis>,
    reactions: Reactions,
    starts: Latency,
    stops: Latency,
    /// The last plan's, with their codes, to see whether the next has anything new to say.
    not_done: Vec<(NotDone, &'static str)>,
    /// Services with stops that wait for what a predecessor may have asked for; see [`can_wait`].
    stops_wait: BTreeSet<Arc<str>>,
    operations_begun: u64,
    /// Actions of the last plan for which there was no place at their engine.
    waits: Waits,
    causes: Causes,
    /// See [`Controller::with_trace_ids`].
    trace_id: fn(&Span) -> Option<String>,
    adoption: Adoption,
    draining: bool,
    shutdown_at: Option<Instant>,
    /// The settings or the standing of an instance may have changed.
    judge_again: bool,
    /// When time alone changes a standing.
    judge_at: Option<Millis>,
    /// `settle_ms` after the start. On an engine whose starts are not idempotent nothing is started before: what a
    /// predecessor has started may not be listed yet, and would be started twice.
    settled_at: Millis,
    counted_until: Instant,
    /// By service, for as long as the controller runs: the work of fill containers that was lost, and that was kept.
    work_ms: HashMap<(Arc<str>, Work), u64>,
    success_ms: u64,
    no_success_ms: u64,
    /// Observers, feeds and preparations.
    tasks: JoinSet<()>,
    actions: JoinSet<()>,
    /// Given, and not in use before the loop runs.
    given: Engines,
}

impl Controller {
    /// A controller and the handle to it; nothing happens before [`Controller::run`].
    pub fn new(parts: Parts) -> Result<(Self, Handle), SettingsError> {
        let Parts { settings, engines, clock, seed, epoch } = parts;
        settings.validate(&engines)?;
        let shared = Arc::new(Shared::default());
        let first = View::nothing_known(epoch.into(), settings.cluster.as_str().into(), clock.now());
        let (views, receiver) = watch::channel(Arc::new(first));
        let handle = Handle { shared: Arc::clone(&shared), views: receiver };
        let fill_hold_until = clock.now().plus(settings.start_hold_ms);
        let settled_at = clock.now().plus(settings.settle_ms);
        let bare = Settings { services: Vec::new(), instances: Vec::new(), ..settings.clone() };
        let cluster = Cluster::new(&bare, |_| EngineId(0), fill_hold_until);
        let lost_after = watch::Sender::new(Duration::from_millis(settings.lost_after_ms));
        let controller = Self {
            settings,
            clock,
            shared,
            views,
            random: ChaCha8Rng::seed_from_u64(seed),
            cluster,
            engines: BTreeMap::new(),
            engines_started: 0,
            lost_after,
            demands: Demands::default(),
            standings: Standings::default(),
            paused: HashMap::new(),
            failures: StartFailures::default(),
            holds: Holds::default(),
            backoffs: HashMap::new(),
            reactions: Reactions::default(),
            starts: Latency::default(),
            stops: Latency::default(),
            not_done: Vec::new(),
            stops_wait: BTreeSet::new(),
            operations_begun: 0,
            waits: Waits::default(),
            causes: Causes::default(),
            trace_id: |_| None,
            adoption: Adoption::Observing,
            draining: false,
            shutdown_at: None,
            judge_again: true,
            judge_at: None,
            settled_at,
            counted_until: Instant::now(),
            work_ms: HashMap::new(),
            success_ms: 0,
            no_success_ms: 0,
            tasks: JoinSet::new(),
            actions: JoinSet::new(),
            given: engines,
        };
        Ok((controller, handle))
    }

    /// Has decisions tell the trace that their span belongs to: `trace_id` knows it, if spans are exported.
    #[must_use]
    pub fn with_trace_ids(self, trace_id: fn(&Span) -> Option<String>) -> Self {
        Self { trace_id, ..self }
    }

    /// Runs until [`Handle::shutdown`].
    ///
    /// # Panics
    ///
    /// If a task of its own does that observes, prepares or fetches: the loop would be blind from then on. Started
    /// again, it goes on from what the engines say. A panic of a driver or a transport is a call that has failed.
    pub async fn run(mut self) {
        let engines = std::mem::take(&mut self.given);
        self.use_engines(engines);
        self.configure(&BTreeSet::new());
        loop {
            let (mut woken_by, woken_at) = self.shared.take_woken();
            if let Some(woken_at) = woken_at {
                metrics::histogram!("force12_loop_lag_seconds").record(woken_at.elapsed().as_secs_f64());
            } else {
                woken_by = woken_by.with(WokenBy::TIMER);
            }
            let wake_at = self.pass(woken_by);
            if self.shutdown_at.is_some_and(|at| self.cluster.under_way() == 0 || Instant::now() >= at) {
                return;
            }
            tokio::select! {
                () = self.shared.woken() => {}
                () = tokio::time::sleep_until(wake_at) => {}
            }
        }
    }

    /// One pass: reads what is known, plans, issues, publishes. Says when to look again at the latest.
    fn pass(&mut self, woken_by: WokenBy) -> Instant {
        self.reap();
        for (command, cause) in self.shared.take_commands() {
            self.obey(command);
            self.causes.add(cause);
        }
        for ended in self.shared.take_ended() {
            ended.span.clone().in_scope(|| self.take_in_end(ended));
        }
        self.take_in_reports();
        let running = |cluster: &Cluster, service| view::running(cluster, service);
        let (cluster, reactions) = (&mut self.cluster, &mut self.reactions);
        self.demands.take_in(&self.settings, &self.clock, cluster, reactions, &mut self.causes, running);
        let now = self.clock.now();
        self.judge_instances();
        let mut merged = self.cluster.merge(now);
        if self.cluster.has_empty_removed() {
            self.configure(&BTreeSet::new());
            merged.extend(self.cluster.merge(now));
        }
        self.forgive(now);
        self.tell_backoffs();
        let preparing = self.preparing(now);
        self.follow_rises(now);

        if self.adoption != Adoption::Done && self.shutdown_at.is_none() {
            self.adopt(woken_by, now);
            merged.extend(self.cluster.merge(now));
        }
        let mut plan = Plan::default();
        let mut success = planner::Success { success: false, blocked_by: vec!["observing"] };
        if self.adoption == Adoption::Done {
            let planned_at = Instant::now();
            plan = planner::plan(self.cluster.state(), now);
            let plan_micros = u64::try_from(planned_at.elapsed().as_micros()).unwrap_or(u64::MAX);
            metrics::histogram!("force12_plan_seconds").record(planned_at.elapsed().as_secs_f64());
            debug_assert_eq!(planner::invariants::plan(self.cluster.state(), &plan), Ok(()));
            success = planner::success(self.cluster.state(), &plan, now);
            let waits_to_end = plan.waits_to_end.iter().copied();
            if !self.cluster.state().waiting_to_end().eq(waits_to_end) {
                let containers = plan.waits_to_end.clone();
                self.cluster.apply(Delta::WaitsToEnd { containers, at: now });
            }
            if self.shutdown_at.is_none() {
                self.decide(&plan, &preparing, woken_by, plan_micros, now);
                merged.extend(self.cluster.merge(now));
            }
            self.limit_rises(&plan);
        }
        if self.waits.only_removals() {
            // Whatever else waits for its turn has the same causes.
            self.causes.clear();
        }
        self.publish(&plan, &success, &preparing, &merged, now);

        let settled = self.cluster.state().fill_hold_until();
        let fill_hold = (now < settled).then_some(settled);
        let clearing = match self.adoption {
            Adoption::Clearing { until } => Some(until),
            Adoption::Observing | Adoption::Done => None,
        };
        let limit = self.cluster.next_limit();
        let place = if self.waits.is_empty() { None } else { self.cluster.next_place(now) };
        let waits =
            [plan.next_wake_at, self.holds.next(now), fill_hold, clearing, limit, place, self.judge_at];
        let looked_at = Instant::now();
        let mut wake_at = looked_at + LOOK_AT_LEAST_EVERY;
        for moment in waits.into_iter().flatten() {
            wake_at = wake_at.min(self.clock.instant(moment).max(looked_at + TIMER_SPACING));
        }
        if let Some(due) = self.waits.next_removal(looked_at) {
            wake_at = wake_at.min(due.max(looked_at + TIMER_SPACING));
        }
        self.shutdown_at.map_or(wake_at, |at| wake_at.min(at))
    }

    fn reap(&mut self) {
        while let Some(ended) = self.tasks.try_join_next() {
            if let Err(error) = ended
                && let Ok(panic) = error.try_into_panic()
            {
                std::panic::resume_unwind(panic);
            }
        }
        while let Some(ended) = self.actions.try_join_next() {
            if let Err(error) = ended {
                // Its outcome has been reported as unknown already.
                tracing::error!(%error, "an action's task has died");
            }
        }
    }

    /// Dice for a task of its own, so that tasks don't share one sequence.
    fn fork(&mut self) -> ChaCha8Rng {
        ChaCha8Rng::from_rng(&mut self.random)
    }
}
