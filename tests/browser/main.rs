//! The dashboard in a real browser. The scripts beside this file drive it; what they cannot do from
//! within a page, such as making zooid fail, they ask of this side, a line of JSON each way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]

#[path = "../support/mod.rs"]
mod support;

use std::{process::Stdio, time::Duration};

use nostr::{
    event::{EventBuilder, FinalizeEvent, Kind, Tag},
    key::Keys,
    types::Timestamp,
};
use secrecy::SecretString;
use serde_json::{Value, json};
use support::{
    api::TestApi,
    mirror::{self, Mirror},
    path::Path,
    relays::{RealRelay, notes},
};
use tender::demo::zooid::Fault;
use tender_jobs::{
    console::session,
    mirror::lane::LaneKind,
    provision::{
        backoff::Backoff,
        relay::{self, Change},
    },
    queue,
};
use tender_workers::provision::Settings;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    process::Command,
};
use tokio_util::sync::{CancellationToken, DropGuard};

const PASSWORD: &str = "a password for the test";
/// The longest time that a script may take. It bounds a hang.
const PATIENCE: Duration = Duration::from_mins(15);

struct Site {
    api: TestApi,
    viewer: Keys,
    stranger: Keys,
    workers: Option<CancellationToken>,
    /// What the browser's connections pass through.
    path: Path,
    /// Another process on the same ledger.
    beside: Option<DropGuard>,
}

impl Site {
    async fn new() -> Self {
        let viewer = Keys::generate();
        let key = viewer.public_key();
        let backoff =
            Backoff::new(Duration::from_hours(1), Duration::from_hours(1), 1, 0.0).unwrap();
        let settings = Settings { backoff, ..support::settings() };
        let api = TestApi::with(settings, |config| {
            config.viewers = vec![key];
            config.dashboard_password = Some(SecretString::from(PASSWORD));
            config.backoff = backoff;
        })
        .await;
        api.world.expire_leases().await; // the world's own worker is none of this
        let port = api.base_url.rsplit(':').next().unwrap().parse().unwrap();
        let path = Path::to("127.0.0.1", port).await;
        Self { api, viewer, stranger: Keys::generate(), workers: None, path, beside: None }
    }

    async fn rename_table(&self, from: &str, to: &str) {
        let statement = format!("alter table {from} rename to {to}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&self.api.world.db).await.unwrap();
    }

    /// What a script may ask for.
    async fn answer(&mut self, asked: &Value) -> Value {
        let text = |name: &str| asked[name].as_str().unwrap_or_default().to_owned();
        let world = &self.api.world;
        match text("do").as_str() {
            "sign" => self.sign(&text("as"), &asked["event"]),
            "relay" => {
                let change = Change { info_name: Some(text("name")), ..Change::default() };
                json!(world.relay_with(&text("subdomain"), change).await.id)
            }
            "relays" => {
                for number in 0..asked["count"].as_u64().unwrap() {
                    world.relay(&format!("{}-{number}", text("prefix"))).await;
                }
                json!(true)
            }
            "upstream" => {
                let mirror = Mirror::over(&world.db, mirror::settings());
                let (relay, now) = (RealRelay::start().await, mirror.db_now().await);
                relay.add(&notes(&Keys::generate(), 40, now - 60, 3600)).await;
                let fields = json!({"direction": "both", "config": mirror::days(1)});
                let upstream = mirror.upstream(&relay.url, fields).await;
                for mode in LaneKind::MODES {
                    mirror.trigger(&upstream, mode).await;
                }
                mirror.drain().await;
                let gone =
                    mirror.upstream("ws://127.0.0.1:1", json!({"notes": "it is gone"})).await;
                mirror.trigger(&gone, LaneKind::Realtime).await;
                for _ in 0..5 {
                    world.make_due().await;
                    mirror.step().await;
                }
                json!(upstream.id)
            }
            "grasp_rows" => {
                support::grasp_rows::fill(&world.db).await;
                json!(true)
            }
            "chart_rows" => {
                sqlx::raw_sql(CHART_ROWS).execute(&world.db).await.unwrap();
                json!(true)
            }
            "status" => json!(relay_of(world, &text("id")).await.sync_state()),
            "relay_status" => json!(relay_of(world, &text("id")).await.status),
            "fail" => {
                let status = u16::try_from(asked["status"].as_u64().unwrap()).unwrap();
                let id = text("id");
                let id = (!id.is_empty()).then_some(id);
                world.zooid.plan(id.as_deref(), Fault::Status(status, None), None);
                json!(true)
            }
            "heal" => {
                world.zooid.heal();
                json!(true)
            }
            "due" => {
                world.make_due().await;
                json!(true)
            }
            "age" => {
                sqlx::query(
                    "update relay set updated_at = now() - interval '20 min' where id = $1",
                )
                .bind(text("id"))
                .execute(&world.db)
                .await
                .unwrap();
                json!(true)
            }
            "rename" => {
                world.rename(&relay_of(world, &text("id")).await, &text("name")).await;
                json!(true)
            }
            "break_database" => {
                self.rename_table("relay", "relay_of_nobody").await;
                json!(true)
            }
            "mend_database" => {
                self.rename_table("relay_of_nobody", "relay").await;
                json!(true)
            }
            "silence" => {
                self.path.go_silent();
                json!(true)
            }
            "reopen" => {
                self.path.reopen();
                json!(true)
            }
            "beside" => {
                let password = Some(SecretString::from(PASSWORD));
                let (url, stop) =
                    self.api.beside(|config| config.dashboard_password = password).await;
                self.beside = Some(stop);
                json!(url)
            }
            "stop_beside" => {
                self.beside = None;
                json!(true)
            }
            "end_sessions" => json!(session::revoke(&world.db, None).await.unwrap()),
            "lose_jobs" => {
                let statement =
                    "delete from apalis.jobs where job_type = 'sync-relay' and status = 'Pending'";
                sqlx::raw_sql(statement).execute(&world.db).await.unwrap();
                json!(true)
            }
            "paused" => json!(queue::paused(&world.db).await.unwrap()),
            "link" => json!(tender::dashboard::new_link(&world.db).await.unwrap()),
            "start_workers" => {
                let stop = CancellationToken::new();
                tokio::spawn({
                    let (context, stop) = (world.context.clone(), stop.clone());
                    async move { support::run_workers(&context, stop).await }
                });
                self.workers = Some(stop);
                json!(true)
            }
            "stop_workers" => {
                self.workers.take().unwrap().cancel();
                json!(true)
            }
            other => panic!("a script asked for {other:?}"),
        }
    }

    fn sign(&self, who: &str, event: &Value) -> Value {
        let keys = match who {
            "admin" => &self.api.admin,
            "viewer" => &self.viewer,
            _ => &self.stranger,
        };
        let tags = event["tags"].as_array().unwrap().iter().map(|tag| {
            let words: Vec<_> =
                tag.as_array().unwrap().iter().map(|w| w.as_str().unwrap()).collect();
            Tag::custom(words[0], words[1..].iter().copied())
        });
        let signed = EventBuilder::new(Kind::HttpAuth, event["content"].as_str().unwrap())
            .tags(tags)
            .custom_created_at(Timestamp::from(event["created_at"].as_u64().unwrap()))
            .finalize(keys)
            .unwrap();
        serde_json::to_value(signed).unwrap()
    }
}

/// A week of counts with days and nights, and a pause an hour long.
const CHART_ROWS: &str = "
    insert into sync_minute (minute, synced, failed, gave_up, latency, latencies)
    select date_trunc('minute', now()) - make_interval(mins => i), 40 + 30 * sin(i / 229.0), i % 7 / 6, 0, '{}',
           array_fill(0::bigint, array[150]) || array[20, 15, 4, 0, 0, 1]::bigint[]
    from generate_series(2, 10079) i where i not between 300 and 360;
    insert into ingest_minute (minute, stored, rejected)
    select date_trunc('minute', now()) - make_interval(mins => i), 900 + 800 * cos(i / 229.0), 3
    from generate_series(2, 10079) i on conflict do nothing;
    insert into chart_mark (at, kind, subject)
    values (now() - interval '6 h', 'paused', 'sync-relay'), (now() - interval '5 h', 'resumed', 'sync-relay'),
           (now() - interval '30 min', 'breaker_opened', 'http://zooid.test'),
           (now() - interval '28 min', 'breaker_closed', 'http://zooid.test')";

async fn relay_of(world: &support::World, id: &str) -> relay::Relay {
    relay::find(&world.db, &id.parse().unwrap()).await.unwrap().unwrap()
}

/// Runs a script of this folder against a site of its own.
async fn run(script: &str) {
    let mut site = Site::new().await;
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/browser");
    let mut node = Command::new("node")
        .arg(script)
        .current_dir(folder)
        .env("BASE_URL", format!("http://127.0.0.1:{}", site.path.port))
        .env("PASSWORD", PASSWORD)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("node is installed: bin/test does that");
    let (mut answers, asked) = (node.stdin.take().unwrap(), node.stdout.take().unwrap());
    let mut lines = BufReader::new(asked).lines();
    let serving = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            match serde_json::from_str::<Value>(&line) {
                Ok(asked) if asked["do"].is_string() => {
                    let answer = format!("{}\n", site.answer(&asked).await);
                    answers.write_all(answer.as_bytes()).await.unwrap();
                }
                _ => println!("{line}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, serving).await.expect("the script ends in time");
    assert!(node.wait().await.unwrap().success(), "{script} failed; see above");
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_log_in_see_and_act() {
    run("operate.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_readable_by_everybody_everywhere() {
    run("look.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_validator_accepts_the_openapi_document() {
    run("openapi.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_reachable_without_a_session() {
    run("outside.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_have_one_stream_and_say_when_they_are_not_live() {
    run("live.mjs").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_copies_colours_and_paper_work() {
    run("keys.mjs").await;
}
