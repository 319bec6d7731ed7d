//! Stores the states of the connections of this process, and the gaps that they left.

use std::{collections::HashMap, time::Duration};

use sqlx::PgPool;
use tender_jobs::mirror::{
    lane::gap,
    upstream::{self, ConnectionState},
};
use tokio::time::Instant;
use uuid::Uuid;

use super::{Slot, seen::Seen};
use crate::{
    mirror::{Context, connection::Window},
    runtime::pause_or_stop,
};

/// How often the states of connections are stored if they have changed.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// How often they are stored if not.
const TOLD_AGAIN: Duration = Duration::from_secs(10);
/// How often the state of a closed connection is stored if it has not changed: with many upstreams, most are closed.
const CLOSED_AGAIN: Duration = Duration::from_mins(5);
/// Stores the states of the connections, for other processes to show, until this process stops.
/// Then closes the connections and removes their states. A process that has opened none has nothing to tell.
pub(in crate::mirror) async fn tell(context: Context) {
    let Context { db, connections, process, stopping, .. } = context;
    let mut told = Told::default();
    while !pause_or_stop(TOLD_EVERY, &stopping).await {
        let slots = connections.all();
        let rows: Vec<_> = slots.iter().map(|(id, slot)| slot.row(*id, &process)).collect();
        if let Err(error) = told.tell(&db, rows).await {
            tracing::debug!(%error, "could not store the states of connections; trying again in 5 s");
        }
        for (upstream, slot) in slots {
            log_late(upstream, tell_late(&db, &slot).await);
        }
    }
    for (upstream, slot) in connections.all() {
        log_late(upstream, tell_late(&db, &slot).await);
        if let Some(connection) = &slot.open.lock().await.connection {
            connection.close("closed by us: the process stops");
        }
    }
    if let Err(error) = upstream::forget_connections(&db, &process).await {
        tracing::debug!(%error, "could not remove the states of this process's connections");
    }
}

/// The states of connections as they were stored last, and when.
#[derive(Default)]
struct Told(HashMap<Uuid, (Instant, upstream::Connection)>);

impl Told {
    /// Stores states that have changed, or that were stored a while ago.
    async fn tell(
        &mut self,
        db: &PgPool,
        mut rows: Vec<upstream::Connection>,
    ) -> Result<(), sqlx::Error> {
        rows.retain(|row| !self.is_told(row));
        if rows.is_empty() {
            return Ok(());
        }
        upstream::note_connections(db, &rows).await?;
        let now = Instant::now();
        self.0.extend(rows.into_iter().map(|row| (row.upstream_id, (now, row))));
        Ok(())
    }

    /// Whether the state is stored already, and recently enough.
    fn is_told(&self, row: &upstream::Connection) -> bool {
        let is_closed = row.state == ConnectionState::Closed.as_str();
        let again = if is_closed { CLOSED_AGAIN } else { TOLD_AGAIN };
        self.0.get(&row.upstream_id).is_some_and(|(at, told)| told == row && at.elapsed() < again)
    }
}

fn log_late(upstream: Uuid, told: Result<(), sqlx::Error>) {
    if let Err(error) = told {
        tracing::error!(%upstream, %error, "could not store a gap: events came after the end of their page");
    }
}

/// Stores a gap for each page whose events came after its end. A walk that takes these events closes
/// the gap when it is done.
async fn tell_late(db: &PgPool, slot: &Slot) -> Result<(), sqlx::Error> {
    for Window { lane, since, until } in slot.note(Seen::untold_late) {
        gap::add_late(db, lane, since, until).await?;
    }
    Ok(())
}
