//! Explaining: judges an event without writing anything.

use serde::Serialize;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{
    bench::{judge_all, keys},
    judge::Verdict,
    services,
    subject::Subject,
};
use crate::{
    grasp::{
        parked::describe,
        policy::{Reason, Rule},
    },
    mirror::event::{self, Event, EventId, Limits, outgoing},
};

/// What a service would decide on an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Explained {
    /// The service.
    pub service: Uuid,
    /// The address of its relay.
    pub url: String,
    /// `accepted`, `would-be-accepted`, `refused` or `deleted`.
    pub verdict: &'static str,
    /// The code of the rule or of the reason; see [`Rule`] and [`Reason`].
    pub code: &'static str,
    /// What the code means, for people.
    pub sentence: &'static str,
    /// The repositories through which it is accepted.
    pub through: Vec<String>,
    /// What it waits for, for people.
    pub waits_for: Vec<String>,
}

/// Returns what each enabled service would decide on an event, whose signature is not verified. Nothing
/// is written.
///
/// # Errors
/// The database is unreachable or refused a statement.
pub async fn explain(db: &PgPool, event: &Event) -> Result<Vec<Explained>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let explained = explain_in(&mut tx, event).await?;
    tx.rollback().await?;
    Ok(explained)
}

async fn explain_in(tx: &mut PgConnection, event: &Event) -> Result<Vec<Explained>, sqlx::Error> {
    let subjects = [Subject::of(event)];
    let services = services(tx, None).await?;
    let judged = judge_all(tx, None, services, &subjects).await?;
    let explained = judged.into_iter().filter_map(|(service, judgement)| {
        let verdict = judgement.verdicts.into_iter().next()?;
        Some(words(service.id, service.url, verdict, &subjects[0]))
    });
    Ok(explained.collect())
}

fn words(service: Uuid, url: String, verdict: Verdict, subject: &Subject<'_>) -> Explained {
    let accepted = |verdict, rule: Rule, through| Explained {
        service,
        url: url.clone(),
        verdict,
        code: rule.as_str(),
        sentence: rule.sentence(),
        through,
        waits_for: Vec::new(),
    };
    match verdict {
        Verdict::Stands(rule) => accepted("accepted", rule, Vec::new()),
        Verdict::Admitted(rule, through) => accepted("would-be-accepted", rule, through),
        Verdict::Deleted => Explained {
            verdict: "deleted",
            code: "deleted",
            sentence: "A stored deletion covers the event, or only its author may publish it: the store refuses it.",
            ..accepted("deleted", Rule::Deletion, Vec::new())
        },
        Verdict::Refused(reason) => refused(service, url, reason, subject),
    }
}

fn refused(service: Uuid, url: String, reason: Reason, subject: &Subject<'_>) -> Explained {
    Explained {
        service,
        url,
        verdict: "refused",
        code: reason.as_str(),
        sentence: reason.sentence(),
        through: Vec::new(),
        waits_for: keys(subject, reason).iter().map(|key| describe(key)).collect(),
    }
}

/// Finds an event by its id: in the store, deleted ones included, or among the parked ones. `None` if it
/// is in neither, or was parked without its body.
///
/// # Errors
/// The database is unreachable or refused a statement.
pub async fn find_event(db: &PgPool, id: EventId) -> Result<Option<Event>, sqlx::Error> {
    if let Some(event) = outgoing::by_ids(db, &[id]).await?.pop() {
        return Ok(Some(event));
    }
    let body = sqlx::query_scalar!(
        r#"select body as "body!" from parked where event_id = $1 and body is not null limit 1"#,
        &id.0,
    );
    let body = body.fetch_optional(db).await?;
    let limits = Limits { bytes: usize::MAX, tags: usize::MAX };
    Ok(body.and_then(|body| event::parse(&body, limits).ok()))
}
