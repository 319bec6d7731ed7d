//! The ways in: the root, the login, and the page that was wanted before it.

use reqwest::{Client, StatusCode, header, redirect};

use super::{PASSWORD, Site};
use crate::support::api::TestApi;

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
