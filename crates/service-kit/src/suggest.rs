//! "Did you mean": the nearest known name.

/// The nearest of `known` to `name`, if it is near enough to be what was meant: a slip of the fingers, or a part that
/// was left out, such as a unit.
pub(crate) fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let characters = name.chars().count();
    let allowed = (characters / 3).max(1);
    let slip = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), *candidate))
        .filter(|(distance, _)| *distance <= allowed && *distance < characters)
        .min();
    let part = || known.iter().find(|candidate| characters > 1 && candidate.starts_with(name));
    slip.map(|(_, candidate)| candidate).or_else(|| part().copied())
}

/// An unknown field or variant, as serde's derived code words it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unknown<'a> {
    /// `field` or `variant`.
    pub(crate) what: &'a str,
    pub(crate) name: &'a str,
    pub(crate) known: Vec<&'a str>,
}

impl<'a> Unknown<'a> {
    /// Reads it out of a message of serde's; `None` for any other message.
    pub(crate) fn read(message: &'a str) -> Option<Self> {
        let rest = message.strip_prefix("unknown ")?;
        let (what, rest) = rest.split_once(' ')?;
        if !matches!(what, "field" | "variant") {
            return None;
        }
        let mut quoted = rest.split('`').skip(1).step_by(2);
        let name = quoted.next()?;
        Some(Self { what, name, known: quoted.collect() })
    }
}

/// `; did you mean …?`, or nothing, to put behind a message of serde's.
pub(crate) fn hint(message: &str) -> String {
    Unknown::read(message)
        .and_then(|unknown| nearest(unknown.name, &unknown.known))
        .map(|name| format!("; did you mean `{name}`?"))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn serdes_messages_are_understood() {
        let message = "unknown field `intervall`, expected one of `interval_ms`, `interval`, `seed`";
        assert_eq!(
            Unknown::read(message),
            Some(Unknown {
                what: "field",
                name: "intervall",
                known: vec!["interval_ms", "interval", "seed"]
            })
        );
        assert_eq!(hint(message), "; did you mean `interval`?");
        assert_eq!(hint("unknown variant `wlak`, expected `walk` or `sine`"), "; did you mean `walk`?");
        assert_eq!(hint("unknown field `x`, there are no fields"), "");
        assert_eq!(hint("unknown field `colour`, expected `walk` or `sine`"), "");
        assert_eq!(hint("invalid type: map, expected u32"), "");
    }
}
