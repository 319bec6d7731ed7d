//! What is read of a large store: sets for negentropy, pages of uploads, events by id, the page of events.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest, Sha256};
use tender_jobs::mirror::{
    event::{self, Limits, outgoing},
    filter::Filter,
    upstream::{self, Change},
};
use uuid::Uuid;

use crate::{
    support::{Bench, dashboard::Dashboard, report},
    times,
};

const DAY: i64 = 86_400;
/// When the mix begins, and how many seconds lie between two of its events.
const BEGIN: i64 = 1_700_000_000;
const STEP: i64 = 10;

pub(crate) async fn measure(bench: &Bench, events: i64) {
    let middle = BEGIN + events * STEP / 2;
    for (what, filter) in filters() {
        for (window, since, until) in [
            ("a day", middle, middle + DAY),
            ("a week", middle, middle + 7 * DAY),
            ("all times", 0, i64::MAX),
        ] {
            let name = format!("set of {window}: {what}");
            times(&name, 40, |_| set(bench, &filter, since, until)).await;
        }
    }
    uploads(bench, events).await;
    times("an event by the start of its id", 200, |number| found(bench, number)).await;
    pages(bench).await;
}

fn filters() -> Vec<(&'static str, Filter)> {
    let author = |number: i64| hex::encode(Sha256::digest(format!("author{number}")));
    let authors = |numbers: &[i64]| numbers.iter().map(|number| author(*number)).collect();
    let hundred: Vec<i64> = (1..=100).map(|number| number * 200).collect();
    let topics = ["topic5", "topic6"].map(str::to_owned);
    vec![
        ("every event", Filter::default()),
        ("an author", Filter { authors: authors(&[300]), ..Filter::default() }),
        ("the busiest author", Filter { authors: authors(&[0]), ..Filter::default() }),
        ("100 authors", Filter { authors: authors(&hundred), ..Filter::default() }),
        ("a kind of 2 %", Filter { kinds: BTreeSet::from([3]), ..Filter::default() }),
        ("a kind of 40 %", Filter { kinds: BTreeSet::from([1]), ..Filter::default() }),
        (
            "two `t` values",
            Filter { tags: BTreeMap::from([('t', topics.into())]), ..Filter::default() },
        ),
    ]
}

async fn set(bench: &Bench, filter: &Filter, since: i64, until: i64) {
    let limits = Limits { bytes: 100_000, tags: 2000 };
    event::set(bench.db(), Uuid::nil(), filter, limits, since, until).await.unwrap();
}

/// Pages of 1,000 events for an upstream that has none of them.
async fn uploads(bench: &Bench, events: i64) {
    let change = Change {
        url: Some("wss://target.test".to_owned()),
        direction: Some("up".to_owned()),
        ..Change::default()
    };
    let target = upstream::create(bench.db(), &change).await.unwrap();
    let (target, everything) = (target.id, Filter::default());
    times("a page of 1,000 uploads", 40, async |number| {
        let after = events * i64::try_from(number % 40).unwrap() / 40;
        outgoing::candidates(bench.db(), target, &everything, None, after, 1000).await.unwrap();
    })
    .await;
    upstream::delete(bench.db(), target, None).await.unwrap();
    while upstream::remove_page(bench.db(), target).await.unwrap() {}
}

async fn found(bench: &Bench, number: usize) {
    let id = hex::encode(Sha256::digest(format!("event{}", 1 + number * 400)));
    assert_eq!(event::starting_with(bench.db(), &id[..12], 10).await.unwrap().len(), 1);
}

async fn pages(bench: &Bench) {
    let dashboard = Dashboard::start(bench).await;
    for path in ["/events", "/upstreams"] {
        let (_, waits) = dashboard.load(path, 200).await;
        report(&format!("  page {path}"), waits);
    }
}
