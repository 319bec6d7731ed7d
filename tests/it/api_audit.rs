//! What API keys did is in the operators' record: with its values, and also what was refused or failed.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tender_jobs::console::operator::{self, Action, Outcome};

use crate::support::api::{TestApi, answer};

async fn client() -> (TestApi, String) {
    let api = TestApi::new().await;
    let new =
        tender::tokens::create(&api.world.db, &"a secret of the tests".into(), "deploy").await;
    (api, new.unwrap().token)
}

async fn call(api: &TestApi, token: &str, method: Method, path: &str, body: Value) -> StatusCode {
    let body = Some(body.to_string().into_bytes());
    let authorization = format!("Bearer {token}");
    answer(api.send(method, &format!("/api/v1{path}"), Some(&authorization), body).await).await.0
}

async fn last(api: &TestApi) -> Action {
    operator::last(&api.world.db, 1).await.unwrap().remove(0)
}

#[tokio::test]
async fn a_key_leaves_what_it_changed_and_what_it_was_refused() {
    let (api, token) = client().await;
    let new = json!({"upstream_relay": {"url": "wss://a.example.com", "notes": "mine"}});
    assert_eq!(call(&api, &token, Method::POST, "/relays", new.clone()).await, StatusCode::CREATED);
    let action = last(&api).await;
    assert_eq!((action.who.as_str(), action.via.as_str()), ("key deploy", "api"));
    assert_eq!((action.before, &action.after.unwrap()["notes"]), (None, &json!("mine")));

    let upstream = tender_jobs::mirror::upstream::list(&api.world.db).await.unwrap().remove(0);
    let path = format!("/relays/{}", upstream.id);
    let change = json!({"upstream_relay": {"enabled": false, "notes": "mine"}});
    assert_eq!(call(&api, &token, Method::PUT, &path, change).await, StatusCode::OK);
    let action = last(&api).await;
    assert_eq!(action.before, Some(json!({"enabled": true})), "only what differs");
    assert_eq!(action.after, Some(json!({"enabled": false})));

    let refused = call(&api, &token, Method::POST, "/relays", new).await;
    assert_eq!(refused, StatusCode::UNPROCESSABLE_ENTITY);
    let action = last(&api).await;
    assert_eq!((action.outcome, action.target.as_str()), (Outcome::Refused, "POST /api/v1/relays"));
    assert!(action.result.contains("422"), "{action:?}");

    let rename = "alter table mirror_setting rename to elsewhere";
    sqlx::query(rename).execute(&api.world.db).await.unwrap();
    let failed = call(&api, &token, Method::POST, "/sync", json!({})).await;
    assert!(failed.is_server_error(), "{failed}");
    assert_eq!(last(&api).await.outcome, Outcome::Failed);
    let all = operator::last(&api.world.db, 100).await.unwrap();
    assert!(!serde_json::to_string(&all).unwrap().contains(&token), "no token is recorded");
}
