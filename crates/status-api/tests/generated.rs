//! The generated files in the repository are those of this code, and the example config is a config.

use std::path::Path;

use service_kit::generated::{check, pretty};
use status_api::config::{self, Config};

fn path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

#[test]
fn openapi_is_up_to_date() {
    check(&path("openapi.json"), &status_api::http::openapi()).unwrap();
}

#[test]
fn the_schema_of_the_config_is_up_to_date() {
    check(&path("config.schema.json"), &pretty(&config::schema())).unwrap();
}

#[test]
fn the_example_is_valid_and_names_every_key() {
    config::load(&path("example.toml")).unwrap();
    let text = std::fs::read_to_string(path("example.toml")).unwrap();
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    for properties in ["/properties", "/$defs/History/properties"] {
        for key in schema.pointer(properties).unwrap().as_object().unwrap().keys() {
            let named = [format!("{key} = "), format!("# {key} = "), format!("[{key}]")];
            assert!(named.iter().any(|name| text.lines().any(|line| line.starts_with(name))), "{key}");
        }
    }
}
