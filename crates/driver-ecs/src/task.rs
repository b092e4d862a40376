//! What ECS says of a task, and what two reports of the same task come to.

use std::collections::BTreeMap;
use std::sync::Arc;

use aws_sdk_ecs::types::{HealthStatus, Task};
use driver::{Exit, Health};
use planner::Phase;
use serde::Deserialize;

use crate::names::Identity;

/// The exit code of an end that has none of its own: no container of the task has run.
const NO_EXIT_CODE: i64 = -1;

/// A task's name in ECS.
pub(crate) type Arn = Arc<str>;

/// Where a task is in its life: `lastStatus`, in its order
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/task-lifecycle-explanation.html>).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Status {
    /// PROVISIONING, PENDING, ACTIVATING: it does not run yet.
    Coming,
    Running,
    /// DEACTIVATING, STOPPING, DEPROVISIONING, and whatever ECS may say in the future: it may take room.
    Leaving,
    /// STOPPED, DELETED.
    Stopped,
}

impl Status {
    fn parse(status: &str) -> Self {
        match status {
            "PROVISIONING" | "PENDING" | "ACTIVATING" => Self::Coming,
            "RUNNING" => Self::Running,
            "STOPPED" | "DELETED" => Self::Stopped,
            _ => Self::Leaving,
        }
    }
}

/// How a task has ended, as far as ECS says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// Such as `EssentialContainerExited`.
    pub(crate) stop_code: Option<String>,
    /// In ECS's words, or whoever stopped it.
    pub(crate) reason: Option<String>,
    /// Of its containers, by name: exit code and reason, where there are.
    pub(crate) containers: BTreeMap<String, (Option<i64>, Option<String>)>,
}

impl End {
    /// One sentence: `EssentialContainerExited: Essential container in task exited; web: OutOfMemoryError: …`.
    pub(crate) fn words(&self) -> String {
        let parts = [self.stop_code.as_deref(), self.reason.as_deref()];
        let mut words =
            parts.into_iter().flatten().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(": ");
        for (name, (_, reason)) in &self.containers {
            if let Some(reason) =
                reason.as_deref().filter(|reason| !reason.is_empty() && !words.contains(reason))
            {
                let separator = if words.is_empty() { "" } else { "; " };
                words = format!("{words}{separator}{name}: {reason}");
            }
        }
        if words.is_empty() { "ECS does not say why".to_owned() } else { words }
    }

    fn exit(&self) -> Exit {
        let codes = || self.containers.values().filter_map(|(code, _)| *code);
        // One that has failed says more than those that were stopped with it.
        let code = codes().find(|&code| code != 0).or_else(|| codes().next()).unwrap_or(NO_EXIT_CODE);
        let out_of_memory = self
            .containers
            .values()
            .any(|(_, reason)| reason.as_deref().is_some_and(|reason| reason.contains("OutOfMemory")));
        Exit { code, out_of_memory, message: Some(self.words()) }
    }

    /// Whether any of its containers has run to an end.
    fn has_run(&self) -> bool {
        self.containers.values().any(|(code, _)| code.is_some())
            && self.stop_code.as_deref() != Some("TaskFailedToStart")
    }
}

/// What is known of a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) arn: Arn,
    /// Counts its changes; the higher, the later.
    pub(crate) version: i64,
    pub(crate) status: Status,
    /// It is to stop, or has stopped: `desiredStatus` is STOPPED.
    pub(crate) to_stop: bool,
    /// It runs, or has run.
    pub(crate) has_run: bool,
    /// The container instance's ARN.
    pub(crate) instance: Option<Arn>,
    /// The ARN of what it is made of.
    pub(crate) revision: Option<Arn>,
    pub(crate) started_by: Option<String>,
    /// By its tags, or its group.
    pub(crate) identity: Option<Identity>,
    pub(crate) created_at_ms: u64,
    /// `None`: nothing is told yet, or it has no healthcheck.
    pub(crate) health: Option<Health>,
    /// What ECS has set aside for it: CPU units (1,024 are one CPU) and MiB.
    pub(crate) reserved: Reserved,
    pub(crate) end: End,
}

/// CPU units (1,024 are one CPU) and MiB that ECS counts as taken by a task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reserved {
    pub(crate) cpu_units: u64,
    pub(crate) memory_mib: u64,
}

impl Reserved {
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            cpu_units: self.cpu_units.saturating_add(other.cpu_units),
            memory_mib: self.memory_mib.saturating_add(other.memory_mib),
        }
    }

    pub(crate) fn minus(self, other: Self) -> Self {
        Self {
            cpu_units: self.cpu_units.saturating_sub(other.cpu_units),
            memory_mib: self.memory_mib.saturating_sub(other.memory_mib),
        }
    }

    /// In each dimension the smaller.
    pub(crate) fn min(self, other: Self) -> Self {
        Self {
            cpu_units: self.cpu_units.min(other.cpu_units),
            memory_mib: self.memory_mib.min(other.memory_mib),
        }
    }

    pub(crate) const fn cpu_millis(self) -> u64 {
        self.cpu_units.saturating_mul(1_000) / 1_024
    }
}

impl Facts {
    /// From an answer; `None` for a task without a name.
    pub(crate) fn of_answer(task: &Task, cluster: &str) -> Option<Self> {
        let tags: Vec<(&str, &str)> =
            task.tags().iter().filter_map(|tag| Some((tag.key()?, tag.value()?))).collect();
        let identity =
            Identity::from_tags(cluster, &tags).or_else(|| task.group().and_then(Identity::from_group));
        let containers = task.containers().iter().map(|container| {
            let end = (container.exit_code().map(i64::from), container.reason().map(str::to_owned));
            (container.name().unwrap_or_default().to_owned(), end)
        });
        let of_containers = task.containers().iter().fold(Reserved::default(), |sum, container| {
            let memory = container.memory_reservation().or(container.memory());
            sum.plus(Reserved { cpu_units: number(container.cpu()), memory_mib: number(memory) })
        });
        let created_at = task.created_at().and_then(|at| at.to_millis().ok());
        Some(Self {
            arn: task.task_arn()?.into(),
            version: task.version(),
            status: Status::parse(task.last_status().unwrap_or_default()),
            to_stop: task.desired_status() == Some("STOPPED"),
            has_run: task.started_at().is_some(),
            instance: task.container_instance_arn().map(Arn::from),
            revision: task.task_definition_arn().map(Arn::from),
            started_by: task.started_by().map(str::to_owned),
            identity,
            created_at_ms: created_at.and_then(|at| u64::try_from(at).ok()).unwrap_or_default(),
            health: match task.health_status() {
                Some(HealthStatus::Healthy) => Some(Health::Healthy),
                Some(HealthStatus::Unhealthy) => Some(Health::Unhealthy),
                _ => None,
            },
            reserved: Reserved {
                cpu_units: task.cpu().map_or(of_containers.cpu_units, |cpu| number(Some(cpu))),
                memory_mib: task.memory().map_or(of_containers.memory_mib, |memory| number(Some(memory))),
            },
            end: End {
                stop_code: task.stop_code().map(|code| code.as_str().to_owned()),
                reason: task.stopped_reason().map(str::to_owned),
                containers: containers.collect(),
            }
            .settled(),
        })
    }

    /// From an event's detail, which has no tags.
    pub(crate) fn of_event(told: ToldTask) -> Self {
        let containers: Vec<ToldContainer> = told.containers.unwrap_or_default();
        let of_containers = containers.iter().fold(Reserved::default(), |sum, container| {
            let memory = container.memory_reservation.as_deref().or(container.memory.as_deref());
            sum.plus(Reserved { cpu_units: number(container.cpu.as_deref()), memory_mib: number(memory) })
        });
        let created_at = told.created_at.as_deref().and_then(|at| at.parse::<jiff::Timestamp>().ok());
        Self {
            arn: told.task_arn.into(),
            version: told.version,
            status: Status::parse(&told.last_status),
            to_stop: told.desired_status == "STOPPED",
            has_run: told.started_at.is_some(),
            instance: told.container_instance_arn.map(Arn::from),
            revision: told.task_definition_arn.map(Arn::from),
            identity: told.group.as_deref().and_then(Identity::from_group),
            started_by: told.started_by,
            created_at_ms: created_at
                .and_then(|at| u64::try_from(at.as_millisecond()).ok())
                .unwrap_or_default(),
            health: match told.health_status.as_deref() {
                Some("HEALTHY") => Some(Health::Healthy),
                Some("UNHEALTHY") => Some(Health::Unhealthy),
                _ => None,
            },
            reserved: Reserved {
                cpu_units: told.cpu.as_deref().map_or(of_containers.cpu_units, |cpu| number(Some(cpu))),
                memory_mib: told.memory.as_deref().map_or(of_containers.memory_mib, |it| number(Some(it))),
            },
            end: End {
                stop_code: told.stop_code,
                reason: told.stopped_reason,
                containers: containers
                    .into_iter()
                    .map(|container| (container.name, (container.exit_code, container.reason)))
                    .collect(),
            }
            .settled(),
        }
    }

    /// Takes in another report of the same task; says whether anything is news.
    ///
    /// In whichever order reports come, the sum is the same: a life only goes on, and what may go to and fro is taken from
    /// the report of the highest version.
    pub(crate) fn merge(&mut self, other: &Self) -> bool {
        let before = self.clone();
        if other.version > self.version {
            self.health = other.health;
            self.version = other.version;
        } else if other.version == self.version {
            self.health = self.health.max(other.health);
        }
        self.to_stop |= other.to_stop;
        self.has_run |= other.has_run;
        if other.status > self.status || (other.status == self.status && self.end == End::default()) {
            self.end = other.end.clone();
        }
        self.status = self.status.max(other.status);
        if self.instance.is_none() {
            self.instance.clone_from(&other.instance);
        }
        if self.revision.is_none() {
            self.revision.clone_from(&other.revision);
        }
        if self.started_by.is_none() {
            self.started_by.clone_from(&other.started_by);
        }
        if self.identity.is_none() {
            self.identity.clone_from(&other.identity);
        }
        if self.created_at_ms == 0 {
            self.created_at_ms = other.created_at_ms;
        }
        if self.reserved == Reserved::default() {
            self.reserved = other.reserved;
        }
        *self != before
    }

    /// Whether it has left its room.
    pub(crate) fn has_left(&self) -> bool {
        self.status == Status::Stopped
    }

    /// Whether it ran before it ended.
    pub(crate) fn ran(&self) -> bool {
        self.has_run || self.status == Status::Running || self.end.has_run()
    }

    /// Whether it is where it is to be, and nothing more is expected of it.
    pub(crate) fn is_settled(&self) -> bool {
        match self.status {
            Status::Coming | Status::Leaving => false,
            Status::Running => !self.to_stop,
            Status::Stopped => true,
        }
    }

    /// In the driver's words.
    pub(crate) fn phase(&self) -> Phase {
        match self.status {
            Status::Stopped => Phase::Exited,
            Status::Leaving => Phase::Stopping,
            Status::Coming | Status::Running if self.to_stop => Phase::Stopping,
            Status::Coming => Phase::Starting,
            Status::Running => Phase::Running,
        }
    }

    /// How it ended, once it has.
    pub(crate) fn exit(&self) -> Option<Exit> {
        self.has_left().then(|| self.end.exit())
    }
}

impl End {
    /// Nothing where nothing is said.
    fn settled(self) -> Self {
        let says = |(code, reason): &(Option<i64>, Option<String>)| code.is_some() || reason.is_some();
        if self.stop_code.is_none() && self.reason.is_none() && !self.containers.values().any(says) {
            return Self::default();
        }
        self
    }
}

fn number(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The detail of a task state change event, as far as anybody here asks
/// (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs_task_events.html>).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ToldTask {
    pub(crate) cluster_arn: String,
    task_arn: String,
    version: i64,
    last_status: String,
    desired_status: String,
    container_instance_arn: Option<String>,
    task_definition_arn: Option<String>,
    started_by: Option<String>,
    group: Option<String>,
    created_at: Option<String>,
    started_at: Option<String>,
    health_status: Option<String>,
    stop_code: Option<String>,
    stopped_reason: Option<String>,
    cpu: Option<String>,
    memory: Option<String>,
    containers: Option<Vec<ToldContainer>>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToldContainer {
    name: String,
    exit_code: Option<i64>,
    reason: Option<String>,
    cpu: Option<String>,
    memory: Option<String>,
    memory_reservation: Option<String>,
}

#[cfg(test)]
mod tests {
    use aws_sdk_ecs::types::{Container, Tag, TaskStopCode};

    use super::*;

    fn facts(version: i64, status: &str, desired: &str) -> Facts {
        let task = Task::builder()
            .task_arn("arn:aws:ecs:eu-west-1:1:task/demo/1")
            .version(version)
            .last_status(status)
            .desired_status(desired)
            .build();
        Facts::of_answer(&task, "demo").expect("it has a name")
    }

    #[test]
    fn a_life_is_the_same_in_whichever_order_it_is_told() {
        let told = [
            facts(1, "PROVISIONING", "RUNNING"),
            facts(2, "PENDING", "RUNNING"),
            facts(3, "RUNNING", "RUNNING"),
            facts(4, "RUNNING", "STOPPED"),
            facts(5, "STOPPED", "STOPPED"),
        ];
        let mut orders = vec![Vec::new()];
        for place in 0..told.len() {
            orders = orders
                .into_iter()
                .flat_map(|order: Vec<usize>| {
                    (0..=order.len()).map(move |at| {
                        let mut next = order.clone();
                        next.insert(at, place);
                        next
                    })
                })
                .collect();
        }
        assert_eq!(orders.len(), 120);
        for order in orders {
            let mut known = told[order[0]].clone();
            let mut phases = vec![known.phase()];
            for &place in &order[1..] {
                known.merge(&told[place]);
                assert!(!known.merge(&told[place]), "told twice is told once");
                phases.push(known.phase());
            }
            assert_eq!(known, told[4], "{order:?}");
            let last = phases.iter().position(|&phase| phase == Phase::Exited).expect("it ends");
            assert!(phases[last..].iter().all(|&phase| phase == Phase::Exited), "{order:?}: {phases:?}");
        }
    }

    #[test]
    fn health_is_that_of_the_latest_report() {
        let mut healthy = facts(5, "RUNNING", "RUNNING");
        healthy.health = Some(Health::Healthy);
        let mut unhealthy = facts(6, "RUNNING", "RUNNING");
        unhealthy.health = Some(Health::Unhealthy);
        let mut known = unhealthy.clone();
        assert!(!known.merge(&healthy));
        assert_eq!(known.health, Some(Health::Unhealthy));
        assert!(healthy.merge(&unhealthy));
        assert_eq!(healthy.health, Some(Health::Unhealthy));
    }

    #[test]
    fn statuses_are_phases() {
        for (status, desired, phase) in [
            ("PROVISIONING", "RUNNING", Phase::Starting),
            ("PENDING", "RUNNING", Phase::Starting),
            ("ACTIVATING", "RUNNING", Phase::Starting),
            ("PENDING", "STOPPED", Phase::Stopping),
            ("RUNNING", "RUNNING", Phase::Running),
            ("RUNNING", "STOPPED", Phase::Stopping),
            ("DEACTIVATING", "STOPPED", Phase::Stopping),
            ("STOPPING", "STOPPED", Phase::Stopping),
            ("DEPROVISIONING", "STOPPED", Phase::Stopping),
            ("STOPPED", "STOPPED", Phase::Exited),
            ("DELETED", "STOPPED", Phase::Exited),
            ("ELSEWHERE", "RUNNING", Phase::Stopping),
        ] {
            assert_eq!(facts(1, status, desired).phase(), phase, "{status}, to be {desired}");
        }
    }

    #[test]
    fn how_it_ended_is_told_with_codes_and_reasons() {
        let container = |name: &str, code: Option<i32>, reason: Option<&str>| {
            Container::builder().name(name).set_exit_code(code).set_reason(reason.map(str::to_owned)).build()
        };
        let task = Task::builder()
            .task_arn("t")
            .last_status("STOPPED")
            .desired_status("STOPPED")
            .stop_code(TaskStopCode::EssentialContainerExited)
            .stopped_reason("Essential container in task exited")
            .containers(container("side", Some(0), None))
            .containers(container(
                "web",
                Some(137),
                Some("OutOfMemoryError: Container killed due to memory usage"),
            ))
            .build();
        let facts = Facts::of_answer(&task, "demo").expect("it has a name");
        let exit = facts.exit().expect("it has ended");
        assert_eq!((exit.code, exit.out_of_memory), (137, true));
        assert_eq!(
            exit.message.as_deref(),
            Some(
                "EssentialContainerExited: Essential container in task exited; web: OutOfMemoryError: Container killed \
                 due to memory usage"
            )
        );
        assert!(facts.ran());
        let never = Task::builder()
            .task_arn("t")
            .last_status("STOPPED")
            .stop_code(TaskStopCode::TaskFailedToStart)
            .containers(container("web", None, Some("CannotPullContainerError: not found")))
            .build();
        let facts = Facts::of_answer(&never, "demo").expect("it has a name");
        assert!(!facts.ran());
        assert_eq!(facts.exit().expect("it has ended").code, NO_EXIT_CODE);
    }

    #[test]
    fn a_stopping_task_is_known_by_its_group() {
        let identity = Identity {
            service: "web".to_owned(),
            generation: driver::Generation::from_label("0123456789abcdef"),
        };
        let task = || Task::builder().task_arn("t").group(identity.group());
        let without = Facts::of_answer(&task().build(), "demo").expect("it has a name");
        assert_eq!(without.identity, Some(identity.clone()));
        let tagged =
            identity.tags("demo").into_iter().fold(Task::builder().task_arn("t"), |task, (key, value)| {
                task.tags(Tag::builder().key(key).value(value).build())
            });
        let tagged = Facts::of_answer(&tagged.build(), "demo").expect("it has a name");
        assert_eq!(tagged.identity, Some(identity));
    }

    #[test]
    fn what_is_set_aside_is_the_tasks_or_the_sum_of_its_containers() {
        let container = |cpu: &str, memory: Option<&str>, soft: Option<&str>| {
            Container::builder()
                .cpu(cpu)
                .set_memory(memory.map(str::to_owned))
                .set_memory_reservation(soft.map(str::to_owned))
                .build()
        };
        let task = || {
            Task::builder()
                .task_arn("t")
                .containers(container("128", Some("256"), None))
                .containers(container("64", Some("512"), Some("100")))
        };
        let of = |task: Task| Facts::of_answer(&task, "demo").expect("it has a name").reserved;
        assert_eq!(of(task().build()), Reserved { cpu_units: 192, memory_mib: 356 });
        assert_eq!(
            of(task().cpu("512").memory("1024").build()),
            Reserved { cpu_units: 512, memory_mib: 1_024 }
        );
        assert_eq!(Reserved { cpu_units: 512, memory_mib: 0 }.cpu_millis(), 500);
    }
}
