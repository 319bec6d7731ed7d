//! Sessions of followed relays, against real and scripted relays.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use nostr::{event::Event, key::Keys};
use serde_json::{Value, json};
use sqlx::PgPool;
use tender_jobs::{
    grasp::{
        admission::OwnFeed,
        service::{self, NewService},
    },
    mirror::event::{self, Batch, Limits},
};
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

/// A service with one repository, which names no other relay.
struct World {
    _database: TestDatabase,
    db: PgPool,
    service: Uuid,
    keys: Keys,
    /// The address of the repository.
    address: String,
    /// What was stored before anything was followed.
    before: Vec<String>,
}

impl World {
    async fn new() -> Self {
        install_tls();
        let database = TestDatabase::new().await;
        let (db, keys) = (database.pool.clone(), Keys::generate());
        let new = NewService { url: "wss://git.test".to_owned(), ..NewService::default() };
        let service = service::create(&db, &new).await.unwrap().id;
        let address = format!("30617:{}:repo", keys.public_key());
        let before = Vec::new();
        let mut world = Self { _database: database, db, service, keys, address, before };
        let tags = vec![
            vec!["d", "repo"],
            vec!["clone", "https://git.test/repo.git"],
            vec!["relays", "wss://git.test"],
        ];
        world.accept(&event(&world.keys, 30617, now() - 9000, "", tags)).await;
        world.before = world.stored().await;
        assert_eq!(world.before.len(), 1);
        world
    }

    /// Stores an event as the service's own relay sends it.
    async fn accept(&self, event: &Event) {
        let limits = Limits { bytes: 1_000_000, tags: 1000 };
        let events = [event::parse(&serde_json::to_string(event).unwrap(), limits).unwrap()];
        let batch = Batch { gate: Some(&OwnFeed), ..Batch::new(self.service, &events) };
        event::store(&self.db, batch).await.unwrap();
    }

    /// The items of the repository.
    fn items(&self) -> [(&str, &str); 3] {
        [("announcements", "*"), ("state", "repo"), ("address", &self.address)]
    }

    fn issue(&self, at: i64, text: &str) -> Event {
        event(&self.keys, 1621, at, text, vec![vec!["a", &self.address]])
    }

    fn issues(&self, count: usize) -> Vec<Event> {
        let at = |index: usize| now() - 3600 - i64::try_from(index).unwrap();
        (0..count).map(|index| self.issue(at(index), &format!("issue {index}"))).collect()
    }

    /// What was stored since the beginning.
    async fn fetched(&self) -> Vec<String> {
        let mut stored = self.stored().await;
        stored.retain(|id| !self.before.contains(id));
        stored
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
    i64::try_from(nostr::types::Timestamp::now().as_secs()).unwrap()
}

/// The REQs that a relay was told, without live subscriptions.
fn history(heard: &[Value]) -> Vec<&Value> {
    heard.iter().filter(|m| m[0] == "REQ" && m[2]["until"].is_i64()).collect()
}

fn live(heard: &[Value]) -> Vec<&Value> {
    heard.iter().filter(|m| m[0] == "REQ" && m[2]["until"].is_null()).collect()
}

#[tokio::test]
async fn history_is_fetched_and_confirmed_and_then_followed_live() {
    let world = World::new().await;
    let real = RealRelay::start().await;
    let events = world.issues(30);
    real.add(&events).await;
    real.add(&[event(&world.keys, 1, now() - 60, "unrelated", Vec::new())]).await;
    world.relay(&real.url, &world.items()).await;
    let process = Process::start(&world.db);
    world.all_confirmed().await;
    world.in_step().await;
    assert_eq!(world.fetched().await, ids(&events), "and nothing that is not wanted");
    let fresh = world.issue(now(), "live");
    let early = world.issue(now() - 7200, "signed two hours ago");
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
    let world = World::new().await;
    let real = RealRelay::start().await;
    let issue = world.issue(now() - 8000, "the root");
    world.accept(&issue).await;
    let root = issue.id.to_hex();
    let named = |tag: &str, value: &str| {
        event(&world.keys, 1111, now() - 100, &format!("{tag} {value}"), vec![vec![tag, value]])
    };
    let wanted: Vec<Event> = ["a", "A", "q"]
        .iter()
        .map(|tag| named(tag, &world.address))
        .chain(["e", "E", "q"].iter().map(|tag| named(tag, &root)))
        .collect();
    real.add(&wanted).await;
    let deletion = event(&world.keys, 5, now() - 50, "", vec![vec!["e", &"cd".repeat(32)]]);
    real.add(std::slice::from_ref(&deletion)).await;
    let author = world.keys.public_key().to_hex();
    world
        .relay(&real.url, &[("address", &world.address), ("root", &root), ("deletion", &author)])
        .await;
    let process = Process::start(&world.db);
    world.all_confirmed().await;
    let mut all = wanted;
    all.extend([deletion, issue]);
    assert_eq!(world.fetched().await, ids(&all));
    process.stop().await;
}

#[tokio::test]
async fn a_new_relay_and_a_new_item_are_followed_without_a_restart() {
    let world = World::new().await;
    let process = Process::start(&world.db);
    let real = RealRelay::start().await;
    let id = world.relay(&real.url, &[("announcements", "*")]).await;
    world.in_step().await;
    let old = world.issue(now() - 5000, "old");
    real.add(std::slice::from_ref(&old)).await;
    world.want(id, &[("address", &world.address)]).await;
    world.has(&old).await;
    world.all_confirmed().await;
    process.stop().await;
}

#[tokio::test]
async fn a_restart_does_not_fetch_confirmed_history_again() {
    let world = World::new().await;
    let real = RealRelay::start().await;
    let line = Line::to(&real.url).await;
    real.add(&world.issues(20)).await;
    world.relay(&line.url, &world.items()).await;
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
        history(&heard).iter().filter(|m| m[2]["since"].as_i64() < Some(now() - 2400)).count();
    assert_eq!(far, 0, "{heard:#?}");
    assert_eq!(world.number("select received from grasp_relay").await, received);
    assert_eq!(live(&heard).len(), 5, "L1, state, a, A and q: {heard:#?}");
    process.stop().await;
}

#[tokio::test]
async fn what_was_published_during_a_cut_is_found_whenever_it_was_signed() {
    let world = World::new().await;
    let real = RealRelay::start().await;
    let line = Line::to(&real.url).await;
    real.add(&world.issues(20)).await;
    world.relay(&line.url, &world.items()).await;
    let process = Process::start(&world.db);
    world.in_step().await;
    line.cut();
    world.reads("select status from grasp_relay", "waiting").await;
    let missed = [
        world.issue(now(), "during the cut"),
        world.issue(now() - 30, "as well"),
        world.issue(now() - 7200, "signed two hours before"),
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
    let world = World::new().await;
    let events = Arc::new(as_json(&world.issues(3)));
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
    world.relay(&relay.url, &world.items()).await;
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
    world.run("insert into grasp_outbox select id, now() from grasp_relay on conflict (relay_id) do update set due_at = now()").await;
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
    let world = World::new().await;
    let silent = FakeRelay::start(|_: Client, _: Value| async {}).await;
    let real = RealRelay::start().await;
    let events = world.issues(5);
    real.add(&events).await;
    let stalled = world.relay(&silent.url, &world.items()).await;
    let good = world.relay(&real.url, &world.items()).await;
    let process = Process::start(&world.db);
    eventually("the good relay is in step", async || {
        let sql = "select status from grasp_relay where id = $1";
        let status: String = sqlx::query_scalar(sql).bind(good).fetch_one(&world.db).await.unwrap();
        status == "in_step"
    })
    .await;
    assert_eq!(world.fetched().await, ids(&events));
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
    // Each comes alone, and gets three subscriptions of its own: 1 + 24 × 3 would be 73.
    for number in 0..24 {
        let address = format!("{} {number}", world.address);
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
    let world = World::new().await;
    let real = RealRelay::start().await;
    let id = world.relay(&real.url, &[("announcements", "*")]).await;
    // The relay is known to bear five subscriptions: one is left for live ones.
    world.run("insert into upstream (url, enabled, mirrored, negentropy, information, information_at)
               select url, false, false, true, '{\"max_subscriptions\": 5}', now() from grasp_relay").await;
    let old = world.issue(now() - 5000, "old");
    real.add(std::slice::from_ref(&old)).await;
    world.want(id, &[("address", &world.address)]).await;
    let process = Process::start(&world.db);
    world.all_confirmed().await;
    world.has(&old).await;
    world.reads("select concat_ws(' ', subscriptions, overflow) from grasp_relay", "1 1").await;
    process.stop().await;
}

#[tokio::test]
async fn the_daily_verification_counts_what_live_following_missed() {
    let world = World::new().await;
    let real = RealRelay::start().await;
    let (line, seen) = (Line::to(&real.url).await, world.issues(5));
    let lost = seen[0].id.to_hex();
    real.add(&seen).await;
    world.relay(&line.url, &world.items()).await;
    let process = Process::start(&world.db);
    world.in_step().await;
    // An event that the relay got without telling its subscribers, and that we therefore lack.
    let id = hex::decode(&lost).unwrap();
    for sql in [
        "delete from admission where event_id = $1",
        "delete from event_tag where position = (select position from event where id = $1)",
        "delete from event where id = $1",
    ] {
        sqlx::query(sql).bind(&id).execute(&world.db).await.unwrap();
    }
    assert_eq!(world.fetched().await.len(), 4);
    world.run("update grasp_relay set resync_due_at = now() - interval '1 s'").await;
    eventually("the drift is counted", async || {
        world.number("select drift_last from grasp_relay").await == 1
    })
    .await;
    assert_eq!(world.fetched().await, ids(&seen));
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
        world.relay(&line.url, &world.items()).await;
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

#[tokio::test]
async fn an_event_on_its_way_while_covers_are_packed_is_stored() {
    let world = World::new().await;
    let late = world.issue(now() - 7200, "on its way");
    let (event, first) = (serde_json::to_value(&late).unwrap(), Arc::new(Mutex::new(None)));
    let relay = FakeRelay::start(move |client: Client, message: Value| {
        let (event, first) = (event.clone(), first.clone());
        async move {
            if message[0] != "REQ" {
                return;
            }
            let addresses = message[2]["#a"].as_array().map_or(0, Vec::len);
            if message[2]["until"].is_null() && addresses == 1 {
                first.lock().unwrap().get_or_insert_with(|| message[1].clone());
            } else if message[2]["until"].is_null() && addresses > 1 {
                // Published before the relay saw the packed request, by the old subscription only.
                let old = first.lock().unwrap().take();
                if let Some(old) = old {
                    client.send(json!(["EVENT", old, event])).await;
                }
            }
            client.send(json!(["EOSE", message[1]])).await;
        }
    })
    .await;
    let id = world.relay(&relay.url, &[("address", &world.address)]).await;
    let process = Process::start(&world.db);
    world.all_confirmed().await;
    for number in 0..24 {
        let address = format!("{} {number}", world.address);
        world.want(id, &[("address", &address)]).await;
        let sql = "select count(*)::text from grasp_coverage where state = 'confirmed'";
        world.reads(sql, &format!("{}", number + 2)).await;
    }
    world.has(&late).await;
    process.stop().await;
}

#[tokio::test]
async fn a_relay_that_wants_authentication_for_ever_is_asked_a_few_times() {
    let world = World::new().await;
    let relay = FakeRelay::start(|client: Client, message: Value| async move {
        match message[0].as_str() {
            Some("REQ") => {
                client.send(json!(["AUTH", "one challenge"])).await;
                client.send(json!(["CLOSED", message[1], "auth-required: members only"])).await;
            }
            Some("AUTH") => client.send(json!(["OK", message[1]["id"], true, ""])).await,
            _ => {}
        }
    })
    .await;
    let id = world.relay(&relay.url, &[]).await;
    let addresses: Vec<String> = (0..1000).map(|n| format!("{} {n}", world.address)).collect();
    let items: Vec<(&str, &str)> = addresses.iter().map(|one| ("address", one.as_str())).collect();
    world.want(id, &items).await;
    let process = Process::start(&world.db);
    let refused = "select (count(*) >= 3)::text from grasp_batch where status = 'failed'";
    world.reads(refused, "true").await;
    let open = "select count(*)::text from grasp_batch where status = 'open'";
    world.reads(open, "0").await;
    // A further plan begins nothing while the next probe waits.
    world.run("update grasp_coverage set retry_at = now()").await;
    world
        .run(
            "insert into grasp_outbox (relay_id, due_at) select id, now() from grasp_relay
             on conflict do nothing",
        )
        .await;
    world.reads("select count(*)::text from grasp_outbox", "0").await;
    world.reads(open, "0").await;
    // Two were running when the third refusal came.
    assert!(world.number("select count(*) from grasp_batch").await <= 5);
    process.stop().await;
}
