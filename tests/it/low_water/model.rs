//! Low-water marks: whatever the order of writes, commits and moves of a mark, no waiting job is due before the mark
//! of its queue, so that a look that starts there finds every job.

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use sqlx::{PgPool, Postgres, Transaction};
use tender_jobs::queue::{
    self,
    low_water::{self, Barrier},
};

use super::with_margin;
use crate::support::World;

const WRITERS: usize = 3;
const PROCESSES: usize = 2;

/// What an actor does next.
#[derive(Debug, Clone)]
enum Step {
    /// A writer inserts a job that is due so many milliseconds from its clock, in a transaction that stays open.
    Insert(usize, i32),
    /// A writer makes a job that waits due at that time.
    Change(usize, i32),
    Commit(usize),
    RollBack(usize),
    /// A process moves the mark, with the barrier of its last move.
    Advance(usize),
    /// A worker takes a job and ends it.
    End,
    /// A worker takes a job and puts it back as it was.
    PutBack,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Before, within and after the margin, which is 10 ms here.
    let due = prop_oneof![Just(-60_000), -40..0_i32, -11..-7_i32, 0..40_i32];
    let (writer, process) = (0..WRITERS, 0..PROCESSES);
    let step = prop_oneof![
        4 => (writer.clone(), due.clone()).prop_map(|(writer, due)| Step::Insert(writer, due)),
        2 => (writer.clone(), due).prop_map(|(writer, due)| Step::Change(writer, due)),
        3 => writer.clone().prop_map(Step::Commit),
        1 => writer.prop_map(Step::RollBack),
        6 => process.prop_map(Step::Advance),
        3 => Just(Step::End),
        1 => Just(Step::PutBack),
    ];
    proptest::collection::vec(step, 10..50)
}

/// The actors of one case, on a queue of their own.
struct Actors<'a> {
    world: &'a World,
    queue: String,
    writers: [Option<Transaction<'static, Postgres>>; WRITERS],
    barriers: [Option<Barrier>; PROCESSES],
    inserted: usize,
}

impl<'a> Actors<'a> {
    fn new(world: &'a World, queue: &str) -> Self {
        let (writers, barriers) = Default::default();
        Self { world, queue: queue.to_owned(), writers, barriers, inserted: 0 }
    }

    fn db(&self) -> &'a PgPool {
        &self.world.db
    }

    async fn writer(&mut self, writer: usize) -> &mut Transaction<'static, Postgres> {
        if self.writers[writer].is_none() {
            self.writers[writer] = Some(tender_jobs::database::begin(self.db()).await.unwrap());
        }
        self.writers[writer].as_mut().unwrap()
    }

    async fn take(&mut self, step: &Step) {
        match *step {
            Step::Insert(writer, due) => self.insert(writer, due).await,
            Step::Change(writer, due) => self.change(writer, due).await,
            Step::Commit(writer) => {
                if let Some(open) = self.writers[writer].take() {
                    open.commit().await.unwrap();
                }
            }
            Step::RollBack(writer) => drop(self.writers[writer].take()),
            Step::Advance(process) => self.advance(process).await,
            Step::End => self.end_one(|_| true).await,
            Step::PutBack => self.end_one(|_| false).await,
        }
    }

    async fn insert(&mut self, writer: usize, due: i32) {
        self.inserted += 1;
        let id = format!("{:06}-{}", self.inserted, uuid::Uuid::new_v4());
        let sql = "insert into apalis.jobs (id, job_type, job, run_at)
                   values ($1, $2, '{}', clock_timestamp() + make_interval(secs => $3 / 1000.0))";
        let insert = sqlx::query(sql).bind(id).bind(self.queue.clone()).bind(f64::from(due));
        insert.execute(&mut **self.writer(writer).await).await.unwrap();
    }

    async fn change(&mut self, writer: usize, due: i32) {
        let sql =
            "update apalis.jobs set run_at = clock_timestamp() + make_interval(secs => $2 / 1000.0)
                   where id = (select id from apalis.jobs where job_type = $1 and status = 'Pending'
                               order by id limit 1 for update skip locked)";
        let change = sqlx::query(sql).bind(self.queue.clone()).bind(f64::from(due));
        change.execute(&mut **self.writer(writer).await).await.unwrap();
    }

    async fn advance(&mut self, process: usize) {
        let (queues, barrier) = ([self.queue.clone()], self.barriers[process].take());
        let next = low_water::advance(self.db(), &queues, barrier.as_ref()).await.unwrap();
        self.barriers[process] = Some(next);
    }

    async fn end_one(&mut self, ends: impl Fn(&queue::Job) -> bool) {
        let worker = &self.world.worker;
        let jobs = queue::fetch(self.db(), worker, &self.queue, 1).await.unwrap();
        for job in jobs {
            if ends(&job) {
                queue::finish(self.db(), &job, &serde_json::json!(null)).await.unwrap();
            } else {
                let how = queue::Requeue::unstarted();
                queue::requeue(self.db(), &job, &how).await.unwrap();
            }
        }
    }

    /// Counts the waiting jobs that a look from the mark would miss.
    async fn missed(&self) -> i64 {
        let sql = "select count(*) from apalis.jobs where job_type = $1 and status = 'Pending'
                   and run_at < low_water(job_type, priority)";
        sqlx::query_scalar(sql).bind(&self.queue).fetch_one(self.db()).await.unwrap()
    }

    /// Ends the case: what is open is committed.
    async fn settle(&mut self) {
        for writer in 0..WRITERS {
            self.take(&Step::Commit(writer)).await;
        }
        for process in [0, 1, 0, 1] {
            self.take(&Step::Advance(process)).await;
        }
    }
}

async fn holds(world: &World, case: usize, steps: &[Step]) -> Result<(), TestCaseError> {
    let mut actors = Actors::new(world, &format!("queue-{case}"));
    for (number, step) in steps.iter().enumerate() {
        actors.take(step).await;
        prop_assert_eq!(actors.missed().await, 0, "after step {}: {:?}", number + 1, step);
    }
    actors.settle().await;
    prop_assert_eq!(actors.missed().await, 0, "at the end");
    Ok(())
}

/// Takes steps beside those of the others.
async fn act(world: &World, queue: &str, steps: Vec<Step>) {
    let mut actor = Actors::new(world, queue);
    for step in &steps {
        actor.take(step).await;
    }
    actor.settle().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_job_waits_below_the_mark_while_everybody_acts_at_once() {
    let (world, mut runner) = (with_margin().await, TestRunner::deterministic());
    for round in 0..5 {
        let queue = format!("busy-{round}");
        let long = proptest::collection::vec(steps(), 5);
        let acting = (0..4).map(|_| {
            let steps = long.new_tree(&mut runner).unwrap().current().concat();
            act(&world, &queue, steps)
        });
        let acting = futures_util::future::join_all(acting.collect::<Vec<_>>());
        let watched = Actors::new(&world, &queue);
        let watching = async {
            loop {
                assert_eq!(watched.missed().await, 0, "round {round}");
            }
        };
        tokio::select! { _ = acting => {}, () = watching => {} }
        assert_eq!(watched.missed().await, 0, "at the end of round {round}");
    }
}

#[test]
fn no_job_waits_below_the_mark_of_its_queue() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let world = runtime.block_on(with_margin());
    let config =
        ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() };
    let mut runner = TestRunner::new(config);
    let cases = std::cell::Cell::new(0);
    let result = runner.run(&steps(), |steps| {
        cases.set(cases.get() + 1);
        runtime.block_on(holds(&world, cases.get(), &steps))
    });
    if let Err(error) = result {
        panic!("{error}");
    }
    let moved = "select count(*) from queue_low_water where since > '-infinity' and priority = 0";
    let moved: i64 =
        runtime.block_on(async { sqlx::query_scalar(moved).fetch_one(&world.db).await.unwrap() });
    // Transactions of other tests on the server hold the barriers, too.
    assert!(moved > 0, "the marks of {moved} queues have moved");
}
