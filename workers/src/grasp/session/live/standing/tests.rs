use super::*;

fn closed(since: i64) -> Standing {
    Standing::new(Filter::default(), State::Closed { again: Instant::now(), since })
}

fn reopen(one: &mut Standing, since: i64) {
    one.reopened(State::Closed { again: Instant::now(), since });
}

#[test]
fn a_subscription_that_is_closed_again_and_again_has_one_repair() {
    let mut one = closed(100);
    reopen(&mut one, 200);
    assert_eq!(one.begin_repair(), Some(100));
    for since in [300, 400] {
        reopen(&mut one, since);
        assert_eq!(one.begin_repair(), None, "one task at a time");
    }
    one.repair_failed(true);
    assert_eq!(one.missed(), Some(100));
    assert!(!one.is_due(), "a failed repair waits");
}

#[test]
fn a_filter_that_is_refused_live_and_on_request_is_hopeless_but_a_rate_limit_is_not() {
    let mut one = closed(100);
    (0..REFUSED).for_each(|_| one.close(100, "restricted: no"));
    reopen(&mut one, 200);
    (0..5).for_each(|_| one.repair_failed(false));
    assert!(!one.is_hopeless());
    (0..REFUSED).for_each(|_| one.repair_failed(true));
    assert!(one.is_hopeless() && !one.is_current());
    assert_eq!(one.words, "restricted: no", "the relay's words");
}

#[test]
fn a_refused_filter_that_is_polled_is_current() {
    let mut one = closed(100);
    (0..REFUSED).for_each(|_| one.close(100, "restricted: no"));
    reopen(&mut one, 200);
    assert!(!one.is_current());
    assert_eq!(one.begin_repair(), Some(100));
    one.repaired();
    assert!(one.is_current());
}

#[test]
fn what_was_missed_during_a_repair_is_repaired_next() {
    let mut one = closed(100);
    reopen(&mut one, 200);
    assert_eq!(one.begin_repair(), Some(100));
    reopen(&mut one, 300);
    one.repaired();
    assert_eq!(one.begin_repair(), Some(200));
}

#[test]
fn a_challenge_opens_a_closed_subscription_at_once_only_once() {
    let mut one = closed(100);
    let wait = |one: &Standing| match one.state {
        State::Closed { again, .. } => again.saturating_duration_since(Instant::now()),
        _ => Duration::ZERO,
    };
    one.close(100, "restricted: no");
    assert!(wait(&one) > Duration::from_mins(1));
    one.authenticated("first");
    assert_eq!(wait(&one), Duration::ZERO);
    one.close(100, "restricted: no");
    one.authenticated("first");
    assert!(wait(&one) > Duration::from_mins(2), "twice as long");
    one.authenticated("second");
    assert_eq!(wait(&one), Duration::ZERO);
}
