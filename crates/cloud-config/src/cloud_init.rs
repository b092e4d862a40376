//! cloud-init's YAML, as Amazon Linux reads it.
//!
//! cloud-init passes over top-level keys that it does not know, with a warning in its log. Which it knows is from its
//! own schema, `cloudinit/config/schemas/schema-cloud-config-v1.json` of version 22.4 (Amazon Linux 2023 has 22.2). What
//! is in the keys is read here as far as it is files and commands; the tests give what is rendered to cloud-init's own
//! `schema` command.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use crate::contents::Contents;
use crate::problem::Problem;
use crate::{write_files, yaml};

/// The top-level keys that cloud-init knows and that mean something on Amazon Linux, in order.
const KEYS: [&str; 63] = [
    "ansible",
    "bootcmd",
    "ca-certs",
    "ca_certs",
    "chef",
    "chpasswd",
    "cloud_config_modules",
    "cloud_final_modules",
    "cloud_init_modules",
    "device_aliases",
    "disable_ec2_metadata",
    "disable_root",
    "disk_setup",
    "final_message",
    "fqdn",
    "fs_setup",
    "groups",
    "growpart",
    "hostname",
    "keyboard",
    "locale",
    "manage_etc_hosts",
    "manage_resolv_conf",
    "merge_how",
    "merge_type",
    "mount_default_fields",
    "mounts",
    "no_ssh_fingerprints",
    "ntp",
    "output",
    "package_reboot_if_required",
    "package_update",
    "package_upgrade",
    "packages",
    "password",
    "phone_home",
    "power_state",
    "preserve_hostname",
    "puppet",
    "random_seed",
    "reporting",
    "resize_rootfs",
    "resolv_conf",
    "rsyslog",
    "runcmd",
    "salt_minion",
    "ssh",
    "ssh_authorized_keys",
    "ssh_deletekeys",
    "ssh_genkeytypes",
    "ssh_keys",
    "ssh_publish_hostkeys",
    "ssh_pwauth",
    "ssh_quiet_keygen",
    "swap",
    "timezone",
    "user",
    "users",
    "vendor_data",
    "wireguard",
    "write_files",
    "yum_repo_dir",
    "yum_repos",
];

/// What this module looks into.
#[derive(Deserialize)]
struct CloudConfig {
    #[serde(default)]
    write_files: Vec<File>,
    #[serde(default, rename = "runcmd")]
    _runcmd: Vec<Run>,
    #[serde(default, rename = "bootcmd")]
    _bootcmd: Vec<Run>,
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
    /// A text: as a number, `0600` would be the mode 0o1130.
    #[serde(default)]
    permissions: Option<String>,
    #[serde(default, rename = "append")]
    _append: bool,
    #[serde(default, rename = "defer")]
    _defer: bool,
}

/// How a content is encoded. There are gzip's too; what is in them could not be looked at here.
#[derive(Deserialize)]
enum Encoding {
    #[serde(rename = "text/plain")]
    Plain,
    #[serde(rename = "b64", alias = "base64")]
    Base64,
}

/// A command: a line for the shell, or its words.
#[derive(Deserialize)]
#[serde(untagged)]
enum Run {
    Line(#[expect(dead_code, reason = "only its type is looked at")] String),
    Words(#[expect(dead_code, reason = "only its type is looked at")] Vec<String>),
}

/// Reads a document, strictly.
pub(crate) fn read(text: &str) -> Result<Contents, Vec<Problem>> {
    #[expect(
        clippy::zero_sized_map_values,
        reason = "a map is what is read; its keys are what is wanted of it"
    )]
    let keys: BTreeMap<String, IgnoredAny> = yaml::read(text, false).map_err(|problem| vec![problem])?;
    let mut problems: Vec<Problem> = keys
        .keys()
        .filter(|key| KEYS.binary_search(&key.as_str()).is_err())
        .map(|key| {
            Problem::Structure(format!("{key:?}: cloud-init knows no such key, and would pass over it"))
        })
        .collect();
    let config: CloudConfig = match yaml::read(text, false) {
        Ok(config) => config,
        Err(problem) => {
            problems.push(problem);
            return Err(problems);
        }
    };
    let mut contents = Contents::default();
    for file in config.write_files {
        match file.read() {
            Ok((path, text)) => contents.add_file(path, text),
            Err(problem) => problems.push(problem),
        }
    }
    if problems.is_empty() { Ok(contents) } else { Err(problems) }
}

impl File {
    fn read(self) -> Result<(String, String), Problem> {
        let is_base64 = matches!(self.encoding, Some(Encoding::Base64));
        write_files::Given {
            path: self.path,
            content: self.content,
            is_base64,
            permissions: self.permissions,
        }
        .read()
    }
}
