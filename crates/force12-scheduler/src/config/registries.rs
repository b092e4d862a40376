//! The ways into registries: `[[registry]]` and `docker_config_file`.

use std::collections::BTreeSet;
use std::path::PathBuf;

use driver_docker::{Password, Registries, RegistryLogin, Secret};

use super::file::RegistryTable;
use super::{Environment, Place, Problems};

pub(super) fn registries(
    docker_config_file: Option<PathBuf>,
    tables: Vec<RegistryTable>,
    environment: Environment<'_>,
    problems: &mut Problems<'_>,
) -> Registries {
    if let Some(path) = &docker_config_file {
        let place = Place::top().key("docker_config_file");
        match Registries::check_docker_config_file(path) {
            Ok(false) => {}
            Ok(true) => problems.warning(
                &place,
                "names credential helpers, which are not run: logins that they keep need a [[registry]]"
                    .to_owned(),
            ),
            Err(error) => problems.error(&place, error.to_string()),
        }
    }
    let mut seen = BTreeSet::new();
    let logins = tables.into_iter().enumerate().filter_map(|(index, table)| {
        let place = Place::table("registry", index, &table.server);
        let server = &table.server;
        if server.is_empty() || server.contains(['/', '@', '?', '#']) || server.contains(char::is_whitespace)
        {
            problems.error(
                &place.key("server"),
                format!(
                    "`{server}` is not a registry; write host or host:port, as in registry.example.org:5000"
                ),
            );
        }
        if !seen.insert(server.clone()) {
            problems.error(
                &place.key("server"),
                format!("there is another login for registry `{server}` above; remove one"),
            );
        }
        let username = username(&table, &place, environment, problems);
        let password = password(&table, &place, environment, problems);
        Some(RegistryLogin { server: table.server, username: username?, password: password? })
    });
    Registries { logins: logins.collect(), docker_config_file }
}

fn username(
    table: &RegistryTable,
    place: &Place,
    environment: Environment<'_>,
    problems: &mut Problems<'_>,
) -> Option<String> {
    match (&table.username, &table.username_env) {
        (Some(username), None) if username.is_empty() || username.contains(':') => {
            problems.error(&place.key("username"), "can't be empty or hold a `:`; correct it".to_owned());
            None
        }
        (Some(username), None) => Some(username.clone()),
        (None, Some(variable)) => variable_value(variable, &place.key("username_env"), environment, problems),
        _ => {
            problems.error(place, "give one of username and username_env".to_owned());
            None
        }
    }
}

fn password(
    table: &RegistryTable,
    place: &Place,
    environment: Environment<'_>,
    problems: &mut Problems<'_>,
) -> Option<Password> {
    match (&table.password_env, &table.password_file) {
        (Some(variable), None) => {
            let value = variable_value(variable, &place.key("password_env"), environment, problems)?;
            Some(Password::Given(Secret::new(&value)))
        }
        (None, Some(path)) => {
            let password = Password::File(path.clone());
            if let Err(error) = password.check() {
                problems.error(&place.key("password_file"), error.to_string());
            }
            Some(password)
        }
        _ => {
            problems.error(place, "give one of password_env and password_file".to_owned());
            None
        }
    }
}

fn variable_value(
    variable: &str,
    place: &Place,
    environment: Environment<'_>,
    problems: &mut Problems<'_>,
) -> Option<String> {
    let value = environment(variable);
    if value.is_none() {
        problems.error(
            place,
            format!(
                "`{variable}` is not set in the scheduler's environment; set it there, or correct its name"
            ),
        );
    }
    value
}
