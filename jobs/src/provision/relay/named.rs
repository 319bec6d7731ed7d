//! Relays by what people type: a tenant's key or an id, or the first 8 digits of it, or a part of the host or
//! the name. Pages, commands and the API use this one function, so that all of them find the same relays.
//!
//! Every way is served by an index. The names are in a table of their own with an index of trigrams, which needs
//! three characters; a shorter text is the start of a host.

use sqlx::{PgPool, Postgres, QueryBuilder};

use super::RelayId;

/// Up to so many matches are read here; more stay in the database.
const MANY: usize = 5000;
/// With more matches than this, relays are read in the order of the list, and each is compared: such a text is so
/// common that a page is soon full.
const COMMON: i64 = 50_000;

/// What a text means.
#[derive(Debug)]
pub(super) enum Named {
    /// A tenant's whole public key.
    Tenant(String),
    /// The start of a tenant's key or of an id, or what [`Named::Ids`] says.
    KeyOr(String, Vec<String>),
    /// The start of a host.
    Start(String),
    /// These relays: their host or name contains the text.
    Ids(Vec<String>),
    /// Many relays match: the pattern.
    Many(String),
    /// So many relays match that any page has some: the pattern.
    Common(String),
}

/// Finds out what a text means. Case does not matter.
pub(super) async fn named(db: &PgPool, text: &str) -> Result<Named, sqlx::Error> {
    let text = text.trim().to_lowercase().replace('\0', "");
    if let Ok(id) = text.parse::<RelayId>() {
        return Ok(Named::Ids(vec![id.as_str().to_owned()]));
    }
    let is_hex = text.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && text.len() == 64 {
        return Ok(Named::Tenant(text));
    }
    if text.chars().count() < 3 {
        return Ok(Named::Start(text));
    }
    let pattern =
        format!("%{}%", text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_"));
    let ids = sqlx::query_scalar!(
        "select relay_id from relay_name where name like $1 limit $2",
        pattern,
        i64::try_from(MANY + 1).unwrap_or(i64::MAX),
    );
    let ids = ids.fetch_all(db).await?;
    Ok(if ids.len() > MANY {
        if is_common(db, &pattern).await? { Named::Common(pattern) } else { Named::Many(pattern) }
    } else if (8..64).contains(&text.len()) && text.bytes().all(is_of_id) {
        Named::KeyOr(text, ids)
    } else {
        Named::Ids(ids)
    })
}

async fn is_common(db: &PgPool, pattern: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select count(*) > $2::bigint as "is_common!"
           from (select from relay_name where name like $1 limit $2::bigint + 1) matching"#,
        pattern,
        COMMON,
    )
    .fetch_one(db)
    .await
}

fn is_of_id(byte: u8) -> bool {
    byte.is_ascii_hexdigit() || byte == b'-'
}

impl Named {
    /// Adds the condition to a statement over the table `relay`.
    pub(super) fn push(self, query: &mut QueryBuilder<Postgres>) {
        match self {
            Self::Tenant(key) => {
                query.push(" and tenant_pubkey = ").push_bind(key);
            }
            Self::KeyOr(start, ids) => {
                query.push(" and (id = any(").push_bind(ids);
                query.push(") or (tenant_pubkey >= ").push_bind(start.clone());
                query.push(" and tenant_pubkey < ").push_bind(format!("{start}g"));
                query.push(") or (id >= ").push_bind(start.clone());
                query.push(" and id < ").push_bind(format!("{start}g")).push("))");
            }
            Self::Start(start) => {
                let end = format!("{start}\u{7f}");
                query.push(" and subdomain collate \"C\" >= ").push_bind(start);
                query.push(" and subdomain collate \"C\" < ").push_bind(end);
            }
            Self::Ids(ids) => {
                query.push(" and id = any(").push_bind(ids).push(")");
            }
            Self::Many(pattern) => {
                query.push(" and id = any(array(select relay_id from relay_name where name like ");
                query.push_bind(pattern).push("))");
            }
            Self::Common(pattern) => {
                query.push(" and exists (select from relay_name n where n.relay_id = relay.id and n.name like ");
                query.push_bind(pattern).push(")");
            }
        }
    }
}
