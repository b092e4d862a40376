//! The controller: what joins the planner to engines and demand sources.
//!
//! [`Controller::new`] takes everything it touches as arguments — settings, drivers, demand transports, a clock
//! and a seed — and gives back the loop, to be run as one future, and a [`Handle`] to talk to it. The loop is
//! level-triggered: whatever happens only wakes it; it then reads what is known, plans, issues the actions and
//! publishes one [`View`]. It keeps nothing that it could not rebuild from what the engines say, so it may be
//! dropped at any moment and started again.

mod backoff;
mod clock;
mod cluster;
mod control;
mod decisions;
mod demands;
mod engines;
mod executor;
mod feed;
mod guarded;
mod handle;
mod latency;
mod limit;
mod measure;
mod observer;
mod prepare;
mod settings;
mod trace;
mod turns;
mod view;

pub use clock::Clock;
pub use control::{Controller, Parts};
pub use decisions::{
    ActionOutcome, ActionView, DECISION_ENTRIES_KEPT, DECISIONS_KEPT, Decision, DecisionQuery, InputView,
    NotDoneView, WokenBy,
};
pub use feed::{DemandAnswer, DemandDetail, DemandTransport, FeedError, FetchRequest};
pub use handle::{CommandError, DrainError, DrainProgress, Handle, UpdateError};
pub use measure::describe_metrics;
pub use settings::{
    DemandKey, DemandSource, Engines, Ready, ServiceSettings, Settings, SettingsError, SourceSettings,
};
pub use view::{ContainerView, InstanceView, LatencyView, ServiceView, View};
