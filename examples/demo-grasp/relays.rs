//! Real relays in this process, and a line that can be cut.

use std::{collections::HashSet, net::Ipv4Addr, sync::Arc};

use futures_util::StreamExt;
use nostr::event::Event;
use nostr_database::{MemoryDatabase, MemoryDatabaseOptions, NostrDatabase};
use nostr_relay_builder::{
    LocalRelay, RelayBuilder,
    builder::RateLimit,
    prelude::{Event as TheirEvent, Filter, JsonUtil},
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A relay of rust-nostr's, in memory.
pub(crate) struct Relay {
    /// Keeps the relay running.
    _server: LocalRelay,
    database: Arc<MemoryDatabase>,
    pub(crate) url: String,
}

impl Relay {
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let options = MemoryDatabaseOptions { events: true, max_events: None };
        let database = Arc::new(MemoryDatabase::with_opts(options));
        let builder = RelayBuilder::default()
            .addr(Ipv4Addr::LOCALHOST.into())
            .database(database.clone())
            .rate_limit(RateLimit { max_reqs: 10_000, notes_per_minute: u32::MAX });
        let server = LocalRelay::new(builder);
        server.run().await?;
        let url = server.url().await.to_string().trim_end_matches('/').to_owned();
        Ok(Self { _server: server, database, url })
    }

    pub(crate) async fn fill(&self, events: &[Event]) -> anyhow::Result<()> {
        for event in events {
            let theirs = TheirEvent::from_json(serde_json::to_string(event)?)?;
            self.database.save_event(&theirs).await?;
        }
        Ok(())
    }

    /// The ids of its events, in hex.
    pub(crate) async fn ids(&self) -> anyhow::Result<HashSet<String>> {
        let events = self.database.query(Filter::new()).await?;
        Ok(events.iter().map(|event| event.id.to_hex()).collect())
    }
}

/// A line to a relay.
pub(crate) struct Line {
    pub(crate) url: String,
    is_cut: watch::Sender<bool>,
}

impl Line {
    pub(crate) async fn to(url: &str) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let own = format!("ws://{}", listener.local_addr()?);
        let target = url.trim_start_matches("ws://").to_owned();
        let is_cut = watch::Sender::new(false);
        let state = is_cut.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, target.clone(), state.subscribe()));
            }
        });
        Ok(Self { url: own, is_cut })
    }

    /// Ends every connection, and accepts none until [`mend`](Self::mend).
    pub(crate) fn cut(&self) {
        self.is_cut.send_replace(true);
    }

    pub(crate) fn mend(&self) {
        self.is_cut.send_replace(false);
    }
}

async fn carry(mut near: TcpStream, target: String, mut is_cut: watch::Receiver<bool>) {
    if *is_cut.borrow() {
        return;
    }
    let Ok(mut far) = TcpStream::connect(target).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        () = async { drop(is_cut.wait_for(|is_cut| *is_cut).await) } => {}
    }
}

/// Accepts websockets, and gives each to `answer`. Returns the address.
pub(crate) async fn listen<F>(
    answer: impl Fn(tokio_tungstenite::WebSocketStream<TcpStream>) -> F + Send + 'static,
) -> anyhow::Result<String>
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let url = format!("ws://{}", listener.local_addr()?);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A request for NIP-11 is no websocket.
            if let Ok(socket) = tokio_tungstenite::accept_async(stream).await {
                tokio::spawn(answer(socket));
            }
        }
    });
    Ok(url)
}

/// Reads the next text of a websocket; `None` if the connection ended.
pub(crate) async fn text(
    socket: &mut tokio_tungstenite::WebSocketStream<TcpStream>,
) -> Option<String> {
    loop {
        if let Ok(text) = socket.next().await?.ok()?.into_text()
            && !text.is_empty()
        {
            return Some(text.to_string());
        }
    }
}
