//! The dashboard from outside: nothing without a session, nothing done without an operator's form.

use std::sync::LazyLock;

use argon2::{Algorithm, Argon2, Params, Version, password_hash::PasswordHasher};
use nostr::{event::Kind, key::Keys};
use reqwest::{Client, Response, StatusCode, header, redirect};
use secrecy::SecretString;
use tender_jobs::{console::operator, provision::relay::SyncState, queue};

use crate::support::{
    self,
    api::{TestApi, event, header as authorization, strict, tag},
    change,
};

mod attention;
mod attention_later;
mod audit;
mod charts;
mod entrance;
mod job_bounds;
mod job_errors;
mod job_pages;
mod job_steering;
mod markup;
mod names;
mod operating;
mod outage;
mod queue_pages;
mod search;

const PASSWORD: &str = "correct horse";

/// A hash of [`PASSWORD`] that takes no time, so that a busy machine is within the throttle's 6 s.
static HASH: LazyLock<String> = LazyLock::new(|| {
    let cheap = Params::new(8, 1, 1, None).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, cheap);
    argon2.hash_password(PASSWORD.as_bytes()).unwrap().to_string()
});

struct Site {
    api: TestApi,
    http: Client,
    viewer: Keys,
    relay_id: String,
    job_id: String,
    upstream_id: String,
}

impl Site {
    async fn new() -> Self {
        let viewer = Keys::generate();
        let key = viewer.public_key();
        let api = TestApi::with(support::settings(), |config| {
            config.viewers = vec![key];
            config.dashboard_password = Some(SecretString::from(HASH.as_str()));
        })
        .await;
        Self { viewer, ..Self::of(api).await }
    }

    /// A site on this API, with a relay whose job waits and an upstream.
    async fn of(api: TestApi) -> Self {
        let relay = api.world.relay("alpha").await;
        let job_id = api.world.job().await.summary.id;
        let upstream = api.world.mirror().upstream("ws://alpha.test", serde_json::json!({})).await;
        let http = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
        Self {
            api,
            http,
            viewer: Keys::generate(),
            relay_id: relay.id.to_string(),
            job_id,
            upstream_id: upstream.id.to_string(),
        }
    }

    fn url(&self, path: &str) -> String {
        format!("{}/dashboard{path}", self.api.base_url)
    }

    async fn get(&self, path: &str, cookie: &str) -> Response {
        self.http.get(self.url(path)).header(header::COOKIE, cookie).send().await.unwrap()
    }

    async fn post(&self, path: &str, cookie: &str, form: &[(&str, &str)]) -> Response {
        let request = self.http.post(self.url(path)).header(header::COOKIE, cookie);
        request.form(form).send().await.unwrap()
    }

    async fn by_nostr(&self, event: &nostr::event::Event) -> Response {
        let request = self.http.post(self.url("/login/nostr"));
        request.header(header::AUTHORIZATION, authorization(event)).send().await.unwrap()
    }

    /// A session of this key: its cookie and its forms' token.
    async fn log_in(&self, keys: &Keys) -> (String, String) {
        let nonce = uuid::Uuid::new_v4().to_string();
        let tags =
            vec![tag("u", &self.url("/login/nostr")), tag("method", "POST"), tag("nonce", &nonce)];
        let response = self.by_nostr(&event(keys, Kind::HttpAuth, tags, 0)).await;
        assert_eq!(response.status(), StatusCode::OK);
        let cookie = cookie_of(&response);
        let page = self.get("", &cookie).await.text().await.unwrap();
        (cookie, token_in(&page))
    }

    /// Every form that does something, with what it needs beside the session's token.
    fn forms(&self) -> Vec<String> {
        let (relay, job) = (&self.relay_id, &self.job_id);
        vec![
            format!("/relays/{relay}/sync"),
            format!("/relays/{relay}/activate"),
            format!("/relays/{relay}/deactivate"),
            format!("/relays/{relay}/delinquent"),
            "/queues/sync-relay/pause".to_owned(),
            "/queues/sync-relay/resume".to_owned(),
            "/queues/sync-relay/scale".to_owned(),
            "/queues/sync-relay/unscale".to_owned(),
            "/schedule/prune/run".to_owned(),
            format!("/processes/{}/drain", uuid::Uuid::nil()),
            format!("/processes/{}/undrain", uuid::Uuid::nil()),
            format!("/jobs/{job}/retry"),
            format!("/jobs/{job}/cancel"),
            format!("/jobs/{job}/delete"),
            "/jobs/steer".to_owned(),
            "/instances/probe".to_owned(),
            "/reconcile".to_owned(),
            "/attention/snooze".to_owned(),
            "/attention/wake".to_owned(),
            "/attention/sync".to_owned(),
            format!("/upstreams/{}/realtime", self.upstream_id),
            format!("/upstreams/{}/disable", self.upstream_id),
            format!("/upstreams/{}/enable", self.upstream_id),
            format!("/upstreams/{}/reset", self.upstream_id),
            "/logout".to_owned(),
        ]
    }

    fn pages(&self) -> Vec<String> {
        let (relay, job) = (&self.relay_id, &self.job_id);
        let mut pages: Vec<String> = [
            "",
            "/relays",
            "/queues",
            "/jobs",
            "/actions",
            "/search?q=alpha",
            "/export/relays.csv",
            "/export/relays.json",
            "/workers",
            "/workers?queue=sync-relay",
            "/jobs?queue=sync-relay&state=waiting",
            "/live/fleet",
            "/live/relays",
            "/live/queues",
            "/live/workers",
            "/processes",
            "/live/processes",
            "/schedule",
            "/live/schedule",
            "/live/jobs",
            "/upstreams",
            "/live/upstreams",
            "/events",
            "/live/events",
            "/assets/app.js",
            "/nothing",
        ]
        .map(str::to_owned)
        .to_vec();
        pages.extend([
            format!("/relays/{relay}"),
            format!("/live/relays/{relay}"),
            format!("/jobs/{job}"),
            format!("/live/jobs/{job}"),
            format!("/upstreams/{}", self.upstream_id),
            format!("/live/upstreams/{}", self.upstream_id),
        ]);
        pages
    }
}

fn cookie_of(response: &Response) -> String {
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
    cookie.split(';').next().unwrap().to_owned()
}

fn token_in(page: &str) -> String {
    let (_, rest) = page.split_once(r#"name="form_token" value=""#).expect("a form is there");
    rest.split('"').next().unwrap().to_owned()
}

#[tokio::test]
async fn nothing_is_shown_or_done_without_a_session() {
    let site = Site::new().await;
    let foreign = "tender=c29tZWJvZHkgZWxzZQ";
    for cookie in ["", foreign] {
        for path in site.pages() {
            let response = site.get(&path, cookie).await;
            let status = response.status();
            assert!(matches!(status.as_u16(), 401 | 404), "{path}: {status}");
            assert!(!response.text().await.unwrap().contains("alpha"), "{path}");
        }
        for path in site.forms() {
            let form = [("form_token", "x"), ("confirmed", "yes")];
            let status = site.post(&path, cookie, &form).await.status();
            assert_eq!(status, StatusCode::UNAUTHORIZED, "{path}");
        }
    }
    let page = site.http.get(site.url("")).header("accept", "text/html").send().await.unwrap();
    assert_eq!(page.headers()[header::LOCATION], "/dashboard/login");
    assert_eq!(site.api.world.job().await.summary.state, queue::JobState::Waiting);
}

#[tokio::test]
async fn a_form_is_good_for_its_own_session_only() {
    let site = Site::new().await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let (other_cookie, other_token) = site.log_in(&site.api.admin).await;
    assert_ne!(token, other_token);
    for path in site.forms() {
        for wrong in ["", "x", other_token.as_str()] {
            let status = site
                .post(&path, &cookie, &[("form_token", wrong), ("confirmed", "yes")])
                .await
                .status();
            assert_eq!(status, StatusCode::FORBIDDEN, "{path} with {wrong:?}");
        }
    }
    let logout = site.post("/logout", &cookie, &[("form_token", &token)]).await;
    assert_eq!(logout.status(), StatusCode::SEE_OTHER);
    // Replayed after the session's end, with its own token, and within another session.
    let path = format!("/relays/{}/deactivate", site.relay_id);
    let form = [("form_token", token.as_str()), ("confirmed", "yes")];
    assert_eq!(site.post(&path, &cookie, &form).await.status(), StatusCode::UNAUTHORIZED);
    assert_eq!(site.post(&path, &other_cookie, &form).await.status(), StatusCode::FORBIDDEN);
    let relay =
        tender_jobs::provision::relay::find(&site.api.world.db, &site.relay_id.parse().unwrap())
            .await;
    assert_eq!(relay.unwrap().unwrap().generation, 1, "nothing was done");
}

#[tokio::test]
async fn an_action_is_done_after_a_confirmation_and_recorded() {
    let site = Site::new().await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let path = format!("/relays/{}/deactivate", site.relay_id);
    let asked = site.post(&path, &cookie, &[("form_token", &token)]).await;
    assert_eq!(asked.status(), StatusCode::OK);
    let question = asked.text().await.unwrap();
    assert!(question.contains("Switch this relay off?") && question.contains("confirmed"));
    for (back, goes_to) in [
        ("/dashboard/relays?q=al", "/dashboard/relays?q=al"),
        ("https://evil.example/", &format!("/dashboard/relays/{}", site.relay_id)),
        ("/dashboard//evil.example", &format!("/dashboard/relays/{}", site.relay_id)),
        ("/dashboardevil", &format!("/dashboard/relays/{}", site.relay_id)),
    ] {
        let form = [("form_token", token.as_str()), ("confirmed", "yes"), ("back", back)];
        let done = site.post(&path, &cookie, &form).await;
        assert_eq!(done.status(), StatusCode::SEE_OTHER);
        assert_eq!(done.headers()[header::LOCATION], goes_to, "{back}");
    }
    let who = site.api.admin.public_key().to_hex();
    let last = operator::last(&site.api.world.db, 4).await.unwrap().remove(3);
    assert!(last.result.contains("inactive now"), "{}", last.result);
    assert_eq!((last.who, last.action.as_str()), (who.clone(), "relay_deactivate"));
    assert_eq!(last.target, "alpha.zooid.test");
    let id = site.relay_id.parse().unwrap();
    let relay =
        tender_jobs::provision::relay::find(&site.api.world.db, &id).await.unwrap().unwrap();
    let record = site.api.world.records(&relay).await.pop().unwrap();
    assert_eq!(record.detail["by"], who);
    assert_eq!(relay.sync_state(), SyncState::Pending);
}

#[tokio::test]
async fn a_viewer_looks_and_does_not_act() {
    let site = Site::new().await;
    let (cookie, token) = site.log_in(&site.viewer).await;
    for path in
        ["", "/relays", "/queues", "/jobs", "/workers", "/processes", "/schedule", "/actions"]
    {
        assert_eq!(site.get(path, &cookie).await.status(), StatusCode::OK, "{path}");
    }
    for path in site.forms().iter().filter(|path| *path != "/logout") {
        let form = [("form_token", token.as_str()), ("confirmed", "yes")];
        assert_eq!(site.post(path, &cookie, &form).await.status(), StatusCode::FORBIDDEN, "{path}");
    }
}

#[tokio::test]
async fn a_login_needs_a_fresh_event_of_a_known_key_for_this_very_url() {
    let site = Site::new().await;
    let (url, admin) = (site.url("/login/nostr"), &site.api.admin);
    let signed = |kind, tags, shift| event(admin, kind, tags, shift);
    let refused = [
        ("a stranger's", strict(&Keys::generate(), &url, "POST", 0)),
        ("a tenant's", strict(&site.api.tenant, &url, "POST", 0)),
        ("too old", strict(admin, &url, "POST", -61)),
        ("from the future", strict(admin, &url, "POST", 120)),
        ("for another URL", strict(admin, &site.url("/login"), "POST", 0)),
        ("for the API's session", strict(admin, &site.api.base_url, "GET", 0)),
        ("for another method", strict(admin, &url, "GET", 0)),
        ("of another kind", signed(Kind::TextNote, vec![tag("u", &url), tag("method", "POST")], 0)),
        ("without tags", signed(Kind::HttpAuth, vec![], 0)),
        (
            "for another body",
            signed(
                Kind::HttpAuth,
                vec![tag("u", &url), tag("method", "POST"), tag("payload", "00")],
                0,
            ),
        ),
    ];
    for (what, event) in refused {
        assert_eq!(site.by_nostr(&event).await.status(), StatusCode::UNAUTHORIZED, "{what}");
    }
    let mut forged = serde_json::to_value(strict(admin, &url, "POST", 0)).unwrap();
    forged["sig"] = "00".repeat(64).into();
    let forged = serde_json::from_value(forged).unwrap();
    assert_eq!(site.by_nostr(&forged).await.status(), StatusCode::UNAUTHORIZED);
    let good = strict(admin, &url, "POST", 0);
    assert_eq!(site.by_nostr(&good).await.status(), StatusCode::OK);
    assert_eq!(site.by_nostr(&good).await.status(), StatusCode::UNAUTHORIZED, "a replay");
}

#[tokio::test]
async fn passwords_are_compared_and_throttled() {
    let site = Site::new().await;
    let attempt = async |password: &str| {
        site.post("/login/password", "", &[("password", password)]).await.status()
    };
    assert_eq!(attempt("wrong").await, StatusCode::UNAUTHORIZED);
    assert_eq!(attempt("").await, StatusCode::UNAUTHORIZED);
    assert_eq!(attempt(&"x".repeat(5000)).await, StatusCode::UNAUTHORIZED);
    assert_eq!(attempt(PASSWORD).await, StatusCode::SEE_OTHER);
    assert_eq!(attempt("wrong").await, StatusCode::UNAUTHORIZED);
    assert_eq!(attempt(PASSWORD).await, StatusCode::TOO_MANY_REQUESTS, "the sixth at once");
}

#[tokio::test]
async fn a_link_lets_in_once_and_not_after_ten_minutes() {
    let site = Site::new().await;
    let link = tender::dashboard::new_link(&site.api.world.db).await.unwrap();
    let token = link.split_once("token=").unwrap().1.to_owned();
    let form = [("token", token.as_str())];
    // Looking at it does not use it up.
    assert_eq!(
        site.get(link.strip_prefix("/dashboard").unwrap(), "").await.status(),
        StatusCode::OK
    );
    assert_eq!(site.post("/link", "", &form).await.status(), StatusCode::SEE_OTHER);
    assert_eq!(site.post("/link", "", &form).await.status(), StatusCode::UNAUTHORIZED);
    let late = tender::dashboard::new_link(&site.api.world.db).await.unwrap();
    sqlx::query("update dashboard_ticket set expires_at = now() - interval '1 s'")
        .execute(&site.api.world.db)
        .await
        .unwrap();
    let form = [("token", late.split_once("token=").unwrap().1)];
    assert_eq!(site.post("/link", "", &form).await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn tokens_are_stored_as_hashes_and_cookies_are_kept_from_scripts_and_other_sites() {
    let site = Site::new().await;
    let event = strict(&site.api.admin, &site.url("/login/nostr"), "POST", 0);
    let response = site.by_nostr(&event).await;
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap().to_owned();
    for part in ["HttpOnly", "SameSite=Strict", "Max-Age=43200", "Path=/"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    let token = cookie_of(&response).split_once('=').unwrap().1.to_owned();
    let stored: String =
        sqlx::query_scalar("select string_agg(s::text, ' ') from dashboard_session s")
            .fetch_one(&site.api.world.db)
            .await
            .unwrap();
    assert!(!stored.contains(&token));
    let page = site.get("", &cookie_of(&response)).await;
    let policy = page.headers()[header::CONTENT_SECURITY_POLICY].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("script-src 'self';"));
    assert!(!policy.contains("unsafe") && !policy.contains("frame-src"), "{policy}");
    assert_eq!(page.headers()[header::X_FRAME_OPTIONS], "DENY");
    assert!(page.headers().get(header::ACCESS_CONTROL_ALLOW_ORIGIN).is_none());
    // A session ends after its twelve hours.
    sqlx::query("update dashboard_session set expires_at = now() - interval '1 s'")
        .execute(&site.api.world.db)
        .await
        .unwrap();
    let late = site.get("", &cookie_of(&response)).await;
    assert_eq!(late.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn over_https_the_cookie_is_for_https_only() {
    let api = TestApi::with(support::settings(), |config| {
        config.base_url = "https://tender.example.com".to_owned();
        config.dashboard_password = Some(SecretString::from(PASSWORD));
    })
    .await;
    let http = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
    let url = format!("{}/dashboard/login/password", api.base_url);
    let response = http.post(url).form(&[("password", PASSWORD)]).send().await.unwrap();
    let cookie = response.headers()[header::SET_COOKIE].to_str().unwrap();
    assert!(cookie.starts_with("__Host-tender=") && cookie.contains("; Secure"), "{cookie}");
}

#[tokio::test]
async fn with_nobody_configured_there_is_no_dashboard_but_by_link() {
    let api = TestApi::with(support::settings(), |config| config.admins = vec![]).await;
    let login = format!("{}/dashboard/login", api.base_url);
    let status = async || api.http.get(&login).send().await.unwrap().status();
    assert_eq!(status().await, StatusCode::NOT_FOUND);
    tender::dashboard::new_link(&api.world.db).await.unwrap();
    assert_eq!(status().await, StatusCode::OK);
}

#[tokio::test]
async fn what_tenants_write_is_text_on_every_page() {
    let site = Site::new().await;
    let evil = r#""><script>alert(1)</script><img src=x onerror=alert(1)>"#;
    let change = tender_jobs::provision::relay::Change {
        info_name: Some(evil.to_owned()),
        info_description: Some(evil.to_owned()),
        info_icon: Some(format!("https://x.example/?q={}", evil.replace(' ', "%20"))),
        plan_id: Some(evil.to_owned()),
        ..change()
    };
    let relay = site.api.world.relay_with("evil", change).await;
    // zooid's words are shown too.
    sqlx::query("update relay set sync_error = $1, failure_kind = 'permanent', exhausted_at = now() where id = $2")
        .bind(evil)
        .bind(relay.id.as_str())
        .execute(&site.api.world.db)
        .await
        .unwrap();
    operator::record(&site.api.world.db, evil, evil, evil, evil).await.unwrap();
    let (cookie, _) = site.log_in(&site.api.admin).await;
    let relay_page = format!("/relays/{}", relay.id);
    let search = format!("/relays?q={}", "%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E");
    for path in ["", "/relays", &relay_page, "/jobs", "/queues", "/workers", "/actions", &search] {
        let page = site.get(path, &cookie).await.text().await.unwrap();
        assert!(!page.contains("<script>alert") && !page.contains("<img src=x"), "{path}");
    }
    let page = site.get(&relay_page, &cookie).await.text().await.unwrap();
    assert!(page.contains("&lt;script&gt;alert(1)"), "it is shown, as it was written");
}

#[tokio::test]
async fn a_key_that_leaves_the_list_is_out_at_once() {
    let site = Site::new().await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    sqlx::query("update dashboard_session set who = $1")
        .bind(Keys::generate().public_key().to_hex())
        .execute(&site.api.world.db)
        .await
        .unwrap();
    assert_eq!(site.get("", &cookie).await.status(), StatusCode::UNAUTHORIZED);
}

/// Reads a live part until it brings `text`.
async fn hears(stream: &mut reqwest::Response, text: &str) {
    let heard = tokio::time::timeout(support::PATIENCE, async {
        let mut all = Vec::new();
        while !String::from_utf8_lossy(&all).contains(text) {
            all.extend(stream.chunk().await.unwrap().expect("the stream goes on"));
        }
    });
    assert!(heard.await.is_ok(), "{text}");
}

#[tokio::test]
async fn pages_live_on_and_end_with_their_session() {
    let site = Site::new().await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let mut stream = site.get(&format!("/live/relays/{}", site.relay_id), &cookie).await;
    hears(&mut stream, "pending").await;
    assert_eq!(
        site.api.world.attempt().await,
        tender_workers::provision::sync_relay::Outcome::Synced
    );
    hears(&mut stream, "synced").await;
    site.post("/logout", &cookie, &[("form_token", &token)]).await;
    let ended = tokio::time::timeout(support::PATIENCE, async {
        while let Ok(Some(_)) = stream.chunk().await {}
    });
    assert!(ended.await.is_ok(), "the stream ends");
}

#[tokio::test]
async fn an_upstream_is_shown_with_its_lanes_and_acted_on() {
    use tender_jobs::mirror::lane::LaneKind;

    let site = Site::new().await;
    let world = site.api.world.mirror();
    let relay = support::relays::RealRelay::start().await;
    let events = support::relays::notes(&Keys::generate(), 12, world.db_now().await - 60, 60);
    relay.add(&events).await;
    let fields = serde_json::json!({"config": support::mirror::days(1)});
    let upstream = world.upstream(&relay.url, fields).await;
    world.mirror(&upstream, LaneKind::Backfill).await;
    let (cookie, token) = site.log_in(&site.api.admin).await;

    let page = site.get("/upstreams", &cookie).await.text().await.unwrap();
    assert!(page.contains(&relay.url) && page.contains("backfill"), "{page}");
    let path = format!("/upstreams/{}", upstream.id);
    let page = site.get(&path, &cookie).await.text().await.unwrap();
    for words in ["100.0 % of history", "completed", "<dt>Stored</dt><dd>12</dd>", "polling"] {
        assert!(page.contains(words), "{words}: {page}");
    }
    let page = site.get("/events", &cookie).await.text().await.unwrap();
    assert!(page.contains("<td>1</td><td class=\"n\">12</td>"), "by kind: {page}");

    let form = [("form_token", token.as_str()), ("confirmed", "yes")];
    let did = async |verb: &str| site.post(&format!("{path}/{verb}"), &cookie, &form).await;
    assert_eq!(did("realtime").await.status(), StatusCode::SEE_OTHER);
    assert_eq!(world.drain().await, 1);
    assert_eq!(world.lane(&upstream, LaneKind::Realtime).await.status, "idle");
    assert_eq!(did("disable").await.status(), StatusCode::SEE_OTHER);
    assert!(
        !tender_jobs::mirror::upstream::find(&world.db, upstream.id)
            .await
            .unwrap()
            .unwrap()
            .enabled
    );
    assert_eq!(did("enable").await.status(), StatusCode::SEE_OTHER);
    assert_eq!(did("reset").await.status(), StatusCode::SEE_OTHER);
    assert!(tender_jobs::mirror::lane::states(&world.db, 600).await.unwrap().is_empty());
    let actions = site.get("/actions", &cookie).await.text().await.unwrap();
    for name in ["upstream realtime", "update upstream", "reset upstream"] {
        assert!(actions.contains(name), "{name}");
    }
}

#[tokio::test]
async fn a_password_session_ends_when_the_password_changes() {
    let site = Site::new().await;
    let form = [("password", PASSWORD)];
    let by_password = cookie_of(&site.post("/login/password", "", &form).await);
    let (by_key, _) = site.log_in(&site.api.admin).await;
    let opens = async |base_url: &str, cookie: &str| {
        let page = site.http.get(format!("{base_url}/dashboard/queues"));
        page.header(header::COOKIE, cookie).send().await.unwrap().status() == StatusCode::OK
    };
    assert!(opens(&site.api.base_url, &by_password).await);
    let password = |text: &str| Some(SecretString::from(text));
    let (same, _one) = site.api.beside(|config| config.dashboard_password = password(&HASH)).await;
    let (other, _two) = site.api.beside(|config| config.dashboard_password = password("new")).await;
    let (none, _three) = site.api.beside(|config| config.dashboard_password = None).await;
    assert!(opens(&same, &by_password).await, "another process with the same password");
    assert!(!opens(&other, &by_password).await, "the password is another one");
    assert!(!opens(&none, &by_password).await, "there is no password");
    assert!(opens(&other, &by_key).await, "a session by key does not depend on the password");
    let left = |config: &mut tender::config::ApiConfig| config.admins.clear();
    let (without, _four) = site.api.beside(left).await;
    assert!(!opens(&without, &by_key).await, "the key left the lists");
}
