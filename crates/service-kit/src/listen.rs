//! Listening: the address, and what to do when no file descriptor is left for one more connection.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep};

/// After a failed `accept` (most often: no file descriptor left) there is nothing to do but to let some go.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);
/// That connections cannot be accepted is said at most this often, also where it comes and goes.
const SAID_EVERY: Duration = Duration::from_mins(1);

/// Why a service does not listen. Its text names the address and says what to do.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}; {}", remedy(source))]
pub struct ListenError {
    /// The address.
    pub address: SocketAddr,
    /// Why not.
    pub source: io::Error,
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "end what listens there, or change `listen` in the config",
        io::ErrorKind::AddrNotAvailable => {
            "this machine has no such address: set `listen` in the config to one that it has, or to 0.0.0.0 for all"
        }
        io::ErrorKind::PermissionDenied => {
            "ports below 1024 take a privilege (CAP_NET_BIND_SERVICE): set `listen` in the config to a higher one"
        }
        _ => "set `listen` in the config to an address that can be listened on",
    }
}

/// Listens on `address`.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, ListenError> {
    TcpListener::bind(address).await.map_err(|source| ListenError { address, source })
}

/// Accepts connections, and waits where it cannot.
#[derive(Debug)]
pub(crate) struct Acceptor {
    listener: TcpListener,
    /// When it was last said that no connection can be accepted.
    said_at: Option<Instant>,
    /// Whether it is still to be said that they can again.
    recovery_unsaid: bool,
}

impl Acceptor {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self { listener, said_at: None, recovery_unsaid: false }
    }

    /// The next connection, and its peer. It may be dropped and called again at any time.
    pub(crate) async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match self.listener.accept().await {
                Ok(accepted) => {
                    if std::mem::take(&mut self.recovery_unsaid) {
                        tracing::info!("connections are accepted again");
                    }
                    return accepted;
                }
                Err(error) => {
                    self.say(&error);
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }

    fn say(&mut self, error: &io::Error) {
        metrics::counter!("http_accepts_failed_total").increment(1);
        if self.said_at.is_none_or(|at| at.elapsed() >= SAID_EVERY) {
            self.said_at = Some(Instant::now());
            self.recovery_unsaid = true;
            tracing::warn!(
                %error,
                "no connection can be accepted; tried again every {} ms",
                ACCEPT_PAUSE.as_millis()
            );
        }
    }
}

/// How many connections of peers may be open at a time, of `wanted`: at most half of the file descriptors that the
/// process may have, so that the other half is left for what the service itself needs, such as its engines.
pub(crate) fn connections_that_fit(wanted: usize) -> usize {
    let Some(limit) = std::fs::read_to_string("/proc/self/limits").ok().as_deref().and_then(open_files)
    else {
        return wanted;
    };
    let fit = wanted.min((limit / 2).max(1));
    if fit < wanted {
        tracing::info!(
            connections = fit,
            open_files = limit,
            "the limit on open files leaves room for fewer connections than usual"
        );
    }
    fit
}

/// The soft limit on open files, from the text of `/proc/self/limits`; `None` if there is none.
fn open_files(limits: &str) -> Option<usize> {
    limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?
        .split_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_address_that_cannot_be_had_is_explained() {
        let taken = listen("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let error = listen(taken.local_addr().unwrap()).await.unwrap_err().to_string();
        assert!(error.contains("end what listens there, or change `listen`"), "{error}");
        // An address for documentation: no machine has it.
        let error = listen("203.0.113.9:80".parse().unwrap()).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot listen on 203.0.113.9:80: "), "{error}");
        assert!(error.contains("this machine has no such address"), "{error}");
        assert!(remedy(&io::ErrorKind::PermissionDenied.into()).contains("ports below 1024"));
    }

    #[test]
    fn the_limit_on_open_files_is_read() {
        let text = "Limit                     Soft Limit           Hard Limit           Units\n\
                    Max processes             95989                95989                processes\n\
                    Max open files            1024                 524288               files\n";
        assert_eq!(open_files(text), Some(1024));
        assert_eq!(
            open_files("Max open files            unlimited            unlimited            files\n"),
            None
        );
        assert_eq!(open_files(""), None);
        assert!(connections_that_fit(1) == 1);
    }
}
