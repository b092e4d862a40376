//! Rules that several tables share.

use std::collections::BTreeSet;

use super::{Place, Problems};

/// Names go into container names and labels, three at a time, where engines allow 255 characters and host names 63.
const NAME_CHARACTERS_MAX: usize = 40;
pub(super) const DAY_MS: u64 = 86_400_000;
pub(super) const COUNT_MAX: u64 = 1_000_000;

pub(super) fn name(name: &str, place: &Place, problems: &mut Problems<'_>) {
    let lower_or_digit = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = name.len() <= NAME_CHARACTERS_MAX
        && name.starts_with(lower_or_digit)
        && name.chars().all(|c| lower_or_digit(c) || c == '-');
    if !fits {
        problems.error(
            place,
            format!(
                "`{name}` can't be used in names of containers; use 1 to {NAME_CHARACTERS_MAX} lower-case letters, \
                 digits and `-`, beginning with a letter or digit"
            ),
        );
    }
}

pub(super) fn unique(
    seen: &mut BTreeSet<String>,
    name: &str,
    kind: &str,
    place: &Place,
    problems: &mut Problems<'_>,
) {
    if !seen.insert(name.to_owned()) {
        problems.error(
            &place.key("name"),
            format!("there is another {kind} named `{name}` above; give each its own name"),
        );
    }
}

pub(super) fn range(
    value: u64,
    allowed: std::ops::RangeInclusive<u64>,
    place: &Place,
    problems: &mut Problems<'_>,
) {
    if !allowed.contains(&value) {
        problems
            .error(place, format!("{value} is out of range; give {} to {}", allowed.start(), allowed.end()));
    }
}
