//! The comparison of one relay's coverage with all that is wanted from it, page by page.
//!
//! `pages`: the reads. Pages are read without the lock of admission: normally they show no difference, and a relay of a
//! hundred thousand repositories has hundreds of them. What differs is judged again and repaired under the lock, in a transaction of its own,
//! because the ledger may have changed since the page was read.
//!
//! ```text
//!  due: never, or an hour ago ──▶ begun at a time ──▶ compared now
//!    ▲                              │ a change of a service   │
//!    └──────── marked ◀─────────────┴─────────────────────────┘
//! ```
//!
//! Invariants: a relay that was marked after its comparison began is compared again. While a comparison runs, no other one
//! begins, unless it has run for five minutes or its relay was marked: repairs of both are judged alone. One that dies leaves
//! its relay due.

mod pages;

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use crate::{
    grasp::{admission, family::Family},
    mirror::{contended, event::column},
};

/// The repositories of one page.
const REPOSITORIES: i64 = 500;
/// The items of one page, and the most of one repair.
const ITEMS: i64 = 2000;

/// The longest comparison of a relay. A job may take two minutes.
const WITHIN: Duration = Duration::from_mins(1);

/// What a comparison found, and changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Settlement {
    /// Rows of coverage that were compared.
    pub(super) compared: usize,
    pub(super) added: i64,
    pub(super) deleted: i64,
    /// Whether it took too long, and ended before all was compared.
    pub(super) is_cut: bool,
}

/// An item of coverage: its family, and its name.
type Item = (String, String);

/// A repository that names the relay.
struct Named {
    service: Uuid,
    address: String,
    identifier: String,
}

struct Comparison<'a> {
    db: &'a PgPool,
    relay: Uuid,
    url: String,
    /// By the database's clock; it names the comparison.
    begun_at: DateTime<Utc>,
    begun: Instant,
    settlement: Settlement,
}

/// Compares a relay, and repairs its coverage; `None` while another comparison runs.
pub(super) async fn compare(db: &PgPool, relay: Uuid) -> Result<Option<Settlement>, sqlx::Error> {
    let Some(mut comparison) = begin(db, relay).await? else { return Ok(None) };
    let ended = match comparison.run().await {
        Ok(()) => contended::retried(|| comparison.end()).await,
        failed => failed,
    };
    if let Err(error) = ended {
        let _given_up = comparison.give_up().await; // if this fails, too, it counts as running for five minutes
        return Err(error);
    }
    Ok(Some(comparison.settlement))
}

/// Begins a comparison, unless another one runs. Whether anything wants the relay is noted at once, because
/// nobody follows an unwanted one.
async fn begin(db: &PgPool, relay: Uuid) -> Result<Option<Comparison<'_>>, sqlx::Error> {
    let begun = contended::retried(|| async {
        let mut tx = crate::database::begin(db).await?;
        admission::lock(&mut tx).await?;
        let begun = sqlx::query!(
            r#"update grasp_relay set comparing_since = clock_timestamp()
               where id = $1
                 and not exists (select from grasp_relay where comparing_since > now() - interval '5 minutes')
               returning url, comparing_since as "since!""#,
            relay
        );
        let begun = begun.fetch_optional(&mut *tx).await?;
        if begun.is_some() {
            judge(&mut tx, relay).await?;
        }
        tx.commit().await?;
        Ok(begun)
    });
    let (begun, settlement) = (begun.await?, Settlement::default());
    Ok(begun.map(|row| Comparison {
        db,
        relay,
        url: row.url,
        begun_at: row.since,
        begun: Instant::now(),
        settlement,
    }))
}

impl Comparison<'_> {
    /// Whether there is time for another page. If not, the comparison is cut.
    fn goes_on(&mut self) -> bool {
        self.settlement.is_cut |= self.begun.elapsed() > WITHIN;
        !self.settlement.is_cut
    }

    async fn run(&mut self) -> Result<(), sqlx::Error> {
        self.add_missing().await?;
        self.delete_surplus().await
    }

    async fn add_missing(&mut self) -> Result<(), sqlx::Error> {
        let mut page = self.named(Uuid::nil(), "").await?;
        loop {
            self.add_missing_of(&page).await?;
            match page.last() {
                Some(last) if is_full(page.len(), REPOSITORIES) && self.goes_on() => {
                    page = self.named(last.service, &last.address).await?;
                }
                _ => return Ok(()),
            }
        }
    }

    async fn add_missing_of(&mut self, page: &[Named]) -> Result<(), sqlx::Error> {
        let mut after = Item::default();
        loop {
            let missing = self.missing(page, &after).await?;
            self.repair_each(&missing).await?;
            match missing.last() {
                Some(last) if is_full(missing.len(), ITEMS) && self.goes_on() => {
                    after = last.clone();
                }
                _ => return Ok(()),
            }
        }
    }

    async fn delete_surplus(&mut self) -> Result<(), sqlx::Error> {
        let mut after = Item::default();
        loop {
            let page = self.coverage(&after).await?;
            self.settlement.compared += page.len();
            let surplus = page.iter().filter(|(_, is_wanted)| !is_wanted);
            self.repair_each(&surplus.map(|(item, _)| item.clone()).collect::<Vec<_>>()).await?;
            match page.last() {
                Some((last, _)) if is_full(page.len(), ITEMS) && self.goes_on() => {
                    after = last.clone();
                }
                _ => return Ok(()),
            }
        }
    }

    /// Repairs items in a transaction of their own.
    async fn repair_each(&mut self, items: &[Item]) -> Result<(), sqlx::Error> {
        if items.is_empty() {
            return Ok(());
        }
        let repaired = contended::retried(|| async {
            let mut tx = crate::database::begin(self.db).await?;
            admission::lock(&mut tx).await?;
            admission::look_up_only(&mut tx).await?;
            let repaired = repair(&mut tx, self.relay, items).await?;
            tx.commit().await?;
            Ok(repaired)
        });
        let (added, deleted) = repaired.await?;
        self.settlement.added += added;
        self.settlement.deleted += deleted;
        Ok(())
    }

    /// Ends the comparison. One that was cut is due again after ten minutes, so that the relays after it have their turn.
    async fn end(&self) -> Result<(), sqlx::Error> {
        let mut tx = crate::database::begin(self.db).await?;
        admission::lock(&mut tx).await?;
        sqlx::query!(
            "update grasp_relay set comparing_since = null,
                 reconciled_at = clock_timestamp() - case when $3 then interval '50 minutes' else '0' end
             where id = $1 and comparing_since = $2",
            self.relay,
            self.begun_at,
            self.settlement.is_cut,
        )
        .execute(&mut *tx)
        .await?;
        judge(&mut tx, self.relay).await?;
        tx.commit().await
    }

    /// Leaves the relay due, so that neither it nor another one waits for this comparison.
    async fn give_up(&self) -> Result<(), sqlx::Error> {
        sqlx::query!(
            "update grasp_relay set comparing_since = null where id = $1 and comparing_since = $2",
            self.relay,
            self.begun_at,
        )
        .execute(self.db)
        .await?;
        Ok(())
    }
}

fn is_full(rows: usize, limit: i64) -> bool {
    i64::try_from(rows).is_ok_and(|rows| rows == limit)
}

/// Adds the relay's item of announcements if it is wanted now, and deletes it otherwise. The caller holds the lock of
/// admission.
pub(in crate::grasp) async fn ask_announcements(
    tx: &mut PgConnection,
    relay: Uuid,
) -> Result<(), sqlx::Error> {
    let item = (Family::Announcements.as_str().to_owned(), "*".to_owned());
    repair(tx, relay, &[item]).await?;
    judge(tx, relay).await
}

/// Adds those of the items that are wanted from the relay, and deletes the others. Returns the numbers of both.
async fn repair(
    tx: &mut PgConnection,
    relay: Uuid,
    items: &[Item],
) -> Result<(i64, i64), sqlx::Error> {
    let repaired = sqlx::query!(
        r#"with judged as materialized (
               select g.id, n.family, n.item, grasp_wants(g.url, n.family, n.item) as is_wanted
               from (select id, url from grasp_relay where id = $1) g
               cross join unnest($2::text[], $3::text[]) n (family, item)
           ), added as (
               insert into grasp_coverage (relay_id, family, item)
               select id, family, item from judged where is_wanted order by 1, 2, 3
               on conflict do nothing
               returning relay_id
           ), planned as (
               insert into grasp_outbox (relay_id, due_at)
               select distinct relay_id, now() + interval '5 seconds' from added
               on conflict (relay_id) do update set due_at = least(grasp_outbox.due_at, excluded.due_at)
           ), deleted as (
               delete from grasp_coverage c using judged j
               where not j.is_wanted and c.relay_id = j.id and c.family = j.family and c.item = j.item
               returning 1
           )
           select (select count(*) from added) as "added!", (select count(*) from deleted) as "deleted!""#,
        relay,
        &column(items, |item| item.0.clone()),
        &column(items, |item| item.1.clone()),
    );
    let repaired = repaired.fetch_one(tx).await?;
    Ok((repaired.added, repaired.deleted))
}

/// Notes whether anything wants the relay.
async fn judge(tx: &mut PgConnection, relay: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update grasp_relay set unwanted_since =
             case when grasp_wants(url, 'announcements', '*') then null else coalesce(unwanted_since, now()) end
         where id = $1",
        relay
    )
    .execute(tx)
    .await?;
    Ok(())
}
