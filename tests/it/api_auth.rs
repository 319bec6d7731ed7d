//! Who gets in: NIP-98 for one request, or a session event.

use base64::{Engine, engine::general_purpose::STANDARD};
use nostr::{
    event::{Event, Kind, Tag},
    key::Keys,
};
use reqwest::{Method, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::support::api::{TestApi, event, header, strict, tag};

const MINUTE: i64 = 60;

/// The status of `GET /tenants/<tenant>/relays` with this event.
async fn get(api: &TestApi, event: &Event) -> StatusCode {
    get_with(api, Some(&header(event))).await
}

async fn get_with(api: &TestApi, authorization: Option<&str>) -> StatusCode {
    api.send(Method::GET, &path(api), authorization, None).await.status()
}

fn path(api: &TestApi) -> String {
    format!("/tenants/{}/relays", api.tenant.public_key().to_hex())
}

fn url(api: &TestApi) -> String {
    format!("{}{}", api.base_url, path(api))
}

#[tokio::test]
async fn a_strict_event_is_good_for_its_request_for_a_minute() {
    let api = TestApi::new().await;
    // Half a minute from each limit of a minute, because time passes before the request arrives.
    for (shift, status) in [(0, 200), (-30, 200), (30, 200), (-90, 401), (120, 401)] {
        let event = strict(&api.tenant, &url(&api), "GET", shift);
        assert_eq!(get(&api, &event).await, status, "{shift}");
    }
    for (url, method) in [
        (url(&api), "POST"),
        (format!("{}?x=1", url(&api)), "GET"),
        (url(&api).replace("http", "https"), "GET"),
        (format!("{}/relays", api.base_url), "GET"),
        ("http://elsewhere.test/".to_owned(), "GET"),
    ] {
        let event = strict(&api.tenant, &url, method, 0);
        assert_eq!(get(&api, &event).await, StatusCode::UNAUTHORIZED, "{method} {url}");
    }
}

#[tokio::test]
async fn the_query_is_part_of_the_url() {
    let api = TestApi::new().await;
    let event = strict(&api.admin, &format!("{}/relays?limit=1", api.base_url), "GET", 0);
    let response = api.send(Method::GET, "/relays?limit=1", Some(&header(&event)), None).await;
    assert_eq!(response.status(), StatusCode::OK);
    let response = api.send(Method::GET, "/relays?limit=2", Some(&header(&event)), None).await;
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_session_event_is_good_for_every_request_for_a_quarter_of_an_hour() {
    let api = TestApi::new().await;
    for (shift, status) in
        [(0, 200), (-14 * MINUTE, 200), (30, 200), (-16 * MINUTE, 401), (120, 401)]
    {
        for base in [api.base_url.clone(), format!("{}/", api.base_url)] {
            let session = strict(&api.tenant, &base, "GET", shift);
            assert_eq!(get(&api, &session).await, status, "{base} {shift}");
        }
    }
    let session = header(&strict(&api.tenant, &api.base_url, "GET", -5 * MINUTE));
    let body = json!({ "subdomain": "alpha" }).to_string().into_bytes();
    let response = api.send(Method::POST, "/relays", Some(&session), Some(body)).await;
    assert_eq!(response.status(), StatusCode::CREATED);
    let wrong_method = strict(&api.tenant, &api.base_url, "POST", 0);
    assert_eq!(get(&api, &wrong_method).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn a_payload_tag_must_be_the_bodys_hash() {
    let api = TestApi::new().await;
    let body = json!({ "subdomain": "alpha" }).to_string().into_bytes();
    let hash =
        Sha256::digest(&body).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    for (payload, status) in [("00".repeat(32), 401), (hash, 201)] {
        let tags = vec![
            tag("u", &format!("{}/relays", api.base_url)),
            tag("method", "POST"),
            tag("payload", &payload),
        ];
        let event = event(&api.tenant, Kind::HttpAuth, tags, 0);
        let response =
            api.send(Method::POST, "/relays", Some(&header(&event)), Some(body.clone())).await;
        assert_eq!(response.status(), status);
    }
}

#[tokio::test]
async fn what_is_no_event_for_us_is_refused() {
    let api = TestApi::new().await;
    let good = strict(&api.tenant, &url(&api), "GET", 0);
    let json = serde_json::to_value(&good).unwrap();
    let token = |json: &serde_json::Value| format!("Nostr {}", STANDARD.encode(json.to_string()));
    let with = |field: &str, value: serde_json::Value| {
        let mut json = json.clone();
        json[field] = value;
        token(&json)
    };
    let other = Keys::generate().public_key().to_hex();
    let tags = |tags: Vec<Tag>| header(&event(&api.tenant, Kind::HttpAuth, tags, 0));
    let refused = [
        None,
        Some("Nostr".to_owned()),
        Some("Bearer abc".to_owned()),
        Some("Nostr !!!".to_owned()),
        Some(format!("Nostr {}", STANDARD.encode("[]"))),
        Some(format!("Nostr {}", "A".repeat(20_000))),
        Some(with("content", json!("changed after signing"))),
        Some(with("pubkey", json!(other))),
        Some(with("sig", json!("00".repeat(64)))),
        Some(with("id", json!("00".repeat(32)))),
        Some(tags(vec![])),
        Some(tags(vec![tag("u", &url(&api))])),
        Some(tags(vec![tag("method", "GET")])),
        Some(header(&event(
            &api.tenant,
            Kind::TextNote,
            vec![tag("u", &url(&api)), tag("method", "GET")],
            0,
        ))),
    ];
    for authorization in refused {
        let status = get_with(&api, authorization.as_deref()).await;
        assert_eq!(status, StatusCode::UNAUTHORIZED, "{authorization:?}");
    }
    assert_eq!(get_with(&api, Some(&token(&json))).await, StatusCode::OK, "the unchanged one");
    let lower = token(&json).replacen("Nostr", "nostr", 1);
    assert_eq!(get_with(&api, Some(&lower)).await, StatusCode::OK, "the scheme has no case");
}

#[tokio::test]
async fn a_refusal_says_what_to_do() {
    let api = TestApi::new().await;
    let response = api.send(Method::GET, &path(&api), None, None).await;
    assert_eq!(response.headers()["www-authenticate"], "Nostr");
    let (_, body) = crate::support::api::answer(response).await;
    assert_eq!(body["error"], "not authenticated: send `Authorization: Nostr <base64 event>`");
}
