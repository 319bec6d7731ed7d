//! The limits of the connections of the API and of the metrics.

use std::time::Duration;

use super::Env;

/// The limits of the connections of one listener.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// The most open connections.
    pub total: usize,
    /// The most open connections of one address; of IPv6, of one network of 64 bits.
    pub per_address: usize,
    /// The longest wait for the head of a request, on a new connection or after an answer.
    pub head_timeout: Duration,
    /// The longest wait for running requests when the process stops.
    pub drain: Duration,
}

impl Default for ConnectionLimits {
    /// Returns limits that leave room below the usual 1,024 open files of a process.
    fn default() -> Self {
        Self {
            total: 800,
            per_address: 400,
            // Longer than the 60 s for which proxies usually keep an idle connection.
            head_timeout: Duration::from_secs(75),
            drain: Duration::from_secs(10),
        }
    }
}

pub(super) fn connections(env: &mut Env) -> ConnectionLimits {
    let usual = ConnectionLimits::default();
    let per_address =
        env.number("API_MAX_CONNECTIONS_PER_ADDRESS", usual.per_address, 1..=1_000_000);
    let total = env.number("API_MAX_CONNECTIONS", usual.total, 1..=1_000_000);
    ConnectionLimits { total, per_address, ..usual }
}
