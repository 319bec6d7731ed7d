//! The signals that stop a process.

use std::time::Duration;

use tender_workers::runtime::pause;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// The longest time between the signal and the end of the process. A database or a client that does not
/// answer cannot delay the end further.
const END_WITHIN: Duration = Duration::from_millis(24_500);

/// Returns a token that SIGTERM or SIGINT cancels. A second signal ends the process at once, with exit
/// code 130. If the process has not ended 24.5 s after the token was cancelled, it ends with exit code 1;
/// its running jobs are then rescued.
pub(crate) fn shutdown() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = token.cancelled() => {}
        }
        tracing::info!(
            "stopping: running jobs may finish; a second signal ends the process at once"
        );
        token.cancel();
        tokio::select! {
            _ = terminate.recv() => std::process::exit(130),
            _ = interrupt.recv() => std::process::exit(130),
            () = pause(END_WITHIN) => {}
        }
        tracing::error!("could not stop in order within 25 s; running jobs will be rescued");
        std::process::exit(1);
    });
    Ok(shutdown)
}
