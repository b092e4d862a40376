//! The services' binaries: built on first use, or taken from `FORCE12_BIN_DIR`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, bail};
use serde::Deserialize;
use tokio::process::Command;
use tokio::sync::OnceCell;

/// The packages whose binary, of the same name, is run here.
const PACKAGES: [&str; 4] = ["demand-rng", "force12-scheduler", "status-api", "workload"];

static BINARIES: OnceCell<Binaries> = OnceCell::const_new();

/// Where each binary is.
#[derive(Clone, Debug)]
pub struct Binaries {
    by_name: BTreeMap<String, PathBuf>,
}

impl Binaries {
    /// Finds them; builds them the first time, unless `FORCE12_BIN_DIR` says where they are.
    pub async fn locate() -> Result<&'static Self> {
        BINARIES
            .get_or_try_init(|| async {
                match std::env::var_os("FORCE12_BIN_DIR") {
                    Some(directory) => Self::found_in(Path::new(&directory)),
                    None => Self::built().await,
                }
            })
            .await
    }

    /// The path of one.
    ///
    /// # Panics
    /// If `name` is none of ours.
    pub fn path(&self, name: &str) -> &Path {
        self.by_name.get(name).unwrap_or_else(|| panic!("{name} is none of {PACKAGES:?}"))
    }

    fn found_in(directory: &Path) -> Result<Self> {
        let mut by_name = BTreeMap::new();
        for name in PACKAGES {
            let path = directory.join(name);
            if !path.is_file() {
                bail!("FORCE12_BIN_DIR: there is no {}: build it, or unset the variable", path.display());
            }
            by_name.insert(name.to_owned(), path);
        }
        Ok(Self { by_name })
    }

    /// A package's tests can't ask cargo for another package's binary, so cargo is run once more, in the profile
    /// that this was built in; what is built already costs it a second.
    async fn built() -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut command = Command::new(cargo);
        command.args(["build", "--message-format=json-render-diagnostics"]);
        if !cfg!(debug_assertions) {
            command.arg("--release");
        }
        for package in PACKAGES {
            command.args(["--package", package]);
        }
        command.current_dir(env!("CARGO_MANIFEST_DIR")).stdin(Stdio::null()).stdout(Stdio::piped());
        let cargo = command.spawn().context("run cargo to build the services")?;
        let output = cargo.wait_with_output().await.context("wait for cargo to build the services")?;
        if !output.status.success() {
            bail!("cargo could not build the services ({}): see its messages above", output.status);
        }
        let by_name = output
            .stdout
            .split(|&byte| byte == b'\n')
            .filter_map(|line| serde_json::from_slice::<Message>(line).ok())
            .filter_map(|message| Some((message.target?.name, message.executable?)))
            .collect();
        let binaries = Self { by_name };
        for name in PACKAGES {
            if !binaries.by_name.contains_key(name) {
                bail!("cargo built the package {name} without a binary of that name");
            }
        }
        Ok(binaries)
    }
}

/// What is read of cargo's messages: each names a target, and an executable where it made one.
#[derive(Deserialize)]
struct Message {
    target: Option<Target>,
    executable: Option<PathBuf>,
}

#[derive(Deserialize)]
struct Target {
    name: String,
}
