//! One service under test, as a process of its own.

use std::fs::{File, OpenOptions};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use reqwest::{Method, RequestBuilder, StatusCode};
use tokio::process::{Child, Command};

use crate::http;

/// The time from the start of a process to its first answer; a debug build on a busy machine.
const START_TIMEOUT: Duration = Duration::from_secs(20);

/// Between two questions whether something holds yet.
const POLL: Duration = Duration::from_millis(20);

/// How many of the last lines of a log an assertion shows.
const LOG_LINES_SHOWN: usize = 15;

/// A service: where it listens, what it reads, and its process while it runs.
pub struct Service {
    name: &'static str,
    binary: PathBuf,
    config: PathBuf,
    log: PathBuf,
    address: SocketAddr,
    token: String,
    environment: Vec<(&'static str, String)>,
    client: reqwest::Client,
    child: Option<Child>,
}

impl Service {
    /// Not yet started. `config` gets the text that `toml` makes of the address to listen on.
    pub fn new(
        name: &'static str,
        binary: &Path,
        directory: &Path,
        token: &str,
        toml: impl FnOnce(SocketAddr) -> String,
    ) -> Result<Self> {
        let address = free_address()?;
        let config = directory.join(format!("{name}.toml"));
        std::fs::write(&config, toml(address)).with_context(|| format!("write {}", config.display()))?;
        Ok(Self {
            name,
            binary: binary.to_owned(),
            config,
            log: directory.join(format!("{name}.log")),
            address,
            token: token.to_owned(),
            environment: Vec::new(),
            client: http::client()?,
            child: None,
        })
    }

    /// Sets these variables too.
    #[must_use]
    pub fn with_environment(mut self, variables: &[(&'static str, String)]) -> Self {
        self.environment.extend_from_slice(variables);
        self
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref()?.id()
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The operator's token.
    pub fn token(&self) -> &str {
        &self.token
    }

    /// The URL of a path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// A request with the operator's token.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.anonymous(method, path).bearer_auth(&self.token)
    }

    /// A request without a token.
    pub fn anonymous(&self, method: Method, path: &str) -> RequestBuilder {
        self.client.request(method, self.url(path))
    }

    /// Another command of its binary, with the same environment and the log as its stderr.
    pub fn command(&self, arguments: &[&str]) -> Result<Command> {
        let log = self.open_log()?;
        let mut command = Command::new(&self.binary);
        command
            .args(arguments)
            .env("FORCE12_TOKEN", &self.token)
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true);
        Ok(command)
    }

    /// Starts the process, and returns without waiting for it to answer.
    pub fn spawn(&mut self) -> Result<()> {
        let config = self.config.to_string_lossy().into_owned();
        let child = self
            .command(&["run", "--config", &config])?
            .spawn()
            .with_context(|| format!("start {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    /// Starts the process, and returns when it answers that it is alive.
    pub async fn start(&mut self) -> Result<()> {
        self.spawn()?;
        self.answers("/healthz", StatusCode::OK).await
    }

    /// Waits until it answers that it is ready.
    pub async fn ready(&mut self) -> Result<()> {
        self.answers("/readyz", StatusCode::OK).await
    }

    /// Waits until `path` is answered with `status`; fails at once if the process ends.
    async fn answers(&mut self, path: &str, status: StatusCode) -> Result<()> {
        let begun = Instant::now();
        loop {
            if let Some(ended) = self.child.as_mut().context("it is not running")?.try_wait()? {
                bail!("{} ended by itself: {ended}", self.name);
            }
            let answer = self.anonymous(Method::GET, path).send().await.map(|answer| answer.status());
            if matches!(answer, Ok(got) if got == status) {
                return Ok(());
            }
            if begun.elapsed() > START_TIMEOUT {
                bail!(
                    "{} did not answer {path} with {status} within {} s: last {answer:?}",
                    self.name,
                    START_TIMEOUT.as_secs()
                );
            }
            tokio::time::sleep(POLL).await;
        }
    }

    /// Ends it by SIGKILL, and returns when it is gone.
    pub async fn kill(&mut self) -> Result<()> {
        let mut child = self.child.take().context("it is not running")?;
        child.kill().await.with_context(|| format!("kill {}", self.name))
    }

    /// Ends it by SIGTERM, and returns how it ended and after how long; an error if not within `bound`.
    pub async fn terminate(&mut self, bound: Duration) -> Result<(ExitStatus, Duration)> {
        let mut child = self.child.take().context("it is not running")?;
        let raw = child.id().and_then(|id| i32::try_from(id).ok());
        let pid = raw.map(Pid::from_raw).with_context(|| format!("{} has ended already", self.name))?;
        let begun = Instant::now();
        kill(pid, Signal::SIGTERM).with_context(|| format!("send SIGTERM to {}", self.name))?;
        match tokio::time::timeout(bound, child.wait()).await {
            Ok(status) => Ok((status?, begun.elapsed())),
            Err(_) => bail!("{} still ran {} ms after SIGTERM", self.name, bound.as_millis()),
        }
    }

    /// How much memory it holds, in KiB.
    pub fn resident_kib(&self) -> Result<u64> {
        let pid = self.pid().context("it is not running")?;
        let path = format!("/proc/{pid}/status");
        let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse().ok());
        kib.with_context(|| format!("{path} has no VmRSS"))
    }

    /// The document at `path`.
    pub async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T> {
        let answer = self.anonymous(Method::GET, path).send().await?;
        let status = answer.status();
        let body = answer.bytes().await?;
        if status != StatusCode::OK {
            bail!("{} answered {path} with {status}: {}", self.name, String::from_utf8_lossy(&body));
        }
        serde_json::from_slice(&body)
            .with_context(|| format!("{path} of {}: {}", self.name, String::from_utf8_lossy(&body)))
    }

    /// Waits until the document at `path` is as wanted, at most `bound`, and returns it; `what` names it. While
    /// there is no document, that is not as wanted.
    pub async fn get_until<T: serde::de::DeserializeOwned + std::fmt::Debug>(
        &self,
        path: &str,
        what: &str,
        bound: Duration,
        as_wanted: impl Fn(&T) -> bool,
    ) -> Result<T> {
        let begun = Instant::now();
        loop {
            let got = self.get::<T>(path).await;
            match got {
                Ok(document) if as_wanted(&document) => return Ok(document),
                _ if begun.elapsed() < bound => tokio::time::sleep(POLL).await,
                _ => bail!(
                    "{what}: not so at {} within {} ms; last: {got:?}",
                    self.url(path),
                    bound.as_millis()
                ),
            }
        }
    }

    /// The names of its threads, of at most 15 bytes each.
    pub fn threads(&self) -> Result<Vec<String>> {
        let id = self.pid().context("it is not running")?;
        let tasks = std::fs::read_dir(format!("/proc/{id}/task"))?;
        tasks.map(|task| Ok(std::fs::read_to_string(task?.path().join("comm"))?.trim().to_owned())).collect()
    }

    /// Its log.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The lines of its log that are JSON.
    pub fn log_lines(&self) -> Vec<serde_json::Value> {
        self.log().lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// The end of its log, for a person.
    pub fn log_tail(&self) -> String {
        let text = self.log();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }

    /// Its log, with its name, for the report of a failure.
    pub(crate) fn named_log(&self) -> (String, String) {
        (format!("the log of {}", self.name), self.log())
    }

    fn open_log(&self) -> Result<File> {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .with_context(|| format!("open {}", self.log.display()))
    }
}

/// A loopback address that nobody listens on. The configuration wants the port before the service has it, so
/// that another process could take it in between; the kernel gives out others first.
fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port on loopback")?;
    Ok(listener.local_addr()?)
}
