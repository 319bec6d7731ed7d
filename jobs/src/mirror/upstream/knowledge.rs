//! What is known of an upstream: whether it speaks NIP-77, whose events it takes, and its NIP-11
//! document.

use serde_json::Value;
use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use crate::queue::one_line;

/// The verdicts that one statement reads.
const PAGE: i64 = 5000;

/// Stores for 24 hours whether the upstream supports NIP-77. `refused` is its message when it
/// refused.
pub async fn judge_negentropy(
    db: impl PgExecutor<'_>,
    id: Uuid,
    refused: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update upstream set
             negentropy_verdict = case when $2::text is null then 'supported' else 'unsupported' end,
             negentropy_verdict_until = now() + interval '24 hours', negentropy_reason = $2
         where id = $1",
        id,
        refused.map(one_line),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Returns whether NIP-77 is enabled and no valid verdict says that the upstream does not support
/// it.
pub async fn tries_negentropy(db: impl PgExecutor<'_>, id: Uuid) -> Result<bool, sqlx::Error> {
    let tries = sqlx::query_scalar!(
        r#"select negentropy and (negentropy_verdict <> 'unsupported'
                                  or negentropy_verdict_until < now()) as "tries!"
           from upstream where id = $1"#,
        id,
    );
    Ok(tries.fetch_optional(db).await?.unwrap_or(false))
}

/// Stores that the upstream takes events from their authors only; `reason` is its message. Known
/// until the upstream is reset or its URL changes.
pub async fn note_authors_only(
    db: impl PgExecutor<'_>,
    id: Uuid,
    reason: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update upstream set authors_only_at = coalesce(authors_only_at, now()), authors_only_reason = $2
         where id = $1",
        id,
        one_line(reason),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Returns whether the NIP-11 document was not requested within the last day.
pub async fn wants_information(db: impl PgExecutor<'_>, id: Uuid) -> Result<bool, sqlx::Error> {
    let wants = sqlx::query_scalar!(
        r#"select coalesce(information_at < now() - interval '1 day', true) as "wants!"
           from upstream where id = $1"#,
        id,
    );
    Ok(wants.fetch_optional(db).await?.unwrap_or(false))
}

/// Stores the NIP-11 document. `None` means that it could not be read: the stored document stays,
/// and the next request follows after a day. If one of its limits rises or goes, the events that were
/// not sent because of such a limit wait for the upload lane again.
pub async fn note_information(
    db: &PgPool,
    id: Uuid,
    information: Option<&Value>,
) -> Result<(), sqlx::Error> {
    // First, because it is repeated until the document is stored.
    if let Some(information) = information
        && raises_limits(db, id, information).await?
    {
        release(db, id).await?;
    }
    sqlx::query!(
        "update upstream set information = coalesce($2, information), information_at = now()
         where id = $1",
        id,
        information,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Returns whether a document has a higher limit for events than the stored one, or none. A limit of 0
/// is none.
async fn raises_limits(db: &PgPool, id: Uuid, new: &Value) -> Result<bool, sqlx::Error> {
    let old = sqlx::query_scalar!("select information from upstream where id = $1", id);
    let Some(old) = old.fetch_optional(db).await?.flatten() else { return Ok(false) };
    let limit = |of: &Value, name: &str| of[name].as_u64().filter(|limit| *limit > 0);
    let rises = |name| {
        let (old, new) = (limit(&old, name), limit(new, name));
        old.is_some() && new.is_none_or(|new| Some(new) > old)
    };
    Ok(["max_message_length", "max_content_length", "max_event_tags"].into_iter().any(rises))
}

/// Lets the events wait for the upload lane that were not sent because of a limit. The delay keeps
/// them from a run that still knows the former document.
async fn release(db: &PgPool, upstream: Uuid) -> Result<(), sqlx::Error> {
    let mut after = Vec::new();
    loop {
        let last = sqlx::query_scalar!(
            r#"with page as (
                   select event_id, verdict, message from upload_verdict
                   where upstream_id = $1 and event_id > $2 order by event_id limit $3
               ), released as (
                   update upload_verdict v set verdict = 'pending', attempts = 0, is_suspect = false,
                          next_try = now() + interval '2 minutes', updated_at = now()
                   from page
                   where v.upstream_id = $1 and v.event_id = page.event_id
                     and page.verdict = 'rejected' and page.message like 'not sent:%(NIP-11)'
               )
               select event_id from page order by event_id desc limit 1"#,
            upstream,
            &after,
            PAGE,
        );
        match last.fetch_optional(db).await? {
            Some(last) => after = last,
            None => return Ok(()),
        }
    }
}
