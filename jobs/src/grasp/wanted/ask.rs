//! The coverage that follows from a change of what is wanted.

use std::collections::BTreeSet;

use sqlx::PgConnection;
use uuid::Uuid;

use super::relays;
use crate::{grasp::family::Family, mirror::event::column};

/// What a change touches.
#[derive(Debug, Default)]
pub(in crate::grasp) struct Touched {
    /// Relays of repositories: service, address and URL. All items of the repository are touched.
    pub(in crate::grasp) relays: Vec<(Uuid, String, String)>,
    /// Items of repositories: service, address, family and item. All relays of the repository are touched.
    pub(in crate::grasp) items: Vec<(Uuid, String, Family, String)>,
}

impl Touched {
    fn is_empty(&self) -> bool {
        self.relays.is_empty() && self.items.is_empty()
    }

    fn urls(&self) -> Vec<String> {
        let urls: BTreeSet<&String> = self.relays.iter().map(|(.., url)| url).collect();
        urls.into_iter().cloned().collect()
    }
}

/// Adds the coverage that is wanted now. An item that the relay delivered for another repository or
/// service is fetched again from the beginning of its history, except for announcements: the other items were judged
/// by what was wanted then.
/// Relays that gained items are planned after 5 s.
pub(super) async fn ask(tx: &mut PgConnection, came: &Touched) -> Result<(), sqlx::Error> {
    if came.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "with named as (
             select relay.id as relay_id, r.upstream_id, r.address, r.identifier
             from unnest($1::uuid[], $2::text[], $3::text[]) n (upstream_id, address, url)
             cross join lateral (select id, url from grasp_relay g where g.url = n.url offset 0) relay
             cross join lateral (
                 select r.upstream_id, r.address, r.identifier from grasp_repo r
                 where r.upstream_id = n.upstream_id and r.address = n.address and r.left_at is null
                 offset 0) r
             where (select s.enabled and s.removing_at is null from grasp_service s
                    where s.upstream_id = n.upstream_id)
         ), asked (relay_id, family, item) as (
             select relay_id, 'announcements', '*' from named
             union select relay_id, 'state', identifier from named
             union select relay_id, 'address', address from named
             union select relay_id, 'root', encode(o.event_id, 'hex')
                   from named cross join lateral (
                       select o.event_id from grasp_root o
                       where o.upstream_id = named.upstream_id and o.address = named.address offset 0) o
             union select relay_id, 'deletion', encode(a.pubkey, 'hex')
                   from named cross join lateral (
                       select a.pubkey from grasp_author a
                       where a.upstream_id = named.upstream_id and a.address = named.address offset 0) a
             union select relay.id, n.family, n.item
                   from unnest($4::uuid[], $5::text[], $6::text[], $7::text[])
                       n (upstream_id, address, family, item)
                   cross join lateral (
                       select w.url from grasp_repo_relay w
                       where w.upstream_id = n.upstream_id and w.address = n.address offset 0) w
                   cross join lateral (select id from grasp_relay g where g.url = w.url offset 0) relay
                   where (select r.left_at is null from grasp_repo r
                          where r.upstream_id = n.upstream_id and r.address = n.address)
                     and (select s.enabled and s.removing_at is null from grasp_service s
                          where s.upstream_id = n.upstream_id)
         ), added as (
             insert into grasp_coverage as c (relay_id, family, item)
             select relay_id, family, item from asked order by 1, 2, 3
             on conflict (relay_id, family, item) do update
                 set state = 'missing', batch = null, walked = '{}',
                     attempts = case when c.state = 'missing' then c.attempts else 0 end,
                     retry_at = case when c.state = 'missing' then c.retry_at else now() end,
                     reason = case when c.state = 'missing' then c.reason else 'asked for again' end
                 where (c.state <> 'missing' or c.walked <> '{}') and c.family <> 'announcements'
             returning relay_id
         )
         insert into grasp_outbox (relay_id, due_at)
         select distinct relay_id, now() + interval '5 seconds' from added order by 1
         on conflict (relay_id) do update set due_at = least(grasp_outbox.due_at, excluded.due_at)",
        &column(&came.relays, |relay| relay.0),
        &column(&came.relays, |relay| relay.1.clone()),
        &column(&came.relays, |relay| relay.2.clone()),
        &column(&came.items, |item| item.0),
        &column(&came.items, |item| item.1.clone()),
        &column(&came.items, |item| item.2.as_str().to_owned()),
        &column(&came.items, |item| item.3.clone()),
    )
    .execute(tx)
    .await?;
    Ok(())
}

/// Deletes the coverage that nothing wants any more, among what was touched, and marks relays that
/// nothing names.
pub(super) async fn take_back(tx: &mut PgConnection, gone: &Touched) -> Result<(), sqlx::Error> {
    if gone.is_empty() {
        return Ok(());
    }
    sqlx::query!(
        "with named as (
             select relay.id as relay_id, relay.url, r.upstream_id, r.address, r.identifier
             from unnest($1::uuid[], $2::text[], $3::text[]) n (upstream_id, address, url)
             cross join lateral (select id, url from grasp_relay g where g.url = n.url offset 0) relay
             cross join lateral (
                 select r.upstream_id, r.address, r.identifier from grasp_repo r
                 where r.upstream_id = n.upstream_id and r.address = n.address offset 0) r
         ), touched (relay_id, url, family, item) as (
             select relay_id, url, 'announcements', '*' from named
             union select relay_id, url, 'state', identifier from named
             union select relay_id, url, 'address', address from named
             union select relay_id, url, 'root', encode(o.event_id, 'hex')
                   from named cross join lateral (
                       select o.event_id from grasp_root o
                       where o.upstream_id = named.upstream_id and o.address = named.address offset 0) o
             union select relay_id, url, 'deletion', encode(a.pubkey, 'hex')
                   from named cross join lateral (
                       select a.pubkey from grasp_author a
                       where a.upstream_id = named.upstream_id and a.address = named.address offset 0) a
             union select relay.id, relay.url, n.family, n.item
                   from unnest($4::uuid[], $5::text[], $6::text[], $7::text[])
                       n (upstream_id, address, family, item)
                   cross join lateral (
                       select w.url from grasp_repo_relay w
                       where w.upstream_id = n.upstream_id and w.address = n.address offset 0) w
                   cross join lateral (
                       select id, url from grasp_relay g where g.url = w.url offset 0) relay
         )
         delete from grasp_coverage c using touched t
         where c.relay_id = t.relay_id and c.family = t.family and c.item = t.item
           and not grasp_wants(t.url, t.family, t.item)",
        &column(&gone.relays, |relay| relay.0),
        &column(&gone.relays, |relay| relay.1.clone()),
        &column(&gone.relays, |relay| relay.2.clone()),
        &column(&gone.items, |item| item.0),
        &column(&gone.items, |item| item.1.clone()),
        &column(&gone.items, |item| item.2.as_str().to_owned()),
        &column(&gone.items, |item| item.3.clone()),
    )
    .execute(&mut *tx)
    .await?;
    relays::forsake(tx, &gone.urls()).await
}
