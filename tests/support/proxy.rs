//! Proxies between us and a real relay: they tell of messages, hold them or drop them.

use std::{collections::VecDeque, sync::Arc};

use futures_util::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use tender::demo::zooid::Gate;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpListener,
};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

/// A proxy between us and a real relay. It stops when this is dropped.
pub struct Proxy {
    pub url: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A proxy that calls `tells` with each message to the relay.
pub async fn spy(url: &str, tells: impl Fn(&str) + Send + Sync + 'static) -> Proxy {
    between(url, Rules { tells: Box::new(tells), ..Rules::default() }).await
}

/// A proxy that passes on only those messages of the relay that `lets` accepts.
pub async fn proxy(url: &str, lets: impl Fn(&str) -> bool + Send + Sync + 'static) -> Proxy {
    between(url, Rules { lets: Box::new(lets), ..Rules::default() }).await
}

/// A proxy at which the messages to the relay that `holds` accepts wait at the gate, and those behind
/// them. A message whose connection ends leaves the gate, and takes no permit.
pub async fn gated(
    url: &str,
    gate: &Gate,
    holds: impl Fn(&str) -> bool + Send + Sync + 'static,
) -> Proxy {
    between(url, Rules { gate: gate.clone(), holds: Box::new(holds), ..Rules::default() }).await
}

type Rule<T> = Box<dyn Fn(&str) -> T + Send + Sync>;

/// What a proxy does with the messages of both sides.
struct Rules {
    tells: Rule<()>,
    holds: Rule<bool>,
    gate: Gate,
    lets: Rule<bool>,
}

impl Default for Rules {
    fn default() -> Self {
        let (tells, holds, lets) =
            (Box::new(|_: &str| {}), Box::new(|_: &str| false), Box::new(|_: &str| true));
        Self { tells, holds, gate: Gate::default(), lets }
    }
}

type Socket<S> = WebSocketStream<S>;

async fn between(url: &str, rules: Rules) -> Proxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let own = format!("ws://{}", listener.local_addr().unwrap());
    let (target, rules) = (url.to_owned(), Arc::new(rules));
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (target, rules) = (target.clone(), rules.clone());
            tokio::spawn(async move {
                // A request for NIP-11 is no websocket: it finds its connection closed.
                let Ok(near) = tokio_tungstenite::accept_async(stream).await else { return };
                let (far, _) = tokio_tungstenite::connect_async(target).await.unwrap();
                let ((to_near, from_near), (to_far, from_far)) = (near.split(), far.split());
                tokio::select! {
                    () = up(&rules, from_near, to_far) => {}
                    () = down(&rules, from_far, to_near) => {}
                }
            });
        }
    });
    Proxy { url: own, task }
}

/// Passes messages to the relay, until either side is gone.
async fn up<N, F>(
    rules: &Rules,
    mut near: SplitStream<Socket<N>>,
    mut far: SplitSink<Socket<F>, Message>,
) where
    N: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    let mut waiting = VecDeque::new();
    loop {
        let message = match waiting.pop_front() {
            Some(message) => message,
            None => match near.next().await {
                Some(Ok(message)) => message,
                _ => return,
            },
        };
        let text = message.to_text().unwrap_or_default();
        (rules.tells)(text);
        if (rules.holds)(text) && !passes(&rules.gate, &mut near, &mut waiting).await {
            return;
        }
        if far.send(message).await.is_err() {
            return;
        }
    }
}

/// Waits at the gate. Meanwhile it reads on, because only so the end of the connection is seen: then it
/// returns false.
async fn passes<N>(
    gate: &Gate,
    near: &mut SplitStream<Socket<N>>,
    waiting: &mut VecDeque<Message>,
) -> bool
where
    N: AsyncRead + AsyncWrite + Unpin,
{
    let mut passed = std::pin::pin!(gate.pass());
    loop {
        tokio::select! {
            () = &mut passed => return true,
            message = near.next() => match message {
                Some(Ok(message)) => waiting.push_back(message),
                _ => return false,
            },
        }
    }
}

/// Passes messages from the relay, until either side is gone.
async fn down<N, F>(
    rules: &Rules,
    mut far: SplitStream<Socket<F>>,
    mut near: SplitSink<Socket<N>, Message>,
) where
    N: AsyncRead + AsyncWrite + Unpin,
    F: AsyncRead + AsyncWrite + Unpin,
{
    while let Some(Ok(message)) = far.next().await {
        let is_let = message.to_text().map_or(true, |text| (rules.lets)(text));
        if is_let && near.send(message).await.is_err() {
            return;
        }
    }
}
