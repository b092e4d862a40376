//! The services' configuration files: the demo's, on ports and under a cluster name of the run's own.

use std::net::SocketAddr;

use crate::stack::{FILL, IMPORTANT, SLOTS_PER_INSTANCE};

/// demand-rng's: a walk between 0 and 9.
pub(crate) fn demand_rng(listen: SocketAddr, interval_ms: u64, seed: u64) -> String {
    format!(
        r#"
listen = "{listen}"

[[demand]]
key = "{IMPORTANT}"
pattern = "walk"
min = 0
max = 9
interval_ms = {interval_ms}
seed = {seed}
"#
    )
}

/// What differs from one scheduler to another.
pub(crate) struct Scheduler<'a> {
    pub(crate) listen: SocketAddr,
    pub(crate) cluster: &'a str,
    /// Each instance's name, and the lines that tell where its engine is.
    pub(crate) instances: &'a [(&'a str, String)],
    pub(crate) image: &'a str,
    pub(crate) network: &'a str,
    pub(crate) demand_url: &'a str,
    /// Further lines of the service whose demand is followed.
    pub(crate) important_lines: &'a str,
    /// Further lines of the service that fills.
    pub(crate) fill_lines: &'a str,
}

impl Scheduler<'_> {
    /// force12-scheduler's: the instances, one service on demand, one that fills.
    pub(crate) fn to_toml(&self) -> String {
        let Self { listen, cluster, instances, image, network, demand_url, important_lines, fill_lines } =
            self;
        let instance = |(name, engine_lines): &(&str, String)| {
            format!(
                r#"
[[instance]]
name = "{name}"
{engine_lines}
capacity = {{ slots = {SLOTS_PER_INSTANCE} }}
"#
            )
        };
        let instances: String = instances.iter().map(instance).collect();
        format!(
            r#"
cluster = "{cluster}"
listen = "{listen}"

[[demand_source]]
name = "rng"
url = "{demand_url}"
{instances}
[[service]]
name = "{IMPORTANT}"
priority = 1
image = "{image}"
demand = {{ source = "rng", key = "{IMPORTANT}" }}
network = "{network}"
stop_grace_ms = 1000
read_only_root = true
log = {{ driver = "json-file", options = {{ max-size = "1m", max-file = "1" }} }}
{important_lines}

[[service]]
name = "{FILL}"
priority = 2
image = "{image}"
fill = true
network = "{network}"
stop_grace_ms = 1000
read_only_root = true
log = {{ driver = "json-file", options = {{ max-size = "1m", max-file = "1" }} }}
{fill_lines}
"#
        )
    }
}

/// status-api's.
pub(crate) fn status_api(
    listen: SocketAddr,
    scheduler_url: &str,
    demand_url: &str,
    history_window_ms: u64,
) -> String {
    format!(
        r#"
listen = "{listen}"
scheduler_url = "{scheduler_url}"
demand_url = "{demand_url}"

[history]
window_ms = {history_window_ms}
"#
    )
}
