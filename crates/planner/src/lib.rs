//! The pure planner of Force12.
//!
//! [`plan()`] is a function from a [`State`] (what is observed, what is wanted) and a moment to a [`Plan`]
//! (what to do, why, and when to look again). It has no dependencies, does no input or output, knows no
//! clock and rolls no dice: the same state and moment give the same plan, whatever order they were told in.
//!
//! ```
//! use planner::{Delta, Instance, Millis, Reading, Resources, Service, State, plan};
//!
//! let services = vec![Service::demand("web", 1), Service::fill("batch", 2)];
//! let instances = vec![Instance::ready("instance-1", Resources::slots_only(3))];
//! let mut state = State::new(services, instances, Millis(0));
//!
//! let (web, now) = (state.service_id("web").unwrap(), Millis(1_000));
//! let reading = Reading::Known { containers: 1, confirmed_at: now };
//! state.apply(Delta::Demand { service: web, reading, at: now });
//!
//! let plan = plan(&state, now);
//! let words: Vec<String> = plan.actions.iter().map(|action| action.words(&state)).collect();
//! assert_eq!(words, [
//!     "start web/0 on instance-1 because 0 of 1 run",
//!     "start batch/0 on instance-1 because there is room left",
//!     "start batch/1 on instance-1 because there is room left",
//! ]);
//! ```
//!
//! # How a plan is made
//!
//! The caller keeps a [`State`] up to date with [`State::apply`], asks for a plan after every change and at
//! [`Plan::next_wake_at`], and marks each action that it begins as an [`Operation`] of its container. Between
//! plans nothing is remembered that is not in the state. One plan goes through these phases, each in a module of
//! its own, on a scratch copy of the cluster (`board`) in which every container has a fate:
//!
//! 1. How each container stands ([`Standing`]), and what is taken, promised and about to be left.
//! 2. What each service wants: its target, by demand, freshness, `min` and `max`, and the holds (`targets`).
//! 3. What goes whatever is wanted: of removed services, fill on draining instances, frozen containers that nobody
//!    wants (`standby`), and what an instance holds above its capacity (`victims`).
//! 4. One priority after the other (`settle`): shares among equals (`share`), surplus away, what lacks placed where
//!    it costs least (`placing`) in the room of the cheapest victims (`victims`), unhealthy and outdated containers
//!    replaced (`replace`); and for whatever is wanted and not done, why ([`NotDone`]).
//! 5. Standbys, if all demand is met (`standby`).
//! 6. Frozen containers that are to end, and have no room to end in (`evict`).
//! 7. The decisions become actions in order, each start paired with what it waits for (`issue`).
//!
//! # What is kept between plans
//!
//! How an instance stands before anything is decided depends on that instance alone and not on the time, so the state
//! keeps it, instance by instance (`spot`): who stands how, what that adds up to for each service, and in which order
//! its containers would be given up. The first plan that asks makes it; whatever changes on the instance makes the
//! state forget it. Nothing is kept of the whole cluster: a plan adds the instances up, and copies those it writes to.
//! So its cost is that of a look at each instance, and of what it decides.
//!
//! [`success`](fn@success) tells, for a state and its plan, whether everything that is wanted runs.
//!
//! # What always holds
//!
//! The properties by their numbers in ARCHITECTURE.md. [`invariants`] has the checks of those that can be read off
//! a state and a plan; tests call them on generated clusters after every step.
//!
//! 1. **Capacity.** No action brings an instance above its capacity; what something else brought above it comes back
//!    ([`invariants::capacity`]). One exception: where a service overlaps ([`Overlap::Swap`]), its containers begin
//!    beside what is being frozen for them: slots and CPU are taken twice for as long as that takes, memory never.
//! 2. **Strict importance.** Nothing is preempted for work of the same or lesser importance; among equals only what is
//!    above its share gives way ([`invariants::plan`]).
//! 3. **Meeting demand.** In the order of priority, each service gets its target or what fits beside the more
//!    important where they are ([`invariants::demand_met`]).
//! 4. **No idle room** for fill ([`invariants::no_idle_room`]).
//! 5. **Fixed point.** Carried out, a plan leads to an empty one; under way, to nothing contradictory. Time alone
//!    changes nothing before [`Plan::next_wake_at`].
//! 6. **Least churn.** No stop is superfluous ([`invariants::no_superfluous_stop`]); the order of the costs is told in
//!    the modules `placing` (where) and `victims` (who).
//! 7. **Unknown changes nothing**, and nothing unknown is taken for 0 ([`Freshness`], [`OnStale`]).
//! 8. **Killed at any moment**: a plan depends on nothing but the state, and that on nothing that can't be observed.
//! 9. **A lost instance** is not counted and nothing is asked of it ([`InstanceState::Lost`]).
//! 10. **Others' containers** never get into a state: the driver reports ours only.

mod board;
mod evict;
pub mod invariants;
mod issue;
mod model;
mod placing;
mod plan;
mod reasons;
mod replace;
mod settle;
mod share;
mod spot;
mod standby;
mod standing;
mod state;
mod success;
mod tally;
mod targets;
mod victims;

pub use model::{
    Container, ContainerKey, Fault, Freshness, Instance, InstanceId, InstanceState, Millis, OnPreempt,
    OnStale, Operation, Overlap, Phase, Placement, Reading, Resources, Service, ServiceId, ServiceKind,
};
pub use plan::{Action, Plan, ServicePlan, Success, plan};
pub use reasons::{NotDone, RemoveReason, StartReason, StopReason};
pub use standing::Standing;
pub use state::{Backoff, Delta, DemandNow, State};
pub use success::success;
