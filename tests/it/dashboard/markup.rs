//! The markup of every page: no attribute twice, and counts that agree with the lists behind them.

use super::Site;

/// Returns the first tag that has an attribute twice. A browser ignores the second one.
fn doubled(page: &str) -> Option<&str> {
    page.split('<').find(|tag| {
        let tag = tag.split('>').next().unwrap_or_default();
        tag.matches(" class=\"").count() > 1 || tag.matches(" id=\"").count() > 1
    })
}

#[tokio::test]
async fn no_element_has_an_attribute_twice() {
    let site = Site::new().await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    let world = site.api.world.mirror();
    let id = site.upstream_id.parse().unwrap();
    let upstream = tender_jobs::mirror::upstream::find(&world.db, id).await.unwrap().unwrap();
    world.trigger(&upstream, tender_jobs::mirror::lane::LaneKind::Backfill).await;
    for path in site.pages().iter().filter(|path| !path.contains("/live/")) {
        let page = site.get(path, &cookie).await.text().await.unwrap();
        assert_eq!(doubled(&page), None, "{path}");
    }
}

/// The figure of a count on the page, and the path that it links to.
fn counted<'a>(page: &'a str, name: &str) -> (usize, &'a str) {
    let at = page.find(&format!("<span>{name}</span>")).unwrap_or_else(|| panic!("{name}: {page}"));
    let link = page[..at].rfind("href=\"/dashboard").unwrap() + "href=\"/dashboard".len();
    let figure = page[..at].rfind("figure\">").unwrap() + "figure\">".len();
    let number = page[figure..].split('<').next().unwrap().trim_start_matches("≤ ");
    (number.parse().unwrap(), page[link..].split('"').next().unwrap())
}

#[tokio::test]
async fn a_count_links_to_exactly_what_it_counts() {
    let site = Site::new().await;
    let world = &site.api.world;
    // Three of four are synced, the fourth is retried.
    for number in 0..3 {
        world.relay(&format!("relay-{number}")).await;
        world.attempt().await;
    }
    let statements = "
        update relay set attempts = 1, sync_error = 'x', failure_kind = 'transient', retry_at = now()
        where not synced;
        update relay set status = 'inactive' where id = (select min(id) from relay where synced)";
    sqlx::raw_sql(statements).execute(&world.db).await.unwrap();
    world.relay("waits").await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    let page = site.get("", &cookie).await.text().await.unwrap();
    for (name, relays) in
        [("synced", 3), ("pending", 1), ("failing", 1), ("gave up", 0), ("switched off", 1)]
    {
        let (count, path) = counted(&page, name);
        let list = site.get(path, &cookie).await.text().await.unwrap();
        assert_eq!(
            (count, list.matches("data-label=\"Host\"").count()),
            (relays, relays),
            "{name}"
        );
    }
    assert!(page.contains("oldest pending"));
    sqlx::raw_sql("delete from relay where not synced").execute(&world.db).await.unwrap();
    crate::support::eventually("there is an oldest only if one waits", async || {
        !site.get("", &cookie).await.text().await.unwrap().contains("oldest pending")
    })
    .await;
}

#[tokio::test]
async fn the_workers_of_a_queue_are_counted_as_they_are_listed() {
    let site = Site::new().await;
    let dead = site.api.world.another_worker().await;
    sqlx::query("update apalis.workers set last_seen = now() - interval '1 h' where id = $1")
        .bind(&dead)
        .execute(&site.api.world.db)
        .await
        .unwrap();
    let (cookie, _) = site.log_in(&site.api.admin).await;
    let page = site.get("/queues", &cookie).await.text().await.unwrap();
    assert!(
        page.contains("/dashboard/workers?queue=sync-relay&amp;state=alive\">1 alive"),
        "{page}"
    );
    let list =
        site.get("/workers?queue=sync-relay&state=alive", &cookie).await.text().await.unwrap();
    assert_eq!(list.matches("<tr id=\"worker-").count(), 1);
}
