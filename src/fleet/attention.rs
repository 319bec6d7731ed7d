//! What needs an operator's attention, worst first: zooid instances that are out, queues that no worker
//! serves, paused queues, the database, then failures grouped by cause. The dashboard, `tender top` and
//! `tender status` show the same items. Nothing is reported twice: an item that a worse one explains is
//! left out.

use chrono::TimeDelta;
use tender_jobs::{
    mirror::lane::Trouble,
    provision::{
        SYNC_RELAY,
        instance::Instance,
        relay::{COUNT_CAP, Cause},
    },
    queue::{Paused, QueueStatus},
};

use super::{
    Fleet,
    item::{Item, Remedy},
};

/// A transaction that is open for longer than this needs attention, in seconds.
const LONG_OPEN: f64 = 300.0;
/// The count of open killed jobs looks at the last 1,000 that no operator has seen; see [`QueueStatus`].
const KILLED_CAP: i64 = 1000;

impl Fleet {
    /// Returns the items that need attention and are not put aside, the worst first. A snoozed item that has grown or
    /// begun anew since is among them.
    pub fn attention(&self) -> Vec<Item> {
        self.items().filter(|item| !item.is_put_aside()).collect()
    }

    /// Returns the items that an operator has put aside.
    pub fn snoozed(&self) -> Vec<Item> {
        self.items().filter(Item::is_put_aside).collect()
    }

    fn items(&self) -> impl Iterator<Item = Item> {
        let mut items: Vec<Item> = self.out().collect();
        items.extend(self.unserved());
        items.extend(self.grasp.unserved());
        items.extend(self.paused());
        items.extend(self.old_transaction());
        items.extend(self.given_up());
        items.extend(self.late());
        items.extend(self.troubled_lanes());
        items.extend(self.grasp.failures());
        items.extend(self.killed());
        items.into_iter().map(|item| self.with_snooze(item))
    }

    fn with_snooze(&self, item: Item) -> Item {
        let snooze = self.snoozes.iter().find(|snooze| snooze.key == item.key).cloned();
        Item { snooze, ..item }
    }

    fn out(&self) -> impl Iterator<Item = Item> {
        self.instances.iter().filter(|instance| instance.is_out()).map(instance_out)
    }

    fn paused(&self) -> impl Iterator<Item = Item> {
        self.paused.iter().map(paused_queue)
    }

    fn old_transaction(&self) -> Option<Item> {
        let is_old = self.oldest_transaction_secs > LONG_OPEN;
        is_old.then(|| {
            #[expect(clippy::cast_possible_truncation, reason = "a time to show")]
            let age = TimeDelta::milliseconds((self.oldest_transaction_secs * 1000.0) as i64);
            Item::new(
                "database:transaction".to_owned(),
                "A transaction in the database does not end".to_owned(),
            )
            .since(Some(self.now - age))
            .advice("Queues become slower until it ends. Find it in pg_stat_activity and end it.")
            .command("tender doctor".to_owned())
        })
    }

    fn given_up(&self) -> Vec<Item> {
        let mut items: Vec<Item> = self.causes.largest.iter().map(gave_up).collect();
        let (rest, plus) = self.gave_up_otherwise();
        if rest > 0 {
            let headline =
                format!("{rest}{plus} more relays gave up, for causes that are not listed");
            items.push(
                Item::new("gave_up".to_owned(), headline)
                    .size(rest)
                    .page("/relays", &[("sync", "gave_up")])
                    .command("tender relay list --sync gave_up".to_owned()),
            );
        }
        items
    }

    /// The relays that gave up for causes that are not listed, and a plus if there may be more.
    fn gave_up_otherwise(&self) -> (i64, &'static str) {
        let listed: i64 = self.causes.largest.iter().map(|cause| cause.relays).sum();
        match self.summary.gave_up {
            all @ ..COUNT_CAP => (all - listed, ""),
            _ => (self.causes.others, "+"),
        }
    }

    /// Relays that have waited for too long, unless an item above explains it.
    fn late(&self) -> Option<Item> {
        // What is put aside explains nothing: else a snooze would hide relays that wait for another cause.
        let is_shown = |item: Item| !self.with_snooze(item).is_put_aside();
        let is_explained = self.out().any(is_shown)
            || !self.is_served(SYNC_RELAY)
            || self
                .paused
                .iter()
                .filter(|one| one.queue == SYNC_RELAY)
                .map(paused_queue)
                .any(is_shown);
        if self.late == 0 || is_explained {
            return None;
        }
        let headline = match self.late {
            1 => "1 relay has waited for zooid for more than 5 minutes".to_owned(),
            late => {
                format!("{late}{} relays have waited for zooid for more than 5 minutes", plus(late))
            }
        };
        let item = Item::new("late".to_owned(), headline)
            .size(self.late)
            .since(self.summary.oldest_pending_at)
            .page("/relays", &[("sync", "late"), ("order", "waiting")])
            .command("tender relay list --sync pending".to_owned());
        Some(if self.has_lost_jobs() { item.remedy(Remedy::Reconcile) } else { item })
    }

    /// Whether relays wait and no job of theirs does.
    fn has_lost_jobs(&self) -> bool {
        let jobs =
            |queue: &QueueStatus| queue.waiting + queue.retrying + queue.queued + queue.running;
        self.queues.iter().any(|queue| queue.queue == SYNC_RELAY && jobs(queue) == 0)
    }

    fn troubled_lanes(&self) -> Vec<Item> {
        let mut items: Vec<Item> = self.lanes.iter().map(lanes_failed).collect();
        let named: i64 = self.lanes.iter().map(|trouble| trouble.lanes).sum();
        let all = self.lanes.first().map_or(0, |trouble| trouble.all_lanes);
        if all > named {
            let headline =
                format!("{} other lanes failed for causes that are not listed", all - named);
            items.push(
                Item::new("lanes".to_owned(), headline)
                    .size(all - named)
                    .page("/upstreams", &[])
                    .command("tender mirror status".to_owned()),
            );
        }
        items
    }

    fn killed(&self) -> impl Iterator<Item = Item> {
        self.queues.iter().filter(|queue| queue.killed_open > 0).map(killed_jobs)
    }
}

/// The item is the instance: that more relays wait for it is no other failure.
fn instance_out(instance: &Instance) -> Item {
    let what = if instance.refuses_key { "refuses our key" } else { "is out" };
    let (name, breaker) = (&instance.name, instance.breaker.as_str());
    let waiting = match instance.waiting {
        0 => "no relay waits yet".to_owned(),
        1 => "1 relay waits".to_owned(),
        many => format!("{many}{} relays wait", plus(many)),
    };
    let headline = format!("zooid at {name} {what}: its breaker is {breaker}, and {waiting}");
    let advice = if instance.refuses_key {
        "Do what the error says; else compare `ROBOT_SECRET` with zooid's `API_WHITELIST`, and both clocks."
    } else {
        "Repair zooid, or the way to it; no attempt is spent."
    };
    let advice = format!("{advice} {}", next_probe(instance));
    Item::new(format!("instance:{name}"), headline)
        .grave()
        .since(instance.opened_at)
        .error(&instance.last_error)
        .advice(&advice)
        .page("/relays", &[("held_by", name)])
        .command(format!("tender instance probe {name}"))
        .remedy(Remedy::Probe(name.clone()))
}

/// When the relays of an instance that is out go on by themselves.
fn next_probe(instance: &Instance) -> String {
    match instance.retry_at {
        Some(at) => format!(
            "The relays go on when a probe succeeds; the next one is at {} or later.",
            at.format("%F %T UTC")
        ),
        None => "The relays go on when a probe succeeds.".to_owned(),
    }
}

fn paused_queue(paused: &Paused) -> Item {
    Item::new(format!("paused:{}", paused.queue), format!("{} is paused", paused.queue))
        .since(Some(paused.paused_at))
        .error(paused.reason.as_deref().unwrap_or_default())
        .page("/queues", &[])
        .command(format!("tender queue resume {}", paused.queue))
        .remedy(Remedy::Resume(paused.queue.clone()))
}

/// What follows a count of relays that ends at [`COUNT_CAP`].
fn plus(relays: i64) -> &'static str {
    if relays >= COUNT_CAP { "+" } else { "" }
}

/// One relay is named; several are counted.
fn gave_up(cause: &Cause) -> Item {
    let (headline, error) = match cause.relays {
        1 => (format!("{} gave up", cause.latest_host), &cause.latest_error),
        relays => (format!("{relays}{} relays gave up", plus(relays)), &cause.cause),
    };
    let item = Item::new(format!("gave_up:{}", cause.cause), headline)
        .size(cause.relays)
        .since(Some(cause.since))
        .error(error)
        .remedy(Remedy::SyncCause(cause.cause.clone()));
    if cause.relays == 1 {
        item.page(&format!("/relays/{}", cause.latest_id), &[])
            .command(format!("tender relay sync {}", cause.latest_id))
    } else {
        item.page("/relays", &[("sync", "gave_up"), ("cause", &cause.cause)])
            .command("tender relay list --sync gave_up".to_owned())
    }
}

fn lanes_failed(trouble: &Trouble) -> Item {
    let what =
        if trouble.cause.is_empty() { "stale: the holder sends no heartbeat" } else { "failed" };
    let verb = if trouble.cause.is_empty() { "is" } else { "has" };
    let headline = match (trouble.lanes, trouble.upstreams) {
        (1, _) => format!("Lane {} of {} {verb} {what}", trouble.lane, trouble.url),
        (lanes, 1) => format!("{lanes} lanes of {} {} {what}", trouble.url, plural(verb)),
        (lanes, upstreams) => {
            format!("{lanes} lanes of {upstreams} upstreams {} {what}", plural(verb))
        }
    };
    let error = if trouble.lanes == 1 { &trouble.error } else { &trouble.cause };
    let item = Item::new(format!("lanes:{}", trouble.cause), headline)
        .size(trouble.lanes)
        .since(trouble.since)
        .error(error)
        .command("tender mirror status".to_owned());
    if trouble.upstreams == 1 {
        item.page(&format!("/upstreams/{}", trouble.upstream_id), &[])
    } else {
        item.page("/upstreams", &[("cause", &trouble.cause)])
    }
}

fn plural(verb: &str) -> &'static str {
    if verb == "is" { "are" } else { "have" }
}

fn killed_jobs(queue: &QueueStatus) -> Item {
    let plus = if queue.killed_open >= KILLED_CAP { "+" } else { "" };
    let jobs = if queue.killed_open == 1 { "job was" } else { "jobs were" };
    let headline = format!("{}{plus} {jobs} killed in {}", queue.killed_open, queue.queue);
    Item::new(format!("killed:{}", queue.queue), headline)
        .size(queue.killed_open)
        .page("/jobs", &[("queue", &queue.queue), ("state", "open")])
        .command(format!("tender queue list --queue {} --state open", queue.queue))
        .remedy(Remedy::RetryKilled(queue.queue.clone()))
}
