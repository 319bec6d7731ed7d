//! What happened to a repository.

use tender_jobs::grasp::view::Moment;

/// Moments of the same kind that follow each other.
pub(crate) struct Moments<'a> {
    /// The latest of them.
    pub(crate) first: &'a Moment,
    /// The number of accepted events, or of delivered items.
    pub(crate) number: i64,
}

/// Puts moments of the same kind that follow each other together.
pub(crate) fn moments(timeline: &[Moment]) -> Vec<Moments<'_>> {
    let mut all: Vec<Moments<'_>> = Vec::new();
    for one in timeline {
        let number = one.items.unwrap_or(1);
        match all.last_mut() {
            Some(last) if kind(last.first) == kind(one) => last.number += number,
            _ => all.push(Moments { first: one, number }),
        }
    }
    all
}

/// What moments of the same kind have in common.
fn kind(one: &Moment) -> (&str, [Option<&str>; 4], Option<i32>) {
    let texts = [&one.relay, &one.source, &one.rule, &one.family];
    (&one.what, texts.map(Option::as_deref), one.kind)
}

impl Moments<'_> {
    /// Returns them in words, such as `accepted 2 events of kind 1621 (live; rule repository)`.
    pub(crate) fn words(&self) -> String {
        let Moment { what, relay, source, rule, family, kind, .. } = self.first;
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let from = relay.as_ref().map(|relay| format!(" from {relay}")).unwrap_or_default();
        if what == "confirmed" {
            return format!("{} delivered{from}", super::items(self.number, &text(family)));
        }
        let events = match self.number {
            1 => "an event".to_owned(),
            number => crate::words::counted(number, "event"),
        };
        let kind = kind.map(|kind| format!(" of kind {kind}")).unwrap_or_default();
        format!("accepted {events}{kind}{from} ({}; rule {})", text(source), text(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(kind: i32) -> Moment {
        Moment {
            at: chrono::DateTime::UNIX_EPOCH,
            what: "accepted".to_owned(),
            relay: None,
            source: Some("live".to_owned()),
            rule: Some("event".to_owned()),
            event_id: None,
            kind: Some(kind),
            family: None,
            items: None,
        }
    }

    #[test]
    fn moments_of_the_same_kind_are_told_together() {
        let timeline = [accepted(1), accepted(1), accepted(7), accepted(1)];
        let told: Vec<_> = moments(&timeline).iter().map(Moments::words).collect();
        assert_eq!(told[0], "accepted 2 events of kind 1 (live; rule event)");
        assert_eq!((told.len(), told[1].contains("an event of kind 7")), (3, true));
    }
}
