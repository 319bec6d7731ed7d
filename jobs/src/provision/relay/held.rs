//! The relays whose jobs wait for a zooid instance.

use sqlx::{PgExecutor, Postgres, QueryBuilder};

use crate::provision::SYNC_RELAY;

/// With more relays than this, they are read in the order of the list, and the job of each is looked up: so many
/// wait that a page is soon full.
const MANY: i64 = 5000;

/// The relays whose jobs wait for one instance.
#[derive(Debug)]
pub(super) enum Held {
    /// These relays.
    Ids(Vec<String>),
    /// Too many relays to list them: the instance.
    Many(String),
}

/// Reads which relays wait for this instance.
pub(super) async fn held(db: impl PgExecutor<'_>, instance: &str) -> Result<Held, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        r#"select substr(idempotency_key, 7) as "id!" from apalis.jobs
           where job_type = $1 and status = 'Pending' and metadata->'held_by' = $2
             and starts_with(idempotency_key, 'relay:')
           limit $3"#,
        SYNC_RELAY,
        instance,
        MANY + 1,
    );
    let ids = ids.fetch_all(db).await?;
    let is_many = i64::try_from(ids.len()).is_ok_and(|read| read > MANY);
    Ok(if is_many { Held::Many(instance.to_owned()) } else { Held::Ids(ids) })
}

impl Held {
    /// Adds the condition to a statement over `relay`.
    pub(super) fn push(self, query: &mut QueryBuilder<Postgres>) {
        match self {
            Self::Ids(ids) => query.push(" and id = any(").push_bind(ids).push(")"),
            Self::Many(instance) => query
                .push(
                    " and exists (select from apalis.jobs job
                                  where job.job_type = 'sync-relay' and job.status = 'Pending'
                                    and job.idempotency_key = 'relay:' || relay.id
                                    and job.metadata->'held_by' = ",
                )
                .push_bind(instance)
                .push(")"),
        };
    }
}
