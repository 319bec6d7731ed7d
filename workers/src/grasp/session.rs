//! The life of a held relay: connect, follow, end. A session owns its state; nothing is shared between
//! relays.
//!
//! - `following`: the loop. `live`: the standing subscriptions. `covers`: which of them are open.
//! - `passes`: verifications. `work`: what is being fetched. `history`: how a filter is fetched.

mod covers;
mod following;
mod history;
mod live;
mod passes;
mod work;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Instant,
};

use chrono::{DateTime, TimeDelta, Utc};
use tender_jobs::{
    grasp::followed::{
        self, Claimed, Lease,
        health::{Failure, Fault},
    },
    mirror::upstream::{self, Upstream, settings::Settings},
    queue::Settled,
};
use tokio::sync::{Notify, OwnedSemaphorePermit, watch};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Context;
use crate::{
    mirror::{connection::Connection, connections::InUse, error, error::StepError, information},
    runtime::outcome::catch_panic,
};

/// What the manager tells a session.
#[derive(Debug, Clone, Copy)]
pub(super) struct Orders {
    /// The end of the lease. After it nothing may be written, and the connection is closed.
    pub(super) until: Instant,
    /// When the next verification is due, and whether it is due now.
    pub(super) resync_due_at: Option<DateTime<Utc>>,
    pub(super) is_resync_due: bool,
}

/// A relay that was claimed, and what the manager says about it.
pub(super) struct Hold {
    pub(super) claimed: Claimed,
    /// Told when the relay's coverage gained missing items.
    pub(super) plan: Arc<Notify>,
    pub(super) orders: watch::Receiver<Orders>,
    /// Cancelled when the relay is to be released.
    pub(super) stop: CancellationToken,
    /// Held until the connection is open.
    pub(super) connecting: Option<OwnedSemaphorePermit>,
    /// Cancelled when an earlier session of the relay has ended in this process. It closes its connection.
    pub(super) after: Option<CancellationToken>,
    /// Tells the end of this session.
    pub(super) ended: Option<DropGuard>,
}

/// Why a session ended.
enum End {
    /// The manager releases the relay.
    Released,
    /// The lease is lost: nothing more is written.
    LeaseLost,
    /// The relay, or we, failed.
    Failed(StepError),
}

impl From<StepError> for End {
    fn from(error: StepError) -> Self {
        match error {
            StepError::LeaseLost => Self::LeaseLost,
            error => Self::Failed(error),
        }
    }
}

impl From<sqlx::Error> for End {
    fn from(error: sqlx::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Follows a relay until its end, and stores the end. Returns whether the process had no room for it.
pub(super) async fn hold(context: Context, hold: Hold) -> bool {
    let (lease, url) = (hold.claimed.lease, hold.claimed.url.clone());
    let end = match catch_panic(Box::pin(follow(&context, hold))).await {
        Ok(Err(end)) => end,
        Ok(Ok(never)) => match never {},
        Err(panic) => End::Failed(StepError::Panicked(panic)),
    };
    let stored = match &end {
        End::LeaseLost => {
            tracing::warn!(
                url,
                "the lease of a followed relay is lost; another process may follow it"
            );
            return false;
        }
        End::Released => {
            followed::release(&context.db, lease, "the process released the relay").await
        }
        End::Failed(StepError::NoRoom | StepError::Stopping) => {
            followed::give_back(&context.db, lease, "the process has no room for the relay").await
        }
        End::Failed(error) => fail(&context, lease, &url, error).await,
    };
    if let Err(error) = stored {
        tracing::warn!(url, %error, "could not store the end of a followed relay's session; it is due again in 30 s");
    }
    matches!(end, End::Failed(StepError::NoRoom))
}

async fn fail(
    context: &Context,
    lease: Lease,
    url: &str,
    error: &StepError,
) -> Result<Settled<()>, sqlx::Error> {
    tracing::info!(url, %error, "a followed relay failed; its next attempt waits");
    if let StepError::RateLimited(reason) = error {
        followed::limit(&context.db, lease, reason).await?;
    }
    let text = error.to_string();
    let retry_after = error.retry_after().and_then(|after| TimeDelta::from_std(after).ok());
    let failure = Failure { error: &text, fault: fault_of(error), retry_after, jitter: random() };
    followed::fail(&context.db, lease, failure).await
}

fn fault_of(error: &StepError) -> Option<Fault> {
    error.fault().map(|fault| match fault {
        error::Fault::Dns => Fault::Dns,
        error::Fault::Tls => Fault::Tls,
        error::Fault::Protocol => Fault::Protocol,
        error::Fault::Private => Fault::Private,
    })
}

/// A random number from 0 to 1.
pub(super) fn random() -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "32 bits")]
    let part = (uuid::Uuid::new_v4().as_u128() & 0xffff_ffff) as f64;
    part / f64::from(u32::MAX)
}

/// A type without values: a session ends only with an [`End`].
enum Never {}

/// What the work on a relay needs.
struct Session {
    context: Context,
    lease: Lease,
    upstream: Upstream,
    settings: Settings,
    connection: InUse,
    /// Cancelled when the session ends: what fails then, fails for this reason.
    ending: CancellationToken,
    /// Whether two comparisons in a row were too slow, or even a minute was too large. The relay is paged from
    /// then on.
    compares_nothing: AtomicBool,
}

async fn follow(context: &Context, mut hold: Hold) -> Result<Never, End> {
    // Told after the connection is closed.
    let _ended = hold.ended.take();
    let (stop, mut orders) = (hold.stop.clone(), hold.orders.clone());
    if let Some(after) = &hold.after {
        tokio::select! {
            () = after.cancelled() => {}
            () = over(&mut orders) => return Err(End::LeaseLost),
        }
    }
    let (session, _opened) = tokio::select! {
        session = connect(context, &hold.claimed) => session?,
        () = stop.cancelled() => return Err(End::Released),
        () = over(&mut orders) => return Err(End::LeaseLost),
    };
    let noted = followed::connected(&context.db, session.lease).await?;
    if noted == Settled::LeaseLost {
        return Err(End::LeaseLost);
    }
    tracing::info!(url = session.upstream.url, "a followed relay is connected");
    following::run(session, hold).await
}

/// Closes a connection when it is dropped, unless the mirror uses it too. Else it would stay open, unused, while
/// another process follows the relay.
struct Opened {
    connection: Connection,
    is_shared: bool,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if !self.is_shared {
            self.connection
                .close("closed by us: the relay is not followed by this process any more");
        }
    }
}

/// Waits for the end of the lease.
async fn over(orders: &mut watch::Receiver<Orders>) {
    loop {
        let until = orders.borrow_and_update().until;
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => return,
            changed = orders.changed() => if changed.is_err() { return },
        }
    }
}

async fn connect(
    context: &Context,
    claimed: &Claimed,
) -> Result<(Arc<Session>, Opened), StepError> {
    let found = match claimed.upstream {
        Some(id) => upstream::find(&context.db, id).await?,
        None => None,
    };
    let upstream = found.ok_or_else(|| {
        StepError::Connection("the mirror is removing an upstream with this address".to_owned())
    })?;
    // The limits of a connection are those of the settings that were read last.
    context.mirror.settings_of(&upstream).await?;
    let connection = context.mirror.connections.get_followed(&upstream).await?;
    let opened = Opened { connection: connection.clone(), is_shared: upstream.mirrored };
    information::refresh(&context.db, &upstream, context.mirror.settings.allow_private).await;
    let upstream = upstream::find(&context.db, upstream.id).await?.unwrap_or(upstream);
    let settings = context.mirror.settings_of(&upstream).await?;
    let (context, lease, ending) = (context.clone(), claimed.lease, CancellationToken::new());
    let compares_nothing = AtomicBool::new(false);
    let session =
        Session { context, lease, upstream, settings, connection, ending, compares_nothing };
    Ok((Arc::new(session), opened))
}
