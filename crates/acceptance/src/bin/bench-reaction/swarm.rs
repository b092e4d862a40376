//! Docker Swarm on the same engine: one more replica, from the service's update to the new task's start event. It need
//! not make room first.

use std::collections::HashMap;
use std::time::Duration;

use acceptance::engine::{Engine, STRANGER_LABEL, clean_up};
use acceptance::observer::{Observer, now_ns};
use acceptance::stack::Stack;
use acceptance::timeline::{Event, Nanos};
use anyhow::{Context as _, Result, bail};
use bollard::models::{
    LocalNodeState, NetworkAttachmentConfig, ServiceSpec, ServiceSpecMode, ServiceSpecModeReplicated,
    SwarmInitRequest, TaskSpec, TaskSpecContainerSpec, TaskSpecLogDriver,
};
use bollard::query_parameters::{LeaveSwarmOptionsBuilder, UpdateServiceOptionsBuilder};

use crate::BOUND;
use crate::statistics::Round;

/// Replicas at the begin of each round.
const BASE: i64 = 4;

/// Where the swarm listens, and says that it does: nobody else is to join.
const LISTEN: &str = "127.0.0.1:2377";
const ADVERTISE: &str = "127.0.0.1";

/// The networks that an engine makes when it becomes part of a swarm. The second stays when it leaves.
const NETWORKS: [&str; 2] = ["ingress", "docker_gwbridge"];

/// Between two looks whether something holds yet.
const POLL: Duration = Duration::from_millis(50);

/// A swarm of this engine alone, with one service. It is left when this goes out of scope.
pub(crate) struct Swarm {
    engine: Engine,
    service: String,
    spec: ServiceSpec,
    _leave: Leave,
}

impl Swarm {
    /// Makes the engine a swarm of its own, with a service whose containers are as those of `stack`. Refuses if the
    /// engine is part of a swarm, or of what once was one.
    pub(crate) async fn start(stack: &Stack, network: &str) -> Result<Self> {
        let engine = stack.engine.clone();
        let leave = Leave::before(&engine).await?;
        let request = SwarmInitRequest {
            listen_addr: Some(LISTEN.to_owned()),
            advertise_addr: Some(ADVERTISE.to_owned()),
            ..SwarmInitRequest::default()
        };
        engine.docker().init_swarm(request).await.context("make the engine a swarm")?;
        let swarm = Self {
            service: format!("swarm-{}", stack.cluster),
            spec: spec(stack, network),
            engine,
            _leave: leave,
        };
        swarm.create(&stack.observer).await?;
        Ok(swarm)
    }

    async fn create(&self, observer: &Observer) -> Result<()> {
        let begun = now_ns();
        let mut spec = self.spec.clone();
        spec.name = Some(self.service.clone());
        // No registry is asked: neither for what the image's name stands for, nor for the image.
        self.engine.docker().create_service(spec, None).await.context("create a service of the swarm")?;
        let replicas = usize::try_from(BASE)?;
        observer
            .wait_for_strangers("the swarm's first tasks", BOUND, |seen| {
                let started = seen.after(begun).iter().filter(|event| self.is_task(event, "start"));
                (started.count() >= replicas).then_some(())
            })
            .await
    }

    /// One replica more, measured, and one less again.
    pub(crate) async fn rise(&self, observer: &Observer) -> Result<Round> {
        let sent = self.set_replicas(BASE + 1).await?;
        let start = self.task(observer, "start", sent).await?;
        let create = self.task(observer, "create", sent).await?;
        let back = self.set_replicas(BASE).await?;
        self.task(observer, "destroy", back).await?;
        Ok(Round::new(&[sent, create.at, start.at]))
    }

    /// Returns when the update was sent.
    async fn set_replicas(&self, replicas: i64) -> Result<Nanos> {
        let docker = self.engine.docker();
        let known =
            docker.inspect_service(&self.service, None).await.context("inspect the swarm's service")?;
        let version =
            known.version.and_then(|version| version.index).context("a service without a version")?;
        let options = UpdateServiceOptionsBuilder::default().version(i32::try_from(version)?).build();
        let mut spec = self.spec.clone();
        spec.name = Some(self.service.clone());
        spec.mode = Some(replicated(replicas));
        let sent = now_ns();
        docker
            .update_service(&self.service, spec, options, None)
            .await
            .context("update the swarm's service")?;
        Ok(sent)
    }

    async fn task(&self, observer: &Observer, action: &str, after: Nanos) -> Result<Event> {
        let what = format!("{action} of a task of the swarm");
        observer
            .wait_for_strangers(&what, BOUND, |seen| {
                seen.after(after).iter().find(|event| self.is_task(event, action)).cloned()
            })
            .await
    }

    fn is_task(&self, event: &Event, action: &str) -> bool {
        event.action == action && event.name.starts_with(&self.service)
    }
}

fn replicated(replicas: i64) -> ServiceSpecMode {
    let replicated = ServiceSpecModeReplicated { replicas: Some(replicas) };
    ServiceSpecMode { replicated: Some(replicated), ..ServiceSpecMode::default() }
}

fn spec(stack: &Stack, network: &str) -> ServiceSpec {
    let container = TaskSpecContainerSpec {
        image: Some(stack.image.clone()),
        labels: Some(HashMap::from([(STRANGER_LABEL.to_owned(), stack.cluster.clone())])),
        read_only: Some(true),
        ..TaskSpecContainerSpec::default()
    };
    let log_options = [("max-size", "1m"), ("max-file", "1")];
    let log = TaskSpecLogDriver {
        name: Some("json-file".to_owned()),
        options: Some(log_options.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
    };
    let attached =
        NetworkAttachmentConfig { target: Some(network.to_owned()), ..NetworkAttachmentConfig::default() };
    ServiceSpec {
        mode: Some(replicated(BASE)),
        task_template: Some(TaskSpec {
            container_spec: Some(container),
            networks: Some(vec![attached]),
            log_driver: Some(log),
            ..TaskSpec::default()
        }),
        ..ServiceSpec::default()
    }
}

/// Has the engine leave the swarm when it goes out of scope, and removes what that leaves behind.
struct Leave {
    /// Networks of a swarm's that were there before.
    were_there: Vec<String>,
}

impl Leave {
    async fn before(engine: &Engine) -> Result<Self> {
        let swarm = engine.docker().info().await.context("ask the engine about itself")?.swarm;
        let state = swarm.and_then(|swarm| swarm.local_node_state).unwrap_or(LocalNodeState::INACTIVE);
        if !matches!(state, LocalNodeState::INACTIVE | LocalNodeState::EMPTY) {
            bail!(
                "this engine is part of a swarm (its node is {state}), which is left alone: --without-swarm"
            );
        }
        Ok(Self { were_there: networks(engine).await? })
    }
}

impl Drop for Leave {
    fn drop(&mut self) {
        let were_there = std::mem::take(&mut self.were_there);
        clean_up("the swarm (docker swarm leave --force; docker network rm docker_gwbridge)", async move {
            let engine = Engine::connect().await?;
            let options = LeaveSwarmOptionsBuilder::default().force(true).build();
            let left = engine.docker().leave_swarm(Some(options)).await.context("leave the swarm");
            // What is there yet is removed, whatever became of the rest.
            let removed = tokio::time::timeout(BOUND, remove_networks(&engine, &were_there)).await;
            left?;
            removed.context("remove the swarm's networks")?
        });
    }
}

/// The engine removes its own some time after it has left.
async fn remove_networks(engine: &Engine, were_there: &[String]) -> Result<()> {
    loop {
        let mut left = networks(engine).await?;
        left.retain(|network| !were_there.contains(network));
        if left.is_empty() {
            return Ok(());
        }
        for network in left {
            // A task's container that still ends is attached to it: once more, then.
            let _ = engine.docker().remove_network(&network).await;
        }
        tokio::time::sleep(POLL).await;
    }
}

async fn networks(engine: &Engine) -> Result<Vec<String>> {
    let all = engine.docker().list_networks(None).await.context("list the engine's networks")?;
    let names = all.into_iter().filter_map(|network| network.name);
    Ok(names.filter(|name| NETWORKS.contains(&name.as_str())).collect())
}
