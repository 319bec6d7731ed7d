use proptest::prelude::*;
use tender_jobs::mirror::event::{EventId, outgoing::Candidate};

use super::*;

fn event(number: u8, bytes: usize) -> Event {
    Event {
        id: EventId([number; 32]),
        pubkey: [0; 32],
        created_at: 0,
        kind: 1,
        tags: Vec::new(),
        content: "x".repeat(bytes),
        sig: [0; 64],
    }
}

fn suspect(attempts: i32) -> Waiting {
    Waiting { event: event(1, 0), attempts, is_suspect: true, is_sent: true }
}

fn fixed(size: usize) -> Room {
    Room { configured: size, grown: size, bytes: MOST_BYTES }
}

fn found(events: impl Iterator<Item = Event>, up_to: i64) -> Candidates {
    let events = (1..).zip(events).map(|(position, event)| Candidate { event, position });
    Candidates { events: events.collect(), up_to, more: false }
}

fn sizes(batches: &[Batch]) -> Vec<usize> {
    batches.iter().map(|batch| batch.items.len()).collect()
}

fn all(unsent: &mut Unsent, room: Room) -> Vec<Batch> {
    std::iter::from_fn(|| unsent.next(room)).collect()
}

#[test]
fn suspects_share_ever_smaller_batches_and_end_alone() {
    let halved = |attempts| halved(500, attempts);
    assert_eq!([1, 2, 3, 4, 5].map(halved), [250, 125, 62, 1, 1]);
    let suspects = [1, 1, 1, 4, 4, 1].map(suspect).to_vec();
    let mut unsent = Unsent::new(suspects, found(std::iter::empty(), 0), 4, 0);
    let grown = Room { configured: 4, grown: 500, bytes: MOST_BYTES };
    assert_eq!(sizes(&all(&mut unsent, grown)), [2, 1, 1, 1, 1], "they never grow");
}

#[test]
fn the_last_batch_reaches_the_end_of_the_page() {
    let found = found((1..=5).map(|number| event(number, 0)), 9);
    let batches = all(&mut Unsent::new(Vec::new(), found, 2, 3), fixed(2));
    assert_eq!(sizes(&batches), [2, 2, 1]);
    assert_eq!(batches.iter().map(|batch| batch.up_to).collect::<Vec<_>>(), [2, 4, 9].map(Some));
    let was_sent = batches.iter().flat_map(|batch| &batch.items).map(|item| item.was_sent);
    assert_eq!(was_sent.collect::<Vec<_>>(), [true, true, true, false, false]);
}

#[test]
fn waiting_events_go_first_and_suspects_last() {
    let waiting = Waiting { is_suspect: false, is_sent: false, ..suspect(0) };
    let found = found((2..=3).map(|number| event(number, 0)), 7);
    let mut unsent = Unsent::new(vec![suspect(1), waiting], found, 50, 0);
    let batches = all(&mut unsent, fixed(50));
    assert_eq!(sizes(&batches), [1, 2, 1]);
    assert_eq!(batches.iter().map(|batch| batch.up_to).collect::<Vec<_>>(), [None, Some(7), None]);
    assert!(unsent.is_empty());
}

#[test]
fn a_batch_grows_by_small_events_only() {
    let large = found((0..40).map(|number| event(number, MOST_BYTES / 10)), 40);
    let mut unsent = Unsent::new(Vec::new(), large, 15, 0);
    let grown = Room { configured: 15, grown: 100, bytes: usize::MAX };
    assert_eq!(sizes(&all(&mut unsent, grown)), [15, 15, 10], "the configured number, not more");
    let mixed = found((0..40).map(|number| event(number, MOST_BYTES / 30)), 40);
    let mut unsent = Unsent::new(Vec::new(), mixed, 15, 0);
    assert_eq!(sizes(&all(&mut unsent, grown)), [29, 11], "as many as the bytes allow");
    let small = found((0..40).map(|number| event(number, 100)), 40);
    let mut unsent = Unsent::new(Vec::new(), small, 15, 0);
    let grown = Room { bytes: 20 * (100 + FIXED_BYTES), ..grown };
    assert_eq!(
        sizes(&all(&mut unsent, grown)),
        [20, 20],
        "as many as the bytes of the last ones allow"
    );
}

proptest! {
    #[test]
    fn every_event_leaves_once_in_its_order_and_positions_only_rise(
        count in 0..120_u8,
        waiting in 0..10_u8,
        bytes in prop_oneof![Just(0_usize), Just(MOST_BYTES / 20)],
        configured in 1..20_usize,
        rooms in proptest::collection::vec(1..60_usize, 1..20),
        most in 0..2 * MOST_BYTES,
    ) {
        let of = |number| Waiting { event: event(number, 0), attempts: 0, is_suspect: false, is_sent: false };
        let found = found((0..count).map(|number| event(number, bytes)), 1000);
        let mut unsent = Unsent::new((0..waiting).map(of).collect(), found, configured, 0);
        let mut rooms = rooms.into_iter().cycle();
        let (mut ids, mut reached) = (Vec::new(), 0);
        while let Some(batch) = unsent.next(Room { configured, grown: rooms.next().unwrap_or(1), bytes: most }) {
            prop_assert!(!batch.items.is_empty());
            let bytes: usize = batch.items.iter().map(|item| item.event.bytes()).sum();
            prop_assert!(batch.items.len() <= configured || bytes <= most.min(MOST_BYTES));
            ids.extend(batch.items.iter().map(|item| item.event.id.0[0]));
            if let Some(up_to) = batch.up_to {
                let sent = i64::try_from(ids.len()).unwrap_or(0) - i64::from(waiting);
                let is_last = sent == i64::from(count);
                prop_assert_eq!(up_to, if is_last { 1000 } else { sent }, "the last event's position");
                prop_assert!(up_to > reached);
                reached = up_to;
            }
        }
        let wanted: Vec<u8> = (0..waiting).chain(0..count).collect();
        prop_assert_eq!(ids, wanted);
    }
}
