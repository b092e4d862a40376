//! The pure planner of Force12.
//!
//! [`plan`] is a function from a [`State`] (what is observed, what is wanted) and a moment to a [`Plan`]
//! (what to do, why, and when to look again). It has no dependencies, does no input or output, knows no
//! clock and rolls no dice.

mod board;
pub mod invariants;
mod issue;
pub mod model;
mod placing;
pub mod plan;
pub mod reasons;
mod settle;
mod share;
mod standby;
mod standing;
pub mod state;
mod success;
mod targets;
mod victims;

pub use model::{
    Container, ContainerKey, Freshness, Instance, InstanceId, InstanceState, Millis, OnPreempt, OnStale,
    Operation, Phase, Placement, Reading, Resources, Service, ServiceId, ServiceKind,
};
pub use plan::{Action, Plan, ServicePlan, Success, plan};
pub use reasons::{NotDone, RemoveReason, StartReason, StopReason};
pub use standing::Standing;
pub use state::{Backoff, Delta, DemandNow, State};
pub use success::success;
