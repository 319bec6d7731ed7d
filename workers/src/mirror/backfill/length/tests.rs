use proptest::prelude::*;

use super::*;

const HOUR: i64 = 3600;
const WEEK: i64 = 168 * HOUR;

fn lengths(next: i64) -> Lengths {
    Lengths { next, longest: WEEK, easy: 0, refused: None }
}

fn done(effort: Effort, seconds: i64) -> Done {
    Done { effort, took: Duration::from_secs(1), seconds, events: 0, held: 0, cap: None }
}

fn easy(lengths: Lengths) -> Lengths {
    lengths.after(done(Effort::Easy, lengths.next))
}

#[test]
fn easy_windows_reach_a_week_after_four() {
    let all = std::iter::successors(Some(lengths(2 * HOUR)), |before| Some(easy(*before)));
    let hours: Vec<i64> = all.take(6).map(|lengths| lengths.next / HOUR).collect();
    assert_eq!(hours, [2, 8, 32, 128, 168, 168]);
}

#[test]
fn a_window_that_took_little_for_many_events_is_followed_by_one_of_five_seconds() {
    let of = |held, millis| Done {
        held,
        took: Duration::from_millis(millis),
        ..done(Effort::Easy, HOUR)
    };
    let hours = |done| lengths(HOUR).after(done).next / HOUR;
    assert_eq!([hours(of(300, 100)), hours(of(300, 500)), hours(of(300, 4000))], [50, 10, 4]);
    assert_eq!(hours(of(300, 0)), 64, "at most");
    assert_eq!(hours(of(99, 100)), 4, "a few events say nothing about the density");
}

#[test]
fn a_fair_window_keeps_the_length_and_a_hard_one_halves_it() {
    let fair = lengths(8 * HOUR).after(done(Effort::Fair, 8 * HOUR));
    assert_eq!(fair, lengths(8 * HOUR));
    let hard = lengths(8 * HOUR).after(done(Effort::Hard, 8 * HOUR));
    assert_eq!(hard, lengths(4 * HOUR));
    assert_eq!(lengths(WEEK).after_cut(WEEK), lengths(WEEK / 2));
    assert_eq!(lengths(90).after_cut(90).next, SHORTEST);
}

#[test]
fn the_effort_follows_from_the_time() {
    for (seconds, effort) in [
        (0, Effort::Easy),
        (5, Effort::Easy),
        (6, Effort::Fair),
        (20, Effort::Fair),
        (21, Effort::Hard),
    ] {
        for (rounds, differences) in [(3, 0), (1, 1001)] {
            let of = Effort::of(Duration::from_secs(seconds), rounds, differences);
            assert_eq!(of, effort, "{seconds} s");
        }
    }
}

#[test]
fn a_small_window_is_never_hard() {
    for (seconds, effort) in
        [(0, Effort::Easy), (45, Effort::Easy), (46, Effort::Fair), (99, Effort::Fair)]
    {
        assert_eq!(Effort::of(Duration::from_secs(seconds), 2, 1000), effort, "{seconds} s");
    }
}

/// Covers five years without events; `took` is what a window costs. Returns the number of windows.
fn windows_of_five_years(took: impl Fn(i64) -> u64) -> usize {
    let (mut now, mut left, mut windows) = (lengths(2 * HOUR), 5 * 365 * 24 * HOUR, 0);
    while left > 0 {
        windows += 1;
        let seconds = took(now.next);
        if seconds > 100 {
            now = now.after_cut(now.next);
        } else {
            left -= now.next;
            let effort = Effort::of(Duration::from_secs(seconds), 1, 0);
            now = now.after(done(effort, now.next));
        }
    }
    windows
}

#[test]
fn a_relay_that_needs_long_for_any_request_gets_long_windows() {
    let windows = windows_of_five_years(|_| 25);
    assert!(windows < 1000, "{windows}");
}

#[test]
fn a_relay_whose_scans_are_slow_wastes_few_jobs() {
    for rate in [600, 1000, 2000, 4000] {
        let windows = windows_of_five_years(|length| u64::try_from(length / rate).unwrap());
        let most = 5 * 365 * 24 * HOUR / (22 * rate) + 10;
        assert!(i64::try_from(windows).unwrap() <= most, "{windows} of {most} at {rate}");
    }
}

#[test]
fn a_refused_length_is_tried_again_after_eight_easy_windows() {
    let mut now = lengths(32 * HOUR).after_refusal(32 * HOUR, None, 0);
    assert_eq!((now.next, now.refused), (16 * HOUR, Some(32 * HOUR)));
    for _ in 0..7 {
        now = easy(now);
        assert_eq!(now.next, 16 * HOUR);
    }
    now = now.after(done(Effort::Fair, 16 * HOUR));
    for _ in 0..8 {
        assert_eq!(now.next, 16 * HOUR, "in a row");
        now = easy(now);
    }
    assert_eq!((now.next, now.refused), (32 * HOUR, Some(32 * HOUR)));
    let again = now.after_refusal(32 * HOUR, None, 0);
    assert_eq!((again.next, again.refused, again.easy), (16 * HOUR, Some(32 * HOUR), 0));
    let accepted = easy(now);
    assert_eq!((accepted.next, accepted.refused), (128 * HOUR, None));
}

#[test]
fn windows_aim_at_half_of_a_set_that_the_relay_cuts() {
    let of = |events| Done { events, cap: Some(1000), ..done(Effort::Easy, 2 * HOUR) };
    assert_eq!(lengths(2 * HOUR).after(of(501)).next, 2 * HOUR * 500 / 501);
    assert_eq!(
        lengths(4 * HOUR).after(of(500)).next,
        4 * HOUR,
        "the part that was left was shorter"
    );
    assert_eq!(lengths(2 * HOUR).after(of(1000)).next, HOUR);
    assert_eq!(lengths(2 * HOUR).after(of(400)).next, 2 * HOUR * 500 / 400);
    let without = Done { cap: None, ..of(9000) };
    assert_eq!(lengths(2 * HOUR).after(without).next, 8 * HOUR);
}

#[test]
fn a_small_set_that_the_relay_cuts_does_not_freeze_the_windows() {
    for cap in 1..8 {
        let of = |events| Done { events, cap: Some(cap), ..done(Effort::Easy, 2 * HOUR) };
        assert_eq!(
            lengths(2 * HOUR).after(of(0)).next,
            8 * HOUR,
            "{cap}: an empty window says nothing"
        );
        let one = lengths(2 * HOUR).after(of(1)).next;
        assert!((2 * HOUR..=8 * HOUR).contains(&one), "{cap}: {one}");
    }
}

#[test]
fn after_silence_a_length_grows_again_after_eight_easy_windows() {
    let mut now = lengths(WEEK).after_silence(2 * HOUR, false).after_silence(2 * HOUR, false);
    assert_eq!(now.next, WEEK / 4);
    now = easy(now).after(done(Effort::Fair, WEEK / 4));
    for _ in 0..7 {
        assert_eq!(now.next, WEEK / 4);
        now = easy(now);
    }
    assert_eq!(now.next, WEEK);
    assert_eq!(lengths(3 * HOUR).after_silence(2 * HOUR, false).next, 2 * HOUR);
}

#[test]
fn a_reconciliation_that_was_not_answered_is_tried_again_after_eight_easy_windows_of_half_of_it() {
    let fast = |now: Lengths| {
        let took = Duration::from_millis(10);
        now.after(Done { held: 1000, took, ..done(Effort::Easy, now.next) })
    };
    let mut now = lengths(64 * HOUR).after_silence(2 * HOUR, true).after_silence(2 * HOUR, true);
    for _ in 0..8 {
        assert_eq!(now.next, 16 * HOUR);
        now = fast(now);
    }
    assert_eq!(now.next, 32 * HOUR, "however fast they were");
}

#[test]
fn windows_do_not_grow_beyond_many_events() {
    let of = |held| Done { held, ..done(Effort::Easy, 8 * HOUR) };
    let sparse = Done { took: Duration::from_millis(100), ..of(10_000) };
    assert_eq!(lengths(8 * HOUR).after(sparse).next, 80 * HOUR);
    assert_eq!(lengths(8 * HOUR).after(of(50_000)).next, 16 * HOUR);
    assert_eq!(lengths(8 * HOUR).after(of(200_000)).next, 8 * HOUR, "nor do they shrink");
    let ours = Done { events: 100, ..of(200_000) };
    assert_eq!(lengths(8 * HOUR).after(ours).next, 8 * HOUR, "although the relay has few");
}

#[test]
fn a_refusal_halves_as_often_as_the_relay_says() {
    assert_eq!(halved(7200, None, 0), 3600);
    assert_eq!(halved(7200, Some(1000), 8000), 900);
    assert_eq!(halved(100, None, 0), 60);
    let told = lengths(7200).after_refusal(7200, Some(1000), 8000);
    assert_eq!((told.next, told.refused), (900, Some(1800)), "it does not grow beyond that either");
}

/// A relay that refuses windows of more than `limit` events, and sends `rate` events a second. `density` is the number
/// of events in each week before now.
#[derive(Debug, Clone)]
struct Relay {
    density: Vec<i64>,
    limit: i64,
    rate: i64,
}

impl Relay {
    fn any() -> impl Strategy<Value = Relay> {
        let week = prop_oneof![Just(0_i64), 1..1000_i64, 1000..2_000_000_i64];
        let limit = prop_oneof![Just(i64::MAX), 500..1_000_000_i64];
        (proptest::collection::vec(week, 1..60), limit, 100..20_000_i64)
            .prop_map(|(density, limit, rate)| Relay { density, limit, rate })
    }

    /// Returns the number of events between two ages in seconds.
    fn between(&self, from: i64, to: i64) -> i64 {
        let weeks = (0_i64..).zip(&self.density);
        weeks
            .map(|(week, count)| {
                let shared = to.min((week + 1) * WEEK) - from.max(week * WEEK);
                shared.max(0) * count / WEEK
            })
            .sum()
    }
}

proptest! {
    #[test]
    fn every_history_is_covered_second_by_second_and_refusals_stay_rare(relay in Relay::any()) {
        let target = i64::try_from(relay.density.len()).unwrap() * WEEK;
        let (mut now, mut covered) = (lengths(2 * HOUR), 0);
        let (mut is_done, mut refusals, mut windows) = (Vec::new(), 0_usize, 0);
        while covered < target {
            windows += 1;
            prop_assert!(windows < 2_000_000, "it ends");
            let (before, span) = (now, now.next.min(target - covered));
            let events = relay.between(covered, covered + span);
            if events > relay.limit && span > SHORTEST {
                refusals += 1;
                is_done.clear();
                now = now.after_refusal(span, None, 0);
                prop_assert!(now.next <= span);
            } else {
                covered += span;
                let took = Duration::from_secs(u64::try_from(events / relay.rate).unwrap());
                if let Some(refused) = before.refused && span >= refused {
                    prop_assert!(is_done.len() >= 8, "a refused length only after eight easy windows");
                }
                let effort = Effort::of(took, 3, usize::try_from(events).unwrap());
                if effort == Effort::Easy { is_done.push(span) } else { is_done.clear() }
                let events = usize::try_from(events).unwrap();
                now = now.after(Done { effort, took, seconds: span, events, held: events, cap: None });
                prop_assert!(now.next <= GROWTH.1 * before.next);
                prop_assert!(effort == Effort::Hard || now.next >= before.next, "only a hard one shortens");
            }
            prop_assert!((SHORTEST..=WEEK).contains(&now.next));
        }
        let done = windows - refusals;
        // Each way down from a week is at most 14 halvings, and each refused try costs eight windows.
        prop_assert!(refusals <= 14 * (1 + relay.density.len()) + done / 8, "{refusals} of {windows}");
    }
}
