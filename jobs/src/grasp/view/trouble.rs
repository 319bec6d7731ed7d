//! Followed relays that need attention, by cause.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

use super::RelayState;

/// Followed relays that need attention for the same cause.
#[derive(Debug, Clone, Serialize)]
pub struct Trouble {
    /// Dead, fault, limited, no room; or catching up for more than an hour.
    pub state: RelayState,
    /// The kind of a fault; `None` for the other states.
    pub fault: Option<String>,
    /// Their number.
    pub relays: i64,
    /// Since when the first of them is in this state.
    pub since: DateTime<Utc>,
    /// The addresses of the first three.
    pub urls: Vec<String>,
}

/// Returns the followed relays that need attention, by cause; the most frequent first.
pub async fn troubles(db: impl PgExecutor<'_>) -> Result<Vec<Trouble>, sqlx::Error> {
    sqlx::query_as!(
        Trouble,
        r#"select state as "state!: RelayState", fault, count(*) as "relays!", min(since) as "since!",
                  (array_agg(url order by since, url))[1:3] as "urls!"
           from (select r.url, grasp_relay_state(r) as state, r.status_at,
                        case when grasp_relay_state(r) = 'fault' then r.fault end as fault,
                        case grasp_relay_state(r) when 'dead' then r.failing_since when 'fault' then r.fault_since
                            when 'no_room' then r.next_attempt_at else r.status_at end as since
                 from grasp_relay r) r
           where state in ('dead', 'fault', 'limited', 'no_room')
              or (state = 'catching_up' and status_at < now() - interval '1 hour')
           group by 1, 2 order by 3 desc, 1, 2 limit 20"#
    )
    .fetch_all(db)
    .await
}
