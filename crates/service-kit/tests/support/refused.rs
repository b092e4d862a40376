//! Bad configurations, handed to a service's real binary: each is refused before anything is bound or touched.
//!
//! Included by the tests of each service (`#[path]`). The corpus is a directory of files, one kind of mistake each; to
//! add one is to add a file. Its first lines begin with `#! ` and are what is to be said of it, a line each: place and
//! key, what is wrong, how to mend it.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

/// How long a refusal may take before the test takes the service for running.
const REFUSAL_MAX: Duration = Duration::from_secs(30);
/// No bad configuration's refusal may hold this, which stands for a secret in some of them.
const SECRET: &str = "hunter2";
/// What the files name in place of what the test has: addresses to listen on or to ask, and an engine's socket.
const ADDRESSES: [&str; 4] = ["127.0.0.1:8080", "127.0.0.1:8081", "127.0.0.1:8082", "demand-rng:8081"];
const SOCKET: &str = "/var/run/docker.sock";

/// A service under test, and all that it could touch.
pub(crate) struct Service {
    binary: &'static str,
    directory: TempDir,
    /// Holds the port that the configurations name: a service that got as far as listening would end with another
    /// exit code, and one that asked anybody would connect.
    port: TcpListener,
    engine: UnixListener,
}

impl Service {
    /// The service whose binary is at this path.
    pub(crate) fn new(binary: &'static str) -> Self {
        let directory = TempDir::new().unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap();
        port.set_nonblocking(true).unwrap();
        let engine = UnixListener::bind(directory.path().join("docker.sock")).unwrap();
        engine.set_nonblocking(true).unwrap();
        Self { binary, directory, port, engine }
    }

    /// Tries every file of the corpus in `directory`, at least `least` of them.
    pub(crate) fn refuses_all_of(&self, directory: &Path, least: usize) {
        let mut files: Vec<PathBuf> =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(files.len() >= least, "only {} files in {}", files.len(), directory.display());
        let wrong: Vec<String> = files.iter().filter_map(|file| self.tried(file).err()).collect();
        assert!(
            wrong.is_empty(),
            "{} of {} are not refused as they say:\n\n{}",
            wrong.len(),
            files.len(),
            wrong.join("\n\n")
        );
    }

    fn tried(&self, file: &Path) -> Result<(), String> {
        let name = file.file_name().unwrap();
        let text = fs::read_to_string(file).unwrap();
        let said: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("#! ")).collect();
        if said.is_empty() {
            return Err(format!("{}: the first line has to be `#! ` and what is to be said", name.display()));
        }
        let mut text = text.clone();
        let port = self.port.local_addr().unwrap().to_string();
        for address in ADDRESSES {
            text = text.replace(address, &port);
        }
        let socket = self.directory.path().join("docker.sock");
        text = text.replace(SOCKET, socket.to_str().unwrap());
        let path = self.directory.path().join(name);
        fs::write(&path, text).unwrap();
        let expected: Vec<String> =
            said.iter().map(|said| format!("config {}{said}", path.display())).collect();
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();
        self.refuses(&path, &expected).map_err(|error| format!("{}: {error}", name.display()))
    }

    /// That both `check` and `run` refuse the file at `path`, and say exactly this, a part of a line each.
    fn refuses(&self, path: &Path, expected: &[&str]) -> Result<(), String> {
        for before in [&["check"][..], &["run", "--config"]] {
            let Output { status, stdout, stderr } = self.ended(before, path)?;
            let stderr = String::from_utf8_lossy(&stderr);
            let code = status.code();
            if code != Some(2) || !stdout.is_empty() {
                return Err(format!(
                    "{before:?}: exit code {code:?}, not 2 and silence on stdout:\n{stderr}"
                ));
            }
            let lines: Vec<&str> = stderr.strip_prefix("error: ").unwrap_or("no error").lines().collect();
            let as_expected = lines.len() == expected.len()
                && lines.iter().zip(expected).all(|(line, expected)| line.contains(expected));
            if !as_expected || stderr.contains(SECRET) {
                return Err(format!("{before:?}: said\n{stderr}and not\n{}", expected.join("\n")));
            }
            let untouched = |accepted: io::Result<()>| {
                accepted.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
            };
            if !untouched(self.port.accept().map(drop)) || !untouched(self.engine.accept().map(drop)) {
                return Err(format!("{before:?}: something was asked before the refusal"));
            }
        }
        Ok(())
    }

    fn ended(&self, before: &[&str], path: &Path) -> Result<Output, String> {
        let mut child = Command::new(self.binary)
            .args(before)
            .arg(path)
            .current_dir(self.directory.path())
            .env_clear()
            .env("PRESENT", "a value")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let began = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if began.elapsed() > REFUSAL_MAX {
                child.kill().unwrap();
                child.wait().unwrap();
                return Err(format!("{before:?}: runs"));
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Ok(child.wait_with_output().unwrap())
    }

    /// Tries what is wrong with files as such, whatever the service.
    pub(crate) fn refuses_what_is_no_text(&self) {
        let path = |name: &str| self.directory.path().join(name);
        let file = |name: &str, bytes: &[u8]| {
            fs::write(path(name), bytes).unwrap();
            path(name)
        };
        let utf_16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
        let large = vec![b'#'; 1024 * 1024 + 1];
        let link = path("to-itself.toml");
        std::os::unix::fs::symlink(&link, &link).unwrap();
        let hangs = path("pipe.toml");
        assert!(Command::new("mkfifo").arg(&hangs).status().unwrap().success());
        let mut nested = b"a = ".to_vec();
        nested.extend(std::iter::repeat_n(b'[', 500_000));
        let cases = [
            (
                path("absent.toml"),
                ": cannot be read: No such file or directory (os error 2); give the right path",
            ),
            (path(""), ": not a regular file; give the path of a TOML file"),
            (hangs, ": not a regular file; give the path of a TOML file"),
            (PathBuf::from("/dev/null"), ": not a regular file; give the path of a TOML file"),
            (
                file("plain.toml", b"").join("below.toml"),
                ": cannot be read: Not a directory (os error 20); give",
            ),
            (link, ": cannot be read: Too many levels of symbolic links (os error 40); give"),
            (file("large.toml", &large), ": has more than 1048576 bytes; is it the right file?"),
            (file("utf-16.toml", &utf_16("\u{feff}a = 1\n")), ":1:1: the text is UTF-16; save it as UTF-8"),
            (
                file("utf-16-unmarked.toml", &utf_16("a = 1\n")),
                ":1:1: holds a NUL byte, so it is no text, or UTF-16; save",
            ),
            (
                file("nul.toml", b"# one\n\0\n"),
                ":2:1: holds a NUL byte, so it is no text, or UTF-16; save it as UTF-8",
            ),
            (
                file("latin-1.toml", b"# one\n# caf\xe9\n"),
                ":2:1: holds the byte 0xe9, which is not UTF-8; save it as UTF-8",
            ),
            (
                file("cut.toml", "# ü".as_bytes().split_last().unwrap().1),
                ":1:1: holds the byte 0xc3, which is not",
            ),
            (file("binary.toml", b"\x7fELF\x02\x01\x01\0\0"), ":1:1: holds a NUL byte, so it is no text"),
            (
                file("nested.toml", &nested),
                ":1:85: is not TOML: it is nested too deep; is it the right file?",
            ),
            (
                file("marked.toml", "\u{feff}# nothing\n".as_bytes()),
                ": nothing is set; the service's example.toml",
            ),
            (file("blank.toml", b" \n\t\n"), ": nothing is set; the service's example.toml"),
        ];
        for (path, expected) in cases {
            self.refuses(&path, &[&format!("config {}{expected}", path.display())]).unwrap();
        }
        let mut name = path("name").into_os_string().as_bytes().to_vec();
        name.push(0xff);
        let odd = PathBuf::from(<std::ffi::OsStr as std::os::unix::ffi::OsStrExt>::from_bytes(&name));
        self.refuses(&odd, &[": cannot be read: No such file or directory"]).unwrap();
        self.refuses_what_may_not_be_read();
    }

    /// As another user where this one may read everything.
    fn refuses_what_may_not_be_read(&self) {
        let path = self.directory.path().join("unreadable.toml");
        fs::write(&path, "a = 1\n").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).unwrap();
        let expected = format!(
            "config {}: cannot be read: Permission denied (os error 13); let the user",
            path.display()
        );
        if fs::read(&path).is_err() {
            self.refuses(&path, &[&expected]).unwrap();
            return;
        }
        fs::set_permissions(self.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
        // A copy, since the build's own directory may be closed to others. Made by another process: while this one wrote
        // it, a child that another thread forks would have it open for writing too, and it could not be run.
        let binary = self.directory.path().join("service");
        assert!(Command::new("cp").arg(self.binary).arg(&binary).status().unwrap().success());
        let output = Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&binary)
            .arg("check")
            .arg(&path)
            .output()
            .expect("setpriv runs: it is part of util-linux");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{stderr}");
        assert!(stderr.contains(&expected) && stderr.lines().count() == 1, "{stderr}");
    }
}
