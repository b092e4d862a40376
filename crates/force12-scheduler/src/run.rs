//! `force12-scheduler run`: everything put together, in the order in which it can fail.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use controller::{Clock, Controller, Handle, Parts};
use service_kit::auth::Operator;
use service_kit::health::{self, Readiness};
use service_kit::{http, metrics, shutdown, trace};
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::config::{Loaded, Settings};
use crate::connections::Connections;
use crate::reload::{self, Reload, Stamp};
use crate::{SERVICE, demand};

/// How long actions under way may take to end, so that no swap is left half done. With the HTTP drain beside it,
/// under the 10 s after which container engines kill.
const ACTIONS_TIMEOUT: Duration = Duration::from_secs(5);
/// How long `drain_on_exit` may take beyond the longest grace.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Runs until SIGTERM or SIGINT. The configuration and the token are known to hold.
pub async fn run(path: &Path, loaded: Loaded, operator: Operator) -> anyhow::Result<()> {
    // Before the file could change again: what changes from here on is a change.
    let stamp = Stamp::of(path);
    let Loaded { settings, warnings } = loaded;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let metrics = metrics::install().context("cannot set up metrics")?;
    controller::describe_metrics();
    reload::describe_metrics();
    let shutdown = shutdown::signal().context("cannot listen for signals")?;
    let listener = TcpListener::bind(settings.listen).await.with_context(|| {
        format!(
            "cannot listen on {}; is another scheduler running? change `listen`, or end it",
            settings.listen
        )
    })?;
    let client = demand::client().context("cannot set up the http client for demand sources")?;
    let connections = Connections::default().changed_to(&settings, &client);

    let seed = rand::random();
    let epoch = format!("{:08x}", rand::random::<u32>());
    tracing::info!(cluster = settings.controller.cluster, epoch, seed, "configuration holds");
    let (controller, handle) = Controller::new(Parts {
        settings: settings.controller.clone(),
        engines: connections.engines(),
        clock: Clock::system(),
        seed,
        epoch,
    })?;
    let mut looping = tokio::spawn(controller.with_trace_ids(trace::trace_id).run());
    let readiness = Readiness::not_ready("no engine has been observed yet");
    tokio::spawn(crate::http::follow_readiness(handle.views(), readiness.clone()));
    let (settings, in_force) = watch::channel(settings);
    tokio::spawn(
        Reload { path: path.to_owned(), stamp, connections, client, handle: handle.clone(), settings }.run(),
    );
    tokio::spawn(metrics.clone().upkeep());
    let openapi =
        serde_json::to_string(&crate::http::openapi()).context("cannot write the openapi document")?;
    let router = crate::http::router(handle.clone(), &operator, shutdown.clone())
        .merge(health::routes(SERVICE, readiness, metrics, openapi));
    let serving = tokio::spawn(http::serve(listener, router, shutdown.clone(), http::Limits::default()));

    tokio::select! {
        () = shutdown.cancelled() => {}
        ended = &mut looping => {
            // It ends only when it is told to. The workloads run on; whatever restarts us adopts them.
            ended.context("the control loop has failed")?;
            anyhow::bail!("the control loop has ended by itself");
        }
    }
    let settings = in_force.borrow().clone();
    let ((), served) = tokio::join!(end(&handle, &settings), serving);
    served.context("the http server has failed")?.context("cannot serve http")?;
    tracing::info!("ended");
    Ok(())
}

/// Ends the controller; the workloads run on, unless they are to be drained.
async fn end(handle: &Handle, settings: &Settings) {
    if settings.drain_on_exit {
        let services = &settings.controller.services;
        let longest_grace_ms =
            services.iter().map(|service| service.spec.stop_grace_ms).max().unwrap_or_default();
        let limit = DRAIN_TIMEOUT + Duration::from_millis(longest_grace_ms);
        let progress = |progress: &controller::DrainProgress| {
            tracing::info!(containers = progress.remaining.len(), "draining on exit");
        };
        if let Err(error) = handle.drain_all(limit, progress).await {
            tracing::error!(%error, "not everything was drained; run `force12-scheduler drain`");
        }
    }
    handle.shutdown(ACTIONS_TIMEOUT).await;
}
