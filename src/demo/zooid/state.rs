//! The relays of the stand-in, the planned faults and the record of calls.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt, io,
    sync::{Arc, atomic::AtomicBool},
};

use serde_json::Value;

use super::{Call, Fault};

/// The file of a relay.
#[derive(Debug, Clone, PartialEq)]
pub enum File {
    /// A document that zooid can read.
    Document(Value),
    /// The file exists and is unreadable.
    Broken,
    /// There is no file.
    Gone,
}

/// Where the documents are stored, beside the memory.
pub trait Store: Send + fmt::Debug {
    /// Returns the files that have changed since the last call, by the relay's id.
    ///
    /// # Errors
    /// The folder could not be read.
    fn changes(&mut self) -> io::Result<Vec<(String, File)>>;

    /// Writes or removes the file of a relay.
    ///
    /// # Errors
    /// The file could not be written.
    fn write(&mut self, relay_id: &str, document: Option<&Value>) -> io::Result<()>;
}

#[derive(Debug)]
pub(super) struct Planned {
    pub(super) relay_id: Option<String>,
    pub(super) fault: Fault,
    /// The number of further calls with this fault; `None` for all.
    pub(super) times: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) documents: BTreeMap<String, Value>,
    /// The relays whose files are unreadable.
    pub(super) broken: BTreeSet<String>,
    pub(super) store: Option<Box<dyn Store>>,
    /// The relays that have a host (`host:…`) or a schema (`schema:…`).
    owners: HashMap<String, BTreeSet<String>>,
    members: HashMap<String, BTreeSet<String>>,
    pub(super) faults: Vec<Planned>,
    /// Each call, and whether it created its relay, perhaps after its client had left.
    pub(super) calls: Vec<(Call, Arc<AtomicBool>)>,
    pub(super) in_flight: HashMap<String, u32>,
    pub(super) most_in_flight: u32,
    pub(super) overlaps: Vec<String>,
}

impl State {
    /// Returns the relays of a store, or none.
    pub(super) fn of(store: Option<Box<dyn Store>>) -> io::Result<Self> {
        let mut state = Self { store, ..Self::default() };
        state.refresh()?;
        Ok(state)
    }

    /// Returns the fault that is planned for the next call of a relay, and counts it.
    pub(super) fn next_fault(&mut self, relay_id: &str) -> Option<Fault> {
        let planned = self.faults.iter_mut().find(|planned| {
            planned.times != Some(0) && planned.relay_id.as_deref().is_none_or(|id| id == relay_id)
        })?;
        planned.times = planned.times.map(|times| times - 1);
        Some(planned.fault.clone())
    }

    /// Takes over what has changed in the store.
    pub(super) fn refresh(&mut self) -> io::Result<()> {
        let Some(store) = &mut self.store else { return Ok(()) };
        for (relay_id, file) in store.changes()? {
            self.set(&relay_id, file);
        }
        Ok(())
    }

    /// Writes or removes the file of a relay.
    pub(super) fn write(&mut self, relay_id: &str, document: Option<Value>) -> io::Result<()> {
        if let Some(store) = &mut self.store {
            store.write(relay_id, document.as_ref())?;
        }
        self.set(relay_id, document.map_or(File::Gone, File::Document));
        Ok(())
    }

    pub(super) fn set(&mut self, relay_id: &str, file: File) {
        self.broken.remove(relay_id);
        if let Some(document) = self.documents.remove(relay_id) {
            for key in names(&document) {
                self.disown(&key, relay_id);
            }
        }
        match file {
            File::Gone => {}
            File::Broken => drop(self.broken.insert(relay_id.to_owned())),
            File::Document(document) => self.keep(relay_id, document),
        }
    }

    fn keep(&mut self, relay_id: &str, document: Value) {
        for key in names(&document) {
            self.owners.entry(key).or_default().insert(relay_id.to_owned());
        }
        if let Some(owner) = document.pointer("/info/pubkey").and_then(Value::as_str) {
            self.members.entry(relay_id.to_owned()).or_default().insert(owner.to_owned());
        }
        self.documents.insert(relay_id.to_owned(), document);
    }

    fn disown(&mut self, key: &str, relay_id: &str) {
        if let Some(owners) = self.owners.get_mut(key) {
            owners.remove(relay_id);
            if owners.is_empty() {
                self.owners.remove(key);
            }
        }
    }

    /// Returns the number of files.
    pub(super) fn files(&self) -> usize {
        self.documents.len() + self.broken.len()
    }

    /// Returns zooid's words for the first other file that has the schema or the host of a document.
    pub(super) fn conflict(&self, relay_id: &str, document: &Value) -> Option<String> {
        let taken = ["schema", "host"].iter().enumerate().filter_map(|(order, field)| {
            let value = document[*field].as_str().unwrap_or_default();
            let owners = self.owners.get(&format!("{field}:{value}"))?;
            let owner = owners.iter().find(|owner| *owner != relay_id)?;
            Some((owner, order, format!("{field} {value:?} is already in use")))
        });
        taken.min().map(|(_, _, words)| words)
    }

    /// Returns the members of a relay: its owners, also former ones, or what a test has set.
    pub(super) fn members(&self, relay_id: &str) -> Vec<&String> {
        self.members.get(relay_id).into_iter().flatten().collect()
    }

    pub(super) fn set_members(&mut self, relay_id: &str, members: Vec<String>) {
        self.members.insert(relay_id.to_owned(), members.into_iter().collect());
    }
}

/// Returns the host and the schema of a document, which are unique among relays.
fn names(document: &Value) -> [String; 2] {
    ["host", "schema"]
        .map(|field| format!("{field}:{}", document[field].as_str().unwrap_or_default()))
}
