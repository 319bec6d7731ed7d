//! The path to a database, which may go silent: its connections stay open, and nothing passes.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

/// A TCP proxy before a server on this machine. It stops when this is dropped.
pub struct Path {
    pub port: u16,
    /// Connections with a lower number are silent.
    silent_below: watch::Sender<u64>,
    next: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Path {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Path {
    pub async fn to(host: &str, port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (silent_below, next) = (watch::Sender::new(0), Arc::new(AtomicU64::new(0)));
        let (server, silence, number) =
            (format!("{host}:{port}"), silent_below.clone(), next.clone());
        let task = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let number = number.fetch_add(1, Ordering::SeqCst);
                tokio::spawn(carry(near, server.clone(), silence.subscribe(), number));
            }
        });
        Self { port: own, silent_below, next, task }
    }

    /// Lets every connection hang, also those to come. The kernel still acknowledges what is sent.
    pub fn go_silent(&self) {
        self.silent_below.send_replace(u64::MAX);
    }

    /// New connections work; those that were open when the path went silent hang for ever.
    pub fn reopen(&self) {
        self.silent_below.send_replace(self.next.load(Ordering::SeqCst));
    }

    /// How many connections were made so far.
    pub fn connections(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }
}

async fn carry(mut near: TcpStream, server: String, mut below: watch::Receiver<u64>, number: u64) {
    let carrying = async {
        let mut far = TcpStream::connect(server).await.unwrap();
        let _ended = tokio::io::copy_bidirectional(&mut near, &mut far).await;
    };
    let silence = async move {
        let _the_proxy_is_gone = below.wait_for(|below| number < *below).await.map(drop);
    };
    let mut carrying = std::pin::pin!(carrying);
    tokio::select! {
        biased;
        () = silence => std::future::pending().await,
        () = &mut carrying => {}
    }
}
