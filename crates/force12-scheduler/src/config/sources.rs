//! Where demand comes from: `[[demand_source]]`.

use std::collections::BTreeSet;

use controller::SourceSettings;
use reqwest::Url;

use super::file::{DemandSourceTable, ServiceTable};
use super::rules::{DAY_MS, name, range, unique};
use super::settings::Source;
use super::{Place, Problems};

/// The longest that a source is asked to hold its answer: short enough that proxies on the way let it pass.
const WAIT_MS_MAX: u64 = 5_000;

pub(super) fn sources(
    tables: Vec<DemandSourceTable>,
    services: &[ServiceTable],
    problems: &mut Problems<'_>,
) -> Vec<Source> {
    let mut seen = BTreeSet::new();
    let used: BTreeSet<&str> =
        services.iter().filter_map(|service| Some(service.demand.as_ref()?.source.as_str())).collect();
    tables
        .into_iter()
        .enumerate()
        .filter_map(|(index, table)| {
            let place = Place::table("demand_source", index, &table.name);
            name(&table.name, &place.key("name"), problems);
            unique(&mut seen, &table.name, "demand source", &place, problems);
            let is_used = used.contains(table.name.as_str());
            if !is_used {
                problems.warning(&place, "no service takes its demand from it, so it is not asked".to_owned());
            }
            range(table.poll_ms, 10..=3_600_000, &place.key("poll_ms"), problems);
            range(table.stale_after_ms, 500..=DAY_MS, &place.key("stale_after_ms"), problems);
            if table.stale_after_ms < table.poll_ms.saturating_mul(2) {
                problems.error(
                    &place.key("stale_after_ms"),
                    format!(
                        "{} is less than twice poll_ms ({}), so one late answer would make its demands stale; \
                         raise it, or lower poll_ms",
                        table.stale_after_ms, table.poll_ms
                    ),
                );
            }
            let url = source_url(&table.url, &place.key("url"), problems)?;
            // Asked to hold its answers so long that it confirms its demands three times before they are stale.
            let wait_ms = (table.stale_after_ms / 3 / 1_000 * 1_000).min(WAIT_MS_MAX);
            let settings = SourceSettings { name: table.name, poll_ms: table.poll_ms, wait_ms };
            is_used.then_some(Source { url, settings })
        })
        .collect()
}

fn source_url(text: &str, place: &Place, problems: &mut Problems<'_>) -> Option<Url> {
    // The text itself is left out of what is said of it: it may hold a password.
    let example = "for example http://demand-rng:8081/v1/demand";
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(error) => {
            problems.error(place, format!("is not a URL ({error}); {example}"));
            return None;
        }
    };
    if !matches!(url.scheme(), "http" | "https") {
        problems.error(
            place,
            format!("the scheme of a demand source is http or https, not `{}`; {example}", url.scheme()),
        );
        return None;
    }
    if !url.username().is_empty() || url.password().is_some() {
        problems
            .error(place, "holds a user or a password, which would show in logs; take them out".to_owned());
        return None;
    }
    if url.fragment().is_some() {
        problems.error(place, "has a fragment (`#`), which is never sent; take it out".to_owned());
    }
    Some(url)
}
