//! The ways in: the root, the login, and the page that was wanted before it.

use futures_util::future::join_all;
use reqwest::{Client, StatusCode, header, redirect};
use tender::config::Proxies;

use super::{PASSWORD, Site};
use crate::support::{self, api::TestApi};

#[tokio::test]
async fn the_root_leads_a_browser_to_the_dashboard_and_a_program_to_json() {
    let api = TestApi::new().await;
    let http = Client::builder().redirect(redirect::Policy::none()).build().unwrap();
    let root = format!("{}/", api.base_url);
    let browser = http.get(&root).header("accept", "text/html,*/*;q=0.8").send().await.unwrap();
    assert_eq!(browser.status(), StatusCode::SEE_OTHER);
    assert_eq!(browser.headers()[header::LOCATION], "/dashboard");
    for accept in ["*/*", "application/json"] {
        let program = http.get(&root).header("accept", accept).send().await.unwrap();
        let about: serde_json::Value = program.json().await.unwrap();
        assert_eq!(
            (&about["data"]["name"], &about["data"]["openapi"]),
            (&"tender".into(), &"/openapi.json".into())
        );
    }
}

#[tokio::test]
async fn a_deep_link_survives_the_login() {
    let site = Site::new().await;
    let wanted = "/relays?q=al&sync=pending";
    let asked = site.http.get(site.url(wanted)).header("accept", "text/html").send().await.unwrap();
    let login = asked.headers()[header::LOCATION].to_str().unwrap().to_owned();
    assert_eq!(login, "/dashboard/login?next=%2Fdashboard%2Frelays%3Fq%3Dal%26sync%3Dpending");
    let page = site.get(login.strip_prefix("/dashboard").unwrap(), "").await.text().await.unwrap();
    let field = r#"name="next" value="/dashboard/relays?q=al&amp;sync=pending""#;
    assert!(page.contains(field) && page.contains("data-next=\"/dashboard/relays?q=al"), "{page}");
    for (next, goes_to) in [
        ("/dashboard/relays?q=al&sync=pending", "/dashboard/relays?q=al&sync=pending"),
        ("https://evil.example/dashboard", "/dashboard"),
        ("//evil.example", "/dashboard"),
    ] {
        let done =
            site.post("/login/password", "", &[("password", PASSWORD), ("next", next)]).await;
        assert_eq!(done.headers()[header::LOCATION], goes_to, "{next}");
    }
}

#[tokio::test]
async fn a_wrong_password_says_how_many_tries_are_left_and_locks_out_only_its_own_address() {
    let site = Site::new().await;
    let attempt = async |password: &str| {
        let form = [("password", password), ("next", "/dashboard/jobs")];
        let response = site.post("/login/password", "", &form).await;
        (response.status(), response.text().await.unwrap())
    };
    for words in [
        "4 tries are left",
        "3 tries are left",
        "2 tries are left",
        "1 try is left",
        "No try is left",
    ] {
        let (status, page) = attempt("wrong").await;
        assert_eq!(status, StatusCode::UNAUTHORIZED);
        assert!(page.contains(words) && page.contains("autofocus"), "{words}: {page}");
        assert!(page.contains(r#"name="next" value="/dashboard/jobs""#), "the wanted page is kept");
    }
    assert_eq!(attempt(PASSWORD).await.0, StatusCode::TOO_MANY_REQUESTS);
    let stranger = Client::builder().redirect(redirect::Policy::none());
    let stranger = stranger.local_address(std::net::IpAddr::from([127, 0, 0, 2])).build().unwrap();
    let other = stranger.post(site.url("/login/password")).form(&[("password", PASSWORD)]);
    assert_eq!(other.send().await.unwrap().status(), StatusCode::SEE_OTHER);
}

/// A hash that takes some seconds, of no password.
const SLOW: &str =
    "$argon2id$v=19$m=19456,t=60,p=1$c2FsdHNhbHQ$MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";

/// A hash that takes no time, of no password.
const QUICK: &str =
    "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE";

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_logins_from_many_networks_is_refused_and_touches_no_session() {
    let api = TestApi::with(support::settings(), |config| {
        config.dashboard_password = Some(SLOW.to_owned().into());
        config.proxies = Proxies::parse("127.0.0.0/8").unwrap();
    })
    .await;
    let site = Site::of(api).await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    let attempt = |number: u8| {
        let request = site.http.post(site.url("/login/password"));
        let request = request.header("x-forwarded-for", format!("10.0.{number}.1"));
        request.form(&[("password", "guess")]).send()
    };
    let flood = join_all((0..60).map(attempt));
    let session = async {
        // One session reads its page again and again meanwhile.
        for _ in 0..10 {
            assert_eq!(site.get("", &cookie).await.status(), StatusCode::OK);
        }
    };
    let (answers, ()) = tokio::join!(flood, session);
    let mut refused = 0;
    for answer in answers {
        let answer = answer.unwrap();
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE {
            refused += 1;
            assert_eq!(answer.headers()[header::RETRY_AFTER], "5");
            let page = answer.text().await.unwrap();
            assert!(page.contains("Too many people log in by password now"), "{page}");
            assert!(page.contains("this attempt was not checked"), "{page}");
        } else {
            // On a busy machine the one that is hashed may take longer than a request may.
            let ended = [StatusCode::UNAUTHORIZED, StatusCode::GATEWAY_TIMEOUT];
            assert!(ended.contains(&answer.status()), "{}", answer.status());
        }
    }
    assert!(refused >= 20, "{refused} of 60: one is hashed, and some may wait");
}

#[tokio::test]
async fn many_addresses_of_one_site_share_its_attempts() {
    let api = TestApi::with(support::settings(), |config| {
        config.dashboard_password = Some(QUICK.to_owned().into());
        config.proxies = Proxies::parse("127.0.0.0/8").unwrap();
    })
    .await;
    let site = Site::of(api).await;
    let attempt = async |address: String| {
        let request = site.http.post(site.url("/login/password"));
        let request = request.header("x-forwarded-for", address).form(&[("password", "guess")]);
        request.send().await.unwrap().status()
    };
    let mut refused = 0;
    for subnet in 0..60 {
        let status = attempt(format!("2001:db8:1:{subnet}::1")).await;
        refused += u32::from(status == StatusCode::TOO_MANY_REQUESTS);
    }
    assert!(refused >= 1, "the site has 25 attempts, and one more each 2 s");
    assert_eq!(attempt("2001:db8:2::1".to_owned()).await, StatusCode::UNAUTHORIZED);
}
