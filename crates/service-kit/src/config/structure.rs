//! Keys and types: whether a text has the shape of a configuration at all.

use std::collections::BTreeSet;
use std::ops::Range;

use serde::de::DeserializeOwned;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::words;
use crate::suggest::Unknown;

/// The most mistakes that are looked for: each means to read the document again.
const MISTAKES_MAX: usize = 100;

/// Stands for the start of the document, which its first table may share.
const ROOT: usize = usize::MAX;

/// One mistake.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// The byte at which it stands.
    pub(super) at: Option<usize>,
    /// The key's path, or that of the table where a key is unknown or missing.
    pub(super) key: String,
    pub(super) message: String,
}

/// Reads `text`, or finds what is wrong with it.
///
/// A deserialiser stops at the first mistake. What it stopped at is taken out, and the rest read again, to find the
/// others as well. Where something that was taken out turns out to be needed, what contains it is taken out too, and
/// nothing said of it.
pub(super) fn parse<T: DeserializeOwned>(text: &str) -> Result<T, Vec<Found>> {
    let document = DeTable::parse(text).map_err(|error| {
        let at = error.span().map(|span| span.start);
        vec![Found { at, key: String::new(), message: words::syntax(error.message()) }]
    })?;
    let root = document.span();
    let mut rest = document.clone();
    let mut found: Vec<Found> = Vec::new();
    // Each by the start of the table that it was in, and its key there.
    let mut taken: BTreeSet<(usize, String)> = BTreeSet::new();
    loop {
        let error = match T::deserialize(toml::Deserializer::from(rest.clone())) {
            Ok(config) if found.is_empty() => return Ok(config),
            Ok(_) => return Err(found),
            Err(error) => error,
        };
        if document.get_ref().is_empty() {
            let message = "nothing is set; the service's example.toml shows every key".to_owned();
            return Err(vec![Found { at: None, key: String::new(), message }]);
        }
        let missing = words::missing(error.message());
        let unknown = words::unknown_key(error.message());
        // Nothing stands where a key of the document itself is missing.
        let span = error.span().filter(|span| missing.is_none() || *span != root);
        let spot = span.as_ref().and_then(|span| {
            let spot = |is_key| spot_in(document.get_ref(), ROOT, span, is_key, &mut Vec::new());
            // A table that is read by hand is pointed at as a whole, its keys are not.
            spot(unknown.is_some()).or_else(|| spot(false))
        });
        let table = spot.as_ref().map_or(ROOT, |spot| spot.start);
        if !missing.is_some_and(|key| taken.contains(&(table, key.to_owned()))) {
            let key = spot.as_ref().map(|spot| spot.words.clone()).unwrap_or_default();
            let at = span.as_ref().map(|span| span.start);
            let message = match unknown {
                Some((name, None)) if !key.is_empty() && is_known_at_the_top::<T>(name) => {
                    taken.insert((ROOT, name.to_owned()));
                    format!(
                        "`{name}` is a key of the file itself, and stands in a table; put it above the first [table]"
                    )
                }
                _ => words::explain(error.message()),
            };
            let mistake = Found { at, key, message };
            if !found.contains(&mistake) {
                found.push(mistake);
            }
        }
        let removed = span.is_some_and(|span| remove(rest.get_mut(), &span));
        if !removed || found.len() == MISTAKES_MAX {
            return Err(found);
        }
        if let Some((table, key)) = spot.and_then(|spot| spot.key) {
            // What was misspelt is not missing too.
            taken.extend(unknown.and_then(|(_, meant)| Some((table, meant?.to_owned()))));
            taken.insert((table, key));
        }
    }
}

fn is_known_at_the_top<T: DeserializeOwned>(name: &str) -> bool {
    // No key is empty: the refusal lists those that are known.
    let refused =
        DeTable::parse("\"\" = 0").ok().map(|document| T::deserialize(toml::Deserializer::from(document)));
    let Some(Err(error)) = refused else { return false };
    Unknown::read(error.message()).is_some_and(|unknown| unknown.known.contains(&name))
}

/// What stands at a span.
struct Spot {
    /// The path of a value; for a key, that of the table that it is in.
    words: String,
    /// Where the value begins.
    start: usize,
    /// Where the table begins that it is in, and its key there; `None` for an item of a list.
    key: Option<(usize, String)>,
}

/// The key, or else the value, at `span` in a table that begins at `start`, or in what it contains.
fn spot_in(
    table: &DeTable<'_>,
    start: usize,
    span: &Range<usize>,
    is_key: bool,
    trail: &mut Vec<String>,
) -> Option<Spot> {
    for (key, value) in table {
        let name = key.get_ref().to_string();
        if is_key && key.span() == *span {
            return Some(Spot { words: joined(trail), start: value.span().start, key: Some((start, name)) });
        }
        trail.push(name.clone());
        // What is within comes first: a list of tables begins where its first table does.
        if let Some(spot) = spot_within(value, span, is_key, trail) {
            return Some(spot);
        }
        if !is_key && value.span() == *span {
            return Some(Spot { words: joined(trail), start: value.span().start, key: Some((start, name)) });
        }
        trail.pop();
    }
    None
}

fn spot_within(
    value: &Spanned<DeValue<'_>>,
    span: &Range<usize>,
    is_key: bool,
    trail: &mut Vec<String>,
) -> Option<Spot> {
    match value.get_ref() {
        DeValue::Table(table) => spot_in(table, value.span().start, span, is_key, trail),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                trail.push(called(item.get_ref(), index));
                if !is_key && item.span() == *span {
                    return Some(Spot { words: joined(trail), start: span.start, key: None });
                }
                if let Some(spot) = spot_within(item, span, is_key, trail) {
                    return Some(spot);
                }
                trail.pop();
            }
            None
        }
        _ => None,
    }
}

/// Takes out the key, the value or the item at `span`; false if there is none.
fn remove(table: &mut DeTable<'_>, span: &Range<usize>) -> bool {
    if table.iter_mut().any(|(_, value)| remove_within(value.get_mut(), span)) {
        return true;
    }
    let found = table
        .iter()
        .find(|(key, value)| key.span() == *span || value.span() == *span)
        .map(|(key, _)| key.get_ref().to_string());
    found.is_some_and(|key| table.remove(key.as_str()).is_some())
}

fn remove_within(value: &mut DeValue<'_>, span: &Range<usize>) -> bool {
    match value {
        DeValue::Table(table) => remove(table, span),
        DeValue::Array(items) => {
            let before = items.len();
            *items = items.iter().filter(|item| item.span() != *span).cloned().collect();
            items.len() < before || items.iter_mut().any(|item| remove_within(item.get_mut(), span))
        }
        _ => false,
    }
}

/// An item of a list: a table by its name where it has one.
fn called(item: &DeValue<'_>, index: usize) -> String {
    let name = ["name", "key", "server"].into_iter().find_map(|key| match item.get(key)?.get_ref() {
        DeValue::String(name) if !name.is_empty() => Some(format!(".{name}")),
        _ => None,
    });
    name.unwrap_or_else(|| format!("[{index}]"))
}

/// `service`, `[0]`, `min`: `service[0].min`.
fn joined(trail: &[String]) -> String {
    let mut words = String::new();
    for part in trail {
        if !words.is_empty() && !part.starts_with(['[', '.']) {
            words.push('.');
        }
        words.push_str(part);
    }
    words
}
