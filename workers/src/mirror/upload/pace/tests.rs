use proptest::prelude::*;

use super::*;

const START: Start = Start { pause: Duration::from_millis(100), size: 50 };
const QUICK: Duration = Duration::from_millis(20);

fn paused(start: Start, pause: Duration) -> Start {
    Start { pause, ..start }
}

#[test]
fn fast_answers_end_the_pause_and_then_the_batches_grow() {
    let (mut pace, now) = (Pace::default(), Instant::now());
    let mut steps = Vec::new();
    for _ in 0..11 {
        let Start { pause, size } = pace.get(START);
        steps.push((pause.as_millis(), size));
        pace.answered(START, (QUICK, size), now);
    }
    let grown = [(0, 50), (0, 100), (0, 200), (0, 400), (0, 500), (0, 500)];
    assert_eq!(steps[..5], [(100, 50), (50, 50), (25, 50), (12, 50), (6, 50)]);
    assert_eq!(steps[5..], grown);
}

#[test]
fn a_limit_brings_the_pause_back_for_ten_minutes() {
    let (mut pace, now) = (Pace::default(), Instant::now());
    pace.limited(paused(START, Duration::ZERO), now);
    assert_eq!(pace.get(paused(START, Duration::ZERO)).pause, POLITE);
    let mut pace = Pace::default();
    pace.limited(START, now);
    assert_eq!(pace.get(START).pause, 2 * START.pause);
    pace.answered(START, (QUICK, 50), now + WARY_FOR / 2);
    assert_eq!(pace.get(START).pause, 2 * START.pause);
    pace.answered(START, (QUICK, 50), now + WARY_FOR);
    assert_eq!(pace.get(START).pause, START.pause);
}

#[test]
fn slow_answers_make_the_pause_longer_and_another_setting_begins_anew() {
    let (mut pace, now) = (Pace::default(), Instant::now());
    for _ in 0..20 {
        pace.answered(START, (2 * SLOW, 50), now);
    }
    assert_eq!(pace.get(START), paused(START, LONGEST));
    let other = paused(START, 2 * START.pause);
    assert_eq!(pace.get(other), other);
}

#[test]
fn a_batch_that_was_not_whole_or_not_fast_lets_none_grow() {
    let start = paused(START, Duration::ZERO);
    let (mut pace, now) = (Pace::default(), Instant::now());
    pace.answered(start, (QUICK, 49), now);
    pace.answered(start, (2 * FAST, 50), now);
    assert_eq!(pace.get(start).size, 50);
    pace.answered(start, (FAST, 50), now);
    assert_eq!(pace.get(start).size, 100);
    pace.answered(start, (2 * FAST, 100), now);
    assert_eq!(pace.get(start).size, 100, "neither fast nor slow: it stays");
}

#[test]
fn the_bytes_of_a_batch_are_twice_those_of_a_fast_one_until_a_failure() {
    let (mut pace, now) = (Pace::default(), Instant::now());
    pace.get(START);
    assert_eq!(pace.bytes(), 0, "as configured");
    for (took, bytes, most) in [
        (FAST, 90_000, 180_000),
        (2 * FAST, 180_000, 180_000),
        (QUICK, 180_000, 360_000),
        (QUICK, 10, 360_000),
    ] {
        pace.carried(took, bytes);
        assert_eq!(pace.bytes(), most);
    }
    pace.failed(START, now);
    assert_eq!(pace.bytes(), 0);
    pace.carried(QUICK, 1000);
    pace.get(paused(START, Duration::ZERO));
    assert_eq!(pace.bytes(), 0, "another setting begins anew");
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Limited,
    Failed,
    Slow,
    Middling,
    Fast,
    FastInPart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => Just(Step::Limited), 1 => Just(Step::Failed), 1 => Just(Step::Slow),
        1 => Just(Step::Middling), 12 => Just(Step::Fast), 1 => Just(Step::FastInPart),
    ]
}

fn take(pace: &mut Pace, start: Start, step: Step, now: Instant) {
    let size = pace.get(start).size;
    match step {
        Step::Limited => pace.limited(start, now),
        Step::Failed => pace.failed(start, now),
        Step::Slow => pace.answered(start, (2 * SLOW, size), now),
        Step::Middling => pace.answered(start, (2 * FAST, size), now),
        Step::Fast => pace.answered(start, (QUICK, size), now),
        Step::FastInPart => pace.answered(start, (QUICK, size - 1), now),
    }
}

proptest! {
    #[test]
    fn the_pace_keeps_its_bounds(
        steps in proptest::collection::vec((step(), 0..300_u64), 1..80),
        pause in prop_oneof![2 => Just(0_u64), 1 => 1..20_000_u64],
        size in 1..1000_usize,
    ) {
        let start = Start { pause: Duration::from_millis(pause), size };
        let (mut pace, mut now) = (Pace::default(), Instant::now());
        let (mut limited_at, mut failed_at) = (None, None);
        for (step, seconds) in steps {
            now += Duration::from_secs(seconds);
            let before = pace.get(start);
            take(&mut pace, start, step, now);
            if matches!(step, Step::Limited) { limited_at = Some(now) }
            if matches!(step, Step::Limited | Step::Failed | Step::Slow) { failed_at = Some(now) }
            let after = pace.get(start);
            let is_wary = |at: Option<Instant>| at.is_some_and(|at| now < at + WARY_FOR);

            prop_assert!(after.pause <= start.pause.max(LONGEST));
            prop_assert!((size..=size.max(LARGEST)).contains(&after.size));
            prop_assert!(after.size <= 2 * before.size);
            prop_assert!(after.pause.is_zero() || after.size == size, "large only without a pause");
            prop_assert!(!is_wary(failed_at) || after.size == size, "small after a failure");
            prop_assert!(!is_wary(limited_at) || after.pause >= POLITE.max(start.pause));
            if after.size > before.size {
                prop_assert!(matches!(step, Step::Fast), "{step:?}");
            }
        }
    }

    #[test]
    fn an_upstream_that_is_always_fast_gets_the_largest_batches(
        pause in 0..20_000_u64, size in 1..1000_usize,
    ) {
        let start = Start { pause: Duration::from_millis(pause), size };
        let (mut pace, now) = (Pace::default(), Instant::now());
        for _ in 0..24 { // a pause of 20 s is halved twelve times, and one event is doubled nine times
            take(&mut pace, start, Step::Fast, now);
        }
        prop_assert_eq!(pace.get(start), Start { pause: Duration::ZERO, size: size.max(LARGEST) });
    }
}
