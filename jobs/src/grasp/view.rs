//! What people see of the wing. Commands, pages, the API and metrics read the same rows here; each list
//! is bounded, and its cost does not grow with what it leaves out.

mod batch;
mod missing;
mod overview;
mod parked;
mod plan;
mod relay;
mod repo;
mod resync;
mod service;
mod state;
mod timeline;
mod trouble;

pub use batch::{BatchCount, BatchRow, GapRow, batch_counts, batches, gaps};
pub use missing::{MissingRow, missing, missing_of};
pub use overview::{Coverage, Decision, Overview, decisions, overview, processes};
pub use parked::{ParkedGroup, ParkedRow, ParkedSearch, parked, parked_groups};
pub use plan::{PlannedBatch, plan};
pub use relay::{Minute, RelayRow, RelaySearch, minutes, relay, relays};
pub use repo::{RepoRelay, RepoRow, RepoSearch, RootRow, repo, repo_relays, repos, roots};
pub use resync::request_resync;
pub use service::{ServiceRow, service, services};
pub use state::RelayState;
pub use timeline::{Moment, timeline};
pub use trouble::{Trouble, troubles};

/// The most rows that a list returns, whatever its caller asks for.
const MOST: i64 = 50_000;

/// Returns a text that `ilike` finds anywhere, with its special characters escaped.
fn anywhere(text: &str) -> String {
    let escaped = text.replace('\\', r"\\").replace('%', r"\%").replace('_', r"\_");
    format!("%{escaped}%")
}

/// Whether PostgreSQL can hold the texts; it has none with U+0000, so that nothing matches such a text.
fn are_texts<const N: usize>(texts: [Option<&str>; N]) -> bool {
    texts.into_iter().flatten().all(|text| !text.contains('\0'))
}
