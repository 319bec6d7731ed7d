//! Loads what services have accepted, for a whole batch of events in a few statements.

use std::collections::{BTreeSet, HashMap};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Service,
    lookup::{Lookup, Repo, Version},
    subject::Subject,
};
use crate::{
    grasp::{
        address::{ANNOUNCEMENT, Address},
        policy::Rule,
    },
    mirror::event::{Event, EventId, column, deleted, rows_of},
};

/// What the services have accepted, by service.
pub(super) type Lookups = HashMap<Uuid, Lookup>;

/// The most repositories that are read for the identifiers of a batch.
const MAX_REPOS: i64 = 20_000;

/// Returns the ids of services as a parameter.
fn ids_of(services: &[Service]) -> Vec<Uuid> {
    services.iter().map(|service| service.id).collect()
}

/// Loads what the judgement of the events needs, apart from events that point to them.
pub(super) async fn load(
    tx: &mut PgConnection,
    services: &[Service],
    subjects: &[Subject<'_>],
) -> Result<Lookups, sqlx::Error> {
    let mut lookups: Lookups =
        services.iter().map(|service| (service.id, Lookup::default())).collect();
    let ids = ids_of(services);
    let addresses: BTreeSet<&str> = addresses(subjects).collect();
    repos(tx, &ids, subjects, &addresses, &mut lookups).await?;
    accepted(tx, &ids, subjects, &mut lookups).await?;
    accepted_addresses(tx, &ids, &addresses, &mut lookups).await?;
    outside(tx, &ids, subjects, &mut lookups).await?;
    let events: Vec<&Event> = subjects.iter().map(|subject| subject.event).collect();
    let mut deleted = deleted(tx, &events).await?;
    // The store refuses these too, so that they admit nothing.
    let is_protected = |event: &&&Event| event.is_protected();
    deleted.extend(events.iter().filter(is_protected).map(|event| event.id));
    for lookup in lookups.values_mut() {
        lookup.deleted.clone_from(&deleted);
    }
    Ok(lookups)
}

/// The addresses that the events name or announce.
fn addresses<'a>(subjects: &'a [Subject<'_>]) -> impl Iterator<Item = &'a str> {
    let named = subjects.iter().flat_map(|subject| &subject.addresses);
    let own = subjects.iter().filter_map(|subject| subject.own.as_ref());
    named.chain(own).map(String::as_str)
}

async fn repos(
    tx: &mut PgConnection,
    services: &[Uuid],
    subjects: &[Subject<'_>],
    addresses: &BTreeSet<&str>,
    lookups: &mut Lookups,
) -> Result<(), sqlx::Error> {
    let repos = addresses.iter().filter(|address| address.starts_with("30617:"));
    let repos: Vec<String> = repos.map(|address| (*address).to_owned()).collect();
    let identifiers: BTreeSet<&str> = subjects.iter().filter_map(Subject::identifier).collect();
    let identifiers = identifiers.into_iter().filter(|identifier| !identifier.contains('\0'));
    let identifiers: Vec<String> = identifiers.map(str::to_owned).collect();
    let rows = sqlx::query!(
        r#"select upstream_id as "upstream_id!", address as "address!", pubkey as "pubkey!",
                  identifier as "identifier!", announcement_id as "announcement_id!",
                  announced_at as "announced_at!", has_left as "has_left!",
                  by_maintainer as "by_maintainer!", maintainers as "maintainers!"
           from (select r.*, r.left_at is not null as has_left from grasp_repo r
                 where r.upstream_id = any($1) and r.address = any($2)
                 union
                 select r.*, r.left_at is not null
                 from unnest($3::text[]) n (identifier)
                 cross join lateral (
                     select * from grasp_repo r where r.identifier = n.identifier offset 0) r
                 where r.upstream_id = any($1)
                 limit $4) found"#,
        services,
        &repos,
        &identifiers,
        MAX_REPOS,
    )
    .fetch_all(tx)
    .await?;
    for row in rows {
        let Some(lookup) = lookups.get_mut(&row.upstream_id) else { continue };
        let repo = Repo {
            pubkey: key(&row.pubkey),
            identifier: row.identifier,
            newest: Version::new(row.announced_at, EventId::of_row(&row.announcement_id)),
            has_left: row.has_left,
            by_maintainer: row.by_maintainer,
            maintainers: row.maintainers.iter().map(|bytes| key(bytes)).collect(),
        };
        lookup.repos.insert(row.address, repo);
    }
    Ok(())
}

fn key(bytes: &[u8]) -> [u8; 32] {
    EventId::of_row(bytes).0
}

/// Finds the events of the batch, and those that it names, that are admitted.
async fn accepted(
    tx: &mut PgConnection,
    services: &[Uuid],
    subjects: &[Subject<'_>],
    lookups: &mut Lookups,
) -> Result<(), sqlx::Error> {
    let own: BTreeSet<EventId> = subjects.iter().map(|subject| subject.event.id).collect();
    let mut ids = own.clone();
    ids.extend(subjects.iter().flat_map(|subject| subject.ids.iter().copied()));
    let rows = sqlx::query!(
        r#"select a.upstream_id, a.event_id, a.rule, a.address,
                  array(select o.address
                        from (select * from grasp_root where event_id = a.event_id offset 0) o
                        where o.upstream_id = a.upstream_id and o.address is distinct from a.address
                        order by 1 limit 20) as "others!"
           from admission a
           where a.upstream_id = any($1) and a.event_id = any($2)"#,
        services,
        &rows_of(ids.iter()),
    )
    .fetch_all(tx)
    .await?;
    for row in rows {
        let Some(lookup) = lookups.get_mut(&row.upstream_id) else { continue };
        let (id, rule) = (EventId::of_row(&row.event_id), Rule::parse(&row.rule));
        if own.contains(&id) {
            lookup.standing.insert(id, rule.unwrap_or(Rule::Own));
        }
        if rule.is_none_or(Rule::carries) {
            lookup.accepted.insert(id, row.address.into_iter().chain(row.others).collect());
        }
    }
    Ok(())
}

/// Finds the addresses, except for those of repositories, whose live version is admitted.
async fn accepted_addresses(
    tx: &mut PgConnection,
    services: &[Uuid],
    addresses: &BTreeSet<&str>,
    lookups: &mut Lookups,
) -> Result<(), sqlx::Error> {
    let named = addresses.iter().filter_map(|address| Address::parse(address));
    let named: Vec<Address> = named.filter(|address| address.kind != ANNOUNCEMENT).collect();
    if named.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query!(
        r#"select a.upstream_id, n.address as "named!", a.rule, a.address
           from unnest($2::text[], $3::int[], $4::bytea[], $5::text[]) n (address, kind, pubkey, d_tag)
           cross join lateral (
               select id from event e
               where e.pubkey = n.pubkey and e.kind = n.kind and e.d_tag = n.d_tag
                 and e.deleted_at is null limit 1) live
           cross join lateral (
               select * from admission a
               where a.event_id = live.id and a.upstream_id = any($1) offset 0) a"#,
        services,
        &column(&named, ToString::to_string),
        &column(&named, |address| i32::from(address.kind)),
        &column(&named, |address| address.pubkey.to_vec()),
        &column(&named, |address| address.identifier.clone()),
    )
    .fetch_all(tx)
    .await?;
    for row in rows {
        let carries = Rule::parse(&row.rule).is_none_or(Rule::carries);
        if let Some(lookup) = lookups.get_mut(&row.upstream_id).filter(|_| carries) {
            lookup.addresses.insert(row.named, row.address.into_iter().collect());
        }
    }
    Ok(())
}

/// Finds the newest known announcement of each repository of the batch if it is not admitted: among the
/// store's newest versions, and among the parked events.
async fn outside(
    tx: &mut PgConnection,
    services: &[Uuid],
    subjects: &[Subject<'_>],
    lookups: &mut Lookups,
) -> Result<(), sqlx::Error> {
    let announced =
        subjects.iter().filter_map(|subject| subject.announcement.as_ref()?.address.clone());
    let announced: Vec<_> = announced.collect::<BTreeSet<_>>().into_iter().collect();
    if announced.is_empty() {
        return Ok(());
    }
    let rows = sqlx::query!(
        r#"select s.id as "service!", n.address as "address!", known.created_at as "created_at!",
                  known.event_id as "event_id!"
           from unnest($2::text[], $3::bytea[], $4::text[]) n (address, pubkey, identifier)
           cross join unnest($1::uuid[]) s (id)
           cross join lateral (
               (select h.created_at, h.id as event_id from event_head h
                where h.pubkey = n.pubkey and h.kind = 30617 and h.d_tag = n.identifier
                  and (select true from admission a
                       where a.upstream_id = s.id and a.event_id = h.id limit 1) is null
                offset 0)
               union all
               (select p.created_at, p.event_id
                from (select k.event_id from parked_key k
                      where k.upstream_id = s.id
                        and k.key = 'm:' || encode(n.pubkey, 'hex') || ':' || n.identifier offset 0) k
                cross join lateral (
                    select p.created_at, p.event_id from parked p
                    where p.upstream_id = s.id and p.event_id = k.event_id and p.kind = 30617 offset 0) p)
               ) known"#,
        services,
        &column(&announced, ToString::to_string),
        &column(&announced, |address| address.pubkey().to_vec()),
        &column(&announced, |address| address.identifier().to_owned()),
    )
    .fetch_all(tx)
    .await?;
    for row in rows {
        let Some(lookup) = lookups.get_mut(&row.service) else { continue };
        let version = Version::new(row.created_at, EventId::of_row(&row.event_id));
        let outside = lookup.outside.entry(row.address).or_insert(version);
        *outside = version.max(*outside);
    }
    Ok(())
}

/// Loads which of the events accepted ones point to.
pub(super) async fn pointed(
    tx: &mut PgConnection,
    services: &[Service],
    subjects: &[&Subject<'_>],
    lookups: &mut Lookups,
) -> Result<(), sqlx::Error> {
    let ids = subjects.iter().map(|subject| (true, subject.event.id.to_string()));
    let own = subjects.iter().filter_map(|subject| Some((false, subject.own.clone()?)));
    let targets: Vec<(bool, String)> = ids.chain(own).collect();
    let rows = sqlx::query!(
        r#"select s.id as "service!", n.target as "target!", hit.address
           from unnest($2::bool[], $3::text[]) n (is_id, target)
           cross join unnest($1::uuid[]) s (id)
           cross join lateral (
               select a.address
               from events_tagged(
                   case when n.is_id then array['e', 'E', 'q'] else array['a', 'A', 'q'] end, array[n.target]) e
               cross join lateral (
                   select a.address from admission a
                   where a.upstream_id = s.id and a.event_id = e.id
                     and a.rule not in ('deletion', 'grasp-list') offset 0) a
               limit 1) hit"#,
        &ids_of(services),
        &column(&targets, |(is_id, _)| *is_id),
        &column(&targets, |(_, target)| target.clone()),
    )
    .fetch_all(tx)
    .await?;
    for row in rows {
        if let Some(lookup) = lookups.get_mut(&row.service) {
            lookup.pointed.insert(row.target, row.address.into_iter().collect());
        }
    }
    Ok(())
}
