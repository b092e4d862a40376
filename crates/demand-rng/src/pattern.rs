//! The values: what each pattern generates, step by step, out of its settings and a seed.
//!
//! A sequence is a function of its settings alone, seed included: the same settings give the same values, in every
//! run of the same version. The values come from ChaCha8, seeded by `seed`.

use std::f64::consts::TAU;

use api_types::demand::DEMAND_MAX;
use api_types::generator::{Generator, GeneratorChange, Pattern};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution as _, Poisson};

/// Faster than this nothing can follow, and a forgotten unit (3 for 3 s) is noticed.
const INTERVAL_MIN_MS: u64 = 10;
/// A day.
const INTERVAL_MAX_MS: u64 = 86_400_000;
/// A year.
const PERIOD_MAX_MS: u64 = 31_536_000_000;
/// The most values of a trace. In a request, with values of six digits and more, its body's bound comes first.
const TRACE_MAX: usize = 10_000;

/// The default settings: a walk between 0 and 9, a step every 3 s.
pub(crate) fn defaults() -> Generator {
    Generator {
        pattern: Pattern::Walk,
        min: 0,
        max: 9,
        interval_ms: 3_000,
        seed: 0,
        period_ms: 60_000,
        spike_chance: 0.1,
        mean: 4.0,
        trace: Vec::new(),
    }
}

/// A setting that cannot be.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unfit {
    /// Its key.
    pub(crate) setting: &'static str,
    /// What is wrong, and what it may be.
    pub(crate) what: String,
}

/// All of them, in one line.
pub(crate) fn in_words(unfit: &[Unfit]) -> String {
    let words: Vec<String> =
        unfit.iter().map(|Unfit { setting, what }| format!("{setting}: {what}")).collect();
    words.join("; ")
}

/// `settings` with `change` applied, or all that is wrong with the result. A trace goes when another pattern is chosen.
pub(crate) fn changed(settings: &Generator, change: GeneratorChange) -> Result<Generator, Vec<Unfit>> {
    let pattern = change.pattern.unwrap_or(settings.pattern);
    let kept = if pattern == Pattern::Trace { settings.trace.clone() } else { Vec::new() };
    let changed = Generator {
        pattern,
        min: change.min.unwrap_or(settings.min),
        max: change.max.unwrap_or(settings.max),
        interval_ms: change.interval_ms.unwrap_or(settings.interval_ms),
        seed: change.seed.unwrap_or(settings.seed),
        period_ms: change.period_ms.unwrap_or(settings.period_ms),
        spike_chance: change.spike_chance.unwrap_or(settings.spike_chance),
        mean: change.mean.unwrap_or(settings.mean),
        trace: change.trace.unwrap_or(kept),
    };
    let unfit = check(&changed);
    if unfit.is_empty() { Ok(changed) } else { Err(unfit) }
}

fn check(settings: &Generator) -> Vec<Unfit> {
    let Generator { min, max, interval_ms, period_ms, spike_chance, mean, trace, .. } = settings;
    let mut unfit = Vec::new();
    let mut wrong = |setting, what: String| unfit.push(Unfit { setting, what });
    if min > max {
        wrong("min", format!("{min} is above max ({max}); lower min, or raise max"));
    }
    if u64::from(*max) > DEMAND_MAX {
        wrong("max", format!("{max} is out of range; give at most {DEMAND_MAX}"));
    }
    if !(INTERVAL_MIN_MS..=INTERVAL_MAX_MS).contains(interval_ms) {
        wrong(
            "interval_ms",
            format!("{interval_ms} is out of range; give {INTERVAL_MIN_MS} to {INTERVAL_MAX_MS}"),
        );
    }
    if !(INTERVAL_MIN_MS..=PERIOD_MAX_MS).contains(period_ms) {
        wrong("period_ms", format!("{period_ms} is out of range; give {INTERVAL_MIN_MS} to {PERIOD_MAX_MS}"));
    } else if settings.pattern == Pattern::Sine && period_ms < interval_ms {
        wrong(
            "period_ms",
            format!("{period_ms} is less than interval_ms ({interval_ms}); a wave takes a step at least"),
        );
    }
    if !(0.0..=1.0).contains(spike_chance) {
        wrong("spike_chance", format!("{spike_chance} is out of range; give 0 to 1"));
    }
    #[expect(clippy::cast_precision_loss, reason = "a million is exact")]
    if !(0.0..=DEMAND_MAX as f64).contains(mean) {
        wrong("mean", format!("{mean} is out of range; give 0 to {DEMAND_MAX}"));
    }
    if settings.pattern != Pattern::Trace {
        if !trace.is_empty() {
            wrong(
                "trace",
                "is given, and the pattern is another; set pattern to \"trace\" too, or remove it".to_owned(),
            );
        }
    } else if !(1..=TRACE_MAX).contains(&trace.len()) {
        wrong("trace", format!("has {} values; give 1 to {TRACE_MAX}", trace.len()));
    } else if let Some(at) = trace.iter().position(|value| !(min..=max).contains(&value)) {
        wrong("trace", format!("value {at} is {}; give values from min ({min}) to max ({max})", trace[at]));
    }
    unfit
}

/// The values of one generator, without end.
#[derive(Debug)]
pub(crate) struct Sequence {
    settings: Generator,
    rng: ChaCha8Rng,
    step: u64,
    /// Where a walk is.
    position: u32,
}

impl Sequence {
    /// From the first step on. The settings are those that [`changed`] has passed.
    pub(crate) fn new(settings: Generator) -> Self {
        let rng = ChaCha8Rng::seed_from_u64(settings.seed);
        let position = settings.min.midpoint(settings.max);
        Self { settings, rng, step: 0, position }
    }

    /// What the values are made of.
    pub(crate) fn settings(&self) -> &Generator {
        &self.settings
    }

    /// The value of the next step, from `min` to `max`. A walk begins halfway, a sine at `min`.
    pub(crate) fn next_value(&mut self) -> u32 {
        let step = self.step;
        self.step = step.wrapping_add(1);
        let Generator { pattern, min, max, .. } = self.settings;
        match pattern {
            Pattern::Walk => {
                if step > 0 {
                    self.position = match self.rng.random_range(0..3_u8) {
                        0 => self.position.saturating_sub(1).max(min),
                        1 => self.position,
                        _ => (self.position + 1).min(max),
                    };
                }
                self.position
            }
            Pattern::Uniform => self.rng.random_range(min..=max),
            Pattern::Sine => self.sine(step),
            Pattern::Spike => {
                if self.rng.random_bool(self.settings.spike_chance) {
                    max
                } else {
                    min
                }
            }
            Pattern::Poisson => {
                // There is no distribution with the mean 0, but no doubt about its values either.
                let arrivals =
                    Poisson::new(self.settings.mean).map_or(0.0, |poisson| poisson.sample(&mut self.rng));
                whole(arrivals).clamp(min, max)
            }
            Pattern::Trace => {
                let length = self.settings.trace.len() as u64;
                self.settings.trace[usize::try_from(step % length).unwrap_or(0)]
            }
        }
    }

    fn sine(&self, step: u64) -> u32 {
        let Generator { min, max, interval_ms, period_ms, .. } = self.settings;
        // Kept whole as long as possible: after a year it is still the same wave.
        let at_ms = (u128::from(step) * u128::from(interval_ms)) % u128::from(period_ms);
        #[expect(clippy::cast_precision_loss, reason = "both are below 2^53")]
        let phase = at_ms as f64 / period_ms as f64;
        let height = (1.0 - (phase * TAU).cos()) / 2.0;
        min + whole(height * f64::from(max - min)).min(max - min)
    }
}

/// The nearest whole number; what is too large is cut.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates, as it should"
)]
fn whole(value: f64) -> u32 {
    value.round() as u32
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PATTERNS: [Pattern; 6] =
        [Pattern::Walk, Pattern::Uniform, Pattern::Sine, Pattern::Spike, Pattern::Poisson, Pattern::Trace];

    fn settings(pattern: Pattern) -> Generator {
        let trace = if pattern == Pattern::Trace { vec![3, 0, 9] } else { Vec::new() };
        Generator { pattern, seed: 12, trace, ..defaults() }
    }

    fn values(settings: Generator, count: usize) -> Vec<u32> {
        let mut sequence = Sequence::new(settings);
        (0..count).map(|_| sequence.next_value()).collect()
    }

    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    fn mean(values: &[u32]) -> f64 {
        values.iter().map(|value| f64::from(*value)).sum::<f64>() / values.len() as f64
    }

    proptest! {
        #[test]
        fn within_bounds_and_reproducible(
            pattern in prop::sample::select(&PATTERNS[..5]),
            bounds in (0..=1_000_000_u32, 0..=1_000_000_u32),
            (interval_ms, period_ms) in (10..=86_400_000_u64).prop_flat_map(|at| (Just(at), at..=PERIOD_MAX_MS)),
            seed in any::<u64>(),
            spike_chance in 0.0..=1.0_f64,
            mean in 0.0..=1_000_000.0_f64,
        ) {
            let (min, max) = (bounds.0.min(bounds.1), bounds.0.max(bounds.1));
            let settings = Generator { pattern, min, max, interval_ms, seed, period_ms, spike_chance, mean, trace: Vec::new() };
            prop_assert_eq!(check(&settings), []);
            let once = values(settings.clone(), 200);
            prop_assert!(once.iter().all(|value| (min..=max).contains(value)));
            prop_assert_eq!(once, values(settings, 200));
        }
    }

    /// A change of a dependency that changes the values is to be noticed.
    #[test]
    fn the_values_of_a_seed_are_these() {
        assert_eq!(values(settings(Pattern::Walk), 16), [4, 3, 2, 3, 4, 4, 5, 6, 5, 6, 6, 5, 6, 6, 6, 6]);
        assert_eq!(values(settings(Pattern::Uniform), 8), [0, 0, 9, 7, 6, 6, 9, 2]);
        assert_eq!(values(settings(Pattern::Poisson), 8), [0, 6, 1, 2, 2, 4, 4, 7]);
    }

    #[test]
    fn other_seeds_give_other_values() {
        for pattern in [Pattern::Walk, Pattern::Uniform, Pattern::Spike, Pattern::Poisson] {
            let other = Generator { seed: 13, ..settings(pattern) };
            assert_ne!(values(settings(pattern), 100), values(other, 100), "{pattern:?}");
        }
    }

    #[test]
    fn a_walk_goes_by_one_and_everywhere() {
        let walk = values(settings(Pattern::Walk), 2_000);
        assert_eq!(walk[0], 4);
        assert!(walk.windows(2).all(|pair| pair[0].abs_diff(pair[1]) <= 1));
        for value in 0..=9 {
            assert!(walk.contains(&value), "never {value}");
        }
    }

    #[test]
    fn distributions_have_their_means() {
        // 10,000 values: the tolerances are above four standard errors.
        let uniform = mean(&values(settings(Pattern::Uniform), 10_000));
        assert!((uniform - 4.5).abs() < 0.12, "{uniform}");
        let poisson = mean(&values(Generator { max: 100, ..settings(Pattern::Poisson) }, 10_000));
        assert!((poisson - 4.0).abs() < 0.09, "{poisson}");
        let spikes = values(settings(Pattern::Spike), 10_000);
        assert!(spikes.iter().all(|value| [0, 9].contains(value)));
        assert!((mean(&spikes) - 0.9).abs() < 0.12, "{}", mean(&spikes));
    }

    #[test]
    fn the_extremes_of_chance_and_mean() {
        assert_eq!(values(Generator { spike_chance: 0.0, ..settings(Pattern::Spike) }, 50), [0; 50]);
        assert_eq!(values(Generator { spike_chance: 1.0, ..settings(Pattern::Spike) }, 50), [9; 50]);
        assert_eq!(values(Generator { mean: 0.0, ..settings(Pattern::Poisson) }, 50), [0; 50]);
        assert_eq!(values(Generator { min: 5, max: 5, ..settings(Pattern::Walk) }, 50), [5; 50]);
    }

    #[test]
    fn a_sine_goes_up_and_comes_back() {
        let wave =
            Generator { interval_ms: 1_000, period_ms: 8_000, min: 2, max: 12, ..settings(Pattern::Sine) };
        assert_eq!(values(wave, 10), [2, 3, 7, 11, 12, 11, 7, 3, 2, 3]);
    }

    #[test]
    fn a_trace_goes_round() {
        assert_eq!(values(settings(Pattern::Trace), 7), [3, 0, 9, 3, 0, 9, 3]);
    }

    #[test]
    fn changes_are_partial_and_checked() {
        let walk = settings(Pattern::Walk);
        let change = GeneratorChange { max: Some(4), ..GeneratorChange::default() };
        assert_eq!(changed(&walk, change), Ok(Generator { max: 4, ..walk.clone() }));
        let back = GeneratorChange { pattern: Some(Pattern::Walk), ..GeneratorChange::default() };
        assert_eq!(changed(&settings(Pattern::Trace), back), Ok(walk.clone()));

        let none = GeneratorChange::default;
        for (change, wanted) in [
            (GeneratorChange { min: Some(10), ..none() }, "min: 10 is above max (9)"),
            (GeneratorChange { max: Some(1_000_001), ..none() }, "max: 1000001 is out"),
            (GeneratorChange { interval_ms: Some(9), ..none() }, "interval_ms: 9 is out"),
            (GeneratorChange { interval_ms: Some(86_400_001), ..none() }, "interval_ms: 86400001 is out"),
            (GeneratorChange { period_ms: Some(0), ..none() }, "period_ms: 0 is out"),
            (
                GeneratorChange { pattern: Some(Pattern::Sine), period_ms: Some(2_999), ..none() },
                "period_ms: 2999 is less than interval_ms (3000)",
            ),
            (GeneratorChange { spike_chance: Some(1.5), ..none() }, "spike_chance: 1.5 is out"),
            (GeneratorChange { mean: Some(-1.0), ..none() }, "mean: -1 is out"),
            (GeneratorChange { mean: Some(f64::NAN), ..none() }, "mean: NaN is out"),
            (
                GeneratorChange { trace: Some(vec![1]), ..none() },
                "trace: is given, and the pattern is another",
            ),
            (GeneratorChange { pattern: Some(Pattern::Trace), ..none() }, "trace: has 0 values"),
            (
                GeneratorChange { pattern: Some(Pattern::Trace), trace: Some(vec![1, 10]), ..none() },
                "trace: value 1 is 10",
            ),
        ] {
            let error = in_words(&changed(&walk, change).unwrap_err());
            assert!(error.contains(wanted), "{error}");
        }
        let both = GeneratorChange { min: Some(10), mean: Some(-1.0), ..none() };
        assert_eq!(changed(&walk, both).unwrap_err().len(), 2, "all that is wrong at once");
    }
}
