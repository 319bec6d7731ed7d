//! Filters select the events that are mirrored. A filter is one of NIP-01 without `since` and
//! `until`, which a window sets, and without `limit`, which a page sets.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::mirror::event::Event;

/// The longest tag value, in characters, that is indexed and that a filter may contain.
pub const MAX_TAG_VALUE: usize = 255;
/// The most values in one list: a larger filter may exceed a relay's message limit.
const MAX_VALUES: usize = 1000;

/// A filter of events. The empty filter matches every event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Ids, 64 hex characters each; empty matches all.
    pub ids: BTreeSet<String>,
    /// Public keys of authors, 64 hex characters each; empty matches all.
    pub authors: BTreeSet<String>,
    /// Kinds; empty matches all.
    pub kinds: BTreeSet<u16>,
    /// Values by the letter of a tag. For each letter, an event must have a tag with one of the
    /// values.
    pub tags: BTreeMap<char, BTreeSet<String>>,
}

impl Filter {
    /// Parses a filter object.
    ///
    /// # Errors
    /// A message for people, which names the invalid part.
    pub fn parse(value: &Value) -> Result<Self, String> {
        let object = value.as_object().ok_or("must be an object, such as {\"kinds\":[1]}")?;
        let mut filter = Self::default();
        for (key, values) in object {
            match key.as_str() {
                "ids" => filter.ids = hex_list(key, values)?,
                "authors" => filter.authors = hex_list(key, values)?,
                "kinds" => filter.kinds = kinds(values)?,
                "since" | "until" | "limit" => {
                    return Err(format!("must not contain `{key}`: windows and pages set it"));
                }
                key => {
                    let letter = tag_letter(key).ok_or_else(|| {
                        format!("must not contain `{key}`, only ids, authors, kinds and #a to #Z")
                    })?;
                    filter.tags.insert(letter, list(key, values, is_tag_value)?);
                }
            }
        }
        Ok(filter)
    }

    /// Returns the canonical form, whose keys and lists are sorted. Equal filters have the same
    /// canonical form.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut object = Map::new();
        for (letter, values) in &self.tags {
            object.insert(format!("#{letter}"), json!(values));
        }
        for (key, values) in [("authors", &self.authors), ("ids", &self.ids)] {
            if !values.is_empty() {
                object.insert(key.to_owned(), json!(values));
            }
        }
        if !self.kinds.is_empty() {
            object.insert("kinds".to_owned(), json!(self.kinds));
        }
        object.sort_keys();
        object
    }

    /// Returns whether the filter matches `event`.
    pub fn matches(&self, event: &Event) -> bool {
        let has = |letter: &char, values: &BTreeSet<String>| {
            event.indexed_tags().any(|tag| tag.name == *letter && values.contains(tag.value))
        };
        (self.ids.is_empty() || self.ids.contains(&event.id.to_string()))
            && (self.authors.is_empty() || self.authors.contains(&hex::encode(event.pubkey)))
            && (self.kinds.is_empty() || self.kinds.contains(&event.kind))
            && self.tags.iter().all(|(letter, values)| has(letter, values))
    }

    /// Returns whether this filter matches every event that `other` matches.
    pub fn covers(&self, other: &Self) -> bool {
        fn is_wider<T: Ord>(wide: &BTreeSet<T>, narrow: &BTreeSet<T>) -> bool {
            wide.is_empty() || (!narrow.is_empty() && narrow.is_subset(wide))
        }
        let none = BTreeSet::new();
        let of_other = |letter| other.tags.get(letter).unwrap_or(&none);
        is_wider(&self.ids, &other.ids)
            && is_wider(&self.authors, &other.authors)
            && is_wider(&self.kinds, &other.kinds)
            && self.tags.iter().all(|(letter, values)| is_wider(values, of_other(letter)))
    }

    /// Returns the letter with the fewest values, by which an index finds the events; `None` if no tag is
    /// wanted.
    pub(crate) fn tag_key(&self) -> Option<(String, Vec<String>)> {
        let (letter, values) = self.tags.iter().min_by_key(|(_, values)| values.len())?;
        Some((letter.to_string(), values.iter().cloned().collect()))
    }

    /// Returns the filter as parameters of a query.
    pub(crate) fn to_sql(&self) -> FilterSql {
        let bytes = |values: &BTreeSet<String>| -> Option<Vec<Vec<u8>>> {
            // `parse` has checked that every value is hex.
            let decode = |value: &String| hex::decode(value).unwrap_or_default();
            (!values.is_empty()).then(|| values.iter().map(decode).collect())
        };
        let tags: Map<String, Value> =
            self.tags.iter().map(|(letter, values)| (letter.to_string(), json!(values))).collect();
        FilterSql {
            ids: bytes(&self.ids),
            authors: bytes(&self.authors),
            kinds: (!self.kinds.is_empty())
                .then(|| self.kinds.iter().map(|kind| i32::from(*kind)).collect()),
            tags: (!tags.is_empty()).then_some(Value::Object(tags)),
        }
    }
}

/// The parameters of a query that [`Filter::to_sql`] returns; `None` matches all events.
pub(crate) struct FilterSql {
    pub(crate) ids: Option<Vec<Vec<u8>>>,
    pub(crate) authors: Option<Vec<Vec<u8>>>,
    pub(crate) kinds: Option<Vec<i32>>,
    pub(crate) tags: Option<Value>,
}

/// Parses a list of kinds. The error is a message for people.
pub(crate) fn kinds(values: &Value) -> Result<BTreeSet<u16>, String> {
    let values = values.as_array().ok_or("kinds must be a list of numbers 0 to 65535")?;
    let kind = |value: &Value| value.as_u64().and_then(|kind| u16::try_from(kind).ok());
    let kinds: Option<BTreeSet<u16>> = values.iter().map(kind).collect();
    kinds.ok_or_else(|| "kinds must be a list of numbers 0 to 65535".to_owned())
}

fn hex_list(key: &str, values: &Value) -> Result<BTreeSet<String>, String> {
    list(key, values, |text| crate::mirror::event::EventId::parse(text).is_some())
}

/// Returns whether a tag value is indexed, and may be part of a filter. Such a value has at most
/// 1,020 bytes, which fit into a row of an index.
pub(crate) fn is_tag_value(text: &str) -> bool {
    text.chars().count() <= MAX_TAG_VALUE && !text.contains('\0')
}

fn list(key: &str, values: &Value, is_valid: fn(&str) -> bool) -> Result<BTreeSet<String>, String> {
    let problem = || match key {
        "ids" | "authors" => {
            format!("`{key}` must be a list of strings of 64 lower-case hex characters")
        }
        _ => format!("`{key}` must be a list of strings of at most {MAX_TAG_VALUE} characters"),
    };
    let values = values.as_array().filter(|values| !values.is_empty()).ok_or_else(problem)?;
    if values.len() > MAX_VALUES {
        return Err(format!("`{key}` has more than {MAX_VALUES} values"));
    }
    let text = |value: &Value| value.as_str().filter(|text| is_valid(text)).map(str::to_owned);
    values.iter().map(text).collect::<Option<_>>().ok_or_else(problem)
}

fn tag_letter(key: &str) -> Option<char> {
    let mut rest = key.strip_prefix('#')?.chars();
    let letter = rest.next().filter(char::is_ascii_alphabetic)?;
    rest.next().is_none().then_some(letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_filter_are_one() {
        let a = Filter::parse(&json!({"kinds": [1, 0, 1], "#t": ["b", "a"]})).expect("a filter");
        let b = Filter::parse(&json!({"#t": ["a", "b", "a"], "kinds": [0, 1]})).expect("a filter");
        assert_eq!(a.to_json(), b.to_json());
        let text = serde_json::to_string(&a.to_json()).expect("JSON");
        assert_eq!(text, r##"{"#t":["a","b"],"kinds":[0,1]}"##);
    }

    #[test]
    fn what_is_no_filter_is_refused_with_what_is_wrong() {
        for (filter, words) in [
            (json!([]), "object"),
            (json!({"since": 1}), "since"),
            (json!({"limit": 1}), "limit"),
            (json!({"search": "x"}), "search"),
            (json!({"kinds": [65536]}), "65535"),
            (json!({"kinds": "1"}), "65535"),
            (json!({"authors": ["ABCD"]}), "hex"),
            (json!({"ids": []}), "hex"),
            (json!({"#t": [1]}), "strings of at most"),
            (json!({"#tt": ["a"]}), "#tt"),
        ] {
            let error = Filter::parse(&filter).expect_err("refused");
            assert!(error.contains(words), "{filter}: {error}");
        }
    }
}
