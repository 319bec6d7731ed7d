//! Sessions of followed relays, against real and scripted relays.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use nostr::{event::Event, key::Keys};
use serde_json::{Value, json};
use sqlx::PgPool;
use tender_workers::{
    grasp,
    runtime::{self, Wing},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{
    TestDatabase, eventually, install_tls,
    line::Line,
    mirror::settings,
    patiently,
    relays::{Client, FakeRelay, RealRelay, as_json, event, ids},
};

/// A process that follows relays. It stops when [`stop`](Self::stop) is called, or is killed.
struct Process {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Process {
    /// Starts a process without recurring jobs.
    fn start(db: &PgPool) -> Self {
        let (stop, db) = (CancellationToken::new(), db.clone());
        let of_task = stop.clone();
        let task = tokio::spawn(async move {
            let mirror = tender_workers::mirror::Context::new(&db, settings(), "test", &of_task);
            let wings: Vec<Wing> = vec![grasp::wing(&grasp::Context::new(&mirror))];
            let how =
                runtime::Settings { process: "test".to_owned(), ..runtime::Settings::default() };
            runtime::run(&db, how, wings, of_task).await.unwrap();
        });
        Self { stop, task }
    }

    async fn stop(self) {
        self.stop.cancel();
        patiently("the process stops", self.task).await.unwrap();
    }
}

struct World {
    database: TestDatabase,
    db: PgPool,
}

/// The author and the address of the repository of the tests.
const ADDRESS: &str = "30617:79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798:repo";

impl World {
    async fn new() -> Self {
        install_tls();
        let database = TestDatabase::new().await;
        Self { db: database.pool.clone(), database }
    }

    async fn relay(&self, url: &str, items: &[(&str, &str)]) -> Uuid {
        let add = "insert into grasp_relay (url) values ($1) returning id";
        let id: Uuid = sqlx::query_scalar(add).bind(url).fetch_one(&self.db).await.unwrap();
        self.want(id, items).await;
        id
    }

    /// Wants items from a relay, as the acceptance of an announcement does.
    async fn want(&self, relay: Uuid, items: &[(&str, &str)]) {
        let mut tx = self.db.begin().await.unwrap();
        for (family, item) in items {
            let sql = "insert into grasp_coverage (relay_id, family, item) values ($1, $2, $3)";
            sqlx::query(sql).bind(relay).bind(family).bind(item).execute(&mut *tx).await.unwrap();
        }
        let sql =
            "insert into grasp_outbox (relay_id, due_at) values ($1, now()) on conflict do nothing";
        sqlx::query(sql).bind(relay).execute(&mut *tx).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn number(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.db).await.unwrap()
    }

    async fn text(&self, sql: &'static str) -> String {
        sqlx::query_scalar::<_, Option<String>>(sql)
            .fetch_one(&self.db)
            .await
            .unwrap()
            .unwrap_or_default()
    }

    async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.db).await.unwrap();
    }

    /// Waits until a query returns this text.
    async fn reads(&self, sql: &'static str, wanted: &str) {
        eventually(&format!("{wanted}: {sql}"), async || self.text(sql).await == wanted).await;
    }

    async fn in_step(&self) {
        self.reads("select string_agg(distinct status, ',') from grasp_relay", "in_step").await;
    }

    async fn all_confirmed(&self) {
        self.reads("select string_agg(distinct state, ',') from grasp_coverage", "confirmed").await;
    }

    async fn stored(&self) -> Vec<String> {
        let rows: Vec<(Vec<u8>,)> =
            sqlx::query_as("select id from event order by id").fetch_all(&self.db).await.unwrap();
        rows.iter().map(|(id,)| hex::encode(id)).collect()
    }

    async fn has(&self, event: &Event) {
        let id = event.id.to_hex();
        eventually("the event is stored", async || self.stored().await.contains(&id)).await;
    }
}

fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

fn issue(keys: &Keys, at: i64, text: &str) -> Event {
    event(keys, 1621, at, text, vec![vec!["a", ADDRESS]])
}

fn issues(keys: &Keys, count: usize) -> Vec<Event> {
    let at = |index: usize| now() - 3600 - i64::try_from(index).unwrap();
    (0..count).map(|index| issue(keys, at(index), &format!("issue {index}"))).collect()
}

/// The REQs that a relay was told, without live subscriptions.
fn history(heard: &[Value]) -> Vec<&Value> {
    heard.iter().filter(|m| m[0] == "REQ" && m[2]["until"].is_i64()).collect()
}

fn live(heard: &[Value]) -> Vec<&Value> {
    heard.iter().filter(|m| m[0] == "REQ" && m[2]["until"].is_null()).collect()
}

const ALL: [(&str, &str); 3] = [("announcements", "*"), ("state", "repo"), ("address", ADDRESS)];

#[tokio::test]
async fn history_is_fetched_and_confirmed_and_then_followed_live() {
    let (world, keys) = (World::new().await, Keys::generate());
    let real = RealRelay::start().await;
    let events = issues(&keys, 30);
    real.add(&events).await;
    real.add(&[event(&keys, 1, now() - 60, "unrelated", Vec::new())]).await;
    world.relay(&real.url, &ALL).await;
    let process = Process::start(&world.db);
    world.all_confirmed().await;
    world.in_step().await;
    assert_eq!(world.stored().await, ids(&events), "and nothing that is not wanted");
    let fresh = issue(&keys, now(), "live");
    let early = issue(&keys, now() - 7200, "signed two hours ago");
    real.add(&[fresh.clone(), early.clone()]).await;
    world.has(&fresh).await;
    world.has(&early).await;
    process.stop().await;
    let left =
        "select count(*) from grasp_relay where lease_owner is not null or status <> 'waiting'";
    assert_eq!(world.number(left).await, 0);
    assert_eq!(world.number("select count(*) from grasp_process").await, 0);
}

#[tokio::test]
async fn every_tag_that_names_a_repository_or_a_root_is_asked_for() {
    let (world, keys) = (World::new().await, Keys::generate());
    let real = RealRelay::start().await;
    let root = "ab".repeat(32);
    let named = |tag: &str, value: &str| {
        event(&keys, 1111, now() - 100, &format!("{tag} {value}"), vec![vec![tag, value]])
    };
    let wanted: Vec<Event> = ["a", "A", "q"]
        .iter()
        .map(|tag| named(tag, ADDRESS))
        .chain(["e", "E", "q"].iter().map(|tag| named(tag, &root)))
        .collect();
    real.add(&wanted).await;
    let deletion = event(&keys, 5, now() - 50, "", vec![vec!["e", &"cd".repeat(32)]]);
    real.add(std::slice::from_ref(&deletion)).await;
    let author = keys.public_key().to_hex();
    world.relay(&real.url, &[("address", ADDRESS), ("root", &root), ("deletion", &author)]).await;
    let process = Process::start(&world.db);
    world.all_confirmed().await;
    let mut all = wanted;
    all.push(deletion);
    assert_eq!(world.stored().await, ids(&all));
    process.stop().await;
}

#[tokio::test]
async fn a_new_relay_and_a_new_item_are_followed_without_a_restart() {
    let (world, keys) = (World::new().await, Keys::generate());
    let process = Process::start(&world.db);
    let real = RealRelay::start().await;
    let id = world.relay(&real.url, &[("announcements", "*")]).await;
    world.in_step().await;
    let old = issue(&keys, now() - 5000, "old");
    real.add(std::slice::from_ref(&old)).await;
    world.want(id, &[("address", ADDRESS)]).await;
    world.has(&old).await;
    world.all_confirmed().await;
    process.stop().await;
}

#[tokio::test]
async fn a_restart_does_not_fetch_confirmed_history_again() {
    let (world, keys) = (World::new().await, Keys::generate());
    let real = RealRelay::start().await;
    let line = Line::to(&real.url).await;
    real.add(&issues(&keys, 20)).await;
    world.relay(&line.url, &ALL).await;
    let process = Process::start(&world.db);
    world.in_step().await;
    process.stop().await;
    line.forget();
    let received = world.number("select received from grasp_relay").await;
    world.run("update upstream set negentropy_verdict = 'unsupported', negentropy_verdict_until = now() + interval '1 day'").await;
    let process = Process::start(&world.db);
    world.in_step().await;
    let heard = line.heard();
    let far =
        history(&heard).iter().filter(|m| m[2]["since"].as_i64() < Some(now() - 1200)).count();
    assert_eq!(far, 0, "{heard:#?}");
    assert_eq!(world.number("select received from grasp_relay").await, received);
    assert_eq!(live(&heard).len(), 5, "L1, state, a, A and q: {heard:#?}");
    process.stop().await;
}

#[tokio::test]
async fn what_was_published_during_a_cut_is_found_whenever_it_was_signed() {
    let (world, keys) = (World::new().await, Keys::generate());
    let real = RealRelay::start().await;
    let line = Line::to(&real.url).await;
    real.add(&issues(&keys, 20)).await;
    world.relay(&line.url, &ALL).await;
    let process = Process::start(&world.db);
    world.in_step().await;
    line.cut();
    world.reads("select status from grasp_relay", "waiting").await;
    let missed = [
        issue(&keys, now(), "during the cut"),
        issue(&keys, now() - 30, "as well"),
        issue(&keys, now() - 7200, "signed two hours before"),
    ];
    real.add(&missed).await;
    line.forget();
    line.mend();
    world.run("update grasp_relay set next_attempt_at = now()").await;
    for event in &missed {
        world.has(event).await;
    }
    world.in_step().await;
    let most =
        "select sum(received)::bigint from grasp_batch where purpose in ('fresh', 'reconnect')";
    assert!(world.number(most).await < 20, "not the whole history");
    process.stop().await;
}

#[tokio::test]
async fn a_closed_filter_stays_missing_and_is_retried_without_a_reconnect() {
    let (world, keys) = (World::new().await, Keys::generate());
    let events = Arc::new(as_json(&issues(&keys, 3)));
    let refuses = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let (of_script, is_refusing) = (events.clone(), refuses.clone());
    let relay = FakeRelay::start(move |client: Client, message: Value| {
        let (events, refuses) = (of_script.clone(), is_refusing.clone());
        async move {
            if message[0] != "REQ" {
                return;
            }
            let is_state = message[2]["kinds"] == json!([30618]);
            if is_state && refuses.load(std::sync::atomic::Ordering::SeqCst) {
                client.send(json!(["CLOSED", message[1], "error: no states today"])).await;
                return;
            }
            if !message[2]["#a"].is_null() && message[2]["limit"] != 0 {
                let until = message[2]["until"].as_i64().unwrap();
                for event in events.iter().filter(|e| e["created_at"].as_i64() <= Some(until)) {
                    client.send(json!(["EVENT", message[1], event])).await;
                }
            }
            client.send(json!(["EOSE", message[1]])).await;
        }
    })
    .await;
    world.relay(&relay.url, &ALL).await;
    let process = Process::start(&world.db);
    world.reads("select string_agg(family, ',' order by family) from grasp_coverage where state = 'confirmed'",
        "address,announcements").await;
    world
        .reads(
            "select state || ' ' || attempts from grasp_coverage where family = 'state'",
            "missing 1",
        )
        .await;
    assert!(
        world
            .text("select reason from grasp_coverage where family = 'state'")
            .await
            .contains("no states today")
    );
    let due = world.number("select extract(epoch from retry_at - now())::bigint from grasp_coverage where family = 'state'").await;
    assert!((5..=65).contains(&due), "{due}");
    refuses.store(false, std::sync::atomic::Ordering::SeqCst);
    world.run("update grasp_coverage set retry_at = now() where family = 'state'").await;
    world.run("insert into grasp_outbox select id, now() from grasp_relay").await;
    world.all_confirmed().await;
    assert_eq!(relay.connections.load(std::sync::atomic::Ordering::SeqCst), 1, "no reconnect");
    process.stop().await;
}

#[tokio::test]
async fn a_rate_limit_pauses_the_relay_and_costs_no_attempt() {
    let world = World::new().await;
    let relay = FakeRelay::start(|client: Client, message: Value| async move {
        if message[0] == "REQ" && message[2]["until"].is_i64() {
            client.send(json!(["CLOSED", message[1], "rate-limited: slow down"])).await;
        } else if message[0] == "REQ" {
            client.send(json!(["EOSE", message[1]])).await;
        }
    })
    .await;
    world.relay(&relay.url, &[("announcements", "*"), ("state", "repo")]).await;
    let process = Process::start(&world.db);
    world.reads("select (limited_until > now())::text from grasp_relay", "true").await;
    world
        .reads("select string_agg(distinct state || attempts, ',') from grasp_coverage", "missing0")
        .await;
    let pause = world
        .number("select extract(epoch from limited_until - now())::bigint from grasp_relay")
        .await;
    assert!((5..=65).contains(&pause), "{pause}");
    assert_eq!(relay.connections.load(std::sync::atomic::Ordering::SeqCst), 1);
    process.stop().await;
}

#[tokio::test]
async fn a_stalled_relay_slows_no_other() {
    let (world, keys) = (World::new().await, Keys::generate());
    let silent = FakeRelay::start(|_: Client, _: Value| async {}).await;
    let real = RealRelay::start().await;
    let events = issues(&keys, 5);
    real.add(&events).await;
    let stalled = world.relay(&silent.url, &ALL).await;
    let good = world.relay(&real.url, &ALL).await;
    let process = Process::start(&world.db);
    eventually("the good relay is in step", async || {
        let sql = "select status from grasp_relay where id = $1";
        let status: String = sqlx::query_scalar(sql).bind(good).fetch_one(&world.db).await.unwrap();
        status == "in_step"
    })
    .await;
    assert_eq!(world.stored().await, ids(&events));
    let sql = "select count(*) from grasp_coverage where relay_id = $1 and state = 'confirmed'";
    let confirmed: i64 = sqlx::query_scalar(sql).bind(stalled).fetch_one(&world.db).await.unwrap();
    assert_eq!(confirmed, 0);
    let begun = Instant::now();
    process.stop().await;
    assert!(begun.elapsed() < Duration::from_secs(30), "a stalled relay does not hold up the end");
    assert_eq!(
        world.number("select count(*) from grasp_coverage where state = 'in_flight'").await,
        0
    );
}

#[tokio::test]
async fn many_items_are_packed_into_few_subscriptions() {
    let world = World::new().await;
    let real = RealRelay::start().await;
    let line = Line::to(&real.url).await;
    let id = world.relay(&line.url, &[("announcements", "*")]).await;
    let process = Process::start(&world.db);
    world.in_step().await;
    // Each comes alone, and gets three subscriptions of its own: 1 + 30 × 3 would be 91.
    for number in 0..30 {
        let address = format!("{ADDRESS} {number}");
        world.want(id, &[("address", &address)]).await;
        let count = format!("{}", number + 2);
        let sql = "select count(*)::text from grasp_coverage where state = 'confirmed'";
        world.reads(sql, &count).await;
    }
    world.reads("select (subscriptions between 4 and 70)::text from grasp_relay", "true").await;
    assert_eq!(world.number("select overflow::bigint from grasp_relay").await, 0);
    let heard = line.heard();
    let packed = live(&heard)
        .iter()
        .filter(|m| m[2]["#a"].as_array().is_some_and(|of| of.len() > 1))
        .count();
    assert!(packed > 0, "no packed subscription");
    process.stop().await;
}

#[tokio::test]
async fn items_beyond_the_relays_limit_are_polled_and_reported() {
    let (world, keys) = (World::new().await, Keys::generate());
    let real = RealRelay::start().await;
    let id = world.relay(&real.url, &[("announcements", "*")]).await;
    // The relay is known to bear five subscriptions: one is left for live ones.
    world.run("insert into upstream (url, enabled, mirrored, negentropy, information, information_at)
               select url, false, false, true, '{\"max_subscriptions\": 5}', now() from grasp_relay").await;
    let old = issue(&keys, now() - 5000, "old");
    real.add(std::slice::from_ref(&old)).await;
    world.want(id, &[("address", ADDRESS)]).await;
    let process = Process::start(&world.db);
    world.all_confirmed().await;
    world.has(&old).await;
    world.reads("select concat_ws(' ', subscriptions, overflow) from grasp_relay", "1 1").await;
    process.stop().await;
}

#[tokio::test]
async fn the_daily_verification_counts_what_live_following_missed() {
    let (world, keys) = (World::new().await, Keys::generate());
    let real = RealRelay::start().await;
    let (line, seen) = (Line::to(&real.url).await, issues(&keys, 5));
    real.add(&seen).await;
    world.relay(&line.url, &ALL).await;
    let process = Process::start(&world.db);
    world.in_step().await;
    // An event that the relay got without telling its subscribers, and that we therefore lack.
    world.run("delete from event_tag where position = (select min(position) from event)").await;
    world.run("delete from event where position = (select min(position) from event)").await;
    assert_eq!(world.stored().await.len(), 4);
    world.run("update grasp_relay set resync_due_at = now() - interval '1 s'").await;
    eventually("the drift is counted", async || {
        world.number("select drift_last from grasp_relay").await == 1
    })
    .await;
    assert_eq!(world.stored().await, ids(&seen));
    world
        .reads(
            "select (resync_due_at > now() + interval '22 hours')::text from grasp_relay",
            "true",
        )
        .await;
    assert_eq!(line.attempts(), 1, "on the same connection");
    world.all_confirmed().await;
    process.stop().await;
}

#[tokio::test]
async fn each_relay_has_one_socket_of_two_processes() {
    let world = World::new().await;
    let (mut lines, mut reals) = (Vec::new(), Vec::new());
    for _ in 0..4 {
        let real = RealRelay::start().await;
        let line = Line::to(&real.url).await;
        world.relay(&line.url, &ALL).await;
        lines.push(line);
        reals.push(real);
    }
    let (one, two) = (Process::start(&world.db), Process::start(&world.db));
    world.in_step().await;
    world.reads("select string_agg(n::text, ',') from (select count(*) as n from grasp_relay group by lease_owner) s", "2,2").await;
    for line in &lines {
        assert_eq!(line.open(), (1, 1), "one socket at any time");
    }
    one.stop().await;
    world.reads("select count(distinct lease_owner)::text from grasp_relay", "1").await;
    world.in_step().await;
    two.stop().await;
}
