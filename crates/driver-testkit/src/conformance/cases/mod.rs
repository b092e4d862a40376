//! The cases, by what they are about. Each panics when the driver does not do as it should.

mod after;
mod events;
mod freeze;
mod observe;
mod remove;
mod start;
mod stop;

pub use after::*;
pub use events::*;
pub use freeze::*;
pub use observe::*;
pub use remove::*;
pub use start::*;
pub use stop::*;
