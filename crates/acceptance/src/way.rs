//! A way to an engine on which all passes unchanged but its streams of events, which can be broken.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader, copy_bidirectional};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

/// The head of a request is read at once: it is written at once, and is smaller.
const HEAD_MAX_BYTES: usize = 64 * 1024;

/// What becomes of a stream of events that the engine has begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Telling {
    /// It is passed on.
    AsItIs,
    /// It ends at once, whenever it is asked for.
    Ends,
    /// It stays open, and nothing comes.
    Nothing,
    /// What comes is no event.
    Nonsense,
    /// What comes is a line without an end.
    Endless,
    /// After each event all that came before come again, the newest first.
    Again,
}

impl Telling {
    /// All in which it is broken.
    pub const BROKEN: [Self; 5] = [Self::Ends, Self::Nothing, Self::Nonsense, Self::Endless, Self::Again];
}

/// Stands as long as it lives.
pub struct Way {
    directory: TempDir,
    telling: watch::Sender<Telling>,
    asked: watch::Receiver<u64>,
    accepting: AbortHandle,
}

impl Way {
    /// To the engine at this address, a unix socket.
    pub fn to(engine: &str) -> Result<Self> {
        let engine = PathBuf::from(engine.strip_prefix("unix://").context("it is no unix socket")?);
        let directory = tempfile::tempdir()?;
        let listener = UnixListener::bind(socket(&directory))?;
        let telling = watch::Sender::new(Telling::AsItIs);
        let (ask, asked) = watch::channel(0);
        let accepting = tokio::spawn({
            let telling = telling.clone();
            async move {
                let mut connections = JoinSet::new();
                while let Ok((client, _)) = listener.accept().await {
                    while connections.try_join_next().is_some() {}
                    let (engine, telling, ask) = (engine.clone(), telling.subscribe(), ask.clone());
                    // Either side may leave at any time.
                    connections.spawn(async move { drop(serve(client, &engine, telling, ask).await) });
                }
            }
        });
        Ok(Self { directory, telling, asked, accepting: accepting.abort_handle() })
    }

    /// As Force12's configuration has it.
    pub fn address(&self) -> String {
        format!("unix://{}", socket(&self.directory).display())
    }

    /// Ends the streams of events that there are. Those that are asked for from now on are like this; returns when
    /// one has been, which has to be within `bound`.
    pub async fn tell(&mut self, telling: Telling, bound: Duration) -> Result<()> {
        self.asked.mark_unchanged();
        self.telling.send_replace(telling);
        let asked = tokio::time::timeout(bound, self.asked.changed()).await;
        asked.with_context(|| format!("events are not asked for ({telling:?})"))?.context("it has ended")
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn socket(directory: &TempDir) -> PathBuf {
    directory.path().join("engine.sock")
}

async fn serve(
    mut client: UnixStream,
    engine: &Path,
    mut telling: watch::Receiver<Telling>,
    ask: watch::Sender<u64>,
) -> io::Result<()> {
    let mut head = vec![0; HEAD_MAX_BYTES];
    let length = client.read(&mut head).await?;
    head.truncate(length);
    let mut engine = UnixStream::connect(engine).await?;
    if !head.starts_with(b"GET /events?") {
        engine.write_all(&head).await?;
        return copy_bidirectional(&mut client, &mut engine).await.map(drop);
    }
    let now = *telling.borrow_and_update();
    ask.send_modify(|asked| *asked += 1);
    tokio::select! {
        told = tell(client, engine, &head, now) => told,
        _ = telling.changed() => Ok(()),
    }
}

async fn tell(mut client: UnixStream, engine: UnixStream, head: &[u8], telling: Telling) -> io::Result<()> {
    let mut engine = BufReader::new(engine);
    // In an answer to HTTP/1.0 are the events and nothing else.
    let head = String::from_utf8_lossy(head).replacen("HTTP/1.1", "HTTP/1.0", 1);
    engine.write_all(head.as_bytes()).await?;
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        engine.read_line(&mut line).await?;
        client.write_all(line.as_bytes()).await?;
    }
    match telling {
        Telling::AsItIs => tokio::io::copy(&mut engine, &mut client).await.map(drop),
        Telling::Ends => Ok(()),
        Telling::Nothing => std::future::pending().await,
        Telling::Nonsense => {
            client.write_all(b"{\"Type\":\"container\",\"Action\"\n<html>\n").await?;
            std::future::pending().await
        }
        Telling::Endless => loop {
            client.write_all(b"                                ").await?;
        },
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
    }
}
