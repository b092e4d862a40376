//! Engines on this machine, each in a network namespace of its own: the hosts of a pool, to be lost and found again.
//!
//! Each has a unix socket, which whoever watches uses, and an address on a network of its own, which can be cut. All
//! its containers share its namespace, so that nothing of it can be overlooked when it is removed.
//!
//! There is one farm on a machine at a time. Whatever ends its process, a shell that waits for that removes what it
//! made; what a machine's restart has left behind is removed when the next farm begins.

mod certificates;

use std::fmt::Write as _;
use std::fs::{File, TryLockError};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child as StdChild, Command as StdCommand, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tokio::process::{Child, Command};

use self::certificates::{Certificates, Pair};
use crate::engine::Engine;

/// Of namespaces, links, control groups, and the directory.
const PREFIX: &str = "f12farm";

/// What is of the farm's on the machine's network: a part of what RFC 2544 sets aside for tests. Addresses of it that
/// no link serves lead nowhere, rather than out of the machine.
const NETWORK: &str = "198.18.212.0/24";

/// Where each engine listens on its own network.
const PORT: u16 = 2375;

/// The time for another farm on this machine to be done.
const TURN_TIMEOUT: Duration = Duration::from_mins(30);

/// The time from an engine's start to its first answer; it takes half a second on a quiet machine.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// Between two questions whether something holds yet.
const POLL: Duration = Duration::from_millis(20);

/// How many of the last lines of an engine's log are shown when it does not start.
const LOG_LINES_SHOWN: usize = 30;

/// How an engine is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGSTOP: it takes connections, and answers nothing. Its containers run on.
    Hang,
    /// Its network swallows everything; engine and containers run on.
    Cut,
    /// The link to it is down: connecting fails at once. Engine and containers run on.
    LinkDown,
    /// SIGKILL, and a start to be found again. Whether its containers outlive that is the engine's setting.
    Kill,
}

/// How the scheduler reaches an engine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// By its unix socket, which no cut reaches.
    #[default]
    Socket,
    /// Over its network, without TLS.
    Tcp,
    /// Over its network, with TLS and certificates on both sides.
    Tls,
}

/// How an engine is set up.
#[derive(Clone, Copy, Debug, Default)]
pub struct HostOptions {
    /// How the scheduler reaches it.
    pub way: Way,
    /// Whether its containers run on when it ends, and are its own again when it starts.
    pub live_restore: bool,
}

/// Engines, each a host of its own.
pub struct Farm {
    services: PathBuf,
    hosts: Vec<Host>,
    // Dropped in this order: the next farm has its turn when nothing is left of this one.
    _teardown: Teardown,
    _turn: File,
}

/// One of them.
pub struct Host {
    namespace: String,
    directory: PathBuf,
    address: Ipv4Addr,
    options: HostOptions,
    certificates: Option<Certificates>,
    dockerd: Option<Child>,
}

impl Farm {
    /// Starts as many engines as there are options, and returns when all of them answer.
    pub async fn start(options: &[HostOptions]) -> Result<Self> {
        if !geteuid().is_root() {
            bail!("engines in network namespaces of their own need root: run these checks as root");
        }
        let base = std::env::temp_dir().join(PREFIX);
        let turn = turn(&base.with_extension("lock")).await?;
        Teardown::arm(&base)?.finish();
        let foreign = output("ip", &["-4", "route", "show", "root", NETWORK]).await?;
        if !foreign.is_empty() {
            bail!("this machine uses {NETWORK}, which the engines here would be put on: {foreign}");
        }
        let teardown = Teardown::arm(&base)?;
        run("ip", &["route", "add", "blackhole", NETWORK]).await?;
        let mut hosts = Vec::new();
        for (index, &options) in options.iter().enumerate() {
            hosts.push(Host::make(&base, index, options).await?);
        }
        for host in &mut hosts {
            host.start().await?;
        }
        let services = base.join("services");
        std::fs::create_dir(&services).with_context(|| format!("create {}", services.display()))?;
        Ok(Self { services, hosts, _teardown: teardown, _turn: turn })
    }

    /// A directory for the files of services that use the engines: whoever is named one of them on its command line
    /// is ended with the farm.
    pub fn services(&self) -> &Path {
        &self.services
    }

    /// One of the engines, by its place in the options.
    ///
    /// # Panics
    /// If there are fewer.
    pub fn host(&mut self, index: usize) -> &mut Host {
        &mut self.hosts[index]
    }

    /// All of them.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }
}

impl Host {
    /// Its namespace, its network and its certificates; no engine yet.
    async fn make(base: &Path, index: usize, options: HostOptions) -> Result<Self> {
        let number = u8::try_from(index + 1).context("too many engines for one network")?;
        let namespace = format!("{PREFIX}-{number}");
        let directory = base.join(number.to_string());
        std::fs::create_dir_all(&directory).with_context(|| format!("create {}", directory.display()))?;
        let [here, address] = [1, 2].map(|end| Ipv4Addr::new(198, 18, 212, number * 4 + end));
        let (here, there) = (format!("{here}/30"), format!("{address}/30"));
        run("ip", &["netns", "add", &namespace]).await?;
        // The end here is named as the namespace, the end there is eth0.
        run("ip", &["link", "add", &namespace, "type", "veth", "peer", "name", "eth0", "netns", &namespace])
            .await?;
        run("ip", &["address", "add", &here, "dev", &namespace]).await?;
        run("ip", &["link", "set", &namespace, "up"]).await?;
        run("ip", &["-n", &namespace, "address", "add", &there, "dev", "eth0"]).await?;
        run("ip", &["-n", &namespace, "link", "set", "eth0", "up"]).await?;
        run("ip", &["-n", &namespace, "link", "set", "lo", "up"]).await?;
        let certificates = match options.way {
            Way::Tls => Some(Certificates::make(address.into(), &directory)?),
            Way::Socket | Way::Tcp => None,
        };
        Ok(Self { namespace, directory, address, options, certificates, dockerd: None })
    }

    /// The lines of Force12's configuration that tell where it is.
    pub fn to_toml(&self) -> String {
        let address = match self.options.way {
            Way::Socket => self.socket(),
            Way::Tcp | Way::Tls => self.tcp(),
        };
        let mut lines = format!("engine = \"{address}\"");
        if let Some(Certificates { authority, client, .. }) = &self.certificates {
            let Pair { certificate, key } = client;
            let [ca, certificate, key] = [authority, certificate, key].map(|path| path.display());
            let _ = write!(
                lines,
                "\ntls = {{ ca_file = \"{ca}\", cert_file = \"{certificate}\", key_file = \"{key}\" }}"
            );
        }
        lines
    }

    fn socket(&self) -> String {
        format!("unix://{}", self.path("docker.sock").display())
    }

    fn tcp(&self) -> String {
        format!("tcp://{}:{PORT}", self.address)
    }

    /// The engine, by its unix socket.
    pub async fn engine(&self) -> Result<Engine> {
        Engine::at(&self.socket()).await
    }

    /// Loses it.
    pub async fn lose(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Hang => self.signal(Signal::SIGSTOP),
            Fault::Cut => self.firewall("-A").await,
            Fault::LinkDown => run("ip", &["link", "set", &self.namespace, "down"]).await,
            Fault::Kill => {
                let mut dockerd = self.dockerd.take().context("it is not running")?;
                dockerd.kill().await.with_context(|| format!("kill the engine of {}", self.namespace))
            }
        }
    }

    /// Undoes [`Host::lose`], and returns when the engine answers again.
    pub async fn find(&mut self, fault: Fault) -> Result<()> {
        match fault {
            Fault::Hang => self.signal(Signal::SIGCONT)?,
            Fault::Cut => self.firewall("-D").await?,
            Fault::LinkDown => run("ip", &["link", "set", &self.namespace, "up"]).await?,
            Fault::Kill => return self.start().await,
        }
        self.answers().await
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Starts the engine, and returns when it answers.
    async fn start(&mut self) -> Result<()> {
        // One that was killed leaves these behind, and the next takes whatever process has been given their
        // numbers since for its own.
        for stale in ["dockerd.pid", "exec/containerd/containerd.pid"] {
            let _ = std::fs::remove_file(self.path(stale));
        }
        let log = File::options().create(true).append(true).open(self.path("log"))?;
        let mut command = Command::new("nsenter");
        // The network alone is its own: it needs the machine's control groups.
        command.arg(format!("--net=/run/netns/{}", self.namespace)).arg("dockerd");
        for (option, name) in [("--data-root", "data"), ("--exec-root", "exec"), ("--pidfile", "dockerd.pid")]
        {
            command.arg(option).arg(self.path(name));
        }
        command.args(["--host", &self.socket(), "--host", &self.tcp()]);
        match &self.certificates {
            Some(Certificates { authority, engine: Pair { certificate, key }, .. }) => {
                command.arg("--tlsverify").arg("--tlscacert").arg(authority);
                command.arg("--tlscert").arg(certificate).arg("--tlskey").arg(key);
            }
            None => {
                command.arg("--tls=false");
            }
        }
        command.args(["--bridge=none", "--iptables=false"]);
        command.arg(format!("--cgroup-parent=/{PREFIX}"));
        command.arg(format!("--live-restore={}", self.options.live_restore));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // A ctrl-c is for whoever is to remove the farm, not for the engines.
        command.process_group(0);
        self.dockerd = Some(command.spawn().context("run nsenter to start dockerd")?);
        self.answers().await
    }

    async fn answers(&mut self) -> Result<()> {
        let begun = Instant::now();
        loop {
            if let Some(ended) = self.dockerd.as_mut().context("it is not running")?.try_wait()? {
                bail!("the engine of {} ended by itself: {ended}\n{}", self.namespace, self.log_tail());
            }
            match self.engine().await {
                Ok(_) => return Ok(()),
                Err(error) if begun.elapsed() > START_TIMEOUT => {
                    return Err(error).with_context(|| {
                        format!("the engine of {} does not answer\n{}", self.namespace, self.log_tail())
                    });
                }
                Err(_) => tokio::time::sleep(POLL).await,
            }
        }
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let raw = self.dockerd.as_ref().and_then(Child::id).and_then(|id| i32::try_from(id).ok());
        let pid =
            raw.map(Pid::from_raw).with_context(|| format!("the engine of {} has ended", self.namespace))?;
        kill(pid, signal).with_context(|| format!("send {signal:?} to the engine of {}", self.namespace))
    }

    /// Adds (`-A`) or deletes (`-D`) the rules that swallow what comes and goes, in its namespace alone.
    async fn firewall(&self, change: &str) -> Result<()> {
        let net = format!("--net=/run/netns/{}", self.namespace);
        for (chain, side) in [("INPUT", "-i"), ("OUTPUT", "-o")] {
            run("nsenter", &[&net, "iptables", "-w", change, chain, side, "eth0", "-j", "DROP"]).await?;
        }
        Ok(())
    }

    fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(self.path("log")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..].join("\n")
    }
}

/// A shell that removes the farm once this process has let go of it, in whatever way.
struct Teardown(Option<StdChild>);

impl Teardown {
    fn arm(base: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let shell = StdCommand::new("sh")
            .args(["-c", include_str!("farm/teardown.sh"), "teardown"])
            .arg(base)
            .args([PREFIX, NETWORK])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            // A ctrl-c is not for it.
            .process_group(0)
            .spawn()
            .context("run a shell to remove the engines later")?;
        Ok(Self(Some(shell)))
    }

    /// Has it done now.
    fn finish(mut self) {
        self.run();
    }

    fn run(&mut self) {
        let Some(mut shell) = self.0.take() else { return };
        drop(shell.stdin.take());
        match shell.wait() {
            Ok(status) if status.success() => {}
            Ok(status) => eprintln!("the removal of the engines ended with {status}"),
            Err(error) => eprintln!("the removal of the engines can't be waited for: {error}"),
        }
    }
}

impl Drop for Teardown {
    fn drop(&mut self) {
        self.run();
    }
}

/// Waits until no other process has a farm; the lock goes with the process that holds it.
async fn turn(path: &Path) -> Result<File> {
    let lock = File::create(path).with_context(|| format!("create {}", path.display()))?;
    let begun = Instant::now();
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(lock),
            Err(TryLockError::WouldBlock) if begun.elapsed() < TURN_TIMEOUT => tokio::time::sleep(POLL).await,
            Err(TryLockError::WouldBlock) => {
                bail!("{} has been locked by another run for {} s", path.display(), TURN_TIMEOUT.as_secs())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("lock {}", path.display()));
            }
        }
    }
}

async fn run(program: &str, arguments: &[&str]) -> Result<()> {
    output(program, arguments).await.map(drop)
}

/// What a command says on stdout; an error with what it says on stderr if it fails.
async fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let what = || format!("{program} {}", arguments.join(" "));
    let output =
        Command::new(program).args(arguments).stdin(Stdio::null()).output().await.with_context(what)?;
    if !output.status.success() {
        bail!("{}: {}: {}", what(), output.status, String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
