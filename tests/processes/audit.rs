//! `tender audit`: the commands leave who typed them, also those that were refused.

use serde_json::{Value, json};

use crate::support::{DOMAIN, World, process::run};

async fn typed(world: &World, arguments: &[&str]) -> (i32, String, String) {
    let url = world.database.url();
    let environment = [("DATABASE_URL", url.as_str()), ("RELAY_DOMAIN", DOMAIN)];
    let output = run(arguments, &environment).await;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap_or(-1), text(output.stdout), text(output.stderr))
}

async fn audit(world: &World, arguments: &[&str]) -> Vec<Value> {
    let (code, out, err) = typed(world, &[&["audit", "--json"], arguments].concat()).await;
    assert_eq!(code, 0, "{err}");
    serde_json::from_str(&out).unwrap()
}

#[tokio::test]
async fn commands_are_recorded_with_user_and_host_also_when_they_are_refused() {
    let world = World::new().await;
    assert_eq!(typed(&world, &["queue", "pause", "prune"]).await.0, 0);
    assert_eq!(typed(&world, &["queue", "pause", "nets"]).await.0, 2, "a wrong line is no action");
    assert_eq!(typed(&world, &["relay", "delete", "no.such.host", "--yes"]).await.0, 1);
    assert_eq!(typed(&world, &["mirror", "add", "wss://a.example"]).await.0, 0);
    assert_eq!(typed(&world, &["mirror", "add", "wss://a.example"]).await.0, 1, "it exists");
    assert_eq!(typed(&world, &["mirror", "update", "wss://a.example", "--live"]).await.0, 0);
    assert_eq!(typed(&world, &["queue", "list"]).await.0, 0);
    let actions = audit(&world, &[]).await;
    let told: Vec<_> = actions.iter().rev().map(|one| (&one["action"], &one["outcome"])).collect();
    let expected = [
        ("pause_queue", "done"),
        ("relay_delete", "refused"),
        ("add_upstream", "done"),
        ("add_upstream", "refused"),
        ("update_upstream", "done"),
    ];
    assert_eq!(json!(told), json!(expected), "{actions:#?}");
    let host = nix::unistd::gethostname().unwrap().into_string().unwrap();
    assert!(actions.iter().all(|one| one["who"].as_str().unwrap().ends_with(&format!("@{host}"))));
    assert_eq!(
        (&actions[0]["before"], &actions[0]["after"]),
        (&json!({"live": false}), &json!({"live": true}))
    );

    assert_eq!(audit(&world, &["--outcome", "refused", "--action", "relay"]).await.len(), 1);
    assert_eq!(audit(&world, &["--target", "WSS://A.example/", "--hours", "1"]).await.len(), 3);
    assert_eq!(audit(&world, &["--via", "page"]).await.len(), 0);
    let older = actions[3]["id"].to_string();
    assert_eq!(audit(&world, &["--before", &older]).await.len(), 1);
    let (_, out, note) = typed(&world, &["audit", "--limit", "2"]).await;
    assert!(out.contains("update_upstream") && note.contains("--before"), "{out}{note}");
    assert_eq!(typed(&world, &["audit", "--outcome", "red"]).await.0, 2);
}

#[tokio::test]
async fn what_a_command_does_is_undone_if_its_record_cannot_be_written() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let url = world.database.url();
    let environment = [
        ("DATABASE_URL", url.as_str()),
        ("API_KEY_HMAC_SECRET", "a secret of the tests that is long enough"),
    ];
    // The rows that the commands write, as one text.
    let rows = async || -> String {
        let rows = "select concat((select json_agg(p) from paused_queue p), (select json_agg(q) from queue_concurrency q),
                           (select json_agg((status, generation)) from relay), (select count(*) from api_key),
                           (select count(*) from apalis.jobs), (select count(*) from activity))";
        sqlx::query_scalar(rows).fetch_one(&world.db).await.unwrap()
    };
    let host = relay.host();
    let commands: [&[&str]; 5] = [
        &["queue", "pause", "prune"],
        &["queue", "scale", "prune", "4"],
        &["keys", "create", "deploy"],
        &["relay", "sync", &host],
        &["relay", "deactivate", &host],
    ];
    let rename = async |from: &str, to: &str| {
        let rename = format!("alter table {from} rename to {to}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(rename)).execute(&world.db).await.unwrap();
    };
    let before = rows().await;
    rename("operator_action", "elsewhere").await;
    for command in commands {
        let output = run(command, &environment).await;
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{command:?}: {err}");
        assert_eq!(rows().await, before, "{command:?}");
    }
    rename("elsewhere", "operator_action").await;
    for command in commands {
        let now = rows().await;
        let output = run(command, &environment).await;
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_ne!(rows().await, now, "{command:?}");
    }
}
