//! What the API does beside its routes: limits, probes, headers, its own document.

use std::path::Path;

use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::{
    api::{TestApi, answer, header, strict},
    eventually,
};

#[tokio::test]
async fn too_many_requests_are_told_when_to_come_back() {
    let api = TestApi::with_rate(1).await;
    let tenant = api.tenant.public_key().to_hex();
    let path = format!("/tenants/{tenant}/relays");
    let event = strict(&api.tenant, &format!("{}{path}", api.base_url), "GET", 0);
    // All at once: also a slow machine receives more than one a second.
    let authorization = header(&event);
    let requests = (0..30).map(|_| api.send(Method::GET, &path, Some(&authorization), None));
    let (refused, answered): (Vec<_>, Vec<_>) = join_all(requests)
        .await
        .into_iter()
        .partition(|response| response.status() == StatusCode::TOO_MANY_REQUESTS);
    assert!(answered.len() >= 2, "the burst is two");
    assert!(answered.iter().all(|response| response.status() == StatusCode::OK));
    assert!(!refused.is_empty());
    for response in refused {
        let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!(wait >= 1);
    }
    // Another caller, and a caller without a key, have their own.
    let (status, _) = api.call_as(&api.admin, Method::GET, "/relays", None).await;
    assert_eq!(status, StatusCode::OK);
    let without = api.send(Method::GET, &path, None, None).await;
    assert_eq!(without.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn probes_need_no_key_and_tell_the_truth() {
    let api = TestApi::new().await;
    let get = async |path: &str| answer(api.send(Method::GET, path, None, None).await).await;
    assert_eq!(get("/healthz").await, (StatusCode::OK, json!({ "data": "alive" })));
    assert_eq!(get("/readyz").await, (StatusCode::OK, json!({ "data": "ready" })));
    api.world.relay("alpha").await;
    let (status, metrics) = get("/metrics").await;
    assert_eq!(status, StatusCode::OK);
    let metrics = metrics.as_str().unwrap();
    assert!(metrics.contains("tender_http_requests_total"), "{metrics}");
    // Tests in one process share the recorder: another test may read its own relays in between.
    eventually("the page counts the relay", async || {
        let (_, metrics) = get("/metrics").await;
        metrics.as_str().unwrap().contains(r#"tender_relays{state="pending"} 1"#)
    })
    .await;
    sqlx::query("delete from _sqlx_migrations").execute(&api.world.db).await.unwrap();
    assert_eq!(get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    api.world.db.close().await;
    assert_eq!(get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(get("/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_database_that_is_away_is_a_503_without_detail() {
    let api = TestApi::new().await;
    api.world.db.close().await;
    let (status, body) = api.call(Method::POST, "/relays", Some(json!({ "subdomain": "a" }))).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["error"], "the database does not answer; try again");
}

#[tokio::test]
async fn answers_carry_a_request_id_and_allow_any_origin() {
    let api = TestApi::new().await;
    let url = format!("{}/healthz", api.base_url);
    let sent = async |id: &str| {
        let response = api
            .http
            .get(&url)
            .header("x-request-id", id)
            .header("origin", "https://flotilla.test")
            .send()
            .await
            .unwrap();
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        response.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(sent("my-id-1").await, "my-id-1");
    assert_ne!(sent(&"x".repeat(65)).await, "x".repeat(65));
    assert_ne!(sent("a b;c").await, "a b;c");
    let preflight = api
        .http
        .request(Method::OPTIONS, format!("{}/relays", api.base_url))
        .header("origin", "https://flotilla.test")
        .header("access-control-request-method", "PUT")
        .header("access-control-request-headers", "authorization,content-type")
        .send()
        .await
        .unwrap();
    assert!(preflight.status().is_success());
    let allowed = preflight.headers()["access-control-allow-headers"].to_str().unwrap().to_owned();
    assert!(allowed.contains("authorization") && allowed.contains("content-type"));
}

#[tokio::test]
async fn the_openapi_document_names_every_route() {
    let api = TestApi::new().await;
    let (status, document) = answer(api.send(Method::GET, "/openapi.json", None, None).await).await;
    assert_eq!(status, StatusCode::OK);
    let mut routes: Vec<String> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, methods)| {
            methods.as_object().unwrap().keys().map(move |m| format!("{m} {path}"))
        })
        .collect();
    routes.sort();
    let expected = [
        "delete /api/v1/api_keys/{id}",
        "delete /api/v1/relays/{id}",
        "delete /relays/{id}",
        "get /",
        "get /api/v1/api_keys",
        "get /api/v1/grasp/events/{id}",
        "get /api/v1/grasp/parked",
        "get /api/v1/grasp/relays",
        "get /api/v1/grasp/relays/{id}",
        "get /api/v1/grasp/relays/{id}/plan",
        "get /api/v1/grasp/repos",
        "get /api/v1/grasp/repos/{address}",
        "get /api/v1/grasp/services",
        "get /api/v1/relays",
        "get /api/v1/relays/{id}",
        "get /api/v1/sync_states",
        "get /healthz",
        "get /metrics",
        "get /openapi.json",
        "get /readyz",
        "get /relays",
        "get /relays/{id}",
        "get /relays/{id}/activity",
        "get /relays/{id}/members",
        "get /stats",
        "get /stats/api/connections",
        "get /stats/api/events",
        "get /stats/api/metrics",
        "get /stats/api/system",
        "get /tenants/{pubkey}/relays",
        "get /up",
        "patch /api/v1/relays/{id}",
        "post /api/v1/api_keys",
        "post /api/v1/relays",
        "post /api/v1/sync",
        "post /instances/probe",
        "post /relays",
        "post /relays/{id}/deactivate",
        "post /relays/{id}/reactivate",
        "post /relays/{id}/sync",
        "put /api/v1/relays/{id}",
        "put /relays/{id}",
    ];
    assert_eq!(routes, expected);
}

#[tokio::test]
async fn every_documented_route_answers_and_no_other_is_declared() {
    let api = TestApi::new().await;
    let (_, document) = answer(api.send(Method::GET, "/openapi.json", None, None).await).await;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            let status = api.send(method.clone(), path, None, None).await.status();
            let is_there =
                !matches!(status, StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED);
            assert!(is_there, "{method} {path}: {status}");
        }
    }
    // A route that is not declared with its description would be missing in the document.
    let mut sources = Vec::new();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http");
    super::architecture::sources(&folder, &mut sources);
    for file in sources {
        assert!(!std::fs::read_to_string(&file).unwrap().contains(".route("), "{}", file.display());
    }
}

#[tokio::test]
async fn the_request_id_reaches_the_job() {
    let api = TestApi::new().await;
    let event = strict(&api.tenant, &format!("{}/relays", api.base_url), "POST", 0);
    let response = api
        .http
        .post(format!("{}/relays", api.base_url))
        .header("authorization", header(&event))
        .header("x-request-id", "from-flotilla")
        .body(r#"{"subdomain": "alpha"}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), StatusCode::CREATED);
    assert!(api.world.job().await.payload.contains("from-flotilla"));
}
