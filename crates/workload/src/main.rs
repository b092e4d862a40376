//! The container that the demo and the tests run. `workload --help` says all that it can do.

mod options;

use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::process::{self, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use options::{Command, Options};

/// One round of burning and resting: short enough to look even, long enough for the timer's error not to show.
const BURN_ROUND: Duration = Duration::from_millis(20);

fn main() -> ExitCode {
    match options::parse(std::env::args().skip(1), |name| std::env::var(name).ok()) {
        Ok(Command::Run(options)) => run(options),
        Ok(Command::Healthcheck { ready_file }) => healthcheck(&ready_file),
        Ok(Command::Help) => print(options::HELP),
        Ok(Command::Version) => print(concat!("workload ", env!("CARGO_PKG_VERSION"), "\n")),
        Err(error) => {
            eprintln!("workload: {error}");
            ExitCode::from(2)
        }
    }
}

fn print(text: &str) -> ExitCode {
    if io::stdout().write_all(text.as_bytes()).is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn healthcheck(ready_file: &Path) -> ExitCode {
    match fs::metadata(ready_file) {
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("workload: not ready: {}: {error}", ready_file.display());
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> ExitCode {
    if let Some(code) = options.fail_at_start {
        eprintln!("workload: failing with code {code}, as told");
        return ExitCode::from(code);
    }
    // The handlers come first: from here on no signal is lost.
    let mut signals = match Signals::new([SIGTERM, SIGINT]) {
        Ok(signals) => signals,
        Err(error) => {
            eprintln!("workload: signals cannot be handled: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(delay) = options.exit_after {
        thread::spawn(move || {
            thread::sleep(delay);
            process::exit(options.exit_code.into());
        });
    }
    if let Some(delay) = options.unready_after {
        let ready_file = options.ready_file.clone();
        thread::spawn(move || {
            thread::sleep(delay);
            let _ = fs::remove_file(&ready_file);
        });
    }
    let _memory = take_memory(options.allocate_mib);
    if let Some(delay) = options.ready_after {
        // One left by an earlier run would say what is not so yet.
        let _ = fs::remove_file(&options.ready_file);
        let ready_file = options.ready_file;
        thread::spawn(move || {
            thread::sleep(delay);
            if let Err(error) = fs::write(&ready_file, "ready\n") {
                eprintln!("workload: cannot become ready: {}: {error}", ready_file.display());
                process::exit(1);
            }
        });
    }
    if let Some(pause) = options.count_every {
        thread::spawn(move || count(pause));
    }
    if options.burn_percent > 0 {
        thread::spawn(move || burn(options.burn_percent));
    }
    for signal in signals.forever() {
        if signal == SIGTERM && options.ignore_sigterm {
            continue;
        }
        thread::sleep(options.stop_takes);
        break;
    }
    ExitCode::SUCCESS
}

/// Takes memory so that the kernel counts it: each page has been written to.
fn take_memory(mib: u64) -> Vec<Vec<u8>> {
    (0..mib).map(|_| vec![1; 1 << 20]).collect()
}

/// Ends only when nobody listens any more.
fn count(pause: Duration) {
    for number in 1_u64.. {
        let mut output = io::stdout().lock();
        if writeln!(output, "{number}").and_then(|()| output.flush()).is_err() {
            return;
        }
        drop(output);
        thread::sleep(pause);
    }
}

fn burn(percent: u8) -> ! {
    let busy = BURN_ROUND * u32::from(percent) / 100;
    loop {
        let start = Instant::now();
        while start.elapsed() < busy {
            std::hint::spin_loop();
        }
        thread::sleep(BURN_ROUND.saturating_sub(start.elapsed()));
    }
}
