//! Relays by their state and by what people type, in pages. Pages, commands and the API use this one search.

use std::time::Duration;

use sqlx::{PgExecutor, PgPool, Postgres, QueryBuilder};

use super::{
    RelayId, Status, SyncState,
    held::{Held, held},
    named::{Named, named},
};

/// The most relays that are listed first because their host is, or begins with, the text.
const FIRST: i64 = 100;

/// The order of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// By creation, newest first. Those whose host the text is, and then those whose host begins with it, come before
    /// the others, at most 100 of them.
    #[default]
    Newest,
    /// By host, in byte order.
    Host,
    /// Only relays that are pending or failing, the longest-waiting first.
    Waiting,
    /// Only relays that gave up, the last ones first.
    GaveUp,
}

/// The filters, the order and the position of a page of relays.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// A tenant's public key or a relay's id, or at least 8 first digits of it, or a part of the host or the
    /// name; of two characters, the start of the host.
    pub text: Option<String>,
    /// Only relays in this state.
    pub sync: Option<SyncState>,
    /// Only relays with this status.
    pub status: Option<Status>,
    /// Only relays that the tenant or the operator deactivated.
    pub is_off: bool,
    /// Only relays that gave up for this cause; see [`Cause`](super::Cause).
    pub cause: Option<String>,
    /// Only relays whose jobs wait for this zooid instance.
    pub held_by: Option<String>,
    /// Only relays that have waited longer than this for zooid.
    pub late: Option<Duration>,
    /// The order of the rows.
    pub order: Order,
    /// Only relays that follow this one in that order.
    pub after: Option<RelayId>,
}

/// Returns the ids of one page of at most `limit` relays, in its order.
pub(super) async fn ids(
    db: &PgPool,
    search: &Search,
    limit: i64,
) -> Result<Vec<String>, sqlx::Error> {
    let first = match &search.text {
        Some(text) => first(db, text, search.order).await?,
        None => Vec::new(),
    };
    let after = search.after.as_ref().map(RelayId::as_str);
    let place = first.iter().position(|id| Some(id.as_str()) == after);
    let ahead = match (after, place) {
        (None, _) => &first[..],
        (Some(_), Some(place)) => &first[place + 1..],
        (Some(_), None) => &[],
    };
    let mut ids = among(db, search, ahead, limit).await?;
    let left = limit - i64::try_from(ids.len()).unwrap_or(limit);
    if left > 0 {
        let after = after.filter(|_| place.is_none());
        ids.extend(others(db, search, &first, after, left).await?);
    }
    Ok(ids)
}

/// Returns the relays that come first for a text.
async fn first(db: &PgPool, text: &str, order: Order) -> Result<Vec<String>, sqlx::Error> {
    if order != Order::Newest {
        return Ok(Vec::new());
    }
    starting_with(db, &text.trim().to_lowercase().replace('\0', ""), FIRST).await
}

/// Returns the ids of at most `limit` relays whose host begins with a text in lower case, in byte order: one whose host
/// or first label is the text comes first.
pub(crate) async fn starting_with(
    db: impl PgExecutor<'_>,
    host: &str,
    limit: i64,
) -> Result<Vec<String>, sqlx::Error> {
    let (subdomain, domain) = host.split_once('.').unwrap_or((host, ""));
    // The end of the range of labels that begin with the text; of one label if the text goes on with a domain.
    let end = if host.contains('.') { '\u{1}' } else { '\u{7f}' };
    sqlx::query_scalar!(
        r#"select id as "id!: String" from relay
           where subdomain collate "C" >= $1 and subdomain collate "C" < $2 and starts_with(zooid_domain, $3)
           order by subdomain collate "C", zooid_domain collate "C", id limit $4"#,
        subdomain,
        format!("{subdomain}{end}"),
        domain,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Returns those of some relays that match, in the order given.
async fn among(
    db: &PgPool,
    search: &Search,
    ids: &[String],
    limit: i64,
) -> Result<Vec<String>, sqlx::Error> {
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let mut query = matching(search, None, held_for(db, search).await?);
    query.push(" and id = any(").push_bind(ids);
    query.push(") order by array_position(").push_bind(ids);
    query.push("::text[], id::text) limit ").push_bind(limit);
    query.build_query_scalar().fetch_all(db).await
}

/// Returns the relays that match, without those that come first, in the order of the search.
async fn others(
    db: &PgPool,
    search: &Search,
    first: &[String],
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<String>, sqlx::Error> {
    let named = match &search.text {
        Some(text) => Some(named(db, text).await?),
        None => None,
    };
    let mut query = matching(search, named, held_for(db, search).await?);
    if !first.is_empty() {
        query.push(" and id <> all(").push_bind(first).push(")");
    }
    push_order(&mut query, search.order, after);
    query.push(" limit ").push_bind(limit);
    query.build_query_scalar().fetch_all(db).await
}

async fn held_for(db: &PgPool, search: &Search) -> Result<Option<Held>, sqlx::Error> {
    match &search.held_by {
        Some(instance) => held(db, instance).await.map(Some),
        None => Ok(None),
    }
}

/// The statement contains only the filters in use, so PostgreSQL plans each combination over the index that fits it.
fn matching(search: &Search, named: Option<Named>, held: Option<Held>) -> QueryBuilder<Postgres> {
    let mut query = QueryBuilder::<Postgres>::new("select id::text from relay where true");
    if let Some(named) = named {
        named.push(&mut query);
    }
    if let Some(held) = held {
        held.push(&mut query);
    }
    if let Some(state) = search.sync {
        query.push(" and ").push(state.condition());
    }
    if let Some(status) = search.status {
        query.push(" and status = ").push_bind(status.as_str());
        if status != Status::Active {
            // The condition of the partial index on deactivated relays.
            query.push(" and status <> 'active'");
        }
    }
    if search.is_off {
        query.push(" and status <> 'active'");
    }
    if let Some(cause) = &search.cause {
        query.push(" and exhausted_at is not null and cause = ").push_bind(cause.clone());
    }
    if let Some(age) = search.late {
        query.push(" and not synced and exhausted_at is null");
        query.push(" and updated_at < now() - make_interval(secs => ");
        query.push_bind(age.as_secs_f64()).push(")");
    }
    query
}

fn push_order(query: &mut QueryBuilder<Postgres>, order: Order, after: Option<&str>) {
    let (columns, than, direction, only) = match order {
        Order::Newest => ("created_at, id", "<", "created_at desc, id desc", ""),
        Order::Host => ("subdomain collate \"C\", id", ">", "subdomain collate \"C\", id", ""),
        Order::Waiting => {
            ("updated_at, id", ">", "updated_at, id", " and not synced and exhausted_at is null")
        }
        Order::GaveUp => {
            ("exhausted_at, id", "<", "exhausted_at desc, id desc", " and exhausted_at is not null")
        }
    };
    query.push(only);
    if let Some(after) = after {
        query.push(format!(" and ({columns}) {than} (select {columns} from relay where id = "));
        query.push_bind(after.to_owned()).push(")");
    }
    query.push(format!(" order by {direction}"));
}
