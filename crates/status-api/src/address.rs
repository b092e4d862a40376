//! The addresses of one name: where several schedulers of a cluster share a name, each is behind an address of its own.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Which of a name's addresses is asked first. Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub struct Addresses(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    /// As they were found last, in order.
    all: Vec<IpAddr>,
    /// To be asked first, if it is still one of them; otherwise the next one is.
    first: Option<IpAddr>,
}

impl Addresses {
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Resolve for Addresses {
    fn resolve(&self, name: Name) -> Resolving {
        let addresses = self.clone();
        Box::pin(async move {
            let found: io::Result<_> = tokio::net::lookup_host((name.as_str(), 0)).await;
            let found = addresses.found(found?.map(|address| address.ip()).collect());
            // The port is the URL's.
            let found: Addrs = Box::new(found.into_iter().map(|address| SocketAddr::new(address, 0)));
            Ok(found)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
