//! Ten workers that join and leave at random, under a stream of mutations.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tender::demo::zooid::Fault;

use crate::{
    RECOVERY, stand_in,
    support::{World, process::Tender, within},
    synced,
};

const WORKERS: usize = 10;
const RELAYS: usize = 60;
const LASTS: Duration = Duration::from_mins(1);

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
    let mut last_names = vec![String::new(); RELAYS];
    let (started, mut number, mut killed, mut stopped) = (Instant::now(), 0, 0, 0);
    let mut beat = tokio::time::interval(Duration::from_millis(25));
    while started.elapsed() < LASTS {
        beat.tick().await;
        number += 1;
        let chosen = dice.below(RELAYS);
        last_names[chosen] = format!("name {number}");
        world.rename(&relays[chosen], &last_names[chosen]).await;
        if number % 20 == 0 {
            let slot = &mut workers[dice.below(WORKERS)];
            match slot.take() {
                None => *slot = Some(start()),
                Some(mut worker) if dice.below(2) == 0 => {
                    worker.kill().await;
                    killed += 1;
                }
                Some(worker) => {
                    worker.signal(Signal::SIGTERM);
                    stopped += 1;
                    tokio::spawn(async move {
                        let mut worker = worker;
                        assert!(worker.wait().await.success(), "{}", worker.log());
                    });
                }
            }
        }
    }
    println!("{number} changes; {killed} workers killed, {stopped} told to stop");
    assert!(killed > 3 && stopped > 3);
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
