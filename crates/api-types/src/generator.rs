//! demand-rng's generator: `GET|PUT /v1/generator`.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The shape that generated demand follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Pattern {
    /// One up, one down or unchanged at each step, each as likely as the others.
    #[default]
    Walk,
    /// Any value from `min` to `max`, each as likely as the others.
    Uniform,
    /// A wave from `min` to `max` and back, in `period_ms`.
    Sine,
    /// `min`, and `max` for one step with the chance `spike_chance`.
    Spike,
    /// Arrivals with a mean of `mean` a step, cut to `min` and `max`.
    Poisson,
    /// The values of `trace`, one a step, again and again.
    Trace,
}

/// How demand is generated. Fields that are left out of a PUT keep their values.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Generator {
    /// The shape.
    pub pattern: Pattern,
    /// The smallest demand.
    #[schema(maximum = 1_000_000)]
    pub min: u32,
    /// The largest demand; at least `min`, at most 1,000,000.
    #[schema(maximum = 1_000_000)]
    pub max: u32,
    /// Milliseconds from one step to the next; 10 to 86,400,000.
    #[schema(minimum = 10, maximum = 86_400_000)]
    pub interval_ms: u64,
    /// The same seed and settings give the same demand.
    pub seed: u64,
    /// `sine`: milliseconds for one wave; at least `interval_ms`.
    #[schema(minimum = 10, maximum = 31_536_000_000_i64)]
    pub period_ms: u64,
    /// `spike`: the chance of one at each step, 0 to 1.
    #[schema(minimum = 0, maximum = 1)]
    pub spike_chance: f64,
    /// `poisson`: the mean, 0 to 1,000,000.
    #[schema(minimum = 0, maximum = 1_000_000)]
    pub mean: f64,
    /// `trace`: the values, 1 to 10,000 of them. Empty for the other patterns.
    #[schema(max_items = 10_000)]
    pub trace: Vec<u32>,
}

/// A change of some of a [`Generator`]'s settings.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct GeneratorChange {
    /// See [`Generator::pattern`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pattern: Option<Pattern>,
    /// See [`Generator::min`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 1_000_000)]
    pub min: Option<u32>,
    /// See [`Generator::max`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(maximum = 1_000_000)]
    pub max: Option<u32>,
    /// See [`Generator::interval_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 10, maximum = 86_400_000)]
    pub interval_ms: Option<u64>,
    /// See [`Generator::seed`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<u64>,
    /// See [`Generator::period_ms`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 10, maximum = 31_536_000_000_i64)]
    pub period_ms: Option<u64>,
    /// See [`Generator::spike_chance`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1)]
    pub spike_chance: Option<f64>,
    /// See [`Generator::mean`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(minimum = 0, maximum = 1_000_000)]
    pub mean: Option<f64>,
    /// See [`Generator::trace`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_items = 10_000)]
    pub trace: Option<Vec<u32>>,
}
