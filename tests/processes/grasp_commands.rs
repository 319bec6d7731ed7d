//! The commands of the GRASP wing, as an operator types them.

use nostr::{event::Kind, key::Keys};
use serde_json::{Value, json};

use crate::support::{
    api::{event, tag},
    grasp_rows::{self, ALPHA},
    mirror::MirrorWorld,
    process::run,
};

/// A ledger with the rows of [`grasp_rows`].
struct Desk(MirrorWorld);

impl Desk {
    async fn new() -> Self {
        let desk = Self::empty().await;
        grasp_rows::fill(&desk.0.db).await;
        desk
    }

    async fn empty() -> Self {
        Self(MirrorWorld::new().await)
    }

    /// Runs a command; its exit code, and what it wrote to both outputs.
    async fn types(&self, arguments: &[&str]) -> (i32, String, String) {
        let arguments = [&["grasp"], arguments].concat();
        let output = run(&arguments, &[("DATABASE_URL", &self.0.database.url())]).await;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
    }

    async fn says(&self, arguments: &[&str], words: &[&str]) -> String {
        let (code, out, err) = self.types(arguments).await;
        assert_eq!(code, 0, "{arguments:?}: {err}");
        for word in words {
            assert!(out.contains(word), "{arguments:?} says no {word:?}: {out}");
        }
        out
    }

    async fn refuses(&self, arguments: &[&str], words: &str) {
        let (code, out, err) = self.types(arguments).await;
        assert_eq!(code, 1, "{arguments:?}: {out}");
        assert!(err.contains(words), "{arguments:?}: {err}");
    }

    async fn json(&self, arguments: &[&str]) -> Value {
        let out = self.says(&[arguments, &["--json"]].concat(), &[]).await;
        serde_json::from_str(&out).unwrap()
    }
}

#[tokio::test]
async fn followed_relays_are_listed_each_with_the_word_for_its_state() {
    let desk = Desk::new().await;
    let words = [
        "in step",
        "catching up",
        "connecting",
        "waiting",
        "rate-limited",
        "dead",
        "fault: DNS",
        "no room",
        "unwanted",
        "8/8",
        "supported",
        "host:1",
    ];
    desk.says(&["relays"], &words).await;
    let found = desk.json(&["relays", "--state", "dead"]).await;
    assert_eq!(found.as_array().unwrap().len(), 1);
    assert_eq!(
        (&found[0]["url"], &found[0]["state"], &found[0]["missing"], &found[0]["repositories"]),
        (&json!("wss://dead.example.com"), &json!("dead"), &json!(3), &json!(1))
    );
    let page = desk.says(&["relays", "--limit", "2"], &["more: --after wss://b.example.com"]).await;
    assert!(!page.contains("wss://c.example.com"), "{page}");
    let next = desk.json(&["relays", "--limit", "1", "--after", "wss://b.example.com"]).await;
    assert_eq!(next[0]["url"], "wss://c.example.com");
    assert_eq!(desk.json(&["relays", "--q", "%"]).await, json!([]));
    desk.says(&["relays", "--q", "%"], &["no followed relay matches"]).await;
}

#[tokio::test]
async fn a_followed_relay_says_what_is_missing_and_why() {
    let desk = Desk::new().await;
    let words = [
        "catching up",
        "0 of 4 items delivered, 1 in flight",
        "events of 30617:",
        "2 attempts failed: CLOSED: error: try later",
        "the second holds more events than the relay gives",
        "1 repository",
    ];
    desk.says(&["relay", "wss://b.example.com"], &words).await;
    desk.says(&["relay", "wss://dead.example.com"], &["dead since", "no answer within 5 s"]).await;
    desk.says(&["relay", "wss://limited.example.com"], &["rate-limited until", "UTC (in "]).await;
    let found = desk.json(&["relay", "wss://a.example.com/"]).await;
    assert_eq!(
        (&found["relay"]["drift_total"], &found["batches"][0]["status"], &found["missing"]),
        (&json!(7), &json!("done"), &json!([]))
    );
    desk.refuses(&["relay", "wss://x.test"], "no relay wss://x.test is followed").await;
}

#[tokio::test]
async fn a_repository_shows_its_relays_roots_and_what_is_missing() {
    let desk = Desk::new().await;
    let words = ["Alpha tools", "beta: with a colon", "4/8", "3/6"];
    desk.says(&["repos"], &words).await;
    let found = desk.json(&["repos", "--missing"]).await;
    assert_eq!(found.as_array().unwrap().len(), 2);
    sqlx::query("delete from grasp_coverage where state <> 'confirmed' and item like '%alpha%' or item = repeat('01', 32) or item = repeat('aa', 32)")
        .execute(&desk.0.db)
        .await
        .unwrap();
    let found = desk.json(&["repos", "--missing"]).await;
    assert_eq!(
        (found.as_array().unwrap().len(), &found[0]["identifier"]),
        (1, &json!("beta: with a colon"))
    );
    let found = desk.json(&["repos", "--q", "ALPHA", "--service", "wss://git.example.com"]).await;
    assert_eq!((&found[0]["address"], &found[0]["roots"]), (&json!(ALPHA), &json!(1)));
    let words =
        ["wss://b.example.com", "It fails <b>often</b>", "issue", "accepted an event of kind 1621"];
    desk.says(&["repo", ALPHA], &words).await;
    desk.refuses(&["repo", "30617:x:y"], "there is no repository 30617:x:y").await;
    desk.refuses(&["repos", "--service", "wss://x.test"], "there is no service").await;
    desk.refuses(&["repos", "--after", "x"], "not the mark of a page").await;
}

#[tokio::test]
async fn a_name_that_cannot_be_seen_is_shown_and_can_be_typed() {
    let desk = Desk::new().await;
    let owner = "cc".repeat(32);
    for (identifier, shown) in [("a\nb\u{202e}c", r"a\nb\u{202e}c"), (" ", r"\u{20}")] {
        let address = format!("30617:{owner}:{identifier}");
        sqlx::query(
            "insert into grasp_repo (upstream_id, address, pubkey, identifier, announcement_id, announced_at)
             select upstream_id, $1, decode($2, 'hex'), $3, decode($2, 'hex'), 1 from grasp_service",
        )
        .bind(&address)
        .bind(&owner)
        .bind(identifier)
        .execute(&desk.0.db)
        .await
        .unwrap();
        let typed = format!("30617:{owner}:{shown}");
        desk.says(&["repos"], &[&typed]).await;
        desk.says(&["repo", &typed], &[&typed]).await;
    }
}

#[tokio::test]
async fn repositories_are_paged_by_their_marks() {
    let desk = Desk::new().await;
    let page = desk.says(&["repos", "--limit", "1"], &["Alpha tools", "more: --after '"]).await;
    let (_, mark) = page.split_once("--after '").unwrap();
    let mark = mark.split('\'').next().unwrap();
    let next = desk.json(&["repos", "--limit", "1", "--after", mark]).await;
    assert_eq!(next[0]["identifier"], "beta: with a colon");
}

#[tokio::test]
async fn parked_events_are_counted_by_reason_and_listed() {
    let desk = Desk::new().await;
    desk.says(&["parked"], &["orphan", "names-another-service", "2"]).await;
    let out = desk
        .says(&["parked", "--reason", "orphan", "--limit", "1"], &["waits for the event ffff"])
        .await;
    desk.refuses(&["parked", "--reason", "nope"], "--reason must be one of").await;
    let (_, mark) = out.split_once("--after ").unwrap();
    let next = desk.json(&["parked", "--reason", "orphan", "--after", mark.trim()]).await;
    assert_eq!(
        (&next["events"][0]["event_id"], &next["after"]),
        (&json!("d2".repeat(32)), &Value::Null)
    );
}

#[tokio::test]
async fn services_and_sums_are_shown() {
    let desk = Desk::new().await;
    desk.says(&["list"], &["wss://git.example.com", "on", "git.example.com"]).await;
    let words = ["accepted by source: 1 live, 1 missing, 1 own", "2 orphan", "3 of at most 1000"];
    desk.says(&["show", "wss://git.example.com"], &words).await;
    let words = ["9 (", "1 dead", "8 items delivered, 1 in flight, 6 missing", "3 (2 orphan"];
    desk.says(&["status"], &words).await;
    sqlx::query(
        "update upstream set authors_only_at = now(), authors_only_reason = 'restricted: no'
                 where url = 'wss://git.example.com'",
    )
    .execute(&desk.0.db)
    .await
    .unwrap();
    let told = "wss://git.example.com refuses events that others signed";
    desk.says(&["list"], &[told]).await;
    desk.says(&["show", "wss://git.example.com"], &[told, "restricted: no"]).await;
}

#[tokio::test]
async fn a_change_of_the_mirror_does_not_stop_a_service_silently() {
    let desk = Desk::empty().await;
    desk.says(&["add", "wss://git.example.com"], &["added"]).await;
    let (db, database) = (&desk.0.db, desk.0.database.url());
    let environment = [("DATABASE_URL", &*database)];
    for (fields, words) in [
        (&["--enabled", "false"][..], "would stop its own feed"),
        (&["--live", "false", "--backfill", "false"], "would stop its own feed"),
        (&["--direction", "up"], "decides on its direction"),
        (&["--direction", "down"], "decides on its direction"),
    ] {
        let update = [&["mirror", "update", "wss://git.example.com"], fields].concat();
        let refused = run(&update, &environment).await;
        let told = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(1) && told.contains(words), "{fields:?}: {told}");
    }
    let shown = run(&["mirror", "show", "wss://git.example.com"], &environment).await;
    assert!(String::from_utf8(shown.stdout).unwrap().contains("accepted events only"));
    desk.says(&["list"], &["wss://git.example.com"]).await;
    sqlx::query("update upstream set enabled = false").execute(db).await.unwrap();
    let told = "wss://git.example.com: its own feed is off, and nothing is uploaded to it";
    desk.says(&["list"], &[told]).await;
    desk.says(&["show", "wss://git.example.com"], &[told]).await;
    for command in ["doctor", "top"] {
        let output = run(&[command, "--json"], &environment).await;
        assert!(String::from_utf8(output.stdout).unwrap().contains(told), "{command}");
    }
}

#[tokio::test]
async fn a_resync_is_due_at_once_and_is_recorded() {
    let desk = Desk::new().await;
    desk.says(&["resync", "wss://a.example.com"], &["1 relays are verified again"]).await;
    let due: bool = sqlx::query_scalar(
        "select resync_due_at <= now() from grasp_relay where url = 'wss://a.example.com'",
    )
    .fetch_one(&desk.0.db)
    .await
    .unwrap();
    assert!(due);
    desk.says(&["resync", "--all"], &["9 relays"]).await;
    desk.refuses(&["resync", "wss://x.test"], "no relay wss://x.test is followed").await;
    assert_eq!(desk.types(&["resync"]).await.0, 2);
    let actions = tender_jobs::console::operator::last(&desk.0.db, 10).await.unwrap();
    let told: Vec<_> =
        actions.iter().map(|one| (one.action.as_str(), one.target.as_str())).collect();
    assert_eq!(told, [("resync_grasp", "all"), ("resync_grasp", "wss://a.example.com")]);
}

#[tokio::test]
async fn a_plan_prints_the_filters_without_taking_items_in_flight() {
    let desk = Desk::new().await;
    let b = ["plan", "wss://b.example.com"];
    desk.says(&b, &["nothing is due: 0 of 4 items are delivered, 1 in flight, 3 wait"]).await;
    sqlx::query("update grasp_coverage set retry_at = now()").execute(&desk.0.db).await.unwrap();
    let words = ["state: 1 items, after 2 attempts that failed", "\"#A\"", ALPHA, "\"authors\""];
    desk.says(&b, &words).await;
    let plan = desk.json(&b).await;
    assert_eq!(
        (&plan["batches"][0]["filters"][0], &plan["batches"][1]["filters"][0]),
        (&json!({"kinds": [30618], "#d": ["alpha"]}), &json!({"#a": [ALPHA]}))
    );
    let in_flight = "select count(*) from grasp_coverage where state = 'in_flight'";
    let in_flight: i64 = sqlx::query_scalar(in_flight).fetch_one(&desk.0.db).await.unwrap();
    assert_eq!(in_flight, 1);
}

#[tokio::test]
async fn doctor_and_top_group_followed_relays_by_cause() {
    let desk = Desk::new().await;
    let environment = [("DATABASE_URL", &*desk.0.database.url())];
    let doctor = run(&["doctor"], &environment).await;
    let told = String::from_utf8(doctor.stdout).unwrap();
    for words in [
        "1 services enabled, 1 processes follow relays",
        "1 followed relay is dead",
        "1 followed relay is out of reach by a permanent fault: DNS: wss://fault.example.com",
        "1 followed relay is limiting our rate",
        "1 followed relay is connected, but has not delivered items for more than an hour, most often \
         because of: CLOSED: error: try later: wss://b.example.com",
    ] {
        assert!(told.contains(words), "{words}: {told}");
    }
    sqlx::query("delete from grasp_process").execute(&desk.0.db).await.unwrap();
    sqlx::query("update grasp_service set relays_over_limit = 3")
        .execute(&desk.0.db)
        .await
        .unwrap();
    let top = run(&["top", "--json"], &environment).await;
    let top: Value = serde_json::from_slice(&top.stdout).unwrap();
    let attention = top["attention"].to_string();
    for words in [
        "no process follows relays",
        "3 more are named and not followed",
        "tender grasp relays --state no-room",
    ] {
        assert!(attention.contains(words), "{words}: {attention}");
    }
}

#[tokio::test]
async fn services_are_added_changed_and_removed() {
    let desk = Desk::empty().await;
    desk.says(&["list"], &["no service yet"]).await;
    let add = ["add", "WSS://Git.Example.com/", "--bootstrap", "wss://start.example.org"];
    desk.says(&add, &["added wss://git.example.com, which announcements mean by git.example.com"])
        .await;
    desk.refuses(&["add", "wss://git.example.com"], "is a service already").await;
    desk.refuses(&["add", "wss://b.test", "--policy", "/nothing"], "failed to read /nothing").await;
    desk.refuses(&["add", "ws://127.0.0.1:1"], "public address").await;
    desk.says(&["add", "ws://127.0.0.1:1", "--private"], &["added ws://127.0.0.1:1"]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let update = ["update", "git.example.com", "--policy", file.path().to_str().unwrap()];
    std::fs::write(file.path(), "{").unwrap();
    desk.refuses(&update, "is not JSON").await;
    std::fs::write(file.path(), r#"{"blocked": []}"#).unwrap();
    desk.refuses(&update, "Policy blocked is unknown").await;
    std::fs::write(file.path(), r#"{"accept_all": true}"#).unwrap();
    let more = ["--max-relays", "7", "--no-bootstrap", "--enabled", "false"];
    desk.says(&[update.as_slice(), &more].concat(), &["changed wss://git.example.com"]).await;
    let found = desk.json(&["show", "git.example.com"]).await;
    let service = &found["service"];
    assert_eq!(
        (&service["max_relays"], &service["bootstrap"], &service["enabled"], &service["policy"]),
        (&json!(7), &json!([]), &json!(false), &json!({"accept_all": true}))
    );
    let told = ["its events are kept", "Its relay is not mirrored"];
    desk.says(&["remove", "wss://git.example.com"], &told).await;
    desk.says(&["list"], &["removing"]).await;
    desk.refuses(&["remove", "wss://git.example.com"], "is being removed already").await;
    desk.refuses(&["update", "wss://x.test"], "there is no service wss://x.test").await;
    let database = desk.0.database.url();
    let upstream = ["mirror", "add", "wss://up.example.com", "--direction", "up"];
    assert!(run(&upstream, &[("DATABASE_URL", &*database)]).await.status.success());
    desk.says(&["add", "wss://up.example.com"], &["added"]).await;
    let told = ["an upstream of the mirror as before: enabled, direction up"];
    desk.says(&["remove", "wss://up.example.com"], &told).await;
}

#[tokio::test]
async fn an_event_is_explained_by_rule_or_reason() {
    let desk = Desk::empty().await;
    desk.says(&["add", "wss://git.example.com"], &["added"]).await;
    let keys = Keys::generate();
    let urls = vec![
        tag("d", "alpha"),
        tag("clone", "https://git.example.com/alpha.git"),
        tag("relays", "wss://git.example.com"),
    ];
    let announcement = event(&keys, Kind::from(30617), urls, 0);
    let text = serde_json::to_string(&announcement).unwrap();
    let words = ["wss://git.example.com: would be accepted (names-service)", "clone URL"];
    desk.says(&["explain", &text], &words).await;
    let orphan = event(&keys, Kind::from(1111), vec![tag("e", &"ab".repeat(32))], 0);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), serde_json::to_string(&orphan).unwrap()).unwrap();
    let explain = ["explain", file.path().to_str().unwrap()];
    desk.says(&explain, &["refused (orphan)", "waits for"]).await;
    assert_eq!(desk.json(&explain).await[0]["verdict"], "refused");
    desk.refuses(&["explain", &text.replace("alpha", "beta")], "the event is forged").await;
    desk.refuses(&["explain", &"ab".repeat(32)], "is neither stored nor parked").await;
    desk.refuses(&["explain", ""], "no event is given").await;
    desk.refuses(&["explain", "/nothing"], "is neither an event as JSON").await;
    desk.refuses(&["explain", "{}"], "is not a Nostr event").await;
}
