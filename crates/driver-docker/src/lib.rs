//! The driver for a Docker engine: one daemon, with one or several instances of the pool on it.
//!
//! # Which containers are ours
//!
//! A container of the cluster carries the labels `force12.cluster`, `.service`, `.instance` and `.generation`, which
//! is how it is found again. But the engine gives a container its image's labels too, and shows both alike:
//! `docker commit` of one of our containers makes an image whose containers, whosever they are, seem to be ours. So
//! labels count only where they can only be the container's own: a container is ours if it carries all four labels
//! *and its image carries none of them*. An image never changes under its id, so that one look per image settles it.
//! That no container of ours is ever made from an image that carries such a label is seen to by
//! [`driver::Driver::prepare`] and before the first start from an image. Where the image has been deleted from under
//! a container and cannot be asked, the container has to have the very name that its labels give, which nothing
//! inherits.
//!
//! # How a start waits for its room
//!
//! [`driver::Driver::start`] creates the container at once. Beside that it listens for the victim's `die` event, which
//! comes when the process is gone, before the engine cleans up after it (which takes as long as the kill itself) and
//! before it answers the stop. The start goes out with that event. All who wait share one subscription to the engine's
//! events, so that a thousand waits hold one connection. Events tell nothing of what was before them, and may be
//! missed: so a wait looks at its victim once it listens, whenever the subscription is made anew, and now and then.
//!
//! Containers' health is not looked at: one that runs counts as running.

mod config;
mod connection;
mod docker;
mod error;
mod events;
mod files;
mod labels;
mod lagging;
mod observe;
mod pull;
mod registry;
mod spec;
mod tale;
mod tls;
mod told;
mod trace;

pub use config::{DockerConfig, DockerInstance, EngineAddress, EngineAddressError, Limits};
pub use docker::DockerDriver;
pub use files::FileError;
pub use registry::{Password, Registries, RegistryError, RegistryLogin, Secret};
pub use tls::{TlsError, TlsFiles};
