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

/// Every row of every table of ours and of apalis, with bytes as text.
async fn dump(world: &World) -> String {
    let tables: Vec<(String, String)> = sqlx::query_as(
        "select format('%I.%I', table_schema, table_name),
                'concat_ws('' '', ' || string_agg(case data_type
                    when 'bytea' then format('encode(%I, ''escape'')', column_name)
                    else format('%I::text', column_name) end, ', ') || ')'
         from information_schema.columns
         where table_schema in ('public', 'apalis') group by table_schema, table_name",
    )
    .fetch_all(&world.db)
    .await
    .unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    let mut text = String::new();
    for (table, row) in tables {
        let rows = format!("select coalesce(string_agg({row}, E'\\n'), '') from {table}");
        text += &sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(rows))
            .fetch_one(&world.db)
            .await
            .unwrap();
    }
    text
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
    zooid.plan(Some(relays[1].id.as_str()), Fault::Echo(500), None);
    zooid.plan(Some(relays[2].id.as_str()), Fault::Echo(400), None);
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
        // Base64 of the beginning of a signed event.
        assert!(!text.contains("eyJpZCI6"), "a signature is in the {name}");
        for secret in &secrets {
            assert!(!text.contains(secret), "{secret} is in the {name}");
        }
    }
}
