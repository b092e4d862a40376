//! What serde and the TOML reader say of a mistake, in our words. Values are left out: they may be secrets.

use crate::suggest::{self, Unknown};

/// The key that a message of serde's says is missing.
pub(super) fn missing(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

/// The unknown key of a message of serde's, and the known one that was meant, if any.
pub(super) fn unknown_key(message: &str) -> Option<(&str, Option<&str>)> {
    let unknown = Unknown::read(message).filter(|unknown| unknown.what == "field")?;
    Some((unknown.name, suggest::nearest(unknown.name, &unknown.known)))
}

/// A message of serde's.
pub(super) fn explain(message: &str) -> String {
    if let Some(unknown) = Unknown::read(message) {
        let hint = suggest::hint(message);
        let known = unknown.known.join(", ");
        return match (unknown.what, hint.as_str()) {
            ("field", "") => {
                format!("unknown key `{}`; remove it, or give one that is known here: {known}", unknown.name)
            }
            ("field", _) => format!("unknown key `{}`{hint}", unknown.name),
            _ => format!("`{}` is not known here{hint} (give one of: {known})", unknown.name),
        };
    }
    if let Some(key) = missing(message) {
        return format!("missing key `{key}`; add it");
    }
    if let Some((found, expected)) =
        message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    {
        return match (wanted(expected), kind(found)) {
            // Of more than 64 bits.
            (WHOLE, WHOLE) => "is out of range; give a smaller number".to_owned(),
            (LIST, TABLE) => {
                "must be a list; where it is one of tables, write each header with two brackets, as in [[name]]"
                    .to_owned()
            }
            (wanted, found) => format!("must be {wanted}, not {found}"),
        };
    }
    if let Some((found, expected)) =
        message.strip_prefix("invalid value: ").and_then(|rest| rest.split_once(", expected "))
    {
        let number = found.strip_prefix("integer `").and_then(|rest| rest.strip_suffix('`'));
        return match (number, most(expected)) {
            (Some(number), Some(_)) if number.starts_with('-') => {
                format!("{number} is out of range; give a whole number of 0 or more")
            }
            (Some(number), Some(most)) => {
                format!("{number} is out of range; give a whole number up to {most}")
            }
            _ => format!("must be {}", wanted(expected)),
        };
    }
    match message {
        "invalid socket address syntax" => {
            "is not an address and a port; write both, as in \"127.0.0.1:8080\" or \"[::1]:8080\" (names are not \
             looked up)"
                .to_owned()
        }
        // Of an enumeration.
        "wanted string or table" => format!("must be {TEXT}"),
        _ => one_line(message),
    }
}

/// A message of the TOML reader's.
pub(super) fn syntax(message: &str) -> String {
    let (what, expected) = message.split_once(", expected ").unwrap_or((message, ""));
    let remedy = match what {
        "string values must be quoted" => {
            "a value is missing, or is neither a number, nor true or false, nor text in quotes; write key = \"text\""
        }
        "key with no value" | "invalid key-value pair" => "this is no key with its value; write key = value",
        "unexpected key or value" => {
            "something follows the value; write one key a line, and numbers without separators"
        }
        "duplicate key" => "this key is there above already; remove one of the two",
        "invalid boolean" => "write true or false, in lower case",
        "unexpected leading zero" => "a number begins with 0; write it without",
        "missing escaped value" => "a backslash begins an escape; write \\\\ for a backslash itself",
        "invalid basic string" if expected == "`\"`" => "the text is not closed; end it with \"",
        "invalid basic string" => "the text holds a control character; write it as an escape, as in \\n",
        "missing comma between array elements" => "a list is not closed with ], or lacks a comma",
        "missing key for inline table element" => "a table is not closed with }, or lacks a key",
        "unclosed array table" => "the header is not closed; write [[name]]",
        "cannot recurse further; max recursion depth met" => "it is nested too deep; is it the right file?",
        _ => return format!("is not TOML: {}", one_line(message)),
    };
    format!("is not TOML: {remedy}")
}

fn one_line(message: &str) -> String {
    message.trim().replace('\n', "; ")
}

const WHOLE: &str = "a whole number";
const TEXT: &str = "text in quotes";
const LIST: &str = "a list, as in [\"one\", \"two\"]";
const TABLE: &str = "a table";

/// What serde expects, as it is written in TOML.
fn wanted(expected: &str) -> &str {
    match expected {
        "u64" | "u32" | "u16" | "u8" | "usize" => WHOLE,
        "f64" => "a number",
        "a boolean" => "true or false, without quotes",
        "a string" | "path string" | "socket address" | "string or table" => TEXT,
        "a sequence" => LIST,
        "a map" => "a table, as in { key = \"value\" }",
        other if other.starts_with("struct ") => "a table, as in { key = \"value\" }",
        other => other,
    }
}

/// The kind of value that serde found.
fn kind(found: &str) -> &str {
    match found.split_whitespace().next().unwrap_or(found) {
        "string" => "text",
        "integer" => WHOLE,
        "floating" => "a number with a fraction",
        "boolean" => "true or false",
        "sequence" => "a list",
        // Or a date, which is read as one; nobody writes one here.
        "map" => TABLE,
        _ => "this",
    }
}

/// The largest value of an integer type.
fn most(expected: &str) -> Option<u64> {
    match expected {
        "u64" => Some(u64::MAX),
        "u32" => Some(u32::MAX.into()),
        "u16" => Some(u16::MAX.into()),
        "u8" => Some(u8::MAX.into()),
        _ => None,
    }
}
