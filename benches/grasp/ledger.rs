//! The ledger of a benchmark: the service, worker processes, and rows of many repositories.

use std::time::{Duration, Instant};

use tender_jobs::{
    grasp::{
        admission::OwnFeed,
        batch, coverage,
        followed::Lease,
        service::{self, NewService},
    },
    mirror::event::{self, Batch, Limits},
};

use crate::{
    support::{Bench, Process},
    talk::Talk,
};

/// The longest wait for rows.
const PATIENCE: Duration = Duration::from_mins(10);

/// Makes the relay at `url` a service.
pub(crate) async fn serve(bench: &Bench, url: &str, bootstrap: &[String]) {
    let bootstrap = bootstrap.to_vec();
    let new = NewService { url: url.to_owned(), bootstrap, private: true, ..NewService::default() };
    service::create(bench.db(), &new).await.unwrap();
}

/// Starts a process with all workers and the recurring jobs.
pub(crate) fn worker(bench: &Bench) -> Process {
    bench.spawn_with("work", &[("MIRROR_PROFILE", "production")])
}

/// Waits until a query counts at least so many rows.
pub(crate) async fn rows(bench: &Bench, query: &'static str, at_least: i64) {
    let reached = bench.until_looking(query, at_least, Duration::from_millis(200));
    tokio::time::timeout(PATIENCE, reached)
        .await
        .unwrap_or_else(|_| panic!("not reached: {query}"));
}

/// Where the service of [`fill`] is said to be.
const URL: &str = "wss://git.bench.example";

/// Fills the ledger of a service up to so many confirmed repositories, each on `relays` relays, with three roots and two
/// authors.
pub(crate) async fn fill(bench: &Bench, repositories: i64, relays: i64) {
    if service::find(bench.db(), URL).await.unwrap().is_none() {
        let new = NewService { url: URL.to_owned(), live: Some(false), ..NewService::default() };
        service::create(bench.db(), &new).await.unwrap();
    }
    fill_services(bench, repositories, relays).await;
}

/// Gives each service so many confirmed repositories. Its relays are held by this benchmark.
pub(crate) async fn fill_services(bench: &Bench, repositories: i64, relays: i64) {
    let bulk = bench.bulk();
    for statement in FILL {
        sqlx::query(*statement).bind(repositories).bind(relays).execute(&bulk).await.unwrap();
    }
    for table in ["grasp_repo", "grasp_repo_relay", "grasp_root", "grasp_author", "grasp_coverage"]
    {
        let analyze = format!("vacuum analyze {table}");
        sqlx::query(sqlx::AssertSqlSafe(analyze)).execute(&bulk).await.unwrap();
    }
}

const FILL: &[&str] = &[
    "insert into grasp_relay (url, lease_owner, lease_until, lease_epoch, status)
     select 'wss://relay-' || n || '.bench.example', 'bench', now() + interval '1 day', 1, 'in_step'
     from generate_series(1, $2) n where $1 > 0 on conflict do nothing",
    "insert into grasp_repo (upstream_id, address, pubkey, identifier, announcement_id, announced_at)
     select s.upstream_id, '30617:' || encode(sha256(n::text::bytea), 'hex') || ':repo-' || n,
            sha256(n::text::bytea), 'repo-' || n, sha256(('a' || n)::bytea), 1700000000
     from grasp_service s, generate_series(1, $1) n where $2 > 0 on conflict do nothing",
    "insert into grasp_repo_relay (upstream_id, address, url)
     select r.upstream_id, r.address, 'wss://relay-' || n || '.bench.example'
     from grasp_repo r, generate_series(1, $2) n where $1 > 0 on conflict do nothing",
    "insert into grasp_root (upstream_id, address, event_id, kind)
     select r.upstream_id, r.address, sha256((r.address || n)::bytea), 1621
     from grasp_repo r, generate_series(1, 3) n where $1 > 0 and $2 > 0 on conflict do nothing",
    "insert into grasp_author (upstream_id, address, pubkey)
     select r.upstream_id, r.address, sha256((r.address || 'author' || n)::bytea)
     from grasp_repo r, generate_series(1, 2) n where $1 > 0 and $2 > 0 on conflict do nothing",
    "insert into grasp_coverage (relay_id, family, item, state, confirmed_at)
     select g.id, f.family, f.item, 'confirmed', now()
     from grasp_repo_relay w join grasp_relay g on g.url = w.url
     join grasp_repo r on r.upstream_id = w.upstream_id and r.address = w.address
     cross join lateral (
         select 'announcements' as family, '*' as item
         union all select 'state', r.identifier
         union all select 'address', r.address
         union all select 'root', encode(o.event_id, 'hex') from grasp_root o
             where o.upstream_id = r.upstream_id and o.address = r.address
         union all select 'deletion', encode(a.pubkey, 'hex') from grasp_author a
             where a.upstream_id = r.upstream_id and a.address = r.address) f
     where $1 > 0 and $2 > 0 on conflict do nothing",
];

/// Stores new announcements one by one, and plans what each asks of the first relay. Returns the median
/// durations of both.
pub(crate) async fn announce_and_plan(bench: &Bench, times: usize) -> (Duration, Duration) {
    let service = service::find(bench.db(), URL).await.unwrap().unwrap();
    let talk = Talk::new(URL);
    let relays: Vec<String> =
        (1..=3).map(|number| format!("wss://relay-{number}.bench.example")).collect();
    let id = sqlx::query_scalar("select id from grasp_relay order by url limit 1");
    let lease = Lease { relay: id.fetch_one(bench.db()).await.unwrap(), epoch: 1 };
    let (mut stored, mut planned) = (Vec::new(), Vec::new());
    for event in talk.announcements(times, |_| relays.clone()) {
        let text = serde_json::to_string(&event).unwrap();
        let event = event::parse(&text, Limits { bytes: 100_000, tags: 1000 }).unwrap();
        let events = [event];
        let batch = Batch { gate: Some(&OwnFeed), ..Batch::new(service.id, &events) };
        let begun = Instant::now();
        event::store(bench.db(), batch).await.unwrap();
        stored.push(begun.elapsed());
        let begun = Instant::now();
        let mut batches = Vec::new();
        while let Some(batch) = coverage::plan(bench.db(), lease).await.unwrap() {
            batches.push(batch);
        }
        planned.push(begun.elapsed());
        assert!(!batches.is_empty());
        for batch in &batches {
            batch::confirm(bench.db(), batch, batch::Fetched::default()).await.unwrap();
        }
    }
    (median(stored), median(planned))
}

fn median(mut durations: Vec<Duration>) -> Duration {
    durations.sort_unstable();
    durations[durations.len() / 2]
}
