//! What an upstream may do to each kind of lane. In the end everything has arrived, or the lane says
//! what is missing and why: by its error, a gap, or a count of rejected events. No case costs more than
//! a bounded number of messages.

use futures_util::{FutureExt, future::BoxFuture};
use nostr::{event::Event, key::Keys};
use serde_json::{Value, json};
use tender_jobs::mirror::{
    lane::{LaneKind, LaneState},
    upstream::Upstream,
};

use crate::support::{
    mirror::{Mirror, MirrorWorld, days, settings},
    relays::{Client, FakeRelay, ids, note, notes},
    scripted::{Hook, Kept, Manner, scripted},
};

/// The kinds of lanes that download, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Polled,
    Reconciled,
    Full,
    Realtime,
}

const COLUMNS: [Column; 4] = [Column::Polled, Column::Reconciled, Column::Full, Column::Realtime];

impl Column {
    fn mode(self) -> LaneKind {
        match self {
            Self::Polled | Self::Reconciled => LaneKind::Backfill,
            Self::Full => LaneKind::Full,
            Self::Realtime => LaneKind::Realtime,
        }
    }

    fn is_reconciled(self) -> bool {
        matches!(self, Self::Reconciled | Self::Full)
    }
}

/// The most messages that a case may cost a relay.
const MESSAGES: usize = 3000;

async fn anew(whole: &MirrorWorld) -> Mirror {
    sqlx::query(
        "truncate upstream, event, event_head, event_source, known_id, deletion_mark,
             deletion_address, apalis.jobs, apalis.workers cascade",
    )
    .execute(&whole.db)
    .await
    .unwrap();
    Mirror::over(&whole.db, settings())
}

/// Lets the full run be next: the history is complete already.
async fn complete_backfill(world: &Mirror, upstream: &Upstream) {
    world.trigger(upstream, LaneKind::Backfill).await;
    sqlx::query("update lane set backfill_until = backfill_target")
        .execute(&world.db)
        .await
        .unwrap();
    world.drain().await;
}

async fn ends(world: &Mirror, fake: &FakeRelay, column: Column) -> LaneState {
    let mut config = days(1);
    for (key, value) in [
        ("polling_timeout_seconds", 1),
        ("negentropy_timeout_seconds", 1),
        ("poll_page_limit", 100),
    ] {
        config[key] = json!(value);
    }
    let fields = json!({"negentropy": column.is_reconciled(), "config": config});
    let upstream = world.upstream(&fake.url, fields).await;
    if column == Column::Full {
        complete_backfill(world, &upstream).await;
    }
    world.mirror(&upstream, column.mode()).await
}

/// Whether the lane says that something is missing, and why.
fn speaks(lane: &LaneState) -> bool {
    lane.error_message.is_some()
        || lane.last_error.is_some()
        || lane.gaps() > 0
        || lane.rejected > 0
}

/// Runs a case against every kind of lane.
async fn check(name: &str, events: &[Event], manner: &Manner) {
    let whole = MirrorWorld::new().await;
    for column in COLUMNS {
        let world = anew(&whole).await;
        let mut manner = manner.clone();
        if column.is_reconciled() && manner.negentropy.is_none() {
            manner.negentropy = Some((usize::MAX, Kept::Newest));
        }
        let fake = scripted(events, manner).await;
        let lane = ends(&world, &fake, column).await;
        let has_all = world.stored().await == ids(events);
        assert!(has_all || speaks(&lane), "{name}, {column:?}: {lane:?}");
        assert!(fake.heard().len() < MESSAGES, "{name}, {column:?}: {}", fake.heard().len());
    }
}

/// Forty events of the last minutes, one in every ten seconds.
async fn history() -> (Vec<Event>, i64) {
    let now = MirrorWorld::new().await.db_now().await;
    (notes(&Keys::generate(), 40, now - 100, 10), now)
}

fn hooked(before: Hook) -> Manner {
    Manner { before: Some(before), ..Manner::default() }
}

fn altered(alter: fn(usize, &mut Value)) -> Manner {
    Manner { alter: Some(alter), ..Manner::default() }
}

#[tokio::test]
async fn late_answers_end_well_on_every_lane() {
    let (events, _) = history().await;
    let cases: [(&str, Manner); 6] = [
        ("no answer", hooked(|_, _| async { true }.boxed())),
        ("EOSE before the events", Manner { ends_first: true, ..Manner::default() }),
        (
            "EOSE never",
            hooked(|client, message| {
                async move {
                    client.send(json!(["EVENT", message[1], {"id": "0"}])).await;
                    message[0] == "REQ"
                }
                .boxed()
            }),
        ),
        (
            "a notice",
            hooked(|client, _| {
                async move {
                    client.send(json!(["NOTICE", "error: could not parse the message"])).await;
                    true
                }
                .boxed()
            }),
        ),
        (
            "disconnects",
            hooked(|client, _| {
                async move {
                    client.close().await;
                    true
                }
                .boxed()
            }),
        ),
        (
            "disconnects after an event",
            hooked(|client, message| {
                async move {
                    client.send(json!(["EVENT", message[1], {}])).await;
                    client.close().await;
                    true
                }
                .boxed()
            }),
        ),
    ];
    for (name, manner) in cases {
        check(name, &events, &manner).await;
    }
}

#[tokio::test]
async fn refusals_end_well_on_every_lane() {
    fn closed(client: Client, message: Value, reason: &'static str) -> BoxFuture<'static, bool> {
        async move {
            client.send(json!(["CLOSED", message[1], reason])).await;
            true
        }
        .boxed()
    }
    let (events, _) = history().await;
    let cases: [(&str, Hook); 8] = [
        ("auth-required", |c, m| closed(c, m, "auth-required: who are you")),
        ("restricted", |c, m| closed(c, m, "restricted: members only")),
        ("rate-limited", |c, m| closed(c, m, "rate-limited: slow down")),
        ("error", |c, m| closed(c, m, "error: shutting down")),
        ("invalid", |c, m| closed(c, m, "invalid: filter")),
        ("blocked", |c, m| closed(c, m, "blocked: you")),
        ("unknown prefix", |c, m| closed(c, m, "tired: later")),
        ("no prefix", |c, m| closed(c, m, "no")),
    ];
    for (name, hook) in cases {
        check(name, &events, &hooked(hook)).await;
    }
}

#[tokio::test]
async fn partial_answers_end_well_on_every_lane() {
    let (events, now) = history().await;
    let keys = Keys::generate();
    let capped = |most, kept| Manner { negentropy: Some((most, kept)), ..Manner::default() };
    let phantom = |n: u8| (u64::try_from(now - 200).unwrap(), [n; 32]);
    let cases = [
        ("pages of one", Manner { page: 1, ..Manner::default() }),
        ("pages of seven", Manner { page: 7, ..Manner::default() }),
        ("the newest ten", capped(10, Kept::Newest)),
        ("the oldest ten", capped(10, Kept::Oldest)),
        ("ten of all", capped(10, Kept::Spread)),
        ("exclusive until", Manner { page: 7, is_exclusive: true, ..Manner::default() }),
        (
            "withheld events",
            Manner {
                withheld: ids(&events[..3]).into_iter().collect(),
                ..capped(500, Kept::Newest)
            },
        ),
        (
            "phantom ids",
            Manner {
                phantoms: (0..200).map(phantom).collect(),
                ..capped(usize::MAX, Kept::Newest)
            },
        ),
    ];
    for (name, manner) in cases {
        check(name, &events, &manner).await;
    }
    let full: Vec<Event> = (0..120).map(|n| note(&keys, now - 300, &n.to_string())).collect();
    let all = [&events[..], &full].concat();
    check("a full second", &all, &Manner { page: 100, ..Manner::default() }).await;
    check(
        "a full second, reconciled in part",
        &all,
        &Manner { page: 100, ..capped(50, Kept::Newest) },
    )
    .await;
}

#[tokio::test]
async fn false_answers_end_well_on_every_lane() {
    let (events, now) = history().await;
    let cases: [(&str, Manner); 9] = [
        ("forged signatures", altered(|_, event| event["sig"] = json!("0".repeat(128)))),
        ("forged contents", altered(|_, event| event["content"] = json!("forged"))),
        ("wrong ids", altered(|number, event| event["id"] = json!(format!("{number:064x}")))),
        ("kinds of a wrong type", altered(|_, event| event["kind"] = json!("1"))),
        ("tags of a wrong type", altered(|_, event| event["tags"] = json!([1, {"a": 2}]))),
        ("negative times", altered(|_, event| event["created_at"] = json!(-1))),
        ("times outside of the window", altered(|_, event| event["created_at"] = json!(1))),
        ("no event at all", altered(|_, event| *event = json!(7))),
        (
            "every second event forged",
            altered(|number, event| {
                if number % 2 == 0 {
                    event["sig"] = json!("1".repeat(128));
                }
            }),
        ),
    ];
    for (name, manner) in cases {
        check(name, &events, &manner).await;
    }
    let mut unasked = events.clone();
    unasked.extend(notes(&Keys::generate(), 30, now - 3_000_000, 1));
    let manner = Manner { unasked: 30, ..Manner::default() };
    let whole = MirrorWorld::new().await;
    for column in COLUMNS {
        let world = anew(&whole).await;
        let fake = scripted(&unasked, manner.clone()).await;
        let lane = ends(&world, &fake, column).await;
        assert!(lane.violations > 0 || speaks(&lane), "unasked, {column:?}: {lane:?}");
    }
}

#[tokio::test]
async fn large_and_senseless_answers_end_well_on_every_lane() {
    fn endless(client: Client, message: Value) -> BoxFuture<'static, bool> {
        async move {
            for _ in 0..1100 {
                client.send(json!(["EVENT", message[1], {"id": "0"}])).await;
            }
            message[0] == "REQ"
        }
        .boxed()
    }
    fn preceded(client: Client, texts: Vec<String>) -> BoxFuture<'static, bool> {
        async move {
            for text in texts {
                client.raw(&text).await;
            }
            false
        }
        .boxed()
    }
    let (events, _) = history().await;
    let cases: [(&str, Manner); 7] = [
        ("large events", altered(|_, event| event["content"] = json!("x".repeat(300_000)))),
        ("endless events", hooked(endless)),
        ("frames of 5 MB", hooked(|c, _| preceded(c, vec!["x".repeat(5_000_000)]))),
        ("nonsense", hooked(|c, _| preceded(c, vec!["nonsense".to_owned(); 200]))),
        ("unknown verbs", hooked(|c, _| preceded(c, vec![r#"["WHAT",1]"#.to_owned(); 50]))),
        ("deep JSON", hooked(|c, _| preceded(c, vec!["[".repeat(10_000)]))),
        ("challenges", hooked(|c, _| preceded(c, vec![r#"["AUTH","a"]"#.to_owned(); 500]))),
    ];
    for (name, manner) in cases {
        check(name, &events, &manner).await;
    }
}

#[tokio::test]
async fn senseless_reconciliations_end_well_on_every_lane() {
    fn negentropy(client: Client, message: Value, answer: Value) -> BoxFuture<'static, bool> {
        async move {
            let is_negentropy = message[0].as_str().is_some_and(|verb| verb.starts_with("NEG-"));
            if is_negentropy && message[0] != "NEG-CLOSE" {
                let mut answer = answer;
                answer[1] = message[1].clone();
                client.send(answer).await;
            }
            is_negentropy
        }
        .boxed()
    }
    let (events, _) = history().await;
    let cases: [(&str, Hook); 6] = [
        ("NEG-ERR", |c, m| negentropy(c, m, json!(["NEG-ERR", "", "error: no"]))),
        ("too large, always", |c, m| negentropy(c, m, json!(["NEG-ERR", "", "blocked: too many"]))),
        ("closed, always", |c, m| negentropy(c, m, json!(["NEG-ERR", "", "closed: too slow"]))),
        ("frames that are none", |c, m| negentropy(c, m, json!(["NEG-MSG", "", "zz"]))),
        ("the same frame", |c, m| negentropy(c, m, json!(["NEG-MSG", "", "6100000200"]))),
        ("an empty set", |c, m| negentropy(c, m, json!(["NEG-MSG", "", "61"]))),
    ];
    for (name, hook) in cases {
        check(name, &events, &hooked(hook)).await;
    }
}
