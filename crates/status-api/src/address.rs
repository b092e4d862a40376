//! The addresses of one name: where several schedulers of a cluster share a name, each is behind an address of its own.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Which of a name's addresses is asked first. Cheap to clone; all clones are one.
#[derive(Clone, Debug)]
pub struct Addresses {
    look_up: fn(Name) -> Resolving,
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// As they were found last, in order.
    all: Vec<IpAddr>,
    /// To be asked first, if it is still one of them; otherwise the next one is.
    first: Option<IpAddr>,
}

impl Default for Addresses {
    /// Those that this machine finds.
    fn default() -> Self {
        Self::found_by(look_up)
    }
}

impl Addresses {
    /// Those that `look_up` finds; their ports do not count, the URL's does.
    pub fn found_by(look_up: fn(Name) -> Resolving) -> Self {
        Self { look_up, known: Arc::default() }
    }

    /// From now on this one is asked first.
    pub fn stay(&self, address: IpAddr) {
        self.lock().first = Some(address);
    }

    /// From now on the next one is asked first.
    pub fn turn(&self) {
        let mut known = self.lock();
        let Known { all, first } = &*known;
        let asked = first.filter(|first| all.contains(first)).or(all.first().copied());
        let next = all.iter().find(|address| Some(**address) > asked).or(all.first());
        known.first = next.copied();
    }

    /// What was found, in the order in which it is asked.
    fn found(&self, mut all: Vec<IpAddr>) -> Vec<IpAddr> {
        all.sort_unstable();
        all.dedup();
        let mut known = self.lock();
        known.all.clone_from(&all);
        let begin = all.iter().position(|address| Some(*address) >= known.first).unwrap_or(0);
        all.rotate_left(begin);
        all
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolve for Addresses {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.clone();
        Box::pin(async move {
            let found = (addresses.look_up)(name).await?;
            let found = addresses.found(found.map(|address| address.ip()).collect());
            Ok(to_be_asked(found))
        })
    }
}

fn look_up(name: Name) -> Resolving {
    Box::pin(async move {
        let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
        Ok(to_be_asked(found.map(|address| address.ip()).collect()))
    })
}

/// In this order. Port 0 stands for the URL's.
fn to_be_asked(addresses: Vec<IpAddr>) -> Addrs {
    Box::new(addresses.into_iter().map(|address| SocketAddr::new(address, 0)))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::time::Duration;

    use api_types::Timestamp;
    use reqwest::Url;
    use service_kit::health::Readiness;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;
    use tokio::sync::watch;
    use tokio::time::timeout;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::clock::Clock;
    use crate::follow::{Http, Limits, follow};
    use crate::hub::Hub;
    use crate::testing::snapshot;
    use crate::upstream::client_of;

    /// The two that the name of [`two`] has: the first is asked first.
    const MUTE: [u8; 4] = [127, 0, 0, 1];
    const TALKING: [u8; 4] = [127, 0, 0, 2];

    fn two(_name: Name) -> Resolving {
        Box::pin(async { Ok(to_be_asked(vec![TALKING.into(), MUTE.into()])) })
    }

    /// Listens on one port of both.
    async fn listen() -> (TcpListener, TcpListener) {
        loop {
            let mute = TcpListener::bind((IpAddr::from(MUTE), 0)).await.unwrap();
            let port = mute.local_addr().unwrap().port();
            // Somebody else may have it there.
            if let Ok(talking) = TcpListener::bind((IpAddr::from(TALKING), port)).await {
                return (mute, talking);
            }
        }
    }

    /// Answers each request with the head of a stream and with what `body` makes of the number of the request, from 1.
    /// If that is nothing, it stays open, otherwise it ends.
    async fn serve(listener: TcpListener, asked: &AtomicU32, body: impl Fn(u32) -> String) {
        let mut open = Vec::new();
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let number = asked.fetch_add(1, Ordering::Relaxed) + 1;
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(stream.read_u8().await.unwrap());
            }
            let body = body(number);
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n{body}");
            stream.write_all(answer.as_bytes()).await.unwrap();
            if body.is_empty() {
                open.push(stream);
            }
        }
    }

    #[tokio::test]
    async fn one_that_answers_and_then_says_nothing_is_not_stayed_with() {
        let (mute, talking) = listen().await;
        let url = format!("http://schedulers:{}/v1/stream", mute.local_addr().unwrap().port());
        let addresses = Addresses::found_by(two);
        let dial =
            Http::new(client_of(&addresses, None).unwrap(), Url::parse(&url).unwrap(), addresses.clone());
        let hub = Hub::new(Clock::starting_at(Timestamp::from_epoch_ms(0)), Readiness::not_ready("test"));
        let mut newest = hub.newest();
        let limits = Limits { first_event: Duration::from_millis(300), silence: Duration::from_secs(5) };
        let (asked_mute, asked_talking) = (AtomicU32::new(0), AtomicU32::new(0));
        let event = |number: u32| {
            let document = serde_json::to_string(&snapshot("a", number.into())).unwrap();
            format!("data: {document}\n\n")
        };
        let fourth = async {
            newest
                .wait_for(|newest| newest.as_ref().is_some_and(|newest| newest.snapshot.sequence == 4))
                .await
        };
        tokio::select! {
            () = follow(dial, hub.line(0), watch::channel(limits).1, || 0.0, CancellationToken::new()) => {}
            () = serve(mute, &asked_mute, |_| String::new()) => {}
            () = serve(talking, &asked_talking, event) => {}
            fourth = timeout(Duration::from_secs(20), fourth) => {
                fourth.expect("the one that talks is asked").unwrap();
            }
        }
        let asked = [asked_mute, asked_talking].map(AtomicU32::into_inner);
        assert_eq!(asked, [1, 4], "the mute one once, and then the one that has been heard");
    }

    fn ip(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    #[test]
    fn they_take_turns_until_one_is_stayed_with() {
        let addresses = Addresses::default();
        addresses.turn();
        let found = |all: &[u8]| addresses.found(all.iter().map(|last| ip(*last)).collect());
        assert_eq!(found(&[3, 1, 2, 1]), [ip(1), ip(2), ip(3)]);
        addresses.turn();
        assert_eq!(found(&[3, 1, 2]), [ip(2), ip(3), ip(1)]);
        addresses.turn();
        addresses.turn();
        assert_eq!(found(&[2, 1, 3]), [ip(1), ip(2), ip(3)]);
        addresses.stay(ip(3));
        assert_eq!(found(&[1, 2, 3]), [ip(3), ip(1), ip(2)], "however the answer is ordered");
        assert_eq!(found(&[1, 2, 4]), [ip(4), ip(1), ip(2)], "the next one, if that is gone");
        assert_eq!(found(&[1, 2]), [ip(1), ip(2)]);
        addresses.turn();
        assert_eq!(found(&[1, 2]), [ip(2), ip(1)]);
    }
}
