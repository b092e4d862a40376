//! The engine, by bare API calls: what the checks need around the product, never through it.

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bollard::Docker;
use bollard::container::LogOutput;
use bollard::errors::Error;
use bollard::models::{ContainerCreateBody, ContainerInspectResponse, ContainerSummary, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, CreateImageOptionsBuilder, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, LogsOptionsBuilder, RemoveContainerOptionsBuilder,
    RemoveImageOptionsBuilder, TagImageOptionsBuilder,
};
use futures_util::TryStreamExt as _;

/// The label that Force12 finds its own containers by.
pub const CLUSTER_LABEL: &str = "force12.cluster";

/// The label on containers that these checks make for themselves, with the run's cluster as its value.
/// Force12 does not know it.
pub const STRANGER_LABEL: &str = "acceptance.stranger-of";

/// The repository of every image that these checks make.
pub const IMAGE_REPOSITORY: &str = "force12-acceptance";

/// Seconds for one call; a busy engine takes a fraction of one.
const CALL_TIMEOUT_S: u64 = 30;

/// How often what is left of a run is looked for.
const CLEANUP_ROUNDS_MAX: u32 = 5;

/// The time for the first answer.
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// A container engine.
#[derive(Clone)]
pub struct Engine {
    docker: Docker,
    address: String,
}

impl Engine {
    /// The engine of `DOCKER_HOST`, a unix socket; /var/run/docker.sock by default.
    pub async fn connect() -> Result<Self> {
        let address =
            std::env::var("DOCKER_HOST").unwrap_or_else(|_| "unix:///var/run/docker.sock".to_owned());
        let needed = || {
            format!(
                "these checks need a Docker engine, and {address} does not answer: start dockerd (scripts/test \
                 does), or name a unix socket in DOCKER_HOST"
            )
        };
        if !address.starts_with("unix://") {
            bail!(
                "these checks need an engine on this machine, and DOCKER_HOST is {address}: name a unix socket"
            );
        }
        Self::at(&address).await.with_context(needed)
    }

    /// The engine at a unix socket.
    pub async fn at(address: &str) -> Result<Self> {
        let docker = Docker::connect_with_unix(address, CALL_TIMEOUT_S, bollard::API_DEFAULT_VERSION)?;
        let docker = tokio::time::timeout(PING_TIMEOUT, docker.negotiate_version())
            .await
            .with_context(|| format!("{address} does not answer"))??;
        docker.ping().await?;
        Ok(Self { docker, address: address.to_owned() })
    }

    /// Where it is, as Force12's configuration has it.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The client.
    pub fn docker(&self) -> &Docker {
        &self.docker
    }

    /// Makes `force12-acceptance:{tag}` out of one static binary, with labels, and returns its name.
    pub async fn import_image(
        &self,
        binary: &Path,
        tag: &str,
        labels: &[(String, String)],
    ) -> Result<String> {
        let mut archive = tar::Builder::new(Vec::new());
        // Engines know no holes, which linkers and copies may leave in a file.
        archive.sparse(false);
        archive
            .append_path_with_name(binary, "workload")
            .with_context(|| format!("read {} for an image", binary.display()))?;
        let archive = archive.into_inner()?;
        let mut changes = vec![r#"ENTRYPOINT ["/workload"]"#.to_owned()];
        changes.extend(labels.iter().map(|(key, value)| format!("LABEL {key}={value}")));
        let options = CreateImageOptionsBuilder::default()
            .from_src("-")
            .repo(IMAGE_REPOSITORY)
            .tag(tag)
            .changes(changes)
            .build();
        let body = bollard::body_full(archive.into());
        self.docker
            .create_image(Some(options), Some(body), None)
            .try_collect::<Vec<_>>()
            .await
            .with_context(|| format!("import the image {IMAGE_REPOSITORY}:{tag}"))?;
        Ok(format!("{IMAGE_REPOSITORY}:{tag}"))
    }

    /// Tags `image` with its own name: changes nothing, and leaves an event to be seen.
    pub async fn retag(&self, image: &str) -> Result<()> {
        let (repository, tag) = image.split_once(':').context("an image name without a tag")?;
        let options = TagImageOptionsBuilder::default().repo(repository).tag(tag).build();
        self.docker.tag_image(image, Some(options)).await.with_context(|| format!("tag {image}"))
    }

    /// Creates a container and returns its id.
    pub async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<String> {
        let options = CreateContainerOptionsBuilder::default().name(name).build();
        let created = self
            .docker
            .create_container(Some(options), body)
            .await
            .with_context(|| format!("create the container {name}"))?;
        Ok(created.id)
    }

    /// Starts a container that was created.
    pub async fn start(&self, id: &str) -> Result<()> {
        self.docker.start_container(id, None).await.with_context(|| format!("start the container {id}"))
    }

    /// Sends SIGKILL, and returns when the container has ended.
    pub async fn kill(&self, id: &str) -> Result<()> {
        let options = KillContainerOptionsBuilder::default().signal("SIGKILL").build();
        self.docker
            .kill_container(id, Some(options))
            .await
            .with_context(|| format!("kill the container {id}"))
    }

    /// Suspends a container.
    pub async fn pause(&self, id: &str) -> Result<()> {
        self.docker.pause_container(id).await.with_context(|| format!("pause the container {id}"))
    }

    /// Resumes a container.
    pub async fn unpause(&self, id: &str) -> Result<()> {
        self.docker.unpause_container(id).await.with_context(|| format!("unpause the container {id}"))
    }

    /// Removes a container, whatever it does. That it is gone already is well.
    pub async fn remove(&self, id: &str) -> Result<()> {
        let options = RemoveContainerOptionsBuilder::default().force(true).build();
        match self.docker.remove_container(id, Some(options)).await {
            // 409: somebody else is removing it this moment.
            Err(Error::DockerResponseServerError { status_code: 404 | 409, .. }) => Ok(()),
            other => other.with_context(|| format!("remove the container {id}")),
        }
    }

    /// What a container has written to its standard output, as far as its log goes back.
    pub async fn output(&self, id: &str) -> Result<String> {
        let options = LogsOptionsBuilder::default().stdout(true).build();
        let parts: Vec<LogOutput> = self
            .docker
            .logs(id, Some(options))
            .try_collect()
            .await
            .with_context(|| format!("read the log of the container {id}"))?;
        let bytes: Vec<u8> = parts.into_iter().flat_map(LogOutput::into_bytes).collect();
        String::from_utf8(bytes).with_context(|| format!("the output of the container {id} is no text"))
    }

    /// All about one container.
    pub async fn inspect(&self, id: &str) -> Result<ContainerInspectResponse> {
        self.docker.inspect_container(id, None).await.with_context(|| format!("inspect the container {id}"))
    }

    /// The containers that carry a label, those that have ended too.
    pub async fn containers_with(&self, label: &str, value: &str) -> Result<Vec<ContainerSummary>> {
        let filters = HashMap::from([("label".to_owned(), vec![format!("{label}={value}")])]);
        let options = ListContainersOptionsBuilder::default().all(true).filters(&filters).build();
        self.docker
            .list_containers(Some(options))
            .await
            .with_context(|| format!("list the containers with {label}={value}"))
    }

    /// Removes every container of a run's cluster, the run's strangers, and its images.
    async fn remove_run(&self, cluster: &str, images: &[String]) -> Result<()> {
        // A start that was under way when the scheduler was killed may still come through: looked for again
        // until nothing is found.
        for _ in 0..CLEANUP_ROUNDS_MAX {
            let mut found = self.containers_with(CLUSTER_LABEL, cluster).await?;
            found.extend(self.containers_with(STRANGER_LABEL, cluster).await?);
            if found.is_empty() {
                break;
            }
            for container in found {
                self.remove(container.id.as_deref().unwrap_or_default()).await?;
            }
        }
        for image in images {
            let options = RemoveImageOptionsBuilder::default().force(true).build();
            match self.docker.remove_image(image, Some(options), None).await {
                Ok(_) | Err(Error::DockerResponseServerError { status_code: 404, .. }) => {}
                Err(error) => return Err(error).with_context(|| format!("remove the image {image}")),
            }
        }
        Ok(())
    }
}

/// A container of this run that is none of Force12's.
pub fn stranger(cluster: &str, image: &str, network: &str) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(image.to_owned()),
        labels: Some(HashMap::from([(STRANGER_LABEL.to_owned(), cluster.to_owned())])),
        host_config: Some(HostConfig { network_mode: Some(network.to_owned()), ..HostConfig::default() }),
        ..ContainerCreateBody::default()
    }
}

/// Removes all that a run made on the engine when it goes out of scope, also on a panic.
pub struct Cleanup {
    cluster: String,
    images: Vec<String>,
}

impl Cleanup {
    /// For one run.
    pub fn new(cluster: &str) -> Self {
        Self { cluster: cluster.to_owned(), images: Vec::new() }
    }

    /// Adds an image.
    pub fn image(&mut self, image: &str) {
        self.images.push(image.to_owned());
    }
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        let (cluster, images) = (self.cluster.clone(), std::mem::take(&mut self.images));
        clean_up(&self.cluster, async move { Engine::connect().await?.remove_run(&cluster, &images).await });
    }
}

/// Does what is to be done as something goes out of scope, to its end; says if it fails, and of what.
pub fn clean_up(what: &str, work: impl Future<Output = Result<()>> + Send + 'static) {
    // A thread and a runtime of its own: the one that this is called on can't be waited on from here, and a
    // connection that belongs to it would not be served meanwhile.
    let work = move || -> Result<()> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
    };
    match std::thread::spawn(work).join() {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("clean-up of {what} failed: {error:#}"),
        Err(_) => eprintln!("clean-up of {what} panicked"),
    }
}
