//! The pages that have a live part, and how each is read.

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{HeaderMap, request::Parts},
    response::Response,
};
use maud::Markup;

use super::open;
use crate::dashboard::{
    Dashboard, charts, fleet,
    grasp::{parked, relay as followed_relay, relays as followed, repo, repos},
    jobs,
    jobs::one,
    mirror::{events, upstream, upstreams},
    parts::Problem,
    processes,
    provision::{relay, relays},
    queues, schedule,
    session::Viewer,
    workers,
};

/// The live part of a page.
pub(super) enum Part {
    Fleet,
    Charts(charts::Shown),
    Relays(relays::Shown),
    Relay(String),
    Queues,
    Workers(workers::Shown),
    Processes(processes::Shown),
    Schedule,
    Jobs(jobs::Shown),
    Job(String),
    Upstreams(upstreams::Shown),
    Upstream(String),
    Events,
    Repos(repos::Shown),
    Repo(repo::Shown),
    Followed(followed::Shown),
    FollowedRelay(String),
    Parked(parked::Shown),
}

impl Part {
    pub(super) async fn render(
        &self,
        dashboard: &Dashboard,
        viewer: &Viewer,
    ) -> Result<Markup, Problem> {
        Ok(match self {
            Self::Fleet => fleet::live(dashboard, viewer).await?,
            Self::Charts(shown) => charts::live(dashboard, *shown).await?,
            Self::Relays(shown) => relays::table(dashboard, shown).await?,
            Self::Relay(id) => {
                relay::live(dashboard, &relay::find(dashboard, id).await?, viewer).await?
            }
            Self::Queues => queues::live(dashboard, viewer).await?,
            Self::Workers(shown) => workers::live(dashboard, shown).await?,
            Self::Processes(shown) => processes::live(dashboard, shown, viewer).await?,
            Self::Schedule => schedule::live(dashboard, viewer).await?,
            Self::Jobs(shown) => jobs::live(dashboard, shown, viewer).await?,
            Self::Job(id) => one::live(dashboard, &one::find(dashboard, id).await?, viewer).await?,
            Self::Upstreams(shown) => upstreams::table(dashboard, shown).await?,
            Self::Upstream(id) => {
                upstream::live(dashboard, &upstream::find(dashboard, id).await?, viewer).await?
            }
            Self::Events => events::live(dashboard).await?,
            Self::Repos(shown) => repos::live(dashboard, shown).await?,
            Self::Repo(shown) => {
                repo::live(&dashboard.db, &repo::find(&dashboard.db, &shown.address).await?).await?
            }
            Self::Followed(shown) => followed::live(dashboard, shown).await?,
            Self::FollowedRelay(id) => {
                let one = followed_relay::find(dashboard, id).await?;
                followed_relay::live(&dashboard.db, &one, viewer).await?
            }
            Self::Parked(shown) => parked::live(dashboard, shown).await?,
        })
    }
}

/// What a stream is opened with.
pub(in crate::dashboard) struct Opening {
    dashboard: Dashboard,
    viewer: Viewer,
    headers: HeaderMap,
}

impl FromRequestParts<Dashboard> for Opening {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Dashboard) -> Result<Self, Problem> {
        let viewer = Viewer::from_request_parts(parts, dashboard).await?;
        Ok(Self { dashboard: dashboard.clone(), viewer, headers: parts.headers.clone() })
    }
}

impl Opening {
    fn open(self, part: Part) -> Answer {
        open(self.dashboard, self.viewer, self.headers, part)
    }
}

pub(super) type Answer = Result<Response, Problem>;

pub(in crate::dashboard) async fn fleet(opening: Opening) -> Answer {
    opening.open(Part::Fleet)
}

pub(in crate::dashboard) async fn charts(
    opening: Opening,
    Query(shown): Query<charts::Shown>,
) -> Answer {
    opening.open(Part::Charts(shown))
}

pub(in crate::dashboard) async fn relays(
    opening: Opening,
    Query(shown): Query<relays::Shown>,
) -> Answer {
    opening.open(Part::Relays(shown))
}

pub(in crate::dashboard) async fn relay(opening: Opening, Path(id): Path<String>) -> Answer {
    relay::find(&opening.dashboard, &id).await?;
    opening.open(Part::Relay(id))
}

pub(in crate::dashboard) async fn queues(opening: Opening) -> Answer {
    opening.open(Part::Queues)
}

pub(in crate::dashboard) async fn workers(
    opening: Opening,
    Query(shown): Query<workers::Shown>,
) -> Answer {
    opening.open(Part::Workers(shown))
}

pub(in crate::dashboard) async fn processes(
    opening: Opening,
    Query(shown): Query<processes::Shown>,
) -> Answer {
    opening.open(Part::Processes(shown))
}

pub(in crate::dashboard) async fn schedule(opening: Opening) -> Answer {
    opening.open(Part::Schedule)
}

pub(in crate::dashboard) async fn jobs(
    opening: Opening,
    Query(shown): Query<jobs::Shown>,
) -> Answer {
    opening.open(Part::Jobs(shown))
}

pub(in crate::dashboard) async fn job(opening: Opening, Path(id): Path<String>) -> Answer {
    one::find(&opening.dashboard, &id).await?;
    opening.open(Part::Job(id))
}

pub(in crate::dashboard) async fn upstreams(
    opening: Opening,
    Query(shown): Query<upstreams::Shown>,
) -> Answer {
    opening.open(Part::Upstreams(shown))
}

pub(in crate::dashboard) async fn upstream(opening: Opening, Path(id): Path<String>) -> Answer {
    upstream::find(&opening.dashboard, &id).await?;
    opening.open(Part::Upstream(id))
}

pub(in crate::dashboard) async fn events(opening: Opening) -> Answer {
    opening.open(Part::Events)
}

pub(in crate::dashboard) async fn repos(
    opening: Opening,
    Query(shown): Query<repos::Shown>,
) -> Answer {
    opening.open(Part::Repos(shown))
}

pub(in crate::dashboard) async fn repo(
    opening: Opening,
    Query(shown): Query<repo::Shown>,
) -> Answer {
    repo::find(&opening.dashboard.db, &shown.address).await?;
    opening.open(Part::Repo(shown))
}

pub(in crate::dashboard) async fn followed(
    opening: Opening,
    Query(shown): Query<followed::Shown>,
) -> Answer {
    opening.open(Part::Followed(shown))
}

pub(in crate::dashboard) async fn followed_relay(
    opening: Opening,
    Path(id): Path<String>,
) -> Answer {
    followed_relay::find(&opening.dashboard, &id).await?;
    opening.open(Part::FollowedRelay(id))
}

pub(in crate::dashboard) async fn parked(
    opening: Opening,
    Query(shown): Query<parked::Shown>,
) -> Answer {
    opening.open(Part::Parked(shown))
}
