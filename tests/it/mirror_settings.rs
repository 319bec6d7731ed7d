//! The deployment's settings: stored once, changed by operators only, and never at the cost of progress.

use nostr::key::Keys;
use serde_json::{Value, json};
use tender_jobs::mirror::{
    deployment::{self, ChangeError, Edit, Environment, Profile},
    lane::{self, LaneKind},
};

use crate::support::{
    mirror::{MirrorWorld, days},
    relays::{RealRelay, notes},
};

fn environment(config: Value, profile: Profile) -> Environment {
    Environment { config: Some(config), profile: Some(profile) }
}

async fn set(world: &MirrorWorld, texts: &[&str]) -> Result<(), ChangeError> {
    let edits: Vec<Edit> = texts.iter().map(|text| Edit::parse_set(text).unwrap()).collect();
    deployment::change(&world.db, "operator", &edits).await.map(|_| ())
}

#[tokio::test]
async fn the_environment_is_stored_once_and_then_only_reported() {
    let world = MirrorWorld::new().await;
    let nothing = deployment::import(&world.db, &Environment::default()).await.unwrap();
    assert!(!nothing.is_stored, "an environment without variables leaves the choice to others");
    let first = environment(json!({"batch_size": 7}), Profile::Development);
    let stored = deployment::import(&world.db, &first).await.unwrap();
    assert_eq!((stored.settings().batch_size, stored.profile), (7, Profile::Development));
    assert_eq!(first.contradictions(&stored), Vec::<String>::new());

    let other =
        environment(json!({"batch_size": 9, "filter": {"kinds": [1]}}), Profile::Production);
    assert_eq!(deployment::import(&world.db, &other).await.unwrap(), stored);
    let words = other.contradictions(&stored).join("\n");
    for word in ["MIRROR_DEFAULTS", "batch_size", "filter", "MIRROR_PROFILE is production"] {
        assert!(words.contains(word), "{words}");
    }
    // A process without recurring jobs of its own contradicts nobody.
    let off = Environment { config: None, profile: Some(Profile::Off) };
    assert_eq!(off.contradictions(&stored), Vec::<String>::new());
}

#[tokio::test]
async fn an_operator_changes_all_or_nothing_and_it_is_recorded() {
    let world = MirrorWorld::new().await;
    set(&world, &["batch_size=7", "event_kinds=[1, 7]", "profile=development"]).await.unwrap();
    let stored = deployment::find(&world.db).await.unwrap();
    assert_eq!((stored.settings().batch_size, stored.profile), (7, Profile::Development));
    assert_eq!(stored.settings().event_kinds, [1, 7]);
    let refused =
        set(&world, &["poll_page_limit=5", "batch_size=0", "nonsense=1", "profile=off"]).await;
    let words = refused.unwrap_err().to_string();
    for word in ["batch_size must be", "nonsense is an unknown setting", "profile must be"] {
        assert!(words.contains(word), "{words}");
    }
    let twice = set(&world, &["batch_size=8", "batch_size=9"]).await.unwrap_err();
    assert_eq!(twice.to_string(), "batch_size is given more than once");
    assert!(std::error::Error::source(&twice).is_none(), "an error is told once");
    assert_eq!(deployment::find(&world.db).await.unwrap(), stored);
    let unset = [Edit::Unset("batch_size".to_owned()), Edit::Unset("profile".to_owned())];
    let changed = deployment::change(&world.db, "ada", &unset).await.unwrap();
    assert_eq!((changed.settings().batch_size, changed.profile), (100, Profile::Production));
    let (who, result): (String, String) = sqlx::query_as(
        "select who, result from operator_action where action = 'configure_mirror' order by id desc limit 1",
    )
    .fetch_one(&world.db)
    .await
    .unwrap();
    assert_eq!((who.as_str(), result.as_str()), ("ada", "unset batch_size, unset profile"));
}

#[tokio::test]
async fn a_job_reads_the_settings_that_hold_when_it_starts() {
    let world = MirrorWorld::new().await;
    let relay = RealRelay::start().await;
    relay.add(&notes(&Keys::generate(), 20, world.db_now().await - 60, 600)).await;
    let upstream = world.upstream(&relay.url, json!({"config": days(1)})).await;
    world.trigger(&upstream, LaneKind::Backfill).await;
    // After the job was enqueued, and without a restart of the worker.
    set(&world, &["event_kinds=[7]"]).await.unwrap();
    world.drain().await;
    let lane = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.stored), ("completed", 0), "{lane:?}");
    assert_eq!(world.stored().await.len(), 0);
}

#[tokio::test]
async fn a_changed_filter_keeps_progress_and_starts_only_what_is_new() {
    let world = MirrorWorld::new().await;
    let relay = RealRelay::start().await;
    relay.add(&notes(&Keys::generate(), 20, world.db_now().await - 60, 600)).await;
    let upstream = world.upstream(&relay.url, json!({"config": days(1)})).await;
    set(&world, &["event_kinds=[1, 7]"]).await.unwrap();
    let both = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((both.status.as_str(), both.stored), ("completed", 20));

    // A narrower filter has its history already, and what is known of the relay's windows.
    let learned = "update lane set window_seconds = 3600, window_refused = 7200";
    sqlx::query(learned).execute(&world.db).await.unwrap();
    set(&world, &["event_kinds=[1]"]).await.unwrap();
    assert_eq!(world.trigger(&upstream, LaneKind::Backfill).await.skipped, Some("complete"));
    let one = world.lane(&upstream, LaneKind::Backfill).await;
    assert_ne!(one.id, both.id);
    let query = "select window_seconds, window_refused from lane where id = $1";
    let windows: (i64, i64) =
        sqlx::query_as(query).bind(one.id).fetch_one(&world.db).await.unwrap();
    assert_eq!(windows, (3600, 7200));
    assert_eq!(
        (one.backfill_until, one.backfill_target),
        (both.backfill_until, both.backfill_target)
    );
    assert_eq!(
        lane::states_of(&world.db, upstream.id, 600).await.unwrap().len(),
        1,
        "one is shown"
    );

    // A wider one starts, and the lanes of the others wait for their filters.
    set(&world, &["event_kinds=[1, 2]"]).await.unwrap();
    assert_eq!(world.mirror(&upstream, LaneKind::Backfill).await.status, "completed");
    set(&world, &["event_kinds=[1, 7]"]).await.unwrap();
    assert_eq!(world.trigger(&upstream, LaneKind::Backfill).await.skipped, Some("complete"));
    let back = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!((back.id, back.stored), (both.id, 20));
}

#[tokio::test]
async fn a_running_job_of_an_earlier_filter_gives_way() {
    let world = MirrorWorld::new().await;
    let relay = RealRelay::start().await;
    let upstream = world.upstream(&relay.url, json!({"config": days(5)})).await;
    set(&world, &["event_kinds=[1]"]).await.unwrap();
    world.trigger(&upstream, LaneKind::Backfill).await;
    assert!(world.step().await);
    let before = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!(before.status, "syncing");
    set(&world, &["event_kinds=[2]"]).await.unwrap();
    world.drain().await;
    let after = world.lane(&upstream, LaneKind::Backfill).await;
    assert_ne!(after.id, before.id);
    assert_eq!(after.status, "completed");
    let (until,): (i64,) =
        sqlx::query_as("select backfill_until from lane where id = $1 and retired_at is not null")
            .bind(before.id)
            .fetch_one(&world.db)
            .await
            .unwrap();
    assert_eq!(
        Some(until),
        before.backfill_until,
        "nothing was noted on the lane of the other filter"
    );
}
