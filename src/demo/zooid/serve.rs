//! The port and the connections of the stand-in.

use std::{io, net::SocketAddr, sync::Arc};

use axum::{extract::Request, response::Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::CancellationToken;

use super::{Shared, answer, lock};

pub(super) async fn serve(mut listener: TcpListener, address: SocketAddr, shared: Arc<Shared>) {
    loop {
        let down = lock(&shared.down).clone();
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = down.cancelled() => {
                drop(listener);
                let Some(again) = listen_again(address, &shared).await else { return };
                listener = again;
            }
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(connection(stream, shared.clone(), down));
                }
            }
        }
    }
}

/// Refuses connections until the port is opened again. Returns `None` at the end of the stand-in.
///
/// A socket that is bound and does not listen keeps the port, so that no other program is given it. A
/// child process that is about to start still has the dropped listener, so binding may take some tries.
async fn listen_again(address: SocketAddr, shared: &Shared) -> Option<TcpListener> {
    let reopened = async {
        let socket = loop {
            match bind(address) {
                Ok(socket) => break socket,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        shared.up.notified().await;
        socket.listen(1024).ok()
    };
    shared.stop.run_until_cancelled(reopened).await?
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, down: CancellationToken) {
    let stop = shared.stop.clone();
    let server = down.clone();
    let service = service_fn(move |request| call(shared.clone(), request, server.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _closed = connection => {}
        () = down.cancelled() => {}
        () = stop.cancelled() => {}
    }
}

/// Answers a call. An error closes the connection without an answer.
async fn call(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    down: CancellationToken,
) -> io::Result<Response> {
    let answer = answer::answer(&shared, request, down).await;
    answer.ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
}
