//! The state machine of coverage and of a followed relay, against PostgreSQL: any order of plans, ends,
//! losses, takeovers, removals and late writes keeps the invariants, and a calm run confirms everything.

use std::collections::BTreeSet;

use sqlx::PgPool;
use tender_jobs::{
    grasp::{
        batch::{self, Again, Batch, Fetched},
        coverage,
        followed::{self, Lease, health::Failure},
    },
    queue::Settled,
};

use crate::support::TestDatabase;

/// The steps of one run, and the runs.
const STEPS: usize = 60;
const RUNS: u64 = 20;

/// Numbers that look random, and are the same in every run of the test (`SplitMix64`).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) >> 32).unwrap() % sides
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        if of.is_empty() { None } else { Some(&of[self.roll(of.len())]) }
    }
}

/// What the test believes of one relay.
struct Model<'a> {
    db: &'a PgPool,
    dice: Dice,
    wanted: BTreeSet<(String, String)>,
    /// Every lease that was ever taken, the last one last.
    leases: Vec<Lease>,
    /// Whether the last lease holds.
    is_held: bool,
    /// Every batch that was ever planned.
    batches: Vec<Batch>,
}

type Row = (String, String, String, Option<i64>);

impl Model<'_> {
    async fn sql(&self, sql: &'static str) {
        sqlx::query(sql).execute(self.db).await.unwrap();
    }

    async fn coverage(&self) -> Vec<Row> {
        let sql = "select family, item, state, batch from grasp_coverage order by family, item";
        sqlx::query_as(sql).fetch_all(self.db).await.unwrap()
    }

    /// Everything that a session writes.
    async fn everything(&self) -> String {
        let sql = "select concat_ws(' | ',
            (select string_agg(c::text, ',' order by family, item) from grasp_coverage c),
            (select string_agg(b::text, ',' order by id) from grasp_batch b),
            (select string_agg(r::text, ',' order by id) from grasp_relay r))";
        sqlx::query_scalar(sql).fetch_one(self.db).await.unwrap()
    }

    fn item(&mut self) -> (String, String) {
        let family =
            *self.dice.pick(&["announcements", "state", "address", "root", "deletion"]).unwrap();
        (family.to_owned(), format!("item {}", self.dice.roll(12)))
    }

    async fn want(&mut self) {
        let (family, item) = self.item();
        let sql =
            "insert into grasp_coverage (relay_id, family, item) select id, $1, $2 from grasp_relay
                   on conflict do nothing";
        sqlx::query(sql).bind(&family).bind(&item).execute(self.db).await.unwrap();
        self.wanted.insert((family, item));
    }

    async fn remove(&mut self) {
        let (family, item) = self.item();
        let sql = "delete from grasp_coverage where family = $1 and item = $2";
        sqlx::query(sql).bind(&family).bind(&item).execute(self.db).await.unwrap();
        self.wanted.remove(&(family, item));
    }

    async fn claim(&mut self) {
        self.sql("update grasp_relay set next_attempt_at = now(), limited_until = null").await;
        let claimed = followed::claim(self.db, "model", 1).await.unwrap();
        assert_eq!(claimed.is_empty(), self.is_held, "one holder at a time");
        if let Some(one) = claimed.first() {
            assert!(self.leases.last().is_none_or(|last| last.epoch < one.lease.epoch));
            self.leases.push(one.lease);
            self.is_held = true;
        }
    }

    async fn plan(&mut self) {
        self.sql("update grasp_coverage set retry_at = now()").await;
        let Some(lease) = self.leases.last().copied() else { return };
        if let Some(batch) = coverage::plan(self.db, lease).await.unwrap() {
            assert!(self.is_held);
            self.batches.push(batch);
        }
    }

    async fn end_batch(&mut self) {
        let Some(batch) = self.dice.pick(&self.batches).cloned() else { return };
        let again = *self.dice.pick(&[Again::Later, Again::In(65), Again::Reconnected]).unwrap();
        let before = self.everything().await;
        let is_current = self.is_held && self.leases.last() == Some(&batch.lease);
        let ended = if self.dice.roll(3) > 0 {
            batch::confirm(self.db, &batch, Fetched::default()).await.unwrap()
        } else {
            batch::fail(self.db, &batch, "model", again, Fetched::default()).await.unwrap()
        };
        if !is_current || ended == Settled::LeaseLost {
            assert_eq!(self.everything().await, before, "a late end changes nothing");
        }
    }

    /// A session that does not know yet that its lease is lost.
    async fn late_write(&mut self) {
        let old = self.leases.len().saturating_sub(usize::from(self.is_held));
        let Some(lease) = self.dice.pick(&self.leases[..old]).copied() else { return };
        let before = self.everything().await;
        let db = self.db;
        let failure = Failure { error: "late", ..Failure::default() };
        let written = match self.dice.roll(6) {
            0 => followed::connected(db, lease).await.unwrap(),
            1 => followed::note_verified(db, lease, true).await.unwrap(),
            2 => followed::good(db, lease).await.unwrap(),
            3 => followed::fail(db, lease, failure).await.unwrap(),
            4 => followed::release(db, lease, "late").await.unwrap(),
            _ => followed::count(db, lease, 1, 1).await.unwrap(),
        };
        assert_eq!(written, Settled::LeaseLost);
        assert_eq!(self.everything().await, before, "a late write changes nothing");
    }

    async fn lose(&mut self) {
        let (Some(lease), true) = (self.leases.last().copied(), self.is_held) else { return };
        self.is_held = false;
        let failure = Failure { error: "lost", jitter: 0.5, ..Failure::default() };
        match self.dice.roll(4) {
            0 => drop(followed::fail(self.db, lease, failure).await.unwrap()),
            1 => drop(followed::release(self.db, lease, "model").await.unwrap()),
            2 => self.expire().await,
            _ => {
                self.expire().await;
                assert_eq!(followed::reap(self.db).await.unwrap(), 1);
            }
        }
    }

    async fn expire(&self) {
        let sql = "update grasp_relay set lease_until = now() - interval '1 s' where lease_owner is not null";
        self.sql(sql).await;
    }

    async fn step(&mut self) {
        match self.dice.roll(16) {
            0..=3 => self.want().await,
            4 => self.remove().await,
            5 | 6 => self.claim().await,
            7..=9 => self.plan().await,
            10..=12 => self.end_batch().await,
            13 | 14 => self.late_write().await,
            _ => self.lose().await,
        }
    }

    async fn check(&self) {
        let rows = self.coverage().await;
        let covered: BTreeSet<(String, String)> =
            rows.iter().map(|(family, item, ..)| (family.clone(), item.clone())).collect();
        assert_eq!(covered, self.wanted, "a row exists if and only if the item is wanted");
        for (_, item, state, batch) in &rows {
            assert_eq!(state == "in_flight", batch.is_some(), "{item}");
        }
        let sql = "select count(*) from grasp_coverage c
                   where c.batch is not null and not exists (
                       select from grasp_batch b join grasp_relay r on r.id = b.relay_id
                       where b.id = c.batch and b.status = 'open' and b.epoch = r.lease_epoch
                         and r.lease_owner is not null and b.family = c.family)";
        let strays: i64 = sqlx::query_scalar(sql).fetch_one(self.db).await.unwrap();
        assert_eq!(strays, 0, "in flight only in an open batch of the current lease");
        let sql = "select count(*) from (
                       select family, state, count(*) as n from grasp_coverage group by 1, 2
                       except select family, state, items from grasp_coverage_count) wrong";
        let wrong: i64 = sqlx::query_scalar(sql).fetch_one(self.db).await.unwrap();
        assert_eq!(wrong, 0, "the counts are those of the rows");
    }

    async fn calm_down(&mut self) {
        if !self.is_held {
            self.claim().await;
        }
        let lease = *self.leases.last().unwrap();
        for batch in self.batches.clone().iter().filter(|batch| batch.lease == lease) {
            let _may_have_ended = batch::confirm(self.db, batch, Fetched::default()).await.unwrap();
        }
        self.sql("update grasp_coverage set retry_at = now()").await;
        while let Some(batch) = coverage::plan(self.db, lease).await.unwrap() {
            let ended = batch::confirm(self.db, &batch, Fetched::default()).await.unwrap();
            assert_eq!(ended, Settled::Written(()));
        }
        self.check().await;
        assert!(self.coverage().await.iter().all(|(_, _, state, _)| state == "confirmed"));
    }
}

#[tokio::test]
async fn any_order_of_events_ends_with_coverage_as_wanted_and_confirmed() {
    let database = TestDatabase::new().await;
    let db = &database.pool;
    for run in 0..RUNS {
        sqlx::query("delete from grasp_relay").execute(db).await.unwrap();
        sqlx::query("insert into grasp_relay (url) values ('wss://model.test')")
            .execute(db)
            .await
            .unwrap();
        let mut model = Model {
            db,
            dice: Dice(run),
            wanted: BTreeSet::new(),
            leases: Vec::new(),
            is_held: false,
            batches: Vec::new(),
        };
        for _ in 0..STEPS {
            model.step().await;
            model.check().await;
        }
        model.calm_down().await;
    }
}
