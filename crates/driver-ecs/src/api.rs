//! The calls to ECS: each takes a token of its quota, is bounded in time, counted, and tried again where that is safe.

use std::sync::Mutex;
use std::time::Duration;

use aws_sdk_ecs::types::{ContainerInstance, DesiredStatus, Failure, Tag, Task, TaskDefinition, TaskField};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use tokio::time::{Instant, sleep};

use crate::config::EcsConfig;
use crate::connection::{Clients, Connection};
use crate::error::CallError;
use crate::names::{self, Identity};
use crate::quota::{Family, Quotas, Turn};
use crate::task::Arn;

/// The most that DescribeTasks and DescribeContainerInstances take, and the two lists give, at once
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html>).
pub(crate) const PAGE: usize = 100;
/// The most instances on which one StartTask starts a task
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StartTask.html>).
pub(crate) const STARTS: usize = 10;
/// The most characters of a StopTask's reason that every version of ECS's documentation allows
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_StopTask.html>); today it is 1,024.
const REASON_MAX: usize = 255;
/// The wait before a call is tried again; doubles each time.
const AGAIN_MIN: Duration = Duration::from_millis(200);
/// At most.
const AGAIN_MAX: Duration = Duration::from_secs(5);
/// So often a question is tried in all. It will be asked again soon, by whoever asks.
const QUESTION_ATTEMPTS: u32 = 3;
/// So often a stop is tried in all: for some five seconds, if it is answered at once.
const STOP_ATTEMPTS: u32 = 6;
/// So often a start is tried in all that ECS is known not to have taken: for some two seconds. What is to go elsewhere
/// is the planner's to say, soon.
const START_ATTEMPTS: u32 = 4;

/// Which tasks to list. ECS takes one of these filters at a time: with `startedBy` no other
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTasks.html>).
#[derive(Clone, Debug)]
pub(crate) enum Which {
    /// Ours that are to run.
    StartedBy(String),
    /// All on one instance that are to run.
    On(Arn),
    /// All of one family that are to stop, or have stopped within the last hour or so.
    Stopped(String),
}

/// All that tasks which are started with one call have in common.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Kind {
    pub(crate) revision: Arn,
    pub(crate) identity: Identity,
}

/// The calls.
pub(crate) struct Api {
    ecs_cluster: String,
    cluster: String,
    filter: Option<String>,
    pub(crate) started_by: String,
    connection: Connection,
    pub(crate) quotas: Quotas,
    dice: Mutex<ChaCha8Rng>,
}

/// What a call does, and so whether it may be made again when it is not known whether it was done.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Does {
    Ask,
    Stop,
    Start,
}

impl Api {
    pub(crate) fn new(config: &EcsConfig, connection: Connection, seed: u64) -> Self {
        Self {
            ecs_cluster: config.ecs_cluster.clone(),
            cluster: config.cluster.clone(),
            filter: config.instance_filter.clone(),
            started_by: names::started_by(&config.cluster),
            connection,
            quotas: Quotas::new(),
            dice: Mutex::new(ChaCha8Rng::seed_from_u64(seed)),
        }
    }

    pub(crate) async fn clients(&self) -> Result<&Clients, CallError> {
        self.connection.clients().await.map_err(CallError::NotSent)
    }

    /// The `startedBy`, group and tags of our cluster go with it. The token has been taken.
    pub(crate) async fn start_task(
        &self,
        kind: &Kind,
        instances: &[Arn],
    ) -> Result<(Vec<Task>, Vec<Failure>), CallError> {
        let tags = kind.identity.tags(&self.cluster);
        let tags: Vec<Tag> =
            tags.into_iter().map(|(key, value)| Tag::builder().key(key).value(value).build()).collect();
        let mut first = true;
        let answer = self
            .repeat(Does::Start, || {
                let has_token = std::mem::take(&mut first);
                let (tags, instances) = (tags.clone(), instances.iter().map(ToString::to_string).collect());
                async move {
                    if !has_token {
                        self.quotas.of(Family::Modify).take(Turn::First).await;
                    }
                    let clients = self.clients().await?;
                    let call = clients
                        .ecs
                        .start_task()
                        .cluster(&self.ecs_cluster)
                        .task_definition(kind.revision.as_ref())
                        .started_by(&self.started_by)
                        .group(kind.identity.group())
                        .set_tags(Some(tags))
                        .set_container_instances(Some(instances));
                    self.counted("StartTask", Family::Modify, async {
                        Box::pin(call.send()).await.map_err(CallError::of)
                    })
                    .await
                }
            })
            .await?;
        Ok((answer.tasks.unwrap_or_default(), answer.failures.unwrap_or_default()))
    }

    pub(crate) async fn stop_task(
        &self,
        task: &str,
        reason: &str,
        turn: Turn,
    ) -> Result<Option<Task>, CallError> {
        let reason: String = reason.chars().take(REASON_MAX).collect();
        let answer = self
            .repeat(Does::Stop, || async {
                self.quotas.of(Family::Modify).take(turn).await;
                let clients = self.clients().await?;
                let call = clients.ecs.stop_task().cluster(&self.ecs_cluster).task(task).reason(&reason);
                self.counted("StopTask", Family::Modify, async {
                    Box::pin(call.send()).await.map_err(CallError::of)
                })
                .await
            })
            .await?;
        Ok(answer.task)
    }

    /// The ARNs of one page, and what to ask the next with.
    pub(crate) async fn list_tasks(
        &self,
        which: &Which,
        next: Option<String>,
        turn: Turn,
    ) -> Result<(Vec<String>, Option<String>), CallError> {
        let answer = self
            .repeat(Does::Ask, || async {
                self.quotas.of(Family::Read).take(turn).await;
                let clients = self.clients().await?;
                let call = clients.ecs.list_tasks().cluster(&self.ecs_cluster).set_next_token(next.clone());
                let call = match which {
                    Which::StartedBy(by) => call.started_by(by),
                    Which::On(instance) => call.container_instance(instance.as_ref()),
                    Which::Stopped(family) => call.family(family).desired_status(DesiredStatus::Stopped),
                };
                self.counted("ListTasks", Family::Read, async {
                    Box::pin(call.send()).await.map_err(CallError::of)
                })
                .await
            })
            .await?;
        Ok((answer.task_arns.unwrap_or_default(), answer.next_token))
    }

    /// At most a [`PAGE`]. Those that there are, and those that are missing.
    pub(crate) async fn describe_tasks(
        &self,
        tasks: &[Arn],
        turn: Turn,
    ) -> Result<(Vec<Task>, Vec<Failure>), CallError> {
        let names: Vec<String> = tasks.iter().map(ToString::to_string).collect();
        let answer = self
            .repeat(Does::Ask, || async {
                self.quotas.of(Family::Read).take(turn).await;
                let clients = self.clients().await?;
                let call = clients
                    .ecs
                    .describe_tasks()
                    .cluster(&self.ecs_cluster)
                    .set_tasks(Some(names.clone()))
                    .include(TaskField::Tags);
                self.counted("DescribeTasks", Family::Read, async {
                    Box::pin(call.send()).await.map_err(CallError::of)
                })
                .await
            })
            .await?;
        Ok((answer.tasks.unwrap_or_default(), answer.failures.unwrap_or_default()))
    }

    /// The container instances that the filter lets through, whatever their state.
    pub(crate) async fn instances(&self, turn: Turn) -> Result<Vec<ContainerInstance>, CallError> {
        let mut arns = Vec::new();
        let mut next = None;
        loop {
            let answer = self
                .repeat(Does::Ask, || async {
                    self.quotas.of(Family::Read).take(turn).await;
                    let clients = self.clients().await?;
                    let call = clients
                        .ecs
                        .list_container_instances()
                        .cluster(&self.ecs_cluster)
                        .set_filter(self.filter.clone())
                        .set_next_token(next.clone());
                    self.counted("ListContainerInstances", Family::Read, async {
                        Box::pin(call.send()).await.map_err(CallError::of)
                    })
                    .await
                })
                .await?;
            arns.extend(answer.container_instance_arns.unwrap_or_default());
            next = answer.next_token;
            if next.is_none() {
                break;
            }
        }
        let mut instances = Vec::with_capacity(arns.len());
        for page in arns.chunks(PAGE) {
            let answer = self
                .repeat(Does::Ask, || async {
                    self.quotas.of(Family::Read).take(turn).await;
                    let clients = self.clients().await?;
                    let call = clients
                        .ecs
                        .describe_container_instances()
                        .cluster(&self.ecs_cluster)
                        .set_container_instances(Some(page.to_vec()));
                    self.counted("DescribeContainerInstances", Family::Read, async {
                        Box::pin(call.send()).await.map_err(CallError::of)
                    })
                    .await
                })
                .await?;
            instances.extend(answer.container_instances.unwrap_or_default());
        }
        Ok(instances)
    }

    pub(crate) async fn task_definition(
        &self,
        name: &str,
        turn: Turn,
    ) -> Result<Option<TaskDefinition>, CallError> {
        let answer = self
            .repeat(Does::Ask, || async {
                self.quotas.of(Family::Definitions).take(turn).await;
                let clients = self.clients().await?;
                let call = clients.ecs.describe_task_definition().task_definition(name);
                self.counted("DescribeTaskDefinition", Family::Definitions, async {
                    Box::pin(call.send()).await.map_err(CallError::of)
                })
                .await
            })
            .await?;
        Ok(answer.task_definition)
    }

    /// Between half of it and all of it.
    pub(crate) fn jittered(&self, wait: Duration) -> Duration {
        let part = self.dice.lock().expect("nothing panics while holding it").random_range(0.5..=1.0);
        wait.mul_f64(part)
    }

    /// Tries a call until it has gone well, is refused, or may not be tried again. It holds up nothing but its own caller.
    async fn repeat<T, F: Future<Output = Result<T, CallError>>>(
        &self,
        does: Does,
        mut call: impl FnMut() -> F,
    ) -> Result<T, CallError> {
        let attempts = match does {
            Does::Ask => QUESTION_ATTEMPTS,
            Does::Stop => STOP_ATTEMPTS,
            Does::Start => START_ATTEMPTS,
        };
        let mut wait = AGAIN_MIN;
        let mut attempt = 1;
        loop {
            let error = match call().await {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            let may = match error {
                CallError::Throttled(_) | CallError::NotSent(_) => true,
                CallError::Unclear(_) => does != Does::Start,
                CallError::Refused { .. } => false,
            };
            if !may || attempt == attempts {
                return Err(error);
            }
            attempt += 1;
            sleep(self.jittered(wait)).await;
            wait = (wait * 2).min(AGAIN_MAX);
        }
    }

    /// Counts a call and what it takes. A throttled one empties its bucket.
    async fn counted<T>(
        &self,
        api: &'static str,
        family: Family,
        call: impl Future<Output = Result<T, CallError>>,
    ) -> Result<T, CallError> {
        let answer = measured(api, call).await;
        if matches!(answer, Err(CallError::Throttled(_))) {
            self.quotas.of(family).throttled();
        }
        answer
    }
}

/// Counts a call and what it takes.
pub(crate) async fn measured<T>(
    api: &'static str,
    call: impl Future<Output = Result<T, CallError>>,
) -> Result<T, CallError> {
    let asked_at = Instant::now();
    let answer = call.await;
    let outcome = match &answer {
        Ok(_) => "done",
        Err(error) => error.outcome(),
    };
    metrics::counter!("force12_ecs_calls_total", "api" => api, "outcome" => outcome).increment(1);
    metrics::histogram!("force12_ecs_call_seconds", "api" => api).record(asked_at.elapsed().as_secs_f64());
    if let Err(error) = &answer {
        tracing::debug!(api, ?error, "a call has not gone well");
    }
    answer
}
