//! A scripted relay that cuts its answers as real relays do: pages, reconciliations, `until`.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex},
};

use futures_util::future::BoxFuture;
use negentropy::{Id, Negentropy, NegentropyStorageVector};
use nostr::event::Event;
use serde_json::{Value, json};

use super::relays::{Client, FakeRelay, as_json};

/// The part of a set that a relay keeps when it cuts the set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    Newest,
    Oldest,
    /// Every n-th event of the set, spread over the whole window.
    Spread,
}

/// How a relay departs from what NIP-01 and NIP-77 promise.
#[derive(Debug, Clone)]
#[allow(clippy::struct_excessive_bools, reason = "independent departures")]
pub struct Manner {
    /// The most events of a page, whatever the limit.
    pub page: usize,
    /// The most events of a page if the request has a larger limit than `page`; 0 for `page`.
    pub larger: usize,
    /// A page that is cut keeps the oldest events.
    pub is_reversed: bool,
    /// `until` excludes its second.
    pub is_exclusive: bool,
    /// Ids may be prefixes.
    pub takes_prefixes: bool,
    /// EOSE comes before the events.
    pub ends_first: bool,
    /// NIP-77 over a query that is cut at so many events; `None` refuses NEG-OPEN.
    pub negentropy: Option<(usize, Kept)>,
    /// Ids that are listed and never delivered by id.
    pub withheld: HashSet<String>,
    /// Ids that reconciliations list and that do not exist, with their times.
    pub phantoms: Vec<(u64, [u8; 32])>,
    /// Events that every page holds, whatever was requested.
    pub unasked: usize,
    /// Changes an event before it is sent; the number counts the events of an answer.
    pub alter: Option<fn(usize, &mut Value)>,
    /// Answers a message before the relay does. Returns whether that was the whole answer.
    pub before: Option<Hook>,
}

/// An answer to a message.
pub type Hook = fn(Client, Value) -> BoxFuture<'static, bool>;

impl Default for Manner {
    fn default() -> Self {
        Self {
            page: 500,
            larger: 0,
            is_reversed: false,
            is_exclusive: false,
            takes_prefixes: false,
            ends_first: false,
            negentropy: None,
            withheld: HashSet::new(),
            phantoms: Vec::new(),
            unasked: 0,
            alter: None,
            before: None,
        }
    }
}

type Open = Arc<Mutex<HashMap<String, Negentropy<'static, NegentropyStorageVector>>>>;

/// A relay with these events. [`FakeRelay::heard`] tells what it was asked.
pub async fn scripted(events: &[Event], manner: Manner) -> FakeRelay {
    let (events, manner) = (Arc::new(as_json(events)), Arc::new(manner));
    let open: Open = Arc::default();
    FakeRelay::start(move |client, message| {
        let (events, manner, open) = (events.clone(), manner.clone(), open.clone());
        async move {
            if let Some(before) = manner.before
                && before(client.clone(), message.clone()).await
            {
                return;
            }
            match message[0].as_str() {
                Some("REQ") => req(&client, &message, &events, &manner).await,
                Some("NEG-OPEN") => neg_open(&client, &message, &events, &manner, &open).await,
                Some("NEG-MSG") => neg_msg(&client, &message, &open).await,
                Some("EVENT") => {
                    client.send(json!(["OK", message[1]["id"], true, ""])).await;
                }
                _ => {}
            }
        }
    })
    .await
}

fn at(event: &Value) -> i64 {
    event["created_at"].as_i64().unwrap()
}

/// Whether the event has a tag with one of the values, for each letter of the filter.
fn has_tags(event: &Value, filter: &Value) -> bool {
    let has = |letter: &str, values: &Value| {
        event["tags"].as_array().unwrap().iter().any(|tag| {
            tag[0] == letter && values.as_array().unwrap().iter().any(|value| *value == tag[1])
        })
    };
    let wanted = filter.as_object().unwrap().iter();
    wanted
        .filter_map(|(key, values)| Some((key.strip_prefix('#')?, values)))
        .all(|(l, v)| has(l, v))
}

/// The events that match, newest first.
fn matching<'a>(events: &'a [Value], filter: &Value, manner: &Manner) -> Vec<&'a Value> {
    let id_matches = |wanted: &Value, id: &str| {
        let wanted = wanted.as_str().unwrap();
        wanted == id || (manner.takes_prefixes && id.starts_with(wanted))
    };
    let wanted = |event: &&Value| {
        let (at, id) = (at(event), event["id"].as_str().unwrap());
        let until = filter["until"].as_i64().map(|until| until - i64::from(manner.is_exclusive));
        filter["since"].as_i64().is_none_or(|since| at >= since)
            && until.is_none_or(|until| at <= until)
            && filter["kinds"].as_array().is_none_or(|kinds| kinds.contains(&event["kind"]))
            && filter["authors"].as_array().is_none_or(|keys| keys.contains(&event["pubkey"]))
            && has_tags(event, filter)
            && filter["ids"].as_array().is_none_or(|ids| {
                !manner.withheld.contains(id) && ids.iter().any(|wanted| id_matches(wanted, id))
            })
    };
    let mut found: Vec<&Value> = events.iter().filter(wanted).collect();
    found.sort_by_key(|event| (std::cmp::Reverse(at(event)), event["id"].as_str().unwrap()));
    found
}

async fn req(client: &Client, message: &Value, events: &[Value], manner: &Manner) {
    let (id, filter) = (&message[1], &message[2]);
    let limit =
        filter["limit"].as_u64().map_or(usize::MAX, |limit| usize::try_from(limit).unwrap());
    let cap = if limit > manner.page { manner.larger.max(manner.page) } else { manner.page };
    if manner.ends_first {
        client.send(json!(["EOSE", id])).await;
    }
    let mut found = matching(events, filter, manner);
    if manner.is_reversed {
        found.reverse();
    }
    let found = found.into_iter().take(cap.min(limit));
    for (number, event) in found.enumerate() {
        let mut event = event.clone();
        if let Some(alter) = manner.alter {
            alter(number, &mut event);
        }
        client.send(json!(["EVENT", id, event])).await;
    }
    let is_outside =
        |event: &&Value| filter["since"].as_i64().is_some_and(|since| at(event) < since);
    for event in events.iter().filter(is_outside).take(manner.unasked) {
        client.send(json!(["EVENT", id, event])).await;
    }
    if !manner.ends_first {
        client.send(json!(["EOSE", id])).await;
    }
}

fn storage(found: &[&Value], manner: &Manner, filter: &Value) -> NegentropyStorageVector {
    let (most, kept) = manner.negentropy.unwrap();
    let count = found.len();
    let is_kept = |index: usize| match kept {
        _ if count <= most => true,
        Kept::Newest => index < most,
        Kept::Oldest => index >= count - most,
        Kept::Spread => index * most / count != (index + 1) * most / count,
    };
    let mut storage = NegentropyStorageVector::new();
    for (_, event) in found.iter().enumerate().filter(|(index, _)| is_kept(*index)) {
        let mut id = [0; 32];
        hex::decode_to_slice(event["id"].as_str().unwrap(), &mut id).unwrap();
        storage.insert(u64::try_from(at(event)).unwrap(), Id::from_byte_array(id)).unwrap();
    }
    for (time, id) in &manner.phantoms {
        let time_of = |key: &str| filter[key].as_u64().unwrap();
        if (time_of("since")..=time_of("until")).contains(time) {
            storage.insert(*time, Id::from_byte_array(*id)).unwrap();
        }
    }
    storage.seal().unwrap();
    storage
}

async fn neg_open(
    client: &Client,
    message: &Value,
    events: &[Value],
    manner: &Manner,
    open: &Open,
) {
    let id = message[1].as_str().unwrap();
    if manner.negentropy.is_none() {
        return client.send(json!(["NEG-ERR", id, "error: negentropy disabled"])).await;
    }
    let found = matching(events, &message[2], &Manner { is_exclusive: false, ..manner.clone() });
    let theirs = Negentropy::owned(storage(&found, manner, &message[2]), 0).unwrap();
    open.lock().unwrap().insert(id.to_owned(), theirs);
    answer(client, id, message[3].as_str().unwrap(), open).await;
}

async fn neg_msg(client: &Client, message: &Value, open: &Open) {
    let (id, frame) = (message[1].as_str().unwrap(), message[2].as_str().unwrap());
    answer(client, id, frame, open).await;
}

async fn answer(client: &Client, id: &str, frame: &str, open: &Open) {
    let frame = hex::decode(frame).unwrap();
    let reply = open.lock().unwrap().get_mut(id).map(|theirs| theirs.reconcile(&frame).unwrap());
    if let Some(reply) = reply {
        client.send(json!(["NEG-MSG", id, hex::encode(reply)])).await;
    }
}
