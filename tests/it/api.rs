//! The API's routes and its answers to bad input.

use nostr::key::Keys;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tender_jobs::provision::relay::{self, MutationError, RelayId, Status};
use tender_workers::provision::sync_relay::Outcome;

use crate::support::{
    api::{TestApi, answer, header, strict},
    by, eventually, settings,
};

fn error(answer: &(StatusCode, Value)) -> &str {
    answer.1["error"].as_str().unwrap_or_default()
}

async fn create(api: &TestApi, subdomain: &str) -> Value {
    let (status, body) =
        api.call(Method::POST, "/relays", Some(json!({ "subdomain": subdomain }))).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    body["data"].clone()
}

#[tokio::test]
async fn a_relay_is_created_changed_switched_and_shown() {
    let api = TestApi::new().await;
    let sent = json!({ "subdomain": "alpha", "info_name": "Alpha", "policy_public_join": 1,
                       "push_enabled": false, "unknown": {} });
    let (status, body) = api.call(Method::POST, "/relays", Some(sent)).await;
    assert_eq!(status, StatusCode::CREATED);
    let relay = &body["data"];
    let id = relay["id"].as_str().unwrap().to_owned();
    let mut shown = relay.clone();
    for (field, kind) in [("created_at", "number"), ("updated_at", "number")] {
        assert!(shown[field].is_u64(), "{field} is a {kind}");
    }
    for field in ["id", "tenant_pubkey", "schema", "created_at", "updated_at"] {
        shown.as_object_mut().unwrap().remove(field);
    }
    let expected = json!({
        "subdomain": "alpha", "zooid_domain": "zooid.test", "plan_id": "", "status": "active",
        "sync_error": "", "synced": 0, "custom_domain": "", "custom_domain_verified": 0,
        "info_name": "Alpha", "info_icon": "", "info_description": "", "policy_public_read": 1,
        "policy_public_write": 0, "policy_public_join": 1, "policy_strip_signatures": 0,
        "groups_enabled": 1, "management_enabled": 1, "members_can_invite": 1,
        "blossom_enabled": 0, "livekit_enabled": 0, "push_enabled": 0,
    });
    assert_eq!(shown, expected);
    assert_eq!(relay["tenant_pubkey"], api.tenant.public_key().to_hex());

    assert_eq!(api.world.attempt().await, Outcome::Synced);
    let path = format!("/relays/{id}");
    let (status, body) = api.call(Method::GET, &path, None).await;
    assert_eq!((status, &body["data"]["synced"]), (StatusCode::OK, &json!(1)));

    let change = Some(json!({ "info_name": "Beta", "zooid_domain": "other.test" }));
    let (status, body) = api.call(Method::PUT, &path, change).await;
    assert_eq!((status, &body["data"]["info_name"]), (StatusCode::OK, &json!("Beta")));
    assert_eq!(
        (&body["data"]["zooid_domain"], &body["data"]["synced"]),
        (&json!("other.test"), &json!(0))
    );

    let (status, body) = api.call(Method::POST, &format!("{path}/deactivate"), None).await;
    assert_eq!((status, &body["data"]["status"]), (StatusCode::OK, &json!("inactive")));
    let (status, body) = api.call(Method::POST, &format!("{path}/reactivate"), None).await;
    assert_eq!((status, &body["data"]["status"]), (StatusCode::OK, &json!("active")));

    let tenant = api.tenant.public_key().to_hex();
    let (status, body) = api.call(Method::GET, &format!("/tenants/{tenant}/relays"), None).await;
    assert_eq!((status, body["data"].as_array().unwrap().len()), (StatusCode::OK, 1));
}

#[tokio::test]
async fn a_sync_is_accepted_also_for_what_was_given_up() {
    let api = TestApi::new().await;
    let relay = create(&api, "alpha").await;
    let path = format!("/relays/{}/sync", relay["id"].as_str().unwrap());
    api.world.zooid.plan(None, tender::demo::zooid::Fault::Status(422, None), Some(1));
    api.world.attempt().await;
    assert_eq!(api.call(Method::POST, &path, None).await.0, StatusCode::ACCEPTED);
    assert_eq!(api.world.attempt().await, Outcome::Synced);
}

#[tokio::test]
async fn activity_is_paged_newest_first() {
    let api = TestApi::new().await;
    let relay = create(&api, "alpha").await;
    let path = format!("/relays/{}", relay["id"].as_str().unwrap());
    api.world.attempt().await;
    api.call(Method::PUT, &path, Some(json!({ "info_name": "x" }))).await;
    let types = |body: &Value| -> Vec<String> {
        let records = body["data"]["activity"].as_array().unwrap();
        records.iter().map(|r| r["activity_type"].as_str().unwrap().to_owned()).collect()
    };
    let (_, first) = api.call(Method::GET, &format!("{path}/activity?limit=2"), None).await;
    assert_eq!(types(&first), ["update_relay", "complete_relay_sync"]);
    let record = &first["data"]["activity"][1];
    assert_eq!((&record["resource_type"], &record["resource_id"]), (&json!("relay"), &relay["id"]));
    assert!(record["created_at"].is_i64());
    let before = record["id"].as_str().unwrap();
    let (_, second) =
        api.call(Method::GET, &format!("{path}/activity?limit=2&before={before}"), None).await;
    assert_eq!(types(&second), ["create_relay"]);
}

#[tokio::test]
async fn members_come_from_zooid_and_its_refusal_is_told() {
    let api = TestApi::new().await;
    let relay = create(&api, "alpha").await;
    let id = relay["id"].as_str().unwrap();
    let path = format!("/relays/{id}/members");
    let refused = api.call(Method::GET, &path, None).await;
    assert_eq!(
        (refused.0, error(&refused)),
        (StatusCode::BAD_GATEWAY, "zooid answered: relay not found")
    );
    api.world.attempt().await;
    api.world.zooid.set_members(id, vec!["bb".repeat(32), "aa".repeat(32)]);
    let (status, body) = api.call(Method::GET, &path, None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(body["data"]["members"], json!(["aa".repeat(32), "bb".repeat(32)]));
}

#[tokio::test]
async fn admins_see_and_filter_all_relays() {
    let api = TestApi::new().await;
    create(&api, "alpha").await;
    create(&api, "beta").await;
    api.world.attempt().await;
    let list = async |query: &str| {
        let (status, body) =
            api.call_as(&api.admin, Method::GET, &format!("/relays{query}"), None).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        let relays = body["data"].as_array().unwrap().clone();
        relays.iter().map(|r| r["subdomain"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(list("").await, ["beta", "alpha"]);
    assert_eq!(list("?limit=1").await, ["beta"]);
    assert_eq!(list("?sync=synced").await, ["alpha"]);
    assert_eq!(list("?sync=pending&status=active").await, ["beta"]);
    assert_eq!(list("?q=alph").await, ["alpha"]);
    let (_, all) = api.call_as(&api.admin, Method::GET, "/relays", None).await;
    let after = all["data"][0]["id"].as_str().unwrap();
    assert_eq!(list(&format!("?after={after}")).await, ["alpha"]);
    let refused = api.call_as(&api.admin, Method::GET, "/relays?sync=perhaps", None).await;
    assert_eq!(refused.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(api.call(Method::GET, "/relays", None).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_tenant_reaches_nothing_of_another() {
    let api = TestApi::new().await;
    let relay = create(&api, "alpha").await;
    let id = relay["id"].as_str().unwrap();
    let stranger = Keys::generate();
    let tenant = api.tenant.public_key().to_hex();
    for (method, path) in [
        (Method::GET, format!("/relays/{id}")),
        (Method::PUT, format!("/relays/{id}")),
        (Method::POST, format!("/relays/{id}/deactivate")),
        (Method::POST, format!("/relays/{id}/reactivate")),
        (Method::POST, format!("/relays/{id}/sync")),
        (Method::GET, format!("/relays/{id}/members")),
        (Method::GET, format!("/relays/{id}/activity")),
        (Method::GET, format!("/tenants/{tenant}/relays")),
    ] {
        let body = (method == Method::PUT).then(|| json!({ "info_name": "mine" }));
        let (status, answer) = api.call_as(&stranger, method.clone(), &path, body).await;
        assert_eq!(
            (status, &answer["error"]),
            (StatusCode::NOT_FOUND, &json!("not found")),
            "{method} {path}"
        );
    }
    let created = json!({ "subdomain": "beta", "tenant_pubkey": tenant });
    let (status, _) = api.call_as(&stranger, Method::POST, "/relays", Some(created.clone())).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let (status, body) = api.call_as(&api.admin, Method::POST, "/relays", Some(created)).await;
    assert_eq!((status, &body["data"]["tenant_pubkey"]), (StatusCode::CREATED, &json!(tenant)));
}

#[tokio::test]
async fn what_an_operator_switched_off_its_tenant_cannot_switch_on() {
    let api = TestApi::new().await;
    let relay = create(&api, "alpha").await;
    let id: relay::RelayId = relay["id"].as_str().unwrap().parse().unwrap();
    relay::set_status(&api.world.db, &id, Status::Delinquent, &by()).await.unwrap();
    for verb in ["reactivate", "deactivate"] {
        let refused = api.call(Method::POST, &format!("/relays/{id}/{verb}"), None).await;
        assert_eq!(refused.0, StatusCode::CONFLICT);
    }
    let (status, _) =
        api.call_as(&api.admin, Method::POST, &format!("/relays/{id}/reactivate"), None).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn bad_input_gets_its_own_status_and_loses_nothing() {
    let api = TestApi::new().await;
    let relay = create(&api, "alpha").await;
    let path = format!("/relays/{}", relay["id"].as_str().unwrap());
    let authorization = |method: &str, path: &str| {
        header(&strict(&api.tenant, &format!("{}{path}", api.base_url), method, 0))
    };
    let send = async |method: Method, path: &str, body: &[u8]| {
        let authorization = authorization(method.as_str(), path);
        answer(api.send(method, path, Some(&authorization), Some(body.to_vec())).await).await
    };
    let bad = send(Method::POST, "/relays", b"{nonsense").await;
    assert_eq!(bad.0, StatusCode::BAD_REQUEST);
    assert_eq!(send(Method::PUT, &path, b"[1, 2]").await.0, StatusCode::BAD_REQUEST);
    assert_eq!(send(Method::POST, "/relays", b"\xff").await.0, StatusCode::BAD_REQUEST);
    let long = json!({ "subdomain": "b", "info_description": "x".repeat(70_000) }).to_string();
    assert_eq!(
        send(Method::POST, "/relays", long.as_bytes()).await.0,
        StatusCode::PAYLOAD_TOO_LARGE
    );
    let taken = send(Method::POST, "/relays", br#"{"subdomain": "alpha"}"#).await;
    assert_eq!(
        (taken.0, error(&taken)),
        (StatusCode::CONFLICT, "alpha.zooid.test is taken by another relay")
    );

    let wrong = json!({ "subdomain": "No", "zooid_domain": "elsewhere.test", "plan_id": "p".repeat(65),
        "info_name": "n".repeat(201), "info_icon": "ftp://x", "info_description": "d".repeat(10_001),
        "custom_domain": "x" });
    let refused = send(Method::POST, "/relays", wrong.to_string().as_bytes()).await;
    assert_eq!(refused.0, StatusCode::UNPROCESSABLE_ENTITY);
    for field in [
        "subdomain",
        "zooid_domain",
        "plan_id",
        "info_name",
        "info_icon",
        "info_description",
        "custom_domain",
    ] {
        assert!(error(&refused).contains(field), "{field} is named: {}", error(&refused));
    }
    let refused = send(Method::PUT, &path, br#"{"subdomain": 7, "push_enabled": "on"}"#).await;
    assert_eq!(
        (refused.0, error(&refused)),
        (
            StatusCode::UNPROCESSABLE_ENTITY,
            "subdomain must be a string; push_enabled must be 0, 1, false or true"
        )
    );
    let missing = send(Method::POST, "/relays", b"{}").await;
    assert_eq!(
        (missing.0, error(&missing)),
        (StatusCode::UNPROCESSABLE_ENTITY, "subdomain is required")
    );
    let nul = send(Method::PUT, &path, br#"{"info_name": "a\u0000b"}"#).await;
    assert_eq!(nul.0, StatusCode::UNPROCESSABLE_ENTITY);

    let strange = api.call_as(&api.admin, Method::GET, "/relays?limit=many", None).await;
    assert_eq!(strange.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(error(&strange).starts_with("query cannot be read"), "{}", error(&strange));
    for nowhere in ["/relays/nonsense", "/relays/%ff", "/tenants/%ff/relays"] {
        let missing = api.call(Method::GET, nowhere, None).await;
        assert_eq!((missing.0, error(&missing)), (StatusCode::NOT_FOUND, "not found"), "{nowhere}");
    }
    assert_eq!(api.call(Method::GET, "/nowhere", None).await.0, StatusCode::NOT_FOUND);
    assert_eq!(api.call(Method::PATCH, &path, None).await.0, StatusCode::METHOD_NOT_ALLOWED);
    let (_, after) = api.call(Method::GET, &path, None).await;
    assert_eq!(after["data"], relay);
}

#[tokio::test]
async fn a_relay_does_not_move_to_another_zooid_instance() {
    let api = TestApi::new().await;
    let relay = create(&api, "alpha").await;
    let path = format!("/relays/{}", relay["id"].as_str().unwrap());
    let far = Some(json!({ "zooid_domain": "far.test" }));
    let refused = api.call(Method::PUT, &path, far.clone()).await;
    assert_eq!(refused.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(error(&refused).contains("another zooid instance serves it"), "{refused:?}");
    // Not an admin either; a domain of the same instance is allowed, and a new relay may be anywhere.
    let refused = api.call_as(&api.admin, Method::PUT, &path, far).await;
    assert_eq!(refused.0, StatusCode::UNPROCESSABLE_ENTITY);
    let near = Some(json!({ "zooid_domain": "other.test" }));
    assert_eq!(api.call(Method::PUT, &path, near).await.0, StatusCode::OK);
    let new = Some(json!({ "subdomain": "beta", "zooid_domain": "far.test" }));
    assert_eq!(api.call(Method::POST, "/relays", new).await.0, StatusCode::CREATED);
}

#[tokio::test]
async fn a_custom_domain_below_a_served_domain_is_refused() {
    let api = TestApi::new().await;
    for served in ["zooid.test", "beta.zooid.test", "a.b.other.test"] {
        let sent = Some(json!({ "subdomain": "alpha", "custom_domain": served }));
        let refused = api.call(Method::POST, "/relays", sent).await;
        assert_eq!(refused.0, StatusCode::UNPROCESSABLE_ENTITY, "{served}");
        assert!(error(&refused).contains("custom_domain must not be"), "{refused:?}");
    }
}

#[tokio::test]
async fn a_tenant_key_that_no_secret_key_has_is_refused() {
    let api = TestApi::new().await;
    for point in ["f".repeat(64), "0".repeat(64), format!("{}5", "0".repeat(63))] {
        let sent = Some(json!({ "subdomain": "alpha", "tenant_pubkey": point }));
        let refused = api.call_as(&api.admin, Method::POST, "/relays", sent).await;
        assert_eq!(refused.0, StatusCode::UNPROCESSABLE_ENTITY, "{point}");
        assert!(error(&refused).contains("tenant_pubkey"), "{refused:?}");
    }
}

#[tokio::test]
async fn a_delinquent_relay_is_decided_within_the_transaction() {
    let api = TestApi::new().await;
    let id: RelayId = create(&api, "alpha").await["id"].as_str().unwrap().parse().unwrap();
    let db = &api.world.db;
    // The operator's mark is not committed yet when the tenant asks.
    let mut operator = tender_jobs::database::begin(db).await.unwrap();
    sqlx::query(
        "update relay set status = 'delinquent', generation = generation + 1 where id = $1",
    )
    .bind(id.as_str())
    .execute(&mut *operator)
    .await
    .unwrap();
    let tenant = by();
    let asks = relay::set_own_status(db, &id, Status::Inactive, &tenant);
    let marks = async {
        eventually("the tenant waits for the row", async || {
            let waiting: i64 = sqlx::query_scalar(
                "select count(*) from pg_stat_activity
                 where datname = current_database() and wait_event_type = 'Lock'",
            )
            .fetch_one(db)
            .await
            .unwrap();
            waiting == 1
        })
        .await;
        operator.commit().await.unwrap();
    };
    let (asked, ()) = tokio::join!(asks, marks);
    assert!(matches!(asked, Err(MutationError::Delinquent)), "{asked:?}");
    let found = relay::find(db, &id).await.unwrap().unwrap();
    assert_eq!(found.status, Status::Delinquent);
}

#[tokio::test]
async fn two_creations_at_the_limit_of_a_tenant_make_one_relay() {
    let few = |config: &mut tender::config::ApiConfig| config.relays_per_tenant = 3;
    let api = TestApi::with(settings(), few).await;
    for name in ["one", "two"] {
        create(&api, name).await;
    }
    let asked = (0..8).map(|number| {
        let sent = json!({ "subdomain": format!("late-{number}") });
        api.call(Method::POST, "/relays", Some(sent))
    });
    let answers = futures_util::future::join_all(asked).await;
    let created = answers.iter().filter(|answer| answer.0 == StatusCode::CREATED).count();
    assert_eq!(created, 1, "{answers:?}");
    let refused = answers.iter().find(|answer| answer.0 != StatusCode::CREATED).unwrap();
    assert_eq!(refused.0, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(error(refused).contains("3 relays already"), "{refused:?}");
    // An admin may exceed it for the tenant; another tenant has its own limit.
    let tenant = api.tenant.public_key().to_hex();
    let sent = json!({ "subdomain": "by-admin", "tenant_pubkey": tenant });
    let (status, _) = api.call_as(&api.admin, Method::POST, "/relays", Some(sent)).await;
    assert_eq!(status, StatusCode::CREATED);
    let sent = Some(json!({ "subdomain": "other" }));
    let (status, _) = api.call_as(&Keys::generate(), Method::POST, "/relays", sent).await;
    assert_eq!(status, StatusCode::CREATED);
}

#[tokio::test]
async fn a_tenant_requests_a_sync_at_most_once_a_minute() {
    let api = TestApi::new().await;
    let relay = create(&api, "alpha").await;
    let path = format!("/relays/{}/sync", relay["id"].as_str().unwrap());
    // An admin's request does not count against the tenant.
    let admin = async || api.call_as(&api.admin, Method::POST, &path, None).await.0;
    assert_eq!(admin().await, StatusCode::ACCEPTED);
    assert_eq!(api.call(Method::POST, &path, None).await.0, StatusCode::ACCEPTED);
    let event = strict(&api.tenant, &format!("{}{path}", api.base_url), "POST", 0);
    let refused = api.send(Method::POST, &path, Some(&header(&event)), None).await;
    assert_eq!(refused.status(), StatusCode::TOO_MANY_REQUESTS);
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(admin().await, StatusCode::ACCEPTED);
    let past = "update activity set created_at = created_at - interval '61 s'";
    sqlx::query(past).execute(&api.world.db).await.unwrap();
    assert_eq!(api.call(Method::POST, &path, None).await.0, StatusCode::ACCEPTED);
}

#[tokio::test]
async fn the_relays_of_a_tenant_come_in_pages_or_all_at_once() {
    let api = TestApi::new().await;
    let tenant = api.tenant.public_key().to_hex();
    sqlx::query(
        "insert into relay (id, tenant_pubkey, subdomain, zooid_domain, schema, policy_public_read,
             policy_public_write, policy_public_join, policy_strip_signatures, groups_enabled,
             management_enabled, members_can_invite, blossom_enabled, livekit_enabled, push_enabled)
         select gen_random_uuid(), $1, 'r' || n, 'zooid.test', 's' || n, true, true, true, true, true,
             true, true, true, true, true
         from generate_series(1, 1203) n",
    )
    .bind(&tenant)
    .execute(&api.world.db)
    .await
    .unwrap();
    let path = format!("/tenants/{tenant}/relays");
    let (_, all) = api.call(Method::GET, &path, None).await;
    assert_eq!(all["data"].as_array().unwrap().len(), 1203, "complete without paging");
    assert_eq!(all["next"], Value::Null);
    let (mut paged, mut after) = (Vec::new(), String::new());
    for _ in 0..10 {
        let (status, page) = api.call(Method::GET, &format!("{path}?limit=401{after}"), None).await;
        assert_eq!(status, StatusCode::OK);
        paged.extend(page["data"].as_array().unwrap().clone());
        let Some(next) = page["next"].as_str() else { break };
        after = format!("&after={next}");
    }
    assert_eq!(json!(paged), all["data"], "the pages are the whole, each relay once");
    let gone = format!("{path}?after=00000000-0000-0000-0000-000000000000");
    assert_eq!(api.call(Method::GET, &gone, None).await.0, StatusCode::UNPROCESSABLE_ENTITY);
}
