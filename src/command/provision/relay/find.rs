//! The relay that an operator names.

use anyhow::bail;
use sqlx::PgPool;
use tender_jobs::provision::relay::{self, Relay, RelayId, Search};

use crate::search;

/// The most relays that an error names.
const LISTED: u8 = 5;

/// Finds a relay to change: by its id, or by its whole host, with or without a scheme. A part of a name is not
/// enough, but the error lists the relays that it names.
pub(in crate::command) async fn find(db: &PgPool, text: &str) -> anyhow::Result<Relay> {
    match exact(db, text).await? {
        Some(found) => Ok(found),
        None => bail!(unknown(text, &named(db, text).await?)),
    }
}

/// Finds a relay to show: as [`find`], or by what names only this one: a part of its host or name, or the key of a
/// tenant that has no other.
pub(super) async fn find_part(db: &PgPool, text: &str) -> anyhow::Result<Relay> {
    if let Some(found) = exact(db, text).await? {
        return Ok(found);
    }
    let mut named = named(db, text).await?;
    match named.len() {
        1 => Ok(named.remove(0)),
        _ => bail!(unknown(text, &named)),
    }
}

async fn exact(db: &PgPool, text: &str) -> anyhow::Result<Option<Relay>> {
    let Some(name) = search::normal(text) else { return Ok(None) };
    Ok(match name.parse::<RelayId>() {
        Ok(id) => relay::find(db, &id).await?,
        Err(_) => relay::find_by_host(db, &name.to_lowercase()).await?,
    })
}

/// Returns the relays with this subdomain. Without any, some relays that the text names, as the dashboard's search
/// finds and orders them: one more than [`unknown`] lists, if there are more.
async fn named(db: &PgPool, text: &str) -> anyhow::Result<Vec<Relay>> {
    let Some(query) = search::normal(text) else { return Ok(Vec::new()) };
    let search = Search { text: Some(query.clone()), ..Search::default() };
    let mut named = relay::list(db, &search, i64::from(LISTED) + 1).await?;
    let is_own = |relay: &Relay| relay.subdomain.eq_ignore_ascii_case(&query);
    if named.iter().any(is_own) {
        named.retain(is_own);
    }
    Ok(named)
}

fn unknown(text: &str, named: &[Relay]) -> String {
    let hosts: Vec<String> = named.iter().map(Relay::host).collect();
    let hint = match hosts.as_slice() {
        [] => "`tender relay list` shows both".to_owned(),
        hosts => {
            let (first, rest) = hosts.split_at(hosts.len().min(LISTED.into()));
            let more =
                if rest.is_empty() { "" } else { " and others: `tender relay list --query`" };
            format!("{text} is a part of {}{more}", first.join(", "))
        }
    };
    format!("there is no relay {text}: give its id or whole host; {hint}")
}
