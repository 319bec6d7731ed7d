//! The number of open connections, in total and by address.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::config::network;

/// The interval between two lines in the log about refused connections.
const SAY: Duration = Duration::from_secs(10);

/// The open connections of a listener.
pub(super) struct Count {
    total: usize,
    per_address: usize,
    open: Arc<Mutex<Open>>,
    refused: u64,
    said_at: Option<Instant>,
}

#[derive(Default)]
struct Open {
    total: usize,
    by_network: HashMap<IpAddr, usize>,
}

/// The place of one open connection, which is free again when this value is dropped.
pub(super) struct Place {
    open: Arc<Mutex<Open>>,
    network: IpAddr,
}

impl Count {
    pub(super) fn new(total: usize, per_address: usize) -> Self {
        Self { total, per_address, open: Arc::default(), refused: 0, said_at: None }
    }

    /// Returns a place for a connection of `peer`; `None` above a limit.
    pub(super) fn admit(&self, peer: SocketAddr) -> Option<Place> {
        let network = network(peer.ip());
        let mut open = locked(&self.open);
        let of_network = open.by_network.get(&network).copied().unwrap_or_default();
        if open.total >= self.total || of_network >= self.per_address {
            return None;
        }
        open.total += 1;
        open.by_network.insert(network, of_network + 1);
        Some(Place { open: Arc::clone(&self.open), network })
    }

    /// Counts a refused connection. Returns the number of refusals since the last line in the log if
    /// the next line is due.
    pub(super) fn refused(&mut self) -> Option<u64> {
        self.refused += 1;
        if self.said_at.is_some_and(|at| at.elapsed() < SAY) {
            return None;
        }
        self.said_at = Some(Instant::now());
        Some(std::mem::take(&mut self.refused))
    }

    pub(super) fn open(&self) -> usize {
        locked(&self.open).total
    }

    #[expect(clippy::cast_precision_loss, reason = "a count of connections")]
    pub(super) fn open_f64(&self) -> f64 {
        self.open() as f64
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = locked(&self.open);
        open.total -= 1;
        let left = open.by_network.get_mut(&self.network).map(|count| {
            *count -= 1;
            *count
        });
        if left == Some(0) {
            open.by_network.remove(&self.network);
        }
    }
}

/// A panic while the lock was held leaves counts that are valid.
fn locked(open: &Mutex<Open>) -> std::sync::MutexGuard<'_, Open> {
    open.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(text: &str) -> SocketAddr {
        SocketAddr::new(text.parse().expect("an address"), 1)
    }

    #[test]
    fn one_address_cannot_take_every_place() {
        let count = Count::new(3, 2);
        let first = count.admit(peer("2001:db8::1")).expect("free");
        let _second = count.admit(peer("2001:db8::2")).expect("free");
        assert!(count.admit(peer("2001:db8::3")).is_none(), "the same network");
        let _third = count.admit(peer("192.0.2.1")).expect("another address");
        assert!(count.admit(peer("192.0.2.2")).is_none(), "all are taken");
        drop(first);
        assert!(count.admit(peer("2001:db8::3")).is_some());
    }

    #[test]
    fn refusals_are_logged_at_a_bounded_rate() {
        let mut count = Count::new(0, 0);
        assert_eq!(count.refused(), Some(1));
        assert_eq!(count.refused(), None);
    }
}
