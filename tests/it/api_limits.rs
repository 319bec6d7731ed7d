//! Who may call how often, whom a proxy stands for, and who may read the statistics.

use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::support::api::{TestApi, answer};

#[tokio::test]
async fn a_flood_of_wrong_tokens_leaves_a_valid_key_of_the_same_address_alone() {
    let world = TestApi::with_rate(25).await;
    let secret = "a secret of the tests".into();
    let new = tender::tokens::create(&world.world.db, &secret, "first").await.unwrap();
    let valid = format!("Bearer {}", new.token);
    let wrong = format!("Bearer rlk_{}", "x".repeat(43));
    let call = async |authorization: &str| {
        let path = "/api/v1/relays";
        world.send(Method::GET, path, Some(authorization), None).await.status()
    };
    let (mut refused, mut limited) = (0, 0);
    for _ in 0..50 {
        for status in futures_util::future::join_all((0..10).map(|_| call(&wrong))).await {
            match status {
                StatusCode::UNAUTHORIZED => refused += 1,
                StatusCode::TOO_MANY_REQUESTS => limited += 1,
                other => panic!("{other}"),
            }
        }
        assert_eq!(call(&valid).await, StatusCode::OK, "the key has its whole rate");
    }
    assert!(refused >= 50 && limited >= 50, "{refused} {limited}");
}

#[tokio::test]
async fn a_trusted_proxy_names_the_client_and_no_other_does() {
    let trusted = tender::config::Proxies::parse("127.0.0.1/32").unwrap();
    let tune = |config: &mut tender::config::ApiConfig| {
        config.rate_limit = 1;
        config.proxies = trusted;
    };
    let world = TestApi::with(crate::support::settings(), tune).await;
    let url = format!("{}/api/v1/relays", world.base_url);
    let call = async |http: &reqwest::Client, forwarded: &str| {
        let request = http.get(&url).header("x-forwarded-for", forwarded);
        request.send().await.unwrap().status()
    };
    let used_up = async |http: &reqwest::Client, forwarded: &str| {
        for _ in 0..20 {
            if call(http, forwarded).await == StatusCode::TOO_MANY_REQUESTS {
                return true;
            }
        }
        false
    };
    let (proxy, stranger) = (&world.http, &TestApi::stranger());
    assert!(used_up(proxy, "198.51.100.1").await);
    assert_eq!(call(proxy, "198.51.100.2").await, StatusCode::UNAUTHORIZED, "another client");
    assert!(used_up(proxy, "2001:db8:1:1::1").await);
    assert!(used_up(proxy, "2001:db8:1:1::2").await);
    assert_eq!(call(proxy, "2001:db8:1:2::1").await, StatusCode::UNAUTHORIZED, "another network");
    // What a client itself has put into the header stands to the left of its address.
    let mut spoofed = 0;
    for n in 0..20 {
        let forwarded = format!("203.0.113.{n}, 198.51.100.3");
        spoofed += u32::from(call(proxy, &forwarded).await == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(spoofed > 0, "the client counts, whatever it claims to be");
    let mut untrusted = 0;
    for n in 0..20 {
        let forwarded = format!("203.0.113.{n}");
        untrusted += u32::from(call(stranger, &forwarded).await == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(untrusted > 0, "the header of a peer that is no proxy has no effect");
}

#[tokio::test]
async fn statistics_need_a_key_unless_they_are_open() {
    let world = TestApi::new().await;
    let secret = "a secret of the tests".into();
    let new = tender::tokens::create(&world.world.db, &secret, "first").await.unwrap();
    let get = async |path: &str, authorization: Option<&str>| {
        answer(world.send(Method::GET, path, authorization, None).await).await
    };
    assert_eq!(get("/up", None).await, (StatusCode::OK, json!({"data": "up"})));
    let refused = (StatusCode::UNAUTHORIZED, json!({"error": "Unauthorized"}));
    for path in ["metrics", "connections", "events", "system"] {
        assert_eq!(get(&format!("/stats/api/{path}"), None).await, refused);
    }
    let valid = format!("Bearer {}", new.token);
    let (status, all) = get("/stats/api/metrics", Some(&valid)).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(all["connections"], json!({"total": 0, "details": [], "total_subscriptions": 0}));
    for (part, fields) in [
        ("events", ["total", "today", "per_minute", "by_kind", "last_7_days"].as_slice()),
        ("system", &["memory", "cpu", "process", "database"]),
    ] {
        for field in fields {
            assert!(!all[part][field].is_null(), "{part}.{field}: {all}");
        }
        let (_, alone) = get(&format!("/stats/api/{part}"), Some(&valid)).await;
        assert_eq!(alone.as_object().unwrap().len(), all[part].as_object().unwrap().len());
    }
    assert!(all["collected_at"].is_string() && all["system"]["memory"]["rss_bytes"].is_u64());

    let (open, _stop) = world.beside(|config| config.stats_auth = false).await;
    let no_redirects = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none());
    let http = no_redirects.build().unwrap();
    let answered = http.get(format!("{open}/stats/api/metrics")).send().await.unwrap();
    assert_eq!(answered.status(), StatusCode::OK);
    let page = http.get(format!("{open}/stats")).send().await.unwrap();
    assert_eq!(page.headers()["location"], "/dashboard/events");
}
