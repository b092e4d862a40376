//! End-to-end checks of the whole product on a real engine, seen from outside, and the reaction benchmark.
//!
//! The services run as processes of their own, on loopback; what they did is judged by the engine's own event
//! stream ([`observer`]) and by the demand source's own answers ([`demand`]), never by what they say of
//! themselves. Every run has a cluster name of its own, and removes what it made.
//!
//! A run that is killed can't: `docker rm --force $(docker ps --all --quiet --filter name=force12.acc-)` does, and
//! with `name=acceptance.stranger-of-acc-` for the strangers.
//!
//! `cargo test -p acceptance` needs a Docker engine on this machine, and fails without one. The checks of one
//! engine would disturb each other, so they take turns. Those of several engines (`--test lost_engines`, [`farm`])
//! start their own and need root, `ip`, `iptables` and `nsenter`.
//!
//! | variable | meaning | default |
//! |---|---|---|
//! | `DOCKER_HOST` | the engine: a unix socket | `unix:///var/run/docker.sock` |
//! | `FORCE12_BIN_DIR` | where the built services are | they are built, in the profile of the checks |
//! | `FORCE12_ACCEPTANCE_KILLS` | how often the scheduler is killed | 10 |
//! | `FORCE12_ACCEPTANCE_WATCH_S` | how long default demand is watched, in seconds | 120 |
//! | `FORCE12_ACCEPTANCE_FREEZE_WATCH_S` | the same where victims are frozen | 30 |
//! | `FORCE12_ACCEPTANCE_SWAPS` | how many containers are preempted by freezing | 100 |
//! | `FORCE12_ACCEPTANCE_OUTAGE_S` | how long an engine is lost, in seconds | 30 |
//! | `FORCE12_ACCEPTANCE_SEED` | the seed of whatever is random | 1 |

pub mod binaries;
pub mod collector;
mod configs;
pub mod demand;
pub mod engine;
mod failure;
pub mod farm;
pub mod http;
pub mod observer;
pub mod pool;
pub mod restarted;
pub mod service;
pub mod stack;
pub mod timeline;
pub mod way;

/// A whole number from the environment, or `default` where it is not set.
///
/// # Panics
/// If it is set to anything else.
pub fn from_environment(variable: &str, default: u64) -> u64 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable}: {text:?} is not a whole number")),
        Err(_) => default,
    }
}
