//! The first process of a container, where that would be the scheduler itself.
//!
//! The kernel spares the first process of a pid namespace a SIGKILL from within it, and so from its own timer
//! ([`crate::deadline`]). Where the deadline matters, the scheduler runs as a child of a first process that does nothing
//! else than this.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{ExitCode, ExitStatus};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use service_kit::cli;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};

/// This very program, also where no file system has it under its name any more.
const THIS_PROGRAM: &str = "/proc/self/exe";
/// An exit code for an end by a signal is this and its number, as shells have it.
const EXIT_SIGNAL_BASE: i32 = 128;

/// Whether this is the first process of its pid namespace.
pub fn is_first() -> bool {
    std::process::id() == 1
}

/// Runs this program once more, as a child and with the same arguments, passes on the signals that end it, and ends as
/// it ends.
pub fn run() -> io::Result<ExitCode> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(supervise())
}

async fn supervise() -> io::Result<ExitCode> {
    // Before there is a child, so that none of them is missed: to a first process without a handler they are nothing.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut arguments = std::env::args_os();
    let mut command = Command::new(THIS_PROGRAM);
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    // In a group of its own: a terminal's Ctrl-C goes to all of this one's, and a signal that comes twice cuts the end
    // short.
    let mut child = command.args(arguments).process_group(0).spawn()?;
    loop {
        let passed_on = tokio::select! {
            ended = child.wait() => return Ok(exit_code(ended?)),
            _ = terminate.recv() => Signal::SIGTERM,
            _ = interrupt.recv() => Signal::SIGINT,
            _ = hang_up.recv() => Signal::SIGHUP,
        };
        pass_on(&child, passed_on);
    }
}

/// The child has not been waited for yet, so its id is nobody else's.
fn pass_on(child: &Child, signal: Signal) {
    let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) else { return };
    if let Err(error) = kill(Pid::from_raw(id), signal) {
        cli::say(&format_args!("error: cannot pass {signal} on to the scheduler (pid {id}): {error}"));
    }
}

fn exit_code(status: ExitStatus) -> ExitCode {
    if let Some(signal) = status.signal() {
        // Killed by its deadline, it could not say so itself.
        cli::say(&format_args!("error: the scheduler was ended by signal {signal}"));
    }
    let code = status.code().unwrap_or_else(|| EXIT_SIGNAL_BASE + status.signal().unwrap_or_default());
    ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX))
}
