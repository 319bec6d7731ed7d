//! The dashboard's pages of the GRASP wing.

use reqwest::{Client, StatusCode, header, redirect};
use secrecy::SecretString;

use crate::support::{
    self,
    api::TestApi,
    grasp_rows::{self, ALPHA},
};

const PASSWORD: &str = "correct horse";
const DEAD: &str = "00000000-0000-0000-0000-00000000000d";
const B: &str = "00000000-0000-0000-0000-00000000000b";

/// The dashboard of a ledger with the rows of [`grasp_rows`], and a session.
struct Site {
    api: TestApi,
    http: Client,
    cookie: String,
}

impl Site {
    async fn new() -> Self {
        let api = TestApi::with(support::settings(), |config| {
            config.dashboard_password = Some(SecretString::from(PASSWORD));
        })
        .await;
        grasp_rows::fill(&api.world.db).await;
        let http = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
        let login = http.post(format!("{}/dashboard/login/password", api.base_url));
        let login = login.form(&[("password", PASSWORD)]).send().await.unwrap();
        let cookie = login.headers()[header::SET_COOKIE].to_str().unwrap();
        let cookie = cookie.split(';').next().unwrap().to_owned();
        Self { api, http, cookie }
    }

    async fn page(&self, path: &str) -> (StatusCode, String) {
        let request = self.http.get(format!("{}/dashboard{path}", self.api.base_url));
        let response = request.header(header::COOKIE, &self.cookie).send().await.unwrap();
        (response.status(), response.text().await.unwrap())
    }

    async fn shows(&self, path: &str, words: &[&str]) -> String {
        let (status, page) = self.page(path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {page}");
        for word in words {
            assert!(page.contains(word), "{path} shows no {word:?}: {page}");
        }
        page
    }
}

fn repository(address: &str) -> String {
    let query = serde_urlencoded::to_string([("address", address)]).unwrap();
    format!("/repository?{query}")
}

#[tokio::test]
async fn repositories_are_searched_and_show_their_coverage() {
    let site = Site::new().await;
    site.shows("/repositories", &["Alpha tools", "beta: with a colon", "4 of 8", "3 of 6"]).await;
    let page = site.shows("/repositories?q=alpha", &["Alpha tools"]).await;
    assert!(!page.contains("beta:"), "{page}");
    site.shows("/repositories?q=nothing", &["No repository matches"]).await;
    site.shows("/repositories?missing=yes", &["Alpha tools", "beta"]).await;
    let key = format!("q={}", "b".repeat(64));
    let page = site.shows(&format!("/repositories?{key}"), &["beta"]).await;
    assert!(!page.contains("Alpha"), "{page}");
}

#[tokio::test]
async fn a_repository_shows_its_relays_roots_and_what_happened() {
    let site = Site::new().await;
    let words = [
        "wss://b.example.com",
        "catching up",
        "2 attempts failed: ",
        "CLOSED: error: try later",
        "It fails &lt;b&gt;often&lt;/b&gt;",
        "accepted an event of kind 1621 from wss://a.example.com (live; rule names-service)",
        "1 state delivered from wss://a.example.com",
    ];
    site.shows(&repository(ALPHA), &words).await;
    let beta = format!("30617:{}:beta: with a colon", "b".repeat(64));
    site.shows(&repository(&beta), &["2 more that exceed the limit", "no answer within 5 s"]).await;
    assert_eq!(site.page(&repository("30617:x:y")).await.0, StatusCode::NOT_FOUND);
    assert_eq!(site.page("/repository").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_repository_of_two_services_is_shown_for_each() {
    let site = Site::new().await;
    for change in [
        "insert into upstream (id, url, direction, live, admission)
         values ('00000000-0000-0000-0000-000000000002', 'wss://two.example.com', 'both', true, true)",
        "insert into grasp_service (upstream_id, names, policy)
         values ('00000000-0000-0000-0000-000000000002', '{two.example.com}', '{}')",
        "insert into grasp_repo (upstream_id, address, pubkey, identifier, announcement_id, announced_at)
         select '00000000-0000-0000-0000-000000000002', address, pubkey, identifier, announcement_id, announced_at
         from grasp_repo where identifier = 'alpha'",
    ] {
        sqlx::query(change).execute(&site.api.world.db).await.unwrap();
    }
    let services = ["wss://git.example.com", "wss://two.example.com"];
    let page = site.shows(&repository(ALPHA), &services).await;
    for section in ["about", "relays", "roots", "latest"] {
        let id = format!("id=\"{section}\"");
        assert_eq!(page.matches(&id).count(), 1, "{id} is there once");
    }
}

#[tokio::test]
async fn followed_relays_show_state_coverage_and_health() {
    let site = Site::new().await;
    let words =
        ["in step", "fault: DNS", "rate-limited", "no room", "8 of 8", "no answer within 5 s"];
    site.shows("/followed", &words).await;
    let page = site.shows("/followed?state=dead", &["wss://dead.example.com"]).await;
    assert!(!page.contains("wss://a.example.com"), "{page}");
    sqlx::query("update grasp_relay set subscriptions_closed = 2, closed_reason = 'too <many>'")
        .execute(&site.api.world.db)
        .await
        .unwrap();
    site.shows("/followed", &[", 2 closed"]).await;
    let words = ["2 closed by the relay: \u{201c}too &lt;many&gt;\u{201d}"];
    site.shows(&format!("/followed/{B}"), &words).await;
    site.shows(&format!("/followed/{DEAD}"), &["dead since", "30", "no answer within 5 s"]).await;
    let words = ["in flight", "Verify now", "the second holds more events", "failed", "Batches"];
    site.shows(&format!("/followed/{B}"), &words).await;
    for path in ["/followed/x", "/followed/00000000-0000-0000-0000-0000000000ff"] {
        assert_eq!(site.page(path).await.0, StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn parked_events_are_shown_by_reason() {
    let site = Site::new().await;
    let words =
        ["orphan", "names-another-service", "it refers to nothing", "the event ffffffff…ffff"];
    site.shows("/parked", &words).await;
    let page = site.shows("/parked?reason=names-another-service", &["d3d3d3d3…d3d3"]).await;
    assert!(!page.contains("d1d1d1d1…"), "{page}");
    site.shows("/parked?after=nonsense", &["orphan"]).await;
}

#[tokio::test]
async fn needs_attention_groups_followed_relays_by_cause() {
    let site = Site::new().await;
    for change in [
        "update grasp_relay set status_at = now() - interval '2 hours' where status = 'catching_up'",
        "update upstream set authors_only_at = now(), authors_only_reason = 'restricted'
         where url = 'wss://git.example.com'",
        "update grasp_service set relays_over_limit = 3",
        "delete from grasp_process",
    ] {
        sqlx::query(change).execute(&site.api.world.db).await.unwrap();
    }
    let words = [
        "1 followed relay is dead",
        "permanent fault: DNS",
        "limiting our rate",
        "no process has room",
        "catching up for more than an hour",
        "refuses events that others signed",
        "3 more are named and not followed",
        "No process follows relays",
        "/dashboard/followed?state=dead",
    ];
    site.shows("", &words).await;
}
