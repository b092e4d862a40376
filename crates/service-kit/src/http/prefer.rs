//! `Prefer: wait` of RFC 7240: a client that would have its answer held until there is something new.

use std::time::Duration;

use axum::http::HeaderMap;
use axum::http::header::HeaderName;

/// The longest that a request with `Prefer: wait` is held.
pub const LONG_POLL_MAX: Duration = Duration::from_mins(1);

/// `Prefer`, of RFC 7240.
pub const PREFER: HeaderName = HeaderName::from_static("prefer");
/// `Preference-Applied`, of RFC 7240.
pub const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How long the client would have its answer held, at most [`LONG_POLL_MAX`]: `Prefer: wait=5` of RFC 7240, in
/// seconds. `None` if it does not say so, or not in a number.
pub fn prefer_wait(headers: &HeaderMap) -> Option<Duration> {
    let preferences = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    // The first counts, where there are several.
    let (_, seconds) = preferences
        .flat_map(|value| value.split(','))
        .filter_map(|preference| preference.split(';').next()?.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))?;
    let seconds: u64 = seconds.trim().trim_matches('"').parse().ok()?;
    Some(Duration::from_secs(seconds).min(LONG_POLL_MAX))
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    #[test]
    fn prefer_is_read_as_written_in_its_rfc() {
        for (values, wanted) in [
            (vec!["wait=5"], Some(5)),
            (vec!["respond-async, wait=10"], Some(10)),
            (vec!["handling=lenient; wait=3, WAIT = \"7\""], Some(7)),
            (vec!["respond-async", "wait=2"], Some(2)),
            (vec!["wait=1, wait=2"], Some(1)),
            (vec!["wait=99999999999"], Some(60)),
            (vec!["wait=0"], Some(0)),
            (vec!["wait"], None),
            (vec!["wait=-1"], None),
            (vec!["wait=1.5"], None),
            (vec![], None),
        ] {
            let mut headers = HeaderMap::new();
            for value in &values {
                headers.append(PREFER, HeaderValue::from_str(value).unwrap());
            }
            assert_eq!(prefer_wait(&headers), wanted.map(Duration::from_secs), "{values:?}");
        }
    }
}
