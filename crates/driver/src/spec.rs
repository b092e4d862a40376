//! What a container is made of.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use planner::Resources;
use sha2::{Digest, Sha256};

/// What every container of a service is made of. Its hash is the service's [`Generation`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ContainerSpec {
    /// The image, as the engine names it.
    pub image: String,
    /// The revision of a task definition, by its ARN, on an engine that has such: it says everything that the rest of this
    /// does not, the image included, which is then only a name for people. `None` elsewhere.
    pub task_definition: Option<String>,
    /// Whether the image is pulled from its registry, ahead of need. No part of the generation: it makes no container
    /// differ.
    pub pull: PullPolicy,
    /// The command; the image's own if `None`.
    pub command: Option<Vec<String>>,
    /// Its environment: these and nothing else of the scheduler's.
    pub environment: BTreeMap<String, String>,
    /// The network: `host`, `none`, `bridge`, or one by name; the engine's default if `None`.
    pub network: Option<String>,
    /// `user[:group]`; the image's own if `None`.
    pub user: Option<String>,
    /// Thousandths of a CPU at most; no limit if `None`.
    pub cpu_limit_millis: Option<u64>,
    /// Mebibytes of memory at most; no limit if `None`.
    pub memory_limit_mib: Option<u64>,
    /// Whether its root file system can be written to.
    pub read_only_root: bool,
    /// The signal that asks it to stop, such as `SIGTERM`; the image's own if `None`.
    pub stop_signal: Option<String>,
    /// Milliseconds from that signal to SIGKILL.
    pub stop_grace_ms: u64,
    /// Where its output goes; the engine's default if `None`.
    pub log: Option<LogOptions>,
    /// How the engine tells whether it is healthy; the image's own if `None`.
    pub healthcheck: Option<Healthcheck>,
}

/// Whether an image is pulled from its registry. Never in a start: only when a spec is prepared. In the order of how much
/// is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum PullPolicy {
    /// Somebody else sees to it that the engine has it.
    #[default]
    Never,
    /// If the engine does not have it.
    Missing,
    /// Whenever the spec is prepared. If that fails, or takes long, what the engine has already will do: whoever prepares
    /// sees to that, and asks with [`PullPolicy::Never`].
    Always,
}

/// Where a container's output goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogOptions {
    /// The engine's log driver.
    pub driver: String,
    /// Its options.
    pub options: BTreeMap<String, String>,
}

/// How the engine tells whether a container is healthy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// The command, without a shell.
    pub command: Vec<String>,
    /// Milliseconds between two checks.
    pub interval_ms: u64,
    /// Milliseconds for one check.
    pub timeout_ms: u64,
    /// Failures in a row that make it unhealthy.
    pub retries: u32,
}

/// The hash of a [`ContainerSpec`]: 16 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Generation(pub Arc<str>);

impl Generation {
    /// From a label's text.
    pub fn from_label(label: &str) -> Self {
        Self(label.into())
    }

    /// The label's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// One container to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The service that it is one of.
    pub service: String,
    /// Where.
    pub instance: String,
    /// Its number among the service's containers on the instance; the container's name is made from the three.
    pub ordinal: u32,
    /// What it takes.
    pub request: Resources,
    /// What it is made of.
    pub spec: Arc<ContainerSpec>,
    /// The hash of `spec`.
    pub generation: Generation,
}

impl ContainerSpec {
    /// The hash of everything that makes a running container differ; the grace of its stop, and how its image came, do
    /// not.
    pub fn generation(&self) -> Generation {
        // Each field goes in with its name and length, so that no two specs read the same.
        let mut hash = Sha256::new();
        let mut field = |name: &str, value: &str| {
            hash.update((name.len() as u64).to_le_bytes());
            hash.update(name.as_bytes());
            hash.update((value.len() as u64).to_le_bytes());
            hash.update(value.as_bytes());
        };
        field("image", &self.image);
        if let Some(revision) = &self.task_definition {
            field("task_definition", revision);
        }
        for (position, argument) in self.command.iter().flatten().enumerate() {
            field(&format!("command[{position}]"), argument);
        }
        field("command", if self.command.is_some() { "set" } else { "" });
        for (name, value) in &self.environment {
            field(&format!("environment.{name}"), value);
        }
        field("network", self.network.as_deref().unwrap_or_default());
        field("user", self.user.as_deref().unwrap_or_default());
        field("cpu_limit_millis", &self.cpu_limit_millis.map(|limit| limit.to_string()).unwrap_or_default());
        field("memory_limit_mib", &self.memory_limit_mib.map(|limit| limit.to_string()).unwrap_or_default());
        field("read_only_root", if self.read_only_root { "yes" } else { "no" });
        field("stop_signal", self.stop_signal.as_deref().unwrap_or_default());
        if let Some(log) = &self.log {
            field("log.driver", &log.driver);
            for (name, value) in &log.options {
                field(&format!("log.options.{name}"), value);
            }
        }
        if let Some(check) = &self.healthcheck {
            for (position, argument) in check.command.iter().enumerate() {
                field(&format!("healthcheck.command[{position}]"), argument);
            }
            field("healthcheck.interval_ms", &check.interval_ms.to_string());
            field("healthcheck.timeout_ms", &check.timeout_ms.to_string());
            field("healthcheck.retries", &check.retries.to_string());
        }
        let digest = hash.finalize();
        let first = digest.iter().take(8).fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        Generation(format!("{first:016x}").into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec() -> ContainerSpec {
        ContainerSpec { image: "force12/workload".to_owned(), ..ContainerSpec::default() }
    }

    #[test]
    fn generation_follows_what_makes_a_container_differ() {
        let base = spec().generation();
        assert_eq!(base.as_str().len(), 16);
        assert_eq!(base, spec().generation());
        let command = |words: &[&str]| ContainerSpec {
            command: Some(words.iter().map(|&word| word.to_owned()).collect()),
            ..spec()
        };
        let others = [
            ContainerSpec { image: "force12/workload:2".to_owned(), ..spec() },
            command(&[]),
            command(&["a", "b"]),
            command(&["ab"]),
            ContainerSpec { environment: [("A".to_owned(), "b".to_owned())].into(), ..spec() },
            ContainerSpec { environment: [("AB".to_owned(), String::new())].into(), ..spec() },
            ContainerSpec { network: Some("host".to_owned()), ..spec() },
            ContainerSpec { cpu_limit_millis: Some(500), ..spec() },
            ContainerSpec { memory_limit_mib: Some(500), ..spec() },
            ContainerSpec { read_only_root: true, ..spec() },
            ContainerSpec { task_definition: Some("web:7".to_owned()), ..spec() },
            ContainerSpec { task_definition: Some("web:8".to_owned()), ..spec() },
        ];
        let mut seen: Vec<Generation> = others.iter().map(ContainerSpec::generation).collect();
        seen.push(base);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), others.len() + 1, "every one differs from every other");
    }

    #[test]
    fn generation_ignores_the_grace_of_a_stop_and_how_the_image_came() {
        assert_eq!(ContainerSpec { stop_grace_ms: 5, ..spec() }.generation(), spec().generation());
        assert_eq!(ContainerSpec { pull: PullPolicy::Always, ..spec() }.generation(), spec().generation());
    }
}
