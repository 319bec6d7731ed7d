//! The search over everything, and the tables as files.

use reqwest::{StatusCode, header};
use serde_json::Value;
use tender_jobs::console::operator;

use super::Site;
use crate::support::grasp_rows;

async fn body(site: &Site, cookie: &str, path: &str) -> String {
    let response = site.get(path, cookie).await;
    assert_eq!(response.status(), StatusCode::OK, "{path}");
    response.text().await.unwrap()
}

#[tokio::test]
async fn everything_with_a_name_or_an_id_is_found_and_linked() {
    let site = Site::new().await;
    let db = &site.api.world.db;
    grasp_rows::fill(db).await;
    let id = "c0ffee".repeat(10) + "abcd";
    sqlx::query(
        "insert into event (id, pubkey, created_at, kind, sig)
         values (decode($1, 'hex'), decode(repeat('ab', 32), 'hex'), 1, 30617, decode(repeat('00', 64), 'hex'))",
    )
    .bind(&id)
    .execute(db)
    .await
    .unwrap();
    let (cookie, _) = site.log_in(&site.viewer).await;
    let (job, relay) = (site.job_id.as_str(), site.relay_id.as_str());
    let upstream = format!("href=\"/dashboard/upstreams/{}\"", site.upstream_id);
    for (typed, link) in [
        ("alpha", format!("href=\"/dashboard/relays/{relay}\"")),
        (relay, format!("href=\"/dashboard/relays/{relay}\"")),
        ("ws%3A%2F%2Falpha.test%2F", upstream.clone()),
        ("alpha.t", upstream),
        ("a.example.com", "href=\"/dashboard/followed/".to_owned()),
        ("Alpha+tools", "href=\"/dashboard/repository?address=30617".to_owned()),
        (job, format!("href=\"/dashboard/jobs/{job}\"")),
        (&job.to_lowercase()[..20], format!("href=\"/dashboard/jobs/{job}\"")),
        (&id, format!("<code>{id}</code>")),
        ("c0ffeec0", format!("<code>{id}</code>")),
    ] {
        let page = body(&site, &cookie, &format!("/search?q={typed}")).await;
        assert!(page.contains(&link), "{typed}: {page}");
    }
    for (query, words) in [
        ("?q=no-such-thing", "Nothing has this name or id."),
        ("?q=%00", "Nothing has this name or id."),
        ("?q=%3Cscript%3E", "&lt;script&gt;"),
        ("", "Type a host"),
    ] {
        let page = body(&site, &cookie, &format!("/search{query}")).await;
        assert!(page.contains(words) && !page.contains("<script>"), "{query}: {page}");
    }
    let outside = site.get("/search?q=alpha", "").await;
    assert_eq!(outside.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn more_than_ten_of_a_kind_are_counted_and_lead_to_their_list() {
    let site = Site::new().await;
    for number in 0..11 {
        site.api.world.relay(&format!("many-{number}")).await;
    }
    let (cookie, _) = site.log_in(&site.viewer).await;
    let page = body(&site, &cookie, "/search?q=many").await;
    assert_eq!(page.matches(".zooid.test</a>").count(), 10);
    assert!(page.contains("href=\"/dashboard/relays?q=many\""), "{page}");
}

#[tokio::test]
async fn every_table_is_a_file_with_the_filters_of_its_page() {
    let site = Site::new().await;
    let db = &site.api.world.db;
    grasp_rows::fill(db).await;
    operator::record(db, "key =cmd|' /C calc'!A0", "probe", "=1+1", "+49 \"x\", y").await.unwrap();
    let (cookie, _) = site.log_in(&site.viewer).await;
    for table in [
        "relays",
        "upstreams",
        "repositories",
        "followed",
        "parked",
        "jobs",
        "actions",
        "queues",
        "workers",
    ] {
        let page = if table == "queues" { "" } else { "?" };
        let json = body(&site, &cookie, &format!("/export/{table}.json{page}")).await;
        let json: Value = serde_json::from_str(&json).unwrap();
        let rows = json["rows"].as_array().unwrap();
        assert!(!rows.is_empty() && json["next"].is_null(), "{table}: {json}");
        let response = site.get(&format!("/export/{table}.csv"), &cookie).await;
        let named = response.headers()[header::CONTENT_DISPOSITION].to_str().unwrap().to_owned();
        assert_eq!(named, format!("attachment; filename=\"{table}.csv\""));
        let text = response.text().await.unwrap();
        let columns: Vec<&str> = text.lines().next().unwrap().split(',').collect();
        for column in columns {
            assert!(rows[0].get(column).is_some(), "{table} has no field {column}: {}", rows[0]);
        }
        let mut csv = csv::Reader::from_reader(text.as_bytes());
        assert_eq!(csv.records().flatten().count(), rows.len(), "{table}");
    }
    let csv = body(&site, &cookie, "/export/actions.csv?action=probe").await;
    assert!(csv.contains(",'=1+1,") && csv.contains("\"'+49 \"\"x\"\", y\""), "{csv}");
    assert_eq!(csv.lines().count(), 2, "the filter holds: {csv}");
    let none = body(&site, &cookie, "/export/relays.csv?q=nothing-like-it").await;
    assert_eq!(none.lines().count(), 1, "the columns are named: {none}");
    for (path, cookie, status) in [
        ("/export/secrets.csv", cookie.as_str(), StatusCode::NOT_FOUND),
        ("/export/relays.xml", &cookie, StatusCode::NOT_FOUND),
        ("/export/relays.csv", "", StatusCode::UNAUTHORIZED),
    ] {
        assert_eq!(site.get(path, cookie).await.status(), status, "{path}");
    }
}

#[tokio::test]
async fn a_file_goes_on_beyond_one_page_of_rows() {
    let site = Site::new().await;
    sqlx::query(
        "insert into operator_action (who, action, target, result)
         select 'test', 'bulk', 'row-' || n, 'done' from generate_series(1, 2500) n",
    )
    .execute(&site.api.world.db)
    .await
    .unwrap();
    let (cookie, _) = site.log_in(&site.viewer).await;
    let json = body(&site, &cookie, "/export/actions.json?action=bulk").await;
    let json: Value = serde_json::from_str(&json).unwrap();
    let rows = json["rows"].as_array().unwrap();
    assert_eq!((rows.len(), &rows[2499]["target"]), (2500, &"row-1".into()));
    assert_eq!(body(&site, &cookie, "/export/actions.csv?action=bulk").await.lines().count(), 2501);
}
