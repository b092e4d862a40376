//! The command line that every service has.

use std::fmt::Display;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

/// What every service takes from its environment, and how it exits, for the end of its `--help`.
pub const ENVIRONMENT: &str = "\
Environment:
  FORCE12_CONFIG      the config file, in place of --config; env:NAME takes the file's text from the variable NAME
  FORCE12_TOKEN       the operator's token, or FORCE12_TOKEN_FILE: a file with it (mode 0600)
  FORCE12_LOG         what to log, such as `info` (the default) or `info,service_kit=debug`
  OTEL_EXPORTER_OTLP_ENDPOINT
                      export metrics and traces to this collector, by OTLP over HTTP; with the other OTEL_* variables

Exit codes: 0 all is well, 1 it failed, 2 bad usage or a bad config; with 2, nothing has been touched.";

/// The subcommands that every service has. A service with more of them flattens this into its own.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Run the service until SIGTERM or SIGINT.
    Run(ConfigFile),
    /// Try a config file: report everything that is wrong with it, or say what it would do.
    Check(CheckedFile),
    /// Ask a running service whether it is alive: exit code 0 if it is, 1 if not.
    Healthcheck(Healthcheck),
    /// Print the OpenAPI document.
    Openapi,
    /// Print the JSON schema of the config file.
    Schema,
}

/// Where the config is.
#[derive(Clone, Debug, Args)]
pub struct ConfigFile {
    /// The config file (TOML).
    #[arg(long = "config", env = "FORCE12_CONFIG", value_name = "FILE")]
    pub path: PathBuf,
}

/// What to try.
#[derive(Clone, Debug, Args)]
pub struct CheckedFile {
    /// The config file (TOML).
    #[arg(value_name = "FILE")]
    pub path: PathBuf,
}

/// Whom to ask.
#[derive(Clone, Debug, Args)]
pub struct Healthcheck {
    /// The URL to ask, in place of /healthz on the config's own port.
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// The config file (TOML), for its `listen`.
    #[arg(long, env = "FORCE12_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Says on stderr why the service does not start, and gives the exit code for a bad config or bad usage, which is
/// clap's too: 2. Nothing has been bound or touched then.
pub fn refuse(error: &impl Display) -> ExitCode {
    say(&format_args!("error: {error}"));
    ExitCode::from(2)
}

/// A line on stderr, as far as that can be written to: it may be a full disk.
pub fn say(line: &impl Display) {
    // There is nobody left to tell.
    let _ = writeln!(io::stderr(), "{line}");
}

/// Writes what was asked for to stdout: exit code 0, or 1 if it cannot be written. A reader that has read enough and
/// gone is no failure.
pub fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            say(&format_args!("error: cannot write to stdout: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
