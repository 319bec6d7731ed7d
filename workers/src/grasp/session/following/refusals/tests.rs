use super::*;

fn refuse(refusals: &mut Refusals, item: u32, was_refused: bool) {
    let result = Err(StepError::Refused("restricted: members only".to_owned()));
    refusals.note_of(&result, Family::State, &[item.to_string()], was_refused);
}

#[test]
fn a_relay_that_refuses_everything_is_probed_by_one_request_at_a_time() {
    let mut refusals = Refusals::default();
    for item in 0..2 {
        refuse(&mut refusals, item, false);
        assert!(refusals.allow(2));
    }
    refuse(&mut refusals, 2, false);
    assert!(!refusals.allow(0) && !refusals.allow_refused(0), "the probe waits");
    refusals.first.probe_at = Some(Instant::now());
    assert!(refusals.allow(0) && !refusals.allow(1), "one at a time");
    assert!(!refusals.allow_refused(0), "the probe asks for something else");
    (3..23).for_each(|item| refuse(&mut refusals, item, false));
    let wait = refusals.kept().1.probe_in;
    assert!(wait > Some(Duration::from_mins(59)) && wait <= Some(PROBE_CAP));
    refusals.note_of(&Ok(()), Family::State, &[], false);
    assert!(refusals.allow_refused(2), "a success ends it");
    assert_eq!(refusals.kept().0, followed::Refusals::default());
}

#[test]
fn an_item_that_is_refused_again_and_again_holds_back_only_what_was_refused() {
    let mut refusals = Refusals::default();
    (0..20).for_each(|_| refuse(&mut refusals, 1, false));
    (0..20).for_each(|item| refuse(&mut refusals, 100 + item, true));
    assert!(refusals.allow(2) && !refusals.allow_refused(0));
    let (all, first) = refusals.kept();
    assert_eq!((all.count, first.count), (40, 1));
    let next = Refusals::new(all, first);
    assert!(next.allow(2) && !next.allow_refused(0), "also after a reconnect");
}

#[test]
fn other_failures_are_no_refusals() {
    let mut refusals = Refusals::default();
    for item in 0..5 {
        let silent = Err(StepError::Silent("silent".to_owned()));
        refusals.note_of(&silent, Family::State, &[item.to_string()], false);
    }
    assert!(refusals.allow(2) && refusals.allow_refused(2));
}
