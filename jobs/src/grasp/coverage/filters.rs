//! The filters of items. Pure: the same items give the same filters.

use std::collections::BTreeSet;

use serde_json::Value;

use super::ITEMS;
use crate::{
    grasp::family::Family,
    mirror::{
        event::EventId,
        filter::{self, Filter},
    },
};

/// The kinds of the first layer: announcements, and lists of grasp servers.
pub const ANNOUNCED: [u16; 2] = [30_617, 10_317];
/// The kind of a repository's state.
pub const STATE: u16 = 30_618;
/// The kind of a deletion.
pub const DELETION: u16 = 5;
/// The bytes of a request beside the values of its filter.
const ENVELOPE: usize = 300;
/// The open subscriptions above which filters are packed.
const PACKED_ABOVE: usize = 70;

/// The bounds that a relay sets to requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The longest message, in bytes.
    pub message: usize,
    /// The most live subscriptions. The others of the relay's limit are left to batches.
    pub live: usize,
    /// The most batches at the same time. A batch needs up to three subscriptions.
    pub batches: usize,
}

impl Bounds {
    /// Returns the bounds of a relay with this NIP-11 document.
    pub fn of(information: Option<&Value>) -> Self {
        let number = |key: &str| {
            let number = information.and_then(|of| of[key].as_u64()).filter(|number| *number > 0);
            number.and_then(|number| usize::try_from(number).ok())
        };
        let message = number("max_message_length").unwrap_or(usize::MAX).max(2 * ENVELOPE);
        let (live, batches) = match number("max_subscriptions") {
            None => (PACKED_ABOVE, 3),
            Some(most) if most < 20 => (most.saturating_sub(4).clamp(1, PACKED_ABOVE), 1),
            Some(most) => ((most - 10).min(PACKED_ABOVE), 3),
        };
        Self { message, live, batches }
    }
}

/// The filters of some items.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filters {
    /// Together they match everything that belongs to the items.
    pub filters: Vec<Filter>,
    /// Items that no filter can name.
    pub unusable: Vec<Unusable>,
}

/// An item that no filter can name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// The item.
    pub item: String,
    /// Why.
    pub reason: String,
    /// Whether no relay can be asked for it; else the relay may take longer messages later.
    pub is_final: bool,
}

/// Returns the filters of items of one family, with at most 100 values each, within the bounds of the
/// relay.
pub fn of(family: Family, items: &[String], bounds: Bounds) -> Filters {
    if family == Family::Announcements {
        let filter = Filter { kinds: ANNOUNCED.into(), ..Filter::default() };
        return Filters { filters: vec![filter], unusable: Vec::new() };
    }
    let (mut usable, mut unusable) = (BTreeSet::new(), Vec::new());
    for item in items {
        match problem(family, item, bounds) {
            None => drop(usable.insert(item.clone())),
            Some((reason, is_final)) => {
                unusable.push(Unusable { item: item.clone(), reason, is_final });
            }
        }
    }
    let parts = parts(usable, bounds);
    let filters = match family {
        Family::State => tagged(&parts, &['d'], &[STATE]),
        Family::Address => tagged(&parts, &['a', 'A', 'q'], &[]),
        Family::Root => tagged(&parts, &['e', 'E', 'q'], &[]),
        _ => parts.into_iter().map(by_authors).collect(),
    };
    Filters { filters, unusable }
}

/// Returns why no filter can name the item, and whether that is final; `None` if one can.
fn problem(family: Family, item: &str, bounds: Bounds) -> Option<(String, bool)> {
    let is_hex = matches!(family, Family::Root | Family::Deletion);
    if is_hex && EventId::parse(item).is_none() {
        return Some(("the item is not 64 lower-case hex characters".to_owned(), true));
    }
    if !filter::is_tag_value(item) {
        let most = filter::MAX_TAG_VALUE;
        let reason = format!(
            "no filter of Tender can name the item: it is longer than {most} characters, or contains U+0000; no attempt can succeed"
        );
        return Some((reason, true));
    }
    (size(item) + ENVELOPE > bounds.message).then(|| {
        let most = bounds.message;
        let said = format!("its NIP-11 document says \"max_message_length\": {most}");
        (format!("the relay takes no message that names the item: {said}"), false)
    })
}

/// The bytes of a value in a request.
fn size(item: &str) -> usize {
    Value::from(item).to_string().len() + 1
}

/// Splits values into sorted parts that fit into one request each.
fn parts(values: BTreeSet<String>, bounds: Bounds) -> Vec<BTreeSet<String>> {
    let (mut parts, mut bytes) = (Vec::<BTreeSet<String>>::new(), 0);
    for value in values {
        let size = size(&value);
        let is_full = |part: &BTreeSet<String>| {
            part.len() >= ITEMS || bytes + size + ENVELOPE > bounds.message
        };
        if parts.last().is_none_or(is_full) {
            parts.push(BTreeSet::new());
            bytes = 0;
        }
        bytes += size;
        if let Some(part) = parts.last_mut() {
            part.insert(value);
        }
    }
    parts
}

/// Returns a filter per part and tag.
fn tagged(parts: &[BTreeSet<String>], tags: &[char], kinds: &[u16]) -> Vec<Filter> {
    let filter = |part: &BTreeSet<String>, tag: char| Filter {
        kinds: kinds.iter().copied().collect(),
        tags: [(tag, part.clone())].into(),
        ..Filter::default()
    };
    parts.iter().flat_map(|part| tags.iter().map(move |tag| filter(part, *tag))).collect()
}

fn by_authors(authors: BTreeSet<String>) -> Filter {
    Filter { kinds: [DELETION].into(), authors, ..Filter::default() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const FREE: Bounds = Bounds { message: usize::MAX, live: 70, batches: 3 };

    fn named(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("30617:aa:repo {number:05}")).collect()
    }

    #[test]
    fn one_repository_and_one_root_need_seven_filters_besides_the_first_layer() {
        let id = "ab".repeat(32);
        let of = |family, item: &str| of(family, &[item.to_owned()], FREE).filters;
        let mut all = of(Family::State, "x");
        all.extend(of(Family::Address, "30617:aa:x"));
        all.extend(of(Family::Root, &id));
        let texts: Vec<Value> = all.iter().map(|filter| json!(filter.to_json())).collect();
        assert_eq!(texts[0], json!({"kinds": [30618], "#d": ["x"]}));
        assert_eq!(
            texts[1..4],
            ["a", "A", "q"].map(|tag| json!({format!("#{tag}"): ["30617:aa:x"]}))
        );
        assert_eq!(texts[4..], ["e", "E", "q"].map(|tag| json!({format!("#{tag}"): [id]})));
        let [deletion] = &of(Family::Deletion, &id)[..] else { panic!("one filter") };
        assert_eq!(json!(deletion.to_json()), json!({"kinds": [5], "authors": [id]}));
        let first = super::of(Family::Announcements, &["*".to_owned()], FREE).filters;
        assert_eq!(json!(first[0].to_json()), json!({"kinds": [10317, 30617]}));
    }

    #[test]
    fn filters_have_100_values_and_do_not_depend_on_the_order_of_the_items() {
        let mut items = named(250);
        let filters = of(Family::Address, &items, FREE);
        assert_eq!(filters.filters.len(), 9);
        items.reverse();
        assert_eq!(of(Family::Address, &items, FREE), filters);
    }

    #[test]
    fn requests_stay_within_the_relays_longest_message() {
        let bounds = Bounds { message: 1000, ..FREE };
        let Filters { filters, unusable } = of(Family::Address, &named(100), bounds);
        assert!(unusable.is_empty());
        let longest = filters.iter().map(|filter| json!(filter.to_json()).to_string().len()).max();
        assert!(longest < Some(1000 - 100), "{longest:?}");
        let values: usize =
            filters.iter().filter_map(|filter| filter.tags.get(&'a')).map(BTreeSet::len).sum();
        assert_eq!(values, 100);
    }

    #[test]
    fn an_item_that_no_filter_can_name_does_not_block_others() {
        let items = ["fine".to_owned(), "x".repeat(256), "nul\0".to_owned()];
        let Filters { filters, unusable } = of(Family::State, &items, FREE);
        assert_eq!(filters.len(), 1);
        assert_eq!(unusable.len(), 2);
        let oversized = &of(Family::State, &["y".repeat(250)], Bounds { message: 500, ..FREE });
        let why = &oversized.unusable[0];
        assert!(!why.is_final && why.reason.contains("\"max_message_length\": 500"), "{why:?}");
        assert!(unusable[0].is_final && unusable[0].reason.contains("255 characters"));
        let (none, bad) = (of(Family::Root, &["AB".to_owned()], FREE), "64 lower-case hex");
        assert!(none.filters.is_empty() && none.unusable[0].reason.contains(bad));
    }

    #[test]
    fn the_document_of_the_relay_bounds_subscriptions() {
        let of = |most: u64| Bounds::of(Some(&json!({ "max_subscriptions": most })));
        assert_eq!((of(20).live, of(20).batches), (10, 3));
        assert_eq!((of(10).live, of(10).batches), (6, 1));
        assert_eq!((of(2).live, of(1000).live, Bounds::of(None).live), (1, 70, 70));
    }
}
