//! The demand document: `GET /v1/demand`, which anything can serve.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::Timestamp;
use crate::snapshot::Freshness;

/// The largest demand that a key may have.
pub const DEMAND_MAX: u64 = 1_000_000;
/// How much of a bad value is shown.
const SHOWN_CHARACTERS_MAX: usize = 40;

/// How many containers are wanted now, by key. Of other sources only `demand` is asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DemandDocument {
    /// Rises with each change, while the source runs.
    pub sequence: u64,
    /// When it last changed, by the source's clock; informs only.
    pub changed_at: Timestamp,
    /// By key: an integer from 0 to 1,000,000; null or absent is unknown.
    #[schema(value_type = BTreeMap<String, Option<u32>>)]
    pub demand: BTreeMap<String, serde_json::Value>,
    /// More about some of the keys.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub details: BTreeMap<String, DemandDetail>,
}

/// More about one key's demand.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DemandDetail {
    /// How far it can be trusted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub freshness: Option<Freshness>,
    /// How old it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub age_ms: Option<u64>,
    /// Why it is unknown or stale.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Values to hold: `PUT /v1/demand` of a source that can be played with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct HoldDemand {
    /// By key: an integer from 0 to 1,000,000, or null for unknown.
    pub demand: BTreeMap<String, Option<u32>>,
}

/// What a reader takes from a demand document.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadDocument {
    /// By key: a count of containers, unknown (`Ok(None)`), or what is wrong with the value.
    pub demand: BTreeMap<String, Result<Option<u32>, String>>,
    /// More about some of the keys; what is not to be understood is left out.
    pub details: BTreeMap<String, DemandDetail>,
}

/// Reads any source's demand document. Only `demand` is needed, and it alone can make the document unreadable:
/// `sequence` and `changed_at` inform people, `details` are optional and each is taken by itself. A bad value spoils
/// only its own key, also where it is a number that no program can hold. `Err` says what is wrong.
pub fn read_document(body: &[u8]) -> Result<ReadDocument, String> {
    let members: Members<'_> = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let (mut demand, mut details) = (None, None);
    for (name, value) in members.0 {
        let kept = match name.as_str() {
            "demand" => &mut demand,
            "details" => &mut details,
            _ => continue,
        };
        if kept.replace(value).is_some() {
            return Err(format!("`{name}` is given twice"));
        }
    }
    let demand = demand.ok_or("`demand` is missing")?;
    let demand: Members<'_> = serde_json::from_str(demand.get())
        .map_err(|_| "`demand` is not an object of keys and counts".to_owned())?;
    let mut read = ReadDocument::default();
    for (key, value) in demand.0 {
        match read.demand.entry(key) {
            Entry::Vacant(entry) => {
                entry.insert(read_value(value));
            }
            // Which of them is meant? JSON does not say, and readers differ.
            Entry::Occupied(mut entry) => {
                *entry.get_mut() = Err("it is given more than once".to_owned());
            }
        }
    }
    let details = details.and_then(|details| serde_json::from_str::<Members<'_>>(details.get()).ok());
    for (key, detail) in details.map(|details| details.0).unwrap_or_default() {
        if let Ok(detail) = serde_json::from_str(detail.get()) {
            read.details.insert(key, detail);
        }
    }
    Ok(read)
}

/// Reads one value of a demand document: `Ok(None)` is unknown, `Err` says what is wrong with a bad one.
fn read_value(value: &RawValue) -> Result<Option<u32>, String> {
    let bad = || {
        let mut characters = value.get().chars();
        let mut shown: String = characters.by_ref().take(SHOWN_CHARACTERS_MAX).collect();
        if characters.next().is_some() {
            shown.push('…');
        }
        format!("{shown} is not an integer from 0 to {DEMAND_MAX}")
    };
    let containers: Option<u64> = serde_json::from_str(value.get()).map_err(|_| bad())?;
    match containers {
        Some(containers) if containers > DEMAND_MAX => Err(bad()),
        Some(containers) => Ok(u32::try_from(containers).ok()),
        None => Ok(None),
    }
}

/// An object as it is written: each value unread, since one that cannot be held (1e999) is an error of the whole text
/// otherwise; names that are given twice are there twice.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;

        impl<'de> Visitor<'de> for Each {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }

        deserializer.deserialize_map(Each)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_value_spoils_only_its_own_key() {
        let long = format!("\"{}\"", "x".repeat(50));
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        for (value, wanted) in [
            ("4", Ok(Some(4))),
            ("0", Ok(Some(0))),
            ("1000000", Ok(Some(1_000_000))),
            ("null", Ok(None)),
            ("-1", Err("-1")),
            ("-0", Err("-0")),
            ("\"7\"", Err("\"7\"")),
            ("1.5", Err("1.5")),
            ("4.0", Err("4.0")),
            ("1e3", Err("1e3")),
            ("1e999", Err("1e999")),
            ("-1e999", Err("-1e999")),
            ("1000001", Err("1000001")),
            ("18446744073709551616", Err("18446744073709551616")),
            ("true", Err("true")),
            ("[1]", Err("[1]")),
            ("{\"now\": 4}", Err("{\"now\": 4}")),
            (&long, Err("\"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…")),
            (&deep, Err("[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[…")),
        ] {
            let text = format!(r#"{{"demand": {{"a": {value}, "good": 3}}}}"#);
            let demand = read_document(text.as_bytes()).unwrap().demand;
            let wanted = wanted.map_err(|shown| format!("{shown} is not an integer from 0 to 1000000"));
            assert_eq!(demand["a"], wanted, "{value}");
            assert_eq!(demand["good"], Ok(Some(3)), "beside {value}");
        }
    }

    #[test]
    fn a_key_that_is_given_twice_is_no_demand() {
        let text = r#"{"demand": {"a": 4, "b": 5, "a": 4, "a": 9}}"#;
        let demand = read_document(text.as_bytes()).unwrap().demand;
        assert_eq!(demand["a"], Err("it is given more than once".to_owned()));
        assert_eq!(demand["b"], Ok(Some(5)));
        let twice = read_document(br#"{"demand": {"a": 4}, "demand": {"a": 9}}"#);
        assert_eq!(twice, Err("`demand` is given twice".to_owned()));
    }

    #[test]
    fn what_only_informs_spoils_nothing() {
        let wanted: BTreeMap<_, _> = [("a".to_owned(), Ok(Some(4)))].into();
        for informing in [
            "",
            r#", "sequence": "x", "changed_at": 12"#,
            r#", "sequence": 1e999, "changed_at": "9999-99-99""#,
            r#", "details": null"#,
            r#", "details": []"#,
            r#", "details": {"a": 7, "zz": {"age_ms": "soon"}}"#,
            r#", "details": {"zz": {"age_ms": 1e999}}"#,
            r#", "of_a_newer_source": {}"#,
        ] {
            let text = format!(r#"{{"demand": {{"a": 4}}{informing}}}"#);
            let document = read_document(text.as_bytes()).unwrap();
            assert_eq!((document.demand, document.details.len()), (wanted.clone(), 0), "{text}");
        }
        let text = r#"{"demand": {}, "details": {"zz": {"age_ms": -1}, "b": {"reason": "r", "more": 1}}}"#;
        let details = read_document(text.as_bytes()).unwrap().details;
        assert_eq!(details.keys().collect::<Vec<_>>(), ["b"]);
        assert_eq!(details["b"].reason.as_deref(), Some("r"));
    }

    #[test]
    fn without_its_demand_it_is_no_document() {
        for (text, wanted) in [
            ("{}", "`demand` is missing"),
            (r#"{"demand": null}"#, "`demand` is not an object of keys and counts"),
            (r#"{"demand": [4]}"#, "`demand` is not an object of keys and counts"),
            (r#"[{"a": 4}]"#, "invalid type: sequence"),
            ("", "EOF while parsing"),
        ] {
            let error = read_document(text.as_bytes()).unwrap_err();
            assert!(error.starts_with(wanted), "{text}: {error}");
        }
    }
}
