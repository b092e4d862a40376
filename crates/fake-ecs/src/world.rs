//! What the fake knows, and the names of things. Changed only under its lock, and never across an await.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use serde::{Serialize, Serializer};
use serde_json::Value;
use tokio::time::Instant;

use crate::backend::Plan;
use crate::clusters::Cluster;
use crate::config::Config;
use crate::definitions::Definitions;
use crate::dice;
use crate::faults::Faults;
use crate::instances::Instance;
use crate::queue::Queue;
use crate::services::Service;
use crate::simulated::Behaviour;
use crate::tasks::Task;
use crate::throttle::Buckets;
use crate::wire::ApiError;

/// Everything that there is in one account and region.
pub(crate) struct World {
    pub(crate) config: Config,
    origin: Instant,
    /// By name.
    pub(crate) clusters: BTreeMap<String, Cluster>,
    /// By id, of all clusters.
    pub(crate) instances: BTreeMap<String, Instance>,
    /// By id, of all clusters.
    pub(crate) tasks: BTreeMap<String, Task>,
    /// By id: what the agents are told of tasks that have no life yet.
    pub(crate) plans: BTreeMap<String, Arc<Plan>>,
    pub(crate) definitions: Definitions,
    /// By cluster and name.
    pub(crate) services: BTreeMap<(String, String), Service>,
    /// Whether somebody looks after them.
    pub(crate) services_are_kept: bool,
    /// What was answered to client tokens of `RunTask`.
    pub(crate) tokens: BTreeMap<String, Value>,
    /// It comes to its end: nothing is started any more.
    pub(crate) closed: bool,
    /// How simulated containers of an image behave, where it is not the default.
    pub(crate) images: BTreeMap<String, Behaviour>,
    pub(crate) buckets: Buckets,
    pub(crate) faults: Faults,
    pub(crate) queue: Queue,
    /// How often each operation has been called.
    pub(crate) calls: BTreeMap<String, u64>,
    /// How many of them were beyond a quota.
    pub(crate) throttled: u64,
    /// Counts placements and stops, as ECS numbers what it sends to agents.
    sequence: u64,
    /// How many ids were drawn.
    ids: u64,
    /// Tasks that have stopped, and when: the oldest first.
    stopped: VecDeque<(Instant, String)>,
}

impl World {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            origin: Instant::now(),
            clusters: BTreeMap::new(),
            instances: BTreeMap::new(),
            tasks: BTreeMap::new(),
            plans: BTreeMap::new(),
            definitions: Definitions::default(),
            services: BTreeMap::new(),
            services_are_kept: false,
            tokens: BTreeMap::new(),
            closed: false,
            images: BTreeMap::new(),
            buckets: Buckets::default(),
            faults: Faults::default(),
            queue: Queue::default(),
            calls: BTreeMap::new(),
            throttled: 0,
            sequence: 0,
            ids: 0,
            stopped: VecDeque::new(),
            config,
        }
    }

    /// What the clock says.
    pub(crate) fn stamp(&self) -> Stamp {
        let since = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        Stamp(self.config.epoch_ms.saturating_add(since))
    }

    /// A generator for the `nth` time that `what` is asked of `subject`.
    pub(crate) fn dice(&self, what: &str, subject: &str, nth: u64) -> ChaCha8Rng {
        dice::dice(self.config.seed, what, subject, nth)
    }

    /// A generator for one more id.
    pub(crate) fn id_dice(&mut self) -> ChaCha8Rng {
        self.ids += 1;
        self.dice("id", "", self.ids)
    }

    /// The next number of what is sent to agents.
    pub(crate) fn next_sequence(&mut self) -> u64 {
        self.sequence += 1;
        self.sequence
    }

    /// As of when a request is answered that is `range` milliseconds behind.
    pub(crate) fn answered_as_of(&self, operation: &str, range: &std::ops::RangeInclusive<u64>) -> Instant {
        let nth = self.calls.get(operation).copied().unwrap_or_default();
        let lag = dice::millis(&mut self.dice("lag", operation, nth), range);
        let now = Instant::now();
        now.checked_sub(lag).unwrap_or(now)
    }

    /// An ARN (<https://docs.aws.amazon.com/AmazonECS/latest/developerguide/ecs-account-settings.html>, the long
    /// format). `resource` is what comes after the account.
    pub(crate) fn arn(&self, resource: &str) -> String {
        format!("arn:aws:ecs:{}:{}:{resource}", self.config.region, self.config.account)
    }

    /// The name of the cluster that a request names, by name or ARN; without one it is `default`.
    pub(crate) fn cluster(&self, given: Option<&str>) -> Result<String, ApiError> {
        let name = short(given.unwrap_or("default"), "cluster");
        self.clusters
            .get(name)
            .filter(|cluster| cluster.active)
            .map(|_| name.to_owned())
            .ok_or_else(ApiError::cluster_not_found)
    }

    /// The container instance that a request names, by id or ARN.
    pub(crate) fn instance_id(&self, cluster: &str, given: &str) -> Option<String> {
        let id = short_in(given, "container-instance", cluster)?;
        self.instances.get(id).filter(|instance| instance.cluster == cluster).map(|_| id.to_owned())
    }

    /// The task that a request names, by id or ARN.
    pub(crate) fn task_id(&self, cluster: &str, given: &str) -> Option<String> {
        let id = short_in(given, "task", cluster)?;
        self.tasks.get(id).filter(|task| task.cluster == cluster).map(|_| id.to_owned())
    }

    /// A task has stopped now, and is forgotten in its time.
    pub(crate) fn note_stopped(&mut self, id: String) {
        self.stopped.push_back((Instant::now(), id));
    }

    /// Forgets the tasks that have been stopped for as long as they are described.
    pub(crate) fn forget_stopped(&mut self) {
        let visible = Duration::from_millis(self.config.stopped_visible_ms);
        let now = Instant::now();
        while let Some((_, id)) = self.stopped.pop_front_if(|(since, _)| *since + visible <= now) {
            self.tasks.remove(&id);
        }
    }
}

/// The id or name out of an ARN of this kind; what is not an ARN is taken as it is.
pub(crate) fn short<'a>(given: &'a str, kind: &str) -> &'a str {
    let resource = given.splitn(6, ':').nth(5).filter(|_| given.starts_with("arn:"));
    resource.and_then(|resource| resource.strip_prefix(kind)?.strip_prefix('/')).unwrap_or(given)
}

/// The id or name that an ARN of whatever belongs to a cluster ends with.
pub(crate) fn last_part(given: &str) -> &str {
    given.rsplit('/').next().unwrap_or(given)
}

/// As [`short`], of a resource that belongs to a cluster; `None` if the ARN is one of another cluster.
fn short_in<'a>(given: &'a str, kind: &str, cluster: &str) -> Option<&'a str> {
    let short = short(given, kind);
    match short.split_once('/') {
        None => Some(short),
        Some((its_cluster, id)) => (its_cluster == cluster).then_some(id),
    }
}

/// A moment, in milliseconds since the Unix epoch. On the wire: seconds with a fraction, as AWS JSON has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Stamp(pub(crate) u64);

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[expect(clippy::cast_precision_loss, reason = "exact until the year 285,000")]
        serializer.serialize_f64(self.0 as f64 / 1_000.0)
    }
}
