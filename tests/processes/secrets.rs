//! No secret anywhere: database, logs, API, commands.

use reqwest::Method;
use tender::demo::zooid::Fault;
use tender_jobs::provision::relay::Change;

use crate::{
    stand_in,
    support::{
        World, change, eventually,
        process::{ROBOT_SECRET, Tender, run},
    },
};

const CONFIGURED: [(&str, &str); 9] = [
    ("BLOSSOM_S3_ENDPOINT", "https://s3.test"),
    ("BLOSSOM_S3_REGION", "eu"),
    ("BLOSSOM_S3_BUCKET", "bucket"),
    ("BLOSSOM_S3_ACCESS_KEY", "AKIAverysecretaccess"),
    ("BLOSSOM_S3_SECRET_KEY", "verysecretkeyofs3"),
    ("LIVEKIT_URL", "wss://livekit.test"),
    ("LIVEKIT_API_KEY", "verysecretlivekitkey"),
    ("LIVEKIT_API_SECRET", "verysecretlivekitsecret"),
    ("LOG_LEVEL", "trace"),
];

/// Every text in every table, as PostgreSQL dumps it.
async fn dump(world: &World) -> String {
    let mut text = String::new();
    for table in ["relay", "activity", "apalis.workers"] {
        let rows = format!("select coalesce(string_agg(t::text, E'\\n'), '') from {table} t");
        text += &sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(rows))
            .fetch_one(&world.db)
            .await
            .unwrap();
    }
    let jobs = "select coalesce(string_agg(convert_from(job, 'UTF8') || j::text, E'\\n'), '') from apalis.jobs j";
    text + &sqlx::query_scalar::<_, String>(jobs).fetch_one(&world.db).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn no_secret_is_stored_logged_or_shown() {
    let (world, zooid) = (World::new().await, stand_in().await);
    let all_on =
        Change { flags: vec![("blossom_enabled", true), ("livekit_enabled", true)], ..change() };
    let relays = [
        world.relay_with("well", all_on.clone()).await,
        world.relay_with("failing", all_on.clone()).await,
        world.relay_with("refused", all_on).await,
    ];
    zooid.plan(Some(relays[1].id.as_str()), Fault::Status(500, None), None);
    zooid.plan(Some(relays[2].id.as_str()), Fault::Status(400, None), None);
    let mut worker = Tender::start(
        &world,
        &zooid.url(),
        &["serve"],
        &[&CONFIGURED[..], &[("API_BIND", "127.0.0.1:0")]].concat(),
    );
    eventually("each had its attempt", async || {
        let records: i64 = sqlx::query_scalar("select count(distinct resource_id) from activity where activity_type like '%relay_sync'")
            .fetch_one(&world.db).await.unwrap();
        records == 3
    })
    .await;
    let relay_secret =
        zooid.documents()[relays[0].id.as_str()]["secret"].as_str().unwrap().to_owned();
    let document = zooid.documents()[relays[0].id.as_str()].to_string();
    assert!(document.contains("verysecretkeyofs3"), "zooid did get them");

    let url = world.database.url();
    let mut shown = String::new();
    for arguments in [
        &["relay", "list", "--json"][..],
        &["relay", "show", "failing.zooid.test", "--json"],
        &["queue", "list", "--json"],
        &["queue", "status"],
    ] {
        let output = run(arguments, &[("DATABASE_URL", &url)]).await;
        shown += &String::from_utf8_lossy(&output.stdout);
        shown += &String::from_utf8_lossy(&output.stderr);
    }
    let log = worker.log();
    let address = log.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
    for path in ["/metrics", "/openapi.json", "/readyz"] {
        let response =
            reqwest::Client::new().request(Method::GET, format!("http://{address}{path}"));
        shown += &response.send().await.unwrap().text().await.unwrap();
    }
    worker.kill().await;
    let texts = [("database", dump(&world).await), ("log", worker.log()), ("shown", shown)];
    let mut secrets = vec![ROBOT_SECRET, relay_secret.as_str()];
    secrets.extend(
        CONFIGURED.iter().map(|(_, value)| *value).filter(|value| value.contains("verysecret")),
    );
    assert_eq!(secrets.len(), 6);
    for (name, text) in texts {
        assert!(text.len() > 500, "{name} was looked at");
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret} is in the {name}");
        }
    }
}
