//! A simulated engine on tokio's clock: seeded, with faults, and with a memory of all that happened.
//!
//! ```
//! use driver::Driver;
//! use driver_testkit::sim::{Behaviour, SimConfig, SimEngine};
//! use planner::Resources;
//!
//! # let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
//! # runtime.block_on(async {
//! let engine = SimEngine::new("engine-1", SimConfig::seeded(12))
//!     .with_instance("instance-1", Resources::slots_only(3))
//!     .with_image("force12/workload", Behaviour::runs());
//! let driver = engine.driver("demo");
//! assert!(driver.observe().await.unwrap().containers.is_empty());
//! engine.history().assert_sound("demo");
//! # });
//! ```

mod checks;
mod config;
mod dice;
mod driver;
mod engine;
mod events;
mod fault;
mod hand;
mod history;
mod image;
mod pull;
mod requests;
mod world;

pub use self::checks::{Counts, Duplicate, History};
pub use self::config::{Latencies, SimConfig};
pub use self::driver::SimDriver;
pub use self::engine::{SimContainerView, SimEngine};
pub use self::fault::{Call, Fault, FaultKind, FaultRates, Outage};
pub use self::hand::Hand;
pub use self::history::{Actor, Entry, Happening, Labels, Mishap, Occupancy, Subject};
pub use self::image::{Behaviour, Checked};

/// The name of a container that Force12 starts.
fn container_name(cluster: &str, service: &str, instance: &str, ordinal: u32) -> String {
    format!("force12.{cluster}.{service}.{instance}.{ordinal}")
}
