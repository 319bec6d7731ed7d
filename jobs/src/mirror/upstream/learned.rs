//! Facts that the answers of an upstream have shown: where it cuts them, and how it reads `until`.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;
use uuid::Uuid;

/// The facts known of an upstream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Learned {
    /// The largest page that was evidently cut.
    pub page_cap: Option<i64>,
    /// When the page cap was learned.
    pub page_cap_at: Option<DateTime<Utc>>,
    /// The largest set of a reconciliation (NIP-77) that was evidently cut.
    pub negentropy_cap: Option<i64>,
    /// When the cap of reconciliations was learned.
    pub negentropy_cap_at: Option<DateTime<Utc>>,
    /// Since when the upstream's `until` is known to exclude its second.
    pub exclusive_until_at: Option<DateTime<Utc>>,
}

/// A fact that a job learned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// Pages are cut at this number of events; `None` if a larger page came.
    PageCap(Option<i64>),
    /// Reconciliations are cut at this number of events; `None` if a larger set was compared.
    NegentropyCap(Option<i64>),
    /// `until` excludes its second.
    ExclusiveUntil,
    /// `until` does not exclude its second, as it did before.
    InclusiveUntil,
}

impl Learned {
    /// Returns whether the upstream's `until` excludes its second.
    pub fn is_exclusive(&self) -> bool {
        self.exclusive_until_at.is_some()
    }

    /// Returns the facts as sentences for people.
    pub fn sentences(&self) -> Vec<String> {
        let page = self.page_cap.map(|cap| format!("pages are cut at {cap} events"));
        let set = self.negentropy_cap.map(|cap| format!("reconciliations are cut at {cap} events"));
        let until = self.is_exclusive().then(|| "`until` excludes its second".to_owned());
        [page, set, until].into_iter().flatten().collect()
    }
}

/// Returns the facts known of an upstream; none if it does not exist.
pub async fn learned(db: impl PgExecutor<'_>, id: Uuid) -> Result<Learned, sqlx::Error> {
    let found = sqlx::query_as!(
        Learned,
        "select page_cap, page_cap_at, negentropy_cap, negentropy_cap_at, exclusive_until_at
         from upstream where id = $1",
        id,
    );
    Ok(found.fetch_optional(db).await?.unwrap_or_default())
}

/// Stores a fact.
pub async fn learn(db: impl PgExecutor<'_>, id: Uuid, fact: Fact) -> Result<(), sqlx::Error> {
    let (page, set) = match fact {
        Fact::PageCap(cap) => (Some(cap.unwrap_or(0)), None),
        Fact::NegentropyCap(cap) => (None, Some(cap.unwrap_or(0))),
        Fact::ExclusiveUntil | Fact::InclusiveUntil => (None, None),
    };
    sqlx::query!(
        "update upstream set
             page_cap = case when $2::bigint is null then page_cap else nullif($2, 0) end,
             page_cap_at = case when $2::bigint is null then page_cap_at when $2 > 0 then now() end,
             negentropy_cap = case when $3::bigint is null then negentropy_cap else nullif($3, 0) end,
             negentropy_cap_at =
                 case when $3::bigint is null then negentropy_cap_at when $3 > 0 then now() end,
             exclusive_until_at =
                 case when $4 then now() when not $5 then exclusive_until_at end
         where id = $1",
        id,
        page,
        set,
        fact == Fact::ExclusiveUntil,
        fact == Fact::InclusiveUntil,
    )
    .execute(db)
    .await?;
    Ok(())
}
