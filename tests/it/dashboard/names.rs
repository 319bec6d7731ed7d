//! What people type finds the same relays on pages, by commands and through the API.

use nostr::{key::Keys, nips::nip19::ToBech32};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tender_jobs::provision::relay::{self, Change, NewRelay, Search, SyncState};

use super::Site;
use crate::support::{DOMAIN, by, process::run};

/// The hosts of rows; those of the API have the two parts.
fn hosts(rows: &[Value]) -> Vec<String> {
    let host = |row: &Value| match row["host"].as_str() {
        Some(host) => host.to_owned(),
        None => format!("{}.{DOMAIN}", row["subdomain"].as_str().unwrap()),
    };
    rows.iter().map(host).collect()
}

async fn by_command(site: &Site, typed: &str) -> Vec<String> {
    let url = site.api.world.database.url();
    let query = format!("--query={typed}");
    let output = run(&["relay", "list", &query, "--json"], &[("DATABASE_URL", &url)]).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    hosts(&serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap())
}

async fn by_api(site: &Site, typed: &str) -> Vec<String> {
    let query = serde_urlencoded::to_string([("q", typed)]).unwrap();
    let path = format!("/relays?{query}");
    let (status, body) = site.api.call_as(&site.api.admin, Method::GET, &path, None).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    hosts(body["data"].as_array().unwrap())
}

/// The hosts of a file: those of the page with the same filter.
async fn by_page(site: &Site, cookie: &str, typed: &str) -> Vec<String> {
    let query = serde_urlencoded::to_string([("q", typed)]).unwrap();
    let file = site.get(&format!("/export/relays.json?{query}"), cookie).await;
    let file: Value = file.json().await.unwrap();
    let found = hosts(file["rows"].as_array().unwrap());
    for path in ["/relays", "/search"] {
        let page = site.get(&format!("{path}?{query}"), cookie).await.text().await.unwrap();
        for host in &found {
            assert!(page.contains(&format!(">{host}</a>")), "{path} {typed}: {page}");
        }
        assert_eq!(page.matches(".zooid.test</a>").count(), found.len(), "{path} {typed}: {page}");
    }
    found
}

#[tokio::test]
async fn pages_commands_and_the_api_find_the_same_by_key_host_name_id_and_parts_of_them() {
    let site = Site::new().await; // with the relay `alpha`
    let tenant = Keys::generate().public_key();
    let change = Change {
        subdomain: Some("omega-one".to_owned()),
        info_name: Some("Über 100% Café".to_owned()),
        ..Change::default()
    };
    let new = NewRelay::parse(tenant.to_hex(), &change, DOMAIN, &[DOMAIN.to_owned()]).unwrap();
    let omega = relay::create(&site.api.world.db, &new, &by()).await.unwrap();
    let (npub, hex, host) = (tenant.to_bech32().unwrap(), tenant.to_hex(), omega.host());
    let (cookie, _) = site.log_in(&site.viewer).await;
    let (one, both) = (vec![host.clone()], vec![host.clone(), "alpha.zooid.test".to_owned()]);
    let id = omega.id.as_str();
    for (typed, expected) in [
        (npub.as_str(), &one),
        (&format!("nostr:{npub}"), &one),
        (&hex, &one),
        (&hex.to_uppercase(), &one),
        (&hex[..10], &one),
        (&host, &one),
        (&format!("wss://{host}/"), &one),
        ("mega-on", &one),
        ("OMEGA", &one),
        ("café", &one),
        ("100%", &one),
        ("om", &one),
        (id, &one),
        (&id[..13], &one),
        ("zooid", &both),
        ("100_", &Vec::new()),
        ("%%%", &Vec::new()),
        ("no-such", &Vec::new()),
        (&"0".repeat(64), &Vec::new()),
    ] {
        assert_eq!(&by_command(&site, typed).await, expected, "command: {typed}");
        assert_eq!(&by_api(&site, typed).await, expected, "API: {typed}");
        assert_eq!(&by_page(&site, &cookie, typed).await, expected, "page: {typed}");
    }
}

#[tokio::test]
async fn names_follow_the_relay_and_a_common_text_finds_every_relay() {
    let site = Site::new().await;
    let db = &site.api.world.db;
    let id = site.relay_id.parse().unwrap();
    let change = Change { info_name: Some("Renamed".to_owned()), ..Change::default() };
    relay::update(db, &id, &change, &by()).await.unwrap();
    assert_eq!(by_api(&site, "renamed").await, ["alpha.zooid.test"]);
    sqlx::query("delete from relay where id = $1").bind(id.as_str()).execute(db).await.unwrap();
    let names: i64 =
        sqlx::query_scalar("select count(*) from relay_name").fetch_one(db).await.unwrap();
    assert_eq!(names, 0);

    sqlx::query(
        "insert into relay (id, tenant_pubkey, subdomain, zooid_domain, schema, policy_public_read,
             policy_public_write, policy_public_join, policy_strip_signatures, groups_enabled,
             management_enabled, members_can_invite, blossom_enabled, livekit_enabled, push_enabled)
         select gen_random_uuid(), repeat('ab', 32), 'bulk-' || n, $1, 's_' || n, true, true, true, true, true,
                true, true, true, true, true
         from generate_series(1, 6000) n",
    )
    .bind(DOMAIN)
    .execute(db)
    .await
    .unwrap();
    let (cookie, _) = site.log_in(&site.viewer).await;
    let file: Value = site.get("/export/relays.json?q=ulk-", &cookie).await.json().await.unwrap();
    assert_eq!(file["rows"].as_array().unwrap().len(), 6000, "more than are listed by their names");
}

#[tokio::test]
async fn a_command_that_changes_takes_no_part_of_a_name_but_says_what_it_names() {
    let site = Site::new().await;
    let url = site.api.world.database.url();
    let typed = async |arguments: &[&str]| {
        let output = run(arguments, &[("DATABASE_URL", &url)]).await;
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        (output.status.code(), text)
    };
    let (code, text) = typed(&["relay", "deactivate", "alph"]).await;
    assert_eq!(code, Some(1));
    assert!(text.contains("alph is a part of alpha.zooid.test"), "{text}");
    assert_eq!(typed(&["relay", "deactivate", "wss://alpha.zooid.test/"]).await.0, Some(0));
    let (code, text) = typed(&["relay", "show", "lph"]).await;
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("alpha.zooid.test"), "{text}");
    let (code, text) = typed(&["mirror", "show", "alpha.t"]).await;
    assert_eq!(code, Some(1));
    assert!(text.contains("is a part of ws://alpha.test"), "{text}");
    assert_eq!(typed(&["mirror", "show", "alpha.test"]).await.0, Some(0), "the host is enough");
}

#[tokio::test]
async fn the_exact_name_comes_first_then_what_begins_with_it() {
    let site = Site::new().await;
    let world = &site.api.world;
    for name in ["beta", "beta-two", "my-beta", "beta-three", "not-beta"] {
        world.relay(name).await;
    }
    let expected = ["beta", "beta-three", "beta-two", "not-beta", "my-beta"];
    let hosts = expected.map(|name| format!("{name}.{DOMAIN}"));
    let (cookie, _) = site.log_in(&site.viewer).await;
    assert_eq!(by_command(&site, "beta").await, hosts);
    assert_eq!(by_api(&site, "BETA").await, hosts);
    assert_eq!(by_page(&site, &cookie, "beta").await, hosts);
    assert_eq!(by_command(&site, &format!("beta.{DOMAIN}")).await[0], hosts[0]);
    let page = site.get("/search?q=beta", &cookie).await.text().await.unwrap();
    let places = hosts.each_ref().map(|host| page.find(&format!(">{host}</a>")).unwrap());
    assert!(places.is_sorted(), "{places:?}");
    // Pages of every size follow each other.
    let search = |after| Search { text: Some("beta".to_owned()), after, ..Search::default() };
    let list = async |after, limit| relay::list(&world.db, &search(after), limit).await.unwrap();
    let all = list(None, 10).await;
    for (place, one) in all.iter().enumerate() {
        let next = list(Some(one.id.clone()), 2).await;
        let hosts: Vec<_> = next.iter().map(relay::Relay::host).collect();
        assert_eq!(
            hosts,
            all[place + 1..(place + 3).min(5)].iter().map(relay::Relay::host).collect::<Vec<_>>()
        );
    }
    let synced = Search { sync: Some(SyncState::Synced), ..search(None) };
    assert!(relay::list(&world.db, &synced, 10).await.unwrap().is_empty(), "filters hold for all");
}
