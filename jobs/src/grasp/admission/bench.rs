//! The judgement of a batch by every service.

use std::collections::{BTreeMap, HashSet};

use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Service,
    judge::{Judgement, Verdict, judge},
    keep,
    load::{self, Lookups},
    look_up_only,
    lookup::Lookup,
    services,
    subject::Subject,
};
use crate::{
    grasp::{
        family::Source,
        parked::{self, Parked},
        policy::Reason,
    },
    mirror::event::{Event, EventId, Gated, Judged},
};

/// How a batch is judged.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    pub(super) source: Source,
    /// The followed relay that sent the events.
    pub(super) relay: Option<Uuid>,
    /// The service whose own relay sent the events.
    pub(super) own: Option<Uuid>,
    /// The only service that judges.
    pub(super) only: Option<Uuid>,
    /// Whether refused events are parked.
    pub(super) parks: bool,
}

impl How {
    pub(super) fn new(source: Source) -> Self {
        Self { source, relay: None, own: None, only: None, parks: false }
    }
}

/// The judgement of a batch by each service.
#[derive(Debug)]
pub(super) struct Bench<'e> {
    pub(super) how: How,
    pub(super) subjects: Vec<Subject<'e>>,
    pub(super) judged: Vec<(Service, Judgement)>,
    admitted: HashSet<EventId>,
}

impl<'e> Bench<'e> {
    /// Judges events, and parks those that are refused. The caller holds the lock of admission.
    pub(super) async fn judge(
        tx: &mut PgConnection,
        how: How,
        events: &[&'e Event],
    ) -> Result<Self, sqlx::Error> {
        let subjects = subjects(events);
        if subjects.is_empty() {
            return Ok(Self { how, subjects, judged: Vec::new(), admitted: HashSet::new() });
        }
        look_up_only(tx).await?;
        let mut services = services(tx, how.own).await?;
        services.retain(|service| how.only.is_none_or(|only| only == service.id));
        let judged = judge_all(tx, how.own, services, &subjects).await?;
        let mut bench = Self { how, subjects, judged, admitted: HashSet::new() };
        bench.admitted = bench.admitted_by_any();
        if how.parks {
            parked::park(tx, how.relay, &bench.refused()).await?;
        }
        Ok(bench)
    }

    /// The events that a service admits. The mirror stores everything that a service's own relay sends.
    fn admitted_by_any(&self) -> HashSet<EventId> {
        let is_own = self.how.own.is_some();
        let admits = |place: usize| {
            is_own || self.judged.iter().any(|(_, judgement)| judgement.verdicts[place].admits())
        };
        let subjects = self.subjects.iter().enumerate();
        subjects.filter(|(place, _)| admits(*place)).map(|(_, one)| one.event.id).collect()
    }

    fn refused(&self) -> Vec<Parked<'_>> {
        let mut refused = Vec::new();
        for (service, judgement) in &self.judged {
            for (subject, verdict) in self.subjects.iter().zip(&judgement.verdicts) {
                let Verdict::Refused(reason) = verdict else { continue };
                refused.push(Parked {
                    service: service.id,
                    policy_rev: service.policy_rev,
                    event: subject.event,
                    reason: *reason,
                    keys: keys(subject, *reason),
                    is_stored: self.admitted.contains(&subject.event.id),
                });
            }
        }
        refused
    }
}

impl Judged for Bench<'_> {
    fn admitted(&self) -> &HashSet<EventId> {
        &self.admitted
    }

    fn stored<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        events: &'a [&'a Event],
        new: &'a HashSet<EventId>,
    ) -> Gated<'a, ()> {
        Box::pin(keep::keep(tx, self, events, new))
    }
}

/// Returns the events as subjects, each once, in a fixed order.
fn subjects<'e>(events: &[&'e Event]) -> Vec<Subject<'e>> {
    let once: BTreeMap<EventId, &'e Event> =
        events.iter().map(|event| (event.id, *event)).collect();
    once.into_values().map(Subject::of).collect()
}

/// Lets each service judge. Only events that nothing else connects are looked up among those to which
/// accepted events point.
pub(super) async fn judge_all(
    tx: &mut PgConnection,
    own: Option<Uuid>,
    services: Vec<Service>,
    subjects: &[Subject<'_>],
) -> Result<Vec<(Service, Judgement)>, sqlx::Error> {
    let mut lookups = load::load(tx, &services, subjects).await?;
    let none = Lookup::default();
    let decide = |lookups: &Lookups, service: &Service| {
        let lookup = lookups.get(&service.id).unwrap_or(&none);
        judge(service, lookup, subjects, own == Some(service.id))
    };
    let mut judged: Vec<Judgement> = services.iter().map(|one| decide(&lookups, one)).collect();
    let orphans: Vec<&Subject<'_>> = subjects
        .iter()
        .enumerate()
        .filter(|(place, _)| judged.iter().any(|one| one.verdicts[*place] == ORPHAN))
        .map(|(_, subject)| subject)
        .collect();
    if !orphans.is_empty() {
        load::pointed(tx, &services, &orphans, &mut lookups).await?;
        judged = services.iter().map(|one| decide(&lookups, one)).collect();
    }
    Ok(services.into_iter().zip(judged).collect())
}

const ORPHAN: Verdict = Verdict::Refused(Reason::Orphan);

/// The keys of what a refused event waits for.
pub(super) fn keys(subject: &Subject<'_>, reason: Reason) -> Vec<String> {
    match reason {
        Reason::Orphan => subject.keys(),
        Reason::BadIdentifier | Reason::BlockedAuthor => Vec::new(),
        _ => {
            let author = hex::encode(subject.event.pubkey);
            subject.identifier().map(|name| format!("m:{author}:{name}")).into_iter().collect()
        }
    }
}
