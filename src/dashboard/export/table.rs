//! The tables that can be exported: their columns, and how their next rows are read.

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use tender_jobs::{
    console::operator,
    grasp::view::{self, ParkedRow, RepoRow},
    provision::relay,
    queue::{self, JobSummary, Page},
};

use crate::{
    dashboard::{Dashboard, actions::log, grasp, jobs, mirror, provision, workers},
    page::cut,
};

/// Rows that are read at once.
const PAGE: i64 = 1000;

/// A table with the filters and the place of the next rows.
pub(super) enum Table {
    Relays(provision::relays::Shown),
    Upstreams(mirror::upstreams::Shown),
    Repositories(grasp::repos::Shown),
    Followed(grasp::relays::Shown),
    Parked(grasp::parked::Shown),
    Jobs(jobs::Shown),
    Actions(log::Shown),
    Queues,
    Workers(workers::Shown),
    Processes,
    Schedule,
}

impl Table {
    /// Returns the table with this name; `None` if there is none, or the query cannot be read.
    pub(super) fn of(name: &str, query: &str) -> Option<Self> {
        fn read<T: DeserializeOwned>(query: &str) -> Option<T> {
            serde_urlencoded::from_str(query).ok()
        }
        match name {
            "relays" => read(query).map(Self::Relays),
            "upstreams" => read(query).map(Self::Upstreams),
            "repositories" => read(query).map(Self::Repositories),
            "followed" => read(query).map(Self::Followed),
            "parked" => read(query).map(Self::Parked),
            "jobs" => read(query).map(Self::Jobs),
            "actions" => read(query).map(Self::Actions),
            "queues" => Some(Self::Queues),
            "workers" => read(query).map(Self::Workers),
            "processes" => Some(Self::Processes),
            "schedule" => Some(Self::Schedule),
            _ => None,
        }
    }

    /// The columns of the CSV file: fields of the rows.
    pub(super) fn columns(&self) -> impl Iterator<Item = &'static str> {
        self.names().split_whitespace()
    }

    #[rustfmt::skip]
    fn names(&self) -> &'static str {
        match self {
            Self::Relays(_) => "id host tenant_pubkey status synced attempts retry_at exhausted_at sync_error \
                updated_at",
            Self::Upstreams(_) => "id url enabled direction backfill negentropy live notes config created_at \
                updated_at",
            Self::Repositories(_) => "address name pubkey service relays roots missing in_flight confirmed \
                oldest_missing_at left_at created_at",
            Self::Followed(_) => "id url state holder failures missing in_flight confirmed received stored gaps",
            Self::Parked(_) => "event_id kind pubkey service reason detail relay waits_for parked_at expires_at",
            Self::Jobs(_) => "id queue state attempts max_attempts priority run_at done_at lock_by lock_at \
                error",
            Self::Actions(_) => "id created_at who via action target outcome result before after",
            Self::Queues => "queue waiting retrying queued running killed killed_open oldest_due_at \
                next_due_at paused_at",
            Self::Workers(_) => "id queue process started_at last_seen running is_alive",
            Self::Processes => "id name wings memory_bytes started_at last_seen_at is_alive drain_at drain_by \
                drain_reason",
            Self::Schedule => "name wing expression next_at last_started_at last_ended_at last_error queue",
        }
    }

    /// Reads the next rows. Also returns the place after them, if the table goes on.
    pub(super) async fn read(
        &mut self,
        dashboard: &Dashboard,
    ) -> Result<(Vec<Value>, Option<String>), sqlx::Error> {
        let db = &dashboard.db;
        let most = PAGE + 1;
        Ok(match self {
            Self::Relays(shown) => {
                let rows = relay::search(db, &shown.search(), most).await?;
                next(rows, |row| row.id.clone(), &mut shown.after)
            }
            Self::Upstreams(shown) => whole(&mirror::upstreams::listed(db, shown).await?),
            Self::Repositories(shown) => {
                next(view::repos(db, &shown.search(), most).await?, RepoRow::mark, &mut shown.after)
            }
            Self::Followed(shown) => {
                let rows = view::relays(db, &shown.search(), most).await?;
                next(rows, |row| row.url.clone(), &mut shown.after)
            }
            Self::Parked(shown) => {
                let rows = view::parked(db, &shown.search(), most).await?;
                next(rows, ParkedRow::mark, &mut shown.after)
            }
            Self::Jobs(shown) => {
                let page = match shown.page() {
                    Page::Before(_) => Page::First,
                    page => page,
                };
                let filter = shown.selection().find(db).await?.filter;
                let rows = queue::jobs(db, &filter, &page, most).await?;
                let mark = |row: &JobSummary| row.cursor().to_string();
                next(rows, mark, &mut shown.after)
            }
            Self::Actions(shown) => {
                let rows = operator::list(db, &shown.search(), most).await?;
                next(rows, |row| row.id.to_string(), &mut shown.before)
            }
            Self::Queues => whole(&queue::status(db, &tender_jobs::queues()).await?),
            Self::Workers(shown) => {
                let mut rows = queue::workers(db).await?;
                rows.retain(|row| shown.matches(row));
                whole(&rows)
            }
            Self::Processes => whole(&queue::process::processes(db).await?),
            Self::Schedule => whole(&queue::schedule::list(db).await?),
        })
    }
}

/// Returns the rows as JSON, and moves the place of the table behind them.
fn next<T: Serialize>(
    rows: Vec<T>,
    mark: impl Fn(&T) -> String,
    place: &mut String,
) -> (Vec<Value>, Option<String>) {
    let (rows, after) = cut(rows, PAGE, mark);
    if let Some(after) = &after {
        place.clone_from(after);
    }
    (values(&rows), after)
}

fn whole<T: Serialize>(rows: &[T]) -> (Vec<Value>, Option<String>) {
    (values(rows), None)
}

fn values<T: Serialize>(rows: &[T]) -> Vec<Value> {
    rows.iter().map(|row| serde_json::to_value(row).unwrap_or_default()).collect()
}
