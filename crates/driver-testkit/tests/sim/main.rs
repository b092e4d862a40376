//! The simulated engine does what it says: it conforms, its faults strike as named, its checks find what they
//! are for, and one seed gives one history.

mod checks;
mod conforms;
mod determinism;
mod faults;
mod kills;

use std::sync::Arc;

use driver::{ContainerId, ContainerSpec, Driver, Start, StopOptions};
use driver_testkit::sim::{Behaviour, Labels, SimConfig, SimEngine};
use planner::Resources;

const GRACE: StopOptions = StopOptions { grace_ms: 1_000 };

/// An engine with one instance of three slots.
fn engine(config: SimConfig) -> SimEngine {
    SimEngine::new("engine-1", config)
        .with_instance("instance-1", Resources::slots_only(3))
        .with_image("runs", Behaviour::runs())
        .with_image("ignores", Behaviour::ignores_stop_signal())
}

fn spec(image: &str) -> ContainerSpec {
    ContainerSpec { image: image.to_owned(), ..ContainerSpec::default() }
}

fn start(service: &str, ordinal: u32) -> Start {
    let spec = spec("runs");
    Start {
        service: service.to_owned(),
        instance: "instance-1".to_owned(),
        ordinal,
        request: Resources::ONE_SLOT,
        generation: spec.generation(),
        spec: Arc::new(spec),
    }
}

fn labels(cluster: &str, service: &str) -> Labels {
    Labels {
        cluster: cluster.to_owned(),
        service: service.to_owned(),
        instance: "instance-1".to_owned(),
        generation: spec("runs").generation(),
    }
}

async fn run(driver: &dyn Driver, service: &str, ordinal: u32) -> ContainerId {
    driver.start(&start(service, ordinal), None).await.expect("the container starts").id
}
