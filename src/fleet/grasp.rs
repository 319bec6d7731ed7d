//! The GRASP wing in the overview.

use serde::Serialize;
use sqlx::PgPool;
use tender_jobs::grasp::{
    service::{self, Service},
    view::{self, Trouble},
};

use super::Item;
use crate::words::grasp as words;

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

    /// Returns the item for services that no process serves.
    pub(super) fn unserved(&self) -> Option<Item> {
        let is_enabled = self.services.iter().any(|one| one.enabled);
        (is_enabled && self.processes == 0).then(|| {
            let headline = "No process follows relays for the GRASP services".to_owned();
            Item::new("grasp:no_process".to_owned(), headline)
                .grave()
                .advice("Start `tender work` or `tender serve`.")
                .page("/workers", &[])
                .command("tender work".to_owned())
        })
    }

    /// Returns the items of services, then those of followed relays.
    pub(super) fn failures(&self) -> impl Iterator<Item = Item> {
        let stopped = self.services.iter().filter_map(stopped);
        let refuse = self.services.iter().filter_map(refuses_others);
        let over = self.services.iter().filter(|one| one.relays_over_limit > 0).map(over_limit);
        stopped.chain(refuse).chain(over).chain(self.troubles.iter().map(followed))
    }
}

fn of(service: &Service, what: &str, headline: String) -> Item {
    Item::new(format!("grasp:{what}:{}", service.id), headline)
        .page(&format!("/upstreams/{}", service.id), &[])
        .command(format!("tender grasp show {}", service.url))
}

fn stopped(service: &Service) -> Option<Item> {
    let headline = words::stopped(&service.url, service.has_feed, service.has_uploads)?;
    Some(of(service, "stopped", headline))
}

fn refuses_others(service: &Service) -> Option<Item> {
    let reason = service.authors_only_reason.as_deref();
    let headline = words::refuses_others(&service.url, reason)?;
    Some(of(service, "refuses", headline))
}

fn over_limit(service: &Service) -> Item {
    let (limit, over) = (service.max_relays, service.relays_over_limit);
    of(service, "over_limit", words::over_limit(&service.url, limit, over))
        .size(over.into())
        .advice("`tender grasp update --max-relays` raises the limit.")
}

fn followed(trouble: &Trouble) -> Item {
    let state = trouble.state.as_str();
    let fault = trouble.fault.as_deref().unwrap_or_default();
    let more = if trouble.relays > 3 { ", …" } else { "" };
    Item::new(format!("followed:{state}:{fault}"), words::trouble(trouble))
        .size(trouble.relays)
        .since(Some(trouble.since))
        .error(&format!("{}{more}", trouble.urls.join(", ")))
        .page("/followed", &[("state", state)])
        .command(format!("tender grasp relays --state {}", state.replace('_', "-")))
}
