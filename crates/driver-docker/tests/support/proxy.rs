//! A way to the engine on which every request is written down, and which can be made to fail.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use driver_docker::EngineAddress;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::SOCKET;

/// What becomes of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It is passed on.
    Forward,
    /// It is taken and never answered.
    Hang,
    /// The connection is closed once the request has been read.
    Drop,
    /// It is passed on, and the connection is closed before the answer.
    DropAnswer,
    /// It is passed on; but what the engine tells of events comes like this.
    Events(Telling),
}

/// What becomes of a stream of events, once the engine has accepted the request for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Telling {
    /// It stays open, and nothing comes.
    Nothing,
    /// This comes in place of events, and then nothing more.
    Instead(&'static [u8]),
    /// This comes in place of events, and then it ends.
    Last(&'static [u8]),
    /// A line comes that has no end.
    Endless,
    /// After each event all that came before come again, the newest first.
    Again,
    /// Of each two events the second comes first.
    Swapped,
}

/// Listens on a socket of its own for as long as it lives.
pub(crate) struct Proxy {
    _directory: tempfile::TempDir,
    path: PathBuf,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

struct Shared {
    mode: Mutex<Mode>,
    /// When each request came, since the epoch, and its first line.
    requests: Mutex<Vec<(Duration, String)>>,
    connections: Mutex<JoinSet<()>>,
    /// Connections that change something: now, and at most.
    changing: Mutex<(usize, usize)>,
    /// Bytes of lines without an end that have been taken.
    endless_bytes: AtomicUsize,
    arrived: Notify,
}

impl Proxy {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let path = directory.path().join("engine.sock");
        let listener = UnixListener::bind(&path).expect("it can listen there");
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Forward),
            requests: Mutex::default(),
            connections: Mutex::default(),
            changing: Mutex::default(),
            endless_bytes: AtomicUsize::new(0),
            arrived: Notify::new(),
        });
        let accepting = tokio::spawn({
            let shared = Arc::clone(&shared);
            async move {
                while let Ok((client, _)) = listener.accept().await {
                    let serving = serve(client, Arc::clone(&shared));
                    shared.connections.lock().expect("no poison").spawn(serving);
                }
            }
        });
        Self { _directory: directory, path, shared, accepting }
    }

    pub(crate) fn address(&self) -> EngineAddress {
        EngineAddress::Unix(self.path.clone())
    }

    /// For the requests from now on.
    pub(crate) fn set(&self, mode: Mode) {
        *self.shared.mode.lock().expect("no poison") = mode;
    }

    /// Closes every connection there is.
    pub(crate) fn cut(&self) {
        self.shared.connections.lock().expect("no poison").abort_all();
    }

    /// The most creates and starts that were under way at once.
    pub(crate) fn most_changes_at_once(&self) -> usize {
        self.shared.changing.lock().expect("no poison").1
    }

    /// How many bytes of lines without an end have been taken.
    pub(crate) fn endless_bytes(&self) -> usize {
        self.shared.endless_bytes.load(Ordering::Relaxed)
    }

    /// Ends when there are as many requests whose first line contains `text`.
    pub(crate) async fn until_requests(&self, text: &str, count: usize) {
        loop {
            let arrived = self.shared.arrived.notified();
            if self.requests(text).len() >= count {
                return;
            }
            arrived.await;
        }
    }

    /// The requests whose first line contains `text`, and when they came, since the epoch.
    pub(crate) fn requests(&self, text: &str) -> Vec<(Duration, String)> {
        let requests = self.shared.requests.lock().expect("no poison");
        requests.iter().filter(|(_, line)| line.contains(text)).cloned().collect()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn serve(mut client: UnixStream, shared: Arc<Shared>) {
    let mut request = vec![0; 64 * 1024];
    let Ok(length) = client.read(&mut request).await else { return };
    let came = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is set");
    request.truncate(length);
    let line =
        String::from_utf8_lossy(request.split(|&byte| byte == b'\r').next().unwrap_or_default()).into_owned();
    let asks_for_events = line.contains("/events?");
    let changing = (line.contains("/create?") || line.contains("/start")).then(|| Changing::new(&shared));
    shared.requests.lock().expect("no poison").push((came, line));
    shared.arrived.notify_waiters();
    let mode = *shared.mode.lock().expect("no poison");
    match mode {
        Mode::Hang => std::future::pending().await,
        Mode::Drop => {}
        Mode::Events(telling) if asks_for_events => {
            // Whoever asks may be gone at any time.
            let _ = tell(client, &request, telling, &shared.endless_bytes).await;
        }
        Mode::Forward | Mode::DropAnswer | Mode::Events(_) => {
            let mut engine = UnixStream::connect(SOCKET).await.expect("the engine listens");
            engine.write_all(&request).await.expect("the engine reads");
            // The engine's first byte says that it is done.
            let mut answer = vec![0; 64 * 1024];
            let Ok(length) = engine.read(&mut answer).await else { return };
            drop(changing);
            if mode != Mode::DropAnswer && client.write_all(&answer[..length]).await.is_ok() {
                let _ = copy_bidirectional(&mut client, &mut engine).await;
            }
        }
    }
}

/// Asks the engine for events, and passes them on like this.
async fn tell(
    mut client: UnixStream,
    request: &[u8],
    telling: Telling,
    endless_bytes: &AtomicUsize,
) -> std::io::Result<()> {
    let mut engine = BufReader::new(UnixStream::connect(SOCKET).await?);
    // In an answer to HTTP/1.0 are the events and nothing else.
    let request = String::from_utf8_lossy(request).replacen("HTTP/1.1", "HTTP/1.0", 1);
    engine.write_all(request.as_bytes()).await?;
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        engine.read_line(&mut line).await?;
        client.write_all(line.as_bytes()).await?;
    }
    match telling {
        Telling::Nothing => std::future::pending().await,
        Telling::Instead(bytes) => {
            client.write_all(bytes).await?;
            std::future::pending().await
        }
        Telling::Last(bytes) => client.write_all(bytes).await,
        Telling::Endless => {
            const PART: &[u8] = &[b' '; 16 * 1024];
            loop {
                endless_bytes.fetch_add(client.write(PART).await?, Ordering::Relaxed);
            }
        }
        Telling::Again => {
            let mut events = engine.lines();
            let mut told = Vec::new();
            while let Some(event) = events.next_line().await? {
                told.push(format!("{event}\n"));
                for event in told.iter().rev() {
                    client.write_all(event.as_bytes()).await?;
                }
            }
            Ok(())
        }
        Telling::Swapped => {
            let mut events = engine.lines();
            while let (Some(first), Some(second)) = (events.next_line().await?, events.next_line().await?) {
                client.write_all(format!("{second}\n{first}\n").as_bytes()).await?;
            }
            Ok(())
        }
    }
}

/// Counts itself.
struct Changing<'s>(&'s Shared);

impl<'s> Changing<'s> {
    fn new(shared: &'s Shared) -> Self {
        let mut changing = shared.changing.lock().expect("no poison");
        changing.0 += 1;
        changing.1 = changing.1.max(changing.0);
        Self(shared)
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        self.0.changing.lock().expect("no poison").0 -= 1;
    }
}
