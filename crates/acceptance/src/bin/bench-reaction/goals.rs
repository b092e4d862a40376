//! What the figures are to be, as ratios within one run.

use serde::Serialize;

use crate::kinds::Kind;
use crate::statistics::Measured;

/// One goal, and how far it is met.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Goal {
    /// In words.
    pub(crate) what: String,
    /// The ratio that was measured; none where there were too few rounds, or what it is compared with was left out.
    pub(crate) ratio: Option<f64>,
    /// None where nothing was measured.
    pub(crate) met: Option<bool>,
}

/// What is compared.
#[derive(Clone, Copy)]
enum At {
    Median,
    P99,
}

/// Of one network's figures, all goals.
pub(crate) fn goals(measured: &[Measured]) -> Vec<Goal> {
    let mut goals = vec![
        at_most(measured, Kind::StopSwap, At::Median, 1.10),
        at_most(measured, Kind::StopSwap, At::P99, 1.5),
        at_most(measured, Kind::Burst, At::Median, 1.15),
    ];
    for kind in [Kind::FreezeSwap, Kind::FreezeSwapBeside, Kind::StandbyThaw] {
        goals.push(at_most(measured, kind, At::Median, 2.0));
        goals.push(faster_than_swarm(measured, kind, 10.0));
    }
    goals
}

fn value(measured: &[Measured], kind: Kind, at: At) -> Option<f64> {
    let found = measured.iter().find(|measured| measured.kind == kind)?;
    match at {
        At::Median => Some(found.p50_ms),
        At::P99 => found.p99_ms,
    }
}

fn at_most(measured: &[Measured], kind: Kind, at: At, limit: f64) -> Goal {
    let floor = kind.floor().and_then(|floor| value(measured, floor, at));
    let ratio = value(measured, kind, at).zip(floor).map(|(ours, floor)| ours / floor);
    let at = match at {
        At::Median => "median",
        At::P99 => "p99",
    };
    Goal {
        what: format!("{} ≤ {limit:.2} × its floor, {at}", kind.name()),
        ratio,
        met: ratio.map(|ratio| ratio <= limit),
    }
}

fn faster_than_swarm(measured: &[Measured], kind: Kind, times: f64) -> Goal {
    let swarm = value(measured, Kind::Swarm, At::Median);
    let ratio = swarm.zip(value(measured, kind, At::Median)).map(|(swarm, ours)| swarm / ours);
    Goal {
        what: format!("{} ≥ {times:.0} × faster than Docker Swarm, median", kind.name()),
        ratio,
        met: ratio.map(|ratio| ratio >= times),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statistics::{Round, measured};

    fn of(kind: Kind, ms: i64, rounds: usize) -> Measured {
        let stages = i64::try_from(kind.stages().len()).unwrap();
        let moments: Vec<i64> = (0..=stages).map(|stage| stage * ms * 1_000_000 / stages).collect();
        measured(kind, &vec![Round::new(&moments); rounds])
    }

    #[test]
    fn each_goal_is_met_at_its_limit_missed_beyond_it_and_open_without_figures() {
        let figures = |stop_swap, thaw| {
            vec![
                of(Kind::KillCreateStart, 100, 200),
                of(Kind::StopSwap, stop_swap, 200),
                of(Kind::Unpause, 10, 1),
                of(Kind::StandbyThaw, thaw, 1),
                of(Kind::Swarm, 200, 1),
            ]
        };
        let met = |figures: &[Measured]| goals(figures).into_iter().map(|goal| goal.met).collect::<Vec<_>>();
        let (yes, no, open) = (Some(true), Some(false), None);
        assert_eq!(met(&figures(110, 20)), [yes, yes, open, open, open, open, open, yes, yes]);
        assert_eq!(met(&figures(111, 21)), [no, yes, open, open, open, open, open, no, no]);
        assert_eq!(met(&figures(151, 5)), [no, no, open, open, open, open, open, yes, yes]);
    }
}
