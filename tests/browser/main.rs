//! The dashboard in a real browser. The scripts beside this file drive it; what they cannot do from
//! within a page, such as making zooid fail, they ask of this side, a line of JSON each way.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]

mod answers;
#[path = "../support/mod.rs"]
mod support;

use std::{process::Stdio, time::Duration};

use nostr::{
    event::{EventBuilder, FinalizeEvent, Kind, Tag},
    key::Keys,
    types::Timestamp,
};
use secrecy::SecretString;
use serde_json::Value;
use support::{api::TestApi, path::Path};
use tender_jobs::provision::{backoff::Backoff, relay};
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
async fn jobs_are_selected_and_steered_with_and_without_scripts() {
    run("jobs.mjs").await;
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
