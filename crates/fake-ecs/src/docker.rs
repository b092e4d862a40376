//! Containers of the local Docker engine: what an agent would have run on the instance, all instances on one engine.
//!
//! A container is made from its definition as the agent makes it
//! (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ContainerDefinition.html> says for each parameter what
//! it is for Docker), and removed when its task has stopped; all that is left is removed at the end. Images have to be
//! on the engine, as with `ECS_IMAGE_PULL_BEHAVIOR=prefer-cached` and warm hosts. Logs stay with the engine's own driver
//! where the definition names one of AWS. Not here: `awsvpc`, sidecars' `dependsOn`.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bollard::Docker;
use bollard::errors::Error as EngineError;
use bollard::models::{
    ContainerCreateBody, HealthConfig, HealthStatusEnum, HostConfig, HostConfigLogConfig, PortBinding,
    RestartPolicy, RestartPolicyNameEnum,
};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    StopContainerOptionsBuilder, WaitContainerOptions,
};
use futures_util::future::{join_all, select_all};
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::backend::{ContainerPlan, Ended, Plan, StartFailure, Up};
use crate::tasks::Health;

/// By which containers are found again: its value is the cluster.
const LABEL: &str = "fake-ecs.cluster";
/// Seconds that a call of the engine may take; a stop may take its grace on top of what this is meant for.
const CALL_S: u64 = 120;
/// Until a container is waited for again after the engine has failed to answer.
const AGAIN: Duration = Duration::from_millis(500);
/// How often all containers are removed at the end, until there are none.
const SWEEPS: usize = 5;
const NANOS_PER_SECOND: i64 = 1_000_000_000;
const BYTES_PER_MIB: i64 = 1 << 20;

/// What tasks need of the world around them.
#[derive(Clone, Debug, Default)]
pub struct DockerOptions {
    /// The values of secrets, by what a definition names in `valueFrom`.
    pub secrets: BTreeMap<String, String>,
    /// Environment variables of every container whose task has a role: in place of the credentials that an agent
    /// gives them.
    pub role_environment: BTreeMap<String, String>,
}

/// The engine.
#[derive(Debug)]
pub(crate) struct Engine {
    docker: Docker,
    options: DockerOptions,
}

/// A task's containers.
#[derive(Debug)]
pub(crate) struct RunningTask {
    docker: Docker,
    /// In the order of the plan.
    ids: Vec<String>,
    essential: Vec<usize>,
}

impl Engine {
    /// The engine that `DOCKER_HOST` names, or the local one. Connects to nothing yet.
    pub(crate) fn new(options: DockerOptions) -> Result<Self, EngineError> {
        let docker = Docker::connect_with_defaults()?.with_timeout(Duration::from_secs(CALL_S));
        Ok(Self { docker, options })
    }

    pub(crate) async fn start(&self, plan: &Plan) -> Result<(RunningTask, Vec<Up>), StartFailure> {
        let mut ids = Vec::new();
        for (position, container) in plan.containers.iter().enumerate() {
            match self.run(plan, container).await {
                Ok(id) => ids.push(id),
                Err(reason) => {
                    for container in &plan.containers {
                        remove(&self.docker, &name(plan, container)).await;
                    }
                    return Err(StartFailure { container: position, reason });
                }
            }
        }
        let mut up = Vec::new();
        for id in &ids {
            up.push(Up { runtime_id: Some(id.clone()), network_bindings: self.bindings(id).await });
        }
        let essential = plan.containers.iter().enumerate().filter(|(_, container)| container.essential);
        let essential = essential.map(|(position, _)| position).collect();
        Ok((RunningTask { docker: self.docker.clone(), ids, essential }, up))
    }

    /// Creates and starts one container; its id, or why not.
    async fn run(&self, plan: &Plan, container: &ContainerPlan) -> Result<String, String> {
        let body = self.body(plan, container)?;
        let options = CreateContainerOptionsBuilder::new().name(&name(plan, container)).build();
        let created = self.docker.create_container(Some(options), body).await.map_err(|error| {
            let is_missing =
                matches!(&error, EngineError::DockerResponseServerError { status_code: 404, .. });
            let what = if is_missing { "CannotPullContainerError" } else { "CannotCreateContainerError" };
            format!("{what}: Error response from daemon: {error}")
        })?;
        let started = self.docker.start_container(&created.id, None::<StartContainerOptions>).await;
        let failed = |error| format!("CannotStartContainerError: Error response from daemon: {error}");
        started.map(|()| created.id).map_err(failed)
    }

    fn body(&self, plan: &Plan, container: &ContainerPlan) -> Result<ContainerCreateBody, String> {
        let definition = &container.definition;
        let text = |key: &str| definition[key].as_str().map(str::to_owned);
        let words = |value: &Value| {
            value.as_array().map(|all| all.iter().filter_map(Value::as_str).map(str::to_owned).collect())
        };
        let mib = |key: &str| definition[key].as_i64().map(|mib| mib.saturating_mul(BYTES_PER_MIB));
        let memory = mib("memory");
        let capabilities = &definition["linuxParameters"]["capabilities"];
        let (exposed, bindings) = ports(plan, container);
        let mut labels: HashMap<String, String> =
            serde_json::from_value(definition["dockerLabels"].clone()).unwrap_or_default();
        labels.extend([
            (LABEL.to_owned(), plan.cluster.clone()),
            ("fake-ecs.instance".to_owned(), plan.instance.clone()),
            ("com.amazonaws.ecs.cluster".to_owned(), plan.cluster.clone()),
            ("com.amazonaws.ecs.container-name".to_owned(), container.name.clone()),
            ("com.amazonaws.ecs.task-definition-family".to_owned(), plan.family.clone()),
            ("fake-ecs.task".to_owned(), plan.task.clone()),
        ]);
        Ok(ContainerCreateBody {
            image: Some(container.image.clone()),
            cmd: words(&definition["command"]),
            entrypoint: words(&definition["entryPoint"]),
            env: Some(self.environment(plan, container)?),
            user: text("user"),
            working_dir: text("workingDirectory"),
            hostname: text("hostname"),
            labels: Some(labels),
            exposed_ports: Some(exposed),
            healthcheck: healthcheck(&definition["healthCheck"]),
            host_config: Some(HostConfig {
                network_mode: Some(plan.network_mode.clone()),
                port_bindings: Some(bindings),
                binds: Some(binds(plan, container)),
                cpu_shares: definition["cpu"].as_i64().filter(|shares| *shares > 0),
                memory,
                // "The total memory limit": without swap parameters a container has none beside it.
                memory_swap: memory,
                memory_reservation: mib("memoryReservation"),
                readonly_rootfs: definition["readonlyRootFilesystem"].as_bool(),
                privileged: definition["privileged"].as_bool(),
                security_opt: words(&definition["dockerSecurityOptions"]),
                cap_add: words(&capabilities["add"]),
                cap_drop: words(&capabilities["drop"]),
                init: definition["linuxParameters"]["initProcessEnabled"].as_bool(),
                log_config: log_config(&definition["logConfiguration"]),
                restart_policy: Some(RestartPolicy {
                    name: Some(RestartPolicyNameEnum::NO),
                    maximum_retry_count: None,
                }),
                ..HostConfig::default()
            }),
            ..ContainerCreateBody::default()
        })
    }

    fn environment(&self, plan: &Plan, container: &ContainerPlan) -> Result<Vec<String>, String> {
        let given = |key: &str| container.definition[key].as_array().cloned().unwrap_or_default();
        let name = |variable: &Value| variable["name"].as_str().unwrap_or_default().to_owned();
        let mut all = vec!["AWS_EXECUTION_ENV=AWS_ECS_EC2".to_owned()];
        let of_role = self.options.role_environment.iter().filter(|_| plan.has_role);
        all.extend(of_role.map(|(name, value)| format!("{name}={value}")));
        for variable in given("environment") {
            all.push(format!("{}={}", name(&variable), variable["value"].as_str().unwrap_or_default()));
        }
        for secret in given("secrets") {
            let from = secret["valueFrom"].as_str().unwrap_or_default();
            let value = self.options.secrets.get(from).ok_or_else(|| {
                format!(
                    "ResourceInitializationError: unable to pull secrets or registry auth: ResourceNotFoundException: \
                     Secrets Manager can't find the specified secret {from}"
                )
            })?;
            all.push(format!("{}={value}", name(&secret)));
        }
        Ok(all)
    }

    /// "After a task reaches the `RUNNING` status, manual and automatic host and container port assignments are
    /// visible" (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_NetworkBinding.html>).
    async fn bindings(&self, id: &str) -> Vec<Value> {
        let inspected = self.docker.inspect_container(id, None::<InspectContainerOptions>).await;
        let ports = inspected.ok().and_then(|found| found.network_settings?.ports).unwrap_or_default();
        let mut all = Vec::new();
        for (port, bindings) in ports {
            let (port, protocol) = port.split_once('/').unwrap_or((&port, "tcp"));
            for binding in bindings.unwrap_or_default() {
                let number = |text: &str| text.parse::<u16>().unwrap_or_default();
                all.push(json!({
                    "bindIP": binding.host_ip.unwrap_or_default(),
                    "containerPort": number(port),
                    "hostPort": number(&binding.host_port.unwrap_or_default()),
                    "protocol": protocol,
                }));
            }
        }
        all
    }

    /// Removes what runs of a task whose instance is gone.
    pub(crate) async fn vanish(&self, plan: &Plan) {
        for container in &plan.containers {
            remove(&self.docker, &name(plan, container)).await;
        }
    }

    /// Removes every container of these clusters, running or not.
    pub(crate) async fn sweep(&self, clusters: &[String]) {
        for _ in 0..SWEEPS {
            let mut found = Vec::new();
            for cluster in clusters {
                let filters = HashMap::from([("label".to_owned(), vec![format!("{LABEL}={cluster}")])]);
                let options = ListContainersOptionsBuilder::new().all(true).filters(&filters).build();
                match self.docker.list_containers(Some(options)).await {
                    Ok(some) => found.extend(some.into_iter().filter_map(|one| one.id)),
                    Err(error) => tracing::warn!(cluster, %error, "cannot list the containers that are left"),
                }
            }
            if found.is_empty() {
                return;
            }
            join_all(found.iter().map(|id| remove(&self.docker, id))).await;
        }
    }
}

/// Asks for the health of a task's containers.
#[derive(Debug)]
pub(crate) struct Probe {
    docker: Docker,
    ids: Vec<String>,
}

impl Probe {
    pub(crate) async fn ask(&self) -> Vec<Health> {
        let mut all = Vec::new();
        for id in &self.ids {
            let inspected = self.docker.inspect_container(id, None::<InspectContainerOptions>).await;
            let health = inspected.ok().and_then(|found| found.state?.health?.status);
            all.push(match health {
                Some(HealthStatusEnum::HEALTHY) => Health::Healthy,
                Some(HealthStatusEnum::UNHEALTHY) => Health::Unhealthy,
                _ => Health::Unknown,
            });
        }
        all
    }
}

impl RunningTask {
    pub(crate) fn probe(&self) -> Probe {
        Probe { docker: self.docker.clone(), ids: self.ids.clone() }
    }

    /// Ends with the first of the essential containers.
    pub(crate) async fn essential_exit(&self) {
        let waits = self.essential.iter().map(|&position| self.ended(&self.ids[position]).boxed());
        select_all(waits).await;
    }

    /// Waits until a container does not run any more.
    async fn ended(&self, id: &str) {
        loop {
            let options = WaitContainerOptions { condition: "not-running".to_owned() };
            let told = self.docker.wait_container(id, Some(options)).next().await;
            match told {
                // It has ended, with 0 or with another code, or is gone.
                Some(
                    Ok(_)
                    | Err(
                        EngineError::DockerContainerWaitError { .. }
                        | EngineError::DockerResponseServerError { status_code: 404, .. },
                    ),
                ) => return,
                Some(Err(_)) | None => sleep(AGAIN).await,
            }
        }
    }

    pub(crate) async fn stop(self, plan: &Plan, kill: bool) -> Vec<Ended> {
        let stops =
            plan.containers.iter().zip(&self.ids).map(|(container, id)| self.stop_one(container, id, kill));
        join_all(stops).await
    }

    async fn stop_one(&self, container: &ContainerPlan, id: &str, kill: bool) -> Ended {
        let told = if kill {
            let options = KillContainerOptionsBuilder::new().signal("SIGKILL").build();
            self.docker.kill_container(id, Some(options)).await
        } else {
            let grace = i32::try_from(container.stop_timeout.as_secs()).unwrap_or(i32::MAX);
            let options = StopContainerOptionsBuilder::new().t(grace).build();
            self.docker.stop_container(id, Some(options)).await
        };
        if let Err(error) = told {
            // One that has ended is refused; whatever else it is, its end is waited for.
            tracing::debug!(id, %error, "stop");
        }
        self.ended(id).await;
        let inspected = self.docker.inspect_container(id, None::<InspectContainerOptions>).await;
        let state = inspected.ok().and_then(|found| found.state).unwrap_or_default();
        remove(&self.docker, id).await;
        let oom = state.oom_killed == Some(true);
        Ended {
            exit_code: state.exit_code,
            reason: oom.then(|| "OutOfMemoryError: Container killed due to memory usage".to_owned()),
        }
    }
}

async fn remove(docker: &Docker, id: &str) {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    if let Err(error) = docker.remove_container(id, Some(options)).await
        && !matches!(error, EngineError::DockerResponseServerError { status_code: 404 | 409, .. })
    {
        tracing::warn!(id, %error, "cannot remove a container");
    }
}

fn name(plan: &Plan, container: &ContainerPlan) -> String {
    let task = format!("ecs-{}-{}", plan.cluster, plan.task);
    if plan.containers.len() == 1 { task } else { format!("{task}-{}", container.name) }
}

/// Ports that are exposed, and where they are bound on the host: nowhere in `host` mode, where they are the same.
fn ports(plan: &Plan, container: &ContainerPlan) -> (Vec<String>, HashMap<String, Option<Vec<PortBinding>>>) {
    let mut bindings = HashMap::new();
    if plan.network_mode == "bridge" {
        for mapping in container.definition["portMappings"].as_array().into_iter().flatten() {
            let protocol = mapping["protocol"].as_str().unwrap_or("tcp");
            let port = format!("{}/{protocol}", mapping["containerPort"]);
            // Zero is for the engine to choose.
            let host_port = mapping["hostPort"].as_u64().unwrap_or_default().to_string();
            let binding = PortBinding { host_ip: None, host_port: Some(host_port) };
            bindings.insert(port, Some(vec![binding]));
        }
    }
    (bindings.keys().cloned().collect(), bindings)
}

/// Host directories, or volumes of the engine: shared ones by their name, others by their task's.
fn binds(plan: &Plan, container: &ContainerPlan) -> Vec<String> {
    let mounts = container.definition["mountPoints"].as_array().into_iter().flatten();
    let bind = |mount: &Value| {
        let wanted = &mount["sourceVolume"];
        let volume = plan.volumes.as_array()?.iter().find(|volume| volume["name"] == *wanted)?;
        let name = volume["name"].as_str()?;
        let is_shared = volume["dockerVolumeConfiguration"]["scope"] == "shared";
        let source = match volume["host"]["sourcePath"].as_str() {
            Some(path) => path.to_owned(),
            None if is_shared => name.to_owned(),
            None => format!("ecs-{}-{name}", plan.task),
        };
        let mode = if mount["readOnly"] == true { ":ro" } else { "" };
        Some(format!("{source}:{}{mode}", mount["containerPath"].as_str()?))
    };
    mounts.filter_map(bind).collect()
}

/// Its times are seconds
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_HealthCheck.html>).
fn healthcheck(check: &Value) -> Option<HealthConfig> {
    let test = check["command"].as_array()?;
    let nanos = |key: &str| check[key].as_i64().map(|seconds| seconds.saturating_mul(NANOS_PER_SECOND));
    Some(HealthConfig {
        test: Some(test.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        interval: nanos("interval"),
        timeout: nanos("timeout"),
        retries: check["retries"].as_i64(),
        start_period: nanos("startPeriod"),
        ..HealthConfig::default()
    })
}

/// `None`, the engine's own, where the driver is one that needs AWS.
fn log_config(log: &Value) -> Option<HostConfigLogConfig> {
    let driver = log["logDriver"].as_str().filter(|driver| !driver.starts_with("aws"))?;
    Some(HostConfigLogConfig {
        typ: Some(driver.to_owned()),
        config: serde_json::from_value(log["options"].clone()).ok(),
    })
}
