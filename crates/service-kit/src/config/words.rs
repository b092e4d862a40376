//! What serde and the TOML reader say of a mistake, in our words. Values are left out: they may be secrets.

use crate::suggest::{self, Unknown};

/// The key that a message of serde's says is missing.
pub(super) fn missing(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

/// A message of serde's.
pub(super) fn explain(message: &str) -> String {
    if let Some(unknown) = Unknown::read(message) {
        let hint = suggest::hint(message);
        let known = unknown.known.join(", ");
        return match unknown.what {
            "field" => format!("unknown key `{}`{hint} (known here: {known})", unknown.name),
            _ => format!("`{}` is not known here{hint} (give one of: {known})", unknown.name),
        };
    }
    if let Some(key) = missing(message) {
        return format!("missing key `{key}`; add it");
    }
    if let Some((found, expected)) =
        message.strip_prefix("invalid type: ").and_then(|rest| rest.split_once(", expected "))
    {
        return format!("must be {}, not {}", wanted(expected), kind(found));
    }
    if let Some((found, expected)) =
        message.strip_prefix("invalid value: integer `").and_then(|rest| rest.split_once("`, expected "))
    {
        return match most(expected) {
            Some(_) if found.starts_with('-') => {
                format!("{found} is out of range; give a whole number of 0 or more")
            }
            Some(most) => format!("{found} is out of range; give a whole number up to {most}"),
            None => format!("must be {}, not {found}", wanted(expected)),
        };
    }
    if message == "invalid socket address syntax" {
        return "is not an address and a port; write both, as in \"127.0.0.1:8080\" or \"[::1]:8080\" (names are not \
                looked up)"
            .to_owned();
    }
    one_line(message)
}

/// A message of the TOML reader's.
pub(super) fn syntax(message: &str) -> String {
    format!("is not TOML: {}", one_line(message))
}

fn one_line(message: &str) -> String {
    message.trim().replace('\n', "; ")
}

/// What serde expects, as it is written in TOML.
fn wanted(expected: &str) -> &str {
    match expected {
        "i64" | "u64" | "u32" | "u16" | "u8" | "usize" => "a whole number",
        "f64" => "a number",
        "a boolean" => "true or false, without quotes",
        "a string" | "path string" | "socket address" | "string or table" => "text in quotes",
        "a sequence" => "a list, as in [\"one\", \"two\"]",
        "a map" => "a table, as in { key = \"value\" }",
        other if other.starts_with("struct ") => "a table, as in { key = \"value\" }",
        other => other,
    }
}

/// The kind of value that serde found.
fn kind(found: &str) -> &str {
    match found.split_whitespace().next().unwrap_or(found) {
        "string" => "text",
        "integer" => "a whole number",
        "floating" => "a number with a fraction",
        "boolean" => "true or false",
        "sequence" => "a list",
        "map" => "a table",
        _ => found,
    }
}

/// The largest value of an integer type.
fn most(expected: &str) -> Option<u64> {
    match expected {
        "u64" => Some(i64::MAX.unsigned_abs()),
        "u32" => Some(u32::MAX.into()),
        "u16" => Some(u16::MAX.into()),
        "u8" => Some(u8::MAX.into()),
        _ => None,
    }
}
