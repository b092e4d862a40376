//! Butane's YAML, and the Ignition that it becomes.
//!
//! Read here is as much of the variant `flatcar`, version 1.0.0
//! (<https://coreos.github.io/butane/config-flatcar-v1_0/>), as a container instance needs: files and units. Anything
//! else is refused by name; for that, use `butane` itself, and check what comes out of it.

use ignition_config::v3_3;
use serde::Deserialize;
use serde_json::Value;

use crate::ignition::data_url;
use crate::problem::Problem;
use crate::yaml;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Butane {
    variant: String,
    version: String,
    #[serde(default)]
    storage: Storage,
    #[serde(default)]
    systemd: Systemd,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Storage {
    #[serde(default)]
    files: Vec<File>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    path: String,
    /// As it is written: YAML's versions do not agree on what `0600` is.
    #[serde(default)]
    mode: Option<String>,
    #[serde(default)]
    overwrite: Option<bool>,
    contents: FileContents,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FileContents {
    inline: String,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Systemd {
    #[serde(default)]
    units: Vec<Unit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unit {
    name: String,
    #[serde(default)]
    enabled: Option<bool>,
    #[serde(default)]
    mask: Option<bool>,
    #[serde(default)]
    contents: Option<String>,
    #[serde(default)]
    dropins: Vec<DropIn>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DropIn {
    name: String,
    contents: String,
}

/// The variant and version that are read, and what they become.
const VARIANT: &str = "flatcar";
const VERSION: &str = "1.0.0";

/// Makes Ignition of Butane.
///
/// # Errors
///
/// What is not Butane, or not of the part that is read here.
pub(crate) fn to_ignition(text: &str) -> Result<String, Problem> {
    let butane: Butane = yaml::read(text, true)?;
    if (butane.variant.as_str(), butane.version.as_str()) != (VARIANT, VERSION) {
        return Err(Problem::Structure(format!(
            "variant {:?}, version {:?}: only {VARIANT} {VERSION} is read here",
            butane.variant, butane.version
        )));
    }
    let files = butane.storage.files.into_iter().map(File::into_ignition).collect::<Result<_, _>>()?;
    let units = butane.systemd.units.into_iter().map(|unit| {
        let dropins = unit.dropins.into_iter().map(|drop_in| v3_3::Dropin {
            contents: Some(drop_in.contents),
            ..v3_3::Dropin::new(drop_in.name)
        });
        let dropins: Vec<v3_3::Dropin> = dropins.collect();
        v3_3::Unit {
            enabled: unit.enabled,
            mask: unit.mask,
            contents: unit.contents,
            dropins: (!dropins.is_empty()).then_some(dropins),
            ..v3_3::Unit::new(unit.name)
        }
    });
    let config = v3_3::Config {
        storage: Some(v3_3::Storage { files: Some(files), ..Default::default() }),
        systemd: Some(v3_3::Systemd { units: Some(units.collect()) }),
        ..Default::default()
    };
    let mut json = serde_json::to_value(&config).expect("Ignition's types are JSON");
    leave_out_nulls(&mut json);
    Ok(format!("{json}\n"))
}

impl File {
    fn into_ignition(self) -> Result<v3_3::File, Problem> {
        let mode = match &self.mode {
            Some(mode) => {
                let wrong =
                    || Problem::Structure(format!("{}: mode {mode:?}: not octal, like 0644", self.path));
                let digits = mode.strip_prefix('0').ok_or_else(wrong)?;
                Some(
                    i64::from_str_radix(digits.strip_prefix('o').unwrap_or(digits), 8)
                        .map_err(|_| wrong())?,
                )
            }
            None => None,
        };
        Ok(v3_3::File {
            mode,
            overwrite: self.overwrite,
            contents: Some(v3_3::Resource {
                source: Some(data_url(&self.contents.inline)),
                ..v3_3::Resource::default()
            }),
            ..v3_3::File::new(self.path)
        })
    }
}

/// To Ignition, null and nothing are the same; to EC2's limit they are not.
fn leave_out_nulls(json: &mut Value) {
    match json {
        Value::Object(members) => {
            members.retain(|_, value| !value.is_null());
            members.values_mut().for_each(leave_out_nulls);
        }
        Value::Array(values) => values.iter_mut().for_each(leave_out_nulls),
        _ => {}
    }
}
