//! A service's configuration: one TOML file, read whole or refused whole.
//!
//! [`load`] reads a file; [`parse`] takes the text itself, so that tests need no files. Types that are read here
//! should carry `#[serde(deny_unknown_fields)]`: that is what refuses an unknown key. All unknown keys are reported
//! at once, with the first other mistake if there is one.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::suggest::{self, Unknown};

/// The most bytes that a config file may have: far above a pool of thousands of instances, far below harm.
pub const CONFIG_MAX_BYTES: u64 = 1024 * 1024;

/// The most mistakes that are reported of one file.
const MISTAKES_MAX: usize = 20;

/// Why a configuration is refused. Its text names the file, and the line and column where that is known.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("config {file}: cannot be read: {source}; give the right path with --config or FORCE12_CONFIG")]
    Read {
        /// The file.
        file: String,
        /// Why not.
        source: io::Error,
    },
    /// The file is too large.
    #[error("config {file}: larger than {CONFIG_MAX_BYTES} bytes; is it the right file?")]
    TooLarge {
        /// The file.
        file: String,
    },
    /// The text is not what the service's configuration looks like.
    #[error("{}", Lines(.0))]
    Invalid(Vec<Mistake>),
}

/// One thing that is wrong with a configuration's text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file, or what the text was said to come from.
    pub file: String,
    /// Where: line and column in characters, both from 1; `None` where it is something that is missing.
    pub place: Option<(usize, usize)>,
    /// What is wrong, and how to mend it.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "config {}", self.file)?;
        if let Some((line, column)) = self.place {
            write!(formatter, ":{line}:{column}")?;
        }
        write!(formatter, ": {}", self.message)
    }
}

/// One mistake a line.
struct Lines<'a>(&'a [Mistake]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                formatter.write_str("\n")?;
            }
            write!(formatter, "{mistake}")?;
        }
        Ok(())
    }
}

/// Reads the TOML file at `path`, at most [`CONFIG_MAX_BYTES`] of it.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    let file = path.display().to_string();
    let read = |source| ConfigError::Read { file: file.clone(), source };
    let mut text = String::new();
    File::open(path).map_err(read)?.take(CONFIG_MAX_BYTES + 1).read_to_string(&mut text).map_err(read)?;
    if text.len() as u64 > CONFIG_MAX_BYTES {
        return Err(ConfigError::TooLarge { file });
    }
    parse(&file, &text)
}

/// Reads TOML `text` that came from `file`, which is only named in errors.
pub fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, ConfigError> {
    let mistake = |error: &toml::de::Error| Mistake {
        file: file.to_owned(),
        place: error.span().map(|span| place(text, span.start)),
        message: explain(error.message()),
    };
    let mut table = DeTable::parse(text).map_err(|error| ConfigError::Invalid(vec![mistake(&error)]))?;
    let mut mistakes = Vec::new();
    loop {
        match T::deserialize(toml::Deserializer::from(table.clone())) {
            Ok(config) if mistakes.is_empty() => return Ok(config),
            Ok(_) => break,
            Err(error) => {
                mistakes.push(mistake(&error));
                // An unknown key is taken out, and the rest read again, to report the others as well.
                let removed = Unknown::read(error.message()).is_some_and(|unknown| unknown.what == "field")
                    && error.span().is_some_and(|span| remove_key(table.get_mut(), span.start));
                if !removed || mistakes.len() == MISTAKES_MAX {
                    break;
                }
            }
        }
    }
    mistakes.sort_by_key(|mistake| mistake.place);
    Err(ConfigError::Invalid(mistakes))
}

/// Removes the key that stands at byte `start` of the text; false if there is none.
fn remove_key(table: &mut DeTable<'_>, start: usize) -> bool {
    let found = table.keys().find(|key| key.span().start == start).map(|key| key.get_ref().to_string());
    match found {
        Some(key) => table.remove(key.as_str()).is_some(),
        None => table.iter_mut().any(|(_, value)| remove_key_within(value, start)),
    }
}

fn remove_key_within(value: &mut Spanned<DeValue<'_>>, start: usize) -> bool {
    match value.get_mut() {
        DeValue::Table(table) => remove_key(table, start),
        DeValue::Array(items) => items.iter_mut().any(|item| remove_key_within(item, start)),
        _ => false,
    }
}

/// Serde's message in our words.
fn explain(message: &str) -> String {
    match Unknown::read(message) {
        Some(unknown) if unknown.what == "field" => {
            let hint = suggest::hint(message);
            let known = unknown.known.join(", ");
            format!("unknown key `{}`{hint} (known here: {known})", unknown.name)
        }
        Some(_) => format!("{message}{}", suggest::hint(message)),
        None => match message.strip_prefix("missing field ") {
            Some(name) => format!("missing key {name}"),
            None => message.trim().replace('\n', "; "),
        },
    }
}

/// Line and column, in characters and from 1, of byte `at`.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        listen: String,
        #[serde(default)]
        item: Vec<Item>,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        key: String,
        #[serde(default)]
        interval_ms: u64,
    }

    fn refused(text: &str) -> String {
        parse::<Config>("a.toml", text).unwrap_err().to_string()
    }

    #[test]
    fn all_unknown_keys_are_reported_with_their_place_and_the_nearest_known_one() {
        let text = "listen = \"x\"\nlisen = 1\n\n[[item]]\nkey = \"ä\"\n  intervall_ms = 3\n\n[[item]]\nkey = \"b\"\ncolour = { a = 1 }\n";
        assert_eq!(
            refused(text),
            "config a.toml:2:1: unknown key `lisen`; did you mean `listen`? (known here: listen, item)\n\
             config a.toml:6:3: unknown key `intervall_ms`; did you mean `interval_ms`? (known here: key, interval_ms)\n\
             config a.toml:10:1: unknown key `colour` (known here: key, interval_ms)"
        );
    }

    #[test]
    fn other_mistakes_are_placed_too() {
        assert_eq!(
            refused("listen = \"x\"\n[[item]]\nkey = \"a\"\ninterval_ms = \"soon\"\n"),
            "config a.toml:4:15: invalid type: string \"soon\", expected u64"
        );
        assert_eq!(refused("listen = \"x\"\n[[item]]\n"), "config a.toml:2:1: missing key `key`");
        let syntax = refused("listen = \"x\"\nitem = [\n");
        assert!(syntax.starts_with("config a.toml:"), "{syntax}");
        assert!(refused("listen = \"x\"\nlisten = \"y\"\n").contains("duplicate key"));
    }

    #[test]
    fn mistakes_are_bounded() {
        let text = (0..100).map(|n| format!("k{n} = 1")).collect::<Vec<_>>().join("\n");
        assert_eq!(refused(&text).lines().count(), MISTAKES_MAX);
    }

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"listen = \"x\"\n").unwrap();
        assert_eq!(load::<Config>(file.path()).unwrap(), Config { listen: "x".to_owned(), item: Vec::new() });
        let comment = vec![b'#'; usize::try_from(CONFIG_MAX_BYTES).unwrap()];
        file.write_all(&comment).unwrap();
        let error = load::<Config>(file.path()).unwrap_err();
        assert!(matches!(error, ConfigError::TooLarge { .. }), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = load::<Config>(Path::new("/nonexistent/a.toml")).unwrap_err().to_string();
        assert!(error.starts_with("config /nonexistent/a.toml: cannot be read: "), "{error}");
        assert!(load::<Config>(Path::new("/")).is_err());
    }
}
