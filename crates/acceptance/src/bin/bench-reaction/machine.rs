//! What all of it ran on.

use acceptance::engine::Engine;
use anyhow::{Context as _, Result};
use serde::Serialize;

/// A machine and its engine, in words.
#[derive(Serialize)]
pub(crate) struct Machine {
    pub(crate) cpu: String,
    pub(crate) cpus: i64,
    pub(crate) memory_mib: i64,
    pub(crate) system: String,
    pub(crate) kernel: String,
    pub(crate) engine: String,
}

impl Machine {
    pub(crate) async fn look(engine: &Engine) -> Result<Self> {
        let info = engine.docker().info().await.context("ask the engine about itself")?;
        let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpuinfo.lines().find_map(|line| line.strip_prefix("model name"));
        let known = |word: Option<String>| word.unwrap_or_else(|| "unknown".to_owned());
        let cgroup = info.cgroup_version.map_or_else(|| "?".to_owned(), |version| version.to_string());
        Ok(Self {
            cpu: model.map_or("unknown", |model| model.trim_start_matches([' ', '\t', ':'])).to_owned(),
            cpus: info.ncpu.unwrap_or_default(),
            memory_mib: info.mem_total.unwrap_or_default() / (1 << 20),
            system: known(info.operating_system),
            kernel: known(info.kernel_version),
            engine: format!(
                "Docker {}, {}, {}, cgroup v{cgroup}",
                known(info.server_version),
                known(info.default_runtime),
                known(info.driver),
            ),
        })
    }
}

impl std::fmt::Display for Machine {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { cpu, cpus, memory_mib, system, kernel, engine } = self;
        write!(formatter, "{cpus} × {cpu}, {memory_mib} MiB; {system}, Linux {kernel}; {engine}")
    }
}
