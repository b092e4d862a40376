//! The end of a service.

use std::io;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal as listen};
use tokio_util::sync::CancellationToken;

/// The exit code when a second signal cuts the drain short, as a shell reports a process ended by SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// What has reached a blocking thread cannot be cancelled. A look-up of a name is one, and a resolver that does not
/// answer keeps it for many seconds, long after whoever asked has gone: it is given up after this.
const BLOCKING_TIMEOUT: Duration = Duration::from_millis(100);

/// Runs a service's work to its end, on a runtime of its own. Returns within 100 ms of that end, whatever still goes
/// on in the runtime: the process is about to exit.
///
/// Fails if the runtime cannot be built.
pub fn block_on<T>(work: impl Future<Output = T>) -> io::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let ended = runtime.block_on(work);
    runtime.shutdown_timeout(BLOCKING_TIMEOUT);
    Ok(ended)
}

/// A token that the first SIGTERM or SIGINT cancels; a second one ends the process at once.
///
/// Must be called within a tokio runtime. Fails if the handlers cannot be installed.
pub fn signal() -> io::Result<CancellationToken> {
    let mut terminate = listen(SignalKind::terminate())?;
    let mut interrupt = listen(SignalKind::interrupt())?;
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        for second in [false, true] {
            let name = tokio::select! {
                _ = terminate.recv() => "SIGTERM",
                _ = interrupt.recv() => "SIGINT",
            };
            if second {
                tracing::warn!(signal = name, "second signal: ending at once");
                std::process::exit(EXIT_INTERRUPTED);
            }
            tracing::info!(signal = name, "ending");
            cancelled.cancel();
        }
    });
    Ok(token)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    #[test]
    fn a_thread_that_hangs_does_not_delay_the_end() {
        let (release, released) = mpsc::channel::<()>();
        let (ended, has_ended) = mpsc::channel();
        let runs = std::thread::spawn(move || {
            let work = async {
                // As a name is looked up, and nobody waits for it any more.
                tokio::task::spawn_blocking(move || released.recv());
                7
            };
            ended.send(block_on(work).unwrap()).unwrap();
        });
        let in_time = has_ended.recv_timeout(Duration::from_secs(5));
        drop(release);
        runs.join().unwrap();
        assert_eq!(in_time, Ok(7));
    }
}
