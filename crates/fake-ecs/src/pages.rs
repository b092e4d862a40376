//! Pages: a listing gives at most 100 names, and a token for the rest.
//!
//! `maxResults` is 1 to 100 and 100 by default; `nextToken` is null after the last page
//! (<https://docs.aws.amazon.com/AmazonECS/latest/APIReference/API_ListTasks.html>). Between pages, things come and go:
//! what is there all the time is listed once.

use std::fmt::Write as _;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::wire::ApiError;

/// The most names of a page, and the most things of a description.
pub(crate) const PAGE: usize = 100;

/// What a request says about pages.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Paging {
    max_results: Option<usize>,
    next_token: Option<String>,
}

impl Paging {
    fn limit(&self) -> Result<usize, ApiError> {
        match self.max_results {
            None => Ok(PAGE),
            Some(limit @ 1..=PAGE) => Ok(limit),
            Some(_) => Err(ApiError::invalid("maxResults must be between 1 and 100.")),
        }
    }

    /// The key that the last page ended with.
    fn after(&self) -> Result<Option<String>, ApiError> {
        let Some(token) = &self.next_token else { return Ok(None) };
        let refused = || ApiError::invalid("Invalid token.");
        let bytes: Option<Vec<u8>> = token
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok())
            .collect();
        String::from_utf8(bytes.ok_or_else(refused)?).map(Some).map_err(|_error| refused())
    }

    /// One page of `all`, which is in ascending order of its keys, or in descending order. `field` names the list.
    pub(crate) fn page(
        &self,
        field: &str,
        all: impl Iterator<Item = (String, String)>,
        descending: bool,
    ) -> Result<Value, ApiError> {
        let limit = self.limit()?;
        let after = self.after()?;
        let is_next = |key: &String| {
            after.as_ref().is_none_or(|after| if descending { key < after } else { key > after })
        };
        let mut page: Vec<(String, String)> = all.filter(|(key, _)| is_next(key)).take(limit + 1).collect();
        let is_last = page.len() <= limit;
        page.truncate(limit);
        let token = page.last().filter(|_| !is_last).map(|(key, _)| hex(key));
        let names: Vec<String> = page.into_iter().map(|(_, name)| name).collect();
        Ok(match token {
            Some(token) => json!({field: names, "nextToken": token}),
            None => json!({field: names}),
        })
    }
}

/// A token says nothing to whoever holds it.
fn hex(key: &str) -> String {
    key.bytes().fold(String::new(), |mut token, byte| {
        let _ = write!(token, "{byte:02x}");
        token
    })
}
