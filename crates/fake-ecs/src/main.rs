//! The fake as a service of its own, on loopback unless it is told otherwise.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Parser;
use fake_ecs::{Config, DockerOptions, EventDelivery, FakeEcs, InstanceSpec, http};

/// A fake of Amazon ECS with container instances of its own, for tests and demonstrations.
///
/// Any AWS client can be pointed at it: `aws ecs list-tasks --endpoint-url http://127.0.0.1:8090`. Signatures are not
/// checked, so any credentials will do.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    /// Where to listen. Whoever can reach it can use it
    #[arg(long, default_value = "127.0.0.1:8090")]
    listen: SocketAddr,
    /// The name of the cluster that the container instances are registered with
    #[arg(long, default_value = "force12-demo")]
    cluster: String,
    /// How many container instances there are
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    instances: u32,
    /// CPU units of each: 1024 are one vCPU
    #[arg(long, default_value_t = 2_048)]
    cpu: u64,
    /// Memory of each, in MiB
    #[arg(long, default_value_t = 1_900)]
    memory: u64,
    /// The version of each instance's agent
    #[arg(long, default_value = "1.98.0")]
    agent_version: String,
    /// The AWS region that names are made with
    #[arg(long, default_value = "eu-west-1")]
    region: String,
    /// Every delay and every lag follows from this
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Run real containers, on the Docker engine that DOCKER_HOST names, or the local one. They are removed at the end
    #[arg(long)]
    docker: bool,
    /// With --docker: a secret, by what a task definition names in valueFrom. Whoever is on this machine can read
    /// arguments, and not the environment
    #[arg(long, env = "FAKE_ECS_SECRET", hide_env_values = true, value_parser = pair, value_name = "NAME=VALUE")]
    secret: Vec<(String, String)>,
    /// With --docker: an environment variable of every container whose task has a role, in place of its credentials
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    role_env: Vec<(String, String)>,
    /// An attribute of the first instance
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    attribute: Vec<(String, String)>,
    /// The name of the queue that state change events are put into; without it there are none
    #[arg(long)]
    events_queue: Option<String>,
}

/// What stands before the first `=` and after it.
fn pair(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('=').filter(|(name, _)| !name.is_empty());
    parts
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .ok_or_else(|| "give a name, = and a value".to_owned())
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "ended");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main(flavor = "current_thread")]
async fn run(cli: Cli) -> anyhow::Result<()> {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
    let config = Config {
        region: cli.region,
        epoch_ms: u64::try_from(now.as_millis()).unwrap_or_default(),
        events: cli.events_queue.map(|queue| EventDelivery { queue, ..EventDelivery::default() }),
        ..Config::seeded(cli.seed)
    };
    let ecs = if cli.docker {
        let options = DockerOptions {
            secrets: cli.secret.into_iter().collect(),
            role_environment: cli.role_env.into_iter().collect(),
        };
        FakeEcs::with_docker(config, options).context("cannot use the Docker engine")?
    } else {
        FakeEcs::new(config)
    };
    let ecs = ecs.with_cluster(&cli.cluster);
    ecs.sweep().await;
    for number in 1..=cli.instances {
        let spec = InstanceSpec {
            ec2_instance_id: format!("i-{number:017x}"),
            cpu: cli.cpu,
            memory: cli.memory,
            agent_version: cli.agent_version.clone(),
            attributes: cli.attribute.iter().filter(|_| number == 1).cloned().collect(),
            ..InstanceSpec::default()
        };
        ecs.add_instance(&cli.cluster, spec);
    }
    let listener = tokio::net::TcpListener::bind(cli.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", cli.listen))?;
    let address = listener.local_addr().context("cannot tell the address")?;
    tracing::info!(%address, cluster = cli.cluster, instances = cli.instances, "serving");
    let mut terminated = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .context("cannot listen for SIGTERM")?;
    let ended = async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    let serving = async { axum::serve(listener, http::router(ecs.clone())).await };
    // Long polls of the queue are not waited for.
    let served = tokio::select! {
        served = serving => served.context("cannot serve"),
        () = ended => Ok(()),
    };
    ecs.close().await;
    served
}
