//! Event sync's API: bearer keys, upstreams, states, triggers; what is wrong is told and is never ours.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tender_jobs::{console::operator, mirror::lane::LaneKind};

use crate::support::{
    api::{TestApi, answer},
    mirror::days,
    relays::RealRelay,
};

struct Client {
    world: TestApi,
    token: String,
}

impl Client {
    async fn new() -> Self {
        let world = TestApi::new().await;
        let secret = "a secret of the tests".into();
        let new = tender::tokens::create(&world.world.db, &secret, "first").await.unwrap();
        Self { world, token: new.token }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let body = body.map(|body| body.to_string().into_bytes());
        self.raw(method, path, Some(&format!("Bearer {}", self.token)), body).await
    }

    async fn raw(
        &self,
        method: Method,
        path: &str,
        authorization: Option<&str>,
        body: Option<Vec<u8>>,
    ) -> (StatusCode, Value) {
        answer(self.world.send(method, &format!("/api/v1{path}"), authorization, body).await).await
    }
}

#[tokio::test]
async fn nobody_comes_in_without_an_active_token() {
    let client = Client::new().await;
    let unknown = format!("Bearer rlk_{}", "x".repeat(43));
    for authorization in [
        None,
        Some("Bearer"),
        Some("Bearer nonsense"),
        Some("Basic cmxr"),
        Some(unknown.as_str()),
        Some(client.token.as_str()),
    ] {
        let (status, body) = client.raw(Method::GET, "/relays", authorization, None).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{authorization:?}");
        assert_eq!(body, json!({"error": "Invalid or missing API key"}));
    }
    let (status, body) = client.call(Method::GET, "/relays", None).await;
    assert_eq!((status, body), (StatusCode::OK, json!([])));
}

#[tokio::test]
async fn a_relay_is_added_changed_shown_and_removed() {
    let client = Client::new().await;
    let new = json!({"upstream_relay": {
        "url": "WSS://Relay.Example.com/", "direction": "both", "notes": "a note", "junk": 1,
        "config": {"batch_size": 7},
    }});
    let (status, relay) = client.call(Method::POST, "/relays", Some(new.clone())).await;
    assert_eq!(status, StatusCode::CREATED);
    assert_eq!(relay["url"], "wss://relay.example.com");
    assert_eq!(
        (&relay["enabled"], &relay["backfill"], &relay["negentropy"]),
        (&json!(true), &json!(true), &json!(false))
    );
    assert_eq!(
        (&relay["config"]["batch_size"], &relay["effective_config"]["upload_batch_size"]),
        (&json!(7), &json!(50))
    );
    assert_eq!(relay["sync"], json!([]));
    let path = format!("/relays/{}", relay["id"].as_str().unwrap());

    let (status, body) = client.call(Method::POST, "/relays", Some(new)).await;
    assert_eq!(
        (status, body),
        (StatusCode::UNPROCESSABLE_ENTITY, json!({"errors": ["Url has already been taken"]}))
    );
    let change = json!({"upstream_relay": {"enabled": false, "config": {}}});
    for method in [Method::PATCH, Method::PUT] {
        let (status, relay) = client.call(method, &path, Some(change.clone())).await;
        assert_eq!(
            (status, &relay["enabled"], &relay["config"]),
            (StatusCode::OK, &json!(false), &json!({}))
        );
        assert_eq!(relay["notes"], "a note");
    }
    assert_eq!(client.call(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    for method in [Method::GET, Method::DELETE] {
        let (status, body) = client.call(method, &path, None).await;
        assert_eq!((status, body), (StatusCode::NOT_FOUND, json!({"error": "Resource not found"})));
    }
    for path in ["/relays/17", "/nothing", "/api_keys/x"] {
        assert_eq!(client.call(Method::GET, path, None).await.0.as_u16() / 100, 4, "{path}");
    }
}

#[tokio::test]
async fn bad_input_is_told_and_never_ours() {
    let client = Client::new().await;
    for (body, status, words) in [
        (json!({"upstream_relay": {}}), 422, "Url can't be blank"),
        (json!({"upstream_relay": {"url": "https://a.test"}}), 422, "valid WebSocket URL"),
        (
            json!({"upstream_relay": {"url": "ws://a.test", "direction": "sideways"}}),
            422,
            "Direction",
        ),
        (
            json!({"upstream_relay": {"url": "ws://a.test", "config": {"batch_size": 0}}}),
            422,
            "batch_size",
        ),
        (
            json!({"upstream_relay": {"url": "ws://a.test", "config": {"x": 0}}}),
            422,
            "unknown setting",
        ),
        (json!({"upstream_relay": {"url": "ws://a.test", "config": []}}), 422, "object"),
        (json!({"upstream_relay": {"url": "ws:///a.test"}}), 422, "valid WebSocket URL"),
        (json!({"upstream_relay": {"url": "ws://169.254.169.254"}}), 422, "public address"),
        (json!({"upstream_relay": {"url": "ws://[::ffff:10.0.0.1]"}}), 422, "public address"),
        (json!({"upstream_relay": {"url": "ws://2130706433"}}), 422, "public address"),
        (
            json!({"upstream_relay": {"url": "ws://localhost", "allow_private": true}}),
            422,
            "public address",
        ),
        (json!({"upstream_relay": {"url": 1}}), 422, "invalid type"),
        (json!({"upstream_relay": {"url": "ws://a.test", "notes": "\u{0}"}}), 422, "U+0000"),
        (json!({"upstream_relay": []}), 400, "upstream_relay"),
        (json!({}), 400, "upstream_relay"),
        (json!([]), 400, "upstream_relay"),
    ] {
        let (found, answer) = client.call(Method::POST, "/relays", Some(body.clone())).await;
        assert_eq!(found.as_u16(), status, "{body}: {answer}");
        assert!(answer.to_string().contains(words), "{body}: {answer}");
    }
    let bearer = format!("Bearer {}", client.token);
    let send = |body: Vec<u8>| client.raw(Method::POST, "/relays", Some(&bearer), Some(body));
    assert_eq!(send(b"{".to_vec()).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(send(vec![b'x'; 70_000]).await.0, StatusCode::PAYLOAD_TOO_LARGE);
    let (status, body) = client.call(Method::POST, "/sync", Some(json!([]))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert!(body["error"].as_str().unwrap().contains("must be an object"), "{body}");
    let (status, _) = client.call(Method::POST, "/sync", Some(json!({"mode": "all"}))).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let unknown = json!({"mode": "full", "relay_url": "ws://nobody.test"});
    assert_eq!(client.call(Method::POST, "/sync", Some(unknown)).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_key_is_shown_once_and_revoked_at_once() {
    let client = Client::new().await;
    let blank = json!({"api_key": {"name": " "}});
    let (status, body) = client.call(Method::POST, "/api_keys", Some(blank)).await;
    assert_eq!(
        (status, body),
        (StatusCode::UNPROCESSABLE_ENTITY, json!({"errors": ["Name can't be blank"]}))
    );
    let (status, key) =
        client.call(Method::POST, "/api_keys", Some(json!({"api_key": {"name": "second"}}))).await;
    assert_eq!(status, StatusCode::CREATED);
    let token = key["token"].as_str().unwrap();
    assert_eq!((token.len(), &token[..8]), (47, key["key_prefix"].as_str().unwrap()));
    let (_, keys) = client.call(Method::GET, "/api_keys", None).await;
    assert_eq!(keys.as_array().unwrap().len(), 2);
    assert!(!keys.to_string().contains(token));

    let second = format!("Bearer {token}");
    let path = format!("/api_keys/{}", key["id"].as_str().unwrap());
    // A key may revoke itself.
    let (status, _) = client.raw(Method::DELETE, &path, Some(&second), None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(
        client.raw(Method::GET, "/relays", Some(&second), None).await.0,
        StatusCode::UNAUTHORIZED
    );
    assert_eq!(client.call(Method::DELETE, &path, None).await.0, StatusCode::NO_CONTENT);
    let (_, keys) = client.call(Method::GET, "/api_keys", None).await;
    assert_eq!(keys.as_array().unwrap().len(), 1);
    let rows: Vec<(String,)> = sqlx::query_as("select k::text from api_key k")
        .fetch_all(&client.world.world.db)
        .await
        .unwrap();
    assert!(rows.iter().all(|(row,)| !row.contains(token)), "no row holds a token");
}

#[tokio::test]
async fn a_sync_is_triggered_and_its_state_read() {
    let client = Client::new().await;
    let relay = RealRelay::start().await;
    let upstream =
        client.world.world.mirror().upstream(&relay.url, json!({"config": days(1)})).await;
    let trigger = json!({"mode": "backfill", "relay_url": relay.url});
    let (status, body) = client.call(Method::POST, "/sync", Some(trigger.clone())).await;
    assert_eq!((status, &body["dispatched"]), (StatusCode::ACCEPTED, &json!(1)));
    client.world.world.mirror().drain().await;
    let (_, found) = client.call(Method::GET, "/sync_states", None).await;
    assert_eq!(
        (&found[0]["lane"], &found[0]["status"], &found[0]["progress"]),
        (&json!("backfill"), &json!("completed"), &json!(100.0))
    );
    let (_, body) = client.call(Method::POST, "/sync", Some(trigger)).await;
    assert_eq!(body["relays"][0]["skipped"], "complete");
    assert_eq!(
        client.world.world.mirror().lane(&upstream, LaneKind::Backfill).await.status,
        "completed"
    );
}

#[tokio::test]
async fn without_a_secret_the_api_is_closed_and_says_so() {
    let world = TestApi::with(crate::support::settings(), |config| config.key_secret = None).await;
    let response = world.send(Method::GET, "/api/v1/relays", Some("Bearer x"), None).await;
    let (status, body) = answer(response).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(body.to_string().contains("API_KEY_HMAC_SECRET"), "{body}");
}

#[tokio::test]
async fn changes_are_in_the_operators_record_under_the_name_of_the_key() {
    let client = Client::new().await;
    let new = json!({"upstream_relay": {"url": "wss://a.example.com"}});
    let (_, relay) = client.call(Method::POST, "/relays", Some(new)).await;
    let path = format!("/relays/{}", relay["id"].as_str().unwrap());
    let change = json!({"upstream_relay": {"enabled": false}});
    client.call(Method::PATCH, &path, Some(change)).await;
    client.call(Method::POST, "/sync", Some(json!({"mode": "backfill"}))).await;
    client.call(Method::DELETE, &path, None).await;
    let name = json!({"api_key": {"name": "second"}});
    let (_, key) = client.call(Method::POST, "/api_keys", Some(name)).await;
    let path = format!("/api_keys/{}", key["id"].as_str().unwrap());
    client.call(Method::DELETE, &path, None).await;

    let mut actions = operator::last(&client.world.world.db, 10).await.unwrap();
    actions.reverse();
    let told: Vec<_> =
        actions.iter().map(|one| (one.action.as_str(), one.target.as_str())).collect();
    let prefix = key["key_prefix"].as_str().unwrap();
    let url = "wss://a.example.com";
    let wanted = [
        ("add_upstream", url),
        ("update_upstream", url),
        ("trigger_mirror", "all"),
        ("remove_upstream", url),
        ("create_key", prefix),
        ("revoke_key", prefix),
    ];
    assert_eq!(told, wanted);
    assert!(actions.iter().all(|one| one.who == "key first"), "{actions:?}");
}
