//! The counters of workers, which begin at 0. A series that begins with its first event hides that event
//! from `rate` and `increase`.

use metrics::{counter, histogram};
use tender_jobs::{
    mirror::{event::Reason, lane::LaneKind},
    provision::SYNC_RELAY,
};

use crate::{provision, runtime};

/// Registers every counter and histogram of workers in this process. To be called after the recorder is
/// installed.
pub fn begin() {
    for queue in tender_jobs::queues() {
        of_queue(queue);
    }
    for name in ["tender_leases_lost_total", "tender_jobs_rescued_total"] {
        counter!(name).absolute(0);
    }
    of_provision();
    of_mirror();
}

fn of_queue(queue: &'static str) {
    let outcomes: &[&str] =
        if queue == SYNC_RELAY { &provision::OUTCOMES } else { &runtime::OUTCOMES };
    for outcome in outcomes {
        counter!("tender_job_attempts_total", "queue" => queue, "outcome" => *outcome).absolute(0);
    }
    counter!("tender_schedule_ticks_total", "queue" => queue).absolute(0);
    let _registered = histogram!("tender_queue_latency_seconds", "queue" => queue);
}

fn of_provision() {
    counter!("tender_relays_reasserted_total").absolute(0);
    for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
        for class in provision::zooid::CLASSES {
            counter!("tender_zooid_requests_total", "method" => method, "class" => class)
                .absolute(0);
        }
    }
    let _registered = histogram!("tender_zooid_request_duration_seconds");
    let _registered = histogram!("tender_sync_duration_seconds");
}

fn of_mirror() {
    for outcome in ["stored", "duplicate"].into_iter().chain(Reason::ALL.map(Reason::as_str)) {
        counter!("tender_events_total", "outcome" => outcome).absolute(0);
    }
    for outcome in ["accepted", "duplicate", "rejected", "pending"] {
        counter!("tender_uploads_total", "outcome" => outcome).absolute(0);
    }
    for lane in LaneKind::MODES.into_iter().chain([LaneKind::Live]) {
        let _registered = histogram!("tender_mirror_step_seconds", "lane" => lane.as_str());
    }
}
