//! Services, sums, and what needs attention.

use serde_json::{Value, json};

use super::Desk;
use crate::support::process::run;

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
async fn doctor_and_top_group_followed_relays_by_cause() {
    let desk = Desk::new().await;
    let environment = [("DATABASE_URL", &*desk.0.database.url())];
    let doctor = run(&["doctor"], &environment).await;
    let told = String::from_utf8(doctor.stdout).unwrap();
    for words in [
        "1 service enabled; 1 process follows relays",
        "1 followed relay is dead",
        "1 followed relay is out of reach by a permanent fault: DNS",
        "wss://fault.example.com (tender grasp relays --state fault)",
        "1 followed relay is limiting our rate",
        "1 followed relay is connected, but has not delivered items for more than an hour, most often \
         because of: CLOSED: error: try later",
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
        "No process follows relays",
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
    desk.is_misused(&["add", "ws://127.0.0.1:1"], "public address").await;
    desk.says(&["add", "ws://127.0.0.1:1", "--private"], &["added ws://127.0.0.1:1"]).await;
    let file = tempfile::NamedTempFile::new().unwrap();
    let update = ["update", "git.example.com", "--policy", file.path().to_str().unwrap()];
    std::fs::write(file.path(), "{").unwrap();
    desk.refuses(&update, "is not JSON").await;
    std::fs::write(file.path(), r#"{"blocked": []}"#).unwrap();
    desk.is_misused(&update, "Policy blocked is unknown").await;
    std::fs::write(file.path(), r#"{"accept_all": true}"#).unwrap();
    let more = ["--max-relays", "7", "--no-bootstrap", "--enabled", "false"];
    desk.says(&[update.as_slice(), &more].concat(), &["changed wss://git.example.com"]).await;
    let limit = |most| ["update", "git.example.com", "--max-relays", most];
    desk.says(&limit("3"), &["at most 3 relays", "the newest of them are dropped"]).await;
    desk.says(&limit("9"), &["relays over the former limit are followed within minutes"]).await;
    assert_eq!(desk.says(&limit("9"), &["changed"]).await.lines().count(), 1);
    desk.says(&limit("7"), &["changed"]).await;
    let found = desk.json(&["show", "git.example.com"]).await;
    let service = &found["service"];
    assert_eq!(
        (&service["max_relays"], &service["bootstrap"], &service["enabled"], &service["policy"]),
        (&json!(7), &json!([]), &json!(false), &json!({"accept_all": true}))
    );
    let told = ["its events are kept", "Its relay is not mirrored"];
    desk.says(&["remove", "wss://git.example.com", "--yes"], &told).await;
    desk.says(&["list"], &["removing"]).await;
    desk.refuses(&["remove", "wss://git.example.com", "--yes"], "is being removed already").await;
    desk.refuses(&["update", "wss://x.test"], "there is no service wss://x.test").await;
    let database = desk.0.database.url();
    let upstream = ["mirror", "add", "wss://up.example.com", "--direction", "up"];
    assert!(run(&upstream, &[("DATABASE_URL", &*database)]).await.status.success());
    desk.says(&["add", "wss://up.example.com"], &["added"]).await;
    let told = ["an upstream of the mirror as before: enabled, direction up"];
    desk.says(&["remove", "wss://up.example.com", "--yes"], &told).await;
}

#[tokio::test]
async fn the_mirror_names_the_reasons_of_rejected_events() {
    let desk = Desk::new().await;
    let database = desk.0.database.url();
    let environment = [("DATABASE_URL", &*database)];
    let show = ["mirror", "show", "wss://git.example.com"];
    let shown = run(&show, &environment).await;
    assert!(String::from_utf8(shown.stdout).unwrap().contains("rejected events    none"));
    sqlx::query(
        "insert into rejection (upstream_id, reason, events) select upstream_id, reason, events
         from grasp_service, (values ('malformed', 2), ('identifier-too-long', 3)) of (reason, events)",
    )
    .execute(&desk.0.db)
    .await
    .unwrap();
    let shown = String::from_utf8(run(&show, &environment).await.stdout).unwrap();
    assert!(shown.contains("3 identifier-too-long, 2 malformed"), "{shown}");
    let shown = run(&[&show[..], &["--json"]].concat(), &environment).await;
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["rejected"][0], json!({"reason": "identifier-too-long", "events": 3}));
}

#[tokio::test]
async fn every_command_answers_in_json() {
    let desk = Desk::new().await;
    let event = "01".repeat(32);
    for arguments in [
        &["list"][..],
        &["show", "git.example.com"],
        &["status"],
        &["repos"],
        &["repo", "alpha"],
        &["relays"],
        &["relay", "wss://a.example.com"],
        &["plan", "wss://b.example.com"],
        &["parked"],
        &["parked", "--reason", "orphan"],
        &["explain", &event],
        &["resync", "--all"],
        &["add", "wss://new.example.com"],
        &["update", "wss://new.example.com", "--max-relays", "9"],
        &["remove", "wss://new.example.com", "--yes"],
    ] {
        let answer = desk.json(arguments).await;
        assert!(answer.is_object() || answer.is_array(), "{arguments:?}: {answer}");
    }
}

#[tokio::test]
async fn the_mirror_does_not_list_followed_relays() {
    let desk = Desk::new().await;
    let listed = run(&["mirror", "list"], &[("DATABASE_URL", &desk.0.database.url())]).await;
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("wss://git.example.com"), "{listed}");
    assert!(!listed.contains("wss://a.example.com"), "{listed}");
    for change in [
        &["remove", "wss://a.example.com", "--yes"][..],
        &["update", "wss://a.example.com", "--notes", "x"],
    ] {
        let refused =
            run(&[&["mirror"], change].concat(), &[("DATABASE_URL", &desk.0.database.url())]).await;
        let told = String::from_utf8(refused.stderr).unwrap();
        assert!(told.contains("there is no upstream wss://a.example.com"), "{told}");
    }
}
