//! The states of followed relays.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a followed relay is: its status, and what lies over it. The function `grasp_relay_state` of the
/// schema decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum RelayState {
    /// Everything wanted is confirmed and verified, and the live subscriptions are open.
    InStep,
    /// Connected; history is fetched or verified, or something wanted has not been delivered.
    CatchingUp,
    /// A process opens the connection.
    Connecting,
    /// The next attempt is due later.
    Waiting,
    /// The relay limits our rate; nothing new is asked until a time.
    Limited,
    /// A permanent fault: dns, tls, protocol or private.
    Fault,
    /// Failing for a day or longer; one attempt a day.
    Dead,
    /// An attempt has been due for a minute, and no process has taken it.
    NoRoom,
    /// No repository names it any more; it is dropped within a minute or two.
    Unwanted,
}

impl RelayState {
    /// Every state, in the order in which people read them.
    pub const ALL: [Self; 9] = [
        Self::InStep,
        Self::CatchingUp,
        Self::Connecting,
        Self::Waiting,
        Self::Limited,
        Self::Fault,
        Self::Dead,
        Self::NoRoom,
        Self::Unwanted,
    ];

    /// Returns the name in JSON, metrics and queries.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::InStep => "in_step",
            Self::CatchingUp => "catching_up",
            Self::Connecting => "connecting",
            Self::Waiting => "waiting",
            Self::Limited => "limited",
            Self::Fault => "fault",
            Self::Dead => "dead",
            Self::NoRoom => "no_room",
            Self::Unwanted => "unwanted",
        }
    }

    /// Returns the state with this name; `None` if there is none.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

impl fmt::Display for RelayState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
