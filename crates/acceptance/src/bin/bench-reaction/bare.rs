//! The floors under every reaction: what the same changes cost by bare API calls, each as soon as the one before it is
//! answered.

use acceptance::engine::{Engine, stranger};
use acceptance::observer::{Observer, now_ns};
use acceptance::timeline::Nanos;
use anyhow::{Context as _, Result};
use bollard::models::{ContainerCreateBody, ContainerInspectResponse};
use futures_util::future::try_join_all;

use crate::BOUND;
use crate::statistics::Round;

/// Of the burst.
const TOGETHER_MAX: usize = 4;

/// Containers that nobody but this works on.
pub(crate) struct Bare {
    engine: Engine,
    cluster: String,
    body: ContainerCreateBody,
    /// Has been given to names.
    made: u32,
    /// To be killed and replaced.
    alive: Vec<String>,
    /// To change places with the one that is paused.
    running: String,
    paused: String,
}

/// One container that was killed, and the one that was started in its place.
struct Replaced {
    killed: String,
    started: String,
}

impl Bare {
    /// Starts its containers. They are made as `like` is, without its labels.
    pub(crate) async fn start(
        engine: &Engine,
        cluster: &str,
        like: ContainerInspectResponse,
    ) -> Result<Self> {
        let config = like.config.context("the engine tells no configuration of the container")?;
        let image = config.image.context("the engine tells no image of the container")?;
        let mut body = stranger(cluster, &image, "");
        body.cmd = config.cmd;
        body.env = config.env;
        body.user = config.user;
        body.stop_signal = config.stop_signal;
        body.host_config = like.host_config;
        let mut bare = Self {
            engine: engine.clone(),
            cluster: cluster.to_owned(),
            body,
            made: 0,
            alive: Vec::new(),
            running: String::new(),
            paused: String::new(),
        };
        for _ in 0..TOGETHER_MAX {
            let id = bare.started().await?;
            bare.alive.push(id);
        }
        bare.running = bare.started().await?;
        bare.paused = bare.started().await?;
        bare.engine.pause(&bare.paused).await?;
        Ok(bare)
    }

    /// Kill, create, start: `together` containers at once, each replaced by its like.
    pub(crate) async fn replace(&mut self, observer: &Observer, together: usize) -> Result<Round> {
        let names: Vec<String> = (0..together).map(|_| self.name()).collect();
        let begun = now_ns();
        let replace = self.alive.drain(..together).zip(names).map(async |(killed, name)| {
            self.engine.kill(&killed).await?;
            let started = self.engine.create(&name, self.body.clone()).await?;
            self.engine.start(&started).await?;
            anyhow::Ok(Replaced { killed, started })
        });
        let replaced = try_join_all(replace).await?;
        self.alive.extend(replaced.iter().map(|one| one.started.clone()));
        let mut starts = Vec::new();
        for one in &replaced {
            starts.push(at(observer, "start", &one.started, begun).await?);
            self.engine.remove(&one.killed).await?;
            at(observer, "destroy", &one.killed, begun).await?;
        }
        starts.sort_unstable();
        if let [one] = replaced.as_slice() {
            let kill = at(observer, "kill", &one.killed, begun).await?;
            let die = at(observer, "die", &one.killed, begun).await?;
            let create = at(observer, "create", &one.started, begun).await?;
            return Ok(Round::new(&[begun, kill, die, create, starts[0]]));
        }
        Ok(Round::new(&[begun, starts[0], starts[starts.len() - 1]]))
    }

    /// Pause one, create and start another.
    pub(crate) async fn pause_create_start(&mut self, observer: &Observer) -> Result<Round> {
        let name = self.name();
        let begun = now_ns();
        self.engine.pause(&self.running).await?;
        let new = self.engine.create(&name, self.body.clone()).await?;
        self.engine.start(&new).await?;
        let pause = at(observer, "pause", &self.running, begun).await?;
        let create = at(observer, "create", &new, begun).await?;
        let start = at(observer, "start", &new, begun).await?;
        self.engine.remove(&new).await?;
        self.engine.unpause(&self.running).await?;
        at(observer, "unpause", &self.running, begun).await?;
        at(observer, "destroy", &new, begun).await?;
        Ok(Round::new(&[begun, pause, create, start]))
    }

    /// Pause one, then unpause the other.
    pub(crate) async fn pause_then_unpause(&mut self, observer: &Observer) -> Result<Round> {
        let begun = now_ns();
        self.engine.pause(&self.running).await?;
        self.engine.unpause(&self.paused).await?;
        let pause = at(observer, "pause", &self.running, begun).await?;
        let unpause = at(observer, "unpause", &self.paused, begun).await?;
        std::mem::swap(&mut self.running, &mut self.paused);
        Ok(Round::new(&[begun, pause, unpause]))
    }

    /// Pause one and unpause the other, both calls at once.
    pub(crate) async fn pause_beside_unpause(&mut self, observer: &Observer) -> Result<Round> {
        let begun = now_ns();
        tokio::try_join!(self.engine.pause(&self.running), self.engine.unpause(&self.paused))?;
        at(observer, "pause", &self.running, begun).await?;
        let unpause = at(observer, "unpause", &self.paused, begun).await?;
        std::mem::swap(&mut self.running, &mut self.paused);
        Ok(Round::new(&[begun, unpause]))
    }

    /// Unpause the one that is paused, and pause it again afterwards.
    pub(crate) async fn unpause(&mut self, observer: &Observer) -> Result<Round> {
        let begun = now_ns();
        self.engine.unpause(&self.paused).await?;
        let unpause = at(observer, "unpause", &self.paused, begun).await?;
        self.engine.pause(&self.paused).await?;
        at(observer, "pause", &self.paused, begun).await?;
        Ok(Round::new(&[begun, unpause]))
    }

    async fn started(&mut self) -> Result<String> {
        let name = self.name();
        let id = self.engine.create(&name, self.body.clone()).await?;
        self.engine.start(&id).await?;
        Ok(id)
    }

    fn name(&mut self) -> String {
        self.made += 1;
        format!("floor-{}-{}", self.cluster, self.made)
    }
}

/// When the engine said that `action` befell a container, at or after `begun`.
async fn at(observer: &Observer, action: &str, id: &str, begun: Nanos) -> Result<Nanos> {
    let what = format!("{action} of a container by bare calls");
    observer
        .wait_for_strangers(&what, BOUND, |seen| {
            seen.after(begun - 1)
                .iter()
                .find(|event| event.id == id && event.action == action)
                .map(|event| event.at)
        })
        .await
}
