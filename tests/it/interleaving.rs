//! The upsert queue under random interleavings of what mutates, fetches, claims, settles, dies,
//! rescues and reconciles, while zooid comes and goes. After every step: at most one waiting job per
//! relay, at most one lease, no pending relay without a job, no call that the breaker or the limit
//! forbids, and no relay left exhausted by an outage that is over. At the end: what is on zooid is the last mutation.
//!
//! The steps are the real statements on a real PostgreSQL; only the choice of the next one is made
//! up. Each actor holds what a worker would hold in memory.

mod play;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use tender_jobs::provision::relay::{self, Change};
use tokio_util::sync::CancellationToken;

use crate::support::{World, by, eventually, run_workers};
use play::Play;

const ACTORS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Mutate(usize),
    AskAgain(usize),
    Fetch(usize),
    Claim(usize),
    Succeed(usize),
    Fail(usize),
    FailForGood(usize),
    /// zooid is out.
    FailOut(usize),
    /// The breaker's wait is over.
    WaitOver,
    /// The actor's process ends; its job is brought back.
    Die(usize),
    /// The actor is taken for dead, and goes on with what it holds.
    Freeze(usize),
    Reconcile,
    TimePasses,
}

fn step() -> impl Strategy<Value = Step> {
    let actor = 0..ACTORS;
    prop_oneof![
        3 => (0..2_usize).prop_map(Step::Mutate),
        1 => (0..2_usize).prop_map(Step::AskAgain),
        4 => actor.clone().prop_map(Step::Fetch),
        4 => actor.clone().prop_map(Step::Claim),
        3 => actor.clone().prop_map(Step::Succeed),
        2 => actor.clone().prop_map(Step::Fail),
        1 => actor.clone().prop_map(Step::FailForGood),
        4 => actor.clone().prop_map(Step::FailOut),
        2 => Just(Step::WaitOver),
        1 => actor.clone().prop_map(Step::Die),
        1 => actor.prop_map(Step::Freeze),
        1 => Just(Step::Reconcile),
        2 => Just(Step::TimePasses),
    ]
}

#[test]
fn no_interleaving_loses_doubles_or_forgets_a_change() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let steps = proptest::collection::vec(step(), 1..60);
    let world = runtime.block_on(play::world());
    TestRunner::new(config)
        .run(&steps, |steps| {
            runtime.block_on(async {
                let mut play = Play::new(&world).await;
                for step in &steps {
                    play.take(step).await;
                    play.check(step).await;
                }
                play.end().await;
            });
            Ok(())
        })
        .unwrap();
}

/// The same statements by many at once, where the database makes the interleaving.
#[tokio::test(flavor = "multi_thread")]
async fn mutations_and_workers_at_the_same_time_end_in_the_last_state() {
    let world = World::new().await;
    let relay = world.relay("alpha").await;
    let stop = CancellationToken::new();
    let workers: Vec<_> = (0..3)
        .map(|_| {
            tokio::spawn({
                let (context, stop) = (world.context.clone(), stop.clone());
                async move { run_workers(&context, stop).await }
            })
        })
        .collect();
    let mutators: Vec<_> = (0..4)
        .map(|mutator| {
            let (db, id) = (world.db.clone(), relay.id.clone());
            tokio::spawn(async move {
                for number in 0..50 {
                    let name = Some(format!("{mutator}.{number}"));
                    let change = Change { info_name: name, ..Change::default() };
                    relay::update(&db, &id, &change, &by()).await.unwrap();
                }
            })
        })
        .collect();
    for mutator in mutators {
        mutator.await.unwrap();
    }
    eventually("it is synced", async || world.reload(&relay).await.synced).await;
    let last = world.reload(&relay).await;
    assert_eq!(last.generation, 201);
    assert_eq!(world.zooid.documents()[relay.id.as_str()]["info"]["name"], last.info_name.as_str());
    assert!(world.zooid.overlaps().is_empty(), "two calls for one relay at once");
    stop.cancel();
    for worker in workers {
        worker.await.unwrap();
    }
}
