//! The demand document: `GET /v1/demand`, which anything can serve.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::snapshot::Freshness;

/// The largest demand that a key may have.
pub const DEMAND_MAX: u64 = 1_000_000;

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
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ReadDocument {
    /// By key: to be read by [`read_demand`], so that a bad value spoils only its own key.
    pub demand: BTreeMap<String, serde_json::Value>,
    /// More about some of the keys; what is not to be understood is left out.
    pub details: BTreeMap<String, DemandDetail>,
}

/// Reads any source's demand document. Only `demand` is needed, and it alone can make the document unreadable:
/// `sequence` and `changed_at` inform people, `details` are optional and each is taken by itself. `Err` says what is
/// wrong.
pub fn read_document(body: &[u8]) -> Result<ReadDocument, String> {
    let mut document: serde_json::Map<String, serde_json::Value> =
        serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let demand = match document.remove("demand") {
        Some(serde_json::Value::Object(demand)) => demand.into_iter().collect(),
        Some(_) => return Err("`demand` is not an object of keys and counts".to_owned()),
        None => return Err("`demand` is missing".to_owned()),
    };
    let details = match document.remove("details") {
        Some(serde_json::Value::Object(details)) => details
            .into_iter()
            .filter_map(|(key, detail)| Some((key, serde_json::from_value(detail).ok()?)))
            .collect(),
        _ => BTreeMap::new(),
    };
    Ok(ReadDocument { demand, details })
}

/// Reads one value of a demand document: `Ok(None)` is unknown, `Err` says what is wrong with a bad one.
pub fn read_demand(value: &serde_json::Value) -> Result<Option<u32>, String> {
    if value.is_null() {
        return Ok(None);
    }
    match value.as_u64() {
        Some(containers) if containers <= DEMAND_MAX => Ok(u32::try_from(containers).ok()),
        _ => {
            let mut shown: String = value.to_string().chars().take(40).collect();
            if shown.is_empty() {
                shown.push_str("nothing");
            }
            Err(format!("{shown} is not an integer from 0 to {DEMAND_MAX}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_value_spoils_only_its_own_key() {
        let text = r#"{"sequence":1,"changed_at":"2026-11-22T17:00:00.123Z",
            "demand":{"a":4,"b":null,"c":-1,"d":"7","e":1.5,"f":1000001,"g":1000000,"h":[1]}}"#;
        let document = read_document(text.as_bytes()).unwrap();
        let read: Vec<_> = document.demand.values().map(read_demand).collect();
        assert_eq!(read[0], Ok(Some(4)));
        assert_eq!(read[1], Ok(None));
        assert_eq!(read[6], Ok(Some(1_000_000)));
        for bad in [2, 3, 4, 5, 7] {
            assert!(read[bad].is_err(), "{read:?}");
        }
    }
    #[test]
    fn what_only_informs_spoils_nothing() {
        let wanted: BTreeMap<_, _> = [("a".to_owned(), 4.into())].into();
        for informing in [
            "",
            r#", "sequence": "x", "changed_at": 12"#,
            r#", "details": null"#,
            r#", "details": []"#,
            r#", "details": {"a": 7, "zz": {"age_ms": "soon"}}"#,
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
