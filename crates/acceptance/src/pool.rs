//! The product on a farm: one scheduler, and three engines that can be lost and found again. Each engine is watched
//! by its unix socket, which no cut of its network reaches.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use api_types::decision::{DECISIONS_LIMIT_MAX, Decisions};
use api_types::snapshot::Snapshot;
use bollard::models::ContainerSummary;
use futures_util::future::select_all;
use reqwest::Method;

use crate::binaries::Binaries;
use crate::configs;
use crate::engine::{CLUSTER_LABEL, Engine};
use crate::failure;
use crate::farm::{Farm, Fault, Host, HostOptions};
use crate::observer::{Observer, now_ns};
use crate::service::Service;
use crate::stack::{INSTANCES, TOKEN, hold};
use crate::timeline::{Event, Nanos, Timeline};

/// The product, running, on three engines.
pub struct Pool {
    /// The demand source.
    pub demand_rng: Service,
    /// The scheduler.
    pub scheduler: Service,
    watches: Vec<Watch>,
    cluster: String,
    farm: Farm,
}

/// One engine as it is watched.
struct Watch {
    engine: Engine,
    /// None while it is killed.
    observer: Option<Observer>,
    /// From before it was killed.
    past: Vec<Event>,
    killed_at: Nanos,
}

impl Pool {
    /// Starts three engines, set up as told, and the services on them.
    pub async fn start(options: [HostOptions; 3]) -> Result<Self> {
        failure::remember_messages();
        let binaries = Binaries::locate().await?;
        let farm = Farm::start(&options).await?;
        let cluster = "acc-pool".to_owned();
        let mut image = String::new();
        let mut watches = Vec::new();
        for host in farm.hosts() {
            let engine = host.engine().await?;
            image = engine.import_image(binaries.path("workload"), &cluster, &[]).await?;
            let observer = Some(Observer::follow(&engine, &cluster));
            watches.push(Watch { engine, observer, past: Vec::new(), killed_at: 0 });
        }
        let instances: Vec<(&str, String)> =
            INSTANCES.into_iter().zip(farm.hosts().iter().map(Host::to_toml)).collect();
        // Nothing generated: demand is held throughout.
        let demand_rng =
            Service::new("demand-rng", binaries.path("demand-rng"), farm.services(), TOKEN, |listen| {
                configs::demand_rng(listen, 3_000, 1)
            })?;
        let demand_url = demand_rng.url("/v1/demand");
        let scheduler = Service::new(
            "force12-scheduler",
            binaries.path("force12-scheduler"),
            farm.services(),
            TOKEN,
            |listen| {
                let config = configs::Scheduler {
                    listen,
                    cluster: &cluster,
                    instances: &instances,
                    image: &image,
                    network: "host",
                    demand_url: &demand_url,
                    important_lines: "",
                    fill_lines: "",
                };
                config.to_toml()
            },
        )?;
        let mut pool = Self { demand_rng, scheduler, watches, cluster, farm };
        pool.demand_rng.start().await?;
        pool.scheduler.start().await?;
        Ok(pool)
    }

    /// Holds the demand of the important service at `containers`.
    pub async fn hold(&self, containers: u32) -> Result<()> {
        hold(&self.demand_rng, containers).await
    }

    /// Loses an engine; returns since when it is lost.
    pub async fn lose(&mut self, index: usize, fault: Fault) -> Result<Nanos> {
        let at = now_ns();
        let watch = &mut self.watches[index];
        self.farm.host(index).lose(fault).await?;
        if fault == Fault::Kill {
            watch.killed_at = at;
            if let Some(observer) = watch.observer.take() {
                watch.past.extend(observer.seen_to_the_end());
            }
        }
        Ok(at)
    }

    /// Finds it again; returns when that began.
    pub async fn find(&mut self, index: usize, fault: Fault) -> Result<Nanos> {
        let at = now_ns();
        self.farm.host(index).find(fault).await?;
        let watch = &mut self.watches[index];
        if watch.observer.is_none() {
            watch.observer = Some(Observer::follow_since(&watch.engine, &self.cluster, watch.killed_at));
        }
        Ok(at)
    }

    /// What has been seen on all engines so far.
    pub fn timeline(&self) -> Result<Timeline> {
        let mut events = Vec::new();
        for watch in &self.watches {
            events.extend_from_slice(&watch.past);
            if let Some(observer) = &watch.observer {
                events.extend_from_slice(observer.timeline()?.events());
            }
        }
        Ok(Timeline::new(events))
    }

    /// Waits until `found` finds something in what was seen, at most `bound`; `what` names it.
    pub async fn wait_for<T>(
        &self,
        what: &str,
        bound: Duration,
        found: impl Fn(&Timeline) -> Option<T>,
    ) -> Result<T> {
        let wait = async {
            let observers = self.watches.iter().filter_map(|watch| watch.observer.as_ref());
            let mut changes: Vec<_> = observers.map(Observer::changes).collect();
            loop {
                for change in &mut changes {
                    change.borrow_and_update();
                }
                if let Some(found) = found(&self.timeline()?) {
                    return Ok(found);
                }
                let any = select_all(changes.iter_mut().map(|change| Box::pin(change.changed())));
                any.await.0.context("an observer has ended")?;
            }
        };
        match tokio::time::timeout(bound, wait).await {
            Ok(found) => found,
            Err(_) => bail!("{what}: not seen in the engines' events within {} ms", bound.as_millis()),
        }
    }

    /// Has the scheduler `cordon` or `uncordon` an instance.
    pub async fn command(&self, instance: &str, command: &str) -> Result<()> {
        let path = format!("/v1/instances/{instance}/{command}");
        self.scheduler.request(Method::POST, &path).send().await?.error_for_status()?;
        Ok(())
    }

    /// The scheduler's snapshot.
    pub async fn snapshot(&self) -> Result<Snapshot> {
        self.scheduler.get("/v1/snapshot").await
    }

    /// The latest decisions, newest first.
    pub async fn decisions(&self) -> Result<Decisions> {
        self.scheduler.get(&format!("/v1/decisions?limit={DECISIONS_LIMIT_MAX}")).await
    }

    /// All containers of the cluster on one engine, by the engine itself; those that have ended too.
    pub async fn containers_on(&self, index: usize) -> Result<Vec<ContainerSummary>> {
        self.watches[index].engine.containers_with(CLUSTER_LABEL, &self.cluster).await
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        failure::report(|| {
            let mut sections: Vec<_> =
                [&self.demand_rng, &self.scheduler].into_iter().map(Service::named_log).collect();
            let events = self.timeline().map(|timeline| timeline.to_string()).unwrap_or_default();
            sections.push(("the events of all engines".to_owned(), events));
            sections
        });
    }
}
