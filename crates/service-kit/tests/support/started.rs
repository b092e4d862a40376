//! How a service's real binary starts where it cannot, and goes on where the machine lacks something.
//!
//! Included by the tests of each service (`#[path]`).

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// Far longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// A service under test.
pub(crate) struct Service {
    binary: &'static str,
    /// Its least configuration, beside `listen`.
    config: String,
    directory: TempDir,
}

/// Ended with the test, whatever its outcome.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended already where that is what was tested.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Service {
    /// The service whose binary is at this path, with this configuration beside `listen` and `token_file`.
    pub(crate) fn new(binary: &'static str, config: impl Into<String>) -> Self {
        Self { binary, config: config.into(), directory: TempDir::new().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// A configuration file that begins with these lines.
    fn config(&self, lines: &str) -> PathBuf {
        let path = self.path("config.toml");
        fs::write(&path, format!("{lines}\n{}", self.config)).unwrap();
        path
    }

    fn command(&self, before: &[&str], arguments: &[&str]) -> Command {
        let mut words = before.iter().copied().chain([self.binary]).chain(arguments.iter().copied());
        let mut command = Command::new(words.next().unwrap());
        command.args(words).stdin(Stdio::null()).env("FORCE12_LOG", "error");
        for variable in ["FORCE12_CONFIG", "FORCE12_TOKEN", "FORCE12_TOKEN_FILE"] {
            command.env_remove(variable);
        }
        command
    }

    /// How `run` ends with these lines in its configuration: its exit code, and the one line on stderr.
    fn ended(&self, lines: &str, change: impl FnOnce(&mut Command)) -> (i32, String) {
        let config = self.config(lines);
        let mut command = self.command(&[], &["run", "--config", config.to_str().unwrap()]);
        change(&mut command);
        let mut child = Running(command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap());
        let began = Instant::now();
        while child.0.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "it runs, with:\n{lines}");
            std::thread::sleep(Duration::from_millis(5));
        }
        let mut said = String::new();
        child.0.stderr.take().unwrap().read_to_string(&mut said).unwrap();
        assert_eq!(said.lines().count(), 1, "one clear line, not:\n{said}");
        (child.0.wait().unwrap().code().unwrap(), said)
    }

    /// That each reason not to start is one line on stderr and the right exit code.
    pub(crate) fn says_why_it_does_not_start(&self) {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let (code, said) = self.ended(&format!("listen = \"{address}\""), |_| ());
        assert!(
            code == 1 && said.contains(&format!("cannot listen on {address}: Address already in use")),
            "{said}"
        );
        assert!(said.contains("end what listens there, or change `listen` in the config"), "{said}");

        // An address for documentation: no machine has it.
        let (code, said) = self.ended("listen = \"203.0.113.9:8080\"", |_| ());
        assert!(code == 1 && said.contains("this machine has no such address"), "{said}");

        let (code, said) = self.ended("listen = \"127.0.0.1:0\"", |command| {
            command.env("FORCE12_LOG", "force12=loud");
        });
        assert!(code == 2 && said.contains("FORCE12_LOG=\"force12=loud\" is not a log filter"), "{said}");

        let token = |name: &str, text: &str, mode: u32| {
            fs::write(self.path(name), text).unwrap();
            fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).unwrap();
            self.path(name)
        };
        let good = "0123456789abcdef0123456789abcdef";
        for (path, expected) in [
            (self.path("absent"), "cannot be read: No such file or directory"),
            (self.path(""), "not a regular file"),
            (token("empty", "\n", 0o600), "the token is empty; make one with: openssl rand -hex 32"),
            (token("short", "0123456789", 0o600), "the token has 10 characters, it must have 16 to 512"),
            (token("long", &"x".repeat(513), 0o600), "the token has 513 characters"),
            (token("huge", &"x".repeat(100_000), 0o600), "has more than 4096 bytes"),
            (token("two", &format!("{good} {good}"), 0o600), "the token holds white space"),
            (token("open", good, 0o644), "too many have access (mode 644); run: chmod 600"),
        ] {
            let lines = format!("listen = \"127.0.0.1:0\"\ntoken_file = \"{}\"", path.display());
            for (lines, variable) in [(lines.as_str(), None), ("listen = \"127.0.0.1:0\"", Some(&path))] {
                let (code, said) = self.ended(lines, |command| {
                    command.envs(variable.map(|path| ("FORCE12_TOKEN_FILE", path)));
                });
                assert!(
                    code == 2 && said.starts_with("error: token file ") && said.contains(expected),
                    "{said}"
                );
                assert!(!said.contains("0123456789"), "a token is never shown: {said}");
            }
        }
    }

    /// Starts it, and gives the address once it answers.
    fn running(&self, before: &[&str], stderr: Stdio) -> (Running, SocketAddr) {
        self.running_with("", before, stderr)
    }

    /// The same with these lines in its configuration.
    fn running_with(&self, lines: &str, before: &[&str], stderr: Stdio) -> (Running, SocketAddr) {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let config = self.config(&format!("listen = \"{address}\"\n{lines}"));
        let mut command = self.command(before, &["run", "--config", config.to_str().unwrap()]);
        let child = command.env("FORCE12_LOG", "debug").stdout(Stdio::null()).stderr(stderr).spawn().unwrap();
        let mut running = Running(child);
        let began = Instant::now();
        while !is_alive(address) {
            assert_eq!(running.0.try_wait().unwrap(), None, "it has ended");
            assert!(began.elapsed() < PATIENCE, "it does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
        (running, address)
    }

    /// That it serves, and ends when told to, where its log cannot be written: a full disk, and nothing at all.
    pub(crate) fn needs_no_log(&self) {
        let full = || File::options().write(true).open("/dev/full").unwrap();
        let (reader, broken) = io::pipe().unwrap();
        drop(reader);
        for (before, stderr) in [
            (&[][..], Stdio::from(full())),
            (&[], Stdio::from(broken)),
            (&["sh", "-c", "exec \"$@\" 2>&-", "sh"], Stdio::null()),
        ] {
            let (mut running, address) = self.running(before, stderr);
            for _ in 0..20 {
                assert!(is_alive(address));
            }
            let told = Command::new("kill").args(["-TERM", &running.0.id().to_string()]).status().unwrap();
            assert!(told.success());
            assert_eq!(running.0.wait().unwrap().code(), Some(0));
        }

        let code = |arguments: &[&str], stdout: Stdio, stderr: Stdio| {
            self.command(&[], arguments).stdout(stdout).stderr(stderr).status().unwrap().code()
        };
        assert_eq!(
            code(&["schema"], Stdio::from(full()), Stdio::from(full())),
            Some(1),
            "it was not written"
        );
        let (reader, broken) = io::pipe().unwrap();
        drop(reader);
        assert_eq!(
            code(&["openapi"], Stdio::from(broken), Stdio::from(full())),
            Some(0),
            "the reader has read enough"
        );
        assert_eq!(code(&["check", "/absent"], Stdio::from(full()), Stdio::from(full())), Some(2));
    }

    /// That peers cannot take the last file descriptor: while many connections wait, and after they have gone, it
    /// answers; what cannot be accepted is said once.
    pub(crate) fn outlives_a_lack_of_file_descriptors(&self) {
        for limit in ["24", "64"] {
            let log = self.path("log");
            let nofile = format!("--nofile={limit}:{limit}");
            let (mut running, address) =
                self.running(&["prlimit", &nofile], Stdio::from(File::create(&log).unwrap()));
            let mut flood: Vec<TcpStream> = Vec::new();
            for _ in 0..200 {
                let mut stream = TcpStream::connect_timeout(&address, PATIENCE).unwrap();
                // Half a request, so that it waits for the rest.
                stream.write_all(b"GET /healthz HTTP/1.1\r\n").unwrap();
                flood.push(stream);
            }
            assert_eq!(running.0.try_wait().unwrap(), None, "it has ended");
            drop(flood);
            let began = Instant::now();
            while !is_alive(address) {
                assert!(began.elapsed() < PATIENCE, "it does not answer any more");
            }
            let said = fs::read_to_string(&log).unwrap();
            let refusals = said.lines().filter(|line| line.contains("no connection can be accepted")).count();
            assert!(refusals <= 1, "said once a minute, not {refusals} times");
            assert!(said.contains("leaves room for fewer connections"), "{said}");
            assert!(!said.contains("panicked"), "{said}");
        }
    }

    /// That a changed file is put in force while it runs, and a bad one refused, both told by its metrics; `changed` is
    /// another configuration, beside `listen`.
    pub(crate) fn applies_a_changed_file(&self, changed: &str) {
        let log = self.path("log");
        let (mut running, address) = self.running(&[], Stdio::from(File::create(&log).unwrap()));
        let listen = format!("listen = \"{address}\"\n");
        for (text, metric) in [
            ("this is not TOML".to_owned(), "force12_config_refused 1"),
            (format!("{listen}{changed}"), "force12_config_reloads_total{outcome=\"applied\"} 1"),
            (format!("listen = \"127.0.0.1:1\"\n{changed}"), "force12_config_refused 1"),
            (format!("{listen}{}", self.config), "force12_config_reloads_total{outcome=\"applied\"} 2"),
        ] {
            fs::write(self.path("config.toml"), &text).unwrap();
            let began = Instant::now();
            while !get(address, "/metrics").unwrap().lines().any(|line| line == metric) {
                assert_eq!(running.0.try_wait().unwrap(), None, "it has ended");
                assert!(
                    began.elapsed() < PATIENCE,
                    "no {metric} after:\n{text}\n{}",
                    fs::read_to_string(&log).unwrap()
                );
                std::thread::sleep(Duration::from_millis(50));
            }
        }
        let metrics = get(address, "/metrics").unwrap();
        assert!(metrics.lines().any(|line| line == "force12_config_refused 0"), "{metrics}");
        let said = fs::read_to_string(&log).unwrap();
        for refusal in ["is not TOML", "listen cannot change while the service runs"] {
            let told = said.lines().filter(|line| line.contains(refusal)).count();
            assert_eq!(told, 1, "once: {said}");
        }
    }

    /// That another token in its file holds from then on, and the one before no longer; `change` is the method and the
    /// path of something that takes the token.
    pub(crate) fn takes_a_changed_token(&self, change: &str) {
        let token = self.path("token");
        let write = |text: &str| {
            fs::write(&token, text).unwrap();
            fs::set_permissions(&token, fs::Permissions::from_mode(0o600)).unwrap();
        };
        let (before, after) = ("0123456789abcdef0123456789abcdef", "fedcba9876543210fedcba9876543210");
        write(before);
        let (_running, address) =
            self.running_with(&format!("token_file = \"{}\"", token.display()), &[], Stdio::null());
        let is_taken = |token: &str| {
            let headers = format!(
                "host: {address}\r\nauthorization: Bearer {token}\r\ncontent-length: 0\r\nconnection: close"
            );
            !asked(address, &format!("{change} HTTP/1.1\r\n{headers}\r\n\r\n"))
                .unwrap()
                .starts_with("HTTP/1.1 401 ")
        };
        assert!(is_taken(before) && !is_taken(after));
        write(after);
        let began = Instant::now();
        while !is_taken(after) {
            assert!(began.elapsed() < PATIENCE, "the changed token is not taken");
            std::thread::sleep(Duration::from_millis(50));
        }
        assert!(!is_taken(before));
    }
}

/// Whether a service answers 200 on `/healthz` at this address.
fn is_alive(address: SocketAddr) -> bool {
    get(address, "/healthz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200 "))
}

/// The whole answer.
fn get(address: SocketAddr, path: &str) -> io::Result<String> {
    asked(address, &format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n"))
}

/// The whole answer to this request.
fn asked(address: SocketAddr, request: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(request.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}
