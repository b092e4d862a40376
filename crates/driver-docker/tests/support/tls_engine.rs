//! An engine that asks for TLS: a real one, in a network namespace of its own, for as long as the test binary runs.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use driver_docker::{EngineAddress, TlsFiles};

use super::{Authority, PATIENCE, Validity};

const PORT: u16 = 2376;

/// Makes the namespace, runs the engine in it until its own input ends, and removes everything. Its input ends with
/// the test's process, whatever that process dies of.
const SCRIPT: &str = r#"
set -eu
name=$1 here=$2 there=$3 port=$4 dir=$5
tear_down() {
  [ -z "${engine:-}" ] || { kill "$engine" 2>/dev/null && wait "$engine" 2>/dev/null; } || true
  ip netns delete "$name" || true
  ip link delete "$name" 2>/dev/null || true
  # The engine leaves its hold on the namespace behind.
  umount "$dir"/exec/netns/* 2>/dev/null || true
  rm -rf "$dir"
}
trap tear_down EXIT
ip netns add "$name"
ip link add "$name" type veth peer name eth0 netns "$name"
ip address add "$here/30" dev "$name"
ip link set "$name" up
ip -n "$name" address add "$there/30" dev eth0
ip -n "$name" link set eth0 up
ip -n "$name" link set lo up
# The network alone is its own: it needs the machine's control groups.
nsenter "--net=/run/netns/$name" dockerd --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/pid" \
  --bridge none --iptables=false --ip-masq=false \
  --host "unix://$dir/docker.sock" --host "tcp://$there:$port" \
  --tlsverify --tlscacert "$dir/engine/ca.pem" --tlscert "$dir/engine/cert.pem" --tlskey "$dir/engine/key.pem" \
  >"$dir/log" 2>&1 </dev/null &
engine=$!
cat >/dev/null
"#;

/// The engine.
pub(crate) struct TlsEngine {
    directory: PathBuf,
    socket: String,
    there: Ipv4Addr,
    /// Signs the engine's certificate and those that it trusts.
    pub(crate) authority: Authority,
    /// The engine runs until it is closed.
    _alive: ChildStdin,
}

static ENGINE: OnceLock<TlsEngine> = OnceLock::new();

impl TlsEngine {
    /// The engine of this test binary, which is started with the first call, and which all its tests use from then on.
    pub(crate) fn get() -> &'static Self {
        ENGINE.get_or_init(Self::start)
    }

    /// The engine, if this test binary has one.
    pub(crate) fn started() -> Option<&'static Self> {
        ENGINE.get()
    }

    #[expect(clippy::zombie_processes, reason = "it ends after this process, and because of it")]
    fn start() -> Self {
        let process = std::process::id();
        // A part of what RFC 2544 sets aside for tests.
        let network = u8::try_from(process % 64).expect("it is less than 64") * 4;
        let (here, there) =
            (Ipv4Addr::new(198, 18, 213, network + 1), Ipv4Addr::new(198, 18, 213, network + 2));
        let directory = std::env::temp_dir().join(format!("f12tls-{process}"));
        let authority = Authority::new();
        authority.engine(IpAddr::V4(there), Validity::Now).write(&directory.join("engine"), &authority);
        authority.client(Validity::Now).write(&directory.join("client"), &authority);
        let mut shell = Command::new("sh")
            .args(["-c", SCRIPT, "sh", &format!("f12tls-{process}"), &here.to_string(), &there.to_string()])
            .args([PORT.to_string().as_str(), directory.to_str().expect("it is text")])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("there is a shell");
        let alive = shell.stdin.take().expect("it was piped");
        let socket = directory.join("docker.sock").to_str().expect("it is text").to_owned();
        let until = Instant::now() + PATIENCE;
        // Not by its address: as long as that is not on this machine, it may be somewhere else.
        while !answers(&socket) {
            let ended = shell.try_wait().expect("it is our child");
            let log = fs::read_to_string(directory.join("log")).unwrap_or_default();
            assert!(
                ended.is_none() && Instant::now() < until,
                "this test needs root, ip, nsenter and dockerd to start an engine in a network namespace:\n{log}"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Self { directory, socket, there, authority, _alive: alive }
    }

    /// Its unix socket, for the tests' own questions.
    pub(crate) fn socket(&self) -> &str {
        &self.socket
    }

    /// Where it answers with TLS.
    pub(crate) fn address(&self) -> EngineAddress {
        EngineAddress::Tcp(format!("{}:{PORT}", self.there))
    }

    /// Files with which it lets us in.
    pub(crate) fn client_files(&self) -> TlsFiles {
        let directory = self.directory.join("client");
        let file = |name: &str| Path::join(&directory, name);
        TlsFiles { ca_file: file("ca.pem"), cert_file: file("cert.pem"), key_file: file("key.pem") }
    }
}

/// Whether an engine is done with its start.
fn answers(socket: &str) -> bool {
    let ask = || -> io::Result<Vec<u8>> {
        let mut stream = UnixStream::connect(socket)?;
        stream.set_read_timeout(Some(Duration::from_secs(1)))?;
        stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: engine\r\nConnection: close\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).map(|_| answer)
    };
    ask().is_ok_and(|answer| answer.starts_with(b"HTTP/1.1 200"))
}
