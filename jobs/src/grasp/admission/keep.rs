//! What follows from an acceptance, once the store has the event: its row in `admission`, what the
//! service wants because of it, the events that waited for it, and its upload to the service's relay.

use std::collections::HashSet;

use sqlx::PgConnection;
use uuid::Uuid;

use super::{Service, bench::Bench, judge::Verdict, subject::Subject};
use crate::{
    grasp::{
        address::ROOTS,
        family::Source,
        parked::{self, Accepted},
        policy::Rule,
        wanted::{self, Announced, Changes, Deletion},
    },
    mirror::event::{Event, EventId, column, outgoing},
};

/// An event of a service that is in the store now.
struct Kept<'a> {
    service: &'a Service,
    subject: &'a Subject<'a>,
    rule: Rule,
    /// The repositories through which it was admitted.
    through: &'a [String],
    /// Whether it was admitted before.
    stands: bool,
    /// Whether it announces a repository that the service had before.
    replaces: bool,
}

/// Writes what follows from the judgement of events that are in the store.
pub(super) async fn keep(
    tx: &mut PgConnection,
    bench: &Bench<'_>,
    events: &[&Event],
    new: &HashSet<EventId>,
) -> Result<(), sqlx::Error> {
    let there: HashSet<EventId> = events.iter().map(|event| event.id).collect();
    let mut kept = kept(bench, &there);
    let admitted = admit(tx, bench, &kept).await?;
    let is_fresh = |one: &Kept<'_>| admitted.contains(&(one.service.id, one.subject.event.id));
    // Events of the store are applied again, because the limits of the service may have changed; and
    // released ones wake what they did not wake before.
    let applies_again = matches!(bench.how.source, Source::Store | Source::Released);
    kept.retain(|one| is_fresh(one) || (one.stands && applies_again));
    wanted::apply(tx, changes(bench, &kept)).await?;
    wanted::delete(tx, &deletions(&kept)).await?;
    let left = wanted::left(tx, &maintained(&kept)).await?;
    // An announcement whose repository has left connects nothing. Two that list each other would wake each
    // other for ever.
    let reached = kept.iter().filter(|one| {
        one.subject.repo().is_none_or(|repo| !left.contains(&(one.service.id, repo)))
    });
    let accepted: Vec<Accepted<'_>> = reached.filter_map(accepted).collect();
    parked::wake(tx, &accepted).await?;
    let old = kept.iter().filter(|one| is_fresh(one) && !new.contains(&one.subject.event.id));
    let old: Vec<(Uuid, EventId)> = old.map(|one| (one.service.id, one.subject.event.id)).collect();
    outgoing::offer(tx, &old).await
}

fn kept<'a>(bench: &'a Bench<'_>, there: &HashSet<EventId>) -> Vec<Kept<'a>> {
    let mut kept = Vec::new();
    for (service, judgement) in &bench.judged {
        for (subject, verdict) in bench.subjects.iter().zip(&judgement.verdicts) {
            if !there.contains(&subject.event.id) {
                continue;
            }
            let (rule, through, stands) = match verdict {
                Verdict::Admitted(rule, through) => (*rule, through.as_slice(), false),
                Verdict::Stands(rule) => (*rule, [].as_slice(), true),
                Verdict::Refused(_) | Verdict::Deleted => continue,
            };
            let replaces = subject.repo().is_some_and(|repo| judgement.held.contains(&repo));
            kept.push(Kept { service, subject, rule, through, stands, replaces });
        }
    }
    kept
}

/// Writes the rows of admission, and forgets that the events were parked. Returns the new rows.
async fn admit(
    tx: &mut PgConnection,
    bench: &Bench<'_>,
    kept: &[Kept<'_>],
) -> Result<HashSet<(Uuid, EventId)>, sqlx::Error> {
    let fresh: Vec<&Kept<'_>> = kept.iter().filter(|one| !one.stands).collect();
    if fresh.is_empty() {
        return Ok(HashSet::new());
    }
    let rows = sqlx::query!(
        "insert into admission (upstream_id, event_id, rule, address, source, relay_id)
         select n.*, $5, $6 from unnest($1::uuid[], $2::bytea[], $3::text[], $4::text[]) n
         order by 1, 2
         on conflict do nothing
         returning upstream_id, event_id",
        &column(&fresh, |one| one.service.id),
        &column(&fresh, |one| one.subject.event.id.0.to_vec()),
        &column(&fresh, |one| one.rule.as_str().to_owned()),
        &column(&fresh, |one| one.through.first().cloned()) as &[Option<String>],
        bench.how.source.as_str(),
        bench.how.relay,
    )
    .fetch_all(&mut *tx)
    .await?;
    let admitted = rows.iter().map(|row| (row.upstream_id, EventId::of_row(&row.event_id)));
    let admitted: HashSet<(Uuid, EventId)> = admitted.collect();
    let rows: Vec<(Uuid, EventId)> = admitted.iter().copied().collect();
    parked::forget(tx, &rows).await?;
    Ok(admitted)
}

/// What the services want because of the events, and what they do not want any more.
fn changes<'a>(bench: &'a Bench<'_>, kept: &[Kept<'a>]) -> Changes {
    let mut changes = Changes::default();
    for (service, judgement) in &bench.judged {
        let leaving = judgement.leaving.iter().map(|(address, place)| {
            let event = bench.subjects[*place].event;
            (service.id, address.clone(), event.created_at, event.id)
        });
        changes.leaving.extend(leaving);
    }
    for one in kept {
        let event = one.subject.event;
        changes.announced.extend(announced(one));
        for address in one.through.iter().filter(|_| !one.stands) {
            changes.authors.push((one.service.id, address.clone(), event.pubkey));
            if ROOTS.contains(&event.kind) {
                changes.roots.push((one.service.id, address.clone(), event.id, event.kind));
            }
        }
    }
    changes
}

fn announced(one: &Kept<'_>) -> Option<Announced> {
    let announcement = one.subject.announcement.as_ref()?;
    let event = one.subject.event;
    let mut own = one.service.names.clone();
    own.extend(crate::grasp::address::host_of(&one.service.url));
    let targets = announcement.targets(&own);
    Some(Announced {
        service: one.service.id,
        address: announcement.address.clone()?,
        id: event.id,
        at: event.created_at,
        name: announcement.name.clone(),
        maintainers: announcement.maintainers.clone(),
        by_maintainer: one.rule == Rule::Maintainer,
        targets: targets.iter().map(|url| url.as_str().to_owned()).collect(),
        max_relays_per_announcement: one.service.max_relays_per_announcement,
        max_relays: one.service.max_relays,
    })
}

/// The repositories that were accepted because a maintainer's announcement lists their author.
fn maintained(kept: &[Kept<'_>]) -> Vec<(Uuid, String)> {
    let maintained = kept.iter().filter(|one| one.rule == Rule::Maintainer);
    maintained.filter_map(|one| Some((one.service.id, one.subject.repo()?))).collect()
}

fn deletions(kept: &[Kept<'_>]) -> Vec<Deletion> {
    let deletions = kept.iter().filter(|one| one.rule == Rule::Deletion);
    let deletion = |one: &Kept<'_>| Deletion {
        service: one.service.id,
        author: one.subject.event.pubkey,
        at: one.subject.event.created_at,
        ids: one.subject.ids.clone(),
        addresses: one.subject.addresses.clone(),
    };
    deletions.map(deletion).collect()
}

/// What the acceptance of an event wakes; `None` if it admits nothing.
fn accepted<'a>(one: &Kept<'a>) -> Option<Accepted<'a>> {
    let subject = one.subject;
    let maintained = subject.announcement.as_ref().and_then(|announcement| {
        let mut keys = announcement.maintainers.clone();
        keys.push(subject.event.pubkey);
        Some((subject.identifier()?, keys))
    });
    one.rule.carries().then(|| Accepted {
        service: one.service.id,
        id: subject.event.id,
        own: subject.own.as_deref(),
        // What points to the repository was found when its first announcement was accepted, or is found by
        // the scan of what the store gets since.
        finds_own: one.stands || !one.replaces,
        addresses: &subject.addresses,
        ids: &subject.ids,
        maintained,
    })
}
