//! Accepts connections: limits their number, closes idle ones, and drains them at the end. The
//! server speaks HTTP/1.1; a proxy in front of it may speak HTTP/2.

mod count;

use std::{io, net::SocketAddr, pin::pin, time::Duration};

use axum::{Router, extract::ConnectInfo};
use hyper::{
    body::Incoming,
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use metrics::{counter, gauge};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::config::ConnectionLimits;
use count::{Count, Place};

/// The pause after the system refused to accept a connection, such as without a free descriptor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(500);
/// The answer to a connection above a limit. It is sent if the socket takes it at once.
const REFUSAL: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Serves `router` until `shutdown`, then waits for running requests for `limits.drain` and closes the
/// other connections.
///
/// # Errors
/// The listener has no address.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let name = listener.local_addr()?.to_string();
    let mut count = Count::new(limits.total, limits.per_address);
    let mut open = JoinSet::new();
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_ended) = open.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => match count.admit(peer) {
                    Some(place) => {
                        let connection = connection(stream, peer, router.clone(), limits, shutdown.clone());
                        open.spawn(hold(place, connection));
                    }
                    None => refuse(&stream, &mut count),
                },
                Err(error) => pause_after(&error, &mut count).await,
            },
        }
        gauge!("tender_http_connections", "listener" => name.clone()).set(count.open_f64());
    }
    drop(listener); // new connections are refused while the open ones end
    drain(open, limits.drain).await;
    Ok(())
}

/// Serves one connection until the client closes it, an error, or the answer to the request that runs
/// at `shutdown`.
async fn connection(
    stream: TcpStream,
    peer: SocketAddr,
    router: Router,
    limits: ConnectionLimits,
    shutdown: CancellationToken,
) {
    let router = TowerToHyperService::new(router);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(ConnectInfo(peer));
        router.call(request)
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head_timeout);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, %peer, "a connection ended with an error");
    }
}

/// Keeps the place of a connection for as long as it is open.
async fn hold(place: Place, connection: impl Future<Output = ()>) {
    connection.await;
    drop(place);
}

fn refuse(stream: &TcpStream, count: &mut Count) {
    let _the_client_may_be_gone = stream.try_write(REFUSAL);
    counter!("tender_http_connections_refused_total", "reason" => "limit").increment(1);
    if let Some(refused) = count.refused() {
        tracing::warn!(
            refused,
            open = count.open(),
            "connections were refused: their address has too many, or all addresses together have; \
             see API_MAX_CONNECTIONS and API_MAX_CONNECTIONS_PER_ADDRESS"
        );
    }
}

/// Waits after a failed accept. The error would otherwise repeat at once.
async fn pause_after(error: &io::Error, count: &mut Count) {
    counter!("tender_http_connections_refused_total", "reason" => "system").increment(1);
    if let Some(refused) = count.refused() {
        tracing::error!(
            %error, refused, open = count.open(),
            "connections could not be accepted: raise the limit of open files, or lower \
             API_MAX_CONNECTIONS"
        );
    }
    let never = std::future::pending::<()>();
    let _elapsed = timeout(ACCEPT_PAUSE, never).await;
}

async fn drain(mut open: JoinSet<()>, patience: Duration) {
    let ended = timeout(patience, async { while open.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::warn!(connections = open.len(), "connections were closed before their end");
    }
    open.shutdown().await;
}
