//! The floor under every reaction: what the same change costs by bare API calls.

use anyhow::{Context as _, Result};
use bollard::models::{ContainerCreateBody, ContainerInspectResponse};

use crate::engine::{Engine, stranger};
use crate::observer::now_ns;
use crate::timeline::Nanos;

/// One container that is killed and replaced by its like, again and again.
pub struct Floor {
    engine: Engine,
    cluster: String,
    body: ContainerCreateBody,
    alive: String,
    rounds: u32,
}

/// One replacement.
#[derive(Clone, Debug)]
pub struct Replacement {
    /// When it was begun.
    pub begun: Nanos,
    /// The container that was killed.
    pub killed: String,
    /// The one that was started in its place.
    pub started: String,
}

impl Floor {
    /// Starts the first container. It is made as `like` is, without its labels.
    pub async fn start(engine: &Engine, cluster: &str, like: ContainerInspectResponse) -> Result<Self> {
        let config = like.config.context("the engine tells no configuration of the container")?;
        let image = config.image.context("the engine tells no image of the container")?;
        let mut body = stranger(cluster, &image, "");
        body.cmd = config.cmd;
        body.env = config.env;
        body.user = config.user;
        body.stop_signal = config.stop_signal;
        body.host_config = like.host_config;
        let mut floor = Self {
            engine: engine.clone(),
            cluster: cluster.to_owned(),
            body,
            alive: String::new(),
            rounds: 0,
        };
        floor.alive = floor.create().await?;
        engine.start(&floor.alive).await?;
        Ok(floor)
    }

    /// Kill, create, start: one call after the other, as fast as they are answered.
    pub async fn replace(&mut self) -> Result<Replacement> {
        let begun = now_ns();
        self.engine.kill(&self.alive).await?;
        let started = self.create().await?;
        self.engine.start(&started).await?;
        let killed = std::mem::replace(&mut self.alive, started.clone());
        Ok(Replacement { begun, killed, started })
    }

    async fn create(&mut self) -> Result<String> {
        self.rounds += 1;
        let name = format!("floor-{}-{}", self.cluster, self.rounds);
        self.engine.create(&name, self.body.clone()).await
    }
}
