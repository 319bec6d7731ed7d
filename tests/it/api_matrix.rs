//! Every route of the API against every wrong authentication.

use nostr::{event::Kind, key::Keys};
use reqwest::{Method, StatusCode};
use tender_jobs::provision::instance;

use crate::support::api::{TestApi, event, header, strict, tag};

/// Method, path (`{id}` and `{tenant}` are filled in), whether only an admin may.
const ROUTES: [(&str, &str, bool); 10] = [
    ("GET", "/tenants/{tenant}/relays", false),
    ("GET", "/relays", true),
    ("GET", "/relays/{id}", false),
    ("PUT", "/relays/{id}", false),
    ("POST", "/relays/{id}/deactivate", false),
    ("POST", "/relays/{id}/reactivate", false),
    ("POST", "/relays/{id}/sync", false),
    ("GET", "/relays/{id}/members", false),
    ("GET", "/relays/{id}/activity", false),
    ("POST", "/instances/probe", true),
];

/// An instance that is known, and whose breaker is closed.
const ZOOID: &str = "http://zooid.test";

async fn site() -> (TestApi, String) {
    let api = TestApi::new().await;
    instance::register(&api.world.db, &[ZOOID.to_owned()]).await.unwrap();
    let body = serde_json::json!({ "subdomain": "mine" });
    let (status, relay) = api.call(Method::POST, "/relays", Some(body)).await;
    assert_eq!(status, StatusCode::CREATED);
    let id = relay["data"]["id"].as_str().unwrap().to_owned();
    (api, id)
}

fn path_of(api: &TestApi, id: &str, path: &str) -> String {
    path.replace("{id}", id).replace("{tenant}", &api.tenant.public_key().to_hex())
}

#[tokio::test]
async fn every_route_refuses_every_wrong_authentication() {
    let (api, id) = site().await;
    for (method, path, _) in ROUTES.into_iter().chain([("POST", "/relays", false)]) {
        let path = path_of(&api, &id, path);
        let (url, keys) = (format!("{}{path}", api.base_url), &api.tenant);
        let other_method = if method == "GET" { "DELETE" } else { "GET" };
        let mut forged = serde_json::to_value(strict(keys, &url, method, 0)).unwrap();
        forged["pubkey"] = api.admin.public_key().to_hex().into();
        let wrong = [
            ("none", None),
            ("not Nostr", Some("Bearer x".to_owned())),
            ("not an event", Some("Nostr eyJ9".to_owned())),
            ("stale", Some(header(&strict(keys, &url, method, -61)))),
            ("from the future", Some(header(&strict(keys, &url, method, 120)))),
            ("wrong URL", Some(header(&strict(keys, &format!("{url}x"), method, 0)))),
            ("wrong host", Some(header(&strict(keys, "http://other.example/", method, 0)))),
            ("wrong method", Some(header(&strict(keys, &url, other_method, 0)))),
            ("stale session", Some(header(&strict(keys, &api.base_url, "GET", -16 * 60)))),
            (
                "wrong kind",
                Some(header(&event(
                    keys,
                    Kind::TextNote,
                    vec![tag("u", &url), tag("method", method)],
                    0,
                ))),
            ),
            ("another's name on it", Some(header(&serde_json::from_value(forged).unwrap()))),
        ];
        for (what, authorization) in wrong {
            let method = Method::from_bytes(method.as_bytes()).unwrap();
            let body = (method != Method::GET).then(|| br#"{"subdomain": "x"}"#.to_vec());
            let response = api.send(method.clone(), &path, authorization.as_deref(), body).await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{method} {path}: {what}");
        }
    }
    let tenant = api.tenant.public_key().to_hex();
    let relays = tender_jobs::provision::relay::of_tenant(&api.world.db, &tenant, None, 1000);
    assert_eq!(relays.await.unwrap().len(), 1, "nothing was made");
}

#[tokio::test]
async fn every_route_hides_what_belongs_to_another() {
    let (api, id) = site().await;
    let other = Keys::generate();
    for (method, path, _) in ROUTES {
        let path = path_of(&api, &id, path);
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let body = (method == Method::PUT).then(|| serde_json::json!({ "info_name": "stolen" }));
        let (status, _) = api.call_as(&other, method.clone(), &path, body).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{method} {path}");
    }
    let (_, relay) = api.call(Method::GET, &format!("/relays/{id}"), None).await;
    assert_eq!(
        (relay["data"]["info_name"].as_str(), relay["data"]["status"].as_str()),
        (Some(""), Some("active"))
    );
}

#[tokio::test]
async fn an_admin_only_route_is_not_there_for_tenants() {
    let (api, id) = site().await;
    for (method, path, is_admins) in ROUTES {
        let path = path_of(&api, &id, path);
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let body = match (method.as_str(), path.as_str()) {
            ("PUT", _) => Some(serde_json::json!({})),
            (_, "/instances/probe") => Some(serde_json::json!({ "instance": ZOOID })),
            _ => None,
        };
        let (status, _) = api.call(method.clone(), &path, body.clone()).await;
        assert_eq!(status == StatusCode::NOT_FOUND, is_admins, "{path}: {status}");
        let (status, _) = api.call_as(&api.admin, method, &path, body).await;
        // The members of a relay that zooid has not heard of yet are zooid's 404: a bad gateway.
        assert!(status.is_success() || path.ends_with("/members"), "{path}: {status}");
    }
}
