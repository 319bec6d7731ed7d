//! Changes at a steady rate, and the time from the commit of each to its arrival at the stand-in for zooid.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tender_jobs::provision::relay::{self, Change, Relay, RelayId};
use tokio::task::JoinSet;

use super::{Bench, by};

/// Changes relays in turn. There are so many that each is in step again before its next change.
pub struct Steady<'a> {
    relays: &'a [Relay],
    per_second: u32,
    number: usize,
    statement: Option<&'static str>,
}

impl<'a> Steady<'a> {
    pub fn new(relays: &'a [Relay], per_second: u32) -> Self {
        Self { relays, per_second, number: 0, statement: None }
    }

    /// Changes relays by a statement instead of the ledger, with the id and the new name as its parameters.
    pub fn with(self, statement: &'static str) -> Self {
        Self { statement: Some(statement), ..self }
    }

    /// Changes relays for some minutes; each change is made at its instant, even if earlier ones are not stored yet. Returns
    /// the time that each took to arrive.
    pub async fn minutes(&mut self, bench: &Bench, minutes: u32) -> Vec<Duration> {
        let gap = Duration::from_secs(1) / self.per_second;
        let (started, calls_before) = (Instant::now(), bench.zooid.calls().len());
        let mut changes = JoinSet::new();
        for number in 0..self.per_second * 60 * minutes {
            tokio::time::sleep_until((started + gap * number).into()).await;
            self.number += 1;
            let relay = &self.relays[self.number % self.relays.len()];
            let (db, id, statement) = (bench.db().clone(), relay.id.clone(), self.statement);
            let name = format!("name {}", self.number);
            changes.spawn(async move {
                change(&db, &id, name, statement).await;
                (id.as_str().to_owned(), Instant::now())
            });
        }
        let mut committed: HashMap<String, VecDeque<Instant>> = HashMap::new();
        for (id, at) in changes.join_all().await {
            committed.entry(id).or_default().push_back(at);
        }
        let all = i64::try_from(self.relays.len()).unwrap();
        bench.until("select count(*) from relay where synced", all).await;
        let calls = bench.zooid.calls().into_iter().skip(calls_before);
        let waited = |call: tender::demo::zooid::Call| {
            let at = committed.get_mut(&call.relay_id)?.pop_front()?;
            Some(call.at.saturating_duration_since(at))
        };
        calls.filter_map(waited).collect()
    }
}

async fn change(db: &PgPool, id: &RelayId, name: String, statement: Option<&'static str>) {
    if let Some(statement) = statement {
        sqlx::query(statement).bind(id.as_str()).bind(name).execute(db).await.unwrap();
        return;
    }
    let change = Change { info_name: Some(name), ..Change::default() };
    relay::update(db, id, &change, &by()).await.unwrap();
}
