//! How the fake behaves: seed, delays, lag, quotas.

use std::ops::RangeInclusive;

/// How a [`FakeEcs`](crate::FakeEcs) behaves. The default is a quiet day of ECS on EC2, with seed 0.
#[derive(Clone, Debug)]
pub struct Config {
    /// Every delay, every lag and every seeded fault follows from this. Print it where a test draws it.
    pub seed: u64,
    /// The AWS account: twelve digits.
    pub account: String,
    /// The AWS region.
    pub region: String,
    /// What the clock says when the fake is made: milliseconds since the Unix epoch.
    pub epoch_ms: u64,
    /// Milliseconds from a request to its answer. Half of it has passed when the request takes effect.
    pub latency_ms: RangeInclusive<u64>,
    /// How long the steps of a task's life take.
    pub delays: Delays,
    /// How far behind the truth answers are.
    pub lag: Lag,
    /// Whether calls beyond the documented rates are refused.
    pub throttle: bool,
    /// Milliseconds for which a stopped task is still described. ECS: at least one hour
    /// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_DescribeTasks.html>).
    pub stopped_visible_ms: u64,
    /// State change events; `None`: there is no rule for them, and no queue.
    pub events: Option<EventDelivery>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            seed: 0,
            account: "123456789012".to_owned(),
            region: "eu-west-1".to_owned(),
            epoch_ms: 1_795_000_000_000,
            latency_ms: 10..=40,
            delays: Delays::default(),
            lag: Lag::default(),
            throttle: true,
            stopped_visible_ms: 3_600_000,
            events: None,
        }
    }
}

impl Config {
    /// The default with this seed.
    pub fn seeded(seed: u64) -> Self {
        Self { seed, ..Self::default() }
    }

    /// The default with this seed, but answering at once, without lag and without delays: for tests of something else.
    pub fn prompt(seed: u64) -> Self {
        Self { latency_ms: 0..=0, delays: Delays::none(), lag: Lag::none(), ..Self::seeded(seed) }
    }
}

/// How long each step of a task's life takes, in milliseconds, drawn evenly from the range. A state that is passed in
/// no time is not shown. The defaults are assumptions about a host with its images cached: with them a start takes
/// 0.6 to 1.5 s, of which the agent's own work is what Docker takes.
#[derive(Clone, Debug)]
pub struct Delays {
    /// PROVISIONING, for tasks in `awsvpc` network mode: the network interface is attached.
    pub provisioning: RangeInclusive<u64>,
    /// From the call until the agent has heard of it: of a start, in PENDING, and of a stop.
    pub deliver: RangeInclusive<u64>,
    /// ACTIVATING: the agent pulls and creates.
    pub activating: RangeInclusive<u64>,
    /// From there until the containers run. Simulated containers only.
    pub start: RangeInclusive<u64>,
    /// From the stop signal until a simulated container that heeds it has ended.
    pub stop: RangeInclusive<u64>,
    /// From a change on the instance until ECS knows of it.
    pub report: RangeInclusive<u64>,
    /// DEPROVISIONING, for tasks in `awsvpc` network mode: the network interface is detached.
    pub deprovisioning: RangeInclusive<u64>,
}

impl Default for Delays {
    fn default() -> Self {
        Self {
            provisioning: 3_000..=8_000,
            deliver: 50..=200,
            activating: 200..=600,
            start: 200..=400,
            stop: 40..=90,
            report: 100..=300,
            deprovisioning: 3_000..=8_000,
        }
    }
}

impl Delays {
    /// Nothing takes any time.
    pub fn none() -> Self {
        Self::all(0..=0)
    }

    /// The same range for every step.
    pub fn all(range: RangeInclusive<u64>) -> Self {
        Self {
            provisioning: range.clone(),
            deliver: range.clone(),
            activating: range.clone(),
            start: range.clone(),
            stop: range.clone(),
            report: range.clone(),
            deprovisioning: range,
        }
    }
}

/// How far behind the truth an answer is, in milliseconds, drawn for each request: "the result of an API command you
/// run that affects your Amazon ECS resources might not be immediately visible to all subsequent commands you run"
/// (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_RunTask.html>).
#[derive(Clone, Debug)]
pub struct Lag {
    /// Of `ListTasks`, `ListContainerInstances` and `ListServices`.
    pub list: RangeInclusive<u64>,
    /// Of `DescribeTasks`, `DescribeContainerInstances` and `DescribeServices`.
    pub describe: RangeInclusive<u64>,
}

impl Default for Lag {
    fn default() -> Self {
        Self { list: 0..=200, describe: 0..=50 }
    }
}

impl Lag {
    /// Answers are up to date.
    pub fn none() -> Self {
        Self { list: 0..=0, describe: 0..=0 }
    }
}

/// How state change events reach their queue. EventBridge delivers "at least once", in no promised order
/// (<https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-event-delivery.html>).
#[derive(Clone, Debug)]
pub struct EventDelivery {
    /// The name of the queue that they are put into.
    pub queue: String,
    /// Milliseconds from a change to its message. With a wide range they come out of order.
    pub delay_ms: RangeInclusive<u64>,
    /// So many of a thousand events never arrive.
    pub lost_per_mille: u32,
    /// So many of a thousand events arrive twice.
    pub doubled_per_mille: u32,
}

impl Default for EventDelivery {
    fn default() -> Self {
        Self {
            queue: "force12-events".to_owned(),
            delay_ms: 50..=500,
            lost_per_mille: 0,
            doubled_per_mille: 10,
        }
    }
}
