//! Documents for tests.

use api_types::Timestamp;
use api_types::snapshot::{Freshness, Latency, Resources, ServiceKind, ServiceSnapshot, Snapshot};

/// The demo with a demand of 4, taken `sequence` seconds after the epoch.
pub(crate) fn snapshot(epoch: &str, sequence: u64) -> Snapshot {
    let slots = |slots| Resources { slots, ..Resources::default() };
    let service = |name: &str, priority: u32, demand: Option<u32>, running: u32| ServiceSnapshot {
        name: name.to_owned(),
        kind: if demand.is_some() { ServiceKind::Demand } else { ServiceKind::Fill },
        priority,
        request: slots(1),
        demand,
        freshness: demand.map(|_| Freshness::Fresh),
        target: demand,
        starting: 0,
        running,
        stopping: 0,
        frozen: 0,
        standby: 0,
        unhealthy: 0,
        outdated: 0,
        work_lost_ms: None,
        work_kept_ms: None,
        unmet: 0,
        limited_by: Vec::new(),
        paused: false,
        reason: None,
    };
    Snapshot {
        epoch: epoch.to_owned(),
        sequence,
        taken_at: Timestamp::from_epoch_ms(sequence * 1_000),
        cluster: "demo".to_owned(),
        success: Some(true),
        success_since: Timestamp::from_epoch_ms(0),
        blocked_by: Vec::new(),
        summary: "all is well".to_owned(),
        capacity: slots(9),
        usable_capacity: slots(9),
        used: slots(9),
        services: vec![service("priority1", 1, Some(4), 4), service("priority2", 2, None, 5)],
        instances: Vec::new(),
        reaction: Latency::default(),
        start: Latency::default(),
        stop: Latency::default(),
        source: None,
    }
}
