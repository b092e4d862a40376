//! Whether anything else runs here: then what is measured is its time too.

use std::time::Duration;

use acceptance::engine::Engine;
use anyhow::{Context as _, Result};
use bollard::query_parameters::ListContainersOptionsBuilder;

/// For how long the CPUs are watched.
const WATCHED: Duration = Duration::from_secs(3);

/// The part of all CPUs' time that may be busy.
const BUSY_MAX: f64 = 0.05;

/// What disturbs a measurement, in words; nothing if it is quiet here.
pub(crate) async fn disturbances(engine: &Engine) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let options = ListContainersOptionsBuilder::default().build();
    let running = engine.docker().list_containers(Some(options)).await.context("list what runs")?;
    if !running.is_empty() {
        let names = running.iter().flat_map(|one| one.names.iter().flatten().take(1));
        let names: Vec<&str> = names.map(|name| name.trim_start_matches('/')).take(5).collect();
        found.push(format!("{} containers run on this engine: {} …", running.len(), names.join(", ")));
    }
    let before = CpuTime::read()?;
    tokio::time::sleep(WATCHED).await;
    let busy = CpuTime::read()?.busy_since(&before);
    if busy > BUSY_MAX {
        found.push(format!("{:.0} % of this machine's CPUs are busy", busy * 100.0));
    }
    Ok(found)
}

/// Of all CPUs together since the machine's start, in ticks.
struct CpuTime {
    idle: u64,
    all: u64,
}

impl CpuTime {
    fn read() -> Result<Self> {
        let text = std::fs::read_to_string("/proc/stat").context("read /proc/stat")?;
        Self::parse(&text).context("/proc/stat has no line of all CPUs")
    }

    /// `cpu user nice system idle iowait irq softirq steal guest guest_nice`; the last two are in the first two.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let ticks: Vec<u64> =
            line.split_whitespace().take(8).filter_map(|field| field.parse().ok()).collect();
        Some(Self { idle: ticks.get(3)? + ticks.get(4)?, all: ticks.iter().sum() })
    }

    #[expect(clippy::cast_precision_loss, reason = "a part of seconds")]
    fn busy_since(&self, before: &Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        1.0 - self.idle.saturating_sub(before.idle) as f64 / all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn busy_is_what_is_neither_idle_nor_waiting() {
        let before = CpuTime::parse("cpu  10 0 10 100 20 0 0 0 0 0\ncpu0 1 1 1 1\n").unwrap();
        let after = CpuTime::parse("cpu  30 0 10 150 50 0 0 0 99 99\n").unwrap();
        assert!((after.busy_since(&before) - 0.2).abs() < 1e-9);
    }
}
