//! A zooid that answers every request at once and checks nothing, so that the queues are compared and not the server.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Instant,
};

use axum::{Router, body::Bytes};
use tokio::{net::TcpListener, task::JoinHandle};

#[derive(Default)]
struct Seen {
    requests: AtomicUsize,
    first: OnceLock<Instant>,
}

pub(crate) struct Stub {
    pub(crate) url: String,
    seen: Arc<Seen>,
    serving: JoinHandle<()>,
}

impl Stub {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let seen = Arc::<Seen>::default();
        let noted = seen.clone();
        // The body is read, as any server does.
        let answer = async move |_body: Bytes| {
            noted.first.get_or_init(Instant::now);
            noted.requests.fetch_add(1, Relaxed);
            "{}"
        };
        let service = Router::new().fallback(answer);
        let serving = tokio::spawn(async move { axum::serve(listener, service).await.unwrap() });
        Self { url, seen, serving }
    }

    pub(crate) fn requests(&self) -> usize {
        self.seen.requests.load(Relaxed)
    }

    /// When the first request came.
    pub(crate) fn first(&self) -> Instant {
        *self.seen.first.get().unwrap()
    }
}

impl Drop for Stub {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
