//! The demand document: `GET /v1/demand`, which anything can serve.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::Timestamp;
use crate::snapshot::Freshness;

/// The largest demand that a key may have.
pub const DEMAND_MAX: u64 = 1_000_000;

/// How many containers are wanted now, by key.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DemandDocument {
    /// Rises with each change, while the source runs.
    pub sequence: u64,
    /// When it last changed, by the source's clock; informs only.
    pub changed_at: Timestamp,
    /// By key: an integer from 0 to 1,000,000; null or absent is unknown. The reader takes each value by
    /// itself, so that a bad one spoils only its own key.
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
        let document: DemandDocument = serde_json::from_str(text).unwrap();
        let read: Vec<_> = document.demand.values().map(read_demand).collect();
        assert_eq!(read[0], Ok(Some(4)));
        assert_eq!(read[1], Ok(None));
        assert_eq!(read[6], Ok(Some(1_000_000)));
        for bad in [2, 3, 4, 5, 7] {
            assert!(read[bad].is_err(), "{read:?}");
        }
    }
}
