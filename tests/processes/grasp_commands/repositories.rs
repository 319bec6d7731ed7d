//! Repositories: search, coverage, names of strangers.

use serde_json::json;

use super::Desk;
use crate::support::grasp_rows::ALPHA;

#[tokio::test]
async fn a_repository_shows_its_relays_roots_and_what_is_missing() {
    let desk = Desk::new().await;
    let words = ["Alpha tools", "beta: with a colon", "4/8", "3/6"];
    desk.says(&["repos"], &words).await;
    let found = desk.json(&["repos", "--missing"]).await;
    assert_eq!(found.as_array().unwrap().len(), 2);
    sqlx::query("delete from grasp_coverage where state <> 'confirmed' and item like '%alpha%' or item = repeat('01', 32) or item = repeat('aa', 32)")
        .execute(&desk.0.db)
        .await
        .unwrap();
    let found = desk.json(&["repos", "--missing"]).await;
    assert_eq!(
        (found.as_array().unwrap().len(), &found[0]["identifier"]),
        (1, &json!("beta: with a colon"))
    );
    let found = desk.json(&["repos", "--q", "ALPHA", "--service", "wss://git.example.com"]).await;
    assert_eq!((&found[0]["address"], &found[0]["roots"]), (&json!(ALPHA), &json!(1)));
    let words =
        ["wss://b.example.com", "It fails <b>often</b>", "issue", "accepted an event of kind 1621"];
    desk.says(&["repo", ALPHA], &words).await;
    desk.refuses(&["repo", "30617:x:y"], "there is no repository 30617:x:y").await;
    desk.refuses(&["repos", "--service", "wss://x.test"], "there is no service").await;
}

#[tokio::test]
async fn a_name_that_cannot_be_seen_is_shown_and_can_be_typed() {
    let desk = Desk::new().await;
    let owner = "cc".repeat(32);
    for (identifier, shown) in [("a\nb\u{202e}c", r"a\nb\u{202e}c"), (" ", r"\u{20}")] {
        let address = format!("30617:{owner}:{identifier}");
        sqlx::query(
            "insert into grasp_repo (upstream_id, address, pubkey, identifier, announcement_id, announced_at)
             select upstream_id, $1, decode($2, 'hex'), $3, decode($2, 'hex'), 1 from grasp_service",
        )
        .bind(&address)
        .bind(&owner)
        .bind(identifier)
        .execute(&desk.0.db)
        .await
        .unwrap();
        let typed = format!("30617:{owner}:{shown}");
        desk.says(&["repos"], &[&typed]).await;
        desk.says(&["repo", &typed], &[&typed]).await;
    }
}

#[tokio::test]
async fn repositories_are_paged_by_their_marks() {
    let desk = Desk::new().await;
    let (_, page, note) = desk.types(&["repos", "--limit", "1"]).await;
    assert!(page.contains("Alpha tools") && note.starts_with("1 of 2; --all"), "{page}{note}");
    let (_, mark) = note.split_once("--after '").unwrap();
    let mark = mark.split('\'').next().unwrap();
    let next = desk.json(&["repos", "--limit", "1", "--after", mark]).await;
    assert_eq!(next[0]["identifier"], "beta: with a colon");
}

#[tokio::test]
async fn a_repository_is_found_by_its_identifier_if_no_other_has_it() {
    let desk = Desk::new().await;
    desk.says(&["repo", "alpha"], &[ALPHA, "It fails <b>often</b>"]).await;
    desk.refuses(&["repo", "alph"], "there is no repository alph").await;
    sqlx::query(
        "insert into grasp_repo (upstream_id, address, pubkey, identifier, announcement_id, announced_at)
         select upstream_id, '30617:' || repeat('cc', 32) || ':alpha', decode(repeat('cc', 32), 'hex'), 'alpha',
                decode(repeat('cc', 32), 'hex'), 1 from grasp_service",
    )
    .execute(&desk.0.db)
    .await
    .unwrap();
    desk.refuses(&["repo", "alpha"], "several repositories are called alpha").await;
    desk.refuses(&["repo", "alpha"], ALPHA).await;
    desk.says(&["repo", ALPHA], &["Alpha tools"]).await;
}
