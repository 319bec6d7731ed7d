//! When the items of a failed batch are fetched again.

/// When the items of a failed batch are fetched again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Again {
    /// After 65 s, and after twice as long with each further failure, up to an hour.
    Later,
    /// After this many seconds, because the relay limits our rate. No attempt counts.
    In(i64),
    /// As [`Later`](Self::Later). The relay itself refused the items, and the reason has its words.
    Refused,
    /// After 65 s. The batch ran out of time and has proven a part, so that no attempt counts.
    Further,
    /// As soon as the relay is connected. The attempt counts: the batch may have ended the connection.
    Reconnected,
    /// After a day: the relay takes no request that names the items.
    Tomorrow,
    /// Not at all: no filter can name the items.
    Never,
}

impl Again {
    /// Returns whether the attempt counts, and the delay in seconds; without a delay, it grows with the attempts.
    pub(super) fn delay(self) -> (bool, Option<i64>) {
        match self {
            Self::Later | Self::Refused | Self::Never => (true, None),
            Self::In(seconds) => (false, Some(seconds)),
            Self::Further => (false, Some(65)),
            Self::Reconnected => (true, Some(0)),
            Self::Tomorrow => (true, Some(86_400)),
        }
    }

    /// Whether the items' own refusal is recorded; `None` if that stays as it is.
    pub(super) fn is_refused(self) -> Option<bool> {
        match self {
            Self::In(_) => None,
            Self::Refused | Self::Tomorrow | Self::Never => Some(true),
            Self::Later | Self::Further | Self::Reconnected => Some(false),
        }
    }
}
