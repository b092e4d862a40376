//! What is there, in the driver's words.

use std::collections::{BTreeSet, HashMap};

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum as State};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use driver::{
    ContainerId, DriverError, Exit, InstanceAvailability, Observation, ObservedContainer, ObservedInstance,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use planner::Phase;
use tracing::warn;

use crate::docker::DockerDriver;
use crate::error::Refusal;
use crate::labels::{self, CLUSTER, Identity};

const CALL: &str = "observe";
/// Questions about single containers and images at once, within one observation: enough to hide the way to a distant
/// engine, few enough not to get in the way of what changes something.
const PARALLEL_QUESTIONS: usize = 4;
const MILLIS_PER_SECOND: u64 = 1_000;

/// A container that carries all our labels, maybe by its image.
struct Candidate {
    image: String,
    container: ObservedContainer,
}

impl DockerDriver {
    pub(crate) async fn observation(&self) -> Result<Observation, DriverError> {
        let label = format!("{CLUSTER}={}", self.config.cluster);
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        let listed = match self.ask(CALL, self.connection.docker().list_containers(Some(options))).await? {
            Ok(listed) => listed,
            Err(refusal) => return Err(self.errors.refused(CALL, refusal)),
        };
        let candidates = listed.into_iter().filter_map(candidate).collect();
        let ours = self.own(candidates).await?;
        let instances = self.config.instances.iter().map(|instance| ObservedInstance {
            name: instance.name.clone(),
            capacity: instance.capacity,
            availability: InstanceAvailability::Ready,
        });
        Ok(Observation { instances: instances.collect(), containers: self.with_exits(ours).await? })
    }

    /// Leaves out those that have our labels from their image.
    async fn own(&self, candidates: Vec<Candidate>) -> Result<Vec<ObservedContainer>, DriverError> {
        let images: BTreeSet<String> = candidates.iter().map(|candidate| candidate.image.clone()).collect();
        let labelled: HashMap<String, Option<bool>> = stream::iter(images)
            .map(|image| async move {
                let labelled = self.image_is_labelled(CALL, &image).await?;
                Ok::<_, DriverError>((image, labelled))
            })
            .buffer_unordered(PARALLEL_QUESTIONS)
            .try_collect()
            .await?;
        // Images come and go for as long as we run.
        self.labelled_images
            .lock()
            .expect("nothing panics while holding it")
            .retain(|image, _| labelled.contains_key(image));
        let is_ours = |candidate: &Candidate| match labelled[&candidate.image] {
            Some(labelled) => !labelled,
            None => candidate.container.ordinal.is_some(),
        };
        Ok(candidates.into_iter().filter(is_ours).map(|candidate| candidate.container).collect())
    }

    /// Whether the image with this id carries any of our labels; `None` if it has been deleted.
    pub(crate) async fn image_is_labelled(
        &self,
        call: &'static str,
        image: &str,
    ) -> Result<Option<bool>, DriverError> {
        let known = self.labelled_images.lock().expect("nothing panics while holding it").get(image).copied();
        if known.is_some() {
            return Ok(known);
        }
        let found = match self.ask(call, self.connection.docker().inspect_image(image)).await? {
            Ok(found) => found,
            Err(Refusal { status: 404, .. }) => return Ok(None),
            Err(refusal) => return Err(self.errors.refused(call, refusal)),
        };
        let image_labels = found.config.and_then(|config| config.labels).unwrap_or_default();
        let label = labels::first_of_ours(&image_labels);
        if let Some(label) = label {
            warn!(
                engine = self.errors.engine,
                image, label, "an image carries our label; its containers are taken for somebody else's"
            );
        }
        self.labelled_images
            .lock()
            .expect("nothing panics while holding it")
            .insert(image.to_owned(), label.is_some());
        Ok(Some(label.is_some()))
    }

    /// Adds how they ended, asking once for each that has; leaves out those that are gone by now.
    async fn with_exits(
        &self,
        containers: Vec<ObservedContainer>,
    ) -> Result<Vec<ObservedContainer>, DriverError> {
        let known = std::mem::take(&mut *self.exits.lock().expect("nothing panics while holding it"));
        let known = &known;
        let containers: Vec<ObservedContainer> = stream::iter(containers)
            .map(|mut container| async move {
                if container.phase != Phase::Exited {
                    return Ok(Some(container));
                }
                let exit = match known.get(&container.id) {
                    Some(exit) => Some(exit.clone()),
                    None => self.exit(&container.id).await?,
                };
                if let Some(exit) = &exit {
                    let mut exits = self.exits.lock().expect("nothing panics while holding it");
                    exits.insert(container.id.clone(), exit.clone());
                }
                container.exit = exit;
                Ok::<_, DriverError>(container.exit.is_some().then_some(container))
            })
            .buffered(PARALLEL_QUESTIONS)
            .try_filter_map(|container| async move { Ok(container) })
            .try_collect()
            .await?;
        Ok(containers)
    }

    async fn exit(&self, id: &ContainerId) -> Result<Option<Exit>, DriverError> {
        let inspect =
            self.connection.docker().inspect_container(id.as_str(), None::<InspectContainerOptions>);
        match self.ask(CALL, inspect).await? {
            Ok(found) => {
                let state = found.state.unwrap_or_default();
                Ok(Some(Exit {
                    code: state.exit_code.unwrap_or_default(),
                    out_of_memory: state.oom_killed.unwrap_or_default(),
                    message: state.error.filter(|message| !message.is_empty()),
                }))
            }
            Err(Refusal { status: 404, .. }) => Ok(None),
            Err(refusal) => Err(self.errors.refused(CALL, refusal)),
        }
    }
}

fn candidate(listed: ContainerSummary) -> Option<Candidate> {
    let identity = Identity::from_labels(&listed.labels?)?;
    let names = listed.names.unwrap_or_default();
    let ordinal = names.iter().find_map(|name| identity.ordinal(name.strip_prefix('/').unwrap_or(name)));
    let container = ObservedContainer {
        id: ContainerId::new(listed.id?),
        service: identity.service,
        instance: identity.instance,
        ordinal,
        generation: identity.generation,
        phase: phase(listed.state),
        created_at_ms: u64::try_from(listed.created.unwrap_or_default())
            .unwrap_or_default()
            .saturating_mul(MILLIS_PER_SECOND),
        exit: None,
    };
    Some(Candidate { image: listed.image_id.unwrap_or_default(), container })
}

fn phase(state: Option<State>) -> Phase {
    match state {
        Some(State::CREATED) => Phase::Created,
        Some(State::RESTARTING) => Phase::Starting,
        Some(State::RUNNING) => Phase::Running,
        Some(State::PAUSED) => Phase::Frozen,
        Some(State::EXITED | State::REMOVING | State::DEAD) => Phase::Exited,
        // An unknown state may take room.
        Some(State::STOPPING | State::EMPTY) | None => Phase::Stopping,
    }
}
