//! The ECS cluster whose container instances are the pool: `[ecs]`, and what a service is there.

use std::time::Duration;

use driver::ContainerSpec;
use planner::{Instance, Resources};
use reqwest::Url;

use super::file::{ConfigFile, EcsTable, OnPreemptWord, ServiceTable};
use super::rules::range;
use super::{Place, Problems};

/// ECS's own bound on names of clusters and families.
const ECS_NAME_CHARACTERS_MAX: usize = 255;
/// From the stop signal to SIGKILL where a task definition says nothing of it: the agent's own default.
const STOP_GRACE_MS_DEFAULT: u64 = 30_000;

/// An ECS cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ecs {
    /// Its name or ARN.
    pub cluster: String,
    /// The region; `None` leaves it to the SDK.
    pub region: Option<String>,
    /// Where the API is; `None` is AWS.
    pub endpoint_url: Option<Url>,
    /// Which container instances are the pool; `None` is all.
    pub instance_filter: Option<String>,
    /// From one look at container instances and task definitions to the next.
    pub refresh: Duration,
    /// The queue of its state changes.
    pub events_queue_url: Option<Url>,
    /// Places on each instance.
    pub slots_per_instance: u64,
    /// What of each instance is not to be used; no slots.
    pub reserve: Resources,
    /// Whether a start in a swap is sent only when its victim has ended, whatever the agent would hold back by itself.
    pub stop_before_start: bool,
}

/// Whether the pool is an ECS cluster, and what is wrong with saying so.
pub(super) fn ecs(file: &ConfigFile, problems: &mut Problems<'_>) -> Option<Ecs> {
    let table = file.ecs.as_ref()?;
    let place = Place::top().key("ecs");
    if !file.instances.is_empty() {
        problems.error(
            &place,
            "there is an [[instance]] as well, and a pool is either Docker engines or an ECS cluster; remove one"
                .to_owned(),
        );
    }
    let elsewhere = "and on ECS the agent pulls: give it the logins (ECS_ENGINE_AUTH_DATA, or repositoryCredentials of the \
                     task definition), and remove them here";
    if file.docker_config_file.is_some() {
        problems
            .error(&Place::top().key("docker_config_file"), format!("is for Docker engines, {elsewhere}"));
    }
    if let Some(first) = file.registries.first() {
        problems.error(
            &Place::table("registry", 0, &first.server),
            format!("is for Docker engines, {elsewhere}"),
        );
    }
    let region = region(table, &place, problems);
    range(table.slots_per_instance, 1..=Resources::SLOTS_MAX, &place.key("slots_per_instance"), problems);
    for (key, value) in [("cpu_millis", table.reserve.cpu_millis), ("memory_mib", table.reserve.memory_mib)] {
        range(value, 0..=1_000_000_000, &place.key("reserve").key(key), problems);
    }
    range(table.refresh_ms, 5_000..=3_600_000, &place.key("refresh_ms"), problems);
    if table.instance_filter.as_ref().is_some_and(|filter| filter.trim().is_empty()) {
        problems.error(&place.key("instance_filter"), "is empty; leave it out for all instances".to_owned());
    }
    let mut address = |key, text: &Option<String>, example| {
        text.as_ref().and_then(|text| url(text, &place.key(key), example, problems))
    };
    Some(Ecs {
        cluster: table.cluster.clone(),
        region,
        endpoint_url: address("endpoint_url", &table.endpoint_url, "https://ecs.eu-west-1.amazonaws.com"),
        instance_filter: table.instance_filter.clone(),
        refresh: Duration::from_millis(table.refresh_ms),
        events_queue_url: address(
            "events_queue_url",
            &table.events_queue_url,
            "https://sqs.eu-west-1.amazonaws.com/123456789012/force12-demo",
        ),
        slots_per_instance: table.slots_per_instance,
        reserve: Resources {
            slots: 0,
            cpu_millis: table.reserve.cpu_millis,
            memory_mib: table.reserve.memory_mib,
        },
        stop_before_start: table.stop_before_start,
    })
}

impl Ecs {
    /// All but what may change while a scheduler runs.
    pub(crate) fn bound(&self) -> Self {
        Self { slots_per_instance: 0, reserve: Resources::ZERO, ..self.clone() }
    }

    /// What is known of every instance before any is: its slots.
    pub(super) fn any_instance(&self) -> Instance {
        Instance::ready("each instance", Resources::slots_only(self.slots_per_instance))
    }
}

/// Checks the cluster's name and region, and says which region that is.
fn region(table: &EcsTable, place: &Place, problems: &mut Problems<'_>) -> Option<String> {
    let arn = Arn::of(&table.cluster, "cluster/");
    let name = arn.as_ref().map_or(table.cluster.as_str(), |arn| arn.name);
    if !is_ecs_name(name) {
        problems.error(
            &place.key("cluster"),
            format!(
                "`{}` is neither the name of an ECS cluster nor its ARN; write as ECS has it, for example force12-demo or \
                 arn:aws:ecs:eu-west-1:123456789012:cluster/force12-demo",
                table.cluster
            ),
        );
    }
    let region_place = place.key("region");
    if let Some(region) = &table.region {
        let fits = region.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !fits || region.is_empty() {
            problems.error(&region_place, format!("`{region}` is not a region; for example eu-west-1"));
        } else if let Some(arn) = arn.as_ref().filter(|arn| arn.region != region) {
            problems.error(
                &region_place,
                format!("the cluster's ARN is of region {}, not of {region}; remove this key", arn.region),
            );
        }
    }
    table.region.clone().or(arn.map(|arn| arn.region.to_owned()))
}

/// An ARN of ECS: `arn:aws:ecs:REGION:ACCOUNT:KIND/NAME`.
struct Arn<'a> {
    region: &'a str,
    name: &'a str,
}

impl<'a> Arn<'a> {
    /// `kind` ends in `/`.
    fn of(text: &'a str, kind: &str) -> Option<Self> {
        let parts: Vec<&str> = text.splitn(6, ':').collect();
        let ["arn", partition, "ecs", region, account, resource] = parts[..] else { return None };
        let name = resource.strip_prefix(kind)?;
        let is_whole = !partition.is_empty() && !region.is_empty() && !account.is_empty();
        is_whole.then_some(Self { region, name })
    }
}

fn is_ecs_name(name: &str) -> bool {
    (1..=ECS_NAME_CHARACTERS_MAX).contains(&name.len())
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

fn url(text: &str, place: &Place, example: &str, problems: &mut Problems<'_>) -> Option<Url> {
    // The text itself is left out of what is said of it: it may hold a password.
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => {
            problems.error(place, format!("is not a URL ({error}); for example {example}"));
            return None;
        }
    };
    if !matches!(url.scheme(), "http" | "https") {
        problems.error(
            place,
            format!("the scheme is http or https, not `{}`; for example {example}", url.scheme()),
        );
        return None;
    }
    if !url.username().is_empty() || url.password().is_some() {
        problems.error(
            place,
            "holds a user or a password, which would show in logs; AWS credentials come by the SDK's usual chain"
                .to_owned(),
        );
        return None;
    }
    Some(url)
}

/// What containers of a service on ECS are made of: a task definition as it is written, which revision is looked up.
pub(super) fn spec(table: &ServiceTable, place: &Place, problems: &mut Problems<'_>) -> ContainerSpec {
    let of_the_definition = [
        ("image", table.image.is_some()),
        ("pull", table.pull.is_some()),
        ("command", table.command.is_some()),
        ("env", !table.env.is_empty()),
        ("env_from", !table.env_from.is_empty()),
        ("stop_grace_ms", table.stop_grace_ms.is_some()),
        ("stop_signal", table.stop_signal.is_some()),
        ("network", table.network.is_some()),
        ("user", table.user.is_some()),
        ("read_only_root", table.read_only_root.is_some()),
        ("log", table.log.is_some()),
        ("healthcheck", table.healthcheck.is_some()),
    ];
    for (key, written) in of_the_definition {
        if written {
            problems.error(
                &place.key(key),
                "is the task definition's to say on ECS; set it there, and remove it here".to_owned(),
            );
        }
    }
    match &table.task_definition {
        None => problems.error(
            place,
            "names no task definition; write task_definition = \"FAMILY\", \"FAMILY:REVISION\" or an ARN"
                .to_owned(),
        ),
        Some(written) if !is_task_definition(written) => problems.error(
            &place.key("task_definition"),
            format!(
                "`{written}` is not a task definition; write its family, family:revision, or \
                 arn:aws:ecs:REGION:ACCOUNT:task-definition/FAMILY:REVISION"
            ),
        ),
        Some(_) => {}
    }
    ContainerSpec {
        // For people, until it is known which revision it is.
        image: table.task_definition.clone().unwrap_or_default(),
        task_definition: table.task_definition.clone(),
        stop_grace_ms: STOP_GRACE_MS_DEFAULT,
        ..ContainerSpec::default()
    }
}

fn is_task_definition(written: &str) -> bool {
    let is_arn = written.starts_with("arn:");
    let name = match Arn::of(written, "task-definition/") {
        Some(arn) => arn.name,
        None if is_arn => return false,
        None => written,
    };
    match name.split_once(':') {
        Some((family, revision)) => {
            is_ecs_name(family) && revision.parse::<u32>().is_ok_and(|revision| revision > 0)
        }
        None => is_ecs_name(name) && !is_arn,
    }
}

/// Nothing can be suspended on ECS.
pub(super) fn no_freezing(table: &ServiceTable, place: &Place, problems: &mut Problems<'_>) {
    if table.on_preempt == OnPreemptWord::Freeze {
        problems.error(
            &place.key("on_preempt"),
            "ECS cannot suspend a container; write \"stop\" or, to stop there what is frozen elsewhere, \"freeze-or-stop\""
                .to_owned(),
        );
    }
    if table.standby > 0 && table.on_preempt != OnPreemptWord::FreezeOrStop {
        problems.error(
            &place.key("standby"),
            "ECS cannot suspend a container, so none can be kept frozen and ready; remove it".to_owned(),
        );
    }
}
