//! Followed relays that need attention, by cause.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

use super::RelayState;

/// Followed relays that need attention for the same cause.
#[derive(Debug, Clone, Serialize)]
pub struct Trouble {
    /// Dead, fault, limited, no room; catching up for more than an hour; or in step, if items have been missing
    /// for more than an hour although the relay is connected.
    pub state: RelayState,
    /// The kind of a fault; `None` for the other states.
    pub fault: Option<String>,
    /// Why items are missing: the most frequent reason of the first relay that has one; `None` for other states.
    pub reason: Option<String>,
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
        r#"select state as "state!: RelayState", fault, (array_agg(reason order by since, url))[1] as reason,
                  count(*) as "relays!", min(since) as "since!", (array_agg(url order by since, url))[1:3] as "urls!"
           from (select r.url, case when missing.since is null then r.state else 'in_step' end as state,
                        case when r.state = 'fault' then r.fault end as fault, missing.reason,
                        case r.state when 'dead' then r.failing_since when 'fault' then r.fault_since
                            when 'no_room' then r.next_attempt_at
                            else coalesce(missing.since, r.status_at) end as since
                 from (select r.*, grasp_relay_state(r) as state,
                              status = 'catching_up' and not verified
                                  and status_at < now() - interval '1 hour' as is_slow
                       from grasp_relay r) r
                 left join lateral (
                     select min(c.wanted_at) as since, mode() within group (order by c.reason) as reason
                     from (select wanted_at, reason from grasp_coverage c
                           where c.relay_id = r.id and c.state <> 'confirmed'
                             and c.wanted_at < now() - interval '1 hour' order by c.wanted_at limit 1000) c
                 ) missing on r.state in ('in_step', 'catching_up') and not r.is_slow
                 where r.state in ('dead', 'fault', 'limited', 'no_room') or missing.since is not null
                    or (r.state = 'catching_up' and r.is_slow)) r
           group by 1, 2 order by 4 desc, 1, 2 limit 20"#
    )
    .fetch_all(db)
    .await
}
