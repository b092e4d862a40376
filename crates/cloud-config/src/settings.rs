//! The agents' settings as user data has them, wherever they stand: in an environment file, in a unit's `Environment=`,
//! behind `--env`, or in New Relic's YAML.

use std::str::FromStr as _;

use crate::auth_data;
use crate::contents::Contents;
use crate::problem::Problem;
use crate::values::{ClusterName, LicenseKey};

const CLUSTER: &str = "ECS_CLUSTER=";
const AUTH_TYPE: &str = "ECS_ENGINE_AUTH_TYPE=";
const AUTH_DATA: &str = "ECS_ENGINE_AUTH_DATA=";

/// How a license key is given to New Relic's agents, of then and now.
const LICENSE_KEYS: [&str; 3] = ["NRSYSMOND_license_key=", "NRIA_LICENSE_KEY=", "license_key: "];

/// What only a unit that starts New Relic's agent has in it.
const NEW_RELIC_IMAGES: &str = " newrelic/";

/// What writes a setting from a secret store, on the host.
const FETCH_SECRET: &str = "fetch-secret ";

/// A setting's value, and its line, counted from 1.
struct Setting<'a> {
    line: usize,
    value: &'a str,
}

/// Every place where a name is followed by its value. `name` ends with what is between the two.
fn settings<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = Setting<'a>> {
    let lines = text.lines().enumerate();
    let lines = lines.filter(|(_, line)| !line.trim_start().starts_with('#') && !line.contains(FETCH_SECRET));
    lines.flat_map(move |(index, line)| {
        line.match_indices(name).filter_map(move |(position, _)| {
            let (before, rest) = (&line[..position], &line[position + name.len()..]);
            let value = match before.chars().next_back() {
                // A line of its own, of an environment file or of YAML. There quotes are not taken off.
                None => rest,
                Some(' ') if before.trim().is_empty() => rest,
                // A word of a unit's line; systemd takes quotes around it off.
                Some(quote @ ('"' | '\'')) => rest.split(quote).next().unwrap_or_default(),
                Some(' ' | '=') => rest.split(' ').next().unwrap_or_default(),
                Some(_) => return None,
            };
            // Another setting's value, by its name; or what a script prints, which is not known here.
            (!value.starts_with(['$', '%'])).then_some(Setting { line: index + 1, value })
        })
    })
}

/// The values in a text that nobody should see.
pub(crate) fn secrets(text: &str) -> Vec<String> {
    [AUTH_DATA]
        .into_iter()
        .chain(LICENSE_KEYS)
        .flat_map(|name| settings(text, name))
        .map(|setting| setting.value.to_owned())
        .filter(|value| !value.is_empty())
        .collect()
}

/// What is wrong with the settings.
pub(crate) fn problems(contents: &Contents) -> Vec<Problem> {
    let mut problems = clusters(contents);
    problems.extend(logins(contents));
    problems.extend(license_keys(contents));
    problems
}

fn at(place: &str, line: usize) -> String {
    format!("{place}, line {line}")
}

fn clusters(contents: &Contents) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut found = false;
    for (place, text) in contents.texts() {
        for Setting { line, value } in settings(text, CLUSTER) {
            found = true;
            if let Err(error) = ClusterName::parse(value) {
                problems.push(Problem::Cluster { place: at(place, line), why: error.to_string() });
            }
        }
    }
    if !found {
        problems.push(Problem::NoCluster);
    }
    problems
}

fn logins(contents: &Contents) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut auth_type = None;
    let mut data = Vec::new();
    let mut fetched = false;
    for (place, text) in contents.texts() {
        auth_type = settings(text, AUTH_TYPE).last().map(|setting| setting.value).or(auth_type);
        data.extend(settings(text, AUTH_DATA).map(|setting| (at(place, setting.line), setting.value)));
        fetched |= text.lines().any(|line| line.contains(FETCH_SECRET) && line.contains(AUTH_DATA));
    }
    match auth_type {
        Some(auth_type) => {
            for (place, data) in &data {
                if let Err(cause) = auth_data::accepted(auth_type, data) {
                    problems.push(Problem::AuthData { place: place.clone(), cause });
                }
            }
            if data.is_empty() && !fetched {
                problems.push(Problem::HalfAnAuth { missing: "the data" });
            }
        }
        None if fetched || !data.is_empty() => problems.push(Problem::HalfAnAuth { missing: "the type" }),
        None => {}
    }
    problems
}

fn license_keys(contents: &Contents) -> Vec<Problem> {
    let mut problems = Vec::new();
    let (mut found, mut wanted) = (false, false);
    for (place, text) in contents.texts() {
        wanted |= text.contains(NEW_RELIC_IMAGES);
        for name in LICENSE_KEYS {
            found |= text.lines().any(|line| line.contains(FETCH_SECRET) && line.contains(name));
            for Setting { line, value } in settings(text, name) {
                found = true;
                if let Err(error) = LicenseKey::from_str(value) {
                    problems.push(Problem::LicenseKey { place: at(place, line), why: error.0 });
                }
            }
        }
    }
    if wanted && !found {
        problems.push(Problem::NoLicenseKey);
    }
    problems
}
