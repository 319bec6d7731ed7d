//! The store's upkeep: ids that are forgotten, counters by kind, and the removal of an upstream.

use serde_json::json;
use tender_jobs::{
    mirror::{
        event::{self, Batch, Event, EventId, Limits, Reason, Refused, Set},
        filter::Filter,
        lane::LaneKind,
        upstream::{self, UpstreamError},
    },
    queue,
};
use uuid::Uuid;

use crate::{
    event_store::{LIMITS, event},
    support::mirror::{MirrorWorld, upstream_change},
};

async fn store(world: &MirrorWorld, upstream: Uuid, events: &[Event]) {
    event::store(&world.db, Batch::new(upstream, events)).await.unwrap();
}

async fn refuse(world: &MirrorWorld, upstream: Uuid, refused: &[Refused]) {
    let batch = Batch { refused, ..Batch::new(upstream, &[]) };
    event::store(&world.db, batch).await.unwrap();
}

/// The ids of the set that the upstream's reconciliation would use.
async fn set(world: &MirrorWorld, upstream: Uuid, filter: &Filter, limits: Limits) -> Vec<EventId> {
    match event::set(&world.db, upstream, filter, limits, 0, 2_000_000_000).await.unwrap() {
        Set::Items(items) => items.into_iter().map(|(_, id)| id).collect(),
        Set::TooLarge => panic!("the set is small"),
    }
}

async fn count(world: &MirrorWorld, table: &'static str) -> i64 {
    let query = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
    sqlx::query_scalar(query).fetch_one(&world.db).await.unwrap()
}

#[tokio::test]
async fn ephemeral_events_are_counted_and_leave_no_row() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({"direction": "both"})).await.id;
    let events: Vec<Event> = (0..50).map(|number| event(number, 1, 22_000, 0, &[])).collect();
    store(&world, upstream, &events).await;
    assert_eq!(world.rejections().await, [("ephemeral".to_owned(), 50)]);
    assert_eq!(count(&world, "known_id").await, 0);
    let text = serde_json::to_string(&events[0]).unwrap();
    let unusable =
        event::parse(&text, LIMITS).expect_err("dropped before its signature is verified");
    assert_eq!(unusable.reason, Reason::Ephemeral);
    assert!(unusable.claims.is_some(), "a page of ephemeral events still has a beginning");
}

#[tokio::test]
async fn every_remembered_id_is_forgotten_in_the_end() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({})).await.id;
    let now = world.db_now().await - 1_700_000_000;
    let in_a_day = event(1, 1, 1, now + 86_400, &[]);
    let in_a_century = event(2, 1, 1, now + 3_000_000_000, &[]);
    let mut protected = event(3, 1, 1, now, &[]);
    protected.tags = vec![vec!["-".to_owned()]];
    let forged = event(4, 1, 1, now, &[]);
    store(&world, upstream, &[in_a_day, in_a_century, protected]).await;
    refuse(&world, upstream, &[Refused::of(&forged, Reason::BadSignature)]).await;
    let days: Vec<(String, i64)> = sqlx::query_as(
        "select reason, round(extract(epoch from retry_after - now()) / 86400)::bigint
         from known_id order by 1, 2",
    )
    .fetch_all(&world.db)
    .await
    .unwrap();
    let wanted = [("bad-signature", 30), ("future", 1), ("future", 30), ("protected", 30)];
    assert_eq!(days, wanted.map(|(reason, days)| (reason.to_owned(), days)));

    assert_eq!(event::purge(&world.db, 30, 10).await.unwrap().forgotten, 0);
    sqlx::query("update known_id set retry_after = now() where reason <> 'protected'")
        .execute(&world.db)
        .await
        .unwrap();
    // A row of an older release has no time.
    sqlx::query("update known_id set retry_after = null, seen_at = now() - interval '31 days' where reason = 'protected'")
        .execute(&world.db)
        .await
        .unwrap();
    event::purge(&world.db, 30, 10).await.unwrap();
    assert_eq!(count(&world, "known_id").await, 0);
}

#[tokio::test]
async fn the_filter_of_a_set_holds_for_refused_ids_too() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({})).await.id;
    let (note, like) = (event(1, 1, 1, 0, &[]), event(2, 2, 7, 0, &[]));
    let old = event(3, 3, 1, 0, &[]);
    let unknown = Refused { kind: None, author: None, ..Refused::of(&old, Reason::Malformed) };
    refuse(&world, upstream, &[Refused::of(&note, Reason::BadSignature), unknown]).await;
    refuse(&world, upstream, &[Refused::of(&like, Reason::BadSignature)]).await;
    let found = async |filter| {
        let mut ids = set(&world, upstream, &Filter::parse(&filter).unwrap(), LIMITS).await;
        ids.sort_unstable();
        ids
    };
    let sorted = |mut ids: Vec<EventId>| {
        ids.sort_unstable();
        ids
    };
    assert_eq!(found(json!({})).await, sorted(vec![note.id, like.id, old.id]));
    assert_eq!(found(json!({"kinds": [7]})).await, sorted(vec![like.id, old.id]));
    assert_eq!(
        found(json!({"authors": [hex::encode([1; 32])]})).await,
        sorted(vec![note.id, old.id])
    );
    assert_eq!(found(json!({"ids": [note.id.to_string()]})).await, [note.id]);
}

#[tokio::test]
async fn a_raised_limit_frees_the_ids_that_were_too_large() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({})).await.id;
    let all = Filter::default();
    let text =
        serde_json::to_string(&event(1, 1, 1, 0, &[("t", "x".repeat(500)), ("t", "y".to_owned())]))
            .unwrap();
    let (bytes, tags) = (text.len(), 2);
    for (limits, reason) in [
        (Limits { bytes: bytes - 1, tags }, Reason::TooLarge),
        (Limits { bytes, tags: 1 }, Reason::TooManyTags),
    ] {
        let unusable = event::parse(&text, limits).expect_err("above a limit");
        assert_eq!(unusable.reason, reason);
        refuse(&world, upstream, &[unusable.refused().unwrap()]).await;
        assert_eq!(set(&world, upstream, &all, limits).await.len(), 1, "{reason:?}");
        let raised = Limits { bytes, tags };
        assert!(event::parse(&text, raised).is_ok());
        assert_eq!(set(&world, upstream, &all, raised).await.len(), 0, "{reason:?}");
    }
}

#[tokio::test]
async fn an_upstream_with_endless_forgeries_fills_nothing() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({})).await.id;
    sqlx::query(
        "insert into known_id (event_id, upstream_id, created_at, reason, retry_after)
         select sha256(int4send(n)), $1, 1, 'wrong-id', now() + interval '1 day' from generate_series(1, 99999) n",
    )
    .bind(upstream)
    .execute(&world.db)
    .await
    .unwrap();
    for number in 0..3 {
        refuse(&world, upstream, &[Refused::of(&event(number, 1, 1, 0, &[]), Reason::WrongId)])
            .await;
    }
    assert_eq!(count(&world, "known_id").await, 100_000);
}

#[tokio::test]
async fn the_counters_by_kind_agree_with_the_events() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({})).await.id;
    let agree = async |when: &str| {
        let counted: Vec<(i32, i64)> = sqlx::query_as(
            "select kind, count(*) from event where deleted_at is null group by 1 order by 2 desc, 1",
        )
        .fetch_all(&world.db)
        .await
        .unwrap();
        let stats = event::stats(&world.db).await.unwrap();
        let kinds: Vec<(i32, i64)> =
            stats.by_kind.iter().map(|one| (one.kind, one.events)).collect();
        assert_eq!(kinds, counted, "{when}");
        assert_eq!(stats.total, count(&world, "event").await, "{when}");
    };
    let notes: Vec<Event> = (0..9).map(|number| event(number, 1, 1, 0, &[])).collect();
    store(&world, upstream, &notes).await;
    let profiles = [event(20, 1, 0, 1, &[]), event(21, 1, 0, 2, &[]), event(22, 2, 0, 2, &[])];
    for profile in &profiles {
        store(&world, upstream, std::slice::from_ref(profile)).await;
    }
    agree("after storing and replacing").await;
    event::roll_up(&world.db).await.unwrap();
    assert_eq!(count(&world, "kind_change").await, 0);
    agree("after rolling up").await;
    store(&world, upstream, &[event(30, 1, 5, 3, &[("e", notes[0].id.to_string())])]).await;
    sqlx::query("update event set expires_at = 1 where id = $1")
        .bind(notes[1].id.0.as_slice())
        .execute(&world.db)
        .await
        .unwrap();
    event::purge(&world.db, 30, 10).await.unwrap();
    agree("after a deletion and an expiry").await;
    sqlx::query(
        "update event set deleted_at = now() - interval '31 days' where deleted_at is not null",
    )
    .execute(&world.db)
    .await
    .unwrap();
    event::purge(&world.db, 30, 10).await.unwrap();
    agree("after a purge").await;
    // The events of an older release have no counters.
    sqlx::query("truncate kind_count, kind_change").execute(&world.db).await.unwrap();
    store(&world, upstream, &[event(40, 1, 7, 0, &[])]).await;
    event::roll_up(&world.db).await.unwrap();
    agree("after the first count").await;
    event::wipe(&world.db).await.unwrap();
    agree("after a wipe").await;
}

#[tokio::test]
async fn every_foreign_key_to_an_upstream_has_an_index() {
    let world = MirrorWorld::new().await;
    let without: Vec<(String,)> = sqlx::query_as(
        "select con.conrelid::regclass::text from pg_constraint con
         where con.contype = 'f' and con.confrelid = 'upstream'::regclass
           and not exists (select from pg_index i
                           where i.indrelid = con.conrelid and i.indisvalid and i.indkey[0] = con.conkey[1])",
    )
    .fetch_all(&world.db)
    .await
    .unwrap();
    assert_eq!(without, []);
}

#[tokio::test]
async fn an_upstream_is_removed_in_pages_and_its_address_is_free_only_then() {
    let world = MirrorWorld::new().await;
    let url = "ws://a.test";
    let gone = world.upstream(url, json!({"direction": "both", "live": true})).await;
    let kept = world.upstream("ws://b.test", json!({"direction": "both"})).await;
    world.trigger(&gone, LaneKind::Realtime).await;
    for (table, column) in [
        ("event_source", ""),
        ("known_id", ", created_at, reason"),
        ("upload_verdict", ", verdict"),
    ] {
        let values = match table {
            "known_id" => ", 1, 'wrong-id'",
            "upload_verdict" => ", 'rejected'",
            _ => "",
        };
        let fill = format!(
            "insert into {table} (event_id, upstream_id{column})
             select sha256(int4send(n)), id{values} from generate_series(1, 6000) n, upstream"
        );
        sqlx::query(sqlx::AssertSqlSafe(fill)).execute(&world.db).await.unwrap();
    }
    refuse(&world, gone.id, &[Refused::of(&event(1, 1, 1, 0, &[]), Reason::WrongId)]).await;

    assert!(upstream::delete(&world.db, gone.id, None).await.unwrap());
    assert!(
        !upstream::delete(&world.db, gone.id, None).await.unwrap(),
        "it is being removed already"
    );

    // At once: hidden, without work, its address still taken.
    assert_eq!(upstream::find_named(&world.db, url).await.unwrap().map(|one| one.id), None);
    assert_eq!(upstream::list(&world.db).await.unwrap().len(), 1);
    assert_eq!(count(&world, "lane").await, 0);
    let again = upstream::create(&world.db, &upstream_change(url, json!({}))).await;
    assert!(matches!(again, Err(UpstreamError::BeingRemoved(0))), "{again:?}");

    // A process dies after the first page; the rest is done by another one.
    assert!(upstream::remove_page(&world.db, gone.id).await.unwrap());
    let removals = upstream::removals(&world.db).await.unwrap();
    assert_eq!((removals.len(), removals[0].rows), (1, 15_000));
    sqlx::query("delete from apalis.jobs").execute(&world.db).await.unwrap();
    assert_eq!(upstream::resume_removals(&world.db).await.unwrap(), 1);
    assert_eq!(upstream::resume_removals(&world.db).await.unwrap(), 0, "one job at a time");
    assert_eq!(world.drain().await, 1);

    assert!(upstream::removals(&world.db).await.unwrap().is_empty());
    for table in ["event_source", "known_id", "upload_verdict"] {
        assert_eq!(count(&world, table).await, 6000, "{table}: the other upstream's rows stay");
    }
    assert_ne!(world.upstream(url, json!({})).await.id, gone.id);
    assert!(!upstream::remove_page(&world.db, kept.id).await.unwrap(), "it is not being removed");
    assert!(upstream::find(&world.db, kept.id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_finished_job_of_events_keeps_no_copy_of_them() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({})).await.id;
    let work = tender_jobs::mirror::work::Work::ProcessEvents {
        upstream,
        lane: None,
        events: vec!["{\"content\": \"a copy\"}".to_owned()],
    };
    let ids = queue::enqueue(&world.db, &[work.job()]).await.unwrap();
    assert!(world.job_by_id(&ids[0]).await.payload.contains("a copy"));
    assert_eq!(world.drain().await, 1);
    assert_eq!(world.job_by_id(&ids[0]).await.payload, "{}");
    assert_eq!(world.rejections().await, [("malformed".to_owned(), 1)]);
}
