//! `force12-scheduler run`: everything put together, in the order in which it can fail.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use controller::{Clock, Controller, Handle, Parts};
use driver::Driver as _;
use service_kit::auth::Operator;
use service_kit::health::{self, Readiness};
use service_kit::reload::Watched;
use service_kit::{http, metrics, shutdown, trace};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::claim::{self, Claim, ClaimError};
use crate::config::{Loaded, Settings};
use crate::connections::Connections;
use crate::http::Role;
use crate::reload::{Pool, Reload, Shared};
use crate::{SERVICE, demand};

/// How long actions under way may take to end, so that no swap is left half done. With the HTTP drain beside it,
/// under the 10 s after which container engines kill.
const ACTIONS_TIMEOUT: Duration = Duration::from_secs(5);
/// How often it is told why an ECS cluster has not been looked at yet.
const TELL_INTERVAL: Duration = Duration::from_millis(250);
/// How long `drain_on_exit` may take beyond the longest grace.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// Tells the recorder what the metric of this file means.
fn describe_metrics() {
    ::metrics::describe_gauge!(
        "force12_leader",
        "1 while this scheduler acts for its cluster, 0 while it stands by."
    );
}

/// Runs until SIGTERM or SIGINT. The configuration and the token are known to hold. With a claim, no engine is touched
/// before it is granted.
pub async fn run(
    mut watched: Watched,
    loaded: Loaded,
    operator: Operator,
    mut claim: Option<&mut Claim>,
) -> anyhow::Result<()> {
    let Loaded { settings, warnings } = loaded;
    for warning in &warnings {
        tracing::warn!("{warning}");
    }
    let metrics = metrics::install().context("cannot set up metrics")?;
    controller::describe_metrics();
    driver_ecs::describe_metrics();
    service_kit::reload::describe_metrics();
    describe_metrics();
    let shutdown = shutdown::signal().context("cannot listen for signals")?;
    let listener = service_kit::listen::listen(settings.listen).await?;
    let clients = demand::clients(settings.ca_file.clone())
        .context("cannot set up the http client for demand sources")?;
    let readiness = Readiness::not_ready("standing by");
    let role = Role::standing_by(readiness.clone());
    let openapi =
        serde_json::to_string(&crate::http::openapi()).context("cannot write the openapi document")?;
    let router = crate::http::router(role.clone(), &operator).merge(health::routes(
        SERVICE,
        readiness.clone(),
        metrics.clone(),
        openapi,
    ));
    tokio::spawn(metrics.upkeep());
    tokio::spawn(operator.follow_token());
    let serving = tokio::spawn(http::serve(listener, router, shutdown.clone(), http::Limits::default()));

    let mut reload = Reload {
        connections: Connections::default(),
        clients: Arc::new(clients),
        handle: None,
        settings: watch::Sender::new(settings),
        pool: Pool::default(),
    };
    let epoch = format!("{:08x}", rand::random::<u32>());
    let served = async { serving.await.context("the http server has failed")?.context("cannot serve http") };
    if let Some(claim) = claim.as_deref_mut() {
        if !stand_by(claim, &mut watched, &mut reload, &readiness, &shutdown).await? {
            claim.exiting()?;
            return served.await;
        }
        let settings = reload.settings.borrow();
        let details = format!(", epoch {epoch}, listening on {}", settings.listen);
        claim.sign(&claim::signature("run", &settings, &details));
    } else {
        tracing::info!("no lock_file: nothing keeps a second scheduler of this cluster from acting too");
    }
    let upheld = async {
        match claim {
            Some(claim) => claim.upheld().await,
            None => std::future::pending().await,
        }
    };
    let acting =
        async { tokio::try_join!(act(epoch, watched, reload, &role, &readiness, &shutdown), served) };
    tokio::select! {
        acted = acting => acted?,
        lost = upheld => return Err(lost.into()),
    };
    tracing::info!("ended");
    Ok(())
}

/// Waits until this scheduler is the one that acts, with the configuration kept up to date; false if it is to end
/// before.
async fn stand_by(
    claim: &mut Claim,
    watched: &mut Watched,
    reload: &mut Reload,
    readiness: &Readiness,
    shutdown: &CancellationToken,
) -> Result<bool, ClaimError> {
    ::metrics::gauge!("force12_leader").set(0.0);
    tokio::select! {
        () = shutdown.cancelled() => Ok(false),
        granted = claim.granted(|reason| say_once(readiness, reason)) => granted.map(|()| true),
        never = watched.follow(reload) => match never {},
    }
}

/// Says why this scheduler is not ready, whenever that changes.
fn say_once(readiness: &Readiness, reason: String) {
    if readiness.reason().as_ref() != Some(&reason) {
        tracing::info!("{reason}");
        readiness.set_not_ready(reason);
    }
}

/// Waits until the ECS cluster has been looked at, if the pool is one, with the configuration kept up to date; nothing is
/// touched meanwhile. False if it is to end before.
async fn discover(
    watched: &mut Watched,
    reload: &mut Reload,
    readiness: &Readiness,
    shutdown: &CancellationToken,
) -> bool {
    let mut in_force = reload.settings.subscribe();
    loop {
        let settings = in_force.borrow_and_update().clone();
        reload.connections = reload.connections.changed_to(&settings, &reload.clients);
        let Some(driver) = reload.connections.ecs().cloned() else { return true };
        let mut discovered = driver.discovered();
        let known = async {
            loop {
                let known = discovered.wait_for(Option::is_some);
                if timeout(TELL_INTERVAL, known).await.is_ok() {
                    return;
                }
                let why = driver.problem().unwrap_or_else(|| {
                    format!("{} has not answered yet, or has no container instance", driver.name())
                });
                say_once(readiness, format!("waiting for a first look at the pool: {why}"));
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => return false,
            () = known => return true,
            _ = in_force.changed() => {}
            never = watched.follow(reload) => match never {},
        }
    }
}

/// Runs the controller until it is told to end; the workloads run on, unless they are to be drained.
async fn act(
    epoch: String,
    mut watched: Watched,
    mut reload: Reload,
    role: &Role,
    readiness: &Readiness,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    if !discover(&mut watched, &mut reload, readiness, shutdown).await {
        return Ok(());
    }
    let in_force = reload.settings.subscribe();
    let discovered = reload.connections.ecs().map(|driver| driver.discovered());
    let found = discovered.as_ref().and_then(|discovered| discovered.borrow().clone());
    let settings = reload.begin(found.as_deref());
    let seed = rand::random();
    tracing::info!(cluster = settings.cluster, epoch, seed, "configuration holds; acting");
    let (controller, handle) = Controller::new(Parts {
        settings,
        engines: reload.connections.engines(),
        clock: Clock::system(),
        seed,
        epoch,
    })?;
    readiness.set_not_ready("no engine has been observed yet");
    role.act(handle.clone(), shutdown.clone());
    ::metrics::gauge!("force12_leader").set(1.0);
    let mut looping = tokio::spawn(controller.with_trace_ids(trace::trace_id).run());
    tokio::spawn(crate::http::follow_readiness(handle.views(), readiness.clone()));
    reload.handle = Some(handle.clone());
    let mut reload = Shared::new(reload);
    if let Some(discovered) = discovered {
        tokio::spawn(reload.clone().follow_pool(discovered));
    }
    tokio::spawn(async move { watched.follow(&mut reload).await });

    tokio::select! {
        () = shutdown.cancelled() => {}
        ended = &mut looping => {
            // It ends only when it is told to. The workloads run on; whatever restarts us adopts them.
            ended.context("the control loop has failed")?;
            anyhow::bail!("the control loop has ended by itself");
        }
    }
    let settings = in_force.borrow().clone();
    end(&handle, &settings).await;
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
