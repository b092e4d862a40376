//! What the workload is told to do, by flags or by the environment.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Where `healthcheck` looks when it is not told otherwise: the one place that can be written to in every
/// container, also in one from an empty image with a read-only root and any user.
pub(crate) const READY_FILE: &str = "/dev/shm/workload-ready";

/// A day: longer values are taken for a mistake in the unit.
const LONGEST_MS: u64 = 86_400_000;

/// A tebibyte: more is taken for a mistake in the unit.
const LARGEST_MIB: u64 = 1 << 20;

/// The text of `--help`.
pub(crate) const HELP: &str = "\
A small program for containers: it idles until it is told to end (SIGTERM or SIGINT: code 0), or does as it is told.

Usage: workload [OPTIONS]
       workload healthcheck [--ready-file PATH]    exit code 0 once the workload is ready, else 1

Each option can be given as an environment variable, too; the flag comes first.

  --burn-percent N     WORKLOAD_BURN_PERCENT     burn N % of one CPU, 0 to 100
  --count-every-ms N   WORKLOAD_COUNT_EVERY_MS   print 1, 2, 3, ... to the standard output, one line every N ms
  --ready-after-ms N   WORKLOAD_READY_AFTER_MS   be ready N ms after the start: write the ready file
  --unready-after-ms N WORKLOAD_UNREADY_AFTER_MS be ready no longer N ms after the start: remove the ready file
  --allocate-mib N     WORKLOAD_ALLOCATE_MIB     take N MiB of memory, and keep it
  --ready-file PATH    WORKLOAD_READY_FILE       the file that says so (default: /dev/shm/workload-ready)
  --fail-at-start N    WORKLOAD_FAIL_AT_START    end at once with code N, 1 to 255
  --exit-after-ms N    WORKLOAD_EXIT_AFTER_MS    end N ms after the start
  --exit-code N        WORKLOAD_EXIT_CODE        the code of that end, 0 to 255 (default: 0)
  --stop-takes-ms N    WORKLOAD_STOP_TAKES_MS    end N ms after the first SIGTERM or SIGINT
  --ignore-sigterm     WORKLOAD_IGNORE_SIGTERM   ignore SIGTERM (environment: 1)
  -h, --help                                     print this
  -V, --version                                  print the version
";

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Command {
    /// Run as told.
    Run(Options),
    /// Say whether a running workload is ready.
    Healthcheck {
        /// The file that says so.
        ready_file: PathBuf,
    },
    /// Print the help.
    Help,
    /// Print the version.
    Version,
}

/// How to run.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Percent of one CPU.
    pub(crate) burn_percent: u8,
    /// Between two numbers on the standard output; no counting if `None`.
    pub(crate) count_every: Option<Duration>,
    /// From the start to the ready file; no file if `None`.
    pub(crate) ready_after: Option<Duration>,
    /// From the start to the removal of the ready file; it stays if `None`.
    pub(crate) unready_after: Option<Duration>,
    /// The ready file.
    pub(crate) ready_file: PathBuf,
    /// Mebibytes of memory to take.
    pub(crate) allocate_mib: u64,
    /// End at once with this code.
    pub(crate) fail_at_start: Option<u8>,
    /// End this long after the start.
    pub(crate) exit_after: Option<Duration>,
    /// The code of that end.
    pub(crate) exit_code: u8,
    /// From the first signal to the end.
    pub(crate) stop_takes: Duration,
    /// Whether SIGTERM does nothing.
    pub(crate) ignore_sigterm: bool,
}

/// A flag or a variable that cannot be used, in words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Reads the arguments (without the program's name) and the environment.
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = String>,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Command, UsageError> {
    let mut options = Options { ready_file: READY_FILE.into(), ..Options::default() };
    for flag in VALUE_FLAGS {
        let variable = variable_of(flag);
        if let Some(value) = environment(&variable) {
            options.set(flag, &variable, &value)?;
        }
    }
    let variable = variable_of(IGNORE_SIGTERM);
    if let Some(value) = environment(&variable) {
        options.ignore_sigterm = match value.as_str() {
            "1" | "true" => true,
            "" | "0" | "false" => false,
            _ => return Err(UsageError(format!("{variable}: {value:?} is neither 1 nor 0"))),
        };
    }

    let mut healthcheck = false;
    let mut arguments = arguments.into_iter().enumerate();
    while let Some((position, argument)) = arguments.next() {
        let (flag, attached) = match argument.split_once('=') {
            Some((flag, value)) => (flag, Some(value.to_owned())),
            None => (argument.as_str(), None),
        };
        if VALUE_FLAGS.contains(&flag) {
            let value = attached
                .or_else(|| arguments.next().map(|(_, value)| value))
                .ok_or_else(|| UsageError(format!("{flag}: its value is missing")))?;
            options.set(flag, flag, &value)?;
            continue;
        }
        match argument.as_str() {
            "healthcheck" if position == 0 => healthcheck = true,
            "-h" | "--help" => return Ok(Command::Help),
            "-V" | "--version" => return Ok(Command::Version),
            IGNORE_SIGTERM => options.ignore_sigterm = true,
            unknown => return Err(UsageError(format!("{unknown}: no such option; see --help"))),
        }
    }
    Ok(if healthcheck {
        Command::Healthcheck { ready_file: options.ready_file }
    } else {
        Command::Run(options)
    })
}

const IGNORE_SIGTERM: &str = "--ignore-sigterm";

const VALUE_FLAGS: [&str; 10] = [
    "--burn-percent",
    "--count-every-ms",
    "--ready-after-ms",
    "--unready-after-ms",
    "--allocate-mib",
    "--ready-file",
    "--fail-at-start",
    "--exit-after-ms",
    "--exit-code",
    "--stop-takes-ms",
];

fn variable_of(flag: &str) -> String {
    format!("WORKLOAD_{}", flag.trim_start_matches('-').replace('-', "_").to_ascii_uppercase())
}

impl Options {
    /// `place` is where the value was found, for the message.
    fn set(&mut self, flag: &str, place: &str, value: &str) -> Result<(), UsageError> {
        let number = |least: u64, most: u64| match value.parse::<u64>() {
            Ok(number) if (least..=most).contains(&number) => Ok(number),
            _ => Err(UsageError(format!("{place}: {value:?} is not a number from {least} to {most}"))),
        };
        let byte = |least, most: u8| {
            number(least, u64::from(most)).map(|number| u8::try_from(number).expect("it is at most 255"))
        };
        match flag {
            "--burn-percent" => self.burn_percent = byte(0, 100)?,
            "--count-every-ms" => self.count_every = Some(Duration::from_millis(number(1, LONGEST_MS)?)),
            "--ready-after-ms" => self.ready_after = Some(Duration::from_millis(number(0, LONGEST_MS)?)),
            "--unready-after-ms" => self.unready_after = Some(Duration::from_millis(number(0, LONGEST_MS)?)),
            "--allocate-mib" => self.allocate_mib = number(0, LARGEST_MIB)?,
            "--ready-file" => self.ready_file = value.into(),
            "--fail-at-start" => self.fail_at_start = Some(byte(1, u8::MAX)?),
            "--exit-after-ms" => self.exit_after = Some(Duration::from_millis(number(0, LONGEST_MS)?)),
            "--exit-code" => self.exit_code = byte(0, u8::MAX)?,
            "--stop-takes-ms" => self.stop_takes = Duration::from_millis(number(0, LONGEST_MS)?),
            _ => unreachable!("every flag of VALUE_FLAGS has its arm"),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Command, String> {
        let lookup = |name: &str| {
            environment.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned())
        };
        parse(arguments.iter().map(|&argument| argument.to_owned()), lookup).map_err(|error| error.0)
    }

    fn options(arguments: &[&str], environment: &[(&str, &str)]) -> Options {
        match parsed(arguments, environment) {
            Ok(Command::Run(options)) => options,
            other => panic!("{arguments:?} with {environment:?} gave {other:?}"),
        }
    }

    #[test]
    fn every_flag_has_a_variable_and_the_help_names_both() {
        for flag in VALUE_FLAGS.into_iter().chain([IGNORE_SIGTERM]) {
            assert!(HELP.contains(&format!("  {flag}")), "{flag}");
            assert!(HELP.contains(&variable_of(flag)), "{flag}");
            if flag != IGNORE_SIGTERM {
                assert_eq!(options(&[flag, "7"], &[]), options(&[], &[(&variable_of(flag), "7")]), "{flag}");
                assert_ne!(options(&[flag, "7"], &[]), options(&[], &[]), "{flag}");
            }
        }
        assert!(HELP.contains(READY_FILE));
        assert!(options(&[IGNORE_SIGTERM], &[]).ignore_sigterm);
        assert!(options(&[], &[("WORKLOAD_IGNORE_SIGTERM", "1")]).ignore_sigterm);
        assert!(!options(&[], &[("WORKLOAD_IGNORE_SIGTERM", "0")]).ignore_sigterm);
    }

    #[test]
    fn a_flag_comes_before_its_variable() {
        let environment = [("WORKLOAD_BURN_PERCENT", "30")];
        assert_eq!(options(&[], &environment).burn_percent, 30);
        assert_eq!(options(&["--burn-percent=40"], &environment).burn_percent, 40);
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let refused = [
            (
                parsed(&["--burn-percent", "101"], &[]),
                "--burn-percent: \"101\" is not a number from 0 to 100",
            ),
            (parsed(&["--fail-at-start", "0"], &[]), "--fail-at-start: \"0\" is not a number from 1 to 255"),
            (parsed(&["--exit-code"], &[]), "--exit-code: its value is missing"),
            (parsed(&["--brun"], &[]), "--brun: no such option; see --help"),
            (parsed(&["--burn-percent", "1", "healthcheck"], &[]), "healthcheck: no such option; see --help"),
            (
                parsed(&[], &[("WORKLOAD_COUNT_EVERY_MS", "0")]),
                "WORKLOAD_COUNT_EVERY_MS: \"0\" is not a number from 1 to 86400000",
            ),
            (
                parsed(&[], &[("WORKLOAD_IGNORE_SIGTERM", "yes")]),
                "WORKLOAD_IGNORE_SIGTERM: \"yes\" is neither 1 nor 0",
            ),
        ];
        for (given, expected) in refused {
            assert_eq!(given, Err(expected.to_owned()));
        }
    }

    #[test]
    fn healthcheck_looks_where_the_workload_writes() {
        let environment = [("WORKLOAD_READY_FILE", "/tmp/there"), ("WORKLOAD_READY_AFTER_MS", "5")];
        let expected = Command::Healthcheck { ready_file: "/tmp/there".into() };
        assert_eq!(parsed(&["healthcheck"], &environment), Ok(expected));
    }
}
