//! Intake: the one path of events into the store, whatever they come by. Checked for shape, looked up,
//! verified on all cores, stored in batches; what holds it up holds up the relay.

use std::{collections::BTreeMap, time::Duration};

use secp256k1::{Message, Secp256k1, VerifyOnly, XOnlyPublicKey, schnorr::Signature};
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use tender_jobs::event::{self, Batch, Event, EventId, Limits, Reason, Stored, Unusable};
use tokio::task::JoinSet;
use uuid::Uuid;

/// Events of one transaction.
pub(crate) const BATCH: usize = 500;
/// Batches on their way at the same time: one is verified while another is stored.
const AT_ONCE: usize = 3;

/// What became of events.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// In whatever shape.
    pub received: i64,
    /// New.
    pub stored: i64,
    /// Here or known before.
    pub duplicate: i64,
    /// By why.
    pub rejected: BTreeMap<Reason, i64>,
}

impl Tally {
    /// All that were refused.
    pub fn rejected(&self) -> i64 {
        self.rejected.values().sum()
    }

    fn add(&mut self, other: Self) {
        self.received += other.received;
        self.stored += other.stored;
        self.duplicate += other.duplicate;
        for (reason, count) in other.rejected {
            *self.rejected.entry(reason).or_default() += count;
        }
    }

    fn count(&mut self, stored: Stored) {
        match stored {
            Stored::New => self.stored += 1,
            Stored::Duplicate => self.duplicate += 1,
            Stored::Refused(reason) => *self.rejected.entry(reason).or_default() += 1,
        }
    }
}

/// Takes events of one upstream in.
#[derive(Debug)]
pub(crate) struct Intake {
    db: PgPool,
    upstream: Uuid,
    events: Vec<Event>,
    unusable: Vec<Unusable>,
    running: JoinSet<Result<Tally, sqlx::Error>>,
    tally: Tally,
}

impl Intake {
    pub(crate) fn new(db: &PgPool, upstream: Uuid) -> Self {
        Self {
            db: db.clone(),
            upstream,
            events: Vec::new(),
            unusable: Vec::new(),
            running: JoinSet::new(),
            tally: Tally::default(),
        }
    }

    /// Takes an event, or what was none. Waits while too much is on its way.
    pub(crate) async fn offer(
        &mut self,
        event: Result<Event, Unusable>,
    ) -> Result<(), sqlx::Error> {
        match event {
            Ok(event) => self.events.push(event),
            Err(unusable) => self.unusable.push(unusable),
        }
        if self.events.len() + self.unusable.len() >= BATCH {
            self.dispatch().await?;
        }
        Ok(())
    }

    async fn dispatch(&mut self) -> Result<(), sqlx::Error> {
        while self.running.len() >= AT_ONCE {
            self.join().await?;
        }
        let (events, unusable) =
            (std::mem::take(&mut self.events), std::mem::take(&mut self.unusable));
        let (db, upstream) = (self.db.clone(), self.upstream);
        self.running.spawn(async move { take_in(&db, upstream, events, unusable).await });
        Ok(())
    }

    async fn join(&mut self) -> Result<(), sqlx::Error> {
        match self.running.join_next().await {
            Some(Ok(tally)) => self.tally.add(tally?),
            Some(Err(error)) => {
                return Err(sqlx::Error::Protocol(format!("intake ended: {error}")));
            }
            None => {}
        }
        Ok(())
    }

    /// Waits until everything offered has a verdict; what became of it since last asked.
    pub(crate) async fn settle(&mut self) -> Result<Tally, sqlx::Error> {
        if !self.events.is_empty() || !self.unusable.is_empty() {
            self.dispatch().await?;
        }
        while !self.running.is_empty() {
            self.join().await?;
        }
        Ok(std::mem::take(&mut self.tally))
    }
}

/// One batch: known, verified, stored.
pub(crate) async fn take_in(
    db: &PgPool,
    upstream: Uuid,
    mut events: Vec<Event>,
    unusable: Vec<Unusable>,
) -> Result<Tally, sqlx::Error> {
    let received = i64::try_from(events.len() + unusable.len()).unwrap_or(i64::MAX);
    let mut tally = Tally { received, ..Tally::default() };
    let ids: Vec<EventId> = events.iter().map(|event| event.id).collect();
    let known = event::known(db, upstream, &ids).await?;
    events.retain(|event| !known.ids.contains(&event.id));
    tally.duplicate = i64::try_from(ids.len() - events.len()).unwrap_or(0);
    let (events, forged) = verify(events).await;
    let mut refused: Vec<(EventId, i64, Reason)> = Vec::new();
    for Unusable { reason, claims } in unusable {
        tally.count(Stored::Refused(reason));
        refused.extend(claims.map(|(id, at)| (id, at, reason)));
    }
    for (id, at, reason) in forged {
        tally.count(Stored::Refused(reason));
        refused.push((id, at, reason));
    }
    let batch = Batch { upstream, events: &events, refused: &refused };
    for stored in event::store(db, batch).await? {
        tally.count(stored);
    }
    note(db, upstream, &tally).await;
    Ok(tally)
}

/// For charts and metrics; the events are stored whether this works or not.
async fn note(db: &PgPool, upstream: Uuid, tally: &Tally) {
    let rejected: Vec<(Reason, i64)> =
        tally.rejected.iter().map(|(reason, count)| (*reason, *count)).collect();
    let noted = event::note(db, upstream, tally.stored, tally.duplicate, &rejected).await;
    if let Err(error) = noted {
        tracing::debug!(%error, "could not count events");
    }
    let count = |outcome: &'static str, events: i64| {
        metrics::counter!("tender_events_total", "outcome" => outcome)
            .increment(u64::try_from(events).unwrap_or(0));
    };
    count("stored", tally.stored);
    count("duplicate", tally.duplicate);
    for (reason, events) in &tally.rejected {
        count(reason.as_str(), *events);
    }
}

/// An event that is not what it says: its id and time as claimed.
type Forged = (EventId, i64, Reason);

/// Ids and signatures, on all cores; forged ones apart.
async fn verify(events: Vec<Event>) -> (Vec<Event>, Vec<Forged>) {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let size = events.len().div_ceil(cores).max(32);
    let mut parts = Vec::new();
    let mut events = events.into_iter().peekable();
    while events.peek().is_some() {
        let part: Vec<Event> = events.by_ref().take(size).collect();
        parts.push(tokio::task::spawn_blocking(move || verify_part(part)));
    }
    let (mut genuine, mut forged) = (Vec::new(), Vec::new());
    for part in parts {
        if let Ok((good, bad)) = part.await {
            genuine.extend(good);
            forged.extend(bad);
        }
    }
    (genuine, forged)
}

fn verify_part(events: Vec<Event>) -> (Vec<Event>, Vec<Forged>) {
    let curve = Secp256k1::verification_only();
    let (mut genuine, mut forged) = (Vec::with_capacity(events.len()), Vec::new());
    for event in events {
        match fault(&curve, &event) {
            None => genuine.push(event),
            Some(reason) => forged.push((event.id, event.created_at, reason)),
        }
    }
    (genuine, forged)
}

/// What of an event's id and signature is wrong. Source: NIP-01, BIP-340.
fn fault(curve: &Secp256k1<VerifyOnly>, event: &Event) -> Option<Reason> {
    if Sha256::digest(event.canonical())[..] != event.id.0 {
        return Some(Reason::WrongId);
    }
    let author = XOnlyPublicKey::from_slice(&event.pubkey);
    let signature = Signature::from_slice(&event.sig);
    let (Ok(author), Ok(signature)) = (author, signature) else {
        return Some(Reason::BadSignature);
    };
    let message = Message::from_digest(event.id.0);
    curve
        .verify_schnorr(&signature, message.as_ref(), &author)
        .is_err()
        .then_some(Reason::BadSignature)
}

/// Reads and takes in events that waited in the queue.
pub(crate) async fn take_in_texts(
    db: &PgPool,
    upstream: Uuid,
    texts: &[String],
    limits: Limits,
) -> Result<Tally, sqlx::Error> {
    let mut intake = Intake::new(db, upstream);
    for text in texts {
        intake.offer(event::parse(text, limits)).await?;
    }
    intake.settle().await
}

/// Longest that an event waits for its batch to fill, where they come one by one.
pub(crate) const FLUSH_AFTER: Duration = Duration::from_millis(100);
