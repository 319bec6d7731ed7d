//! Ten workers that join and leave at random, under a stream of mutations.

use std::time::Duration;

use nix::sys::signal::Signal;
use tender::demo::zooid::Fault;
use tender_jobs::provision::SYNC_RELAY;
use tokio::task::JoinSet;

use super::{RECOVERY, synced};
use crate::{
    stand_in,
    support::{World, eventually, process::Tender, within},
};

const WORKERS: usize = 10;
const RELAYS: usize = 60;
const CHANGES: usize = 800;
/// After so many changes a worker starts or ends.
const CHANGES_PER_TURN: usize = 20;

/// A sequence that looks random and is the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).unwrap() % limit
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_workers_that_come_and_go_leave_every_relay_in_its_last_wanted_state() {
    let (world, zooid) = (World::new().await, stand_in().await);
    zooid.plan(None, Fault::Delay(Duration::from_millis(15)), None);
    let start =
        || Tender::start(&world, &zooid.url(), &["work"], &[("RELAY_SYNC_CONCURRENCY", "4")]);
    let mut relays = Vec::new();
    for number in 0..RELAYS {
        relays.push(world.relay(&format!("relay-{number}")).await);
    }
    let mut dice = Dice(4848);
    let mut workers: Vec<Option<Tender>> = (0..WORKERS).map(|_| None).collect();
    let mut stopping = JoinSet::new();
    let mut stop = |worker: Tender| {
        worker.signal(Signal::SIGTERM);
        stopping.spawn(async move {
            let mut worker = worker;
            assert!(worker.wait().await.success(), "{}", worker.log());
        });
    };
    let mut last_names = vec![String::new(); RELAYS];
    let (mut calls, mut killed, mut stopped) = (0, 0, 0);
    for number in 1..=CHANGES {
        let chosen = dice.below(RELAYS);
        last_names[chosen] = format!("name {number}");
        world.rename(&relays[chosen], &last_names[chosen]).await;
        if number % CHANGES_PER_TURN != 0 {
            continue;
        }
        if workers.iter().any(Option::is_some) {
            eventually("the workers call zooid", async || zooid.calls().len() > calls).await;
        }
        let slot = &mut workers[dice.below(WORKERS)];
        match slot.take() {
            None => {
                let worker = start();
                worker.serves(&world.db, SYNC_RELAY).await;
                *slot = Some(worker);
            }
            Some(mut worker) if dice.below(2) == 0 => {
                world.kill_one(&mut worker).await;
                killed += 1;
            }
            Some(worker) => {
                stop(worker);
                stopped += 1;
            }
        }
        calls = zooid.calls().len();
    }
    println!("{CHANGES} changes; {killed} workers killed, {stopped} told to stop");
    assert!(killed > 3 && stopped > 3);
    workers.into_iter().flatten().for_each(&mut stop);
    while let Some(ended) = stopping.join_next().await {
        ended.unwrap();
    }

    // No process is left, and no call: the leases of the killed may end.
    zooid.refuse(true);
    eventually("no call is under way", async || zooid.in_flight() == 0).await;
    zooid.refuse(false);
    world.expire_leases().await;
    let _last = start();
    let count = i64::try_from(RELAYS).unwrap();
    within(RECOVERY, "all are synced", async || synced(&world).await == count).await;
    let documents = zooid.documents();
    for (relay, name) in relays.iter().zip(&last_names) {
        assert_eq!(documents[relay.id.as_str()]["info"]["name"], name.as_str());
    }
    assert_eq!(zooid.overlaps(), Vec::<String>::new(), "no two calls for one relay at once");
    assert_eq!(zooid.calls().iter().filter(|call| call.created).count(), RELAYS);
}
