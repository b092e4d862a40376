//! The command line: render a template, check user data, convert logins.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context as _;
use clap::{Args, Parser, Subcommand};
use cloud_config::auth_data::AuthData;
use cloud_config::source::{Given, Source};
use cloud_config::values::{ClusterName, NewRelic, Registry};
use cloud_config::{Refused, Values, check, render};

/// Fills in and checks the user data that makes an EC2 instance an ECS container instance.
///
/// Secrets come from a file, from the environment, or from where the host takes them by itself: SECRET is 'file:PATH',
/// 'env:NAME' or 'secret:ARN' (AWS Secrets Manager). They are shown nowhere but in what is rendered.
#[derive(Parser)]
#[command(
    name = "render-cloud-config",
    version,
    args_conflicts_with_subcommands = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    render: Option<Render>,
}

#[derive(Subcommand)]
enum Command {
    /// Check user data that is complete: cloud-config or Ignition.
    Check {
        /// The user data.
        file: PathBuf,
    },
    /// Print Docker's logins as the ECS agent reads them: what a secret for '--registry secret:ARN' is to hold.
    AuthData {
        /// Where Docker's config.json is: 'file:PATH' or 'env:NAME'.
        source: String,
    },
}

#[derive(Args)]
struct Render {
    /// The template: a file of cloud-config/, or your own.
    template: PathBuf,
    /// The ECS cluster that the instance joins, by its name.
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Docker's config.json, or logins as the ECS agent reads them, for all tasks of the instance. Better is
    /// 'repositoryCredentials' in the task definition, which needs nothing here.
    #[arg(long, value_name = "SECRET")]
    registry: Option<String>,
    /// New Relic's license key; without it, no agent of New Relic's.
    #[arg(long, value_name = "SECRET")]
    new_relic: Option<String>,
    /// Where to write it, readable for you alone; default: standard output.
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match (cli.command, cli.render) {
        (Some(Command::Check { file }), _) => check_file(&file),
        (Some(Command::AuthData { source }), _) => print_auth_data(&source),
        (None, Some(wanted)) => render_template(&wanted),
        (None, None) => Err(anyhow::anyhow!("nothing to do; see --help")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for line in format!("{error:#}").lines() {
                eprintln!("render-cloud-config: {line}");
            }
            ExitCode::FAILURE
        }
    }
}

fn render_template(wanted: &Render) -> anyhow::Result<()> {
    let template = read(&wanted.template)?;
    let values = Values {
        cluster: ClusterName::parse(&wanted.cluster).context("--cluster")?,
        registry: wanted.registry.as_deref().map(registry).transpose().context("--registry")?,
        new_relic: wanted.new_relic.as_deref().map(new_relic).transpose().context("--new-relic")?,
    };
    let rendered = render(&template, &values).map_err(|refused| refusal(&wanted.template, &refused))?;
    match &wanted.output {
        Some(path) => write(path, &rendered).with_context(|| path.display().to_string()),
        None => io::stdout().write_all(rendered.as_bytes()).context("standard output"),
    }
}

fn registry(source: &str) -> anyhow::Result<Registry> {
    Ok(match source.parse::<Source>()?.resolve()? {
        Given::Here(logins) => Registry::AuthData(AuthData::parse(&logins)?),
        Given::OnTheHost(arn) => Registry::Secret(arn),
    })
}

fn new_relic(source: &str) -> anyhow::Result<NewRelic> {
    Ok(match source.parse::<Source>()?.resolve()? {
        Given::Here(key) => NewRelic::LicenseKey(key.parse()?),
        Given::OnTheHost(arn) => NewRelic::Secret(arn),
    })
}

fn check_file(file: &Path) -> anyhow::Result<()> {
    let form = check(&read(file)?).map_err(|refused| refusal(file, &refused))?;
    println!("{}: {}, nothing to say against it", file.display(), form.name());
    Ok(())
}

fn print_auth_data(source: &str) -> anyhow::Result<()> {
    match registry(source)? {
        Registry::AuthData(logins) => println!("{}", logins.to_json()),
        Registry::Secret(_) => anyhow::bail!("what is in a secret of AWS can't be read here"),
    }
    Ok(())
}

/// A line for each problem, below what they are about.
fn refusal(file: &Path, refused: &Refused) -> anyhow::Error {
    anyhow::anyhow!("{} is refused:\n{refused}", file.display())
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| path.display().to_string())
}

/// Writes a file that only its owner can read, whatever was there before.
fn write(path: &Path, text: &str) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
