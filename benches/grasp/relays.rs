//! Real relays in this process.

use std::{net::Ipv4Addr, sync::Arc};

use nostr::event::Event;
use nostr_database::{MemoryDatabase, MemoryDatabaseOptions, NostrDatabase};
use nostr_relay_builder::{
    LocalRelay, RelayBuilder,
    builder::RateLimit,
    prelude::{Event as TheirEvent, JsonUtil},
};

/// A relay of rust-nostr's, in memory.
pub(crate) struct Relay {
    server: LocalRelay,
    database: Arc<MemoryDatabase>,
    pub(crate) url: String,
}

impl Relay {
    pub(crate) async fn start() -> Self {
        let options = MemoryDatabaseOptions { events: true, max_events: None };
        let database = Arc::new(MemoryDatabase::with_opts(options));
        let builder = RelayBuilder::default()
            .addr(Ipv4Addr::LOCALHOST.into())
            .database(database.clone())
            .rate_limit(RateLimit { max_reqs: 100_000, notes_per_minute: u32::MAX });
        let server = LocalRelay::new(builder);
        server.run().await.unwrap();
        let url = server.url().await.to_string().trim_end_matches('/').to_owned();
        Self { server, database, url }
    }

    pub(crate) async fn fill(&self, events: &[Event]) {
        for event in events {
            self.database.save_event(&theirs(event)).await.unwrap();
        }
    }

    /// Stores an event, and tells the relay's subscribers.
    pub(crate) async fn publish(&self, event: &Event) {
        self.fill(std::slice::from_ref(event)).await;
        self.server.notify_event(theirs(event));
    }
}

fn theirs(event: &Event) -> TheirEvent {
    TheirEvent::from_json(serde_json::to_string(event).unwrap()).unwrap()
}
