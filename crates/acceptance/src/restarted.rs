//! A service that is started again whenever it ends, as a restart policy does.

use std::process::ExitStatus;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::{Child, Command};
use tokio::task::JoinHandle;

use crate::failure;
use crate::service::Service;

/// From its end to its next start: what container engines begin with.
const RESTART_DELAY: Duration = Duration::from_millis(100);

/// A service, and whoever keeps it running until this is dropped.
pub struct Restarted {
    /// The service; its own process is not used.
    pub service: Service,
    state: Arc<Mutex<State>>,
    keeper: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    pid: Option<Pid>,
    ends: Vec<ExitStatus>,
    failed: Option<String>,
}

impl Restarted {
    /// Starts it.
    pub fn start(service: Service) -> Result<Self> {
        failure::remember_messages();
        let state = Arc::<Mutex<State>>::default();
        let config = service.config().to_string_lossy().into_owned();
        let mut command = service.command(&["run", "--config", &config])?;
        let kept = Arc::clone(&state);
        let keeper = tokio::spawn(async move {
            loop {
                if let Err(error) = live(&mut command, &kept).await {
                    lock(&kept).failed = Some(format!("{error:#}"));
                    return;
                }
                tokio::time::sleep(RESTART_DELAY).await;
            }
        });
        Ok(Self { service, state, keeper })
    }

    /// Its process now; none between two.
    pub fn pid(&self) -> Option<Pid> {
        lock(&self.state).pid
    }

    /// Sends a signal to its process, if that is still `pid`; says whether it was.
    pub fn signal(&self, pid: Pid, signal: Signal) -> Result<bool> {
        // Under the lock: a process that has been waited for has lost its number.
        let state = lock(&self.state);
        if state.pid != Some(pid) {
            return Ok(false);
        }
        kill(pid, signal).with_context(|| format!("send {signal:?} to {pid:?}"))?;
        Ok(true)
    }

    /// How it has ended so far, each time.
    pub fn ends(&self) -> Result<Vec<ExitStatus>> {
        let state = lock(&self.state);
        match &state.failed {
            Some(reason) => anyhow::bail!("it could not be started again: {reason}"),
            None => Ok(state.ends.clone()),
        }
    }
}

impl Drop for Restarted {
    fn drop(&mut self) {
        // The task ends when its runtime next has its turn, which may be after whatever goes out of scope behind this: so
        // long the process would go on, and make again what is being cleaned up.
        self.keeper.abort();
        if let Some(pid) = self.pid() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        failure::report(|| vec![self.service.named_log()]);
    }
}

/// One life of the process.
async fn live(command: &mut Command, state: &Mutex<State>) -> Result<()> {
    let mut child: Child = command.spawn().context("start it")?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
    lock(state).pid = pid;
    let ended = child.wait().await;
    let mut state = lock(state);
    state.pid = None;
    state.ends.push(ended.context("wait for it")?);
    Ok(())
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}
