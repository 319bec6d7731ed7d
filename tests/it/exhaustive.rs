//! Every interleaving of two workers and two mutations of one relay, over the real statements. The random
//! plays of `interleaving` reach further; here no order of a small case is left out.
//!
//! Two workers fetch, claim, send and settle (fetch and claim are one step for some); the relay changes twice; a call may land late, or its worker
//! die after sending it. After each step: at most one lease, at most one waiting job, and a relay that is in
//! step without anything open is what zooid has. At the end, when all that is due was done: zooid has the last
//! change, and nothing is due again.

mod orders;
mod stage;

use crate::support::World;
use orders::{Actor, orders};
use stage::{End, Stage};

/// Plays every order of the actors' steps.
async fn explore(actors: &[Actor], first_call: End) {
    let world = World::new().await;
    let orders = orders(actors);
    for order in &orders {
        let mut stage = Stage::new(&world, first_call).await;
        for (place, actor) in order.iter().enumerate() {
            stage.step(*actor).await;
            stage.check(&order[..=place]).await;
        }
        stage.finish(order).await;
    }
    assert!(orders.len() > 150, "{} orders", orders.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn no_order_of_two_workers_and_two_changes_loses_or_doubles_one() {
    let steps = [(Actor::FirstWorker, 4), (Actor::SecondWorker, 4), (Actor::Tenant, 2)];
    explore(&orders::each(&steps), End::Answered).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_order_lets_a_late_call_have_the_last_word() {
    let steps = [
        (Actor::FirstWorker, 3),
        (Actor::SecondWorker, 3),
        (Actor::Tenant, 1),
        (Actor::LateCall, 1),
    ];
    explore(&orders::each(&steps), End::Late).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_order_loses_the_change_of_a_worker_that_died_in_its_call() {
    let steps = [
        (Actor::FirstWorker, 2),
        (Actor::SecondWorker, 3),
        (Actor::Tenant, 1),
        (Actor::LateCall, 1),
        (Actor::Rescuer, 1),
    ];
    explore(&orders::each(&steps), End::Dead).await;
}
