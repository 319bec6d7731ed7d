//! The API of the GRASP wing: it reads, pages by marks, and says which parameter is wrong.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{
    api::{TestApi, answer},
    grasp_rows::{self, ALPHA},
};

const B: &str = "00000000-0000-0000-0000-00000000000b";

struct Client {
    api: TestApi,
    bearer: String,
}

impl Client {
    async fn new() -> Self {
        let api = TestApi::new().await;
        grasp_rows::fill(&api.world.db).await;
        let secret = "a secret of the tests".into();
        let new = tender::tokens::create(&api.world.db, &secret, "first").await.unwrap();
        Self { api, bearer: format!("Bearer {}", new.token) }
    }

    async fn raw(&self, method: Method, path: &str, bearer: Option<&str>) -> (StatusCode, Value) {
        let path = format!("/api/v1/grasp{path}");
        answer(self.api.send(method, &path, bearer, None).await).await
    }

    async fn get(&self, path: &str) -> Value {
        let (status, body) = self.raw(Method::GET, path, Some(&self.bearer)).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        body
    }
}

fn segment(text: &str) -> String {
    let escaped = |byte: u8| match byte {
        b'a'..=b'z' | b'0'..=b'9' => char::from(byte).to_string(),
        _ => format!("%{byte:02X}"),
    };
    text.bytes().map(escaped).collect()
}

#[tokio::test]
async fn a_token_is_required_and_nothing_is_written() {
    let client = Client::new().await;
    let (plan, event) = (format!("/relays/{B}/plan"), format!("/events/{}", "01".repeat(32)));
    let paths = ["/services", "/repos", "/relays", "/parked", &plan, &event];
    for path in paths.into_iter().chain([&*format!("/relays/{B}")]) {
        for bearer in [None, Some("Bearer nonsense")] {
            let (status, _) = client.raw(Method::GET, path, bearer).await;
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        }
        let (status, _) = client.raw(Method::POST, path, Some(&client.bearer)).await;
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED, "{path}");
    }
}

#[tokio::test]
async fn services_repositories_and_relays_are_read() {
    let client = Client::new().await;
    let services = client.get("/services").await;
    let one = &services["services"][0];
    assert_eq!(
        (&one["url"], &one["repositories"], &one["accepted"], &one["relays"]),
        (&json!("wss://git.example.com"), &json!(2), &json!(3), &json!(3))
    );
    let found = client.get(&format!("/repos/{}", segment(ALPHA))).await;
    let one = &found["repos"][0];
    assert_eq!(
        (&one["repository"]["confirmed"], &one["relays"][1]["missing"], &one["roots"][0]["kind"]),
        (&json!(4), &json!(3), &json!(1621))
    );
    let relay = client.get(&format!("/relays/{B}")).await;
    assert_eq!(
        (&relay["relay"]["state"], &relay["gaps"].as_array().unwrap().len()),
        (&json!("catching_up"), &1)
    );
    let plan = client.get(&format!("/relays/{B}/plan")).await;
    assert_eq!(plan, json!({"url": "wss://b.example.com", "batches": []}), "nothing is due");
    sqlx::query("update grasp_coverage set retry_at = now()")
        .execute(&client.api.world.db)
        .await
        .unwrap();
    let plan = client.get(&format!("/relays/{B}/plan")).await;
    assert_eq!(plan["batches"][0]["filters"][0], json!({"kinds": [30618], "#d": ["alpha"]}));
    let explained = client.get(&format!("/events/{}", "01".repeat(32))).await;
    assert_eq!(
        (&explained["services"][0]["url"], &explained["services"][0]["code"]),
        (&json!("wss://git.example.com"), &json!("names-service"))
    );
    let unknown = format!("/events/{}", "07".repeat(32));
    for path in [
        unknown.as_str(),
        "/events/x",
        "/relays/x/plan",
        "/relays/x",
        "/repos/x",
        "/nothing",
        "/repos/%00",
        "/relays/%00",
    ] {
        let (status, body) = client.raw(Method::GET, path, Some(&client.bearer)).await;
        assert_eq!((status, body), (StatusCode::NOT_FOUND, json!({"error": "Resource not found"})));
    }
}

/// Reads a list page by page; the values of `name` in the order of the pages.
async fn walk(client: &Client, list: &str, query: &str, name: &str) -> Vec<String> {
    let (mut found, mut after) = (Vec::new(), String::new());
    loop {
        let page = client.get(&format!("/{list}?limit=1{query}{after}")).await;
        let rows = page[if list == "parked" { "events" } else { list }].as_array().unwrap();
        found.extend(rows.iter().map(|row| row[name].as_str().unwrap().to_owned()));
        match page["after"].as_str() {
            Some(mark) => after = format!("&after={}", segment(mark)),
            None => return found,
        }
    }
}

#[tokio::test]
async fn lists_are_paged_without_losing_or_repeating_a_row() {
    let client = Client::new().await;
    let relays = walk(&client, "relays", "", "url").await;
    assert_eq!((relays.len(), relays.is_sorted()), (9, true), "{relays:?}");
    let repos = walk(&client, "repos", "", "identifier").await;
    assert_eq!(repos, ["alpha", "beta: with a colon"]);
    let parked = walk(&client, "parked", "", "event_id").await;
    assert_eq!(parked, ["d1", "d2", "d3"].map(|id| id.repeat(32)));
    assert_eq!(walk(&client, "parked", "&reason=orphan", "event_id").await.len(), 2);
    assert_eq!(walk(&client, "relays", "&state=dead", "url").await, ["wss://dead.example.com"]);
    assert_eq!(walk(&client, "repos", "&missing=true", "identifier").await.len(), 2);
    assert_eq!(walk(&client, "repos", "&q=%00", "identifier").await, Vec::<String>::new());
}

#[tokio::test]
async fn wrong_parameters_are_named_and_never_ours() {
    let client = Client::new().await;
    for (path, words) in [
        ("/relays?state=odd", "state must be one of in_step, catching_up"),
        ("/relays?limit=0", "limit must be a number from 1 to 1000"),
        ("/relays?limit=x", "limit must be"),
        ("/repos?service=x", "service must be the id"),
        ("/repos?missing=perhaps", "missing must be true or false"),
        ("/repos?after=x", "after must be copied"),
        ("/parked?reason=nope", "reason must be one of"),
        ("/parked?after=x", "after must be copied"),
    ] {
        let (status, body) = client.raw(Method::GET, path, Some(&client.bearer)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{path}: {body}");
        assert!(body["errors"][0].as_str().unwrap().contains(words), "{path}: {body}");
    }
}

#[tokio::test]
async fn the_metrics_tell_states_coverage_and_counts() {
    let client = Client::new().await;
    let page =
        client.api.http.get(format!("{}/metrics", client.api.base_url)).send().await.unwrap();
    let page = page.text().await.unwrap();
    let a = r#"relay="wss://a.example.com""#;
    let b = r#"relay="wss://b.example.com""#;
    let service = r#"service="wss://git.example.com""#;
    for line in [
        r#"tender_grasp_relays{state="dead"} 1"#.to_owned(),
        format!(r#"tender_grasp_relay_state{{{a},state="in_step"}} 1"#),
        format!(r#"tender_grasp_relay_holder{{{a},process="host:1"}} 1"#),
        format!(r#"tender_grasp_connection_attempts_total{{{a},result="failure"}} 1"#),
        format!(r#"tender_grasp_coverage{{{b},state="missing"}} 3"#),
        format!(r#"tender_grasp_coverage{{{b},state="in_flight"}} 1"#),
        r#"tender_grasp_items{family="address",state="confirmed"} 2"#.to_owned(),
        "tender_grasp_batches_open 1".to_owned(),
        format!(
            r#"tender_grasp_batches_total{{{b},purpose="missing",method="pages",outcome="failed"}} 1"#
        ),
        format!(
            r#"tender_grasp_pages_total{{{a},purpose="missing",method="pages",outcome="done"}} 3"#
        ),
        format!("tender_grasp_gaps{{{b}}} 1"),
        format!("tender_grasp_subscriptions_closed{{{a}}} 0"),
        format!("tender_grasp_drift_events_total{{{a}}} 7"),
        format!(r#"tender_grasp_events_total{{{service},source="live"}} 1"#),
        format!(r#"tender_grasp_refused_total{{{service},reason="orphan"}} 2"#),
        format!(r#"tender_grasp_parked{{{service},reason="orphan"}} 2"#),
        "tender_grasp_outbox_relays 1".to_owned(),
        format!("tender_grasp_repositories{{{service}}} 2"),
    ] {
        assert!(page.contains(&line), "{line} is not in:\n{page}");
    }
    let oldest = page
        .lines()
        .find(|line| line.starts_with(&format!("tender_grasp_oldest_missing_seconds{{{b}}}")));
    let oldest: f64 = oldest.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!((7200.0..8000.0).contains(&oldest), "{oldest}");
}
