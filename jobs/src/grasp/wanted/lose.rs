//! Items that relays have delivered, and that are fetched again: a service that did not judge what they
//! delivered asks for them, or an event of theirs is not at hand any more.

use sqlx::PgConnection;
use uuid::Uuid;

use crate::mirror::event::column;

/// An item that is fetched again.
#[derive(Debug)]
pub(in crate::grasp) struct Lost {
    /// The relay that delivers it; `None` means each that is asked for it.
    pub(in crate::grasp) relay: Option<Uuid>,
    pub(in crate::grasp) family: String,
    pub(in crate::grasp) item: String,
}

/// Makes items missing, and lets their relays plan. Their history is fetched from its beginning: the part that was
/// proven was judged by what was wanted then. An item that is missing already keeps the time of its next attempt.
pub(in crate::grasp) async fn lose(
    tx: &mut PgConnection,
    lost: &[Lost],
) -> Result<(), sqlx::Error> {
    if lost.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "with due as materialized (
             select c.relay_id, c.family, c.item
             from unnest($1::uuid[], $2::text[], $3::text[]) n (relay, family, item)
             join grasp_coverage c on c.family = n.family and c.item = n.item
             where (c.state <> 'missing' or c.walked <> '{}') and (n.relay is null or c.relay_id = n.relay)
             order by 1, 2, 3 for update of c
         ), lost as (
             update grasp_coverage c set state = 'missing', batch = null, walked = '{}',
                 attempts = case when c.state = 'missing' then c.attempts else 0 end,
                 retry_at = case when c.state = 'missing' then c.retry_at else now() end,
                 reason = case when c.state = 'missing' then c.reason else 'asked for again' end
             from due where (c.relay_id, c.family, c.item) = (due.relay_id, due.family, due.item)
             returning c.relay_id
         )
         insert into grasp_outbox (relay_id, due_at)
         select distinct relay_id, now() + interval '5 seconds' from lost order by 1
         on conflict (relay_id) do update set due_at = least(grasp_outbox.due_at, excluded.due_at)",
        &column(lost, |one| one.relay) as &[Option<Uuid>],
        &column(lost, |one| one.family.clone()),
        &column(lost, |one| one.item.clone()),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Makes the announcements of a service's relays missing.
pub(in crate::grasp) async fn lose_announcements(
    tx: &mut PgConnection,
    service: Uuid,
) -> Result<(), sqlx::Error> {
    let relays = sqlx::query_scalar!(
        "select id from grasp_relay
         where url in (select url from grasp_repo_relay where upstream_id = $1
                       union select url from grasp_bootstrap where upstream_id = $1)",
        service,
    );
    let relays = relays.fetch_all(&mut *tx).await?;
    let announcements = |relay| Lost {
        relay: Some(relay),
        family: "announcements".to_owned(),
        item: "*".to_owned(),
    };
    lose(tx, &relays.into_iter().map(announcements).collect::<Vec<_>>()).await
}

/// Makes everything missing that a service wants from its relays.
pub(in crate::grasp) async fn lose_of(
    tx: &mut PgConnection,
    service: Uuid,
) -> Result<(), sqlx::Error> {
    lose_announcements(tx, service).await?;
    let rows = sqlx::query!(
        r#"select distinct relay.id as "relay!", i.family as "family!", i.item as "item!"
           from grasp_repo_relay w join grasp_relay relay on relay.url = w.url
           join grasp_repo_item i on i.upstream_id = w.upstream_id and i.address = w.address
           where w.upstream_id = $1"#,
        service,
    );
    let rows = rows.fetch_all(&mut *tx).await?;
    let items = rows.into_iter().map(|row| Lost {
        relay: Some(row.relay),
        family: row.family,
        item: row.item,
    });
    lose(tx, &items.collect::<Vec<_>>()).await
}
