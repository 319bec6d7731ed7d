//! Which followed relays this process holds.

use super::Context;

/// Holds followed relays until the process stops.
pub(super) async fn run(context: Context) {
    context.stopping.cancelled().await;
}
