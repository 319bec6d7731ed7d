//! The states of connections, as they are shown to people.

use std::sync::PoisonError;

use tender_jobs::mirror::upstream::{self, ConnectionState};
use uuid::Uuid;

use super::{Connection, Slot, StepError};
use crate::mirror::connection::Window;

/// The state that is shown to people.
#[derive(Debug, Default, Clone)]
pub(super) struct Seen {
    /// The last connection that was opened.
    connection: Option<Connection>,
    pub(super) is_connecting: bool,
    /// Failed attempts in a row.
    attempts: i32,
    /// The error of the last attempt, if it failed.
    error: Option<String>,
    /// Bytes received and sent by earlier connections.
    bytes: (i64, i64),
    /// The windows of pages whose events came late on earlier connections.
    late: Vec<Window>,
}

impl Slot {
    pub(super) fn note<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn state(&self) -> ConnectionState {
        self.note(|seen| match &seen.connection {
            _ if seen.is_connecting => ConnectionState::Connecting,
            Some(connection) if connection.lost().is_none() => ConnectionState::Open,
            _ if seen.error.is_some() => ConnectionState::Waiting,
            _ => ConnectionState::Closed,
        })
    }

    pub(super) fn row(&self, upstream_id: Uuid, process: &str) -> upstream::Connection {
        let state = self.state();
        self.note(|seen| {
            let of_open = seen.connection.as_ref().map_or((0, 0), Connection::bytes);
            let is_open = state == ConnectionState::Open;
            let subscriptions =
                seen.connection.as_ref().filter(|_| is_open).map_or(0, Connection::subscriptions);
            let lost = seen.connection.as_ref().and_then(Connection::lost);
            upstream::Connection {
                upstream_id,
                process: process.to_owned(),
                state: state.as_str().to_owned(),
                subscriptions: i32::try_from(subscriptions).unwrap_or(i32::MAX),
                attempts: seen.attempts,
                bytes_in: seen.bytes.0 + of_open.0,
                bytes_out: seen.bytes.1 + of_open.1,
                error: seen.error.clone().or(lost),
                updated_at: chrono::DateTime::UNIX_EPOCH, // the database sets this
            }
        })
    }
}

impl Seen {
    /// Returns the windows of pages whose events came late since the last call.
    pub(super) fn untold_late(&mut self) -> Vec<Window> {
        let mut late = std::mem::take(&mut self.late);
        late.extend(self.connection.iter().flat_map(Connection::untold_late));
        late
    }

    /// Notes the end of an attempt to connect.
    pub(super) fn end(&mut self, connected: &Result<Connection, StepError>) {
        self.is_connecting = false;
        match connected {
            Ok(connection) => self.open(connection.clone()),
            Err(error) => self.fail(error),
        }
    }

    fn open(&mut self, connection: Connection) {
        if let Some(gone) = self.connection.replace(connection) {
            let (bytes_in, bytes_out) = gone.bytes();
            self.late.extend(gone.untold_late());
            self.bytes = (self.bytes.0 + bytes_in, self.bytes.1 + bytes_out);
        }
        (self.attempts, self.error) = (0, None);
    }

    fn fail(&mut self, error: &StepError) {
        self.attempts = self.attempts.saturating_add(1);
        self.error = Some(error.to_string());
    }
}
