//! What an upstream accepts, as far as it is known before an event is sent.

use serde_json::Value;
use tender_jobs::mirror::{
    event::{Event, outgoing::NOT_SENT},
    upstream::Upstream,
};

/// The bytes of `["EVENT",…]` around an event.
const ENVELOPE: usize = 10;

/// The limits of the upstream's NIP-11 document, and the authors whose events it takes.
#[derive(Debug, Clone, Default)]
pub(in crate::mirror) struct Accepts {
    message_bytes: Option<usize>,
    content_chars: Option<usize>,
    tags: Option<usize>,
    /// The only author; `None` for every author.
    author: Option<[u8; 32]>,
}

impl Accepts {
    /// Reads what is known of the upstream. `own` is the public key that answers its challenges; an
    /// upstream that takes events from their authors only takes no others from us.
    pub(in crate::mirror) fn of(upstream: &Upstream, own: Option<[u8; 32]>) -> Self {
        let limit = |name: &str| {
            let number = upstream.information.as_ref()?.get(name).and_then(Value::as_u64)?;
            usize::try_from(number).ok().filter(|number| *number > 0)
        };
        let nobody = [0; 32]; // no event has this author: it is no point of the curve
        Self {
            message_bytes: limit("max_message_length"),
            content_chars: limit("max_content_length"),
            tags: limit("max_event_tags"),
            author: upstream.authors_only_at.map(|_| own.unwrap_or(nobody)),
        }
    }

    /// Returns the only author whose events the upstream takes; `None` for every author.
    pub(in crate::mirror) fn author(&self) -> Option<[u8; 32]> {
        self.author
    }

    /// Returns why the upstream would not take the event; `None` if nothing speaks against it.
    pub(super) fn problem(&self, event: &Event) -> Option<String> {
        if self.author.is_some_and(|author| author != event.pubkey) {
            return Some(format!("{NOT_SENT}the upstream takes events from their authors only"));
        }
        if event.is_protected() {
            return Some(format!("{NOT_SENT}only its author may publish it (NIP-70)"));
        }
        let above = |what: &str, size: usize, limit: Option<usize>| {
            let limit = limit.filter(|limit| size > *limit)?;
            Some(format!("{NOT_SENT}{size} {what}, and the upstream's limit is {limit} (NIP-11)"))
        };
        let bytes = || serde_json::to_string(event).map_or(0, |text| text.len()) + ENVELOPE;
        above("tags", event.tags.len(), self.tags)
            .or_else(|| {
                let limit = self.content_chars?; // counted only if there is a limit
                above("characters of content", event.content.chars().count(), Some(limit))
            })
            .or_else(|| {
                let limit = self.message_bytes?;
                above("bytes of message", bytes(), Some(limit))
            })
    }
}

#[cfg(test)]
mod tests {
    use tender_jobs::mirror::event::EventId;

    use super::*;

    fn event(content: &str, tags: usize) -> Event {
        Event {
            id: EventId([1; 32]),
            pubkey: [2; 32],
            created_at: 1,
            kind: 1,
            tags: vec![vec!["t".to_owned()]; tags],
            content: content.to_owned(),
            sig: [3; 64],
        }
    }

    #[test]
    fn the_limits_are_inclusive() {
        let event = event("äöü", 2);
        let message = serde_json::json!(["EVENT", event]).to_string().len();
        let accepts = |message: usize, content: usize, tags: usize| Accepts {
            message_bytes: Some(message),
            content_chars: Some(content),
            tags: Some(tags),
            author: None,
        };
        assert_eq!(accepts(message, 3, 2).problem(&event), None);
        for limits in [accepts(message - 1, 3, 2), accepts(message, 2, 2), accepts(message, 3, 1)] {
            assert!(limits.problem(&event).is_some_and(|why| why.contains("NIP-11")), "{limits:?}");
        }
        let of_others = Accepts { author: Some([9; 32]), ..Accepts::default() };
        assert!(of_others.problem(&event).is_some_and(|why| why.contains("authors only")));
    }
}
