//! The GRASP wing in the overview.

use serde::Serialize;
use sqlx::PgPool;
use tender_jobs::grasp::{
    service::{self, Service},
    view::{self, Trouble},
};

use super::Attention;

/// Services, and followed relays that need attention.
#[derive(Debug, Serialize)]
pub struct Grasp {
    /// The services, without those that are being removed.
    pub services: Vec<Service>,
    /// Processes that follow relays.
    pub processes: i64,
    /// Followed relays that need attention, by cause.
    pub troubles: Vec<Trouble>,
}

impl Grasp {
    pub(super) async fn read(db: &PgPool) -> Result<Self, sqlx::Error> {
        let mut services = service::list(db).await?;
        services.retain(|one| one.removing_at.is_none());
        Ok(Self {
            services,
            processes: view::processes(db).await?,
            troubles: view::troubles(db).await?,
        })
    }

    /// Returns the items that need attention, the most urgent first.
    pub(super) fn attention(&self) -> impl Iterator<Item = Attention<'_>> {
        let is_enabled = self.services.iter().any(|one| one.enabled);
        let is_idle = (is_enabled && self.processes == 0).then_some(Attention::NoGraspProcess);
        let is_stopped = |one: &&Service| !(one.has_feed && one.has_uploads);
        let stopped = self.services.iter().filter(is_stopped).map(Attention::StoppedService);
        let refuse = self.services.iter().filter(|one| one.authors_only_reason.is_some());
        let over = self.services.iter().filter(|one| one.relays_over_limit > 0);
        let services = refuse.map(Attention::RefusesOthers).chain(over.map(Attention::OverLimit));
        let services = stopped.chain(services);
        is_idle.into_iter().chain(services).chain(self.troubles.iter().map(Attention::Followed))
    }
}
