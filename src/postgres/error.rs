//! Why no database is available.

use std::{
    io,
    path::{Path, PathBuf},
};

/// Why no database is available.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// PostgreSQL's programs were not found on this machine.
    #[error("PostgreSQL is not installed: {0}, or set DATABASE_URL to a running server")]
    NoBinaries(String),
    /// The installed programs have a different major version than the cluster.
    #[error(
        "the private cluster needs PostgreSQL {cluster}, but {found} is installed: install \
         PostgreSQL {cluster}, or set TENDER_PG_BIN to the directory of its programs"
    )]
    OtherVersion {
        /// The major version of the cluster.
        cluster: String,
        /// The newest installed major version.
        found: String,
    },
    /// The installed programs are too old.
    #[error("PostgreSQL {0} is too old: install version 14 or newer")]
    TooOld(String),
    /// Tender runs as root, and there is no other user to run PostgreSQL as.
    #[error("PostgreSQL does not run as root, and the user `postgres` does not exist: create it")]
    NoUser,
    /// An operation on a file or directory failed.
    #[error("failed to {what} {path}")]
    File {
        /// The operation, as a verb.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },
    /// One of PostgreSQL's programs failed.
    #[error("{program} failed: {words}")]
    Program {
        /// The name of the program.
        program: &'static str,
        /// The last lines of its output, or why it could not be started.
        words: String,
    },
    /// `DATABASE_URL` is malformed.
    #[error("DATABASE_URL is not the URL of a database")]
    Url(#[source] sqlx::Error),
    /// No connection could be opened.
    #[error("PostgreSQL at {place} {why}")]
    Unreachable {
        /// Host and port, or the path of the socket.
        place: String,
        /// Why, and what to do: the rest of the sentence.
        why: String,
    },
}

/// Returns the error of an operation on a file or directory.
pub(super) fn file(what: &'static str, path: &Path, source: io::Error) -> PostgresError {
    PostgresError::File { what, path: path.to_owned(), source }
}
