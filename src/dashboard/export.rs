//! The tables of the pages as CSV and JSON, with the same filters. A file is streamed, a page of rows at a time,
//! and ends after [`MOST`] rows.

mod cell;
mod table;

use std::{io, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{Path, RawQuery, State},
    http::{
        HeaderMap,
        header::{CONTENT_DISPOSITION, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use futures_util::stream;
use maud::{Markup, html};
use serde_json::{Value, json};
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::timeout,
};

use super::{Dashboard, PATH, parts::Problem, session};
use table::Table;

/// The most rows of a file.
const MOST: usize = 100_000;
/// The most files that a process writes at the same time.
pub(super) const AT_ONCE: usize = 4;

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Csv,
    Json,
}

/// A file that is being written.
struct File {
    dashboard: Dashboard,
    table: Table,
    form: Form,
    rows: usize,
    ended: bool,
    headers: HeaderMap,
    _place: OwnedSemaphorePermit,
}

/// The longest time that a reader may take for a page of rows. A reader who takes longer loses the file, so that
/// the places for files are free again.
const STALLED: Duration = Duration::from_secs(30);

/// What the writer of a file hands to its connection: bytes, or the end. Without an end the file is broken off.
type Written = Result<Option<Bytes>, io::Error>;

/// Serves `relays.csv`, `relays.json` and so on, with the filters of the page in the query.
pub(super) async fn file(
    State(dashboard): State<Dashboard>,
    Path(name): Path<String>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (table, form, kind) = match name.rsplit_once('.') {
        Some((table, "csv")) => (table, Form::Csv, "text/csv; charset=utf-8"),
        Some((table, "json")) => (table, Form::Json, "application/json"),
        _ => return Err(Problem::NotFound),
    };
    let table = Table::of(table, &query.unwrap_or_default()).ok_or(Problem::NotFound)?;
    let place = dashboard.exports.clone().try_acquire_owned().map_err(|_| Problem::Busy)?;
    let mut file = File { dashboard, table, form, rows: 0, ended: false, headers, _place: place };
    // The first rows are read before the answer begins, so that an error has its status.
    let first = file.start().await?;
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(file.write(first, sender));
    let body = Body::from_stream(stream::try_unfold(receiver, async |mut receiver| {
        let written: Option<Written> = receiver.recv().await;
        let cut = || Err(io::Error::other("the file was broken off: its reader stalled"));
        Ok::<_, io::Error>(written.unwrap_or_else(cut)?.map(|bytes| (bytes, receiver)))
    }));
    let disposition = format!("attachment; filename=\"{name}\"");
    Ok(([(CONTENT_TYPE, kind.to_owned()), (CONTENT_DISPOSITION, disposition)], body)
        .into_response())
}

impl File {
    async fn start(&mut self) -> Result<Bytes, sqlx::Error> {
        let head = match self.form {
            Form::Csv => cell::line(self.table.columns().map(str::to_owned)),
            Form::Json => "{\"rows\":[".to_owned().into_bytes(),
        };
        let rows = self.read().await?;
        Ok([head, rows].concat().into())
    }

    /// Writes the file until its end, the end of the session, or a reader that stalls.
    async fn write(mut self, first: Bytes, sender: mpsc::Sender<Written>) {
        let mut written = Ok(Some(first));
        loop {
            let is_last = !matches!(written, Ok(Some(_)));
            let sent = timeout(STALLED, sender.send(written)).await;
            if is_last || !matches!(sent, Ok(Ok(()))) {
                return;
            }
            written = self.next().await.map_err(|problem| io::Error::other(format!("{problem:?}")));
        }
    }

    async fn next(&mut self) -> Result<Option<Bytes>, Problem> {
        if self.ended {
            return Ok(None);
        }
        if session::viewer(&self.dashboard, &self.headers).await?.is_none() {
            return Err(Problem::Forbidden);
        }
        Ok(Some(self.read().await?.into()))
    }

    /// Reads the next rows. After the last ones the file ends.
    async fn read(&mut self) -> Result<Vec<u8>, sqlx::Error> {
        let (rows, next) = self.table.read(&self.dashboard).await?;
        let mut bytes = Vec::new();
        for row in rows.iter().take(MOST - self.rows) {
            bytes.extend(self.row(row));
            self.rows += 1;
        }
        if next.is_none() || self.rows >= MOST {
            self.ended = true;
            if self.form == Form::Json {
                bytes.extend(format!("],\"next\":{}}}\n", json!(next)).into_bytes());
            }
        }
        Ok(bytes)
    }

    fn row(&self, row: &Value) -> Vec<u8> {
        match self.form {
            Form::Csv => cell::line(self.table.columns().map(|name| cell::text(&row[name]))),
            Form::Json if self.rows == 0 => row.to_string().into_bytes(),
            Form::Json => format!(",{row}").into_bytes(),
        }
    }
}

/// The links to the files of a table, such as `relays`. `query` has the filters of the page.
pub(super) fn links(table: &str, query: &str) -> Markup {
    html! {
        p.exports {
            "As a file, at most 100,000 rows: "
            a href={ (PATH) "/export/" (table) ".csv" (query) } download { "CSV" }
            " · "
            a href={ (PATH) "/export/" (table) ".json" (query) } download { "JSON" }
        }
    }
}
