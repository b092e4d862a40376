//! What is there, in the driver's words.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use bollard::models::{ContainerSummary, Health as EngineHealth};
use bollard::query_parameters::{InspectContainerOptions, ListContainersOptionsBuilder};
use driver::{
    ContainerId, DriverError, Exit, Health, InstanceAvailability, Observation, ObservedContainer,
    ObservedInstance,
};
use futures_util::{StreamExt, TryStreamExt, stream};
use planner::Phase;
use tokio::time::timeout;
use tracing::{debug, warn};

use crate::docker::DockerDriver;
use crate::error::Refusal;
use crate::labels::{self, CLUSTER, Identity};
use crate::lagging::Mark;

const CALL: &str = "observe";
/// Questions about single containers and images at once, within one observation: as many as may be changing at once.
const PARALLEL_QUESTIONS: usize = 16;
/// An inspection waits for what is being done to its container; one that the engine cannot finish with must not make
/// the whole engine look lost.
const LOOK_MS: u64 = 1_000;
const MILLIS_PER_SECOND: u64 = 1_000;

/// A container that carries all our labels, maybe by its image.
struct Candidate {
    image: String,
    container: ObservedContainer,
}

/// What only an inspection tells of a container that has ended or is frozen. It stays so for as long as nothing is heard
/// of the container, and is asked for once.
#[derive(Clone, Debug)]
pub(crate) struct AtRest {
    phase: Phase,
    health: Option<Health>,
    exit: Option<Exit>,
}

impl DockerDriver {
    pub(crate) async fn observation(&self) -> Result<Observation, DriverError> {
        let label = format!("{CLUSTER}={}", self.config.cluster);
        let filters = HashMap::from([("label", vec![label])]);
        let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
        // Before the list: what is heard later is not in it.
        let lagging = self.lagging.all();
        let listed = match self.ask(CALL, self.connection.docker().list_containers(Some(options))).await? {
            Ok(listed) => listed,
            Err(refusal) => return Err(self.errors.refused(CALL, refusal)),
        };
        let candidates = listed.into_iter().filter_map(candidate).collect();
        let ours = self.own(candidates).await?;
        for (id, mark) in &lagging {
            if !ours.iter().any(|container| container.id == *id) {
                self.lagging.settle(id, *mark);
            }
        }
        let instances = self.config.instances.iter().map(|instance| ObservedInstance {
            name: instance.name.clone(),
            capacity: instance.capacity,
            availability: InstanceAvailability::Ready,
        });
        Ok(Observation { instances: instances.collect(), containers: self.looked_at(ours, &lagging).await? })
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

    /// Inspects those that the list may be behind about, and those that have ended or are frozen; leaves out what is gone by
    /// now.
    async fn looked_at(
        &self,
        containers: Vec<ObservedContainer>,
        lagging: &HashMap<ContainerId, Mark>,
    ) -> Result<Vec<ObservedContainer>, DriverError> {
        let looked_at: Vec<ObservedContainer> = stream::iter(containers)
            .map(|mut container| async move {
                let mark = lagging.get(&container.id).copied();
                if mark.is_none() {
                    if !is_at_rest(container.phase) {
                        return Ok(Some(container));
                    }
                    let known = self.at_rest.lock().expect("nothing panics while holding it");
                    if let Some(known) = known.get(&container.id).filter(|it| it.phase == container.phase) {
                        container.health = known.health;
                        container.exit.clone_from(&known.exit);
                        return Ok(Some(container));
                    }
                }
                self.look_at(container, mark).await
            })
            .buffered(PARALLEL_QUESTIONS)
            .try_filter_map(|container| async move { Ok(container) })
            .try_collect()
            .await?;
        let resting: HashSet<&ContainerId> =
            looked_at.iter().filter(|it| is_at_rest(it.phase)).map(|it| &it.id).collect();
        let mut known = self.at_rest.lock().expect("nothing panics while holding it");
        known.retain(|id, _| resting.contains(id));
        drop(known);
        Ok(looked_at)
    }

    /// `None` if it is gone.
    async fn look_at(
        &self,
        mut container: ObservedContainer,
        mark: Option<Mark>,
    ) -> Result<Option<ObservedContainer>, DriverError> {
        let id = container.id.as_str();
        let inspect = self.connection.docker().inspect_container(id, None::<InspectContainerOptions>);
        let Ok(answer) = timeout(Duration::from_millis(LOOK_MS), self.ask(CALL, inspect)).await else {
            debug!(engine = self.errors.engine, container = id, "it cannot be looked at; going by the list");
            return Ok(Some(container));
        };
        let state = match answer? {
            Ok(found) => found.state.unwrap_or_default(),
            Err(Refusal { status: 404, .. }) => return Ok(None),
            Err(refusal) => return Err(self.errors.refused(CALL, refusal)),
        };
        let listed = std::mem::replace(
            &mut container.phase,
            phase(state.status.map(|status| status.to_string()).as_deref()),
        );
        if let Some(mark) = mark.filter(|_| listed == container.phase) {
            self.lagging.settle(&container.id, mark);
        }
        container.health = match container.phase {
            Phase::Running => state.health.as_ref().and_then(checked),
            Phase::Frozen => state.health.as_ref().and_then(last_check),
            _ => None,
        };
        container.exit = (container.phase == Phase::Exited).then(|| Exit {
            code: state.exit_code.unwrap_or_default(),
            out_of_memory: state.oom_killed.unwrap_or_default(),
            message: state.error.filter(|message| !message.is_empty()),
        });
        if is_at_rest(container.phase) {
            let ObservedContainer { phase, health, .. } = container;
            let rests = AtRest { phase, health, exit: container.exit.clone() };
            self.at_rest.lock().expect("nothing panics while holding it").insert(container.id.clone(), rests);
        }
        Ok(Some(container))
    }
}

/// Whether there is more to know of a container in this phase than the list tells.
const fn is_at_rest(phase: Phase) -> bool {
    matches!(phase, Phase::Exited | Phase::Frozen)
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
        phase: phase(listed.state.map(|state| state.to_string()).as_deref()),
        created_at_ms: u64::try_from(listed.created.unwrap_or_default())
            .unwrap_or_default()
            .saturating_mul(MILLIS_PER_SECOND),
        health: listed.status.as_deref().and_then(health_in_list),
        exit: None,
    };
    Some(Candidate { image: listed.image_id.unwrap_or_default(), container })
}

/// What an inspection says while the container runs.
fn checked(of: &EngineHealth) -> Option<Health> {
    health(of.status?.as_ref())
}

/// What the last check of a frozen container said. Its status is of no use: the engine makes that `unhealthy` as it
/// suspends a container, and leaves it so until the first check after it was resumed.
fn last_check(of: &EngineHealth) -> Option<Health> {
    checked(of)?;
    let last = of.log.as_ref().and_then(|log| log.last());
    Some(match last.map(|check| check.exit_code) {
        None => Health::Starting,
        Some(Some(0)) => Health::Healthy,
        Some(_) => Health::Unhealthy,
    })
}

/// The engine's word.
fn health(says: &str) -> Option<Health> {
    match says {
        "starting" => Some(Health::Starting),
        "healthy" => Some(Health::Healthy),
        "unhealthy" => Some(Health::Unhealthy),
        // `none`, or no word at all: it has no healthcheck.
        _ => None,
    }
}

/// The list has it in a sentence for people alone: `Up 3 minutes (healthy)`, `Up 1 second (health: starting)`. The
/// words have not changed since health was introduced (API 1.24), and asking about each container would cost more than
/// the list does.
fn health_in_list(status: &str) -> Option<Health> {
    let (_, parenthesis) = status.strip_suffix(')')?.rsplit_once('(')?;
    health(parenthesis.strip_prefix("health: ").unwrap_or(parenthesis))
}

/// The list and the inspection have the same words, in different types.
fn phase(state: Option<&str>) -> Phase {
    match state {
        Some("created") => Phase::Created,
        Some("restarting") => Phase::Starting,
        Some("running") => Phase::Running,
        Some("paused") => Phase::Frozen,
        Some("exited" | "removing" | "dead") => Phase::Exited,
        // `stopping`, and a word of the future: it may take room.
        _ => Phase::Stopping,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_frozen_is_as_healthy_as_its_last_check_found_it() {
        let health = |json: &str| last_check(&serde_json::from_str(json).expect("it is an engine's"));
        for (says, expected) in [
            (r#"{"Status": "none", "FailingStreak": 0, "Log": null}"#, None),
            (r#"{"Status": "", "FailingStreak": 0, "Log": null}"#, None),
            (r#"{"Status": "unhealthy", "FailingStreak": 0, "Log": null}"#, Some(Health::Starting)),
            (r#"{"Status": "unhealthy", "FailingStreak": 0, "Log": []}"#, Some(Health::Starting)),
            (
                r#"{"Status": "unhealthy", "FailingStreak": 0, "Log": [{"ExitCode": 1}, {"ExitCode": 0}]}"#,
                Some(Health::Healthy),
            ),
            (
                r#"{"Status": "unhealthy", "FailingStreak": 1, "Log": [{"ExitCode": 0}, {"ExitCode": 1}]}"#,
                Some(Health::Unhealthy),
            ),
        ] {
            assert_eq!(health(says), expected, "{says}");
        }
    }

    #[test]
    fn health_is_read_from_the_sentence_in_the_list() {
        for (status, expected) in [
            ("Up 3 minutes", None),
            ("Up 3 minutes (Paused)", None),
            ("Up 2 seconds (health: starting)", Some(Health::Starting)),
            ("Up Less than a second (healthy)", Some(Health::Healthy)),
            ("Up About an hour (unhealthy)", Some(Health::Unhealthy)),
            ("Exited (0) 3 minutes ago", None),
            ("Created", None),
            ("", None),
        ] {
            assert_eq!(health_in_list(status), expected, "{status:?}");
        }
    }
}
