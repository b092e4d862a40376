//! Rounds, and what they say together.

use acceptance::timeline::{MS, Nanos};
use serde::Serialize;

use crate::kinds::Kind;

/// From this many rounds on, two at least are above the p99: it is not one accident.
const P99_ROUNDS_LEAST: usize = 200;

/// One measured change, in milliseconds, by stages that add up to the whole.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Round {
    pub(crate) total_ms: f64,
    pub(crate) stages_ms: Vec<f64>,
}

impl Round {
    /// From the moments of its begin and of each stage's end.
    pub(crate) fn new(moments: &[Nanos]) -> Self {
        let stages_ms = moments.windows(2).map(|pair| ms(pair[1] - pair[0])).collect();
        Self { total_ms: ms(moments[moments.len() - 1] - moments[0]), stages_ms }
    }
}

/// What was measured of one kind.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Measured {
    #[serde(skip)]
    pub(crate) kind: Kind,
    pub(crate) name: &'static str,
    pub(crate) p50_ms: f64,
    pub(crate) p90_ms: f64,
    /// Only with enough rounds.
    pub(crate) p99_ms: Option<f64>,
    pub(crate) min_ms: f64,
    pub(crate) max_ms: f64,
    /// What each stage ends with, and its median.
    pub(crate) stages: Vec<(&'static str, f64)>,
    pub(crate) rounds: Vec<Round>,
}

/// Of at least one round.
pub(crate) fn measured(kind: Kind, rounds: &[Round]) -> Measured {
    let of = |pick: &dyn Fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(pick).collect();
        values.sort_by(f64::total_cmp);
        values
    };
    let totals = of(&|round| round.total_ms);
    let stages = kind.stages().iter().enumerate();
    Measured {
        kind,
        name: kind.name(),
        p50_ms: percentile(&totals, 50),
        p90_ms: percentile(&totals, 90),
        p99_ms: (totals.len() >= P99_ROUNDS_LEAST).then(|| percentile(&totals, 99)),
        min_ms: percentile(&totals, 0),
        max_ms: percentile(&totals, 100),
        stages: stages.map(|(i, &name)| (name, percentile(&of(&|round| round.stages_ms[i]), 50))).collect(),
        rounds: rounds.to_vec(),
    }
}

/// By nearest rank: the smallest value that `percent` of all do not exceed.
fn percentile(sorted: &[f64], percent: usize) -> f64 {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted[rank - 1]
}

#[expect(clippy::cast_precision_loss, reason = "milliseconds, from minutes of nanoseconds at most")]
fn ms(span: Nanos) -> f64 {
    span as f64 / MS as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_nearest_rank() {
        let values: Vec<f64> = (1..=30).map(f64::from).collect();
        let picked = [0, 50, 90, 99, 100].map(|percent| percentile(&values, percent));
        assert!(
            picked.iter().zip([1.0, 15.0, 27.0, 30.0, 30.0]).all(|(a, b)| (a - b).abs() < 1e-9),
            "{picked:?}"
        );
        assert!((percentile(&[7.0], 50) - 7.0).abs() < 1e-9);
    }

    #[test]
    fn stages_add_up_and_a_p99_takes_rounds() {
        let round = Round::new(&[MS, 3 * MS, 6 * MS]);
        assert!((round.total_ms - 5.0).abs() < 1e-9, "{round:?}");
        let few = measured(Kind::Swarm, &vec![round.clone(); P99_ROUNDS_LEAST - 1]);
        assert_eq!(few.p99_ms, None);
        let medians: Vec<f64> = few.stages.iter().map(|stage| stage.1).collect();
        assert!((medians[0] - 2.0).abs() < 1e-9 && (medians[1] - 3.0).abs() < 1e-9, "{medians:?}");
        assert!(measured(Kind::Swarm, &vec![round; P99_ROUNDS_LEAST]).p99_ms.is_some());
    }
}
