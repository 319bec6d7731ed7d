//! Waking: an accepted event wakes the events that wait for it. They are the parked ones with one of its
//! keys, and those that the store has for another reason and that it connects. A job judges them again.

use std::collections::BTreeSet;

use sqlx::PgConnection;
use uuid::Uuid;

use super::keys::wake_keys;
use crate::{
    grasp::{
        address::{ANNOUNCEMENT, Address, STATE},
        work::Work,
    },
    mirror::event::{EventId, column},
    queue,
};

/// The most stored events that one acceptance wakes at once. If there are more, the accepted events are
/// judged again too, and wake the rest: a judged event is admitted or parked, so that this ends.
const MAX_WOKEN: usize = 5000;

/// An event that a service accepted, and what it connects.
#[derive(Debug)]
pub(in crate::grasp) struct Accepted<'a> {
    pub(in crate::grasp) service: Uuid,
    pub(in crate::grasp) id: EventId,
    /// Its own address.
    pub(in crate::grasp) own: Option<&'a str>,
    /// Whether stored events that point to this address are looked for.
    pub(in crate::grasp) finds_own: bool,
    /// The addresses that it points to.
    pub(in crate::grasp) addresses: &'a [String],
    /// The ids that it points to.
    pub(in crate::grasp) ids: &'a [EventId],
    /// The identifier of an announcement, and the public keys of its author and maintainers.
    pub(in crate::grasp) maintained: Option<(&'a str, Vec<[u8; 32]>)>,
}

/// Marks the events that wait for accepted ones to be judged again, and enqueues the job that does.
pub(in crate::grasp) async fn wake(
    tx: &mut PgConnection,
    accepted: &[Accepted<'_>],
) -> Result<(), sqlx::Error> {
    if accepted.is_empty() {
        return Ok(());
    }
    let keys: Vec<(Uuid, String)> = accepted.iter().flat_map(Accepted::keys).collect();
    let parked = wake_keys(tx, &keys).await?;
    let stored = wake_stored(tx, accepted).await?;
    if stored.len() >= MAX_WOKEN {
        wake_again(tx, accepted).await?;
    }
    let services: BTreeSet<Uuid> = parked.into_iter().chain(stored).collect();
    let jobs: Vec<_> =
        services.into_iter().map(|service| Work::Release { service }.job()).collect();
    if !jobs.is_empty() {
        queue::enqueue(tx, &jobs).await?;
    }
    Ok(())
}

/// Wakes events that are in the store without a decision of the service. Returns the service of each.
/// Each step looks up the rows of the one before by an index: `offset 0` keeps the planner from joining in
/// another order, and a condition with `limit 1` from reading a whole table.
async fn wake_stored(
    tx: &mut PgConnection,
    accepted: &[Accepted<'_>],
) -> Result<Vec<Uuid>, sqlx::Error> {
    let targets: Vec<(Uuid, bool, String)> = accepted.iter().flat_map(Accepted::targets).collect();
    let ids = accepted.iter().flat_map(|one| one.ids.iter().map(|id| (one.service, *id)));
    let ids: Vec<(Uuid, EventId)> = ids.collect();
    let heads: Vec<(Uuid, Address)> = accepted.iter().flat_map(Accepted::heads).collect();
    sqlx::query_scalar!(
        "insert into grasp_release (upstream_id, event_id)
         select distinct found.service, found.id
         from (
             select n.service, e.id, e.kind, e.pubkey, e.d_tag
             from unnest($1::uuid[], $2::bool[], $3::text[]) n (service, is_id, target)
             cross join lateral events_tagged(
                 case when n.is_id then array['e', 'E', 'q'] else array['a', 'A', 'q'] end, array[n.target]) e
             where e.deleted_at is null
             union all
             select n.service, e.id, e.kind, e.pubkey, e.d_tag
             from unnest($4::uuid[], $5::bytea[]) n (service, id)
             cross join lateral (
                 select e.id, e.kind, e.pubkey, e.d_tag from event e
                 where e.id = n.id and e.deleted_at is null offset 0) e
             union all
             select n.service, e.id, n.kind, n.pubkey, n.d_tag
             from unnest($6::uuid[], $7::int[], $8::bytea[], $9::text[]) n (service, kind, pubkey, d_tag)
             cross join lateral (
                 select e.id from event e
                 where e.pubkey = n.pubkey and e.kind = n.kind and e.d_tag = n.d_tag
                   and e.deleted_at is null offset 0) e) found
         where ((select true from admission a
                 where a.upstream_id = found.service and a.event_id = found.id limit 1) is null
                -- its repository has left, and may come back
                or found.kind = 30617 and (
                    select true from grasp_repo r
                    where r.upstream_id = found.service
                      and r.address = '30617:' || encode(found.pubkey, 'hex') || ':' || found.d_tag
                      and r.announcement_id = found.id and r.by_maintainer and r.left_at is not null
                    limit 1))
           and (select true from parked p
                where p.upstream_id = found.service and p.event_id = found.id limit 1) is null
           and (select true from grasp_release r
                where r.upstream_id = found.service and r.event_id = found.id limit 1) is null
         order by 1, 2 limit $10
         on conflict do nothing
         returning upstream_id",
        &column(&targets, |(service, ..)| *service),
        &column(&targets, |(_, is_id, _)| *is_id),
        &column(&targets, |(.., target)| target.clone()),
        &column(&ids, |(service, _)| *service),
        &column(&ids, |(_, id)| id.0.to_vec()),
        &column(&heads, |(service, _)| *service),
        &column(&heads, |(_, head)| i32::from(head.kind)),
        &column(&heads, |(_, head)| head.pubkey.to_vec()),
        &column(&heads, |(_, head)| head.identifier.clone()),
        i64::try_from(MAX_WOKEN).unwrap_or(i64::MAX),
    )
    .fetch_all(tx)
    .await
}

/// Lets the accepted events be judged again, so that they wake what is left.
async fn wake_again(tx: &mut PgConnection, accepted: &[Accepted<'_>]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into grasp_release (upstream_id, event_id)
         select * from unnest($1::uuid[], $2::bytea[]) order by 1, 2 on conflict do nothing",
        &column(accepted, |one| one.service),
        &column(accepted, |one| one.id.0.to_vec()),
    )
    .execute(tx)
    .await?;
    Ok(())
}

impl Accepted<'_> {
    /// The keys that its acceptance releases.
    fn keys(&self) -> Vec<(Uuid, String)> {
        let of_own = self.own.iter().map(|own| format!("a:{own}"));
        let of_ids = self.ids.iter().map(|id| format!("i:{id}"));
        let of_addresses = self.addresses.iter().map(|address| format!("i:{address}"));
        let maintained = self.maintained.iter().flat_map(|(identifier, authors)| {
            authors.iter().map(move |author| format!("m:{}:{identifier}", hex::encode(author)))
        });
        let keys = of_own.chain(of_ids).chain(of_addresses).chain(maintained);
        keys.chain([format!("e:{}", self.id)]).map(|key| (self.service, key)).collect()
    }

    /// The values of tags that point to the event; true marks an id.
    fn targets(&self) -> Vec<(Uuid, bool, String)> {
        let own = self.own.iter().filter(|_| self.finds_own);
        let own = own.map(|own| (self.service, false, (*own).to_owned()));
        own.chain([(self.service, true, self.id.to_string())]).collect()
    }

    /// The addressable events that it connects: those that it points to, and the announcements and states
    /// of its maintainers.
    fn heads(&self) -> Vec<(Uuid, Address)> {
        let named = self.addresses.iter().filter_map(|address| Address::parse(address));
        let maintained = self.maintained.iter().flat_map(|(identifier, authors)| {
            let of = |kind, pubkey| Address { kind, pubkey, identifier: (*identifier).to_owned() };
            authors.iter().flat_map(move |author| [of(ANNOUNCEMENT, *author), of(STATE, *author)])
        });
        named.chain(maintained).map(|address| (self.service, address)).collect()
    }
}
