//! coreos-cloudinit's YAML.
//!
//! Its own validator is a Go program that no package registry carries. What it looks at is known from its source
//! (`config/` and `config/validate/` in <https://github.com/flatcar/coreos-cloudinit>): unknown keys, wrong types,
//! values outside a key's list, contents that can't be decoded, files below `/usr`. All of that is refused here; there,
//! an unknown key or a wrong type is a warning, and what it concerns is not set up. The units are then judged by
//! systemd-analyze, which coreos-cloudinit does not do.

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::contents::{Contents, Unit};
use crate::problem::Problem;
use crate::{write_files, yaml};

/// The whole document. Keys that this project does not use are known by name only.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CloudConfig {
    #[serde(default)]
    coreos: CoreOs,
    #[serde(default)]
    write_files: Vec<File>,
    #[serde(default, rename = "hostname")]
    _hostname: Option<String>,
    #[serde(default, rename = "ssh_authorized_keys")]
    _ssh_authorized_keys: Vec<String>,
    #[serde(default, rename = "users")]
    _users: IgnoredAny,
    #[serde(default, rename = "manage_etc_hosts")]
    _manage_etc_hosts: Option<String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct CoreOs {
    #[serde(default)]
    units: Vec<CoreOsUnit>,
    #[serde(default, rename = "update")]
    _update: IgnoredAny,
    #[serde(default, rename = "locksmith")]
    _locksmith: IgnoredAny,
    #[serde(default, rename = "oem")]
    _oem: IgnoredAny,
    #[serde(default, rename = "etcd")]
    _etcd: IgnoredAny,
    #[serde(default, rename = "etcd2")]
    _etcd2: IgnoredAny,
    #[serde(default, rename = "flannel")]
    _flannel: IgnoredAny,
    #[serde(default, rename = "fleet")]
    _fleet: IgnoredAny,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CoreOsUnit {
    name: String,
    #[serde(default)]
    mask: bool,
    #[serde(default)]
    enable: bool,
    #[serde(default, rename = "runtime")]
    _runtime: bool,
    #[serde(default)]
    content: Option<String>,
    #[serde(default)]
    command: Option<UnitCommand>,
    #[serde(default, alias = "drop-ins")]
    drop_ins: Vec<DropIn>,
}

/// What is done with a unit when the host starts.
#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "kebab-case")]
enum UnitCommand {
    Start,
    Stop,
    Restart,
    Reload,
    TryRestart,
    ReloadOrRestart,
    ReloadOrTryRestart,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DropIn {
    name: String,
    content: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    path: String,
    #[serde(default)]
    content: String,
    #[serde(default)]
    encoding: Option<Encoding>,
    #[serde(default, rename = "owner")]
    _owner: Option<String>,
    #[serde(default)]
    permissions: Option<String>,
}

/// How a content is encoded. There are gzip's too; what is in them could not be looked at here.
#[derive(Deserialize)]
enum Encoding {
    #[serde(rename = "b64", alias = "base64")]
    Base64,
}

/// The sections that a unit which is enabled needs: without them, enabling does nothing.
const INSTALL: &str = "[Install]";

/// Reads a document, strictly.
pub(crate) fn read(text: &str) -> Result<Contents, Vec<Problem>> {
    let config: CloudConfig = yaml::read(text, true).map_err(|problem| vec![problem])?;
    let mut contents = Contents::default();
    let mut problems = Vec::new();
    for file in config.write_files {
        match file.read() {
            Ok((path, _)) if path.starts_with("/usr/") => {
                problems.push(Problem::Structure(format!(
                    "write_files: {path:?}: this host can't write to /usr"
                )));
            }
            Ok((path, text)) => contents.add_file(path, text),
            Err(problem) => problems.push(problem),
        }
    }
    for unit in config.coreos.units {
        if let Some(why) = unit.problem() {
            problems.push(Problem::Unit(format!("{}: {why}", unit.name)));
        }
        contents.add_unit(Unit {
            name: unit.name,
            text: unit.content,
            drop_ins: unit.drop_ins.into_iter().map(|drop_in| (drop_in.name, drop_in.content)).collect(),
        });
    }
    if problems.is_empty() { Ok(contents) } else { Err(problems) }
}

impl CoreOsUnit {
    /// What coreos-cloudinit would take, and the host would make nothing of.
    fn problem(&self) -> Option<&'static str> {
        if self.mask && (self.enable || self.command == Some(UnitCommand::Start)) {
            return Some("is masked, so it can be neither enabled nor started");
        }
        match &self.content {
            Some(content) if content.trim().is_empty() => Some("has an empty content"),
            Some(content) if self.enable && !content.contains(INSTALL) => {
                Some("is enabled and has no [Install], so nothing starts it")
            }
            None if self.command.is_none() && !self.mask && !self.enable && self.drop_ins.is_empty() => {
                Some("says nothing but its name")
            }
            _ => None,
        }
    }
}

impl File {
    fn read(self) -> Result<(String, String), Problem> {
        let is_base64 = self.encoding.is_some();
        write_files::Given {
            path: self.path,
            content: self.content,
            is_base64,
            permissions: self.permissions,
        }
        .read()
    }
}
