//! What a process holds, as the kernel tells.

use std::path::Path;

use anyhow::{Context as _, Result};
use serde::Serialize;
use tokio::net::UnixStream;

/// What one process holds at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Held {
    /// Resident memory in KiB.
    pub(crate) rss_kib: u64,
    /// Open file descriptors.
    pub(crate) fds: u64,
    /// Threads.
    pub(crate) threads: u64,
}

impl Held {
    /// By the process with this number.
    pub(crate) fn by(pid: u32) -> Result<Self> {
        let directory = Path::new("/proc").join(pid.to_string());
        let status = directory.join("status");
        let text = std::fs::read_to_string(&status).with_context(|| format!("read {}", status.display()))?;
        let fds = directory.join("fd");
        let fds = std::fs::read_dir(&fds).with_context(|| format!("read {}", fds.display()))?.count();
        let number = |key| number(&text, key).with_context(|| format!("{}: no {key}", status.display()));
        Ok(Self { rss_kib: number("VmRSS:")?, fds: u64::try_from(fds)?, threads: number("Threads:")? })
    }

    /// The least of both in each.
    pub(crate) fn min(self, other: Self) -> Self {
        Self {
            rss_kib: self.rss_kib.min(other.rss_kib),
            fds: self.fds.min(other.fds),
            threads: self.threads.min(other.threads),
        }
    }
}

fn number(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()?.parse().ok()
}

/// The process behind an engine's unix socket, if that is the engine: where systemd has opened the socket, it is
/// systemd.
pub(crate) async fn engine_pid(address: &str) -> Option<u32> {
    let stream = UnixStream::connect(address.strip_prefix("unix://")?).await.ok()?;
    let pid = stream.peer_cred().ok()?.pid()?;
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    (name.trim() == "dockerd").then_some(u32::try_from(pid).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_something() {
        let held = Held::by(std::process::id()).unwrap();
        assert!(held.rss_kib > 100 && held.fds >= 3 && held.threads >= 1, "{held:?}");
    }

    #[test]
    fn numbers_are_found_by_their_key() {
        let text = "VmHWM:\t  9000 kB\nVmRSS:\t  8123 kB\nThreads:\t5\n";
        assert_eq!((number(text, "VmRSS:"), number(text, "Threads:")), (Some(8_123), Some(5)));
        assert_eq!(number(text, "VmSwap:"), None);
    }
}
