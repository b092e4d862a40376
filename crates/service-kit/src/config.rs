//! A service's configuration: one TOML file, read whole or refused whole.
//!
//! [`text`] reads a file within its bounds, or a variable of the environment, [`parse`] makes the service's own type of it,
//! and [`Problems`] takes what a type cannot say. Types that are read here should carry `#[serde(deny_unknown_fields)]`: that is what refuses an
//! unknown key.
//!
//! A refusal names everything that is wrong, as far as one mistake does not hide another: all unknown keys, wrong types
//! and missing keys together; when there are none, all values that do not hold. A mistake in the TOML itself comes
//! alone: what follows it cannot be understood.

mod place;
mod structure;
mod words;

use std::env::{self, VarError};
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::file::{self, Access, FileError};

pub use place::{Place, Problems};

/// The most bytes that a config file may have: far above a pool of thousands of instances, far below harm.
pub const CONFIG_MAX_BYTES: u64 = 1024 * 1024;

/// A path that begins with this names a variable of the environment, whose value is the file's text. For those who can give
/// a container variables and no files, such as ECS. What it says is never seen to change; a file of such a name is `./env:…`.
const IN_THE_ENVIRONMENT: &str = "env:";

/// The most mistakes of one file that are told; the others are counted.
const MISTAKES_TOLD_MAX: usize = 20;

/// Why a configuration is refused. Its text names the file, and the line and column where there is one.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file is refused.
    #[error("config {file}; {remedy}", file = .0, remedy = remedy(.0))]
    File(#[from] FileError),
    /// The text is not what the service's configuration looks like.
    #[error("{}", lines(.0))]
    Invalid(Vec<Mistake>),
}

fn remedy(error: &FileError) -> &'static str {
    match error {
        FileError::Read { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
            "let the user that this runs as read it, and enter the directories above it"
        }
        FileError::Read { .. } => "give the right path with --config or FORCE12_CONFIG",
        FileError::TooLarge { .. } => "is it the right file?",
        FileError::NotAFile(_) | FileError::Exposed { .. } => {
            "give the path of a TOML file with --config or FORCE12_CONFIG"
        }
    }
}

/// One thing that is wrong, or doubtful, in a configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// The file, or what the text was said to come from.
    pub file: String,
    /// Where: line and column in characters, both from 1; `None` where nothing is written that could be pointed at.
    pub place: Option<(usize, usize)>,
    /// The key, such as `service.web.min`; empty for the file as a whole.
    pub key: String,
    /// What is wrong, and how to mend it.
    pub message: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "config {}", self.file)?;
        if let Some((line, column)) = self.place {
            write!(formatter, ":{line}:{column}")?;
        }
        if !self.key.is_empty() {
            write!(formatter, ": {}", self.key)?;
        }
        write!(formatter, ": {}", self.message)
    }
}

/// A line for each mistake, at most 20 of them, and how many more there are.
pub fn lines(mistakes: &[Mistake]) -> String {
    let mut lines: Vec<String> =
        mistakes.iter().take(MISTAKES_TOLD_MAX).map(std::string::ToString::to_string).collect();
    if mistakes.len() > MISTAKES_TOLD_MAX {
        let left = mistakes.len() - MISTAKES_TOLD_MAX;
        lines.push(format!("config {}: and {left} more; mend these first", mistakes[0].file));
    }
    lines.join("\n")
}

/// Reads the TOML at `path`, as [`text`] finds it.
pub fn load<T: DeserializeOwned>(path: &Path) -> Result<T, ConfigError> {
    parse(&path.display().to_string(), &text(path)?)
}

/// The address that the file at `path` has a service listen on, whatever else is in the file; `default` if it says
/// nothing of it.
///
/// For the healthcheck of a service that runs: a mistake made in the file since is not its death.
pub fn listen(path: &Path, default: SocketAddr) -> Result<SocketAddr, ConfigError> {
    #[derive(Deserialize)]
    struct Listen {
        listen: Option<SocketAddr>,
    }
    Ok(load::<Listen>(path)?.listen.unwrap_or(default))
}

/// The text of the regular file at `path`, at most [`CONFIG_MAX_BYTES`] of it; of the variable `NAME` of the environment
/// where the path is `env:NAME`.
pub fn text(path: &Path) -> Result<String, ConfigError> {
    if let Some(variable) = path.to_str().and_then(|path| path.strip_prefix(IN_THE_ENVIRONMENT)) {
        return of_variable(variable, env::var(variable));
    }
    let bytes = file::read(path, CONFIG_MAX_BYTES, Access::Public)?;
    let file = path.display().to_string();
    decode(&bytes).map_err(|(line, what)| {
        let message = format!("{what}; save it as UTF-8");
        ConfigError::Invalid(vec![Mistake { file, place: Some((line, 1)), key: String::new(), message }])
    })
}

fn of_variable(name: &str, value: Result<String, VarError>) -> Result<String, ConfigError> {
    value.map_err(|error| {
        let message = match error {
            VarError::NotPresent => format!(
                "the environment has no variable {name}; set it to the text of the config, or give the path of a TOML \
                 file with --config or FORCE12_CONFIG"
            ),
            VarError::NotUnicode(_) => format!("the variable {name} of the environment is not UTF-8"),
        };
        let file = format!("{IN_THE_ENVIRONMENT}{name}");
        ConfigError::Invalid(vec![Mistake { file, place: None, key: String::new(), message }])
    })
}

/// The text in `bytes`, or the line of the first thing that is none, and what it is.
fn decode(bytes: &[u8]) -> Result<String, (usize, String)> {
    let line_of = |at: usize| bytes[..at].split(|byte| *byte == b'\n').count();
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err((1, "the text is UTF-16".to_owned()));
    }
    if let Some(at) = bytes.iter().position(|byte| *byte == 0) {
        return Err((line_of(at), "holds a NUL byte, so it is no text, or UTF-16".to_owned()));
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(error) => {
            let at = error.valid_up_to();
            Err((line_of(at), format!("holds the byte 0x{:02x}, which is not UTF-8", bytes[at])))
        }
    }
}

/// Reads TOML `text` that came from `file`, which is only named in errors.
pub fn parse<T: DeserializeOwned>(file: &str, text: &str) -> Result<T, ConfigError> {
    structure::parse(text).map_err(|found| {
        let mut mistakes: Vec<Mistake> = found
            .into_iter()
            .map(|found| Mistake {
                file: file.to_owned(),
                place: found.at.map(|at| line_and_column(text, at)),
                key: found.key,
                message: found.message,
            })
            .collect();
        mistakes.sort_by_key(|mistake| mistake.place);
        ConfigError::Invalid(mistakes)
    })
}

/// Line and column, in characters and from 1, of byte `at`.
fn line_and_column(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    (before.matches('\n').count() + 1, before[line_start..].chars().count() + 1)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

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
            "config a.toml:2:1: unknown key `lisen`; did you mean `listen`?\n\
             config a.toml:6:3: item.ä: unknown key `intervall_ms`; did you mean `interval_ms`?\n\
             config a.toml:10:1: item.b: unknown key `colour`; remove it, or give one that is known here: key, interval_ms"
        );
    }

    #[test]
    fn mistakes_of_every_kind_are_reported_together_and_none_twice() {
        assert_eq!(
            refused(
                "colour = 1\nlisten = 2\n[[item]]\nkey = 1\ninterval_ms = \"soon\"\n[[item]]\ninterval_ms = -1\n"
            ),
            "config a.toml:1:1: unknown key `colour`; remove it, or give one that is known here: listen, item\n\
             config a.toml:2:10: listen: must be text in quotes, not a whole number\n\
             config a.toml:4:7: item[0].key: must be text in quotes, not a whole number\n\
             config a.toml:5:15: item[0].interval_ms: must be a whole number, not text\n\
             config a.toml:6:1: item[1]: missing key `key`; add it\n\
             config a.toml:7:15: item[1].interval_ms: -1 is out of range; give a whole number of 0 or more"
        );
    }

    #[test]
    fn what_is_missing_is_placed_where_it_belongs() {
        assert_eq!(
            refused("listen = \"x\"\n[[item]]\n"),
            "config a.toml:2:1: item[0]: missing key `key`; add it"
        );
        assert_eq!(refused("item = []\n"), "config a.toml: missing key `listen`; add it");
        assert_eq!(
            refused("# listen = 1\n"),
            "config a.toml: nothing is set; the service's example.toml shows every key"
        );
    }

    #[test]
    fn what_is_misspelt_is_not_missing_too() {
        assert_eq!(
            refused("lisen = \"x\"\n"),
            "config a.toml:1:1: unknown key `lisen`; did you mean `listen`?"
        );
    }

    #[test]
    fn a_key_of_the_file_in_a_table_is_told_where_it_belongs() {
        assert_eq!(
            refused("[[item]]\nkey = \"a\"\nlisten = \"x\"\n"),
            "config a.toml:3:1: item.a: `listen` is a key of the file itself, and stands in a table; put it above the \
             first [table]"
        );
    }

    #[test]
    fn a_mistake_in_the_toml_comes_alone() {
        let syntax = refused("listen = \"x\"\nitem = [\n");
        assert!(syntax.starts_with("config a.toml:"), "{syntax}");
        assert!(refused("listen = \"x\"\nlisten = \"y\"\nlisen = 1\n").contains("remove one of the two"));
    }

    #[test]
    fn mistakes_are_bounded() {
        let text = (0..100).map(|n| format!("k{n} = 1")).collect::<Vec<_>>().join("\n");
        let refused = refused(&text);
        assert_eq!(refused.lines().count(), MISTAKES_TOLD_MAX + 1);
        assert!(refused.ends_with("\nconfig a.toml: and 80 more; mend these first"), "{refused}");
    }

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"listen = \"x\"\n").unwrap();
        assert_eq!(load::<Config>(file.path()).unwrap(), Config { listen: "x".to_owned(), item: Vec::new() });
        let comment = vec![b'#'; usize::try_from(CONFIG_MAX_BYTES).unwrap()];
        file.write_all(&comment).unwrap();
        let error = load::<Config>(file.path()).unwrap_err();
        assert!(matches!(error, ConfigError::File(FileError::TooLarge { .. })), "{error}");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = load::<Config>(Path::new("/nonexistent/a.toml")).unwrap_err().to_string();
        assert!(error.starts_with("config /nonexistent/a.toml: cannot be read: "), "{error}");
        assert!(matches!(load::<Config>(Path::new("/")), Err(ConfigError::File(FileError::NotAFile(_)))));
    }

    #[test]
    fn a_variable_of_the_environment_may_hold_the_text() {
        // Set for every test of cargo's.
        assert_eq!(text(Path::new("env:CARGO_PKG_NAME")).unwrap(), "service-kit");
        let error = load::<Config>(Path::new("env:CARGO_PKG_NAME")).unwrap_err().to_string();
        assert!(error.starts_with("config env:CARGO_PKG_NAME:1:"), "{error}");
        let error = load::<Config>(Path::new("env:FORCE12_NOT_THERE")).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "config env:FORCE12_NOT_THERE: the environment has no variable FORCE12_NOT_THERE"
            ),
            "{error}"
        );
        let not_text = VarError::NotUnicode(std::os::unix::ffi::OsStringExt::from_vec(vec![0xff]));
        let error = of_variable("A", Err(not_text)).unwrap_err().to_string();
        assert_eq!(error, "config env:A: the variable A of the environment is not UTF-8");
    }

    #[test]
    fn what_is_no_utf_8_is_placed() {
        let utf_16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        assert_eq!(decode(&utf_16("\u{feff}a = 1")).unwrap_err().0, 1);
        assert_eq!(decode(&utf_16("a = 1\n")).unwrap_err().0, 1);
        assert_eq!(decode(b"a = 1\nb = \"\xe9\"").unwrap_err().0, 2);
        assert_eq!(decode(b"a = \"\xc3\xa9\"").unwrap(), "a = \"é\"");
        assert_eq!(parse::<Config>("a.toml", "\u{feff}listen = \"x\"").unwrap().listen, "x", "a UTF-8 mark");
    }
}
